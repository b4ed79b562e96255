//! Descriptors of processes: each becomes readable when its process has ended, and never speaks of another one that got
//! the same number later.

use nix::errno::Errno;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

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

#[cfg(test)]
mod tests {
    use super::*;
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use std::os::fd::AsFd;
    use std::process::Command;

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
}
