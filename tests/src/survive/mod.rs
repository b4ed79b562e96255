//! A seeded simulation of nodes that die: commits, views, recovery.
//!
//! It runs the real machine, as `sim` does, with buddies that keep commits, and members that install views (by decree
//! here: how they agree on them is another matter). Threads store unique values into plain pages, run sections over two
//! pages that must change together, synchronise and meet; nodes die at any moment, with any part of what they had said
//! under way. After each recovery the oracle holds what has survived against what must have.
//!
//! Where things are: `plan` is what a seed decides; `node` is one node's state; `world` is the loop, and carries out
//! the machine's actions; `threads` are the virtual threads; `deaths` are crashes and views; `oracle` is the checker.

mod actions;
mod deaths;
mod node;
mod oracle;
mod plan;
mod threads;
mod world;

use crate::sim::Tracing;
use crate::sim::panics::caught;
use dsm_core::Time;
pub use world::Counts;
use world::World;

/// The outcome of a check: what went wrong, in words.
type Check<T = ()> = Result<T, String>;

/// A run in which something was not as it must be.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The seed that replays it.
    pub seed: u64,
    /// When it came to light.
    pub time: Time,
    /// What was wrong.
    pub what: String,
    /// What happened before, the latest last.
    pub trace: Vec<String>,
}

/// Lines of trace that a failure carries.
const TRACE_LINES: usize = 120;

/// Runs one seed.
///
/// # Errors
/// The first thing that was not as it must be, a panic of the machine included.
pub fn run(seed: u64, echo: bool) -> Result<Counts, Box<Failure>> {
    if echo {
        return attempt(seed, Tracing::Echo);
    }
    // A trace costs more than the run. A seed that fails is run again with one, and fails the same way.
    attempt(seed, Tracing::Off).or_else(|plain| {
        let tracing = Tracing::Last { lines: TRACE_LINES, until: plain.time };
        attempt(seed, tracing).and(Err(plain))
    })
}

fn attempt(seed: u64, tracing: Tracing) -> Result<Counts, Box<Failure>> {
    let mut world = World::new(seed, tracing);
    let outcome = caught(|| world.run());
    let (time, counts, trace) = world.into_parts();
    match outcome {
        Ok(()) => Ok(counts),
        Err(what) => Err(Box::new(Failure { seed, time, what, trace })),
    }
}
