//! The multi-node linked list, seen from the process that starts the nodes: it launches, follows the progress that
//! they report, kills some if that was asked for, adds their figures up and judges the whole. What a node does is in `node`.

mod check;
mod kill;
mod line;
mod memory;
mod node;
mod report;
mod table;

pub use node::{Arguments as NodeArguments, run as run_node};

use clap::ValueEnum;
use dsm_node::Error;
use dsm_node::launch::{Cluster, Ending, Launch, Line, Outcome, Output, Stream, TransportKind, usage};
use indicatif::{ProgressBar, ProgressStyle};
use kill::{Kill, Pending};
use line::NodeLine;
use report::{Summary, Tally};
use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// Nodes report progress many times a second while there is any. Without a word from all of them for so long, they are
/// stuck, and are ended.
const STALL_MAX: Duration = Duration::from_secs(60);

/// How long nodes may take to end once they have nothing more to say.
const END_MAX: Duration = Duration::from_secs(30);

/// Unless the user says otherwise, one crash is survived.
const REPLICAS_DEFAULT: u32 = 1;

/// Where the list lives.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Memory {
    /// In the arena of the lock that guards it
    Guarded,
    /// In the plain shared heap; the lock only excludes
    Plain,
}

/// The multi-node linked list: every node appends its share, some are killed if asked, and every survivor walks and checks
/// the whole.
#[derive(clap::Args)]
#[command(
    after_help = "Exit code 0 only when the list is intact: every survivor found every acknowledged item once and in \
                        order. An item is acknowledged when its section's commit() has returned.\n\n\
                        owner@50% catches the owner in the middle of appending the next item, and it holds still \
                        there until it is dead; RANK@WHEN takes a node as it comes.\n\n\
                        With --json the last line of standard output is one JSON object with the fields ok, nodes, \
                        survivors, items_acknowledged, items_found, items_lost, read_faults, write_faults, \
                        pages_moved, bytes_moved, fault_p50_us, fault_p99_us, elapsed_s, recovery_ms, lost_pages. \
                        recovery_ms is the time from the kill until a survivor had what it had waited for, or went on \
                        if none had waited; null without a kill.\n\n\
                        Examples:\n  \
                        dsm-demo list --kill owner@50%                                     is anything lost?\n  \
                        dsm-demo list --kill owner@50% --memory plain --replicas 0         the textbook's failure"
)]
pub struct Arguments {
    /// How many nodes to start, from 1 to 64
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    nodes: u32,
    /// How many items they append in all
    #[arg(long, value_name = "M", default_value_t = 100_000)]
    items: u64,
    /// How many crashes to survive: so many other nodes keep a copy of what a node has committed [default: 1, or 0 for a
    /// single node]
    #[arg(long, value_name = "K")]
    replicas: Option<u32>,
    /// Where the list lives
    #[arg(long, value_enum, default_value_t = Memory::Guarded)]
    memory: Memory,
    /// Kill a node: owner@50% the one that owns the list's pages when half of the items are acknowledged, 1@500ms rank 1
    /// so long after the start; may be given several times
    #[arg(long, value_name = "owner@PERCENT|RANK@WHEN")]
    kill: Vec<Kill>,
    /// How the nodes talk to each other: tcp or unix
    #[arg(long, value_name = "KIND", default_value_t = TransportKind::Tcp)]
    transport: TransportKind,
    /// End with one line of JSON instead of a table
    #[arg(long)]
    json: bool,
}

/// Starts the nodes, follows them, and shows what came of it.
pub fn run(arguments: &Arguments) -> ExitCode {
    let started = Instant::now();
    let mut pending = Pending::new(&arguments.kill, arguments.items);
    let (lines, received) = channel();
    let cluster = match start(arguments, &pending, Output::Lines(lines)) {
        Ok(cluster) => cluster,
        Err(Error::Config(what)) => return fail(&what),
        Err(error) => return fail(&error.to_string()),
    };
    let mut tally = Tally::new(arguments.nodes, arguments.items);
    let bar = progress_bar(tally.steps());
    let stalled = follow(&cluster, &received, &mut tally, &mut pending, &bar);
    let outcome = cluster.wait(if stalled { Duration::ZERO } else { END_MAX });
    bar.finish_and_clear();
    let summary = tally.summary(&outcome, started.elapsed());
    if arguments.json {
        println!("{}", summary.to_json());
    } else if summary.survivors > 0 {
        print!("{}\n{summary}", tally.table(&outcome));
    }
    remark_on_kills(arguments, &outcome, &pending);
    judge(&outcome, &tally, &summary, stalled)
}

fn start(arguments: &Arguments, pending: &Pending, output: Output) -> Result<Cluster, Error> {
    let program = std::env::current_exe()
        .map_err(|source| Error::Argument(format!("the path of this program is unknown: {source}")))?;
    let memory = arguments.memory.to_possible_value().map(|value| value.get_name().to_owned());
    let replicas = arguments.replicas.unwrap_or(if arguments.nodes > 1 { REPLICAS_DEFAULT } else { 0 });
    let launch = Launch::new(program)
        .arg("list-node")
        .args(["--items".to_owned(), arguments.items.to_string()])
        .args(memory.map(|name| format!("--memory={name}")))
        .args(pending.lengths().iter().map(|length| format!("--announce={length}")))
        .nodes(arguments.nodes)
        .replicas(replicas)
        .transport(arguments.transport)
        .output(output);
    let with_kill = |launch: Launch, kill: &Kill| match kill {
        Kill::Rank(kill) => launch.kill_at(kill.rank, kill.after),
        Kill::Owner { .. } => launch,
    };
    arguments.kill.iter().fold(launch, with_kill).spawn()
}

/// Takes what the nodes say until they have nothing more to say, and kills who is to be killed. Whether they are stuck.
fn follow(
    cluster: &Cluster,
    received: &Receiver<Line>,
    tally: &mut Tally,
    pending: &mut Pending,
    bar: &ProgressBar,
) -> bool {
    loop {
        match received.recv_timeout(STALL_MAX) {
            Ok(Line { rank, stream, text }) => match parse(stream, &text) {
                Some(said) => {
                    if let NodeLine::Reached { length, .. } = said {
                        let is_killed = pending.reached(length, || cluster.kill(rank));
                        if !is_killed {
                            cluster.signal(rank, node::GO_ON);
                        }
                    }
                    tally.take(rank, said);
                    bar.set_position(tally.position());
                }
                // What a node says beside its reports is for the user to read.
                None => bar.suspend(|| eprintln!("[{rank}] {text}")),
            },
            Err(RecvTimeoutError::Disconnected) => return false,
            Err(RecvTimeoutError::Timeout) => return true,
        }
    }
}

fn parse(stream: Stream, text: &str) -> Option<NodeLine> {
    match stream {
        Stream::Stdout => serde_json::from_str(text).ok(),
        Stream::Stderr => None,
    }
}

/// Says which kills did not come to be, so that nobody takes the run for one that has survived them.
fn remark_on_kills(arguments: &Arguments, outcome: &Outcome, pending: &Pending) {
    for length in pending.lengths() {
        eprintln!("dsm-demo: no owner was killed at {length} items: the list did not come to be so long");
    }
    for kill in &arguments.kill {
        let Kill::Rank(kill) = kill else { continue };
        let node = outcome.nodes.iter().find(|node| node.rank == kill.rank);
        if node.is_some_and(|node| node.ending == Ending::Itself) {
            eprintln!("dsm-demo: rank {} had ended before {:?} after the start", kill.rank, kill.after);
        }
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
    if let Some((rank, broken)) = tally.broken() {
        eprintln!("dsm-demo: rank {rank}: {broken}");
        return ExitCode::FAILURE;
    }
    if let Some((rank, code)) = outcome.first_failure {
        let status = || outcome.nodes.get(rank as usize).and_then(|node| node.status);
        let ended = || status().map_or_else(|| format!("exit code {code}"), |status| status.to_string());
        let ending = outcome.nodes.get(rank as usize).map(|node| node.ending);
        let cause = match (tally.failure(rank), ending) {
            (Some(failure), _) => failure.to_owned(),
            (None, Some(ending @ Ending::Unreachable)) => format!("was {ending}"),
            (None, _) => format!("ended with {}", ended()),
        };
        eprintln!("dsm-demo: rank {rank}: {cause}");
        return ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX));
    }
    if !outcome.success() {
        eprintln!("dsm-demo: nodes were done but did not end within {} s", END_MAX.as_secs());
        return ExitCode::FAILURE;
    }
    if !summary.ok {
        eprintln!("dsm-demo: the list is not intact: {}", tally.damage(outcome));
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn fail(what: &str) -> ExitCode {
    eprintln!("dsm-demo: {what}");
    ExitCode::from(usage::EXIT_CODE)
}
