//! Runs the membership's simulator over a range of seeds, or replays one.
//!
//! Ends with one line of counts; with exit 1 and the seed on a failure, with exit 2 on a usage error.

use clap::Parser;
use dsm_tests::membership_sim::{self, Counts, Failure, Mutant, Options, Tracing};
use std::ops::Range;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

/// Runs the membership of a whole cluster in virtual time, over many seeds, and checks what it agrees on.
#[derive(Parser)]
#[command(name = "membership")]
struct Arguments {
    /// The seeds to run, as FIRST..END.
    #[arg(long, value_name = "FIRST..END", value_parser = dsm_tests::sim::seeds, default_value = "0..1000")]
    seeds: Range<u64>,
    /// Replays this one seed.
    #[arg(long, value_name = "SEED", conflicts_with = "seeds")]
    seed: Option<u64>,
    /// Prints all that happens; with --seed.
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Plants a deliberate fault, which is to be found.
    #[arg(long, value_name = "NAME", value_parser = mutant)]
    mutant: Option<Mutant>,
}

fn mutant(name: &str) -> Result<Mutant, String> {
    Mutant::named(name).ok_or_else(|| format!("there is no such mutant; there are {:?}", Mutant::ALL))
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let tracing = if arguments.trace { Tracing::Print } else { Tracing::Off };
    let options = Options { mutant: arguments.mutant, tracing };
    let range = arguments.seed.map_or(arguments.seeds, |seed| seed..seed + 1);
    match run_all(&range, &options) {
        Ok(counts) => {
            println!("{counts}");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            println!("seed {}: {}\n{failure}", failure.seed, failure.what);
            ExitCode::FAILURE
        }
    }
}

/// Runs all seeds of the range on all cores. The failure is that of the lowest seed that fails.
fn run_all(range: &Range<u64>, options: &Options) -> Result<Counts, Box<Failure>> {
    let (next, stop) = (AtomicU64::new(range.start), AtomicU64::new(range.end));
    let total: Mutex<Result<Counts, Box<Failure>>> = Mutex::new(Ok(Counts::default()));
    let jobs = thread::available_parallelism().map_or(1, Into::into);
    thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let outcome = membership_sim::run(seed, options);
                    // A lock is poisoned only by a panic, and what it guards is whole at every moment.
                    let mut total = total.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                    match (outcome, &mut *total) {
                        (Ok(counts), Ok(total)) => total.add(&counts),
                        (Ok(_), Err(_)) => {}
                        (Err(failure), Err(first)) if first.seed < failure.seed => {}
                        (Err(failure), _) => {
                            // Seeds are handed out in order, so none below a failed one is left out.
                            stop.fetch_min(seed, Ordering::Relaxed);
                            *total = Err(failure);
                        }
                    }
                }
            });
        }
    });
    total.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner())
}
