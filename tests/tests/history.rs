//! Histories of counters, registers, queues and lists on real nodes are linearizable; and the check can fail.

use dsm_tests::history::Tally;
use dsm_tests::history::programs::Kind;
use dsm_tests::history::run::{self, Mutant, Options};
use std::process::{Command, Output};

/// Seeds of the plain test run. The command runs as many as one likes.
const SEEDS: u64 = 16;

/// The programs of a mutant are run with so many seeds at most.
const SEEDS_OF_MUTANT: u64 = 20;

fn worker() -> &'static str {
    env!("CARGO_BIN_EXE_worker")
}

#[test]
fn histories_of_real_nodes_are_linearizable() {
    let mut total = Tally::default();
    for seed in 0..SEEDS {
        match run::run(worker(), seed, &Options::default()) {
            Ok(tally) => total.add(&tally),
            Err(failure) => panic!("{failure}"),
        }
    }
    println!("{total}, {} overlapped, {} by stateright as well", total.overlapping, total.by_library);
    // Neither may the programs come to be idle, nor the threads to run one after the other.
    assert!(total.histories >= 20 * SEEDS && total.operations >= 500 * SEEDS, "{total}");
    assert!(total.overlapping * 10 >= total.operations, "only {} of {total} overlap", total.overlapping);
    assert!(total.by_library >= SEEDS, "only {} were put to the library", total.by_library);
}

#[test]
fn each_kind_of_object_alone_on_more_nodes_than_cores() {
    for object in Kind::ALL {
        let options = Options { object: Some(object), nodes: Some(5), ..Options::default() };
        if let Err(failure) = run::run(worker(), 0, &options) {
            panic!("{failure}");
        }
    }
}

#[test]
fn every_mutant_is_found_in_the_object_that_it_spoils() {
    for mutant in Mutant::ALL {
        let options = Options { mutant: Some(mutant), ..Options::default() };
        let mut failures = (0..SEEDS_OF_MUTANT).filter_map(|seed| run::run(worker(), seed, &options).err());
        let failure = failures.next().unwrap_or_else(|| panic!("{mutant:?} was not found"));
        let object = failure.object.as_deref().unwrap_or_else(|| panic!("{failure}"));
        let spoiled: &[&str] = match mutant {
            Mutant::TearsAdditions => &["Counter"],
            Mutant::LoadsFromMemory => &["Counter", "Register"],
            Mutant::LosesPushes => &["Queue", "List"],
            Mutant::LooksEarly => &["List"],
        };
        assert!(spoiled.iter().any(|kind| object.starts_with(kind)), "{mutant:?}: {failure}");
        assert!(failure.what.lines().any(|line| line.starts_with('>')), "{failure}");
        assert!(failure.replay.contains(&format!("--mutant {mutant:?}")), "{failure}");
    }
}

fn history_command(arguments: &[&str]) -> Output {
    let command = Command::new(env!("CARGO_BIN_EXE_history")).args(arguments).output();
    command.expect("the command was built for this test")
}

#[test]
fn the_command_ends_with_its_counts() {
    let output = history_command(&["--seeds", "0..2", "--object", "queue", "--nodes", "2", "--json"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{text}");
    let line: serde_json::Value = serde_json::from_str(text.lines().last().unwrap_or("")).expect("JSON");
    assert_eq!((&line["ok"], &line["runs"], &line["failed"]), (&true.into(), &2.into(), &0.into()));
    assert!(line["histories"].as_u64() > Some(0) && line["operations"].as_u64() > Some(0), "{line}");
    let output = history_command(&["--seeds", "0..1"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.ends_with("all histories are linearizable\n"), "{text}");
    assert!(text.lines().any(|line| line.starts_with("operations")), "{text}");
}

#[test]
fn the_command_shows_the_history_around_a_violation() {
    let output = history_command(&["--seeds", "0..20", "--mutant", "TearsAdditions"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.starts_with("seed ") && text.contains("again: cargo run --release"), "{text}");
    assert!(text.lines().any(|line| line.trim_start().starts_with('>')), "{text}");
}

#[test]
fn a_hang_is_a_failure_that_says_where() {
    let output = history_command(&["--seeds", "0..1", "--budget", "0"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("not done within") && text.contains("rank 0 was at:"), "{text}");
}

#[test]
fn a_usage_error_exits_with_2() {
    let usages: [&[&str]; 4] =
        [&["--seeds", "5..5"], &["--object", "stack"], &["--nodes", "0"], &["--mutant", "None"]];
    for arguments in usages {
        let output = history_command(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{arguments:?}");
    }
}
