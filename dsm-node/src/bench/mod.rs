//! `dsm bench`: measures this build beside the floors of the machine, in one run.
//!
//! Two nodes of this very program are started; rank 1 prepares pages, rank 0 touches them and takes the times. The
//! floors (`floor.rs`) are taken by rank 0 before and after, so that a drift of the machine moves both sides. Nothing is
//! replicated there: what that costs is measured by itself (`survival.rs`).

mod floor;
mod node;
mod survival;

use crate::doctor;
use crate::error::{Error, Result};
use crate::launch::usage;
use crate::launch::{Launch, Output};
use crate::stats::Latency;
use crate::uffd::Uffd;
use serde_json::{Map, Value, json};
use std::process::ExitCode;
use std::time::Duration;

/// Set in the environment of the nodes that a bench starts: what they are to measure.
const NODE_VARIABLE: &str = "DSM_BENCH_NODE";

/// All measures together take a few seconds; nodes that take as long as this hang.
const PATIENCE: Duration = Duration::from_secs(120);

/// What can be measured, in the order of the table. `scan` is not there yet.
const MEASURES: [Measure; 10] = [
    Measure::LocalFault,
    Measure::ReadMiss,
    Measure::WriteMiss,
    Measure::Upgrade,
    Measure::PingPong,
    Measure::FirstTouch,
    Measure::LockHandoff,
    Measure::Barrier,
    Measure::Commit,
    Measure::Recovery,
];

/// One thing to measure.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Measure {
    /// A local userfaultfd fault, resolved by a handler thread: a floor by itself.
    LocalFault,
    /// A load of a page that the other node wrote.
    ReadMiss,
    /// A store to a page that the other node wrote.
    WriteMiss,
    /// A store to a page of which the other node has a read copy.
    Upgrade,
    /// One word, written by the two nodes in turns: the time per turn.
    PingPong,
    /// The first store to a page that is homed here.
    FirstTouch,
    /// A lock call that finds the lock free, at its home on the other node.
    LockHandoff,
    /// A barrier of two nodes.
    Barrier,
    /// One record of 1, 16 and 256 pages beside a round trip of as many bytes, and the time per item of a list that four
    /// nodes append to, without replicas and with one.
    Commit,
    /// From the kill of one of four nodes, with 256 MiB touched, to the first fault that is resolved though its page's
    /// owner died, beside the time that the kernel takes to end the process: it is known before that that it cannot run
    /// any more, so the ratio may be below one.
    Recovery,
}

impl Measure {
    fn name(self) -> &'static str {
        match self {
            Measure::LocalFault => "local_fault",
            Measure::ReadMiss => "read_miss",
            Measure::WriteMiss => "write_miss",
            Measure::Upgrade => "upgrade",
            Measure::PingPong => "ping_pong",
            Measure::FirstTouch => "first_touch",
            Measure::LockHandoff => "lock_handoff",
            Measure::Barrier => "barrier",
            Measure::Commit => "commit",
            Measure::Recovery => "recovery",
        }
    }

    fn named(name: &str) -> Option<Measure> {
        MEASURES.into_iter().find(|measure| measure.name() == name)
    }

    /// The parts that no system of this kind can do without, in microseconds.
    fn floor(self, local_fault: f64, round_trip: f64) -> f64 {
        match self {
            Measure::LocalFault | Measure::FirstTouch => local_fault,
            Measure::ReadMiss | Measure::WriteMiss | Measure::Upgrade | Measure::PingPong => {
                local_fault + round_trip
            }
            Measure::LockHandoff | Measure::Barrier | Measure::Commit | Measure::Recovery => round_trip,
        }
    }
}

/// The figures of one measure, times in microseconds.
struct Figure {
    p50: f64,
    p99: f64,
    floor_p50: f64,
}

impl Figure {
    fn new(latency: &Latency, floor_p50: f64) -> Figure {
        Figure { p50: latency.p50_us(), p99: latency.p99_us(), floor_p50 }
    }

    fn to_json(&self) -> Value {
        let ratio = self.p50 / self.floor_p50;
        json!({"unit": "us", "p50": self.p50, "p99": self.p99, "floor_p50": self.floor_p50, "ratio": ratio})
    }
}

/// Runs the measure that `only` names, or all, and prints a table; with `json`, one object on the last line. Blocks on
/// the nodes that it starts, for two minutes at most with each cluster.
#[must_use]
pub fn run(only: Option<&str>, json: bool) -> ExitCode {
    if let Ok(measures) = std::env::var(NODE_VARIABLE) {
        if let Some(job) = measures.strip_prefix(survival::JOB) {
            return report(survival::run_node(job));
        }
        return report(node::run(&measures.split(',').filter_map(Measure::named).collect::<Vec<_>>()));
    }
    let measures = match only {
        None => MEASURES.to_vec(),
        Some(name) => match Measure::named(name) {
            Some(measure) => vec![measure],
            None => {
                let known = MEASURES.map(Measure::name).join(", ");
                eprintln!("dsm bench: nothing to measure is named {name:?}; choose one of {known}");
                return ExitCode::from(usage::EXIT_CODE);
            }
        },
    };
    report(measure_all(&measures).map(|figures| print(&figures, json)))
}

fn report(result: Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("dsm bench: {error}");
            match error {
                Error::Unsupported { .. } => ExitCode::from(usage::EXIT_CODE),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

fn measure_all(measures: &[Measure]) -> Result<Map<String, Value>> {
    // What all nodes would fail with is said once, here.
    Uffd::open().map_err(|refusal| doctor::explain(&refusal))?;
    let (survival, coherence): (Vec<Measure>, Vec<Measure>) =
        measures.iter().partition(|measure| matches!(measure, Measure::Commit | Measure::Recovery));
    let mut figures = if coherence.is_empty() { Map::new() } else { measure_coherence(&coherence)? };
    if survival.contains(&Measure::Commit) {
        figures.extend(survival::commit()?);
    }
    if survival.contains(&Measure::Recovery) {
        figures.extend(survival::recovery()?);
    }
    Ok(figures)
}

/// Starts the nodes, and takes the figures from the last line that rank 0 prints.
fn measure_coherence(measures: &[Measure]) -> Result<Map<String, Value>> {
    let names: Vec<&str> = measures.iter().map(|measure| measure.name()).collect();
    let cluster = launch(2, 0, &names.join(",")).output(Output::Captured).spawn()?;
    let outcome = cluster.wait(PATIENCE);
    let said = |rank: usize| outcome.nodes.get(rank).map_or("", |node| node.stderr.trim());
    let figures = outcome.nodes.first().and_then(|node| node.stdout.lines().last());
    match figures.and_then(|line| serde_json::from_str(line).ok()) {
        Some(Value::Object(figures)) if outcome.success() => Ok(figures),
        Some(_) | None => Err(Error::Argument(format!(
            "the nodes that measure failed: {outcome}; rank 0 said {:?}, rank 1 said {:?}",
            said(0),
            said(1)
        ))),
    }
}

/// Nodes of this program that measure what `what` says.
fn launch(nodes: u32, replicas: u32, what: &str) -> Launch {
    let program = std::env::current_exe().unwrap_or_else(|_| "/proc/self/exe".into());
    Launch::new(program).arg("bench").nodes(nodes).replicas(replicas).env(NODE_VARIABLE, what)
}

fn print(figures: &Map<String, Value>, json: bool) {
    if json {
        println!("{}", Value::Object(figures.clone()));
        return;
    }
    println!("{:<14} {:>10} {:>10} {:>12} {:>7}", "measure", "p50 µs", "p99 µs", "floor p50 µs", "ratio");
    for (name, figure) in figures {
        let field = |key: &str| figure.get(key).and_then(Value::as_f64).unwrap_or(f64::NAN);
        println!(
            "{name:<14} {:>10.2} {:>10.2} {:>12.2} {:>7.2}",
            field("p50"),
            field("p99"),
            field("floor_p50"),
            field("ratio")
        );
    }
}
