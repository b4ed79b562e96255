//! Runs random programs on real nodes, seed by seed, and checks what the threads were told for linearizability.
//!
//! Ends with a table of counts; with exit 1 and the history around the violation on a failure, with exit 2 on a usage
//! error. The nodes are copies of this program.

use clap::Parser;
use dsm_tests::history::Tally;
use dsm_tests::history::programs::Kind;
use dsm_tests::history::run::{self, Failure, Mutant, Options, SCENARIO};
use dsm_tests::worker;
use serde_json::json;
use std::io::{self, IsTerminal, Write};
use std::ops::Range;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Runs random programs on the objects of a few nodes, and checks what each thread was told, and when: there must be an
/// order of all operations that explains it.
#[derive(Parser)]
#[command(name = "history")]
struct Arguments {
    /// The seeds to run, as FIRST..END. A seed decides the nodes, the threads and what they ask.
    #[arg(long, value_name = "FIRST..END", value_parser = dsm_tests::sim::seeds, default_value = "0..100")]
    seeds: Range<u64>,
    /// Uses objects of this kind only.
    #[arg(long, value_name = "KIND")]
    object: Option<Kind>,
    /// On so many nodes, instead of as many as the seed says.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=NODES_MAX))]
    nodes: Option<u32>,
    /// Runs each seed so many times: how threads interleave is another every time.
    #[arg(long, value_name = "TIMES", default_value = "1")]
    repeat: u64,
    /// A seed that takes longer hangs, and fails.
    #[arg(long, value_name = "SECONDS", default_value = "60")]
    budget: u64,
    /// Plants a deliberate fault into the programs, which is to be found.
    #[arg(long, value_name = "NAME")]
    mutant: Option<Mutant>,
    /// Prints the counts as one JSON object, in the last line.
    #[arg(long)]
    json: bool,
}

/// More nodes than this only wait for each other's cores.
const NODES_MAX: i64 = 16;

fn main() -> ExitCode {
    if std::env::args().nth(1).is_some_and(|word| word == SCENARIO) {
        return worker::main();
    }
    let arguments = Arguments::parse();
    let program = match std::env::current_exe() {
        Ok(program) => program.to_string_lossy().into_owned(),
        Err(error) => {
            eprintln!("history: cannot find this program, which the nodes are copies of: {error}");
            return ExitCode::FAILURE;
        }
    };
    let options = Options {
        object: arguments.object,
        nodes: arguments.nodes,
        mutant: arguments.mutant,
        budget: Duration::from_secs(arguments.budget),
    };
    let started = Instant::now();
    let mut outcome = Outcome::default();
    // One after the other: a seed's nodes keep all cores busy.
    'all: for seed in arguments.seeds.clone() {
        for _ in 0..arguments.repeat {
            progress(seed, &arguments.seeds);
            outcome.runs += 1;
            match run::run(&program, seed, &options) {
                Ok(tally) => outcome.tally.add(&tally),
                Err(failure) => {
                    outcome.failure = Some(failure);
                    break 'all;
                }
            }
        }
    }
    clear_progress();
    // A reader that closes the pipe early has seen enough.
    drop(outcome.print(started.elapsed(), arguments.json));
    if outcome.failure.is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[derive(Default)]
struct Outcome {
    /// Seeds that were run, as often as they were.
    runs: u64,
    /// What was checked in the runs without a failure.
    tally: Tally,
    failure: Option<Box<Failure>>,
}

impl Outcome {
    fn print(&self, elapsed: Duration, json: bool) -> io::Result<()> {
        let mut out = io::stdout().lock();
        let Tally { histories, operations, overlapping, open, longest, by_library } = self.tally;
        let failed = u64::from(self.failure.is_some());
        if json {
            let failure = self.failure.as_ref().map(|failure| {
                json!({"seed": failure.seed, "object": failure.object, "what": failure.what, "again": failure.replay})
            });
            let line = json!({
                "ok": failure.is_none(), "runs": self.runs, "failed": failed, "histories": histories,
                "operations": operations, "overlapping": overlapping, "open": open, "longest": longest,
                "by_library": by_library, "elapsed_s": elapsed.as_secs_f64(), "failure": failure,
            });
            return writeln!(out, "{line}");
        }
        if let Some(failure) = &self.failure {
            writeln!(out, "{failure}\n")?;
        }
        let seconds = format!("{:.1}", elapsed.as_secs_f64());
        for (name, value) in [
            ("runs of seeds", self.runs.to_string()),
            ("of which failed", failed.to_string()),
            ("histories checked", histories.to_string()),
            ("by stateright as well", by_library.to_string()),
            ("operations", operations.to_string()),
            ("that overlapped others", overlapping.to_string()),
            ("longest history", longest.to_string()),
            ("seconds", seconds),
        ] {
            writeln!(out, "{name:<24}{value:>12}")?;
        }
        let verdict = if failed == 0 { "all histories are linearizable" } else { "FAILED" };
        writeln!(out, "{verdict}")
    }
}

fn progress(seed: u64, range: &Range<u64>) {
    if io::stderr().is_terminal() {
        eprint!("\r{} of {} seeds", seed - range.start, range.end - range.start);
        // A line of progress that does not appear is no failure.
        let _ = io::stderr().flush();
    }
}

fn clear_progress() {
    if io::stderr().is_terminal() {
        eprint!("\r\x1b[K");
    }
}
