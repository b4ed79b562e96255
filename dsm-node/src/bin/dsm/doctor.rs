//! `dsm doctor`: what a node needs of this machine, as a table or as JSON. The checks themselves are the library's.

use dsm_node::doctor::{Check, Status, examine};
use serde_json::json;
use std::io::Write;
use std::process::ExitCode;

/// Check kernel features, permissions and limits, each with its fix.
#[derive(clap::Args)]
#[command(after_help = "Exit code 0 when nodes can run on this machine, else 1.")]
pub struct Arguments {
    /// End with one line of JSON
    #[arg(long)]
    json: bool,
}

/// Examines the machine and shows what was found.
pub fn run(arguments: &Arguments) -> ExitCode {
    let checks = examine();
    let fit = checks.iter().all(|check| check.status != Status::Failed);
    let text = if arguments.json { as_json(&checks, fit) } else { as_table(&checks, fit) };
    // A closed standard output does not change whether nodes can run here.
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
    if fit { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn as_json(checks: &[Check], fit: bool) -> String {
    let checks: Vec<_> = checks
        .iter()
        .map(|check| {
            json!({
                "name": check.name.to_string(),
                "status": word(check.status),
                "found": check.found.to_string(),
                "fix": check.fix.to_string(),
            })
        })
        .collect();
    format!("{}\n", json!({ "ok": fit, "checks": checks }))
}

fn as_table(checks: &[Check], fit: bool) -> String {
    let width = |of: fn(&Check) -> usize| checks.iter().map(of).max().unwrap_or(0);
    let (names, found) =
        (width(|check| check.name.chars().count()), width(|check| check.found.chars().count()));
    let line = |check: &Check| {
        let row = format!(
            "{:names$}  {:7}  {:found$}  {}",
            check.name.to_string(),
            word(check.status),
            check.found.to_string(),
            check.fix
        );
        format!("{}\n", row.trim_end())
    };
    let verdict = if fit {
        "Nodes can run on this machine.\n"
    } else {
        "Nodes cannot run on this machine until what failed is fixed.\n"
    };
    checks.iter().map(line).chain([String::from(verdict)]).collect()
}

fn word(status: Status) -> &'static str {
    match status {
        Status::Ok => "ok",
        Status::Warning => "warning",
        Status::Failed => "failed",
    }
}
