//! The interface over a fake engine.

use super::fake::{self, dsm};
use super::*;
use crate::collections::DsmList;
use crate::node::{Ending, Order};
use crate::sync::Domain;
use crate::{DsmMutex, LockError};
use dsm_core::{Copyset, Host, Incarnation, LockId, NodeId, ViewId};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;

fn mutex<T: Shared>(value: T) -> DsmMutex<T> {
    DsmMutex::new(dsm(), value).unwrap()
}

#[test]
fn a_root_is_created_once_and_found_by_name_and_layout() {
    let first = dsm().root("once", |_| Ok(AtomicU64::new(7))).unwrap();
    let second = dsm().root("once", |_| panic!("it exists")).unwrap();
    assert!(std::ptr::eq::<AtomicU64>(first, second));
    assert_eq!(dsm().root_ref("once", |_| Ok(AtomicU64::new(0))).unwrap().load(Ordering::Relaxed), 7);
    match dsm().root("once", |_| Ok(0_u32)) {
        Err(Error::LayoutMismatch { name, expected, found }) => {
            assert_eq!(name, "once");
            assert_ne!(expected, found);
            assert!(expected.starts_with("`u32` ("), "{expected}");
        }
        other => panic!("expected a LayoutMismatch, not {other:?}"),
    }
}

#[test]
fn a_root_that_failed_is_created_by_the_next() {
    let refused = dsm().root::<u8>("failing", |_| Err(Error::Argument("no".into())));
    assert!(matches!(refused, Err(Error::Argument(_))));
    let panicked = catch_unwind(AssertUnwindSafe(|| dsm().root::<u8>("failing", |_| panic!("no")).copied()));
    assert!(panicked.is_err());
    assert_eq!(*dsm().root("failing", |_| Ok(5_u8)).unwrap(), 5);
}

#[test]
fn a_root_that_asks_for_itself_is_refused() {
    let inner = |dsm: &Dsm| dsm.root::<u8>("itself", |_| Ok(1)).copied();
    match dsm().root::<u8>("itself", inner) {
        Err(Error::Argument(text)) => assert!(text.contains("itself"), "{text}"),
        other => panic!("expected Argument, not {other:?}"),
    }
    assert_eq!(*dsm().root("itself", |_| Ok(2_u8)).unwrap(), 2);
}

/// A node whose engine never answers, and all that is asked of it. It is not this process's.
fn unanswered() -> (&'static Node, crossbeam_channel::Receiver<Order>) {
    let (orders, asked) = crossbeam_channel::unbounded();
    let wake = std::sync::Arc::new(nix::sys::eventfd::EventFd::new().unwrap());
    let caller = crate::node::Caller::new(orders, wake);
    let node = Node::new(NodeId(0), 2, dsm().node().geometry, caller).with_replicas(1);
    (Box::leak(Box::new(node)), asked)
}

#[test]
fn a_panic_does_not_wait_for_the_other_nodes() {
    // As one is while another node is not done.
    let (node, _unanswered) = unanswered();
    let (ended, end) = mpsc::channel();
    let membership = Dsm::new(node, move |_| {
        ended.send(()).unwrap();
        Ok(())
    });
    let panics = thread::spawn(move || {
        let _membership = membership;
        panic!("before the program is done");
    });
    end.recv_timeout(Duration::from_secs(30)).expect("the engine is told to end");
    assert!(panics.join().is_err());
}

#[test]
fn names_have_a_length() {
    for name in [String::new(), "n".repeat(NAME_LENGTH_MAX + 1)] {
        assert!(matches!(dsm().root(&name, |_| Ok(0_u8)), Err(Error::Argument(_))));
    }
    assert!(dsm().root(&"n".repeat(NAME_LENGTH_MAX), |_| Ok(0_u8)).is_ok());
}

#[test]
fn a_box_owns_and_a_leaked_one_stays() {
    let mut owned = dsm().alloc([1_u64, 2]).unwrap();
    owned[0] += 10;
    let address = DsmBox::address(&owned);
    let kept = DsmBox::leak(owned);
    assert_eq!((kept.address(), *kept), (address, [11, 2]));
    let moved = dsm().alloc(3_u16).unwrap();
    thread::scope(|scope| {
        scope.spawn(move || drop(moved));
    });
}

#[test]
fn threads_exclude_each_other() {
    let sum = mutex(0_u64);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..500).for_each(|_| *sum.lock().unwrap() += 1));
        }
    });
    assert_eq!(*sum.lock().unwrap(), 2000);
}

#[test]
fn a_held_lock_is_reentrant_here_and_blocks_elsewhere() {
    let lock = mutex(0_u8);
    let guard = lock.lock().unwrap();
    assert!(matches!(lock.lock(), Err(LockError::Reentrant)));
    assert!(matches!(lock.try_lock(), Err(LockError::Reentrant)));
    thread::scope(|scope| {
        scope.spawn(|| {
            assert!(matches!(lock.try_lock(), Err(LockError::WouldBlock)));
            let patience = Duration::from_millis(1);
            assert!(matches!(lock.lock_timeout(patience), Err(LockError::Timeout { holder: 0 })));
        });
    });
    drop(guard);
    thread::scope(|scope| {
        scope.spawn(|| assert!(lock.lock_timeout(Duration::from_secs(60)).is_ok()));
    });
}

#[test]
fn an_inner_lock_is_released_with_the_outermost() {
    let (outer, inner) = (mutex(0_u8), mutex(0_u8));
    let first = outer.lock().unwrap();
    drop(inner.lock().unwrap());
    let taken_elsewhere = || thread::scope(|scope| scope.spawn(|| inner.try_lock().is_ok()).join().unwrap());
    assert!(!taken_elsewhere());
    drop(inner.lock().expect("this thread still has it"));
    drop(first);
    assert!(taken_elsewhere());
}

#[test]
fn calls_that_wait_for_nodes_are_refused_in_a_section() {
    let lock = mutex(0_u8);
    let guard = lock.lock().unwrap();
    assert!(matches!(dsm().barrier(), Err(Error::InCriticalSection { call: "barrier" })));
    assert!(matches!(dsm().sync(), Err(Error::InCriticalSection { call: "sync" })));
    drop(guard);
    assert_eq!(dsm().barrier().unwrap(), dsm().view());
    dsm().sync().unwrap();
}

#[test]
fn a_panic_poisons_until_it_is_cleared() {
    let lock = mutex(1_u8);
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let _guard = lock.lock().unwrap();
        panic!("in a section");
    }));
    assert!(panicked.is_err() && lock.is_poisoned());
    match lock.lock() {
        Err(LockError::Poisoned(mut guard)) => *guard += 1,
        other => panic!("expected Poisoned, not {other:?}"),
    }
    lock.clear_poison();
    assert_eq!(*lock.lock().unwrap(), 2);
    assert_eq!(lock.lock().unwrap().recovered(), None);
    lock.lock().unwrap().commit().unwrap();
}

#[test]
fn a_list_grows_under_its_lock_and_in_a_box() {
    let list = mutex(DsmList::new());
    (0..1000_u32).for_each(|value| list.lock().unwrap().push_back(value).unwrap());
    assert!(list.lock().unwrap().iter().copied().eq(0..1000));
    let mut boxed = dsm().alloc(DsmList::new()).unwrap();
    (0..1000_u32).for_each(|value| boxed.push_front(value).unwrap());
    assert!(boxed.iter().copied().eq((0..1000).rev()));
}

#[test]
fn parts_of_a_value_grow_in_scoped_threads_at_once() {
    let lists = mutex([const { DsmList::<u64>::new() }; 3]);
    let mut guard = lists.lock().unwrap();
    thread::scope(|scope| {
        for list in guard.iter_mut() {
            scope.spawn(move || (0..2000).for_each(|value| list.push_back(value).unwrap()));
        }
    });
    assert!(guard.iter().all(|list| list.iter().copied().eq(0..2000)));
}

#[test]
fn a_list_does_not_move_between_a_box_and_a_lock() {
    let mut boxed = dsm().alloc(DsmList::new()).unwrap();
    boxed.push_back(1_u8).unwrap();
    let lock = mutex(std::mem::take(&mut *boxed));
    assert!(matches!(lock.lock().unwrap().push_back(2), Err(Error::Moved { .. })));
}

#[test]
fn a_lock_inside_a_lock_is_dropped_with_its_value() {
    let outer = mutex(DsmList::<DsmMutex<DsmList<u64>>>::new());
    {
        let mut guard = outer.lock().unwrap();
        guard.push_back(mutex(DsmList::new())).unwrap();
        (0..100).for_each(|value| guard.front().unwrap().lock().unwrap().push_back(value).unwrap());
        drop(guard.pop_front());
        // The same pages may come again, while the old lock is still this thread's.
        guard.push_back(mutex(DsmList::new())).unwrap();
        guard.front().unwrap().lock().unwrap().push_back(1).unwrap();
    }
    assert_eq!(outer.lock().unwrap().front().unwrap().lock().unwrap().len(), 1);
}

/// The domain of a lock, for a look at what became of it. Its handle's `Debug` tells the address.
fn domain_of<T>(lock: &DsmMutex<T>) -> Domain {
    let text = format!("{lock:?}");
    let hex = text.trim_start_matches("DsmMutex(0x").trim_end_matches(')');
    let base = u64::from_str_radix(hex, 16).expect("the handle names its domain");
    Domain::at(Address(base), dsm().node()).expect("no domain begins at zero")
}

#[test]
fn a_lock_that_another_thread_still_counts_as_its_own_keeps_its_domain() {
    let outer = mutex(DsmList::<u64>::new());
    for forgets in [false, true] {
        let lock = mutex(DsmList::<u64>::new());
        let domain = domain_of(&lock);
        // SAFETY: the lock stands.
        let serial = unsafe { domain.serial() };
        let mut section = outer.lock().unwrap();
        let guard = lock.lock().unwrap();
        if forgets {
            std::mem::forget(guard)
        } else {
            drop(guard)
        }
        thread::spawn(move || drop(lock)).join().unwrap();
        // This thread's list of locks still has it, so that its pages must not become another's.
        // SAFETY: that is what is tested: that the domain stands.
        assert_eq!(unsafe { domain.serial() }, serial);
        // SAFETY: as above, and the value is a list, which was not dropped.
        assert!(unsafe { domain.value::<DsmList<u64>>().as_ref() }.is_empty());
        section.push_back(1).unwrap();
    }
}

#[test]
fn dropping_a_lock_ends_its_forgotten_guard() {
    let (lock, other) = (mutex(0_u8), DsmBox::leak(dsm().alloc(mutex(0_u8)).unwrap()));
    std::mem::forget(lock.lock().unwrap());
    drop(other.lock().unwrap());
    assert!(matches!(dsm().barrier(), Err(Error::InCriticalSection { .. })));
    drop(lock);
    dsm().barrier().expect("no guard is left");
    let elsewhere = thread::spawn(move || other.try_lock().is_ok());
    assert!(elsewhere.join().unwrap(), "what waited for the forgotten guard is free");
}

#[test]
fn a_thread_that_ends_gives_up_all_but_what_it_forgot() {
    let lock = || DsmBox::leak(dsm().alloc(mutex(0_u8)).unwrap());
    let (forgotten, dropped) = (lock(), lock());
    let holder = thread::spawn(move || {
        std::mem::forget(forgotten.lock());
        drop(dropped.lock());
    });
    holder.join().unwrap();
    assert!(matches!(forgotten.try_lock(), Err(LockError::WouldBlock)));
    assert!(dropped.try_lock().is_ok());
}

#[test]
fn every_waiter_is_granted_once() {
    let lock = mutex(Vec16::default());
    let guard = lock.lock().unwrap();
    thread::scope(|scope| {
        for number in 1..=8 {
            let (queued, ready) = mpsc::channel();
            let lock = &lock;
            scope.spawn(move || {
                queued.send(()).unwrap();
                lock.lock().unwrap().push(number);
            });
            ready.recv().unwrap();
        }
        drop(guard);
    });
    let mut seen = lock.lock().unwrap().values[..8].to_vec();
    seen.sort_unstable();
    assert_eq!(seen, [1, 2, 3, 4, 5, 6, 7, 8]);
}

#[test]
fn a_commit_is_for_the_last_guard() {
    let (outer, inner) = (mutex(0_u8), mutex(0_u8));
    let first = outer.lock().unwrap();
    let refused = inner.lock().unwrap().commit();
    assert!(matches!(refused, Err(Error::InCriticalSection { call: "commit" })), "{refused:?}");
    let taken_elsewhere = || thread::scope(|scope| scope.spawn(|| inner.try_lock().is_ok()).join().unwrap());
    assert!(!taken_elsewhere(), "its section has not ended");
    first.commit().unwrap();
    assert!(taken_elsewhere());
}

#[test]
fn a_crash_in_a_section_is_told_to_the_next_guard_alone() {
    let lock = mutex(0_u8);
    fake::die_in(domain_of(&lock).lock_id(), NodeId(7));
    let guard = lock.lock().unwrap();
    assert_eq!(guard.recovered().map(|crash| crash.rank), Some(7));
    drop(guard);
    assert_eq!(lock.lock().unwrap().recovered(), None);
}

#[test]
fn a_lock_whose_memory_is_lost_says_so() {
    // Never dropped: that would look into the lost page.
    let lock = DsmBox::leak(dsm().alloc(mutex(0_u8)).unwrap());
    let LockId(base) = domain_of(&lock).lock_id();
    let page = dsm().node().geometry.page_of(base).unwrap();
    fake::lose(dsm_core::Lost { page, last_owner: None, view: ViewId(3) });
    match lock.lock() {
        Err(LockError::Lost(lost)) => {
            assert_eq!((lost.address, lost.view, lost.last_owner), (base.0, 3, None))
        }
        other => panic!("expected Lost, not {other:?}"),
    }
    match lock.try_lock().map(drop).map_err(Error::from) {
        Err(Error::Lost(lost)) => assert_eq!(lost.page, page.0),
        other => panic!("expected Lost, not {other:?}"),
    }
}

#[test]
fn what_is_freed_in_a_section_is_not_used_again_in_it() {
    // A size that no other test takes, so that the block would be the next to be given out.
    let taken = dsm().alloc([0_u64; 777]).unwrap();
    let address = DsmBox::address(&taken);
    let lock = mutex(DsmList::<DsmMutex<u8>>::new());
    let mut guard = lock.lock().unwrap();
    drop(taken);
    assert_ne!(DsmBox::address(&dsm().alloc([0_u64; 777]).unwrap()), address);
    guard.push_back(mutex(1)).unwrap();
    let domain = domain_of(guard.front().unwrap());
    drop(guard.pop_front());
    assert_ne!(domain_of(&mutex(2_u8)).lock_id(), domain.lock_id(), "the handle may come back");
}

#[test]
fn a_node_that_was_evicted_says_so_and_tells_no_more_views() {
    let (node, asked) = unanswered();
    let membership = Dsm::new(node, |_| Ok(()));
    let mut views = membership.views();
    let waiting = node.start(Command::Sync).unwrap();
    let first = dsm_core::View::first([0, 1].map(|rank| (NodeId(rank), Incarnation(1), Host(0))), 1);
    let second = first.next(Copyset::EMPTY.with(NodeId(1)), []);
    node.publish_view(&second);
    node.end(Ending::Evicted { view: ViewId(9) });
    // What the engine leaves unanswered ends with it.
    drop(asked);
    assert!(matches!(waiting.wait(), Err(Error::Evicted { view: 9 })));
    assert!(matches!(membership.barrier(), Err(Error::Evicted { view: 9 })));
    assert!(matches!(membership.sync(), Err(Error::Evicted { view: 9 })));
    let view = views.next().expect("what came before is told");
    assert_eq!((view.number, view.members), (second.id().0, vec![0]));
    assert_eq!((views.next(), views.next_timeout(Duration::ZERO)), (None, None));
    assert!(matches!(membership.leave(), Err(Error::Evicted { view: 9 })));
}

#[test]
fn a_program_that_follows_views_is_told_of_the_end() {
    let (node, _asked) = unanswered();
    let membership = Dsm::new(node, |_| Ok(()));
    let mut views = membership.views();
    let waits = thread::spawn(move || views.next());
    node.end(Ending::NoQuorum);
    assert_eq!(waits.join().unwrap(), None);
    assert!(matches!(membership.sync(), Err(Error::NoQuorum)));
}

#[test]
fn a_guard_that_goes_after_an_eviction_leaves_no_section_behind() {
    /// In the environment of the process in which that happens: it ends this process's one node.
    const CHILD: &str = "DSM_TEST_EVICTED";
    let name = "a_guard_that_goes_after_an_eviction_leaves_no_section_behind";
    if std::env::var_os(CHILD).is_none() {
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args([&format!("dsm::tests::{name}"), "--exact", "--nocapture"])
            .env(CHILD, "")
            .output()
            .unwrap();
        assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stderr));
        return;
    }
    let (dropped, committed) = (mutex(1_u64), mutex(2_u64));
    let (first, second) = (dropped.lock().unwrap(), committed.lock().unwrap());
    dsm().node().end(Ending::Evicted { view: ViewId(9) });
    assert!(matches!(second.commit(), Err(Error::Evicted { view: 9 })));
    assert!(matches!(refuse_in_section("leave"), Err(Error::InCriticalSection { .. })), "one is left");
    drop(first);
    refuse_in_section("leave").unwrap();
}

/// A few numbers, as the derive sees them inside this crate.
#[derive(Default, crate::Shared)]
#[shared(plain)]
#[repr(C)]
struct Vec16 {
    values: [u8; 16],
    length: usize,
}

impl Vec16 {
    fn push(&mut self, value: u8) {
        self.values[self.length] = value;
        self.length += 1;
    }
}
