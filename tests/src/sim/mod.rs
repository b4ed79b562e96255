//! A seeded, deterministic simulator of a whole cluster. It runs the real [`dsm_core::Machine`] for each node, in
//! virtual time, over a network that delays and reorders, under threads that hammer a few pages; and it holds every
//! answer against what must be true.
//!
//! One seed decides everything: `run(seed, ..)` twice is the same run twice. Nothing here reads a clock, starts a
//! thread or touches real memory.
//!
//! Where things are: `plan` and `program` are what a seed decides; `node`, `queue` and `network` are the cluster's
//! state; `world` is the loop, `executor` carries out the machine's actions, `threads`, `calls` and `sections`
//! are the virtual threads; `structures` are a queue and a list in simulated memory; `oracle` is the checker, and so is
//! `histories`, by what threads could notice; `mutant` are faults that the checkers must find; `hostile` is a member that says
//! anything.

mod calls;
mod counts;
mod executor;
mod histories;
mod hostile;
mod lies;
mod mutant;
mod network;
mod node;
mod oracle;
pub(crate) mod panics;
mod plan;
mod program;
mod queue;
pub(crate) mod rng;
mod sections;
mod structures;
mod threads;
pub(crate) mod trace;
mod world;

pub use counts::Counts;
pub use hostile::Hostility;
pub use mutant::Mutant;
pub use rng::Rng;
pub use trace::Tracing;

use dsm_core::Time;
use std::fmt;
use std::ops::Range;
use world::World;

/// The outcome of a check: what went wrong, in words.
type Check<T = ()> = Result<T, String>;

/// What is held against a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Checks {
    /// Everything.
    #[default]
    All,
    /// What is known of the whole cluster, but not the histories.
    Oracle,
    /// The histories of what threads were told, and nothing else: not even that a run comes to its end.
    History,
}

/// How to run a seed.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// A deliberate fault, which the run should then report.
    pub mutant: Option<Mutant>,
    /// Whether nodes may die in the runs whose seeds say so.
    pub crashes: bool,
    /// What is held against it.
    pub checks: Checks,
    /// Whether one member says anything at any time, and what it knows; then nobody dies.
    pub hostile: Option<Hostility>,
    /// Whether a trace is printed as the run goes.
    pub echo: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options { mutant: None, crashes: true, checks: Checks::All, hostile: None, echo: false }
    }
}

/// Lines of trace that a failure carries.
const TRACE_LINES: usize = 80;

/// A run in which something was not as it must be.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The seed that replays it.
    pub seed: u64,
    /// How it was run.
    pub options: Options,
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
        if !self.options.crashes {
            write!(f, " --no-crashes")?;
        }
        if self.options.checks != Checks::All {
            write!(f, " --checks {}", format!("{:?}", self.options.checks).to_lowercase())?;
        }
        if self.options.hostile.is_some() {
            write!(f, " --hostile")?;
        }
        self.options.mutant.map_or(Ok(()), |mutant| write!(f, " --mutant {mutant:?}"))
    }
}

impl std::error::Error for Failure {}

/// A range of seeds as commands take it: `FIRST..END`.
///
/// # Errors
/// What is wrong with the text, and how to write it.
pub fn seeds(text: &str) -> Result<Range<u64>, String> {
    let usage = || format!("{text:?} is not a range of seeds; write it as 0..1000");
    let (first, end) = text.split_once("..").ok_or_else(usage)?;
    let parse = |number: &str| number.parse::<u64>().map_err(|_| usage());
    let range = parse(first)?..parse(end)?;
    if range.is_empty() {
        Err(format!("{text:?} has no seeds in it; write it as 0..1000"))
    } else {
        Ok(range)
    }
}

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
    let mut world = World::new(seed, options, tracing);
    let ran = panics::caught(|| world.run());
    let outcome = world.judge(ran).and_then(|()| world.check_histories());
    let (time, counts, trace) = world.into_parts();
    match outcome {
        Ok(()) => Ok(counts),
        Err(what) => Err(Box::new(Failure { seed, options: *options, time, what, trace })),
    }
}
