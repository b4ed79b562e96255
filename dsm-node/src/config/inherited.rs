//! Sockets that a launcher left open for this process: taking hold of a descriptor by its number is all that this file
//! does, and `launch` is the other end. One is the rendezvous socket, which the launcher bound for rank 0, so that no
//! port is chosen twice; the other is the node's end of its [channel](crate::witness) to the launcher.

use crate::error::{Error, Result};
use dsm_core::NodeId;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::socket::{getsockopt, sockopt};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// The variable that carries the descriptor's number.
pub(crate) const VARIABLE: &str = "DSM_RENDEZVOUS_FD";

/// The lowest number that a launcher may pass: those below are the standard streams.
const NUMBER_MIN: RawFd = 3;

/// The number names a descriptor of this process once; a second owner would close somebody else's.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// The listening socket with the number `text`, and from now on not inherited any further. `None` if an earlier join of
/// this process took it: then this join is refused for that reason, or binds the address itself.
pub(super) fn listener(text: &str, rank: NodeId) -> Result<Option<OwnedFd>> {
    let refuse = |why: &str| {
        Error::Config(format!(
            "{VARIABLE} is {text:?}, but {why}; only a launcher sets it, for rank 0, to a listening socket that it \
             leaves open: unset it"
        ))
    };
    if rank != NodeId::COORDINATOR {
        return Err(refuse(&format!("this is {rank}")));
    }
    let number: RawFd = text.trim().parse().map_err(|_| refuse("that is not a number"))?;
    if number < NUMBER_MIN {
        return Err(refuse("that is a standard stream"));
    }
    if TAKEN.swap(true, Ordering::AcqRel) {
        return Ok(None);
    }
    let is_listening = |socket: BorrowedFd<'_>| getsockopt(&socket, sockopt::AcceptConn).unwrap_or(false);
    take(number, is_listening).map(Some).ok_or_else(|| {
        TAKEN.store(false, Ordering::Release);
        refuse("there is no listening socket with that number")
    })
}

/// Takes ownership of `number` if it is an open socket and `is_meant` says that it is the one that the launcher left open;
/// it is not inherited any further. The caller sees to it that this is done once per purpose and process.
pub(crate) fn take(number: RawFd, is_meant: impl FnOnce(BorrowedFd<'_>) -> bool) -> Option<OwnedFd> {
    if number < NUMBER_MIN {
        return None;
    }
    // The link that the kernel keeps for each open descriptor tells sockets from anything else without owning it.
    let link = std::fs::read_link(format!("/proc/self/fd/{number}")).ok()?;
    if !link.to_string_lossy().starts_with("socket:") {
        return None;
    }
    // SAFETY: `number` is open, as its link has just shown, and stays so over the one call that uses the borrow.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    if !is_meant(borrowed) {
        return None;
    }
    // SAFETY: `number` is an open socket of the kind that the launcher left open for this one purpose, so nothing else in
    // this process owns it, and each of the two callers gets here once: its own flag says so.
    let socket = unsafe { OwnedFd::from_raw_fd(number) };
    fcntl(socket.as_fd(), FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).ok()?;
    Some(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::{AsRawFd, IntoRawFd};

    #[test]
    fn only_a_listening_socket_is_taken_and_once() {
        for text in ["", "x", "-1", "1", "1000000"] {
            let message = listener(text, NodeId(0)).expect_err(text).to_string();
            assert!(message.contains(VARIABLE), "{message}");
        }
        let listening = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let connected = TcpStream::connect(listening.local_addr().expect("bound")).expect("reachable");
        assert!(listener(&connected.as_raw_fd().to_string(), NodeId(0)).is_err());
        assert!(connected.peer_addr().is_ok(), "a refused socket stays open");
        let number = listening.into_raw_fd().to_string();
        assert!(listener(&number, NodeId(1)).is_err(), "it is for rank 0");
        let taken = listener(&number, NodeId(0)).expect("it is there").expect("a listening socket");
        assert_eq!(taken.as_raw_fd().to_string(), number);
        assert!(listener(&number, NodeId(0)).expect("no error of its own").is_none(), "it is taken once");
    }
}
