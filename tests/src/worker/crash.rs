//! Nodes that build on each other while some of them die. What a survivor has seen stays, a section is there as a whole
//! or not at all, and what was acknowledged is there. What only several nodes can see together is told for `crate::crash`
//! to judge.

use super::cluster::meet;
use super::oracle::{await_quiet, tell};
use super::{Arguments, Outcome, Scenario, at, await_go, expect_panics, fact, let_time_pass};
use dsm_node::testing::{examine, recovery_times};
use dsm_node::{Dsm, DsmMutex, DsmRef, Error, Shared, collections::DsmList};
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

pub(super) const SCENARIOS: &[(&str, Scenario)] = &[("crash", crash)];

/// How often the nodes look at their pages in the end: once more than the view changes while they do, as a rule.
pub const LOOKS: u64 = 2;

/// More ranks than any of these clusters has.
const RANKS: usize = 8;

/// What is in the first account at first: more than is ever moved to the second.
const BALANCE: u64 = 1 << 20;

/// One turn in so many moves something from one account to the other.
const MOVE_ONE_IN: u64 = 3;

/// One of two domains that change together.
#[derive(Shared)]
#[repr(C)]
pub(super) struct Account {
    balance: u64,
    /// How often each rank has moved something.
    moves: [u64; RANKS],
}

/// A word on a page of its own, in plain memory.
#[derive(Shared)]
#[repr(C, align(4096))]
pub(super) struct Word {
    pub(super) word: AtomicU64,
}

pub(super) type Words = [Word; RANKS];

/// What the nodes share.
pub(super) struct Common {
    pub(super) list: DsmRef<DsmMutex<DsmList<u64>>>,
    pub(super) from: DsmRef<DsmMutex<Account>>,
    pub(super) to: DsmRef<DsmMutex<Account>>,
    /// What each rank stored before its section.
    pub(super) causes: DsmRef<Words>,
    /// What each rank stored after its section.
    pub(super) effects: DsmRef<Words>,
    /// What each rank stored before the first barrier, and nobody reads before the end.
    pub(super) before: DsmRef<Words>,
    /// What the one who made the root stored in it, and nobody reads before the end.
    pub(super) made: DsmRef<Word>,
}

/// What this node has seen of each rank's effects. It never goes back.
pub(super) type Seen = [Cell<u64>; RANKS];

/// A few turns of work, before, between and after as many rests as the harness wants; then what is there is counted.
fn crash(arguments: &Arguments) -> Outcome {
    let (turns, rests, may_lose) =
        (arguments.number("turns"), arguments.number("rests"), arguments.number("may_lose") != 0);
    if arguments.number("panics") != 0 {
        expect_panics();
    }
    at("join");
    let dsm = Dsm::join()?;
    let common = common(&dsm)?;
    let seen = Seen::default();
    let starters = start(&common, &dsm)?;
    watch_views(&dsm);
    at("working");
    let mut worked = forgive(work(&common, &dsm, &seen, 0..turns), may_lose)?;
    for rest in 0..rests {
        meet(&dsm, format_args!("all rest, {rest}"))?;
        await_replicated(&dsm)?;
        at(format_args!("idle {rest}"));
        await_go();
        at(format_args!("working again, {rest}"));
        let from = (rest + 1) * turns;
        worked = worked && forgive(work(&common, &dsm, &seen, from..from + turns), may_lose)?;
    }
    settle(&dsm)?;
    at("counting");
    let counted = worked && forgive(count(&common, &dsm, &seen, &starters), may_lose)?;
    fact("counted", u32::from(counted));
    meet(&dsm, "all have counted")?;
    at("leave");
    tell_stats(&dsm);
    dsm.leave()
}

/// Each root is made by another rank, and lies at that rank's home, so that all are home of something.
pub(super) fn common(dsm: &Dsm) -> Result<Common, Error> {
    let words = |_: &Dsm| Ok(std::array::from_fn(|_| Word { word: AtomicU64::new(0) }));
    let account = |balance| move |dsm: &Dsm| DsmMutex::new(dsm, Account { balance, moves: [0; RANKS] });
    let rank = u64::from(dsm.rank());
    let made = |_: &Dsm| Ok(Word { word: AtomicU64::new(rank + 1) });
    let list = |dsm: &Dsm| DsmMutex::new(dsm, DsmList::new());
    Ok(Common {
        list: made_in_turn(dsm, 0, "list", list)?,
        from: made_in_turn(dsm, 1, "from", account(BALANCE))?,
        causes: made_in_turn(dsm, 2, "causes", words)?,
        to: made_in_turn(dsm, 3, "to", account(0))?,
        effects: made_in_turn(dsm, 4, "effects", words)?,
        before: made_in_turn(dsm, 5, "before", words)?,
        made: made_in_turn(dsm, 6, "made", made)?,
    })
}

/// A root that the rank makes whose turn it is, or whoever asks first should that one die.
fn made_in_turn<T: Shared>(
    dsm: &Dsm,
    turn: u32,
    name: &str,
    make: impl Fn(&Dsm) -> Result<T, Error>,
) -> Result<DsmRef<T>, Error> {
    if turn % dsm.size() == dsm.rank() {
        dsm.root_ref(name, &make)?;
    }
    meet(dsm, name)?;
    dsm.root_ref(name, &make)
}

/// Stores something before a barrier; who did as well.
pub(super) fn start(common: &Common, dsm: &Dsm) -> Result<Vec<u32>, Error> {
    own(&common.before, dsm).store(1, Ordering::Relaxed);
    at("barrier: all start at once");
    Ok(dsm.barrier()?.members)
}

/// Whether all is there that was asked for. What is lost is told, where something may be.
fn forgive(outcome: Outcome, may_lose: bool) -> Result<bool, Error> {
    match outcome {
        Ok(()) => Ok(true),
        Err(Error::Lost(lost)) if may_lose => {
            fact("lost", lost.page);
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Says which views this node installs, for as long as it is a member.
pub(super) fn watch_views(dsm: &Dsm) {
    let views = dsm.views();
    std::thread::spawn(move || {
        for view in views {
            fact("view", view.number);
            fact("in view", view.members.len());
        }
    });
}

/// Waits until nothing is under way here, and every page has all of its holders.
pub(super) fn await_replicated(dsm: &Dsm) -> Outcome {
    /// Each look takes the engine a moment, which it is not to be kept from its work by.
    const LOOK: Duration = Duration::from_millis(2);
    loop {
        let found = examine(dsm)?;
        if found.quiet && found.replicated {
            return Ok(());
        }
        let_time_pass(LOOK);
    }
}

pub(super) fn own<'a>(words: &'a Words, dsm: &Dsm) -> &'a AtomicU64 {
    &words[dsm.rank() as usize].word
}

pub(super) fn work(common: &Common, dsm: &Dsm, seen: &Seen, turns: std::ops::Range<u64>) -> Outcome {
    for turn in turns {
        own(dsm.ensure(common.causes)?, dsm).store(turn + 1, Ordering::Relaxed);
        append(common, dsm, turn)?;
        fact("acked", turn + 1);
        if turn % MOVE_ONE_IN == 0 {
            move_one(common, dsm)?;
            fact("moved", turn / MOVE_ONE_IN + 1);
        }
        own(dsm.ensure(common.effects)?, dsm).store(turn + 1, Ordering::Release);
        look(common, dsm, seen, (turn % u64::from(dsm.size())) as usize)?;
    }
    Ok(())
}

/// An item says who appended it, and in which turn.
fn item(rank: u32, turn: u64) -> u64 {
    u64::from(rank) << u32::BITS | turn
}

fn append(common: &Common, dsm: &Dsm, turn: u64) -> Outcome {
    let mut list = common.list.lock()?;
    if let Some(recovered) = list.recovered() {
        fact("recovered", recovered.rank);
    }
    if let Some(last) = list.back() {
        // The lock came here from whoever appended it, and with it all that was stored there before.
        let (rank, turn) = ((last >> u32::BITS) as usize, last & u64::from(u32::MAX));
        let cause = dsm.ensure(common.causes)?[rank].word.load(Ordering::Relaxed);
        assert!(cause > turn, "rank {rank} appended item {turn}, but had stored {cause} before");
    }
    list.push_back(item(dsm.rank(), turn))?;
    list.commit()
}

/// Two domains change in one section.
fn move_one(common: &Common, dsm: &Dsm) -> Outcome {
    let mut from = common.from.lock()?;
    let mut to = common.to.lock()?;
    let rank = dsm.rank() as usize;
    assert_eq!(from.balance + to.balance, BALANCE, "a section is there in part");
    assert_eq!(from.moves, to.moves, "a section is there in part");
    from.moves[rank] += 1;
    to.balance += 1;
    to.moves[rank] += 1;
    from.balance -= 1;
    drop(to);
    from.commit()
}

/// Whoever sees an effect sees its cause, and sees it again.
fn look(common: &Common, dsm: &Dsm, seen: &Seen, rank: usize) -> Outcome {
    let effect = dsm.ensure(common.effects)?[rank].word.load(Ordering::Acquire);
    let cause = dsm.ensure(common.causes)?[rank].word.load(Ordering::Relaxed);
    assert!(cause >= effect, "rank {rank}: the effect {effect} is there without its cause, {cause}");
    let before = seen[rank].replace(effect);
    assert!(effect >= before, "rank {rank}: {before} was seen, and is {effect} now");
    Ok(())
}

/// Says what this node may do with its pages while nobody touches any, and in which view, if that did not change
/// meanwhile. A barrier that was passed while the view changed may tell nodes different views, so that what nodes do next
/// must not depend on it.
pub(super) fn settle(dsm: &Dsm) -> Outcome {
    for round in 0..LOOKS {
        at(format_args!("barrier: nobody touches memory, round {round}"));
        let before = dsm.barrier()?;
        at(format_args!("quiet, round {round}"));
        let mut found = await_quiet(dsm)?;
        // A node that was without a lease for a while has unmapped everything, and maps it again when it is touched.
        found.mismatches.retain(|mismatch| !mismatch.ends_with("None by the page table"));
        at(format_args!("barrier: all have looked, round {round}"));
        let after = dsm.barrier()?;
        tell(round, &found);
        let members: Vec<String> = after.members.iter().map(u32::to_string).collect();
        fact(&format!("members {round}"), if before == after { members.join(",") } else { String::new() });
    }
    Ok(())
}

/// Counts what is there of each rank, and tells it.
pub(super) fn count(common: &Common, dsm: &Dsm, seen: &Seen, starters: &[u32]) -> Outcome {
    let mut items = [0; RANKS];
    for value in common.list.lock()?.iter() {
        let (rank, turn) = ((value >> u32::BITS) as usize, value & u64::from(u32::MAX));
        assert_eq!(turn, items[rank], "the items of rank {rank} are no prefix of what it appended");
        items[rank] += 1;
    }
    tell_all("items", items);
    let from = common.from.lock()?;
    let to = common.to.lock()?;
    assert_eq!(from.balance + to.balance, BALANCE, "a section is there in part");
    assert_eq!(from.moves, to.moves, "a section is there in part");
    assert_eq!(to.balance, to.moves.iter().sum::<u64>(), "a section is there in part");
    tell_all("moves", to.moves);
    drop(to);
    drop(from);
    for (rank, items) in items.iter().enumerate().take(dsm.size() as usize) {
        look(common, dsm, seen, rank)?;
        let cause = dsm.ensure(common.causes)?[rank].word.load(Ordering::Relaxed);
        assert!(cause >= *items, "rank {rank}: {items} items, but {cause} before them");
    }
    for rank in starters {
        let before = dsm.ensure(common.before)?[*rank as usize].word.load(Ordering::Relaxed);
        assert_eq!(before, 1, "what rank {rank} stored before the barrier");
    }
    let made = dsm.ensure(common.made)?.word.load(Ordering::Relaxed);
    assert!((1..=u64::from(dsm.size())).contains(&made), "the root has {made}");
    Ok(())
}

fn tell_all(name: &str, numbers: [u64; RANKS]) {
    fact(name, numbers.map(|number| number.to_string()).join(","));
}

pub(super) fn tell_stats(dsm: &Dsm) {
    let stats = dsm.stats();
    fact("lost pages", stats.lost_pages);
    fact("refused messages", stats.refused_messages);
    for recovery in recovery_times(dsm) {
        fact(&format!("resumed in view {}", recovery.view), recovery.resumed_at);
        if let Some(resolved) = recovery.first_resolved_at {
            fact(&format!("resolved in view {}", recovery.view), resolved);
        }
    }
}
