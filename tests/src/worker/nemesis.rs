//! A workload whose result is exact, over a network that misbehaves: whatever a seed does to the connections, nothing is
//! lost, doubled, torn or out of order, and no node takes another for dead.

use super::cluster::{meet, with_cluster};
use super::oracle::{await_quiet, tell};
use super::{Arguments, Outcome, Scenario, at, fact};
use dsm_node::testing::{Nemesis, Plan};
use dsm_node::{Dsm, DsmMutex, Shared, collections::DsmList};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::yield_now;

pub(super) const SCENARIOS: &[(&str, Scenario)] =
    &[("nemesis", nemesis), ("nemesis_aimed", nemesis_aimed), ("nemesis_leave", nemesis_leave)];

/// Counters that all nodes add to at random.
const COUNTERS: usize = 8;

/// One in so many turns takes a lock.
const LOCK_ONE_IN: u64 = 8;

/// Words of a page.
const WORDS: usize = 512;

/// Ranks that a mailbox is there for: more than any of these tests has.
const RANKS: usize = 8;

/// A word on a page of its own.
#[derive(Shared)]
#[repr(C, align(4096))]
struct Lone {
    word: AtomicU64,
}

/// One way from a rank to the next: a value, and how many were put there and taken.
#[derive(Shared)]
#[repr(C, align(4096))]
struct Mailbox {
    value: AtomicU64,
    put: AtomicU64,
    taken: AtomicU64,
}

/// A page whose words all say the same, and how often they were changed.
#[derive(Shared)]
#[repr(C)]
struct Board {
    words: [u64; WORDS],
}

/// What the nodes share.
struct Common<'a> {
    counters: &'a [Lone; COUNTERS],
    mailboxes: &'a [Mailbox; RANKS],
    board: &'a DsmMutex<Board>,
    list: &'a DsmMutex<DsmList<u64>>,
}

/// `seed` decides what goes wrong and what the nodes do, but for their pace.
fn nemesis(arguments: &Arguments) -> Outcome {
    let (seed, rounds, count) =
        (arguments.number("seed"), arguments.number("rounds"), arguments.number("count"));
    let nemesis = Nemesis::install(Plan::seeded(seed, arguments.number("page")))?;
    with_cluster(|dsm| {
        let common = common(dsm)?;
        let mut rng = ChaCha8Rng::seed_from_u64(seed << 8 | u64::from(dsm.rank()));
        meet(dsm, "all start at once")?;
        for round in 0..rounds {
            at(format_args!("round {round}: work"));
            work(&common, dsm, &mut rng, count, round)?;
            at(format_args!("round {round}: mail"));
            mail(common.mailboxes, dsm, count, round);
            name(dsm, round)?;
            meet(dsm, format_args!("nobody touches memory after round {round}"))?;
            tell(round, &await_quiet(dsm)?);
            meet(dsm, format_args!("all have looked after round {round}"))?;
        }
        at("counting");
        check(&common, dsm, rounds, count)?;
        meet(dsm, "all have counted")?;
        tell_stats(dsm);
        Ok(())
    })?;
    tell_deeds(&nemesis);
    Ok(())
}

fn common(dsm: &Dsm) -> Result<Common<'_>, dsm_node::Error> {
    let lone = || Lone { word: AtomicU64::new(0) };
    let mailbox = || Mailbox { value: AtomicU64::new(0), put: AtomicU64::new(0), taken: AtomicU64::new(0) };
    Ok(Common {
        counters: dsm.root("counters", |_| Ok(std::array::from_fn(|_| lone())))?,
        mailboxes: dsm.root("mailboxes", |_| Ok(std::array::from_fn(|_| mailbox())))?,
        board: dsm.root("board", |dsm| DsmMutex::new(dsm, Board { words: [0; WORDS] }))?,
        list: dsm.root("list", |dsm| DsmMutex::new(dsm, DsmList::new()))?,
    })
}

/// Adds `count` to the counters, in ones, and pushes as many values to the list and rewrites the board as often as
/// chance has it.
fn work(common: &Common<'_>, dsm: &Dsm, rng: &mut ChaCha8Rng, count: u64, round: u64) -> Outcome {
    for turn in 0..count {
        common.counters[rng.random_range(0..COUNTERS)].word.fetch_add(1, Ordering::SeqCst);
        if turn % LOCK_ONE_IN == 0 {
            let mut list = common.list.lock()?;
            list.push_back(unique(dsm.rank(), round * count + turn))?;
            drop(list);
            let mut board = common.board.lock()?;
            let before = board.words[0];
            assert!(board.words.iter().all(|word| *word == before), "the board is torn: {:?}", board.words);
            board.words.fill(before + 1);
        }
    }
    Ok(())
}

fn unique(rank: u32, number: u64) -> u64 {
    u64::from(rank) << u32::BITS | number
}

/// Each rank passes values on to the next, one at a time, and takes those of the one before.
fn mail(mailboxes: &[Mailbox; RANKS], dsm: &Dsm, count: u64, round: u64) {
    /// Each value takes several faults to pass on.
    const PER_TURN: u64 = 8;
    let (rank, nodes) = (dsm.rank(), dsm.size());
    let before = (rank + nodes - 1) % nodes;
    let (outbox, inbox) = (&mailboxes[rank as usize], &mailboxes[before as usize]);
    let values = count / PER_TURN;
    for number in round * values..(round + 1) * values {
        while outbox.taken.load(Ordering::Acquire) != number {
            yield_now();
        }
        outbox.value.store(unique(rank, number), Ordering::Relaxed);
        outbox.put.store(number + 1, Ordering::Release);
        while inbox.put.load(Ordering::Acquire) != number + 1 {
            yield_now();
        }
        assert_eq!(inbox.value.load(Ordering::Relaxed), unique(before, number), "the mail of {before}");
        inbox.taken.store(number + 1, Ordering::Release);
    }
}

/// All nodes race for a new name, whose object one of them makes.
fn name(dsm: &Dsm, round: u64) -> Outcome {
    at(format_args!("round {round}: a new name"));
    let made = dsm.root(&format!("made {round}"), |_| Ok(AtomicU64::new(0)))?;
    made.fetch_add(1, Ordering::SeqCst);
    meet(dsm, format_args!("all have the name of round {round}"))?;
    assert_eq!(made.load(Ordering::SeqCst), u64::from(dsm.size()), "one object, and each node added once");
    Ok(())
}

/// The sums are exact, and the list holds every value once, those of each rank in order.
fn check(common: &Common<'_>, dsm: &Dsm, rounds: u64, count: u64) -> Outcome {
    let nodes = u64::from(dsm.size());
    let sum: u64 = common.counters.iter().map(|lone| lone.word.load(Ordering::SeqCst)).sum();
    assert_eq!(sum, nodes * rounds * count, "increments were lost or doubled");
    let values: Vec<u64> = common.list.lock()?.iter().copied().collect();
    for rank in 0..dsm.size() {
        let own: Vec<u64> =
            values.iter().copied().filter(|value| value >> u32::BITS == u64::from(rank)).collect();
        assert_eq!(own.len() as u64, rounds * count.div_ceil(LOCK_ONE_IN), "values of rank {rank} are lost");
        assert!(
            own.is_sorted_by(|a, b| a < b),
            "values of rank {rank} are doubled or out of order: {own:x?}"
        );
    }
    let changes = common.board.lock()?.words[0];
    assert_eq!(changes, values.len() as u64, "the board and the list are written equally often");
    fact("values", values.len());
    fact("sum", sum);
    Ok(())
}

fn tell_stats(dsm: &Dsm) {
    let stats = dsm.stats();
    let faults = stats.read_faults + stats.write_faults;
    for (name, value) in [
        ("faults", faults),
        ("pages_received", stats.pages_received),
        ("messages_received", stats.messages_received),
        ("reconnects", stats.reconnects),
        ("resent", stats.resent_messages),
        ("duplicates_dropped", stats.duplicate_messages),
        ("refused_frames", stats.refused_frames),
        ("refused_messages", stats.refused_messages),
    ] {
        fact(name, value);
    }
}

fn tell_deeds(nemesis: &Nemesis) {
    for (name, value) in nemesis.deeds().entries() {
        fact(name, value);
    }
}

/// Rank 1 breaks `breaks` connections in a frame with a page, each `step` bytes further on than the last. Both nodes
/// write one page in turns meanwhile.
fn nemesis_aimed(arguments: &Arguments) -> Outcome {
    let (step, breaks) = (arguments.number("step"), arguments.number("breaks"));
    // Known by the environment before the node has joined: who breaks connections is decided here, not there.
    let breaker = std::env::var("DSM_RANK").is_ok_and(|rank| rank == "1");
    let nemesis = Nemesis::install(if breaker { Plan::aimed(step) } else { Plan::quiet() })?;
    with_cluster(|dsm| {
        let board = dsm.root("board", |_| Ok([const { AtomicU64::new(0) }; WORDS]))?;
        let stop = dsm.root("stop", |_| Ok(Lone { word: AtomicU64::new(0) }))?;
        meet(dsm, "all start at once")?;
        let (rank, nodes) = (u64::from(dsm.rank()), u64::from(dsm.size()));
        let mut turn = rank;
        // The page goes back and forth: whose turn it is writes all of it.
        loop {
            if turn % 100 == rank {
                at(format_args!("turn {turn}, {} breaks", nemesis.deeds().resets_as_aimed));
            }
            while board[0].load(Ordering::Acquire) < turn {
                yield_now();
            }
            assert!(board.iter().all(|word| word.load(Ordering::Relaxed) == turn), "turn {turn}: torn");
            let mut last = stop.word.load(Ordering::Relaxed);
            if breaker && last == 0 && nemesis.deeds().resets_as_aimed >= breaks {
                last = turn + nodes;
                stop.word.store(last, Ordering::Relaxed);
            }
            // The word that says whose turn it is comes last.
            board.iter().rev().for_each(|word| word.store(turn + 1, Ordering::Release));
            turn += nodes;
            if last != 0 && turn > last {
                break;
            }
        }
        meet(dsm, "all turns are over")?;
        tell(0, &await_quiet(dsm)?);
        meet(dsm, "all have looked")?;
        tell_stats(dsm);
        Ok(())
    })?;
    tell_deeds(&nemesis);
    Ok(())
}

/// The last thing that rank 0 says, which is that all programs are done, is lost with its connection to every other rank.
fn nemesis_leave(_: &Arguments) -> Outcome {
    let nemesis = Nemesis::install(Plan::quiet())?;
    let mut told = 0;
    with_cluster(|dsm| {
        meet(dsm, "all are there")?;
        await_quiet(dsm)?;
        meet(dsm, "nothing is under way")?;
        if dsm.rank() == 0 {
            told = dsm.size() - 1;
            (1..dsm.size()).for_each(|rank| nemesis.lose_next(rank));
        }
        Ok(())
    })?;
    assert_eq!(nemesis.deeds().resets, u64::from(told), "each of them was told once in vain");
    Ok(())
}
