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
    /// Who held what before the change of the view that is under way; they have not told yet whether they still do.
    untold: BTreeMap<LockId, Lock>,
    /// Locks held and waited for, by node.
    quota: Quota,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Lock {
    holder: Ticket,
    /// Who held it before, if that node died with it. The holder may never have heard of the grant that says so.
    recovered: Option<NodeId>,
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
            let recovered = self.orphaned.remove(&lock);
            self.held.insert(lock, Lock { holder: ticket, recovered, waiting: VecDeque::new() });
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
                state.recovered = None;
                out.send(next.node, Message::LockGrant { lock, ticket: next, recovered: None });
            }
            None => {
                self.held.remove(&lock);
            }
        }
        Ok(())
    }

    /// Another view, to which these have come from the one before: who holds what is told anew, and who waits asks anew.
    /// What is known of the dead stays, also when the members had not told all before the next of them died.
    pub fn install(&mut self, survivors: Copyset) {
        self.quota = Quota::default();
        self.untold.append(&mut self.held);
        let dead = |lock: &Lock| !survivors.contains(lock.holder.node);
        let orphans = self.untold.iter().filter(|(_, lock)| dead(lock));
        self.orphaned.extend(orphans.map(|(&lock, state)| (lock, state.holder.node)));
        self.untold.retain(|_, lock| !dead(lock));
    }

    /// What the home of each lock is to know of the dead: those whose holders died, and those of which a dead holder was
    /// told to one that may not have heard of it.
    pub fn orphans(&self) -> impl Iterator<Item = (LockId, NodeId)> + '_ {
        let untold = self.untold.iter().filter_map(|(&lock, state)| Some((lock, state.recovered?)));
        self.orphaned.iter().map(|(&lock, &dead)| (lock, dead)).chain(untold)
    }

    /// All members have reported: what is known of locks that are homed `here`, is told by them.
    pub fn clear(&mut self, here: impl Fn(LockId) -> bool) {
        self.orphaned.retain(|lock, _| !here(*lock));
        self.untold.retain(|lock, _| !here(*lock));
    }

    /// All members have drawn their conclusions: whoever is home of a lock knows what others knew before, and will know
    /// of its end. Before that, it may have died with what it was told.
    pub fn resume(&mut self, here: impl Fn(LockId) -> bool) {
        self.orphaned.retain(|lock, _| here(*lock));
        self.untold.clear();
    }

    /// The holder of `lock` died with it, as some member knows. Locks that are held have been restored.
    pub fn restore_orphan(&mut self, lock: LockId, dead: NodeId) {
        if !self.held.contains_key(&lock) {
            self.orphaned.entry(lock).or_insert(dead);
        }
    }

    /// A member holds `lock`.
    pub fn restore(&mut self, lock: LockId, holder: Ticket) {
        // It holds the lock, whatever else it holds.
        self.quota.take(holder.node);
        self.held.insert(lock, Lock { holder, recovered: None, waiting: VecDeque::new() });
    }

    /// Whether no lock is held.
    pub fn is_quiet(&self) -> bool {
        self.held.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::action::Action;
    use crate::ids::{Address, CallId};

    const LOCK: LockId = LockId(Address(0x1000));

    fn ticket(node: u16) -> Ticket {
        Ticket { node: NodeId(node), call: CallId(u64::from(node)) }
    }

    /// Node 1 asks, and is told of whose death?
    fn granted(locks: &mut Locks) -> Option<NodeId> {
        let (mut actions, mut to_self) = (Vec::new(), VecDeque::new());
        let mut out = Outbox::new(NodeId(0), Copyset::EMPTY, &mut actions, &mut to_self);
        locks.request(LOCK, ticket(1), true, &mut out).expect("it asks for the first time");
        match &actions[..] {
            [Action::Send { message: Message::LockGrant { recovered, .. }, .. }] => *recovered,
            other => panic!("the lock is free: {other:?}"),
        }
    }

    fn held_by(node: u16) -> Locks {
        let mut locks = Locks::default();
        locks.restore(LOCK, ticket(node));
        locks
    }

    /// All members have told that they hold no lock.
    fn nobody_holds(locks: &mut Locks) {
        let orphans: Vec<_> = locks.orphans().collect();
        locks.clear(|_| true);
        orphans.into_iter().for_each(|(lock, dead)| locks.restore_orphan(lock, dead));
    }

    #[test]
    fn a_second_death_before_all_have_told_hides_no_holder() {
        let mut locks = held_by(2);
        locks.install(Copyset::first(3));
        locks.install(Copyset::first(2));
        nobody_holds(&mut locks);
        assert_eq!(granted(&mut locks), Some(NodeId(2)));
    }

    #[test]
    fn a_grant_that_a_change_of_the_view_swallows_is_said_again() {
        let mut locks = held_by(2);
        locks.install(Copyset::first(2));
        nobody_holds(&mut locks);
        assert_eq!(granted(&mut locks), Some(NodeId(2)));
        locks.install(Copyset::first(2));
        nobody_holds(&mut locks);
        assert_eq!(granted(&mut locks), Some(NodeId(2)));
    }

    #[test]
    fn who_released_a_lock_before_is_not_missed() {
        let mut locks = held_by(2);
        locks.install(Copyset::first(3));
        nobody_holds(&mut locks);
        locks.install(Copyset::first(2));
        nobody_holds(&mut locks);
        assert_eq!(granted(&mut locks), None);
    }
}
