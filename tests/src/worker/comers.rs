//! Nodes that come when others work already, and go before them.

use super::{Arguments, Outcome, Scenario, at, await_go, fact};
use dsm_node::{Dsm, DsmMutex, Error, collections::DsmList};

pub(super) const SCENARIOS: &[(&str, Scenario)] = &[("comers", comers)];

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
