//! A node that dies in the middle, and strangers at the door.

use super::cluster::{meet, with_cluster};
use super::{Arguments, Outcome, Scenario, at, await_go, fact};
use crate::harness::TOLD;
use dsm_node::{Dsm, DsmBox, DsmMutex, DsmRef, Error, Shared};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

pub(super) const SCENARIOS: &[(&str, Scenario)] =
    &[("death", death), ("death_while_computing", death_while_computing), ("steady", steady)];

/// A word with a page of its own.
#[derive(Shared)]
#[repr(C, align(4096))]
struct Page {
    word: AtomicU64,
}

/// One page for each way in which a page can depend on the victim.
#[derive(Shared)]
#[repr(C)]
struct Pages {
    /// Homed at the victim, which also wrote it last.
    both: DsmRef<Page>,
    /// Homed elsewhere; the victim wrote it last.
    owned: DsmRef<Page>,
    /// Homed at the victim; another wrote it last.
    homed: DsmRef<Page>,
}

/// What the survivors are at when the victim dies. Ranks behind the victim's take the roles in order.
const ROLES: [&str; 5] = ["barrier", "lock", "touch", "compute", "leave"];

/// One node holds a lock and owns pages; the harness freezes it, lets the others need it, and kills it.
fn death(arguments: &Arguments) -> Outcome {
    let victim = arguments.number("victim") as u32;
    let dsm = Dsm::join()?;
    let rank = dsm.rank();
    let lock = dsm.root_ref("lock", |dsm| DsmMutex::new(dsm, 0_u64))?;
    let pages = prepare(&dsm, victim, &lock)?;
    let page = match arguments.text("page") {
        "both" => pages.both,
        "owned" => pages.owned,
        "homed" => pages.homed,
        other => panic!("there is no page {other:?}"),
    };
    if rank == victim {
        let _held = lock.lock()?;
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
        "barrier" => expect_lost(victim, dsm.barrier()),
        "lock" => expect_lost(victim, lock.lock().map(|_| ()).map_err(Error::from)),
        "touch" => {
            let found = page.word.load(Ordering::SeqCst);
            panic!("a page that went with its node has {found}");
        }
        "compute" => {}
        _ => {
            expect_lost(victim, dsm.leave());
            return Ok(());
        }
    }
    expect_lost(victim, dsm.barrier());
    expect_lost(victim, dsm.root("another", |_| Ok(0_u64)));
    expect_lost(victim, lock.try_lock().map(|_| ()).map_err(Error::from));
    expect_lost(victim, lock.lock().map(|_| ()).map_err(Error::from));
    expect_lost(victim, DsmMutex::new(&dsm, 0_u64));
    expect_lost(victim, dsm.leave());
    Ok(())
}

/// Makes the pages depend on the victim. The victim takes the lock only after this.
fn prepare(dsm: &Dsm, victim: u32, lock: &DsmMutex<u64>) -> Result<Pages, Error> {
    let other = (victim + 1) % dsm.size();
    let page =
        || -> Result<DsmRef<Page>, Error> { Ok(DsmBox::leak(dsm.alloc(Page { word: AtomicU64::new(1) })?)) };
    let own_of = |name: &str, rank: u32| -> Result<DsmRef<Page>, Error> {
        if dsm.rank() == rank {
            dsm.root(name, |_| page())?;
        }
        meet(dsm, name)?;
        // Everybody asks, the maker included: the answer is the same for all.
        dsm.root(name, |_| page()).copied()
    };
    let both = own_of("both", victim)?;
    let homed = own_of("homed", victim)?;
    let owned = own_of("owned", other)?;
    if dsm.rank() == victim {
        both.word.store(2, Ordering::SeqCst);
        owned.word.store(2, Ordering::SeqCst);
    }
    if dsm.rank() == other {
        homed.word.store(2, Ordering::SeqCst);
    }
    // The handle of the lock is on a page too, which a node that has not read it could not have later.
    fact("lock", format_args!("{lock:?}"));
    meet(dsm, "the pages are where they belong")?;
    Ok(Pages { both, owned, homed })
}

fn expect_lost<T>(victim: u32, answer: Result<T, Error>) {
    match answer {
        Err(Error::PeerLost { rank }) if rank == victim => at(TOLD),
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
    let error = loop {
        word.fetch_add(1, Ordering::SeqCst);
        match lock.lock() {
            Ok(mut value) => *value += 1,
            Err(error) => break Error::from(error),
        }
    };
    expect_lost::<()>(victim, Err(error));
    expect_lost(victim, dsm.leave());
    Ok(())
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
