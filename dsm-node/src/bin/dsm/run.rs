//! `dsm run`: N nodes of a program on this machine, until they end.

use dsm_node::Error;
use dsm_node::launch::usage::parse_time;
use dsm_node::launch::{Ending, Kill, Launch, Outcome, Output, Signal, Signaller, TransportKind, usage};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

/// Start N nodes of a program on this machine.
#[derive(clap::Args)]
#[command(
    after_help = "Each line that a node prints is shown after its [rank]. Signals are passed on to all nodes. \
                        When a node fails, the others go on to their end if the nodes keep replicas, and have 5 s to end \
                        if they do not. A node that the others cannot reach is ended, so that they know that it is \
                        gone. The exit code is that of the first that failed, or 128 plus the number of the \
                        signal that ended it; a node that --kill has ended does not count.\n\n\
                        Each node finds its place in DSM_RANK, DSM_NODES, DSM_RENDEZVOUS and DSM_TRANSPORT, and what \
                        the cluster is to survive in DSM_REPLICAS and DSM_LEASE; `Dsm::join()` reads them all.\n\n\
                        Example:\n  dsm run -n 4 --kill 2@500ms -- ./first    do the others get over the death of rank 2?"
)]
pub struct Arguments {
    /// How many nodes to start, from 1 to 64
    #[arg(short = 'n', long = "nodes", value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    nodes: u32,
    /// How many crashes to survive: so many other nodes keep a copy of what a node has committed [default: DSM_REPLICAS,
    /// else 1 where there are two nodes or more]
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(0..=63))]
    replicas: Option<u32>,
    /// How long a node may be silent before the others go on without it, where its death cannot be proven, such as 500ms
    /// [default: DSM_LEASE, else 1s]
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    lease: Option<Duration>,
    /// Kill a node so long after the start, such as 1@2s or 0@500ms; may be given several times
    #[arg(long, value_name = "RANK@WHEN")]
    kill: Vec<Kill>,
    /// Start nodes on several machines: not in this version
    #[arg(long, value_name = "FILE")]
    hosts: Option<String>,
    /// How the nodes talk to each other: tcp or unix
    #[arg(long, value_name = "KIND", default_value_t = TransportKind::Tcp)]
    transport: TransportKind,
    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "PROG ARGS")]
    command: Vec<String>,
}

/// Starts the nodes and waits for them.
pub fn run(arguments: &Arguments) -> ExitCode {
    if let Some(what) = not_yet(arguments) {
        return fail(what);
    }
    // Before the first node starts, so that no signal is missed: it waits here until there is somebody to tell.
    let signals = match Signals::new([SIGHUP, SIGINT, SIGQUIT, SIGTERM]) {
        Ok(signals) => signals,
        Err(cause) => return fail(&format!("cannot pass signals on: {cause}")),
    };
    let (program, args) = match arguments.command.split_first() {
        Some(split) => split,
        None => return fail("name a program: dsm run -n N -- PROGRAM"),
    };
    let cluster = match plan(arguments, program, args).spawn() {
        Ok(cluster) => cluster,
        Err(Error::Io { what, source }) => {
            return fail(&format!("{what}: {source}; check the program's path"));
        }
        Err(Error::Config(what)) => return fail(&what),
        Err(error) => return fail(&error.to_string()),
    };
    let nodes = cluster.signaller();
    thread::spawn(move || pass_on(signals, &nodes));
    let outcome = cluster.wait_forever();
    report(&outcome, &arguments.kill);
    // An exit code has one byte.
    ExitCode::from(u8::try_from(outcome.exit_code()).unwrap_or(u8::MAX))
}

/// What is to be started.
fn plan(arguments: &Arguments, program: &str, args: &[String]) -> Launch {
    let launch = Launch::new(program)
        .args(args)
        .nodes(arguments.nodes)
        .transport(arguments.transport)
        .output(Output::Prefixed)
        .stdin_to_first(!std::io::stdin().is_terminal());
    let launch = arguments.replicas.into_iter().fold(launch, Launch::replicas);
    let launch = arguments.lease.into_iter().fold(launch, Launch::lease);
    arguments.kill.iter().fold(launch, |launch, kill| launch.kill_at(kill.rank, kill.after))
}

/// What was asked for that this version does not have.
fn not_yet(arguments: &Arguments) -> Option<&'static str> {
    arguments.hosts.is_some().then_some(
        "--hosts comes in a later version; start one program per machine with srun or mpirun, or set DSM_RANK, \
         DSM_NODES and DSM_RENDEZVOUS by hand",
    )
}

fn pass_on(mut signals: Signals, nodes: &Signaller) {
    for number in signals.forever() {
        // The numbers are those that were asked for, and all have names.
        if let Ok(signal) = Signal::try_from(number) {
            nodes.signal_all(signal);
        }
    }
}

/// Says which node failed first; what went wrong there, it has said itself. And which kills came too late, so that nobody
/// takes the run for one that has survived them.
fn report(outcome: &Outcome, kills: &[Kill]) {
    if let Some((rank, code)) = outcome.first_failure {
        let node = outcome.nodes.iter().find(|node| node.rank == rank);
        match node.filter(|node| node.ending == Ending::Unreachable) {
            Some(node) => eprintln!("dsm: rank {rank} failed first: it was {}", node.ending),
            None => eprintln!("dsm: rank {rank} failed first, with exit code {code}"),
        }
    }
    for Kill { rank, after } in kills {
        let node = outcome.nodes.iter().find(|node| node.rank == *rank);
        if node.is_some_and(|node| node.ending == Ending::Itself) {
            eprintln!("dsm: rank {rank} had ended before it was to be killed, {after:?} after the start");
        }
    }
}

fn fail(what: &str) -> ExitCode {
    eprintln!("dsm: {what}");
    ExitCode::from(usage::EXIT_CODE)
}
