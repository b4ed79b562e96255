//! Litmus tests on real nodes, as the `litmus` command runs them: all shapes, few iterations. And that it can fail.

use serde_json::Value;
use std::process::{Command, Output};
use std::thread::available_parallelism;

/// What the command printed and exited with.
struct Ran {
    output: Output,
    /// The object on the last line.
    json: Value,
}

fn litmus(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_litmus"));
    command.args(arguments).output().expect("the command can be started")
}

fn litmus_json(arguments: &[&str]) -> Ran {
    let output = litmus(&[arguments, &["--json"]].concat());
    let text = String::from_utf8_lossy(&output.stdout);
    let last = text.lines().last().unwrap_or_default();
    let json =
        serde_json::from_str(last).unwrap_or_else(|error| panic!("{error}: {last}\n{}", complaint(&output)));
    Ran { output, json }
}

fn complaint(output: &Output) -> String {
    format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

impl Ran {
    fn number(&self, name: &str) -> u64 {
        self.json[name].as_u64().unwrap_or_else(|| panic!("no number {name}: {}", complaint(&self.output)))
    }

    fn code(&self) -> Option<i32> {
        self.output.status.code()
    }

    /// How often an outcome of a shape with plain or relaxed accesses was seen.
    fn count(&self, outcome: &str) -> u64 {
        let runs = self.json["runs"].as_array().expect("there are runs");
        let outcomes = runs.iter().filter_map(|run| run["outcomes"].as_array()).flatten();
        outcomes.filter(|found| found["outcome"] == outcome).filter_map(|found| found["count"].as_u64()).sum()
    }
}

/// Shapes of the list, fenced ones counted apart.
const SHAPES: u64 = 30;

/// Of each shape, separate and same-page have 4 flavours each, straddle has 1; on 3 placements each.
const CONFIGURATIONS: u64 = SHAPES * (4 + 4 + 1) * 3;

#[test]
fn every_shape_on_every_layout_shows_nothing_forbidden() {
    // One or two rounds of each configuration: thousands of iterations of each shape, and hundreds across pages.
    let ran = litmus_json(&["--iterations", "100", "--brief"]);
    assert_eq!(ran.code(), Some(0), "{}", complaint(&ran.output));
    assert_eq!(ran.json["ok"], true);
    assert_eq!(ran.number("shapes"), SHAPES);
    assert_eq!(ran.number("configurations"), CONFIGURATIONS);
    assert_eq!(ran.number("forbidden"), 0);
    assert!(ran.number("iterations_fewest") >= 100);
}

/// The runner sees weak outcomes where there are some, and counts none where there can be none.
#[test]
fn two_threads_of_one_node_see_each_others_stores_late() {
    let on_one_node =
        ["--only", "SB", "--placement", "threads", "--layout", "separate", "--iterations", "20000"];
    let ran = litmus_json(&on_one_node);
    assert_eq!(ran.code(), Some(0), "{}", complaint(&ran.output));
    assert_eq!(ran.number("weak_seen"), ran.count("r0=0 r1=0"));
    if available_parallelism().is_ok_and(|processors| processors.get() > 1) {
        assert!(ran.number("weak_seen") > 0, "{}", complaint(&ran.output));
    } else {
        println!("not checked that weak outcomes are seen: both threads have one processor");
        assert!(complaint(&ran.output).contains("one processor only"));
    }
}

/// Across nodes, pages are taken in the middle of instances: every interleaving is seen, not only one thread after another.
#[test]
fn threads_of_two_nodes_interleave() {
    let arguments =
        ["--only", "MP+fences", "--placement", "nodes", "--iterations", "20000", "--layout", "separate"];
    let ran = litmus_json(&arguments);
    assert_eq!(ran.code(), Some(0), "{}", complaint(&ran.output));
    for outcome in ["r0=0 r1=0", "r0=0 r1=1", "r0=1 r1=1"] {
        assert!(ran.count(outcome) > 0, "{outcome}: {}", complaint(&ran.output));
    }
    assert_eq!(ran.count("r0=1 r1=0"), 0);
}

/// A deliberate bug between programs and memory makes the command fail, and say what was seen.
fn is_found(mutant: &str, only: &str, placement: &str) {
    let arguments =
        ["--only", only, "--placement", placement, "--iterations", "4000", "--mutant", mutant, "--brief"];
    let ran = litmus_json(&arguments);
    assert_eq!(ran.code(), Some(1), "{mutant}: {}", complaint(&ran.output));
    assert_eq!(ran.json["ok"], false);
    assert!(ran.number("forbidden") > 0, "{mutant}");
    assert!(complaint(&ran.output).contains("FORBIDDEN: "), "{}", complaint(&ran.output));
}

#[test]
fn broken_memory_is_found() {
    for mutant in ["stale-loads", "outdated-loads", "torn-loads", "lost-stores", "reversed-steps"] {
        for placement in ["nodes", "mixed"] {
            // Whoever runs backwards must meet another in the middle of an instance: fences and SB give it most time.
            is_found(mutant, "SB+fences", placement);
        }
    }
}

#[test]
fn a_judge_that_knows_interleavings_only_finds_weak_outcomes() {
    if available_parallelism().is_ok_and(|processors| processors.get() > 1) {
        is_found("sequential-judge", "SB", "threads");
    } else {
        println!("not checked: both threads have one processor");
    }
}

#[test]
fn a_run_that_hangs_is_ended_and_said_where_it_was() {
    let ran = litmus_json(&["--only", "MP", "--placement", "nodes", "--mutant", "hangs", "--patience", "2"]);
    assert_eq!(ran.code(), Some(1));
    let said = String::from_utf8_lossy(&ran.output.stderr);
    for part in [
        "MP on nodes of one thread each: no thread has moved for 2 s",
        "rank 0, thread 0: executing instance",
        "rank 1, thread 0: ",
        "dsm-engine",
    ] {
        assert!(said.contains(part), "{part:?} is not in:\n{said}");
    }
    assert!(ran.json["failure"].as_str().is_some_and(|failure| failure.contains("no thread has moved")));
}

#[test]
fn a_node_that_dies_is_said() {
    let ran = litmus_json(&["--only", "MP", "--placement", "nodes", "--mutant", "dies"]);
    assert_eq!(ran.code(), Some(1));
    let said = String::from_utf8_lossy(&ran.output.stderr);
    assert!(said.contains("rank 0 ended with exit code 134"), "{said}");
}

#[test]
fn wrong_usage_is_said() {
    for (arguments, part) in [
        (&["--only", "XYZ"][..], "there are SB, SB+fences, MP"),
        (&["--layout", "diagonal"], "same-page"),
        (&["--iterations", "0"], "--iterations"),
        (&["--layout", "straddle", "--access", "seqcst"], "only plain accesses straddle"),
    ] {
        let output = litmus(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains(part), "{}", complaint(&output));
    }
}

#[test]
fn the_list_names_every_shape() {
    let output = litmus(&["--list"]);
    assert!(output.status.success());
    let text = String::from_utf8_lossy(&output.stdout);
    for name in
        ["SB", "MP", "LB", "S", "R", "2+2W", "CoRR", "CoWW", "CoRW", "WRC", "RWC", "WWC", "ISA2", "IRIW"]
    {
        assert!(text.lines().any(|line| line.split_whitespace().next() == Some(name)), "{name}");
        let fenced = format!("{name}+fences");
        assert!(text.lines().any(|line| line.split_whitespace().next() == Some(&fenced)), "{fenced}");
    }
    assert!(text.ends_with(&format!("{SHAPES} shapes\n")));
}
