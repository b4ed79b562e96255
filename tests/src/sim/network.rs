//! The network: delays, first-in-first-out per ordered pair of nodes as a connection gives it, reordering between
//! pairs, and, in runs whose plan says so, reordering of coherence messages within a pair too.
//!
//! It also tells the lies of those mutants that are faults of the network.

use super::mutant::Mutant;
use super::node::Body;
use super::queue::Happening;
use super::world::World;
use dsm_core::{Message, NodeId, PageId, Time, TransactionId};
use std::collections::BTreeSet;
use std::time::Duration;

/// The state of all connections.
pub struct Network {
    nodes: usize,
    /// When the latest message of each ordered pair arrives.
    latest: Vec<Time>,
    /// Messages that a mutant delivered before they were sent, and that must not come twice.
    forged: BTreeSet<Forgery>,
}

type Forgery = (NodeId, Kind, PageId, TransactionId);

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Ack,
    Confirm,
}

/// The gap between two messages of a connection, and the way of a forged one: the shortest there is.
const INSTANT: Duration = Duration::from_nanos(1);

impl Network {
    /// Nothing under way between `nodes` nodes.
    #[must_use]
    pub fn new(nodes: usize) -> Network {
        Network { nodes, latest: vec![Time::ZERO; nodes * nodes], forged: BTreeSet::new() }
    }

    fn latest(&mut self, from: NodeId, to: NodeId) -> &mut Time {
        &mut self.latest[from.index() * self.nodes + to.index()]
    }
}

impl World {
    /// Sends a message on its way.
    pub(super) fn transmit(&mut self, from: NodeId, to: NodeId, message: Message, body: Option<Body>) {
        self.counts.message(&message);
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

    /// What a lying network does about a message; `true` if the message itself is lost.
    fn lies(&mut self, mutant: Mutant, from: NodeId, to: NodeId, message: &Message) -> bool {
        match (mutant, message) {
            (Mutant::DropsInvalidate, Message::Invalidate { .. }) => true,
            (Mutant::AcksEarly, &Message::Invalidate { page, transaction }) if to != transaction.node => {
                self.network.forged.insert((to, Kind::Ack, page, transaction));
                self.forge(to, transaction.node, Message::Ack { page, transaction });
                false
            }
            (Mutant::AcksEarly, &Message::Ack { page, transaction }) => {
                self.network.forged.remove(&(from, Kind::Ack, page, transaction))
            }
            (Mutant::ConfirmsEarly, &Message::Grant { page, transaction, .. }) => {
                let home = self.plan.geometry.home_of(page, self.plan.members);
                if home != to {
                    self.network.forged.insert((to, Kind::Confirm, page, transaction));
                    self.forge(to, home, Message::Confirm { page, transaction });
                }
                false
            }
            (Mutant::ConfirmsEarly, &Message::Confirm { page, transaction }) => {
                self.network.forged.remove(&(from, Kind::Confirm, page, transaction))
            }
            (Mutant::ReleasesEarly, &Message::LockGrant { lock, ticket }) => {
                self.forge(to, from, Message::LockRelease { lock, ticket });
                false
            }
            (Mutant::ReleasesEarly, Message::LockRelease { .. }) => true,
            (_, _) => false,
        }
    }

    fn forge(&mut self, from: NodeId, to: NodeId, message: Message) {
        let at = self.now + INSTANT;
        self.queue.schedule(at, Happening::Delivered { from, to, message, body: None });
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
            | Message::Lost { .. }
    )
}
