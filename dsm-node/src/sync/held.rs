//! Which locks each thread holds.
//!
//! A lock goes to other threads and nodes when its thread holds no lock: inner locks whose guards are gone stay with
//! the thread until the outermost guard goes, so that all that was done under any of them becomes visible at once.
//! Acquiring and releasing at the lock's home is `mutex`'s duty.
//!
//! The list also tells where an address of a held domain belongs, so every domain in it must stand: a domain that some
//! thread's list has is not dissolved, because the home still counts that thread as the lock's holder, and `mutex`
//! asks the home before it dissolves one.

use super::domain::Domain;
use crate::error::{Error, Result};
use crate::node::Node;
use dsm_core::{CallId, Command, LockId};
use std::cell::RefCell;

thread_local! {
    static HELD: RefCell<HeldLocks> = const { RefCell::new(HeldLocks { entries: Vec::new() }) };
}

/// What a thread has to do to get a lock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Begin {
    /// The thread does not have it: ask the lock's home.
    Ask,
    /// The thread still has it, from a guard that is gone; it is guarded again.
    Resumed(CallId),
    /// A guard of this thread guards it.
    Reentrant,
}

/// Why an entry is in the list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Hold {
    /// A guard guards it.
    Guarded(CallId),
    /// Its guard is gone; it waits for the thread's other guards.
    Ending(CallId),
    /// No lock: this thread owns the domain alone, because it drops it.
    Owned,
}

#[derive(Clone, Copy)]
struct Entry {
    lock: LockId,
    /// `None` where this thread can have no reference into it: its guard is gone.
    domain: Option<Domain>,
    hold: Hold,
}

/// The locks of one thread.
struct HeldLocks {
    entries: Vec<Entry>,
}

impl HeldLocks {
    fn begin(&mut self, lock: LockId, domain: Option<Domain>) -> Begin {
        let Some(entry) = self.entry(lock) else { return Begin::Ask };
        match entry.hold {
            Hold::Guarded(_) | Hold::Owned => Begin::Reentrant,
            Hold::Ending(acquired) => {
                entry.hold = Hold::Guarded(acquired);
                entry.domain = domain;
                Begin::Resumed(acquired)
            }
        }
    }

    /// Ends a guard; says what the thread gives up with it.
    fn end(&mut self, lock: LockId) -> Vec<(LockId, CallId)> {
        if let Some(entry) = self.entry(lock)
            && let Hold::Guarded(acquired) = entry.hold
        {
            entry.hold = Hold::Ending(acquired);
            entry.domain = None;
        }
        self.settle()
    }

    /// What waited for the thread's last guard, if that is gone.
    fn settle(&mut self) -> Vec<(LockId, CallId)> {
        if self.guards() > 0 { Vec::new() } else { self.take_ending() }
    }

    fn take_ending(&mut self) -> Vec<(LockId, CallId)> {
        let mut ending = Vec::new();
        self.entries.retain(|entry| match entry.hold {
            Hold::Ending(acquired) => {
                ending.push((entry.lock, acquired));
                false
            }
            Hold::Guarded(_) | Hold::Owned => true,
        });
        ending
    }

    /// Takes `lock` off the list, whose guard is gone or forgotten; the call that acquired it.
    fn take(&mut self, lock: LockId) -> Option<CallId> {
        let index = self.entries.iter().position(|entry| entry.lock == lock)?;
        match self.entries[index].hold {
            Hold::Guarded(acquired) | Hold::Ending(acquired) => {
                self.entries.remove(index);
                Some(acquired)
            }
            Hold::Owned => None,
        }
    }

    fn guards(&self) -> usize {
        self.entries.iter().filter(|entry| matches!(entry.hold, Hold::Guarded(_))).count()
    }

    fn entry(&mut self, lock: LockId) -> Option<&mut Entry> {
        self.entries.iter_mut().find(|entry| entry.lock == lock)
    }

    fn domain_of(&self, address: usize) -> Option<Domain> {
        let domains = self.entries.iter().filter_map(|entry| entry.domain);
        // SAFETY: the thread has the domain's lock, of which nobody dissolves the domain (see `take`), or owns the
        // domain until `Occupied` takes it off the list.
        domains.into_iter().find(|domain| unsafe { domain.contains(address) })
    }
}

impl Drop for HeldLocks {
    /// The thread ends. What it forgot to unlock stays locked; what only waited for that is given up.
    fn drop(&mut self) {
        // After a leave nobody waits for a lock.
        let Ok(node) = Node::current() else { return };
        release(node, self.take_ending());
    }
}

/// What this thread has to do to get the lock of `domain`.
pub(crate) fn begin(domain: Domain) -> Begin {
    with(|held| held.begin(domain.lock_id(), Some(domain))).unwrap_or(Begin::Ask)
}

/// Notes that this thread was granted the lock of `domain`, and guards it.
pub(crate) fn add(domain: Domain, acquired: CallId) {
    let entry = Entry { lock: domain.lock_id(), domain: Some(domain), hold: Hold::Guarded(acquired) };
    with(|held| held.entries.push(entry));
}

/// Notes that the guard of `lock` is gone, and releases what this thread gives up with it: all of it at once, so that
/// it is in one record.
pub(crate) fn end(node: &Node, lock: LockId, acquired: CallId) {
    // If the thread is ending, its list is gone already: nothing else of it can be held.
    release(node, with(|held| held.end(lock)).unwrap_or_else(|| vec![(lock, acquired)]));
}

/// Releases these locks of one thread, which are not on its list any more, together.
pub(crate) fn release(node: &Node, locks: Vec<(LockId, CallId)>) {
    let command = match locks[..] {
        [] => return,
        [(lock, acquired)] => Command::Unlock { lock, acquired },
        [..] => Command::UnlockTogether { locks },
    };
    // This fails only when the engine has ended: then nobody waits for the locks.
    let _ = node.post(command);
}

/// Takes `lock`, which is about to be dropped, off this thread's list, if it is there: its guard can only be gone or
/// forgotten. The call that acquired it. To be followed by [`give_up`], or by its [`release`] and [`settle`]; once this
/// process is no node any more, by nothing.
pub(crate) fn take(lock: LockId) -> Option<CallId> {
    with(|held| held.take(lock)).flatten()
}

/// Notes that this thread gives up `lock`, which is not on its list, as soon as it holds no guard; and releases what
/// waited for a guard that [`take`] took off the list.
pub(crate) fn give_up(node: &Node, lock: LockId, acquired: CallId) {
    let given_up = with(|held| {
        held.entries.push(Entry { lock, domain: None, hold: Hold::Ending(acquired) });
        held.settle()
    });
    release(node, given_up.unwrap_or_else(|| vec![(lock, acquired)]));
}

/// Releases every lock that waited for a guard that [`take`] took off the list.
pub(crate) fn settle(node: &Node) {
    release(node, with(HeldLocks::settle).unwrap_or_default());
}

/// The domain that holds `address`, if this thread has its lock or owns it.
pub(crate) fn domain_of(address: usize) -> Option<Domain> {
    with(|held| held.domain_of(address)).flatten()
}

/// Whether this thread holds a guard.
pub(crate) fn is_in_section() -> bool {
    with(|held| held.guards() > 0).unwrap_or(false)
}

/// An error if this thread holds a guard: `call` waits for other nodes, which may wait for the lock.
pub(crate) fn refuse_in_section(call: &'static str) -> Result<()> {
    if is_in_section() { Err(Error::InCriticalSection { call }) } else { Ok(()) }
}

/// `None` if the thread is ending and its list is gone.
fn with<R>(work: impl FnOnce(&mut HeldLocks) -> R) -> Option<R> {
    HELD.try_with(|held| work(&mut held.borrow_mut())).ok()
}

/// While it lives, this thread owns a domain alone, as the thread that drops a lock does.
pub(crate) struct Occupied {
    domain: Domain,
}

impl Occupied {
    /// Notes that this thread owns `domain` alone. Its lock is not on the thread's list.
    ///
    /// # Safety
    /// It does, and the domain stands, until the result is dropped.
    pub(crate) unsafe fn new(domain: Domain) -> Occupied {
        let entry = Entry { lock: domain.lock_id(), domain: Some(domain), hold: Hold::Owned };
        with(|held| held.entries.push(entry));
        Occupied { domain }
    }
}

impl Drop for Occupied {
    fn drop(&mut self) {
        let lock = self.domain.lock_id();
        with(|held| held.entries.retain(|entry| entry.lock != lock));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dsm_core::Address;

    fn lock(number: u64) -> LockId {
        LockId(Address(number))
    }

    fn hold(held: &mut HeldLocks, number: u64) {
        assert_eq!(held.begin(lock(number), None), Begin::Ask);
        let hold = Hold::Guarded(CallId(number));
        held.entries.push(Entry { lock: lock(number), domain: None, hold });
    }

    fn end(held: &mut HeldLocks, number: u64) -> Vec<u64> {
        held.end(lock(number)).into_iter().map(|(_, call)| call.0).collect()
    }

    #[test]
    fn a_single_lock_goes_with_its_guard() {
        let mut held = HeldLocks { entries: Vec::new() };
        hold(&mut held, 1);
        assert_eq!(held.begin(lock(1), None), Begin::Reentrant);
        assert_eq!(end(&mut held, 1), [1]);
        assert_eq!(held.begin(lock(1), None), Begin::Ask);
    }

    #[test]
    fn nested_locks_go_with_the_last_guard_in_any_order() {
        for order in [[1, 2, 3], [3, 2, 1], [2, 1, 3], [1, 3, 2]] {
            let mut held = HeldLocks { entries: Vec::new() };
            (1..=3).for_each(|number| hold(&mut held, number));
            assert!(end(&mut held, order[0]).is_empty());
            assert!(end(&mut held, order[1]).is_empty());
            assert_eq!(held.guards(), 1);
            assert_eq!(end(&mut held, order[2]), [1, 2, 3]);
            assert!(held.entries.is_empty());
        }
    }

    #[test]
    fn a_lock_that_is_dropped_frees_what_waited_for_its_forgotten_guard() {
        let mut held = HeldLocks { entries: Vec::new() };
        hold(&mut held, 1);
        hold(&mut held, 2);
        assert!(end(&mut held, 2).is_empty());
        assert_eq!((held.take(lock(1)), held.take(lock(1))), (Some(CallId(1)), None));
        assert_eq!(held.settle(), [(lock(2), CallId(2))]);
    }

    #[test]
    fn an_inner_lock_is_resumed_without_asking() {
        let mut held = HeldLocks { entries: Vec::new() };
        hold(&mut held, 1);
        hold(&mut held, 2);
        assert!(end(&mut held, 2).is_empty());
        assert_eq!(held.begin(lock(2), None), Begin::Resumed(CallId(2)));
        assert!(end(&mut held, 1).is_empty());
        assert_eq!(end(&mut held, 2), [1, 2]);
    }
}
