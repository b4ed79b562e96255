//! Small tests of the memory model: what two nodes may see must be what two threads may see.

use super::cluster::{meet, with_cluster};
use super::{Arguments, Outcome, Scenario, at, fact};
use dsm_node::{DsmMutex, Shared, collections::DsmList};
use std::sync::atomic::{AtomicU64, Ordering};

pub(super) const SCENARIOS: &[(&str, Scenario)] = &[
    ("message_passing", message_passing),
    ("store_buffering", store_buffering),
    ("independent_reads", independent_reads),
];

/// A word on a page of its own, whatever the page size: no box of this length shares one.
#[derive(Shared)]
#[repr(C, align(4096))]
struct Lone {
    word: AtomicU64,
}

impl Lone {
    fn zero() -> Lone {
        Lone { word: AtomicU64::new(0) }
    }
}

/// Two words on two pages.
#[derive(Shared)]
#[repr(C)]
struct Two {
    x: Lone,
    y: Lone,
}

impl Two {
    fn zero() -> Two {
        Two { x: Lone::zero(), y: Lone::zero() }
    }
}

/// Rank 0 writes data and then a flag; whoever sees the flag sees the data.
fn message_passing(arguments: &Arguments) -> Outcome {
    let count = arguments.number("count");
    with_cluster(|dsm| {
        let two = dsm.root("two", |_| Ok(Two::zero()))?;
        let (data, flag) = (&two.x.word, &two.y.word);
        meet(dsm, "all start at once")?;
        if dsm.rank() == 0 {
            at("writing");
            for value in 1..=count {
                data.store(value, Ordering::Relaxed);
                flag.store(value, Ordering::Release);
            }
        } else {
            at("reading");
            let mut seen = 0;
            while seen < count {
                let told = flag.load(Ordering::Acquire);
                let found = data.load(Ordering::Relaxed);
                assert!(found >= told, "the flag says {told}, but the data is {found}");
                assert!(told >= seen, "the flag went back from {seen} to {told}");
                seen = told;
            }
        }
        meet(dsm, "all are done")
    })
}

/// Each of two nodes stores to its word and loads the other's: at least one sees the other's store.
fn store_buffering(arguments: &Arguments) -> Outcome {
    let count = arguments.number("count");
    with_cluster(|dsm| {
        let two = dsm.root("two", |_| Ok(Two::zero()))?;
        let seen = dsm.root("seen", |_| Ok(Two::zero()))?;
        let (mine, theirs, own_answer, other_answer) = match dsm.rank() {
            0 => (&two.x.word, &two.y.word, &seen.x.word, &seen.y.word),
            _ => (&two.y.word, &two.x.word, &seen.y.word, &seen.x.word),
        };
        let mut both = 0_u64;
        for round in 1..=count {
            meet(dsm, format_args!("round {round}"))?;
            mine.store(round, Ordering::SeqCst);
            let found = theirs.load(Ordering::SeqCst);
            own_answer.store(u64::from(found == round), Ordering::SeqCst);
            meet(dsm, format_args!("answers of round {round}"))?;
            let (own, other) = (own_answer.load(Ordering::SeqCst), other_answer.load(Ordering::SeqCst));
            assert!(own + other > 0, "neither node saw the other's store in round {round}");
            both += u64::from(own + other == 2);
        }
        fact("rounds in which both saw", both);
        Ok(())
    })
}

/// What a reader saw: in its first load, and in its second.
#[derive(Clone, Copy, Shared)]
#[repr(C)]
struct Sight {
    x: u64,
    y: u64,
}

/// What the readers of both kinds saw: those that load x first, and those that load y first.
#[derive(Shared)]
#[repr(C)]
struct Sights {
    x_first: DsmList<Sight>,
    y_first: DsmList<Sight>,
}

/// Ranks 0 and 1 write one word each, ranks 2 and 3 read both in different orders: they agree on which came first.
fn independent_reads(arguments: &Arguments) -> Outcome {
    let count = arguments.number("count");
    with_cluster(|dsm| {
        let two = dsm.root("two", |_| Ok(Two::zero()))?;
        let sights = dsm.root("sights", |dsm| {
            DsmMutex::new(dsm, Sights { x_first: DsmList::new(), y_first: DsmList::new() })
        })?;
        let (x, y) = (&two.x.word, &two.y.word);
        meet(dsm, "all start at once")?;
        let rank = dsm.rank();
        at(if rank < 2 { "writing" } else { "reading" });
        let mut seen = Vec::new();
        for value in 1..=count {
            match rank {
                0 => x.store(value, Ordering::SeqCst),
                1 => y.store(value, Ordering::SeqCst),
                2 => {
                    let x = x.load(Ordering::SeqCst);
                    seen.push(Sight { x, y: y.load(Ordering::SeqCst) });
                }
                _ => {
                    let y = y.load(Ordering::SeqCst);
                    seen.push(Sight { x: x.load(Ordering::SeqCst), y });
                }
            }
        }
        if rank >= 2 {
            let mut sights = sights.lock()?;
            let list = if rank == 2 { &mut sights.x_first } else { &mut sights.y_first };
            seen.into_iter().try_for_each(|sight| list.push_back(sight))?;
        }
        meet(dsm, "all are done")?;
        if rank == 0 {
            check_agreement(&*sights.lock()?);
        }
        Ok(())
    })
}

/// If one reader saw a store to x before one to y, no other saw that store to y before that to x.
fn check_agreement(sights: &Sights) {
    for one in &sights.x_first {
        for other in &sights.y_first {
            let crossed = one.x > other.x && other.y > one.y;
            assert!(
                !crossed,
                "x {} came before y {} for one reader, and after it for another (which saw x {}, y {})",
                one.x, other.y, other.x, other.y
            );
        }
    }
}
