//! Giving up what a process may do, before it joins.

use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::{Gid, Uid, setgid, setgroups, setuid};

/// The user and group that own nothing.
const NOBODY: u32 = 65534;

/// Makes this process one of the user nobody. A process that is not root's is unprivileged already.
pub(super) fn become_nobody() {
    if !Uid::effective().is_root() {
        return;
    }
    setgroups(&[]).expect("root may give up groups");
    setgid(Gid::from_raw(NOBODY)).expect("root may become any group");
    setuid(Uid::from_raw(NOBODY)).expect("root may become any user");
    // The change of user took two settings away: that the process ends with its launcher, and that it may look at
    // itself in /proc, as one that was nobody's from its start may.
    prctl::set_pdeathsig(Signal::SIGKILL).expect("a process may say how it ends");
    prctl::set_dumpable(true).expect("a process may show itself");
}

/// Makes the kernel refuse userfaultfd(2) to this process and all that it starts, as a strict container does.
pub(super) fn forbid_userfaultfd() {
    prctl::set_no_new_privs().expect("a process may give up privileges");
    let filter = filter();
    let program =
        libc::sock_fprog { len: filter.len() as libc::c_ushort, filter: filter.as_ptr().cast_mut() };
    // SAFETY: the program is live, as long as its length says, and the kernel copies it; no new privileges can be
    // had, which is what this asks for.
    let answer = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
    assert_eq!(answer, 0, "a filter of system calls can be set: {}", std::io::Error::last_os_error());
}

/// Refuses one system call, and allows all others.
fn filter() -> [libc::sock_filter; 4] {
    const LOAD_WORD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    const JUMP_IF_EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    const RETURN: u32 = libc::BPF_RET | libc::BPF_K;
    let step = |code: u32, jf: u8, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf, k };
    let refuse = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
    [
        // The number of the call is the first word of what the filter sees.
        step(LOAD_WORD, 0, 0),
        step(JUMP_IF_EQUAL, 1, libc::SYS_userfaultfd as u32),
        step(RETURN, 0, refuse),
        step(RETURN, 0, libc::SECCOMP_RET_ALLOW),
    ]
}
