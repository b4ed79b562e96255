//! A command that the kernel refuses userfaultfd to in every way, as a strict container does.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

/// The user and group that own nothing, and so cannot open the device either.
const NOBODY: u32 = 65534;

/// Runs `program` as nobody, and with a filter of system calls.
pub fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::null());
    // SAFETY: the call takes nothing and cannot fail.
    if unsafe { libc::geteuid() } == 0 {
        command.uid(NOBODY).gid(NOBODY);
    }
    // SAFETY: between fork and exec the closure makes two system calls on memory of its own stack: it allocates
    // nothing and takes no lock.
    unsafe { command.pre_exec(refuse_userfaultfd) };
    command
}

fn refuse_userfaultfd() -> io::Result<()> {
    const LOAD_WORD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    const JUMP_IF_EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    const RETURN: u32 = libc::BPF_RET | libc::BPF_K;
    let step = |code: u32, jf: u8, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf, k };
    let filter = [
        // The number of the call is the first word of what the filter sees.
        step(LOAD_WORD, 0, 0),
        step(JUMP_IF_EQUAL, 1, libc::SYS_userfaultfd as u32),
        step(RETURN, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        step(RETURN, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
    // SAFETY: the first call takes numbers; the second reads the program, which is live and as long as it says.
    let answers = unsafe {
        [
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
            libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program),
        ]
    };
    if answers == [0, 0] { Ok(()) } else { Err(io::Error::last_os_error()) }
}
