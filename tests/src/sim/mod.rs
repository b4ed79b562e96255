//! A seeded, deterministic simulator of a whole cluster. It runs the real [`dsm_core::Machine`] for each node, in
//! virtual time, over a network that delays and reorders, under threads that hammer a few pages; and it holds every
//! answer against what must be true.
//!
//! One seed decides everything: `run(seed, ..)` twice is the same run twice. Nothing here reads a clock, starts a
//! thread or touches real memory.
//!
//! Where things are: `plan` and `program` are what a seed decides; `node`, `queue` and `network` are the cluster's
//! state; `world` is the loop, `executor` carries out the machine's actions, `threads` and `calls` are the virtual
//! threads; `oracle` is the checker; `mutant` are faults that the checker must find.

mod calls;
mod counts;
mod executor;
mod lies;
mod mutant;
mod network;
mod node;
mod oracle;
pub(crate) mod panics;
mod plan;
mod program;
mod queue;
mod rng;
mod threads;
mod trace;
mod world;

pub use counts::Counts;
pub use mutant::Mutant;
pub use rng::Rng;
pub use trace::Tracing;

use dsm_core::Time;
use std::fmt;
use world::World;

/// The outcome of a check: what went wrong, in words.
type Check<T = ()> = Result<T, String>;

/// How to run a seed.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// A deliberate fault, which the run should then report.
    pub mutant: Option<Mutant>,
    /// Whether nodes may die in the runs whose seeds say so.
    pub crashes: bool,
    /// Whether a trace is printed as the run goes.
    pub echo: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options { mutant: None, crashes: true, echo: false }
    }
}

/// Lines of trace that a failure carries.
const TRACE_LINES: usize = 80;

/// A run in which something was not as it must be.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The seed that replays it.
    pub seed: u64,
    /// The deliberate fault that was planted, if any.
    pub mutant: Option<Mutant>,
    /// When it came to light.
    pub time: Time,
    /// What was wrong.
    pub what: String,
    /// What happened before, the latest last.
    pub trace: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "seed {} failed at {} ns of virtual time: {}",
            self.seed,
            self.time.as_nanos(),
            self.what
        )?;
        for line in &self.trace {
            writeln!(f, "  {line}")?;
        }
        write!(f, "replay: cargo run --release -p dsm-tests --bin sim -- --seed {} --trace", self.seed)?;
        self.mutant.map_or(Ok(()), |mutant| write!(f, " --mutant {mutant:?}"))
    }
}

impl std::error::Error for Failure {}

/// Runs one seed.
///
/// # Errors
/// The first thing that was not as it must be, a panic of the machine included.
pub fn run(seed: u64, options: &Options) -> Result<Counts, Box<Failure>> {
    if options.echo {
        return attempt(seed, options, Tracing::Echo);
    }
    // A trace costs more than the run. A seed that fails is run again with one, and fails the same way.
    attempt(seed, options, Tracing::Off)
        .or_else(|plain| attempt(seed, options, Tracing::Last(TRACE_LINES)).and(Err(plain)))
}

fn attempt(seed: u64, options: &Options, tracing: Tracing) -> Result<Counts, Box<Failure>> {
    let mut world = World::new(seed, options, tracing);
    let outcome = panics::caught(|| world.run());
    let (time, counts, trace) = world.into_parts();
    match outcome {
        Ok(()) => Ok(counts),
        Err(what) => Err(Box::new(Failure { seed, mutant: options.mutant, time, what, trace })),
    }
}
