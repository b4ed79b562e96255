//! `dsm`: starts clusters on this machine, says whether nodes can run here, and measures this build.
//!
//! This file reads the command line; each subcommand has a file of its own. Whatever is wrong with the command line
//! is said in one line on standard error, with exit code 2.

mod doctor;
mod run;

use clap::{Parser, Subcommand};
use dsm_node::launch::usage;
use std::process::ExitCode;

/// Distributed shared memory: N copies of a program share one region of memory.
#[derive(Parser)]
#[command(
    version,
    after_help = "Examples:\n  dsm doctor                         can nodes run on this machine?\n  \
                  dsm run -n 4 -- ./first            four nodes of ./first, on this machine\n  \
                  dsm bench --only read_miss         what does fetching a page cost here?"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start N nodes of a program on this machine
    Run(run::Arguments),
    /// Check kernel features, permissions and limits, each with its fix
    Doctor(doctor::Arguments),
    /// Measure this build beside the floors of this machine
    Bench(BenchArguments),
}

#[derive(clap::Args)]
#[command(
    after_help = "Measures: local_fault, read_miss, write_miss, upgrade, ping_pong, first_touch, lock_handoff, barrier (two \
                        nodes, nothing replicated); commit, recovery (with one replica).\n\
                        commit gives commit, commit_16 and commit_256: a record of 1, 16 and 256 pages beside a TCP round \
                        trip of as many bytes; and append_k0 and append_k1: an item of a list that four nodes append to, \
                        without replicas and with one. recovery: from the kill of a node, with 256 MiB touched, to the first \
                        page of it that somebody gets, beside the time in which the kernel reports its end; recovery_by_lease: from a \
                        stop, which nobody can see, beside the lease.\n\
                        In JSON each is an object of unit, p50, p99, floor_p50 and ratio."
)]
struct BenchArguments {
    /// Measure this only, such as `read_miss`
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
    /// End with one line of JSON
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage::explain(&error, "say what to do: run, doctor or bench", refuse),
    };
    match cli.command {
        Command::Run(arguments) => run::run(&arguments),
        Command::Doctor(arguments) => doctor::run(&arguments),
        Command::Bench(arguments) => dsm_node::bench::run(arguments.only.as_deref(), arguments.json),
    }
}

/// Says in one line what is wrong with the command line.
fn refuse(what: &str) -> ExitCode {
    eprintln!("dsm: {what}; `dsm --help` and `dsm COMMAND --help` explain");
    ExitCode::from(usage::EXIT_CODE)
}
