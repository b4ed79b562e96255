//! The line between a node and its launcher, over which the launcher takes part in the membership as a witness.
//!
//! One pair of connected sockets per node, made by the launcher; the node inherits its end, whose number is in
//! [`VARIABLE`]. One datagram holds one value. A datagram that cannot be sent at once is dropped: what matters to the
//! membership is said again. What the values lead to is the engine's business at the one end, `launch`'s at the other.
//!
//! ```text
//!   launcher                              node
//!     |<-- Formed{members, view, times} ----|   once, when the cluster has formed
//!     |<-- Packet ------------------------->|   what the membership has to say, from then on
//!     |    (end of the connection)          |   one of them is gone
//! ```

use crate::config;
use dsm_core::membership::{ConfigStore, OmniStore, Packet};
use dsm_core::{Member, NodeId, Time, ViewId};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, SockaddrLike, SockaddrStorage, getsockname, getsockopt,
    recv, send, socketpair, sockopt,
};
use nix::time::{ClockId, clock_gettime};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// The variable that carries the number of the node's end.
pub(crate) const VARIABLE: &str = "DSM_WITNESS_FD";

/// The longest datagram. A packet of the membership fits a control message, which is shorter; a view of as many members
/// as a cluster may have takes some 2 KiB.
pub(crate) const DATAGRAM_LENGTH_MAX: usize = 4096;

/// How a cluster's processes agree on views.
pub(crate) type Store = OmniStore;

/// What a node and its launcher say to each other about views.
pub(crate) type WitnessPacket = Packet<<Store as ConfigStore>::Message>;

/// From a node to its launcher.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum ToLauncher {
    /// The cluster has formed. Every node says so once, and before any packet.
    Formed {
        /// The crashes that the view is to survive.
        replicas: u32,
        /// The cluster's lease.
        lease: Duration,
        /// The cluster's time between heartbeats.
        heartbeat: Duration,
        /// Who is in it.
        members: Vec<(NodeId, Member)>,
        /// The first view's number.
        view: ViewId,
    },
    /// What the node's membership says to the witness.
    Packet(WitnessPacket),
}

/// From the launcher to a node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum ToNode {
    /// What the witness says to the node's membership.
    Packet(WitnessPacket),
}

/// The other end is gone: its process has ended, or wants to hear no more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Closed;

/// A node's end.
pub(crate) type Channel = End<ToLauncher, ToNode>;

/// The launcher's end of one node's channel.
pub(crate) type LauncherEnd = End<ToNode, ToLauncher>;

/// One end of a channel, which sends `Out` and receives `In`. Nothing here ever blocks.
pub(crate) struct End<Out, In> {
    socket: OwnedFd,
    /// Whether it was told that the other end is gone.
    closed: AtomicBool,
    /// Datagrams that were too long to send, or that no correct process sends.
    rejected: AtomicU64,
    direction: PhantomData<fn(Out) -> In>,
}

/// A new channel: the launcher's end, and the socket that the node inherits. Both are closed on exec.
pub(crate) fn channel() -> io::Result<(LauncherEnd, OwnedFd)> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let (mine, other) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
    Ok((End::new(mine), other))
}

/// The time as all processes of this machine count it, while it sleeps as well. It is the membership's clock.
///
/// # Panics
/// If the kernel has no such clock; it has had one since long before it had what nodes need.
pub(crate) fn now() -> Time {
    let since_boot = clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from);
    Time::ZERO + since_boot.expect("Linux has this clock since 2.6.39")
}

impl Channel {
    /// The end that this process's launcher left open for it. `None` if there is none, if what is there is no such
    /// socket, or if an earlier join of this process took it: then there is no launcher that can vote.
    pub fn inherit() -> Option<Channel> {
        /// The number names a descriptor of this process once; a second owner would close somebody else's.
        static TAKEN: AtomicBool = AtomicBool::new(false);
        let number = std::env::var(VARIABLE).ok()?.trim().parse().ok()?;
        if TAKEN.swap(true, Ordering::AcqRel) {
            return None;
        }
        config::take_inherited(number, is_channel).map(End::new)
    }
}

/// Whether `socket` can be one end of a channel.
fn is_channel(socket: BorrowedFd<'_>) -> bool {
    let family = getsockname::<SockaddrStorage>(socket.as_raw_fd()).ok().and_then(|name| name.family());
    let kind = getsockopt(&socket, sockopt::SockType);
    family == Some(AddressFamily::Unix) && kind == Ok(SockType::SeqPacket)
}

impl<Out: Serialize, In: DeserializeOwned> End<Out, In> {
    /// The end that `socket` is.
    pub fn new(socket: OwnedFd) -> End<Out, In> {
        End { socket, closed: AtomicBool::new(false), rejected: AtomicU64::new(0), direction: PhantomData }
    }

    /// Sends `value`, or drops it: when the other end has not read what came before, or is gone.
    pub fn send(&self, value: &Out) {
        let datagram = postcard::to_allocvec(value).unwrap_or_default();
        if !(1..=DATAGRAM_LENGTH_MAX).contains(&datagram.len()) {
            self.rejected.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        while send(self.socket.as_raw_fd(), &datagram, flags) == Err(Errno::EINTR) {}
    }

    /// The next value that came, if one is there. Datagrams that cannot be read are counted and passed over. That the
    /// other end is gone is told once, after all that it had sent; from then on the socket stays readable for ever, so
    /// whoever polls it must stop.
    pub fn receive(&self) -> Option<Result<In, Closed>> {
        // One byte more than there may be shows what is too long.
        let mut datagram = [0; DATAGRAM_LENGTH_MAX + 1];
        loop {
            match recv(self.socket.as_raw_fd(), &mut datagram, MsgFlags::MSG_DONTWAIT) {
                Ok(0) => return self.close(),
                Ok(length) => match datagram.get(..length).and_then(read_whole) {
                    Some(value) => return Some(Ok(value)),
                    None => self.rejected.fetch_add(1, Ordering::Relaxed),
                },
                Err(Errno::EINTR) => continue,
                Err(Errno::EAGAIN) => return None,
                // What is left when the other end was closed with something unread, or else nothing of use.
                Err(_) => return self.close(),
            };
        }
    }

    /// Datagrams that were too long to send, or that no correct process sends.
    #[cfg(test)]
    pub fn rejected(&self) -> u64 {
        self.rejected.load(Ordering::Relaxed)
    }

    fn close(&self) -> Option<Result<In, Closed>> {
        let was_closed = self.closed.swap(true, Ordering::Relaxed);
        (!was_closed).then_some(Err(Closed))
    }
}

/// The one value that `datagram` holds, if it holds nothing else.
fn read_whole<In: DeserializeOwned>(datagram: &[u8]) -> Option<In> {
    if datagram.len() > DATAGRAM_LENGTH_MAX {
        return None;
    }
    let (value, rest) = postcard::take_from_bytes(datagram).ok()?;
    rest.is_empty().then_some(value)
}

impl<Out, In> AsFd for End<Out, In> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dsm_core::limits::NODES_MAX;
    use dsm_core::membership::Body;
    use dsm_core::{Copyset, Host, Incarnation};

    fn pair() -> (LauncherEnd, Channel) {
        let (launcher, node) = channel().expect("sockets");
        (launcher, End::new(node))
    }

    fn packet(view: u64) -> WitnessPacket {
        Packet { view: ViewId(view), incarnation: Incarnation(u64::MAX), body: Body::Fetch }
    }

    /// The view that the received packet is of.
    fn view_of(received: Option<Result<ToNode, Closed>>) -> u64 {
        match received {
            Some(Ok(ToNode::Packet(packet))) => packet.view.0,
            other => panic!("no packet: {other:?}"),
        }
    }

    #[test]
    fn the_largest_cluster_fits_one_datagram() {
        let (launcher, node) = pair();
        let buddies = (0..NODES_MAX as u16).map(NodeId).collect::<Copyset>();
        let member = Member { incarnation: Incarnation(u64::MAX), host: Host(u64::MAX), buddies };
        let said: Vec<_> = (0..NODES_MAX as u16).map(|rank| (NodeId(rank), member)).collect();
        node.send(&ToLauncher::Formed {
            replicas: u32::MAX,
            lease: Duration::MAX,
            heartbeat: Duration::MAX,
            members: said.clone(),
            view: ViewId(u64::MAX),
        });
        match launcher.receive() {
            Some(Ok(ToLauncher::Formed { members, .. })) => assert_eq!(members, said),
            other => panic!("no view came: {other:?}"),
        }
        assert_eq!(node.rejected(), 0);
    }

    #[test]
    fn packets_come_in_order_and_their_end_once() {
        let (launcher, node) = pair();
        assert!(node.receive().is_none(), "nothing was sent, and nobody waits");
        (1..=3).for_each(|view| launcher.send(&ToNode::Packet(packet(view))));
        drop(launcher);
        node.send(&ToLauncher::Packet(packet(1)));
        let views: Vec<u64> = (0..3).map(|_| view_of(node.receive())).collect();
        assert_eq!(views, [1, 2, 3]);
        assert!(matches!(node.receive(), Some(Err(Closed))));
        assert!(node.receive().is_none());
    }

    #[test]
    fn what_was_not_read_when_an_end_closed_hides_its_end_from_nobody() {
        let (launcher, node) = pair();
        node.send(&ToLauncher::Packet(packet(1)));
        drop(launcher);
        assert!(matches!(node.receive(), Some(Err(Closed))));
        assert!(node.receive().is_none());
    }

    #[test]
    fn a_full_channel_drops_what_is_new() {
        let (launcher, node) = pair();
        const MORE_THAN_FITS: u64 = 100_000;
        (0..MORE_THAN_FITS).for_each(|view| launcher.send(&ToNode::Packet(packet(view))));
        let mut count = 0;
        while let Some(received) = node.receive() {
            assert_eq!(view_of(Some(received)), count, "what came is a beginning of what was sent");
            count += 1;
        }
        assert!((1..MORE_THAN_FITS).contains(&count), "{count} fit");
    }

    #[test]
    fn what_cannot_be_read_is_passed_over() {
        let (launcher, node) = pair();
        let raw = |bytes: &[u8]| send(launcher.socket.as_raw_fd(), bytes, MsgFlags::empty()).expect("fits");
        let good = postcard::to_allocvec(&ToNode::Packet(packet(7))).expect("in memory");
        raw(&[0xff; 9]);
        raw(&[&good[..], &[0]].concat());
        raw(&good[..good.len() - 1]);
        raw(&vec![0; 2 * DATAGRAM_LENGTH_MAX]);
        raw(&good);
        assert_eq!(view_of(node.receive()), 7);
        assert_eq!(node.rejected(), 4);
    }

    #[test]
    fn nothing_else_passes_for_a_channel() {
        let (_launcher, node) = pair();
        assert!(is_channel(node.as_fd()));
        let (stream, _other) = std::os::unix::net::UnixStream::pair().expect("sockets");
        assert!(!is_channel(stream.as_fd()));
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        assert!(!is_channel(tcp.as_fd()));
        let file = std::fs::File::open("/proc/self/exe").expect("it runs");
        assert!(!is_channel(file.as_fd()));
    }

    #[test]
    fn the_clock_goes_on() {
        let before = now();
        assert!(before > Time::ZERO);
        assert!(now() >= before);
    }
}
