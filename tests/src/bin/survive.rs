//! Runs the simulation of nodes that die over a range of seeds, or replays one.
//!
//! Ends with one line of counts; with exit 1 and the seed on a failure, with exit 2 on a usage error.

use clap::Parser;
use dsm_tests::survive::{self, Counts, Doom, Failure, Mutant, Options, sweep};
use std::io::{self, Write};
use std::ops::Range;
use std::process::ExitCode;
use std::thread;

/// Runs the protocol machine of whole clusters whose nodes die, in virtual time, over many seeds, and holds what
/// survived against what must have.
#[derive(Parser)]
#[command(name = "survive")]
struct Arguments {
    /// The seeds to run, as FIRST..END.
    #[arg(long, value_name = "FIRST..END", value_parser = dsm_tests::sim::seeds, default_value = "0..10000")]
    seeds: Range<u64>,
    /// Replays this one seed.
    #[arg(long, value_name = "SEED", conflicts_with = "seeds")]
    seed: Option<u64>,
    /// Prints every event and action of the run; with --seed.
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Goes on after a failure, and lists every seed that fails.
    #[arg(long)]
    all: bool,
    /// Plants a deliberate fault, which is to be found; see `survive::Mutant`.
    #[arg(long, value_name = "NAME", value_parser = mutant)]
    mutant: Option<Mutant>,
    /// Has a node die, or lose a message, at a failpoint, such as 1:send:Grant@3=kill; see `dsm_core::failpoint`.
    #[arg(long, value_name = "RANK:FAILPOINT")]
    failpoint: Option<Doom>,
    /// How many seeds run at the same time; by default as many as there are cores.
    #[arg(long, value_name = "THREADS")]
    jobs: Option<usize>,
}

fn mutant(name: &str) -> Result<Mutant, String> {
    Mutant::named(name).ok_or_else(|| format!("there is no such mutant; there are {:?}", Mutant::ALL))
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let options = Options { mutant: arguments.mutant, echo: arguments.trace, doom: arguments.failpoint };
    let range = arguments.seed.map_or(arguments.seeds.clone(), |seed| seed..seed + 1);
    let jobs = arguments.jobs.or_else(|| thread::available_parallelism().ok().map(Into::into)).unwrap_or(1);
    let run = |seed| survive::run(seed, &options);
    let (counts, failures) = sweep(&range, jobs.max(1), arguments.all, run, Counts::add);
    // A reader that closes the pipe early has seen enough.
    drop(print(&counts, &failures));
    if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn print(counts: &Counts, failures: &[Failure]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    // The seed is the first thing that anybody needs.
    for failure in failures {
        writeln!(out, "seed {}: {}", failure.seed, failure.what)?;
    }
    match failures.first() {
        None => writeln!(out, "{counts}"),
        Some(first) => {
            writeln!(out, "{first}")?;
            writeln!(out, "{} failed; of those that did not: {counts}", failures.len())
        }
    }
}
