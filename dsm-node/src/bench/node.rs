//! What the two nodes of a bench do. Rank 1 prepares and waits; rank 0 takes the times.

use super::floor::{self, nanos_since};
use super::{Figure, Measure};
use crate::Shared;
use crate::config::Builder;
use crate::dsm::Dsm;
use crate::error::{Error, Result};
use crate::refs::{DsmBox, DsmRef};
use crate::stats::Latency;
use crate::sync::DsmMutex;
use dsm_core::limits;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use serde_json::{Map, Value};
use std::hint::spin_loop;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Pages per round.
const PAGES: usize = 128;

/// Rounds, of which the first warms up.
const ROUNDS: u64 = 33;

/// Samples of each floor, taken before and again after the rest.
const FLOOR_SAMPLES: usize = 2000;

/// Turns of the ping-pong, and calls of lock and barrier.
const TURNS: u64 = 4000;

const WORDS: usize = limits::PAGE_SIZE_DEFAULT as usize / size_of::<u64>();

/// One page to be touched.
#[derive(Shared)]
#[repr(C, align(4096))]
struct Page {
    words: [AtomicU64; WORDS],
}

/// What both nodes find by name.
#[derive(Shared)]
#[repr(C)]
struct Board {
    pages: [DsmRef<Page>; PAGES],
    lock: DsmMutex<u64>,
    /// Where rank 1 answers the floor's round trips; zero while it does not.
    port: AtomicU64,
}

pub(super) fn run(measures: &[Measure]) -> Result<()> {
    let builder = Builder::from_env()?;
    take_a_processor()?;
    let dsm = builder.join()?;
    let bench = Bench { first: dsm.rank() == 0, dsm: &dsm, board: board(&dsm)? };
    let mut floors = Floors::default();
    floors.take(&bench)?;
    let mut taken = Vec::new();
    for &measure in measures {
        taken.push((measure, bench.measure(measure)?));
    }
    floors.take(&bench)?;
    if bench.first {
        let (fault, trip) = (floors.local_fault.p50_us(), floors.round_trip.p50_us());
        let figures: Map<String, Value> = taken
            .iter()
            .map(|(measure, latency)| {
                let latency = if *measure == Measure::LocalFault { &floors.local_fault } else { latency };
                let figure = Figure::new(latency, measure.floor(fault, trip));
                (measure.name().to_owned(), figure.to_json())
            })
            .collect();
        println!("{}", Value::Object(figures));
    }
    dsm.leave()
}

/// Keeps this node, engine and all, on a processor of its own where there are two: nodes are machines. Left to itself
/// the scheduler now packs both nodes onto one processor and now spreads them, which moves all figures by a factor.
fn take_a_processor() -> Result<()> {
    let failed = |errno| Error::io("choosing a processor", errno);
    let rank: usize = std::env::var("DSM_RANK").ok().and_then(|rank| rank.parse().ok()).unwrap_or(0);
    let allowed = sched_getaffinity(Pid::from_raw(0)).map_err(failed)?;
    let processors: Vec<usize> =
        (0..CpuSet::count()).filter(|&processor| allowed.is_set(processor).unwrap_or(false)).collect();
    let mut mine = CpuSet::new();
    mine.set(processors[rank % processors.len()]).map_err(failed)?;
    sched_setaffinity(Pid::from_raw(0), &mine).map_err(failed)
}

/// The board, made by rank 1, so that its pages are homed there: a miss of rank 0 is one round trip.
fn board(dsm: &Dsm) -> Result<&Board> {
    if dsm.rank() == 0 {
        dsm.barrier()?;
    }
    let board = dsm.root("board", |dsm| {
        let mut pages = Vec::with_capacity(PAGES);
        for _ in 0..PAGES {
            pages.push(DsmBox::leak(dsm.alloc(Page { words: [const { AtomicU64::new(0) }; WORDS] })?));
        }
        let pages = std::array::from_fn(|index| pages[index]);
        Ok(Board { pages, lock: DsmMutex::new(dsm, 0)?, port: AtomicU64::new(0) })
    })?;
    if dsm.rank() == 1 {
        dsm.barrier()?;
    }
    Ok(board)
}

/// The floors, as rank 0 took them.
#[derive(Default)]
struct Floors {
    local_fault: Latency,
    round_trip: Latency,
}

impl Floors {
    /// Takes them at rank 0, with rank 1 at the other end of the round trips.
    fn take(&mut self, bench: &Bench<'_>) -> Result<()> {
        let port = &bench.board.port;
        if bench.first {
            self.local_fault.merge(&floor::local_fault(FLOOR_SAMPLES)?);
            bench.dsm.barrier()?;
            while port.load(Ordering::Acquire) == 0 {
                spin_loop();
            }
            let port = u16::try_from(port.load(Ordering::Acquire)).unwrap_or_default();
            let (there, back) = (floor::REQUEST_LENGTH, floor::PAGE_LENGTH);
            self.round_trip.merge(&floor::round_trip(port, there, back, FLOOR_SAMPLES)?);
        } else {
            port.store(0, Ordering::Release);
            bench.dsm.barrier()?;
            let (there, back) = (floor::REQUEST_LENGTH, floor::PAGE_LENGTH);
            floor::answer_round_trips(there, back, |bound| port.store(u64::from(bound), Ordering::Release))?;
        }
        bench.dsm.barrier().map(|_| ())
    }
}

struct Bench<'d> {
    first: bool,
    dsm: &'d Dsm,
    board: &'d Board,
}

impl Bench<'_> {
    fn measure(&self, measure: Measure) -> Result<Latency> {
        match measure {
            Measure::LocalFault => Ok(Latency::new()),
            Measure::ReadMiss => self.touch(Self::write_all, |word| word.load(Ordering::Relaxed)),
            Measure::WriteMiss => self.touch(Self::write_all, |word| word.fetch_add(1, Ordering::Relaxed)),
            Measure::Upgrade => {
                self.touch(Self::read_by_the_other, |word| word.fetch_add(1, Ordering::Relaxed))
            }
            Measure::PingPong => self.ping_pong(),
            Measure::FirstTouch => self.first_touch(),
            Measure::LockHandoff => self.lock(),
            Measure::Barrier => self.barrier(),
            // These have clusters of their own.
            Measure::Commit | Measure::Recovery => Ok(Latency::new()),
        }
    }

    /// In each round, `prepare` sets the pages up, and then rank 0 touches one word of each.
    fn touch(&self, prepare: fn(&Self) -> Result<()>, touch: fn(&AtomicU64) -> u64) -> Result<Latency> {
        let mut latency = Latency::new();
        for round in 0..ROUNDS {
            prepare(self)?;
            if self.first {
                for page in &self.board.pages {
                    let start = Instant::now();
                    std::hint::black_box(touch(&page.words[0]));
                    if round > 0 {
                        latency.record(nanos_since(start));
                    }
                }
            }
            self.dsm.barrier()?;
        }
        Ok(latency)
    }

    /// Rank 1 owns all pages; rank 0 has none.
    fn write_all(&self) -> Result<()> {
        if !self.first {
            for page in &self.board.pages {
                page.words[1].fetch_add(1, Ordering::Relaxed);
            }
        }
        self.dsm.barrier().map(|_| ())
    }

    /// Rank 0 owns all pages, and rank 1 has a read copy of each.
    fn read_by_the_other(&self) -> Result<()> {
        if self.first {
            for page in &self.board.pages {
                page.words[1].fetch_add(1, Ordering::Relaxed);
            }
        }
        self.dsm.barrier()?;
        if !self.first {
            for page in &self.board.pages {
                std::hint::black_box(page.words[0].load(Ordering::Relaxed));
            }
        }
        self.dsm.barrier().map(|_| ())
    }

    /// The time of a whole exchange is that of two turns.
    fn ping_pong(&self) -> Result<Latency> {
        let word = &self.board.pages[0].words[2];
        word.store(0, Ordering::SeqCst);
        self.dsm.barrier()?;
        let mut latency = Latency::new();
        let mine = u64::from(!self.first);
        for turn in 0..TURNS {
            let start = Instant::now();
            while word.load(Ordering::Acquire) != 2 * turn + mine {
                spin_loop();
            }
            word.store(2 * turn + mine + 1, Ordering::Release);
            if self.first && turn > 0 {
                latency.record(nanos_since(start) / 2);
            }
        }
        self.dsm.barrier()?;
        Ok(latency)
    }

    /// Both allocate, but only rank 0's pages count: nobody has touched them, and they are homed at rank 0.
    fn first_touch(&self) -> Result<Latency> {
        let mut latency = Latency::new();
        if self.first {
            for _ in 0..PAGES * 8 {
                let start = Instant::now();
                let page = self.dsm.alloc(Page { words: [const { AtomicU64::new(0) }; WORDS] })?;
                latency.record(nanos_since(start));
                DsmBox::leak(page);
            }
        }
        self.dsm.barrier()?;
        Ok(latency)
    }

    /// The lock is homed at rank 1, and free: the time of a lock call is that of its round trip.
    fn lock(&self) -> Result<Latency> {
        let mut latency = Latency::new();
        if self.first {
            for _ in 0..TURNS {
                let start = Instant::now();
                let guard = self.board.lock.lock()?;
                latency.record(nanos_since(start));
                drop(guard);
            }
        }
        self.dsm.barrier()?;
        Ok(latency)
    }

    fn barrier(&self) -> Result<Latency> {
        let mut latency = Latency::new();
        for _ in 0..TURNS {
            let start = Instant::now();
            self.dsm.barrier()?;
            latency.record(nanos_since(start));
        }
        Ok(latency)
    }
}
