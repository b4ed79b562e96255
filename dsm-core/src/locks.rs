//! The lock service of this home: who holds each lock, and who waits for it, first come first served. Nobody spins on
//! shared memory; a waiting thread costs one queue entry.

use crate::action::Cause;
use crate::copyset::Copyset;
use crate::ids::{LockId, NodeId, Ticket};
use crate::limits;
use crate::message::Message;
use crate::outbox::Outbox;
use crate::quota::Quota;
use std::collections::{BTreeMap, VecDeque};

/// The locks homed at this node that are held.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct Locks {
    held: BTreeMap<LockId, Lock>,
    /// Locks whose holder died with them, until the next has them.
    orphaned: BTreeMap<LockId, NodeId>,
    /// Locks held and waited for, by node.
    quota: Quota,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Lock {
    holder: Ticket,
    waiting: VecDeque<Ticket>,
}

impl Locks {
    /// A call wants `lock`. A node that has more calls here than it may is denied the lock.
    pub fn request(
        &mut self,
        lock: LockId,
        ticket: Ticket,
        wait: bool,
        out: &mut Outbox<'_>,
    ) -> Result<(), Cause> {
        let Some(state) = self.held.get_mut(&lock) else {
            if !self.quota.take(ticket.node) {
                out.send(ticket.node, Message::LockDenied { lock, ticket, holder: ticket.node });
                return Ok(());
            }
            self.held.insert(lock, Lock { holder: ticket, waiting: VecDeque::new() });
            let recovered = self.orphaned.remove(&lock);
            out.send(ticket.node, Message::LockGrant { lock, ticket, recovered });
            return Ok(());
        };
        if state.holder == ticket || state.waiting.contains(&ticket) {
            return Err(Cause::OutOfTurn);
        }
        if wait && state.waiting.len() < limits::LOCK_WAITERS_MAX && self.quota.take(ticket.node) {
            state.waiting.push_back(ticket);
        } else {
            out.send(ticket.node, Message::LockDenied { lock, ticket, holder: state.holder.node });
        }
        Ok(())
    }

    /// A waiting call gives up. If it holds the lock by now, the grant is under way, and the caller will have it.
    pub fn withdraw(&mut self, lock: LockId, ticket: Ticket, out: &mut Outbox<'_>) {
        let Some(state) = self.held.get_mut(&lock) else { return };
        let before = state.waiting.len();
        state.waiting.retain(|waiting| *waiting != ticket);
        if state.waiting.len() < before {
            self.quota.give_back(ticket.node);
            out.send(ticket.node, Message::LockDenied { lock, ticket, holder: state.holder.node });
        }
    }

    /// The holder is done.
    pub fn release(&mut self, lock: LockId, ticket: Ticket, out: &mut Outbox<'_>) -> Result<(), Cause> {
        let state = self.held.get_mut(&lock).ok_or(Cause::OutOfTurn)?;
        if state.holder != ticket {
            return Err(Cause::OutOfTurn);
        }
        self.quota.give_back(ticket.node);
        match state.waiting.pop_front() {
            Some(next) => {
                state.holder = next;
                out.send(next.node, Message::LockGrant { lock, ticket: next, recovered: None });
            }
            None => {
                self.held.remove(&lock);
            }
        }
        Ok(())
    }

    /// Another view: who holds what is told anew, and who waits asks anew. What is known of the dead stays.
    pub fn install(&mut self, members: Copyset) {
        self.quota = Quota::default();
        for (lock, state) in core::mem::take(&mut self.held) {
            if !members.contains(state.holder.node) {
                self.orphaned.insert(lock, state.holder.node);
            }
        }
    }

    /// A member holds `lock`.
    pub fn restore(&mut self, lock: LockId, holder: Ticket) {
        self.orphaned.remove(&lock);
        // It holds the lock, whatever else it holds.
        self.quota.take(holder.node);
        self.held.insert(lock, Lock { holder, waiting: VecDeque::new() });
    }

    /// Whether no lock is held.
    pub fn is_quiet(&self) -> bool {
        self.held.is_empty()
    }
}
