//! Runs the simulation of membership and machine together over a range of seeds, or replays one.
//!
//! Ends with a line of counts for threads, members and drivers each; with exit 1 and the seed on a failure, with exit 2
//! on a usage error.

use clap::Parser;
use dsm_tests::survive::cluster::{self, Counts, Mutant, Options};
use dsm_tests::survive::{Failure, sweep};
use std::io::{self, Write};
use std::ops::Range;
use std::process::ExitCode;
use std::thread;

/// Runs whole clusters, whose nodes agree on views and recover in them, in virtual time, over many seeds: nodes die and
/// stop, links break, the launcher votes. Holds what survives, and who acts, against what must be.
#[derive(Parser)]
#[command(name = "cluster")]
struct Arguments {
    /// The seeds to run, as FIRST..END.
    #[arg(long, value_name = "FIRST..END", value_parser = dsm_tests::sim::seeds, default_value = "0..1000")]
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
    /// Plants a deliberate fault, which is to be found; see `survive::cluster::Mutant`.
    #[arg(long, value_name = "NAME", value_parser = mutant)]
    mutant: Option<Mutant>,
    /// How many seeds run at the same time; by default as many as there are cores.
    #[arg(long, value_name = "THREADS")]
    jobs: Option<usize>,
}

fn mutant(name: &str) -> Result<Mutant, String> {
    Mutant::named(name).ok_or_else(|| format!("there is no such mutant; there are {:?}", Mutant::ALL))
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let options = Options { mutant: arguments.mutant, echo: arguments.trace };
    let range = arguments.seed.map_or(arguments.seeds.clone(), |seed| seed..seed + 1);
    let jobs = arguments.jobs.or_else(|| thread::available_parallelism().ok().map(Into::into)).unwrap_or(1);
    let run = |seed| cluster::run(seed, &options);
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
