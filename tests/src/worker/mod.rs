//! What the nodes of multi-process tests do: one function per scenario, found by name.
//!
//! A scenario asserts what it can see itself, and prints facts (`name=value`) for what takes several nodes to see. It
//! says where it is (`at: …`) before anything that may block, for the harness to tell when it hangs. A panic ends the
//! process at once: it must not wait for the others in a drop.

mod cluster;
mod coherence;
mod comers;
mod confine;
pub(crate) mod crash;
mod failure;
mod history;
mod join;
mod litmus;
mod locks;
mod memory;
mod nemesis;
mod oracle;
mod outage;
mod patches;
mod progress;
mod rest;
mod roots;
mod steps;
mod stores;
mod system_calls;

use dsm_node::Error;
use nix::sys::signal::{SigSet, Signal};
use std::collections::BTreeMap;
use std::fmt::Display;
use std::io::Write;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// In the environment of a worker that is to run as nobody.
pub const UNPRIVILEGED: &str = "DSM_TEST_UNPRIVILEGED";

/// What the line begins with that a worker prints when it panics.
pub const PANICKED: &str = "worker panicked: ";

/// The exit code of a worker that panicked, as the Rust runtime has it.
const PANIC_CODE: i32 = 101;

/// What a scenario comes back with.
type Outcome = Result<(), Error>;

/// Whether a panic is part of the scenario.
static PANICS_EXPECTED: AtomicBool = AtomicBool::new(false);

/// Runs the scenario that the command line names: `worker NAME [argument=value]…`.
pub fn main() -> ExitCode {
    end_at_panic();
    // Before there is any other thread: all inherit that the signal waits until somebody asks for it.
    hold_back_go();
    let mut words = std::env::args().skip(1);
    let name = words.next().unwrap_or_default();
    let arguments = Arguments::parse(words);
    if std::env::var_os(UNPRIVILEGED).is_some() {
        confine::become_nobody();
    }
    let Some((_, scenario)) = scenarios().into_iter().find(|(known, _)| *known == name) else {
        eprintln!("worker: there is no scenario {name:?}; see dsm_tests::worker for those that there are");
        return ExitCode::from(2);
    };
    match scenario(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            fact("error", &error);
            fact("error kind", kind_of(&error));
            ExitCode::FAILURE
        }
    }
}

/// Whether `name` is that of a scenario: for programs that are their own workers.
#[must_use]
pub fn is_scenario(name: Option<&str>) -> bool {
    scenarios().iter().any(|(known, _)| Some(*known) == name)
}

type Scenario = fn(&Arguments) -> Outcome;

fn scenarios() -> Vec<(&'static str, Scenario)> {
    [
        coherence::SCENARIOS,
        comers::SCENARIOS,
        crash::SCENARIOS,
        litmus::SCENARIOS,
        failure::SCENARIOS,
        history::SCENARIOS,
        join::SCENARIOS,
        locks::SCENARIOS,
        memory::SCENARIOS,
        nemesis::SCENARIOS,
        oracle::SCENARIOS,
        outage::SCENARIOS,
        patches::SCENARIOS,
        progress::SCENARIOS,
        rest::SCENARIOS,
        roots::SCENARIOS,
        stores::SCENARIOS,
        system_calls::SCENARIOS,
    ]
    .concat()
}

/// What the command line says beyond the scenario's name.
struct Arguments(BTreeMap<String, String>);

impl Arguments {
    fn parse(words: impl Iterator<Item = String>) -> Arguments {
        let pair = |word: String| match word.split_once('=') {
            Some((name, value)) => (name.to_owned(), value.to_owned()),
            None => panic!("{word:?} is no argument=value"),
        };
        Arguments(words.map(pair).collect())
    }

    fn text(&self, name: &str) -> &str {
        self.0.get(name).unwrap_or_else(|| panic!("this scenario needs the argument {name}=…"))
    }

    fn number(&self, name: &str) -> u64 {
        self.text(name).parse().unwrap_or_else(|_| panic!("the argument {name} is no number"))
    }
}

/// Says what comes next. Cheap, but not for every turn of a loop.
fn at(place: impl Display) {
    say(format_args!("{}{place}\n", crate::harness::AT));
}

/// Says what was found.
fn fact(name: &str, value: impl Display) {
    say(format_args!("{name}={value}\n"));
}

fn say(line: std::fmt::Arguments<'_>) {
    // A harness that is gone needs no news.
    let _ = std::io::stdout().lock().write_fmt(line);
}

/// The variant of an error, which its words do not show.
fn kind_of(error: &Error) -> &'static str {
    match error {
        Error::Config(_) => "Config",
        Error::Mismatch { .. } => "Mismatch",
        Error::LayoutMismatch { .. } => "LayoutMismatch",
        Error::Unsupported { .. } => "Unsupported",
        Error::Rendezvous { .. } => "Rendezvous",
        Error::Refused { .. } => "Refused",
        Error::AlreadyJoined => "AlreadyJoined",
        Error::NotJoined => "NotJoined",
        Error::Lost(_) => "Lost",
        Error::Evicted { .. } => "Evicted",
        Error::NoQuorum => "NoQuorum",
        Error::OutOfMemory { .. } => "OutOfMemory",
        Error::Busy { .. } => "Busy",
        Error::InCriticalSection { .. } => "InCriticalSection",
        // The error type is open: what no scenario expects needs no name here.
        _ => "another",
    }
}

/// The signal by which the harness lets a worker go on.
fn go_signal() -> SigSet {
    SigSet::from(Signal::SIGUSR1)
}

fn hold_back_go() {
    go_signal().thread_block().expect("a signal of this process can be blocked");
}

/// Waits until the harness says so.
fn await_go() {
    go_signal().wait().expect("a blocked signal can be waited for");
}

fn end_at_panic() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if PANICS_EXPECTED.load(Ordering::SeqCst) {
            return;
        }
        // In one line, which is as much as the harness waits for.
        eprintln!("{PANICKED}{}", info.to_string().replace('\n', " "));
        usual(info);
        std::process::exit(PANIC_CODE);
    }));
}

/// Lets panics unwind, and be caught, from now on.
fn expect_panics() {
    PANICS_EXPECTED.store(true, Ordering::SeqCst);
}

/// Sleeps, where time itself is the subject.
fn let_time_pass(span: Duration) {
    std::thread::sleep(span);
}
