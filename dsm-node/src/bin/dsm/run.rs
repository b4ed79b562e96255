//! `dsm run`: N nodes of a program on this machine, until they end.

use dsm_node::Error;
use dsm_node::launch::{Launch, Outcome, Output, Signal, Signaller, TransportKind, usage};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::thread;

/// Start N nodes of a program on this machine.
#[derive(clap::Args)]
#[command(
    after_help = "Each line that a node prints is shown after its [rank]. Signals are passed on to all nodes. \
                        When a node fails, the others have 5 s to end; the exit code is that of the first that \
                        failed, or 128 plus the number of the signal that ended it.\n\n\
                        Each node finds its place in DSM_RANK, DSM_NODES, DSM_RENDEZVOUS and DSM_TRANSPORT, which \
                        `Dsm::join()` reads."
)]
pub struct Arguments {
    /// How many nodes to start, from 1 to 64
    #[arg(short = 'n', long = "nodes", value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    nodes: u32,
    /// Nodes that keep a copy of what was committed: only 0 in this version
    #[arg(long, value_name = "K", default_value_t = 0)]
    replicas: u32,
    /// Kill a node on purpose: not in this version
    #[arg(long, value_name = "RANK@WHEN")]
    kill: Option<String>,
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
    let launch = Launch::new(program)
        .args(args)
        .nodes(arguments.nodes)
        .transport(arguments.transport)
        .output(Output::Prefixed)
        .stdin_to_first(!std::io::stdin().is_terminal());
    let cluster = match launch.spawn() {
        Ok(cluster) => cluster,
        Err(Error::Io { what, source }) => {
            return fail(&format!("{what}: {source}; check the program's path"));
        }
        Err(error) => return fail(&error.to_string()),
    };
    let nodes = cluster.signaller();
    thread::spawn(move || pass_on(signals, &nodes));
    let outcome = cluster.wait_forever();
    report(&outcome);
    // An exit code has one byte.
    ExitCode::from(u8::try_from(outcome.exit_code()).unwrap_or(u8::MAX))
}

/// What was asked for that this version does not have.
fn not_yet(arguments: &Arguments) -> Option<&'static str> {
    if arguments.kill.is_some() {
        Some("--kill comes with crash recovery, in a later version; until then end a node with kill(1)")
    } else if arguments.replicas > 0 {
        Some("--replicas above 0 comes with crash recovery, in a later version; leave it out")
    } else if arguments.hosts.is_some() {
        Some(
            "--hosts comes in a later version; start one program per machine with srun or mpirun, or set DSM_RANK, \
              DSM_NODES and DSM_RENDEZVOUS by hand",
        )
    } else {
        None
    }
}

fn pass_on(mut signals: Signals, nodes: &Signaller) {
    for number in signals.forever() {
        // The numbers are those that were asked for, and all have names.
        if let Ok(signal) = Signal::try_from(number) {
            nodes.signal_all(signal);
        }
    }
}

/// Says which node failed first. What went wrong there, it has said itself.
fn report(outcome: &Outcome) {
    if let Some((rank, code)) = outcome.first_failure {
        eprintln!("dsm: rank {rank} failed first, with exit code {code}");
    }
}

fn fail(what: &str) -> ExitCode {
    eprintln!("dsm: {what}");
    ExitCode::from(usage::EXIT_CODE)
}
