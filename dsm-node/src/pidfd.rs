//! Descriptors of processes: each becomes readable when its process has ended, and never speaks of another one that got
//! the same number later.
//!
//! The kernel makes it readable when it has freed all that the process had: of a hundred mebibytes that takes some forty
//! milliseconds. That the process cannot run any more is to be seen before.

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::collections::BTreeSet;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, FromRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

/// A descriptor of the process `pid`, closed on exec.
pub(crate) fn open(pid: u32) -> io::Result<OwnedFd> {
    const NO_FLAGS: libc::c_uint = 0;
    // SAFETY: the call takes two numbers and makes a new descriptor.
    let number = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, NO_FLAGS) };
    let number = Errno::result(number)?;
    let number = RawFd::try_from(number).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made this descriptor for us, so nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Whether the process has ended.
pub(crate) fn has_ended(pidfd: &OwnedFd) -> bool {
    // A call that is interrupted says what was so before.
    poll(&mut [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)], PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}

/// Whether no instruction of the process `pid`, of which `pidfd` is, will ever run again, although it may not have ended
/// yet. `false` also where nobody may tell.
///
/// A thread gives its memory up on its way out, first of all, and never gets any again (`exit_mm` in the kernel's
/// `do_exit`): from then on `/proc` says that it has none. Whoever has none starts no thread. So where no thread of a
/// list has any, and a second list has nobody new, there is none that has: one that was started between them would be in
/// the second, or the one that it started would.
pub(crate) fn cannot_run(pid: u32, pidfd: &OwnedFd) -> bool {
    let process = PathBuf::from(format!("/proc/{pid}"));
    // The leader alone, at first: it is the only one to be looked at of a process that lives.
    if !has_no_memory(&process).unwrap_or(false) {
        return has_ended(pidfd);
    }
    let quiet = || -> io::Result<bool> {
        let threads = threads_of(&process)?;
        for thread in &threads {
            match has_no_memory(thread) {
                Ok(true) => {}
                Ok(false) => return Ok(false),
                // It is gone: then the list of its process was to be had, so this does not mean "you may not see it".
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        // A list may break off where a thread goes while it is made: whoever is counted has to be in it.
        Ok(threads_of(&process)?.is_subset(&threads) && count_of(&process)? == threads.len())
    };
    // If it has not ended by now, nobody has reaped it, and the number was its all the time.
    let quiet = quiet().unwrap_or(false);
    has_ended(pidfd) || quiet
}

/// Whether the thread or process that this directory of `/proc` is about has no memory.
fn has_no_memory(directory: &Path) -> io::Result<bool> {
    match fs::read_to_string(directory.join("statm")) {
        Ok(pages) => Ok(pages.starts_with("0 ")),
        // It ended while it was read.
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(true),
        Err(error) => Err(error),
    }
}

/// How many threads the process has, by its own account.
fn count_of(process: &Path) -> io::Result<usize> {
    let status = fs::read_to_string(process.join("status"))?;
    let count = status.lines().find_map(|line| line.strip_prefix("Threads:"));
    count.and_then(|count| count.trim().parse().ok()).ok_or_else(|| ErrorKind::InvalidData.into())
}

fn threads_of(process: &Path) -> io::Result<BTreeSet<PathBuf>> {
    fs::read_dir(process.join("task"))?.map(|thread| Ok(thread?.path())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::signal::{Signal, kill};
    use nix::sys::wait::waitpid;
    use nix::unistd::Pid;
    use std::process::Command;
    use std::thread;
    use std::time::{Duration, Instant};

    #[test]
    fn it_tells_the_end_of_a_process_before_anybody_has_waited_for_it() {
        let mut child = Command::new("sleep").arg("1000").spawn().expect("there is a sleep(1)");
        let pidfd = open(child.id()).expect("the child was not reaped");
        let readable = |timeout| {
            poll(&mut [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)], timeout).expect("poll works") > 0
        };
        assert!(!readable(PollTimeout::ZERO));
        child.kill().expect("it runs");
        assert!(readable(PollTimeout::MAX));
        child.wait().expect("it is ours");
    }

    /// Waits until `holds`; the test fails if it never does.
    fn await_that(holds: impl Fn() -> bool) {
        let start = Instant::now();
        while !holds() {
            assert!(start.elapsed() < Duration::from_secs(20));
            thread::sleep(Duration::from_micros(100));
        }
    }

    #[test]
    fn a_process_that_was_killed_cannot_run_and_one_that_lives_can() {
        let mut child = Command::new("sleep").arg("1000").spawn().expect("there is a sleep(1)");
        let pidfd = open(child.id()).expect("the child was not reaped");
        assert!(!cannot_run(child.id(), &pidfd));
        child.kill().expect("it runs");
        await_that(|| cannot_run(child.id(), &pidfd));
        child.wait().expect("it is ours");
        assert!(cannot_run(child.id(), &pidfd));
        // Whoever has the number now, it is not the one that the descriptor is of.
        assert!(!cannot_run(std::process::id(), &open(std::process::id()).expect("this process runs")));
    }

    /// A process whose first thread has ended, while another one waits for ever: its number.
    fn leaderless() -> u32 {
        extern "C" fn wait_for_ever(_: *mut libc::c_void) -> libc::c_int {
            loop {
                // SAFETY: it only waits.
                unsafe { libc::pause() };
            }
        }
        const STACK: usize = 64 << 10;
        const FLAGS: libc::c_int = libc::CLONE_VM | libc::CLONE_THREAD | libc::CLONE_SIGHAND;
        // Of words that are aligned as a stack has to be.
        let mut stack = vec![0_u128; STACK / size_of::<u128>()];
        // SAFETY: the child makes two system calls and nothing else before its first thread ends: it neither allocates nor
        // takes a lock.
        let child = unsafe { libc::fork() };
        if child == 0 {
            // SAFETY: the stack is the child's own copy, and is never freed, since the thread that would free it ends in
            // the next call. The function needs no more than a few words of it.
            unsafe {
                let top = stack.as_mut_ptr().add(stack.len());
                libc::clone(wait_for_ever, top.cast(), FLAGS, std::ptr::null_mut());
                libc::syscall(libc::SYS_exit, 0);
            }
        }
        u32::try_from(child).expect("a process can be forked")
    }

    #[test]
    fn a_process_whose_first_thread_has_ended_can_run() {
        let pid = leaderless();
        let pidfd = open(pid).expect("the child was not reaped");
        await_that(|| has_no_memory(&PathBuf::from(format!("/proc/{pid}"))).is_ok_and(|none| none));
        assert!(!cannot_run(pid, &pidfd));
        let child = Pid::from_raw(pid.cast_signed());
        kill(child, Signal::SIGKILL).expect("it runs");
        await_that(|| cannot_run(pid, &pidfd));
        waitpid(child, None).expect("it is ours");
    }
}
