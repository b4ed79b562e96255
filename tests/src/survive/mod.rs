//! A seeded simulation of nodes that die: commits, views, recovery.
//!
//! It runs the real machine, as `sim` does, with buddies that keep commits, and members that install views (by decree
//! here: how they agree on them is another matter). Threads store unique values into plain pages, run sections over two
//! pages that must change together, synchronise and meet; nodes die at any moment, with any part of what they had said
//! under way. After each recovery the oracle holds what has survived against what must have.
//!
//! Where things are: `plan` is what a seed decides; `node` is one node's state; `world` is the loop, `actions` carries
//! out what the machines want, `network` carries messages; `threads` are the virtual threads; `deaths` are crashes and
//! views, `joins` processes that come into them; `oracle` is the checker, and `holders` what must hold of all nodes
//! together; `mutant` are faults that they must find, and `lies` how some of these are told.

mod actions;
pub mod cluster;
mod counts;
mod deaths;
mod holders;
mod joins;
mod lies;
mod mutant;
mod network;
mod node;
mod oracle;
mod plan;
mod points;
mod sweep;
mod threads;
mod world;

use crate::sim::Tracing;
use crate::sim::panics::caught;
pub use counts::Counts;
use dsm_core::Time;
pub use mutant::Mutant;
pub use points::Doom;
use std::fmt;
pub use sweep::sweep;
use world::World;

/// The outcome of a check: what went wrong, in words.
type Check<T = ()> = Result<T, String>;

/// How to run a seed.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// A deliberate fault, which the run should then report.
    pub mutant: Option<Mutant>,
    /// Whether a trace is printed as the run goes.
    pub echo: bool,
    /// A node that dies at a place that has a name.
    pub doom: Option<Doom>,
}

/// A run in which something was not as it must be.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The seed that replays it.
    pub seed: u64,
    /// The command that runs it again.
    pub replay: String,
    /// When it came to light.
    pub time: Time,
    /// What was wrong.
    pub what: String,
    /// What happened before, the latest last.
    pub trace: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seed, at) = (self.seed, self.time.as_nanos());
        writeln!(f, "seed {seed} failed at {at} ns of virtual time: {}", self.what)?;
        for line in &self.trace {
            writeln!(f, "  {line}")?;
        }
        write!(f, "replay: {}", self.replay)
    }
}

impl std::error::Error for Failure {}

/// Lines of trace that a failure carries.
const TRACE_LINES: usize = 120;

/// Runs one seed.
///
/// # Errors
/// The first thing that was not as it must be, a panic of the machine included.
pub fn run(seed: u64, options: &Options) -> Result<Counts, Box<Failure>> {
    if options.echo {
        return attempt(seed, options, Tracing::Echo);
    }
    // A trace costs more than the run. A seed that fails is run again with one, and fails the same way.
    attempt(seed, options, Tracing::Off).or_else(|plain| {
        let tracing = Tracing::Last { lines: TRACE_LINES, until: plain.time };
        attempt(seed, options, tracing).and(Err(plain))
    })
}

fn attempt(seed: u64, options: &Options, tracing: Tracing) -> Result<Counts, Box<Failure>> {
    let mut world = World::new(seed, options.mutant, tracing);
    world.doom.clone_from(&options.doom);
    let outcome = caught(|| world.run());
    let (time, counts, trace) = world.into_parts();
    match outcome {
        Ok(()) => Ok(counts),
        Err(what) => {
            let mutant = options.mutant.map(|mutant| format!("{mutant:?}"));
            Err(Box::new(Failure { seed, replay: replay("survive", seed, mutant), time, what, trace }))
        }
    }
}

/// The command that runs a seed again.
fn replay(bin: &str, seed: u64, mutant: Option<String>) -> String {
    let mutant = mutant.map_or(String::new(), |mutant| format!(" --mutant {mutant}"));
    format!("cargo run --release -p dsm-tests --bin {bin} -- --seed {seed} --trace{mutant}")
}
