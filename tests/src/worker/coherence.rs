//! Pages that several nodes write: nothing is lost, nothing comes late, nobody waits for ever.

use super::cluster::{meet, on_threads, with_cluster};
use super::{Arguments, Outcome, Scenario, at, fact};
use dsm_node::{DsmMutex, Shared};
use std::arch::asm;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::thread::yield_now;

pub(super) const SCENARIOS: &[(&str, Scenario)] = &[
    ("fetch_add", fetch_add),
    ("mutex_plain", mutex_plain),
    ("false_sharing", false_sharing),
    ("handoff", handoff),
    ("straddle", straddle),
    ("mixed", mixed),
];

/// Every thread of every node adds to one word.
fn fetch_add(arguments: &Arguments) -> Outcome {
    let (threads, count) = (arguments.number("threads"), arguments.number("count"));
    with_cluster(|dsm| {
        let sum = dsm.root("sum", |_| Ok(AtomicU64::new(0)))?;
        meet(dsm, "all start at once")?;
        at("adding");
        on_threads(dsm, threads, |_| {
            for _ in 0..count {
                sum.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        })?;
        meet(dsm, "all have added")?;
        assert_eq!(sum.load(Ordering::Relaxed), u64::from(dsm.size()) * threads * count);
        fact("write faults", dsm.stats().write_faults);
        Ok(())
    })
}

/// Plain loads and stores under a lock. The two halves lie on one page; the tail, on another.
#[derive(Shared)]
#[repr(C)]
struct Guarded {
    first: u64,
    gap: [u64; 1023],
    second: u64,
}

/// Every thread of every node adds to two plain words under a lock, which must never differ.
fn mutex_plain(arguments: &Arguments) -> Outcome {
    let (threads, count) = (arguments.number("threads"), arguments.number("count"));
    with_cluster(|dsm| {
        let lock =
            dsm.root("guarded", |dsm| DsmMutex::new(dsm, Guarded { first: 0, gap: [0; 1023], second: 0 }))?;
        meet(dsm, "all start at once")?;
        at("adding");
        on_threads(dsm, threads, |thread| {
            for _ in 0..count {
                let mut guarded = lock.lock()?;
                assert_eq!(guarded.first, guarded.second);
                guarded.first += 1;
                guarded.gap[thread as usize] += 1;
                guarded.second += 1;
            }
            Ok(())
        })?;
        meet(dsm, "all have added")?;
        let guarded = lock.lock()?;
        let all = u64::from(dsm.size()) * threads;
        assert_eq!((guarded.first, guarded.second), (all * count, all * count));
        assert!(guarded.gap[..all as usize].iter().all(|own| *own == count));
        Ok(())
    })
}

/// Each thread has a word of its own, all on one page: loads and stores that are not read-modify-write instructions.
fn false_sharing(arguments: &Arguments) -> Outcome {
    const WORDS: usize = 64;
    let (threads, count) = (arguments.number("threads"), arguments.number("count"));
    with_cluster(|dsm| {
        let words = dsm.root("words", |_| Ok([const { AtomicU64::new(0) }; WORDS]))?;
        meet(dsm, "all start at once")?;
        at("counting");
        on_threads(dsm, threads, |thread| {
            let own = &words[thread as usize];
            for expected in 0..count {
                let found = own.load(Ordering::Relaxed);
                assert_eq!(found, expected, "nobody else writes thread {thread}'s word");
                own.store(found + 1, Ordering::Relaxed);
            }
            Ok(())
        })?;
        meet(dsm, "all have counted")?;
        for (thread, word) in words.iter().enumerate() {
            let used = (thread as u64) < u64::from(dsm.size()) * threads;
            assert_eq!(word.load(Ordering::Relaxed), if used { count } else { 0 }, "thread {thread}");
        }
        Ok(())
    })
}

/// All nodes write one word in strict turns.
fn handoff(arguments: &Arguments) -> Outcome {
    /// How often the harness is told.
    const NEWS_EVERY: u64 = 1000;
    let turns = arguments.number("turns");
    with_cluster(|dsm| {
        let word = dsm.root("turn", |_| Ok(AtomicU64::new(0)))?;
        meet(dsm, "all start at once")?;
        let (rank, nodes) = (u64::from(dsm.rank()), u64::from(dsm.size()));
        for turn in (rank..turns).step_by(nodes as usize) {
            if turn / NEWS_EVERY != turn.wrapping_sub(nodes) / NEWS_EVERY {
                at(format_args!("turn {turn}"));
            }
            loop {
                let found = word.load(Ordering::Acquire);
                if found == turn {
                    break;
                }
                assert!(found < turn, "turn {turn} is this node's, but the word says {found}");
                // Whoever spins through its slice on a busy machine keeps the core from the one whose turn it is.
                yield_now();
            }
            word.store(turn + 1, Ordering::Release);
        }
        meet(dsm, "all turns are over")?;
        assert_eq!(word.load(Ordering::Acquire), turns);
        Ok(())
    })
}

/// Room for a word across the end of a page of 64 KiB, wherever the room begins.
const ROOM: usize = 3 * (64 << 10);

/// Two nodes write and read one word that lies on two pages, with one instruction each.
fn straddle(arguments: &Arguments) -> Outcome {
    let (page, count) = (arguments.number("page") as usize, arguments.number("count"));
    with_cluster(|dsm| {
        let room = dsm.root("room", |_| Ok([const { AtomicU8::new(0) }; ROOM]))?;
        let start = room.as_ptr().expose_provenance().next_multiple_of(page) + page - size_of::<u64>() / 2;
        let word = std::ptr::with_exposed_provenance_mut::<u64>(start);
        meet(dsm, "all start at once")?;
        let mine = pattern(dsm.rank());
        for turn in 0..count {
            if turn % 100 == 0 {
                at(format_args!("store {turn}"));
            }
            store_plain(word, mine);
            check_bytes(load_plain(word), dsm.size());
        }
        meet(dsm, "all have written")?;
        let last = load_plain(word);
        check_bytes(last, dsm.size());
        fact("last", last);
        meet(dsm, "all have read")
    })
}

/// A rank's word: all bytes the same.
fn pattern(rank: u32) -> u64 {
    u64::from_ne_bytes([rank as u8 + 1; 8])
}

/// A store across pages may be seen in part, but no byte was made up.
fn check_bytes(found: u64, nodes: u32) {
    for byte in found.to_ne_bytes() {
        assert!(u32::from(byte) <= nodes, "nobody wrote {byte:#x} of {found:#x}");
    }
}

fn store_plain(word: *mut u64, value: u64) {
    // SAFETY: the word lies in the room, which is never freed; other nodes may store at the same time, which one
    // instruction of the machine, unlike one of the language, is allowed to meet.
    unsafe { asm!("mov qword ptr [{word}], {value}", word = in(reg) word, value = in(reg) value) }
}

fn load_plain(word: *mut u64) -> u64 {
    let value;
    // SAFETY: as above.
    unsafe { asm!("mov {value}, qword ptr [{word}]", word = in(reg) word, value = out(reg) value) }
    value
}

/// A little of everything, for every count of nodes, page size and transport.
fn mixed(arguments: &Arguments) -> Outcome {
    let count = arguments.number("count");
    with_cluster(|dsm| {
        let nodes = u64::from(dsm.size());
        let sum = dsm.root("sum", |_| Ok(AtomicU64::new(0)))?;
        let lock = dsm.root("lock", |dsm| DsmMutex::new(dsm, 0_u64))?;
        let own = dsm.alloc([const { AtomicU64::new(0) }; 512])?;
        let boards = dsm.root("boards", |_| Ok([const { AtomicU64::new(0) }; 8]))?;
        for turn in 0..count {
            sum.fetch_add(1, Ordering::SeqCst);
            *lock.lock()? += 1;
            own[turn as usize % own.len()].fetch_add(1, Ordering::Relaxed);
            boards[dsm.rank() as usize].store(turn + 1, Ordering::Release);
        }
        meet(dsm, "all have worked")?;
        assert_eq!(sum.load(Ordering::SeqCst), nodes * count);
        assert_eq!(*lock.lock()?, nodes * count);
        assert_eq!(own.iter().map(|word| word.load(Ordering::Relaxed)).sum::<u64>(), count);
        let boards = boards.iter().map(|board| board.load(Ordering::Acquire));
        assert_eq!(boards.sum::<u64>(), nodes * count);
        meet(dsm, "all have looked")
    })
}
