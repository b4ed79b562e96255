//! Kills nodes of real clusters, one seed after the other, at random moments and at random places of the protocol.
//!
//! Ends with a table of what was lost, torn or hung, which must be nothing, and of how long recoveries took; with `--json`
//! with one object. Exit 1 and the seeds where something was wrong, exit 2 on a usage error. The nodes are copies of this
//! program, too.

use clap::Parser;
use dsm_tests::crash::{CASES, Case, Plan, Tally};
use dsm_tests::worker;
use std::io::{self, IsTerminal, Write};
use std::ops::Range;
use std::panic::{self, AssertUnwindSafe};
use std::process::ExitCode;
use std::time::Instant;

/// Starts a cluster for each seed, has one or two of its nodes killed, and holds what the survivors find against what was
/// acknowledged.
#[derive(Parser)]
#[command(name = "kills")]
struct Arguments {
    /// The seeds to run, as FIRST..END.
    #[arg(long, value_name = "FIRST..END", value_parser = dsm_tests::sim::seeds, default_value = "0..1000")]
    seeds: Range<u64>,
    /// Instead of what the seeds say: what the tests run as this case.
    #[arg(long, value_name = "NAME", value_parser = case)]
    case: Option<Case>,
    /// Ends with one JSON object.
    #[arg(long)]
    json: bool,
}

fn case(name: &str) -> Result<Case, String> {
    let names = || CASES.iter().map(|case| format!("{:?}", case.name)).collect::<Vec<_>>().join(", ");
    let found = CASES.iter().find(|case| case.name == name);
    found.copied().ok_or_else(|| format!("{name:?} is no case; those that there are: {}", names()))
}

fn main() -> ExitCode {
    if worker::is_scenario(std::env::args().nth(1).as_deref()) {
        return worker::main();
    }
    let arguments = Arguments::parse();
    let program = match std::env::current_exe() {
        Ok(path) => path.to_string_lossy().into_owned(),
        Err(error) => {
            eprintln!("kills: this program, which the nodes are copies of, cannot be found: {error}");
            return ExitCode::from(2);
        }
    };
    // What was wrong, and where each node was, is the message; where this program was is of no use.
    panic::set_hook(Box::new(|info| {
        let words = info.payload().downcast_ref::<String>();
        eprintln!("{}", words.map_or("a panic without words", String::as_str));
    }));
    let (began, mut total, mut failures) = (Instant::now(), Tally::default(), Failures::default());
    for seed in arguments.seeds.clone() {
        progress(&format!("seed {seed} of {}..{}: {total}", arguments.seeds.start, arguments.seeds.end));
        let plan = arguments.case.map_or_else(|| Plan::random(seed), |case| Plan::new(case, seed));
        match panic::catch_unwind(AssertUnwindSafe(|| plan.run(&program))) {
            Ok(tally) => total.add(&tally),
            Err(cause) => failures.note(&plan, cause.downcast_ref::<String>().map_or("", String::as_str)),
        }
    }
    print(&total, &failures, began.elapsed().as_secs_f64(), arguments.json);
    if failures.all.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What was wrong.
#[derive(Default)]
struct Failures {
    all: Vec<String>,
    lost: u64,
    torn: u64,
    hung: u64,
}

impl Failures {
    /// Sorts a failure by its words, which the judge, the nodes and the harness have for each.
    fn note(&mut self, plan: &Plan, words: &str) {
        let has = |any: &[&str]| any.iter().any(|some| words.contains(some));
        self.hung += u64::from(has(&["has said nothing for", "not done within"]));
        self.lost += u64::from(has(&["are safe, and", "pages are lost", "is lost"]));
        self.torn +=
            u64::from(has(&["in part", "no prefix", "differ", "without its cause", "was seen, and is"]));
        self.all.push(plan.to_string());
    }
}

fn print(total: &Tally, failures: &Failures, seconds: f64, json: bool) {
    if io::stderr().is_terminal() {
        eprint!("\r\x1b[K");
    }
    let mut text = format!(
        "{total}\nlost {}, torn {}, hangs {}, {} failures in all, {seconds:.1} s\n",
        failures.lost,
        failures.torn,
        failures.hung,
        failures.all.len()
    );
    for failure in &failures.all {
        text += &format!("failed: {failure}\n");
    }
    if json {
        let millis = |percent| total.recovery(percent).map(|time| time.as_secs_f64() * 1e3);
        let object = serde_json::json!({
            "ok": failures.all.is_empty(),
            "runs": total.runs,
            "kills": total.deaths,
            "unmet": total.unmet,
            "acknowledged": total.acknowledged,
            "acknowledged_by_the_dead": total.of_the_dead,
            "lost": failures.lost,
            "torn": failures.torn,
            "hangs": failures.hung,
            "failures": failures.all,
            "recovery_p50_ms": millis(50),
            "recovery_p99_ms": millis(99),
            "elapsed_s": seconds,
        });
        text += &format!("{object}\n");
    }
    // A reader that closes the pipe early has seen enough.
    let _ = io::stdout().write_all(text.as_bytes());
}

fn progress(text: &str) {
    if io::stderr().is_terminal() {
        eprint!("\r\x1b[K{text}");
        // A line of progress that does not appear is no failure.
        let _ = io::stderr().flush();
    }
}
