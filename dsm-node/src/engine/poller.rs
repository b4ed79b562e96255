//! What the engine waits on, in one epoll set: nothing spins, and an idle node sleeps in the kernel.

use crate::error::{Error, Result};
use dsm_core::NodeId;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use std::os::fd::AsFd;
use std::time::Duration;

/// Where something happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Source {
    /// Threads faulted.
    Faults,
    /// Application threads want something.
    Orders,
    /// Other threads of the transport found something.
    Incoming,
    /// A timer ran out.
    Timer,
    /// The launcher said something.
    Witness,
    /// A peer's process has ended.
    Death(NodeId),
    /// A peer said something, or its connection broke.
    Readable(NodeId),
    /// A peer's connection takes more bytes.
    Writable(NodeId),
}

/// Tokens below this are the engine's own sources; a peer's token is this plus its rank.
const FIRST_PEER: u64 = 5;

/// The token of a peer's process is this plus its rank: above the tokens of all peers.
const FIRST_PROCESS: u64 = FIRST_PEER + (1 << u16::BITS);

/// Events taken at once. Those beyond wait for the next turn.
const EVENTS_AT_ONCE: usize = 32;

/// The epoll set, and what it reported last.
pub(super) struct Poller {
    epoll: Epoll,
    events: [EpollEvent; EVENTS_AT_ONCE],
}

impl Poller {
    pub fn new() -> Result<Poller> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)
            .map_err(|errno| Error::io("creating the engine's epoll set", errno))?;
        Ok(Poller { epoll, events: [EpollEvent::empty(); EVENTS_AT_ONCE] })
    }

    /// Waits on one of the engine's own descriptors too.
    pub fn watch(&self, source: Source, descriptor: impl AsFd) -> Result<()> {
        let event = EpollEvent::new(EpollFlags::EPOLLIN, token(source));
        self.epoll
            .add(descriptor, event)
            .map_err(|errno| Error::io("adding to the engine's epoll set", errno))
    }

    /// Waits on what `peer` says too.
    pub fn watch_peer(&self, peer: NodeId, descriptor: impl AsFd) -> Result<()> {
        self.watch(Source::Readable(peer), descriptor)
    }

    /// Waits also, or no longer, until the connection to `peer` takes more bytes.
    pub fn want_writable(&self, peer: NodeId, descriptor: impl AsFd, wanted: bool) -> Result<()> {
        let flags = if wanted { EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT } else { EpollFlags::EPOLLIN };
        let mut event = EpollEvent::new(flags, token(Source::Readable(peer)));
        self.epoll
            .modify(descriptor, &mut event)
            .map_err(|errno| Error::io("changing the engine's epoll set", errno))
    }

    /// Waits on a descriptor no longer.
    pub fn forget(&self, descriptor: impl AsFd) {
        // It is in the set, and about to be closed, which would take it out as well.
        let _ = self.epoll.delete(descriptor);
    }

    /// Waits until something happens, for `patience` at most (to the millisecond), and says at how many sources. An
    /// interrupted wait ends with none.
    pub fn wait(&mut self, patience: Option<Duration>) -> Result<usize> {
        let timeout = patience
            .map_or(EpollTimeout::NONE, |span| EpollTimeout::try_from(span).unwrap_or(EpollTimeout::MAX));
        match self.epoll.wait(&mut self.events, timeout) {
            Ok(count) => Ok(count),
            Err(Errno::EINTR) => Ok(0),
            Err(errno) => Err(Error::io("waiting in the engine", errno)),
        }
    }

    /// What the last wait found, the one with this `index`: a peer may be both readable and writable.
    pub fn found(&self, index: usize) -> impl Iterator<Item = Source> + use<> {
        let event = self.events[index];
        let source = source(event.data());
        let writable = match source {
            Source::Readable(peer) if event.events().contains(EpollFlags::EPOLLOUT) => {
                Some(Source::Writable(peer))
            }
            Source::Readable(_)
            | Source::Writable(_)
            | Source::Faults
            | Source::Orders
            | Source::Incoming
            | Source::Timer
            | Source::Witness
            | Source::Death(_) => None,
        };
        // Whatever is not mere readiness to write is found by reading: bytes, the end, or an error.
        let readable = (event.events() != EpollFlags::EPOLLOUT).then_some(source);
        writable.into_iter().chain(readable)
    }
}

fn token(source: Source) -> u64 {
    match source {
        Source::Faults => 0,
        Source::Orders => 1,
        Source::Incoming => 2,
        Source::Timer => 3,
        Source::Witness => 4,
        Source::Death(peer) => FIRST_PROCESS + u64::from(peer.0),
        Source::Readable(peer) | Source::Writable(peer) => FIRST_PEER + u64::from(peer.0),
    }
}

fn source(token: u64) -> Source {
    match token {
        0 => Source::Faults,
        1 => Source::Orders,
        2 => Source::Incoming,
        3 => Source::Timer,
        4 => Source::Witness,
        peer @ FIRST_PROCESS.. => Source::Death(rank(peer - FIRST_PROCESS)),
        peer => Source::Readable(rank(peer - FIRST_PEER)),
    }
}

fn rank(number: u64) -> NodeId {
    NodeId(u16::try_from(number).unwrap_or(u16::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_name_their_sources() {
        for source_in in [
            Source::Faults,
            Source::Orders,
            Source::Incoming,
            Source::Timer,
            Source::Witness,
            Source::Readable(NodeId(0)),
            Source::Readable(NodeId(63)),
            Source::Death(NodeId(0)),
            Source::Death(NodeId(63)),
        ] {
            assert_eq!(source(token(source_in)), source_in);
        }
    }
}
