//! `dsm-demo`: applications that show what distributed shared memory does. This file reads the command line.

mod list;

use clap::{Parser, Subcommand};
use dsm_node::launch::usage;
use std::process::ExitCode;

/// Demonstrations of distributed shared memory; each starts its own nodes on this machine.
#[derive(Parser)]
#[command(
    version,
    after_help = "Example:\n  dsm-demo list --nodes 4 --items 100000    four nodes build, walk and check one list"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The multi-node linked list: every node appends its share, then walks and checks the whole
    List(list::Arguments),
    /// One node of `list`, started by it
    #[command(hide = true)]
    ListNode(list::NodeArguments),
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage::explain(&error, "say which demonstration: list", refuse),
    };
    match cli.command {
        Command::List(arguments) => list::run(&arguments),
        Command::ListNode(arguments) => list::run_node(&arguments),
    }
}

/// Says in one line what is wrong with the command line.
fn refuse(what: &str) -> ExitCode {
    eprintln!("dsm-demo: {what}; `dsm-demo --help` and `dsm-demo list --help` explain");
    ExitCode::from(usage::EXIT_CODE)
}
