//! The multi-node linked list, seen from the process that starts the nodes: it launches, follows the progress that
//! they report, adds their figures up and judges the whole. What a node does is in `node`.

mod check;
mod node;
mod report;

pub use node::{Arguments as NodeArguments, run as run_node};

use clap::ValueEnum;
use dsm_node::Error;
use dsm_node::launch::{Cluster, Launch, Line, Outcome, Output, Stream, TransportKind, usage};
use indicatif::{ProgressBar, ProgressStyle};
use report::{NodeLine, Summary, Tally};
use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// Nodes report progress many times a second while there is any. Without a word from all of them for so long, they are
/// stuck, and are ended.
const STALL_MAX: Duration = Duration::from_secs(60);

/// How long nodes may take to end once they have nothing more to say.
const END_MAX: Duration = Duration::from_secs(30);

/// Where the list lives.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Memory {
    /// In the arena of the lock that guards it
    Guarded,
    /// In the plain shared heap; the lock only excludes
    Plain,
}

/// The multi-node linked list: every node appends its share, then walks and checks the whole.
#[derive(clap::Args)]
#[command(after_help = "Exit code 0 only when every node found every item once and in order.\n\n\
                        With --json the last line of standard output is one JSON object with the fields ok, nodes, \
                        survivors, items_acknowledged, items_found, items_lost, read_faults, write_faults, \
                        pages_moved, bytes_moved, fault_p50_us, fault_p99_us, elapsed_s, recovery_ms, lost_pages.")]
pub struct Arguments {
    /// How many nodes to start, from 1 to 64
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    nodes: u32,
    /// How many items they append in all
    #[arg(long, value_name = "M", default_value_t = 100_000)]
    items: u64,
    /// Nodes that keep a copy of what was committed: only 0 in this version
    #[arg(long, value_name = "K", default_value_t = 0)]
    replicas: u32,
    /// Where the list lives
    #[arg(long, value_enum, default_value_t = Memory::Guarded)]
    memory: Memory,
    /// Kill a node on purpose: not in this version
    #[arg(long, value_name = "WHO@WHEN")]
    kill: Option<String>,
    /// How the nodes talk to each other: tcp or unix
    #[arg(long, value_name = "KIND", default_value_t = TransportKind::Tcp)]
    transport: TransportKind,
    /// End with one line of JSON instead of a table
    #[arg(long)]
    json: bool,
}

/// Starts the nodes, follows them, and shows what came of it.
pub fn run(arguments: &Arguments) -> ExitCode {
    if let Some(what) = not_yet(arguments) {
        return fail(what);
    }
    let started = Instant::now();
    let (lines, received) = channel();
    let cluster = match start(arguments, Output::Lines(lines)) {
        Ok(cluster) => cluster,
        Err(error) => return fail(&error.to_string()),
    };
    let mut tally = Tally::new(arguments.nodes, arguments.items);
    let bar = progress_bar(tally.steps());
    let stalled = follow(&cluster, &received, &mut tally, &bar);
    let outcome = cluster.wait(END_MAX);
    bar.finish_and_clear();
    let summary = tally.summary(&outcome, started.elapsed());
    if arguments.json {
        println!("{}", summary.to_json());
    } else if summary.survivors > 0 {
        print!("{}\n{summary}", tally.table());
    }
    judge(&outcome, &tally, &summary, stalled)
}

/// What was asked for that this version does not have.
fn not_yet(arguments: &Arguments) -> Option<&'static str> {
    if arguments.kill.is_some() {
        Some("--kill comes with crash recovery, in a later version; leave it out")
    } else if arguments.replicas > 0 {
        Some("--replicas above 0 comes with crash recovery, in a later version; leave it out")
    } else {
        None
    }
}

fn start(arguments: &Arguments, output: Output) -> Result<Cluster, Error> {
    let program = std::env::current_exe()
        .map_err(|source| Error::Argument(format!("the path of this program is unknown: {source}")))?;
    let memory = arguments.memory.to_possible_value().map(|value| value.get_name().to_owned());
    Launch::new(program)
        .arg("list-node")
        .args(["--items".to_owned(), arguments.items.to_string()])
        .args(memory.map(|name| format!("--memory={name}")))
        .nodes(arguments.nodes)
        .transport(arguments.transport)
        .output(output)
        .spawn()
}

/// Takes what the nodes say until they have nothing more to say. Whether they were ended because they were stuck.
fn follow(cluster: &Cluster, received: &Receiver<Line>, tally: &mut Tally, bar: &ProgressBar) -> bool {
    loop {
        match received.recv_timeout(STALL_MAX) {
            Ok(line) => take(line, tally, bar),
            Err(RecvTimeoutError::Disconnected) => return false,
            Err(RecvTimeoutError::Timeout) => {
                cluster.signaller().kill_all();
                return true;
            }
        }
    }
}

fn take(line: Line, tally: &mut Tally, bar: &ProgressBar) {
    let said = match line.stream {
        Stream::Stdout => serde_json::from_str::<NodeLine>(&line.text).ok(),
        Stream::Stderr => None,
    };
    match said {
        Some(said) => {
            tally.take(line.rank, said);
            bar.set_position(tally.position());
        }
        // What a node says beside its reports is for the user to read.
        None => bar.suspend(|| eprintln!("[{}] {}", line.rank, line.text)),
    }
}

/// A bar on a terminal; elsewhere nothing.
fn progress_bar(steps: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(steps);
    match ProgressStyle::with_template(
        "{bar:40} {percent:>3} % of appends and checks, {elapsed}, {eta} to go",
    ) {
        Ok(style) => bar.with_style(style),
        // The bar looks otherwise then; the template is fixed, so that this is a matter of indicatif's version.
        Err(_) => bar,
    }
}

/// The exit code, and in one line why it is not 0.
fn judge(outcome: &Outcome, tally: &Tally, summary: &Summary, stalled: bool) -> ExitCode {
    if stalled {
        let seconds = STALL_MAX.as_secs();
        eprintln!("dsm-demo: no progress for {seconds} s, the nodes were ended; {}", tally.whereabouts());
        return ExitCode::FAILURE;
    }
    if let Some((rank, code)) = outcome.first_failure {
        let status = || outcome.nodes.get(rank as usize).and_then(|node| node.status);
        let ended = || status().map_or_else(|| format!("exit code {code}"), |status| status.to_string());
        let cause = tally.failure(rank).map_or_else(|| format!("ended with {}", ended()), str::to_owned);
        eprintln!("dsm-demo: rank {rank}: {cause}");
        return ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX));
    }
    if !outcome.success() {
        eprintln!("dsm-demo: nodes were done but did not end within {} s", END_MAX.as_secs());
        return ExitCode::FAILURE;
    }
    if !summary.ok {
        eprintln!("dsm-demo: the list is not intact: {}", tally.damage());
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn fail(what: &str) -> ExitCode {
    eprintln!("dsm-demo: {what}");
    ExitCode::from(usage::EXIT_CODE)
}
