//! The lock and the list in it, over several nodes.

use super::cluster::{meet, on_threads, with_cluster};
use super::{Arguments, Outcome, Scenario, at, expect_panics, fact};
use dsm_node::{Dsm, DsmMutex, Error, LockError, Shared, collections::DsmList};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::VecDeque;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

pub(super) const SCENARIOS: &[(&str, Scenario)] = &[
    ("fairness", fairness),
    ("try_and_timeout", try_and_timeout),
    ("poison", poison),
    ("in_section", in_section),
    ("leave_in_section", leave_in_section),
    ("nested", nested),
    ("list_model", list_model),
    ("dropped_elsewhere", dropped_elsewhere),
];

/// What the threads of a test share under its lock.
#[derive(Shared)]
#[repr(C)]
struct Turns {
    left: u64,
    inside: u64,
}

/// All threads take turns until none is left: nobody is inside twice, and everybody gets a share.
fn fairness(arguments: &Arguments) -> Outcome {
    /// A thread that gets less than this part of an equal share is starved: a queue gives each about one.
    const SHARE_MIN: u64 = 4;
    let (threads, count) = (arguments.number("threads"), arguments.number("count"));
    with_cluster(|dsm| {
        let all = threads * u64::from(dsm.size());
        let lock = dsm.root("turns", |dsm| DsmMutex::new(dsm, Turns { left: count * all, inside: 0 }))?;
        let ready = dsm.root("ready", |_| Ok(AtomicU64::new(0)))?;
        meet(dsm, "all start at once")?;
        at("taking turns");
        on_threads(dsm, threads, |thread| {
            ready.fetch_add(1, Ordering::AcqRel);
            while ready.load(Ordering::Acquire) < all {
                std::thread::yield_now();
            }
            let mut own = 0;
            loop {
                let mut turns = lock.lock()?;
                assert_eq!(turns.inside, 0, "somebody else is inside");
                if turns.left == 0 {
                    break;
                }
                turns.inside = thread + 1;
                turns.left -= 1;
                own += 1;
                assert_eq!(turns.inside, thread + 1, "somebody else came inside");
                turns.inside = 0;
            }
            fact("turns", own);
            assert!(own >= count / SHARE_MIN, "thread {thread} got {own} turns of {}", count * all);
            Ok(())
        })?;
        meet(dsm, "all turns are over")
    })
}

/// Rank 0 holds the lock while rank 1 tries, waits a little, and gives up.
fn try_and_timeout(_: &Arguments) -> Outcome {
    const PATIENCE: Duration = Duration::from_millis(50);
    with_cluster(|dsm| {
        let lock = dsm.root("lock", |dsm| DsmMutex::new(dsm, 0_u64))?;
        let (held, done) = (Barrier::new(2), Barrier::new(2));
        std::thread::scope(|scope| {
            // A thread that holds a guard may not meet the others, so another holds it.
            if dsm.rank() == 0 {
                scope.spawn(|| {
                    let mut value = lock.lock().expect("the lock is free");
                    held.wait();
                    done.wait();
                    *value = 7;
                });
                held.wait();
            }
            meet(dsm, "rank 0 holds the lock")?;
            if dsm.rank() == 1 {
                at("try_lock");
                assert!(matches!(lock.try_lock(), Err(LockError::WouldBlock)));
                at("lock_timeout");
                let start = Instant::now();
                let denied = lock.lock_timeout(PATIENCE).map(|_| ());
                assert!(matches!(denied, Err(LockError::Timeout { holder: 0 })), "{denied:?}");
                assert!(start.elapsed() >= PATIENCE);
            }
            meet(dsm, "rank 1 has given up")?;
            if dsm.rank() == 0 {
                done.wait();
            }
            Ok::<(), Error>(())
        })?;
        meet(dsm, "rank 0 has dropped its guard")?;
        at("lock_timeout on a lock that is free or soon will be");
        let value = lock.lock_timeout(Duration::from_secs(30))?;
        assert_eq!(*value, 7);
        drop(value);
        meet(dsm, "all have had the lock")?;
        if dsm.rank() == 0 {
            // The request that rank 1 withdrew must not have been granted to nobody.
            assert_eq!(*lock.try_lock()?, 7);
        }
        Ok(())
    })
}

/// A thread of rank 0 panics in a section: the others find its value, and the poison.
fn poison(_: &Arguments) -> Outcome {
    expect_panics();
    with_cluster(|dsm| {
        let lock = dsm.root("lock", |dsm| DsmMutex::new(dsm, 1_u64))?;
        meet(dsm, "the lock is there")?;
        assert!(!lock.is_poisoned());
        meet(dsm, "it is not poisoned")?;
        if dsm.rank() == 0 {
            std::thread::scope(|scope| {
                let thread = scope.spawn(|| {
                    let mut value = lock.lock().expect("the lock is free");
                    *value = 2;
                    panic!("in a section");
                });
                assert!(thread.join().is_err());
            });
        }
        meet(dsm, "rank 0 has panicked")?;
        assert!(lock.is_poisoned());
        match lock.lock() {
            Err(LockError::Poisoned(value)) => assert_eq!(*value, 2),
            other => panic!("a poisoned lock gave {other:?}"),
        }
        assert!(matches!(lock.lock().map(|_| ()).map_err(Error::from), Err(Error::Lock(_))));
        meet(dsm, "all have seen the poison")?;
        if dsm.rank() == dsm.size() - 1 {
            lock.clear_poison();
        }
        meet(dsm, "the last rank has cleared it")?;
        assert_eq!(*lock.lock()?, 2);
        Ok(())
    })
}

/// What a thread may not do while it holds a guard.
fn in_section(_: &Arguments) -> Outcome {
    with_cluster(|dsm| {
        let lock = dsm.root("lock", |dsm| DsmMutex::new(dsm, 0_u64))?;
        for rank in 0..dsm.size() {
            if rank == dsm.rank() {
                let guard = lock.lock()?;
                assert!(matches!(lock.lock().map(|_| ()), Err(LockError::Reentrant)));
                assert!(matches!(lock.try_lock().map(|_| ()), Err(LockError::Reentrant)));
                assert!(matches!(dsm.barrier(), Err(Error::InCriticalSection { call: "barrier" })));
                assert!(matches!(dsm.sync(), Err(Error::InCriticalSection { call: "sync" })));
                drop(guard);
                assert_eq!(*lock.lock()?, u64::from(rank));
                *lock.lock()? += 1;
            }
            meet(dsm, format_args!("rank {rank} is done"))?;
        }
        Ok(())
    })
}

/// Leaving while a guard lives is refused; the process can still end.
fn leave_in_section(_: &Arguments) -> Outcome {
    let dsm = Dsm::join()?;
    let lock = dsm.root_ref("lock", |dsm| DsmMutex::new(dsm, 0_u64))?;
    let guard = lock.lock()?;
    let answer = dsm.leave();
    assert!(matches!(answer, Err(Error::InCriticalSection { call: "leave" })), "{answer:?}");
    assert_eq!(*guard, 0, "the region is still there");
    Ok(())
}

/// An inner lock stays with its thread until the outer guard goes.
fn nested(_: &Arguments) -> Outcome {
    with_cluster(|dsm| {
        let outer = dsm.root("outer", |dsm| DsmMutex::new(dsm, 0_u64))?;
        let inner = dsm.root("inner", |dsm| DsmMutex::new(dsm, 0_u64))?;
        let (held, done) = (Barrier::new(2), Barrier::new(2));
        std::thread::scope(|scope| {
            if dsm.rank() == 0 {
                scope.spawn(|| {
                    let mut first = outer.lock().expect("the lock is free");
                    *inner.lock().expect("the lock is free") = 1;
                    // The guard is gone, and comes again without asking.
                    *inner.lock().expect("this thread still has the lock") += 1;
                    held.wait();
                    done.wait();
                    *first = 1;
                });
                held.wait();
            }
            meet(dsm, "rank 0 has dropped the inner guard")?;
            if dsm.rank() == 1 {
                assert!(matches!(inner.try_lock(), Err(LockError::WouldBlock)));
                assert!(matches!(outer.try_lock(), Err(LockError::WouldBlock)));
            }
            meet(dsm, "rank 1 has tried both")?;
            if dsm.rank() == 0 {
                done.wait();
            }
            Ok::<(), Error>(())
        })?;
        if dsm.rank() == 1 {
            at("both locks, when rank 0 lets go");
            assert_eq!(*inner.lock()?, 2);
            assert_eq!(*outer.lock()?, 1);
        }
        meet(dsm, "rank 1 has had both")
    })
}

/// One change of the list, and what it gave.
#[derive(Clone, Copy, Debug, Shared)]
#[repr(C, u8)]
enum Step {
    PushBack(u64),
    PushFront(u64),
    PopBack(Option<u64>),
    PopFront(Option<u64>),
    Insert(u64, u64),
    Remove(u64, Option<u64>),
}

/// A list, and all that was ever done to it.
#[derive(Shared)]
#[repr(C)]
struct Logged {
    list: DsmList<u64>,
    log: DsmList<Step>,
}

/// All nodes change one list at random; the log, replayed on a model, gives the same answers and the same list.
fn list_model(arguments: &Arguments) -> Outcome {
    let (count, seed) = (arguments.number("count"), arguments.number("seed"));
    with_cluster(|dsm| {
        let logged = Logged { list: DsmList::new(), log: DsmList::new() };
        let lock = dsm.root("logged", |dsm| DsmMutex::new(dsm, logged))?;
        meet(dsm, "all start at once")?;
        let mut rng = ChaCha8Rng::seed_from_u64(seed + u64::from(dsm.rank()));
        at(format_args!("changing the list, seed {seed}"));
        for turn in 0..count {
            let mut logged = lock.lock()?;
            let value = turn << 8 | u64::from(dsm.rank());
            let step = change(&mut logged.list, rng.random_range(0..8), value, rng.random())?;
            logged.log.push_back(step)?;
        }
        meet(dsm, "all have changed it")?;
        at("replaying");
        let logged = lock.lock()?;
        assert_eq!(logged.log.len() as u64, count * u64::from(dsm.size()));
        let model = replay(&logged.log);
        assert_eq!(logged.list.len(), model.len());
        assert!(logged.list.iter().eq(model.iter()), "seed {seed}");
        assert!(logged.list.iter().rev().eq(model.iter().rev()), "seed {seed}");
        drop(logged);
        meet(dsm, "all have replayed")
    })
}

/// Pushes a little more often than it removes, so that the list grows.
fn change(list: &mut DsmList<u64>, kind: u32, value: u64, place: u64) -> Result<Step, Error> {
    Ok(match kind {
        0 | 1 => list.push_back(value).map(|()| Step::PushBack(value))?,
        2 => list.push_front(value).map(|()| Step::PushFront(value))?,
        3 => Step::PopBack(list.pop_back()),
        4 => Step::PopFront(list.pop_front()),
        5 | 6 => {
            let index = place % (list.len() as u64 + 1);
            list.insert(index as usize, value).map(|()| Step::Insert(index, value))?
        }
        _ => {
            let index = place % (list.len() as u64 + 1);
            Step::Remove(index, list.remove(index as usize))
        }
    })
}

fn replay(log: &DsmList<Step>) -> VecDeque<u64> {
    let mut model = VecDeque::new();
    for step in log {
        match *step {
            Step::PushBack(value) => model.push_back(value),
            Step::PushFront(value) => model.push_front(value),
            Step::PopBack(gave) => assert_eq!(model.pop_back(), gave),
            Step::PopFront(gave) => assert_eq!(model.pop_front(), gave),
            Step::Insert(index, value) => model.insert(index as usize, value),
            Step::Remove(index, gave) => assert_eq!(model.remove(index as usize), gave),
        }
    }
    model
}

/// How many of [`Counted`] were dropped on this node.
static DROPPED: AtomicU64 = AtomicU64::new(0);

#[derive(Shared)]
#[repr(C)]
struct Counted {
    value: u64,
}

impl Drop for Counted {
    fn drop(&mut self) {
        DROPPED.fetch_add(1, Ordering::Relaxed);
    }
}

/// Each rank makes locks with lists in them, and the next takes them out and drops them: round after round, in a region
/// that would be full if one page of them were lost.
fn dropped_elsewhere(arguments: &Arguments) -> Outcome {
    type Inner = DsmMutex<DsmList<Counted>>;
    let (rounds, count) = (arguments.number("rounds"), arguments.number("count"));
    with_cluster(|dsm| {
        let shelf: &DsmMutex<DsmList<Inner>> = dsm.root("shelf", |dsm| DsmMutex::new(dsm, DsmList::new()))?;
        for round in 0..rounds {
            let (maker, dropper) = (round % u64::from(dsm.size()), (round + 1) % u64::from(dsm.size()));
            if maker == u64::from(dsm.rank()) {
                for _ in 0..count {
                    let inner = DsmMutex::new(dsm, DsmList::new())?;
                    inner.lock()?.push_back(Counted { value: round })?;
                    shelf.lock()?.push_back(inner)?;
                }
            }
            meet(dsm, format_args!("round {round}: the locks are made"))?;
            if dropper == u64::from(dsm.rank()) {
                while let Some(inner) = take(shelf)? {
                    assert_eq!(inner.lock()?.front().map(|counted| counted.value), Some(round));
                    drop(inner);
                }
            }
            meet(dsm, format_args!("round {round}: the locks are dropped"))?;
        }
        let own = (0..rounds).filter(|round| (round + 1) % u64::from(dsm.size()) == u64::from(dsm.rank()));
        assert_eq!(
            DROPPED.load(Ordering::Relaxed),
            own.count() as u64 * count,
            "drops run where values are removed"
        );
        Ok(())
    })
}

/// Takes one out, and lets the shelf go at once.
fn take<T: Shared>(shelf: &DsmMutex<DsmList<T>>) -> Result<Option<T>, Error> {
    Ok(shelf.lock()?.pop_front())
}
