//! A network that misbehaves, for tests: between a link and its socket, it delays bytes, cuts calls short, resets
//! connections in the middle of frames, loses what was "sent", and lets bytes of old connections come late and again.
//!
//! ```text
//!  link ── Stream ── Tap ── socket        one tap per end of a connection; without a nemesis there is none
//!                     │
//!                  Nemesis                one per process: plan, routes, frames to replay, counts
//! ```
//! Nothing but a program's own call installs it, before it joins: no variable, no configuration, no message can. What it
//! does is decided by the seed, the two ranks, the number of the connection, the direction, and the offset of the byte;
//! never by the time. What only a network that breaks its own rules would do, such as flipping bits, it does not do.

mod cursor;
mod history;
mod late;
mod plan;
mod schedule;
mod tap;
#[cfg(test)]
mod tests;

pub use plan::Plan;
pub(crate) use plan::Side;
pub(crate) use tap::Tap;

use crate::error::{Error, Result};
use dsm_core::NodeId;
use dsm_core::limits::NODES_MAX;
use history::History;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

static INSTALLED: OnceLock<Arc<Nemesis>> = OnceLock::new();

/// A route that is open. Any other value is the moment at which it opens again.
const OPEN: u64 = 0;

/// A route that stays closed until it is opened by a call.
const CLOSED: u64 = u64::MAX;

/// What stands between this process and its peers.
#[derive(Debug)]
pub struct Nemesis {
    plan: Plan,
    began: Instant,
    peers: Vec<Peer>,
    tally: Tally,
}

/// What is the same for all connections with one peer.
#[derive(Debug, Default)]
struct Peer {
    /// Connections so far, failed ones included.
    connections: AtomicU32,
    /// Until when nothing goes to the peer, in nanoseconds since the beginning.
    to: AtomicU64,
    /// Until when nothing comes from the peer.
    from: AtomicU64,
    /// The next frame to the peer is lost with its connection.
    loses_next: AtomicBool,
    history: Mutex<History>,
}

/// A direction, as this process sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// From this process to the peer.
    To,
    /// From the peer to this process.
    From,
    /// Both.
    Both,
}

/// What a nemesis has done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Deeds {
    /// Connections that it stood between.
    pub connections: u64,
    /// Calls that it cut short.
    pub splits: u64,
    /// Bytes that it held up for a while.
    pub delays: u64,
    /// Connections that it broke.
    pub resets: u64,
    /// Of these, those broken in the middle of a frame.
    pub resets_in_frame: u64,
    /// Of these, those broken in the middle of a page.
    pub resets_in_page: u64,
    /// Of the broken ones, those broken before the nodes had shaken hands.
    pub resets_in_handshake: u64,
    /// Of the broken ones, those broken where the plan aims.
    pub resets_as_aimed: u64,
    /// Bytes that a link took for sent, or a peer had sent, and that nobody ever saw.
    pub bytes_lost: u64,
    /// Bytes that came after their connection had broken at the sender.
    pub bytes_late: u64,
    /// Frames that came again, on a later connection or later on the same.
    pub replays: u64,
    /// Of these, those that came before one that was sent earlier.
    pub reordered: u64,
    /// Frames of an earlier connection that came before their turn. Each costs its connection, and is counted as a bad
    /// frame by the peer, if it gets there.
    pub gaps: u64,
    /// Times in which nothing passed, one way or both.
    pub partitions: u64,
}

impl Deeds {
    /// All of them, by name.
    #[must_use]
    pub fn entries(&self) -> [(&'static str, u64); 14] {
        [
            ("connections", self.connections),
            ("splits", self.splits),
            ("delays", self.delays),
            ("resets", self.resets),
            ("resets_in_frame", self.resets_in_frame),
            ("resets_in_page", self.resets_in_page),
            ("resets_in_handshake", self.resets_in_handshake),
            ("resets_as_aimed", self.resets_as_aimed),
            ("bytes_lost", self.bytes_lost),
            ("bytes_late", self.bytes_late),
            ("replays", self.replays),
            ("reordered", self.reordered),
            ("gaps", self.gaps),
            ("partitions", self.partitions),
        ]
    }
}

#[derive(Debug, Default)]
struct Tally(Mutex<Deeds>);

impl Tally {
    fn note(&self, change: impl FnOnce(&mut Deeds)) {
        change(&mut self.0.lock());
    }
}

impl Nemesis {
    /// Puts a nemesis between this process and every peer that it connects to from now on: before it joins.
    ///
    /// # Errors
    /// If there is one already.
    pub fn install(plan: Plan) -> Result<Arc<Nemesis>> {
        let nemesis = Nemesis::new(plan);
        INSTALLED
            .set(Arc::clone(&nemesis))
            .map_err(|_| Error::Config(String::from("this process has a nemesis already")))?;
        Ok(nemesis)
    }

    fn new(plan: Plan) -> Arc<Nemesis> {
        let peers = (0..NODES_MAX).map(|_| Peer::default()).collect();
        Arc::new(Nemesis { plan, began: Instant::now(), peers, tally: Tally::default() })
    }

    /// What it has done so far.
    pub fn deeds(&self) -> Deeds {
        *self.tally.0.lock()
    }

    /// Lets nothing pass between this process and `peer` until [`Nemesis::open`]. To the peer it looks as if this
    /// process had fallen silent; for a network that is cut, tell the peer's nemesis too.
    pub fn close(&self, peer: u32, way: Way) {
        self.set_route(peer, way, CLOSED);
    }

    /// Lets everything pass again.
    pub fn open(&self, peer: u32, way: Way) {
        self.set_route(peer, way, OPEN);
    }

    /// Loses the next frame to `peer`, which the link takes for sent, with its connection.
    pub fn lose_next(&self, peer: u32) {
        if let Some(peer) = self.peers.get(peer as usize) {
            peer.loses_next.store(true, Ordering::Release);
        }
    }

    /// As [`Nemesis::close`], for a time.
    fn close_for(&self, peer: NodeId, way: Way, span: Duration) {
        // A closed route stays closed: this is for those that would open by themselves.
        let until = self.now().saturating_add(nanos(span));
        let peer = &self.peers[peer.index()];
        for (route, _) in peer.routes(way) {
            let _ = route.fetch_max(until, Ordering::AcqRel);
        }
        self.tally.note(|deeds| deeds.partitions += 1);
    }

    fn set_route(&self, peer: u32, way: Way, until: u64) {
        let Some(peer) = self.peers.get(peer as usize) else { return };
        for (route, _) in peer.routes(way) {
            route.store(until, Ordering::Release);
        }
    }

    /// Whether nothing passes to or from `peer` at present.
    fn is_closed(&self, peer: NodeId, way: Way) -> bool {
        let closed = |route: &AtomicU64| match route.load(Ordering::Acquire) {
            OPEN => false,
            until => self.now() < until,
        };
        self.peers[peer.index()].routes(way).any(|(route, _)| closed(route))
    }

    fn now(&self) -> u64 {
        nanos(self.began.elapsed())
    }

    /// What stands between this process, which is `me`, and `peer` on their next connection.
    fn tap(self: &Arc<Self>, me: NodeId, peer: NodeId, side: Side) -> Tap {
        let number = self.peers[peer.index()].connections.fetch_add(1, Ordering::Relaxed);
        self.tally.note(|deeds| deeds.connections += 1);
        Tap::new(Arc::clone(self), me, peer, side, number)
    }
}

impl Peer {
    fn routes(&self, way: Way) -> impl Iterator<Item = (&AtomicU64, Way)> {
        let all = [(&self.to, Way::To), (&self.from, Way::From)];
        all.into_iter().filter(move |(_, one)| way == Way::Both || way == *one)
    }
}

/// A tap for a connection between `me` and `peer`, if this process has a nemesis.
pub(super) fn tap(me: NodeId, peer: NodeId, side: Side) -> Option<Tap> {
    INSTALLED.get().map(|nemesis| nemesis.tap(me, peer, side))
}

/// Centuries fit.
fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}
