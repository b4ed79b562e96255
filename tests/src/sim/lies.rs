//! The lies of those mutants that are faults of the network: messages that are lost, forged, or say what is not so.

use super::mutant::Mutant;
use super::network::INSTANT;
use super::queue::Happening;
use super::world::World;
use dsm_core::{Message, NodeId, PageId, RootAnswer, SpanRange, TransactionId, ViewId};
use std::collections::BTreeSet;

/// What a lying network remembers.
#[derive(Default)]
pub struct Lies {
    /// Messages that came before they were sent, and that must not come twice.
    forged: BTreeSet<(NodeId, Kind, PageId, TransactionId)>,
    /// A span that was leased.
    leased: Option<SpanRange>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Ack,
    Confirm,
}

impl World {
    /// What a lying network does about a message; `true` if the message itself is lost.
    pub(super) fn lies(&mut self, mutant: Mutant, from: NodeId, to: NodeId, message: &Message) -> bool {
        self.lies_about_pages(mutant, from, to, message)
            || self.lies_about_services(mutant, from, to, message)
    }

    fn lies_about_pages(&mut self, mutant: Mutant, from: NodeId, to: NodeId, message: &Message) -> bool {
        match (mutant, message) {
            (Mutant::DropsInvalidate, Message::Invalidate { .. }) => true,
            (Mutant::AcksEarly, &Message::Invalidate { page, transaction }) => {
                self.network.lies.forged.insert((to, Kind::Ack, page, transaction));
                self.forge(to, transaction.node, Message::Ack { page, transaction, custody: None });
                false
            }
            (Mutant::AcksEarly, &Message::Ack { page, transaction, .. }) => {
                self.network.lies.forged.remove(&(from, Kind::Ack, page, transaction))
            }
            (Mutant::ConfirmsEarly, &Message::Grant { page, transaction, .. }) => {
                let home = self.plan.geometry.home_of(page, self.plan.members);
                if home != to {
                    self.network.lies.forged.insert((to, Kind::Confirm, page, transaction));
                    self.forge(to, home, Message::Confirm { page, transaction });
                }
                false
            }
            (Mutant::ConfirmsEarly, &Message::Confirm { page, transaction }) => {
                self.network.lies.forged.remove(&(from, Kind::Confirm, page, transaction))
            }
            (_, _) => false,
        }
    }

    fn lies_about_services(&mut self, mutant: Mutant, from: NodeId, to: NodeId, message: &Message) -> bool {
        match (mutant, message) {
            (Mutant::ReleasesEarly, &Message::LockGrant { lock, ticket, .. }) => {
                self.forge(to, from, Message::LockRelease { lock, ticket });
                false
            }
            (Mutant::ReleasesEarly, Message::LockRelease { .. }) => true,
            (Mutant::PassesBarrierAlone, &Message::BarrierArrive { generation }) => {
                let view = ViewId::FIRST;
                self.forge(to, from, Message::BarrierComplete { generation, view });
                false
            }
            (Mutant::LeavesAlone, Message::LeaveArrive) => {
                self.forge(to, from, Message::LeaveComplete);
                false
            }
            (Mutant::CreatesRootsTwice, &Message::RootAnswered { ticket, answer: RootAnswer::Found(_) }) => {
                self.forge(from, to, Message::RootAnswered { ticket, answer: RootAnswer::Create });
                true
            }
            (Mutant::LeasesTwice, &Message::SpanLeased { ticket, span }) => {
                let before = *self.network.lies.leased.get_or_insert(span);
                self.forge(
                    from,
                    to,
                    Message::SpanLeased { ticket, span: SpanRange { first: before.first, ..span } },
                );
                true
            }
            (Mutant::LosesFrees, Message::Free { .. }) => true,
            (_, _) => false,
        }
    }

    fn forge(&mut self, from: NodeId, to: NodeId, message: Message) {
        let at = self.now + INSTANT;
        self.queue.schedule(at, Happening::Delivered { from, to, message, body: None });
    }
}
