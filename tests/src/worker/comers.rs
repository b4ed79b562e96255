//! Nodes that come when others work already, and go before them.

use super::{Arguments, Outcome, Scenario, at, await_go, fact};
use dsm_node::{Dsm, DsmMutex, Error, Shared, collections::DsmList};
use std::sync::atomic::{AtomicU64, Ordering};

pub(super) const SCENARIOS: &[(&str, Scenario)] = &[("comers", comers), ("leavers", leavers)];

/// Ranks that may have appended something.
const RANKS: u64 = 8;

/// An item is its rank, and its number among that rank's items below these bits.
const NUMBER_BITS: u32 = 32;

/// Appends items, each of them committed; then counts what is there as often as it is asked to, and leaves.
fn comers(arguments: &Arguments) -> Outcome {
    let (items, counts) = (arguments.number("items"), arguments.number("counts"));
    at("join");
    let dsm = Dsm::join()?;
    fact("members", dsm.view().members.len());
    let list: &DsmMutex<DsmList<u64>> = dsm.root("list", |dsm| DsmMutex::new(dsm, DsmList::new()))?;
    at("working");
    for number in 0..items {
        let mut guard = list.lock()?;
        guard.push_back(u64::from(dsm.rank()) << NUMBER_BITS | number)?;
        guard.commit()?;
    }
    at("resting");
    for count in 0..counts {
        await_go();
        at(format_args!("counting {count}"));
        count_items(list, count)?;
        at(format_args!("counted {count}"));
    }
    await_go();
    at("leave");
    dsm.leave()?;
    at("left");
    Ok(())
}

/// Tells how many items of each rank there are; each rank's must be there in order, without gaps.
fn count_items(list: &DsmMutex<DsmList<u64>>, count: u64) -> Result<(), Error> {
    let mut found = [0; RANKS as usize];
    for item in list.lock()?.iter() {
        let next = &mut found[(item >> NUMBER_BITS) as usize];
        assert_eq!(item & ((1 << NUMBER_BITS) - 1), *next, "an item is missing, or there twice");
        *next += 1;
    }
    let told: Vec<String> = found.iter().map(u64::to_string).collect();
    fact(&format!("found {count}"), told.join(" "));
    Ok(())
}

/// Pages of [`Own`].
const OWN_WORDS: usize = 1 << 15;

/// What one node alone has stored to.
#[derive(Shared)]
#[repr(C)]
struct Own {
    words: [AtomicU64; OWN_WORDS],
}

/// Stores to pages of its own; then either leaves when told to, or looks first whether everybody's pages are there.
fn leavers(arguments: &Arguments) -> Outcome {
    let stays = arguments.number("stays");
    at("join");
    let dsm = Dsm::join()?;
    let name = |rank: u32| format!("own {rank}");
    let new = |_: &Dsm| Ok(Own { words: [const { AtomicU64::new(0) }; OWN_WORDS] });
    let mine = dsm.root(&name(dsm.rank()), new)?;
    mine.words.iter().for_each(|word| word.store(u64::from(dsm.rank()) + 1, Ordering::Relaxed));
    dsm.sync()?;
    dsm.barrier()?;
    at("working");
    await_go();
    if stays >> dsm.rank() & 1 != 0 {
        for rank in 0..dsm.size() {
            let theirs = dsm.root(&name(rank), |_| Err::<Own, _>(Error::NotJoined))?;
            let all = theirs.words.iter().all(|word| word.load(Ordering::Relaxed) == u64::from(rank) + 1);
            assert!(all, "pages of rank {rank} are not what they were");
        }
        at("checked");
        await_go();
    }
    at("leave");
    dsm.leave()?;
    at("left");
    Ok(())
}
