//! The rendezvous socket of a cluster on this machine: bound by the launcher and inherited by rank 0, so that between
//! choosing a port and listening on it nobody else can take it. `config::inherited` is the other end.

pub(super) use crate::config::RENDEZVOUS_FD as VARIABLE;
use crate::config::TransportKind;
use crate::error::{Error, Result};
use nix::fcntl::{FcntlArg, fcntl};
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

/// A socket for a child has at least this number: its standard streams are put in place before it inherits the socket.
const NUMBER_MIN: RawFd = 10;

/// Tells the names of one process apart.
static NAMES: AtomicU64 = AtomicU64::new(0);

/// A listening socket, and where it can be reached.
pub(super) struct Meeting {
    /// The address as `DSM_RENDEZVOUS` takes it.
    pub address: String,
    /// The socket; closed on exec, but for the one child that clears the flag.
    pub socket: OwnedFd,
}

impl Meeting {
    /// The number under which rank 0 inherits the socket.
    pub fn number(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// A new meeting point for nodes that talk over `transport`.
pub(super) fn bind(transport: TransportKind) -> Result<Meeting> {
    let bound = match transport {
        TransportKind::Tcp => tcp(),
        TransportKind::Unix => unix(),
    };
    bound.map_err(|cause| Error::io(format!("binding a {transport} socket where the nodes meet"), cause))
}

fn tcp() -> io::Result<Meeting> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let address = listener.local_addr()?.to_string();
    Ok(Meeting { address, socket: out_of_the_way(listener.into())? })
}

fn unix() -> io::Result<Meeting> {
    // The process, the time and a count make the name unique. It is no secret: whoever runs on this machine can list
    // the names anyway, and binding fails if somebody else has it.
    let nanos = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos();
    let name = format!("dsm-{}-{nanos:x}-{}", std::process::id(), NAMES.fetch_add(1, Ordering::Relaxed));
    let listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name)?)?;
    Ok(Meeting { address: format!("unix:{name}"), socket: out_of_the_way(listener.into())? })
}

/// The same socket, closed on exec, at a number that a child's standard streams leave free.
pub(super) fn out_of_the_way(socket: OwnedFd) -> io::Result<OwnedFd> {
    let number = fcntl(socket.as_fd(), FcntlArg::F_DUPFD_CLOEXEC(NUMBER_MIN))?;
    // SAFETY: the kernel has just made this descriptor for us, so nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}
