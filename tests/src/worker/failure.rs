//! A node that dies in the middle, and strangers at the door.

use super::cluster::{meet, with_cluster};
use super::{Arguments, Outcome, Scenario, at, await_go, fact};
use crate::harness::TOLD;
use dsm_node::{Dsm, DsmBox, DsmMutex, DsmRef, Error, LockError, Shared};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

pub(super) const SCENARIOS: &[(&str, Scenario)] =
    &[("death", death), ("death_while_computing", death_while_computing), ("steady", steady)];

/// A word with a page of its own.
#[derive(Shared)]
#[repr(C, align(4096))]
struct Page {
    word: AtomicU64,
}

/// One page for each way in which a page can depend on the victim, and two locks.
struct Pages {
    /// Homed at the victim, which also wrote it last.
    both: DsmRef<Page>,
    /// Homed elsewhere; the victim wrote it last.
    owned: DsmRef<Page>,
    /// Homed at the victim; another wrote it last.
    homed: DsmRef<Page>,
    /// A lock whose memory another node wrote last.
    kept: DsmRef<DsmMutex<u64>>,
    /// A lock whose memory the victim wrote last.
    gone: DsmRef<DsmMutex<u64>>,
}

/// What the survivors are at when the victim dies. Ranks behind the victim's take the roles in order.
const ROLES: [&str; 5] = ["barrier", "lock", "touch", "compute", "lost lock"];

/// Without replicas: one node holds two locks and owns pages; the harness freezes it, lets the others need it, and kills
/// it. What it owned alone is lost, and all else goes on.
fn death(arguments: &Arguments) -> Outcome {
    let victim = arguments.number("victim") as u32;
    let dsm = Dsm::join()?;
    let rank = dsm.rank();
    let pages = prepare(&dsm, victim)?;
    let (page, is_lost) = match arguments.text("page") {
        "both" => (pages.both, true),
        "owned" => (pages.owned, true),
        "homed" => (pages.homed, false),
        other => panic!("there is no page {other:?}"),
    };
    if rank == victim {
        let mut gone = pages.gone.lock()?;
        *gone = 2;
        let _held = pages.kept.lock()?;
        at("ready");
        // The harness kills this process while it waits.
        await_go();
        panic!("the victim was let go");
    }
    let role = ROLES[((rank + dsm.size() - victim - 1) % dsm.size()) as usize];
    fact("role", role);
    at("ready");
    await_go();
    at("busy");
    match role {
        "barrier" => {}
        "lock" => assert_eq!(*pages.kept.lock()?, 1, "nobody stored to it"),
        "lost lock" => expect_lost(victim, pages.gone.lock().map(|_| ()).map_err(Error::from)),
        "touch" => {
            let found = page.word.load(Ordering::SeqCst);
            assert!(!is_lost, "a page that went with its node has {found}");
            assert_eq!(found, 2, "what another wrote is still there");
        }
        _ => {}
    }
    if role != "barrier" {
        at(TOLD);
    }
    // Who was in the barrier when the victim died comes back from it with all others.
    let view = dsm.barrier()?;
    at(TOLD);
    assert!(!view.members.contains(&victim), "{view:?}");
    assert!(view.members.contains(&rank), "{view:?}");
    *pages.kept.lock()? += 1;
    expect_lost(victim, pages.gone.lock().map(|_| ()).map_err(Error::from));
    let another = dsm.root("another", |dsm| DsmMutex::new(dsm, 0_u64))?;
    *another.lock()? += 1;
    meet(&dsm, "all have counted")?;
    let survivors = dsm.barrier()?.members.len() as u64;
    assert_eq!((*pages.kept.lock()?, *another.lock()?), (1 + survivors, survivors));
    meet(&dsm, "all have looked")?;
    at("leave");
    dsm.leave()
}

/// Makes pages and locks depend on the victim. The victim takes the locks only after this.
fn prepare(dsm: &Dsm, victim: u32) -> Result<Pages, Error> {
    let other = (victim + 1) % dsm.size();
    let page =
        || -> Result<DsmRef<Page>, Error> { Ok(DsmBox::leak(dsm.alloc(Page { word: AtomicU64::new(1) })?)) };
    let own_of = |name: &str, rank: u32| -> Result<DsmRef<Page>, Error> {
        made_by(dsm, rank, name, page)?;
        // Everybody asks, the maker included: the answer is the same for all.
        dsm.root(name, |_| page()).copied()
    };
    let lock_of = |name: &str, rank: u32| -> Result<DsmRef<DsmMutex<u64>>, Error> {
        let lock = || DsmMutex::new(dsm, 1_u64);
        made_by(dsm, rank, name, lock)?;
        let lock = dsm.root_ref(name, |_| lock())?;
        // The handle of the lock is on a page too, which a node that has not read it could not have later.
        fact(name, format_args!("{:?}", *lock));
        Ok(lock)
    };
    let pages = Pages {
        both: own_of("both", victim)?,
        homed: own_of("homed", victim)?,
        owned: own_of("owned", other)?,
        kept: lock_of("kept", other)?,
        gone: lock_of("gone", victim)?,
    };
    if dsm.rank() == victim {
        pages.both.word.store(2, Ordering::SeqCst);
        pages.owned.word.store(2, Ordering::SeqCst);
    }
    if dsm.rank() == other {
        pages.homed.word.store(2, Ordering::SeqCst);
    }
    meet(dsm, "the pages are where they belong")?;
    Ok(pages)
}

/// Has `rank` make the object of a name.
fn made_by<T: Shared>(dsm: &Dsm, rank: u32, name: &str, make: impl FnOnce() -> Result<T, Error>) -> Outcome {
    if dsm.rank() == rank {
        dsm.root(name, |_| make())?;
    }
    meet(dsm, name)
}

/// The call says that what it needed is lost, and whose it was, unless its home, which alone knew, died with it.
fn expect_lost<T>(victim: u32, answer: Result<T, Error>) {
    match answer {
        Err(Error::Lost(lost)) => assert!(lost.last_owner.is_none_or(|owner| owner == victim), "{lost}"),
        Err(other) => panic!("rank {victim} died, but the call says: {other}"),
        Ok(_) => panic!("rank {victim} died, but the call was answered"),
    }
}

/// All nodes take turns at one word and one lock until one of them is killed, whatever they are doing then.
fn death_while_computing(arguments: &Arguments) -> Outcome {
    let victim = arguments.number("victim") as u32;
    let dsm = Dsm::join()?;
    let lock = dsm.root_ref("lock", |dsm| DsmMutex::new(dsm, 0_u64))?;
    let word = dsm.root_ref("word", |_| Ok(AtomicU64::new(0)))?;
    meet(&dsm, "all start at once")?;
    at("working");
    // Without replicas the word may go with the victim, which ends this process, or the lock, which is told.
    while dsm.view().members.contains(&victim) {
        word.fetch_add(1, Ordering::SeqCst);
        match lock.lock() {
            Ok(mut value) => *value += 1,
            Err(LockError::Lost(_)) => break,
            Err(error) => return Err(error.into()),
        }
    }
    at(TOLD);
    dsm.leave()
}

/// All nodes work until the harness says that it is enough, and then everything adds up.
fn steady(_: &Arguments) -> Outcome {
    with_cluster(|dsm| {
        let sum = dsm.root("sum", |_| Ok(AtomicU64::new(0)))?;
        let lock = dsm.root("lock", |dsm| DsmMutex::new(dsm, 0_u64))?;
        let enough = dsm.root("enough", |_| Ok(AtomicBool::new(false)))?;
        meet(dsm, "all start at once")?;
        at("working");
        let mut own = 0;
        std::thread::scope(|scope| {
            if dsm.rank() == 0 {
                scope.spawn(|| {
                    await_go();
                    enough.store(true, Ordering::Release);
                });
            }
            while !enough.load(Ordering::Acquire) {
                sum.fetch_add(1, Ordering::Relaxed);
                *lock.lock()? += 1;
                own += 1;
            }
            Ok::<(), Error>(())
        })?;
        meet(dsm, "all have stopped")?;
        let total = sum.load(Ordering::Relaxed);
        assert_eq!(*lock.lock()?, total);
        let stats = dsm.stats();
        fact("own", own);
        fact("total", total);
        fact("refused", stats.refused_frames + stats.refused_messages);
        fact("reconnects", stats.reconnects);
        meet(dsm, "all have looked")
    })
}
