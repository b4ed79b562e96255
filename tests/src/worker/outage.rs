//! Nodes that are cut off, and pages that are lost with all who had them.

use super::cluster::meet;
use super::crash::{
    Common, Seen, await_replicated, common, count, settle, start, tell_stats, watch_views, work,
};
use super::{Arguments, Outcome, Scenario, at, await_go, fact};
use crate::harness::TOLD;
use dsm_node::launch::{Launch, TransportKind};
use dsm_node::testing::{Nemesis, Plan, Way};
use dsm_node::{Dsm, DsmBox, DsmMutex, DsmRef, Error, Shared};
use std::sync::atomic::{AtomicU64, Ordering};

pub(super) const SCENARIOS: &[(&str, Scenario)] =
    &[("partition", partition), ("losses", losses), ("launcher", launcher)];

/// After some work, the ranks from `first` on are cut off from those below. Those below go on without them.
fn partition(arguments: &Arguments) -> Outcome {
    let (turns, first) = (arguments.number("turns"), arguments.number("first") as u32);
    let way = match arguments.text("way") {
        "to" => Some(Way::To),
        "from" => Some(Way::From),
        "both" => Some(Way::Both),
        // The harness cuts the network itself.
        "network" => None,
        other => panic!("there is no way {other:?}"),
    };
    let nemesis = Nemesis::install(Plan::quiet())?;
    at("join");
    let dsm = Dsm::join()?;
    let common = common(&dsm)?;
    let seen = Seen::default();
    let starters = start(&common, &dsm)?;
    watch_views(&dsm);
    at("working");
    work(&common, &dsm, &seen, 0..turns)?;
    let mut views = dsm.views();
    meet(&dsm, "the network is about to break")?;
    await_replicated(&dsm)?;
    meet(&dsm, "everything is replicated")?;
    if dsm.rank() >= first {
        at("cut off");
        if let Some(way) = way {
            (0..first).for_each(|peer| nemesis.close(peer, way));
        }
        return be_cut_off(&common, &dsm, arguments.number("raw") != 0);
    }
    at("waiting for a view without those that were cut off");
    assert!(views.any(|view| view.members.iter().all(|rank| *rank < first)));
    at("working on");
    work(&common, &dsm, &seen, turns..2 * turns)?;
    settle(&dsm)?;
    count(&common, &dsm, &seen, &starters)?;
    meet(&dsm, "all have counted")?;
    tell_stats(&dsm);
    at("leave");
    dsm.leave()
}

/// What a call says that needs the others; or, raw, a store.
fn be_cut_off(common: &Common, dsm: &Dsm, raw: bool) -> Outcome {
    loop {
        if raw {
            for page in common.causes.iter() {
                page.word.fetch_add(1, Ordering::Relaxed);
            }
            continue;
        }
        let answer = common.list.lock().map_err(Error::from).and_then(|list| list.commit());
        if let Err(error) = answer {
            at(TOLD);
            assert!(dsm.sync().is_err() && dsm.barrier().is_err(), "it stays so");
            return Err(error);
        }
    }
}

/// A page that one rank makes and stores to.
#[derive(Shared)]
#[repr(C, align(4096))]
struct Page {
    word: AtomicU64,
}

/// The page of each rank, which nobody else ever touches, and a lock whose memory nobody else ever touches.
#[derive(Shared)]
#[repr(C)]
struct Own {
    page: DsmRef<Page>,
    lock: DsmMutex<u64>,
}

/// Each rank has something of its own; the harness kills an owner together with its only buddy, rank 0 and rank 1. What
/// rank 0 had is lost, and what the survivors have is there.
fn losses(_: &Arguments) -> Outcome {
    const VICTIMS: u32 = 2;
    at("join");
    let dsm = Dsm::join()?;
    let rank = dsm.rank();
    let value = |rank: u32| u64::from(rank) + 100;
    let make = |dsm: &Dsm| {
        let page = DsmBox::leak(dsm.alloc(Page { word: AtomicU64::new(value(rank)) })?);
        Ok(Own { page, lock: DsmMutex::new(dsm, value(rank))? })
    };
    dsm.root(&format!("of {rank}"), make)?;
    meet(&dsm, "all have something of their own")?;
    let mut all = Vec::new();
    for other in 0..dsm.size() {
        let of_other: DsmRef<Own> = dsm.root_ref(&format!("of {other}"), make)?;
        // What says where the things of the dead are must be here already: it goes with them otherwise.
        all.push((of_other.page, format!("{:?}", of_other.lock), of_other));
    }
    meet(&dsm, "all know all")?;
    await_replicated(&dsm)?;
    at("idle 0");
    await_go();
    let mut lost = 0;
    for (owner, (page, _, own)) in (0..).zip(&all) {
        at(format_args!("what rank {owner} had"));
        let of_page = dsm.ensure(*page).map(|page| page.word.load(Ordering::Relaxed));
        let of_lock = own.lock.lock().map(|value| *value).map_err(Error::from);
        for answer in [of_page, of_lock] {
            match answer {
                Ok(found) => assert_eq!(found, value(owner), "of rank {owner}"),
                Err(Error::Lost(found)) => {
                    assert!(owner < VICTIMS, "of rank {owner}, which lives: {found}");
                    assert!(found.last_owner.is_none_or(|last| last == owner), "{found}");
                    lost += 1;
                }
                Err(error) => return Err(error),
            }
            assert!(owner != 0 || lost > 0, "what rank 0 had went with all who had it");
        }
    }
    fact("lost", lost);
    fact("lost pages", dsm.stats().lost_pages);
    meet(&dsm, "all have looked")?;
    // A raw touch ends a process, with a line: not with zeros.
    if rank + 1 == dsm.size() {
        at("touching what is lost");
        let found = all[0].0.word.load(Ordering::Relaxed);
        panic!("a page that is lost has {found}");
    }
    at("leave");
    dsm.leave()
}

/// Launches nodes that work until they are told to stop, says which processes they are, and is killed by the test.
fn launcher(_: &Arguments) -> Outcome {
    let program = std::env::current_exe().expect("this program has a path");
    let cluster = Launch::new(program).nodes(3).transport(TransportKind::Tcp).arg("steady").spawn()?;
    for rank in 0..3 {
        fact("pid", cluster.pid(rank).expect("it runs"));
    }
    await_go();
    Ok(())
}
