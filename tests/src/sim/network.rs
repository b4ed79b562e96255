//! The network: delays, first-in-first-out per ordered pair of nodes as a connection gives it, reordering between
//! pairs, and, in runs whose plan says so, reordering of coherence messages within a pair too.

use super::lies::Lies;
use super::node::Body;
use super::queue::Happening;
use super::world::World;
use dsm_core::{Message, NodeId, Time, limits};
use std::collections::BTreeMap;
use std::time::Duration;

/// The state of all connections.
pub struct Network {
    nodes: usize,
    /// When the latest message of each ordered pair arrives.
    latest: Vec<Time>,
    /// What each ordered pair's sender holds back.
    held_back: BTreeMap<(NodeId, NodeId), Vec<Message>>,
    /// What a lying network remembers.
    pub(super) lies: Lies,
}

/// The gap between two messages of a connection, and the way of a forged one: the shortest there is.
pub(super) const INSTANT: Duration = Duration::from_nanos(1);

impl Network {
    /// Nothing under way between `nodes` nodes.
    #[must_use]
    pub fn new(nodes: usize) -> Network {
        Network {
            nodes,
            latest: vec![Time::ZERO; nodes * nodes],
            held_back: BTreeMap::new(),
            lies: Lies::default(),
        }
    }

    fn latest(&mut self, from: NodeId, to: NodeId) -> &mut Time {
        &mut self.latest[from.index() * self.nodes + to.index()]
    }
}

impl World {
    /// Sends a message on its way, behind what was held back.
    pub(super) fn transmit(&mut self, from: NodeId, to: NodeId, message: Message, body: Option<Body>) {
        self.release(from, to);
        self.put_on_wire(from, to, message, body);
    }

    /// Holds a message back until the next to the same node, or for as long as a node may.
    pub(super) fn hold_back(&mut self, from: NodeId, to: NodeId, message: Message) {
        self.network.held_back.entry((from, to)).or_default().push(message);
        self.queue.schedule(self.now + limits::HOLD_BACK_MAX, Happening::HeldLongEnough { from, to });
    }

    /// Sends what was held back.
    pub(super) fn release(&mut self, from: NodeId, to: NodeId) {
        for message in self.network.held_back.remove(&(from, to)).unwrap_or_default() {
            self.put_on_wire(from, to, message, None);
        }
    }

    fn put_on_wire(&mut self, from: NodeId, to: NodeId, message: Message, body: Option<Body>) {
        self.counts.message(&message);
        self.overheard(to, &message);
        if let Some(mutant) = self.mutant
            && self.lies(mutant, from, to, &message)
        {
            return;
        }
        let mut at = self.now + Duration::from_nanos(self.plan.network.draw(&mut self.rng));
        if !(self.plan.reorders && is_coherence(&message)) {
            let latest = self.network.latest(from, to);
            at = at.max(*latest + INSTANT);
            *latest = at;
        }
        self.queue.schedule(at, Happening::Delivered { from, to, message, body });
    }
}

/// Whether the message is about a page's copies: those may overtake each other, because the home runs one transaction
/// per page at a time and each names its transaction.
fn is_coherence(message: &Message) -> bool {
    matches!(
        message,
        Message::Request { .. }
            | Message::Forward { .. }
            | Message::Invalidate { .. }
            | Message::Ack { .. }
            | Message::Grant { .. }
            | Message::Confirm { .. }
            | Message::Hurry { .. }
            | Message::Lost { .. }
    )
}
