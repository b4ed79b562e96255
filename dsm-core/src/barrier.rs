//! What the coordinator counts: who has reached the barrier, and whose program is done.

use crate::action::Cause;
use crate::copyset::Copyset;
use crate::ids::{NodeId, ViewId};
use crate::message::Message;
use crate::outbox::Outbox;

/// The coordinator's counts.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Barrier {
    members: Copyset,
    view: ViewId,
    generation: u64,
    arrived: Copyset,
    left: Copyset,
}

impl Barrier {
    /// The counts in a view whose members have passed `generation` barriers, and of whom `left` are done.
    pub fn new(members: Copyset, view: ViewId, generation: u64, left: Copyset) -> Barrier {
        Barrier { members, view, generation, arrived: Copyset::EMPTY, left }
    }

    /// The members have changed: perhaps all that are left are done, since who was not is gone.
    pub fn resume(&mut self, out: &mut Outbox<'_>) {
        if self.members.minus(self.left).is_empty() {
            self.complete_leave(out);
        }
    }

    /// A node reached the barrier.
    pub fn arrive(&mut self, from: NodeId, generation: u64, out: &mut Outbox<'_>) -> Result<(), Cause> {
        if generation != self.generation || self.arrived.contains(from) || self.left.contains(from) {
            return Err(Cause::OutOfTurn);
        }
        self.arrived = self.arrived.with(from);
        self.settle(out);
        Ok(())
    }

    /// A node's program is done. It goes on serving its pages until all are, but no barrier waits for it.
    pub fn leave(&mut self, from: NodeId, out: &mut Outbox<'_>) -> Result<(), Cause> {
        if self.left.contains(from) || self.arrived.contains(from) {
            return Err(Cause::OutOfTurn);
        }
        self.left = self.left.with(from);
        if self.members.minus(self.left).is_empty() {
            self.complete_leave(out);
        } else {
            self.settle(out);
        }
        Ok(())
    }

    fn complete_leave(&self, out: &mut Outbox<'_>) {
        for member in self.members.iter() {
            out.send(member, Message::LeaveComplete);
        }
    }

    fn settle(&mut self, out: &mut Outbox<'_>) {
        let awaited = self.members.minus(self.left).minus(self.arrived);
        if !awaited.is_empty() || self.arrived.is_empty() {
            return;
        }
        for member in self.arrived.iter() {
            out.send(member, Message::BarrierComplete { generation: self.generation, view: self.view });
        }
        self.arrived = Copyset::EMPTY;
        self.generation += 1;
    }

    /// Whether nobody waits in the barrier.
    pub fn is_quiet(&self) -> bool {
        self.arrived.is_empty()
    }
}
