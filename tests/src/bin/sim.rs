//! Runs the simulator over a range of seeds, or replays one.
//!
//! Ends with one line of counts; with exit 1 and the seed on a failure, with exit 2 on a usage error.

use clap::Parser;
use dsm_tests::sim::{self, Checks, Counts, Failure, Hostility, Mutant, Options};
use std::io::{self, IsTerminal, Write};
use std::ops::Range;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

/// Runs the protocol machine of a whole cluster in virtual time, over many seeds, and checks every answer.
#[derive(Parser)]
#[command(name = "sim")]
struct Arguments {
    /// The seeds to run, as FIRST..END.
    #[arg(long, value_name = "FIRST..END", value_parser = sim::seeds, default_value = "0..1000")]
    seeds: Range<u64>,
    /// Replays this one seed.
    #[arg(long, value_name = "SEED", conflicts_with = "seeds")]
    seed: Option<u64>,
    /// Prints every event and action of the run; with --seed.
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Lets no node die.
    #[arg(long)]
    no_crashes: bool,
    /// Makes one member of each cluster say anything at any time; then nobody dies.
    #[arg(long)]
    hostile: bool,
    /// Goes on after a failure, and lists every seed that fails.
    #[arg(long)]
    all: bool,
    /// Plants a deliberate fault, which is to be found; see `sim::Mutant`.
    #[arg(long, value_name = "NAME", value_parser = mutant)]
    mutant: Option<Mutant>,
    /// What decides: everything, all but the histories, or the histories alone.
    #[arg(long, value_name = "all|oracle|history", value_parser = checks, default_value = "all")]
    checks: Checks,
    /// Prints how many messages of each kind there were.
    #[arg(long)]
    messages: bool,
    /// How many seeds run at the same time; by default as many as there are cores.
    #[arg(long, value_name = "THREADS")]
    jobs: Option<usize>,
}

fn mutant(name: &str) -> Result<Mutant, String> {
    Mutant::named(name).ok_or_else(|| format!("there is no such mutant; there are {:?}", Mutant::ALL))
}

fn checks(name: &str) -> Result<Checks, String> {
    match name {
        "all" => Ok(Checks::All),
        "oracle" => Ok(Checks::Oracle),
        "history" => Ok(Checks::History),
        other => Err(format!("{other:?} is none of all, oracle and history")),
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let options = Options {
        mutant: arguments.mutant,
        crashes: !arguments.no_crashes,
        checks: arguments.checks,
        hostile: arguments.hostile.then_some(Hostility::Guesses),
        echo: arguments.trace,
    };
    let range = arguments.seed.map_or(arguments.seeds.clone(), |seed| seed..seed + 1);
    let jobs = arguments.jobs.or_else(|| thread::available_parallelism().ok().map(Into::into)).unwrap_or(1);
    let outcome = run_all(&range, &options, jobs.max(1), arguments.all);
    // A reader that closes the pipe early has seen enough.
    drop(print(&outcome, arguments.messages));
    if outcome.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn print(outcome: &Result<Counts, Vec<Failure>>, messages: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match outcome {
        Ok(counts) => {
            for (kind, count) in counts.messages.iter().filter(|_| messages) {
                writeln!(out, "{kind:>16} {count}")?;
            }
            writeln!(out, "{counts}")
        }
        Err(failures) => {
            // The seed is the first thing that anybody needs.
            for failure in failures {
                let first = failure.what.lines().next().unwrap_or_default();
                writeln!(out, "seed {}: {first}", failure.seed)?;
            }
            failures.first().map_or(Ok(()), |first| writeln!(out, "{first}"))
        }
    }
}

/// Runs all seeds of the range. Their failures, the lowest seed's first; unless `all` are wanted, no seed is begun
/// after one has failed.
fn run_all(range: &Range<u64>, options: &Options, jobs: usize, all: bool) -> Result<Counts, Vec<Failure>> {
    let next = AtomicU64::new(range.start);
    let stop = AtomicU64::new(range.end);
    let total = Mutex::new(Counts::default());
    let failures = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                let mut counts = Counts::default();
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    // Seeds are handed out in order, so none below a failed one is left out.
                    if seed >= stop.load(Ordering::Relaxed) {
                        break;
                    }
                    progress(seed, range);
                    match sim::run(seed, options) {
                        Ok(one) => counts.add(&one),
                        Err(failure) => {
                            if !all {
                                stop.fetch_min(seed, Ordering::Relaxed);
                            }
                            lock(&failures).push(*failure);
                        }
                    }
                }
                lock(&total).add(&counts);
            });
        }
    });
    clear_progress();
    let mut failures = failures.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
    failures.sort_by_key(|failure| failure.seed);
    if failures.is_empty() {
        Ok(total.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner()))
    } else {
        Err(failures)
    }
}

/// A lock is poisoned only by a panic, and what it guards is whole at every moment.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// The line of progress is renewed after this many seeds.
const PROGRESS_EVERY: u64 = 64;

fn progress(seed: u64, range: &Range<u64>) {
    let done = seed - range.start;
    if done.is_multiple_of(PROGRESS_EVERY) && io::stderr().is_terminal() {
        eprint!("\r{done} of {} seeds", range.end - range.start);
        // A line of progress that does not appear is no failure.
        let _ = io::stderr().flush();
    }
}

fn clear_progress() {
    if io::stderr().is_terminal() {
        eprint!("\r\x1b[K");
    }
}
