//! The runtime's progress and the application's do not depend on each other: pages come while the owner's threads
//! compute or sleep, and an idle node costs nothing.

use super::cluster::{meet, with_cluster};
use super::{Arguments, Outcome, Scenario, at, fact, let_time_pass};
use dsm_node::Shared;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use std::hint::black_box;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

pub(super) const SCENARIOS: &[(&str, Scenario)] = &[("owner_busy", owner_busy), ("idle", idle)];

/// Pages that are read in one phase.
const SAMPLES: usize = 100;

/// How long the owner's threads compute or sleep.
const SPELL: Duration = Duration::from_secs(3);

/// Between two reads, so that they meet the owner's threads in every phase of their time slices.
const PAUSE: Duration = Duration::from_millis(10);

#[derive(Shared)]
#[repr(C, align(4096))]
struct Page {
    word: AtomicU64,
}

/// Rank 1 reads pages of rank 0: first while that is quiet, then while its threads do as they are told.
fn owner_busy(arguments: &Arguments) -> Outcome {
    let computes = match arguments.text("owner") {
        "computes" => true,
        "sleeps" => false,
        other => panic!("the owner either computes or sleeps, and does not {other:?}"),
    };
    with_cluster(|dsm| {
        let pages = dsm.root("pages", |_| Ok([const { Page { word: AtomicU64::new(0) } }; 2 * SAMPLES]))?;
        let owner = dsm.rank() == 0;
        if owner {
            pages.iter().for_each(|page| page.word.store(1, Ordering::Relaxed));
        }
        meet(dsm, "rank 0 owns all pages")?;
        if !owner {
            let (median, _) = read_all(&pages[..SAMPLES]);
            fact("quiet p50", median.as_nanos());
        }
        meet(dsm, "rank 1 has read while rank 0 was quiet")?;
        // As many as there are cores, and one more: none is left for the engine but what the scheduler gives it.
        let threads = std::thread::available_parallelism().map_or(1, usize::from) + 1;
        let started = Barrier::new(threads + 1);
        std::thread::scope(|scope| {
            if owner {
                for _ in 0..threads {
                    scope.spawn(|| {
                        started.wait();
                        spend(SPELL, computes);
                    });
                }
                started.wait();
            }
            meet(dsm, "rank 0's threads are at it")?;
            if !owner {
                let (median, longest) = read_all(&pages[SAMPLES..]);
                fact("busy p50", median.as_nanos());
                fact("busy longest", longest.as_nanos());
            }
            Ok::<(), dsm_node::Error>(())
        })?;
        fact("spell", SPELL.as_nanos());
        meet(dsm, "all are done")
    })
}

/// The median time of a read miss, and the longest.
fn read_all(pages: &[Page]) -> (Duration, Duration) {
    at("reading");
    let mut times: Vec<Duration> = pages
        .iter()
        .map(|page| {
            let_time_pass(PAUSE);
            let start = Instant::now();
            assert_eq!(page.word.load(Ordering::Relaxed), 1);
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    (times[times.len() / 2], times[times.len() - 1])
}

fn spend(spell: Duration, computes: bool) {
    if !computes {
        return let_time_pass(spell);
    }
    let start = Instant::now();
    let mut number = 0_u64;
    while start.elapsed() < spell {
        for _ in 0..1000 {
            number = black_box(number.wrapping_mul(3).wrapping_add(1));
        }
    }
}

/// All nodes sleep for a while; each says how much time of the processor it used, and how often its engine ran.
fn idle(_: &Arguments) -> Outcome {
    /// What still comes after a barrier, acknowledgements for instance, has come by then.
    const SETTLE: Duration = Duration::from_millis(200);
    const SPAN: Duration = Duration::from_secs(1);
    with_cluster(|dsm| {
        let sum = dsm.root("sum", |_| Ok(AtomicU64::new(0)))?;
        // Something has happened before: what it leaves behind must not go on for ever.
        (0..100).for_each(|_| {
            sum.fetch_add(1, Ordering::Relaxed);
        });
        meet(dsm, "all have worked")?;
        at("idle");
        let_time_pass(SETTLE);
        let (cpu, switches) = (cpu_time(), engine_switches());
        let_time_pass(SPAN);
        fact("cpu", (cpu_time() - cpu).as_nanos());
        fact("switches", engine_switches() - switches);
        meet(dsm, "all have slept")
    })
}

/// What this process has used so far.
fn cpu_time() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("a process may ask for its own usage");
    let span =
        |time: TimeVal| Duration::from_micros(time.tv_sec() as u64 * 1_000_000 + time.tv_usec() as u64);
    span(usage.user_time()) + span(usage.system_time())
}

/// How often the engine's thread has gone to sleep so far.
fn engine_switches() -> u64 {
    let tasks = std::fs::read_dir("/proc/self/task").expect("/proc is there");
    for task in tasks.flatten() {
        let name = std::fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        if name.trim() == "dsm-engine" {
            let status = std::fs::read_to_string(task.path().join("status")).unwrap_or_default();
            let count = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
            return count.and_then(|count| count.trim().parse().ok()).expect("the kernel counts switches");
        }
    }
    panic!("there is no thread of the name dsm-engine");
}
