//! Nodes that die behind one store of a section after the other: each section is there as a whole, or not at all.

use super::cluster::meet;
use super::crash::await_replicated;
use super::steps::run_to_store;
use super::{Arguments, Outcome, Scenario, at, fact};
use dsm_node::{Dsm, DsmMutex, DsmRef, Error, collections::DsmList};

pub(super) const SCENARIOS: &[(&str, Scenario)] = &[("stores", stores)];

/// Items in the list at first.
const ITEMS: u64 = 6;

/// Bytes in which the stores of a section are looked for: the page of the lock's value, from which so few elements get
/// their memory, too.
const WATCHED: usize = 4096;

/// What is done in a section.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Operation {
    Push,
    Insert,
    Remove,
    /// An item moves from one list to the other, in one section of both.
    Move,
}

type Lists = [DsmRef<DsmMutex<DsmList<u64>>>; 2];

/// The ranks from the last down to the third die one after the other: the first of them behind store number `from` of its
/// section, each further one behind the next. Should a section have no so many stores, its node says how many it has before it
/// ends with the section still open.
fn stores(arguments: &Arguments) -> Outcome {
    let operation = match arguments.text("operation") {
        "push" => Operation::Push,
        "insert" => Operation::Insert,
        "remove" => Operation::Remove,
        "move" => Operation::Move,
        other => panic!("there is no operation {other:?}"),
    };
    let from = arguments.number("from");
    at("join");
    let dsm = Dsm::join()?;
    let list = |_: &Dsm| -> Result<DsmList<u64>, Error> { Ok(DsmList::new()) };
    let lists: Lists = [
        dsm.root_ref("first", |dsm| DsmMutex::new(dsm, list(dsm)?))?,
        dsm.root_ref("second", |dsm| DsmMutex::new(dsm, list(dsm)?))?,
    ];
    if dsm.rank() == 0 {
        fill(&lists)?;
    }
    for (number, victim) in (2..dsm.size()).rev().enumerate() {
        meet(&dsm, format_args!("everybody is there, rank {victim} is next"))?;
        await_replicated(&dsm)?;
        let before = contents(&lists, None)?;
        let mut views = dsm.views();
        meet(&dsm, format_args!("everybody has looked, rank {victim} is next"))?;
        let last = from + number as u64;
        if dsm.rank() == victim {
            at(format_args!("dying behind store {last}"));
            die_at_work(&lists, operation, last)?;
        }
        at(format_args!("waiting for rank {victim} to die"));
        assert!(views.any(|view| !view.members.contains(&victim)));
        let after = contents(&lists, Some(victim))?;
        assert_eq!(after, before, "{operation:?} behind store {last}: the section of rank {victim} is there");
        meet(&dsm, format_args!("everybody has looked after rank {victim}"))?;
    }
    at("leave");
    dsm.leave()
}

fn fill(lists: &Lists) -> Outcome {
    for list in lists {
        let mut list = list.lock()?;
        (0..ITEMS).try_for_each(|item| list.push_back(item))?;
        list.commit()?;
    }
    Ok(())
}

/// What is in both lists, forwards, which is the same backwards.
fn contents(lists: &Lists, dead: Option<u32>) -> Result<[Vec<u64>; 2], Error> {
    let mut found = [Vec::new(), Vec::new()];
    for (list, found) in lists.iter().zip(&mut found) {
        let list = list.lock()?;
        if let Some(recovered) = list.recovered() {
            assert_eq!(Some(recovered.rank), dead, "who died with the lock");
            fact("recovered", recovered.rank);
        }
        found.extend(list.iter());
        let mut backwards: Vec<u64> = list.iter().rev().copied().collect();
        backwards.reverse();
        assert_eq!((found.len(), &*found), (list.len(), &backwards), "the list is torn");
    }
    Ok(found)
}

/// Ends the process behind store number `last` of a section, or behind all of its stores.
fn die_at_work(lists: &Lists, operation: Operation, last: u64) -> Outcome {
    let mut first = lists[0].lock()?;
    let mut second = lists[1].lock()?;
    let page = |list: &DsmList<u64>| {
        let value: *const u8 = std::ptr::from_ref(list).cast();
        value.map_addr(|address| address & !(WATCHED - 1))
    };
    let areas = [page(&first), page(&second)];
    let step = || match operation {
        Operation::Push => first.push_back(ITEMS).expect("there is room"),
        Operation::Insert => first.insert(ITEMS as usize / 2, ITEMS).expect("there is room"),
        Operation::Remove => assert!(first.remove(ITEMS as usize / 2).is_some()),
        Operation::Move => {
            let item = first.pop_front().expect("it has items");
            second.push_back(item).expect("there is room");
        }
    };
    // SAFETY: the areas are the first pages of two domains of which this thread holds the locks, so that nobody else stores
    // to them; and no other thread of this process counts stores.
    let stores = unsafe { run_to_store(areas, WATCHED, last, step) };
    assert!(stores < last, "it was to die behind store {last} of {stores}");
    fact("stores", stores);
    std::process::exit(0);
}
