//! Runs clusters of real nodes over a network that misbehaves by seed.
//!
//! Ends with a table of what was done and counted, and with `--json` with one object; exit 1 and the seed where something
//! was wrong, exit 2 on a usage error. The nodes are copies of this program, too.

use clap::{Parser, ValueEnum};
use dsm_node::launch::TransportKind;
use dsm_tests::nemesis::{self, Counts, Shape};
use dsm_tests::worker;
use std::io::{self, IsTerminal, Write};
use std::ops::Range;
use std::panic::{self, AssertUnwindSafe};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// From so many seeds on, everything that can go wrong must have gone wrong once.
const SEEDS_FOR_EVERYTHING: u64 = 40;

/// Delays bytes, splits calls, breaks connections in mid-frame, and brings old frames back, between real nodes: nothing
/// may be lost, doubled or torn.
#[derive(Parser)]
#[command(name = "nemesis")]
struct Arguments {
    /// The seeds to run, as FIRST..END.
    #[arg(long, value_name = "FIRST..END", value_parser = dsm_tests::sim::seeds, default_value = "0..200")]
    seeds: Range<u64>,
    /// Connects the nodes so; by default every other seed over TCP.
    #[arg(long, value_name = "KIND")]
    transport: Option<Transport>,
    /// Instead of seeds: breaks one connection at each STEPth byte of a frame that carries a page.
    #[arg(long, value_name = "STEP", conflicts_with = "seeds", value_parser = clap::value_parser!(u64).range(1..))]
    every_byte: Option<u64>,
    /// How many clusters run at the same time.
    #[arg(long, value_name = "CLUSTERS", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    jobs: u16,
    /// Ends with one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Transport {
    Tcp,
    Unix,
}

impl Transport {
    fn kind(self) -> TransportKind {
        match self {
            Transport::Tcp => TransportKind::Tcp,
            Transport::Unix => TransportKind::Unix,
        }
    }
}

fn main() -> ExitCode {
    if worker::is_scenario(std::env::args().nth(1).as_deref()) {
        return worker::main();
    }
    let arguments = Arguments::parse();
    let program = match std::env::current_exe().map(|path| path.to_string_lossy().into_owned()) {
        Ok(program) => program,
        Err(error) => {
            eprintln!("nemesis: this program, which the nodes are copies of, cannot be found: {error}");
            return ExitCode::from(2);
        }
    };
    // Who failed, and where each node was, is the message; where this program was is of no use.
    panic::set_hook(Box::new(|info| {
        eprintln!(
            "{}",
            info.payload().downcast_ref::<String>().map_or("a panic without words", String::as_str)
        )
    }));
    let began = Instant::now();
    let outcome = match arguments.every_byte {
        Some(step) => every_byte(&program, step, &arguments),
        None => run_seeds(&program, &arguments),
    };
    outcome.print(began.elapsed().as_secs_f64(), arguments.json);
    if outcome.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[derive(Default)]
struct Outcome {
    counts: Counts,
    /// What was wrong, with the seed before it.
    failures: Vec<String>,
}

fn run_seeds(program: &str, arguments: &Arguments) -> Outcome {
    let range = &arguments.seeds;
    let transport = arguments.transport.map(Transport::kind);
    let (next, total) = (AtomicU64::new(range.start), Mutex::new(Outcome::default()));
    let lane = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= range.end {
                return;
            }
            progress(&format!("{} of {} seeds", seed - range.start, range.end - range.start));
            let run = panic::catch_unwind(AssertUnwindSafe(|| nemesis::run(program, seed, transport)));
            let mut total = total.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            match run {
                Ok(counts) => total.counts.add(&counts),
                // The harness has said what it was when it panicked.
                Err(_) => total.failures.push(format!("seed {seed}, {:?}", Shape::of(seed, transport))),
            }
        }
    };
    std::thread::scope(|scope| (0..arguments.jobs).for_each(|_| drop(scope.spawn(lane))));
    let mut outcome = total.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
    let missing = outcome.counts.missing();
    if range.end - range.start >= SEEDS_FOR_EVERYTHING && !missing.is_empty() {
        outcome.failures.push(format!("these never came up: {}", missing.join(", ")));
    }
    outcome
}

fn every_byte(program: &str, step: u64, arguments: &Arguments) -> Outcome {
    let transports = match arguments.transport {
        Some(transport) => vec![transport.kind()],
        None => vec![TransportKind::Tcp, TransportKind::Unix],
    };
    let mut outcome = Outcome::default();
    for (transport, replicas) in transports.iter().flat_map(|transport| [(*transport, 0), (*transport, 1)]) {
        let run = || nemesis::run_aimed(program, step, transport, replicas);
        match panic::catch_unwind(AssertUnwindSafe(run)) {
            Ok(counts) => outcome.counts.add(&counts),
            Err(_) => {
                outcome.failures.push(format!("every {step} bytes over {transport:?}, {replicas} replicas"))
            }
        }
    }
    outcome
}

impl Outcome {
    fn print(&self, seconds: f64, json: bool) {
        if io::stderr().is_terminal() {
            eprint!("\r\x1b[K");
        }
        let mut text = format!("{}\n", self.counts);
        for failure in &self.failures {
            text += &format!("failed: {failure}\n");
        }
        let failed = self.failures.len();
        text += &format!("{} runs passed, {failed} failures, {seconds:.1} s\n", self.counts.runs);
        if json {
            let mut object: serde_json::Map<String, serde_json::Value> =
                self.counts.entries().map(|(name, sum)| (String::from(name), sum.into())).collect();
            object.insert(String::from("ok"), self.failures.is_empty().into());
            object.insert(String::from("runs"), self.counts.runs.into());
            object.insert(String::from("failures"), self.failures.clone().into());
            object.insert(String::from("elapsed_s"), seconds.into());
            text += &format!("{}\n", serde_json::Value::Object(object));
        }
        // A reader that closes the pipe early has seen enough.
        let _ = io::stdout().write_all(text.as_bytes());
    }
}

fn progress(text: &str) {
    if io::stderr().is_terminal() {
        eprint!("\r{text}");
        // A line of progress that does not appear is no failure.
        let _ = io::stderr().flush();
    }
}
