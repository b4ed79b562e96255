//! The example programs, run as a user would run them: alone, and as a cluster.

use dsm_node::launch::{Launch, Outcome, Output};
use std::path::PathBuf;
use std::time::Duration;

/// What one program may take, on a busy machine.
const BUDGET: Duration = Duration::from_secs(30);

/// Cargo builds a package's examples beside its tests.
fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("this test is a file");
    let built = test.parent().and_then(|deps| deps.parent()).expect("it lies in target/PROFILE/deps");
    built.join("examples").join(name)
}

fn run(name: &str, nodes: u32) -> Outcome {
    let cluster =
        Launch::new(example(name)).nodes(nodes).output(Output::Captured).spawn().expect("it starts");
    cluster.wait(BUDGET)
}

#[test]
fn the_first_program_prints_the_ranks() {
    for nodes in [1, 4] {
        let outcome = run("first", nodes);
        assert!(outcome.success(), "{outcome}");
        let line = outcome.nodes[0].stdout.trim();
        let mut ranks: Vec<u32> =
            line.trim_matches(['[', ']']).split(", ").map(|rank| rank.parse().expect("a rank")).collect();
        ranks.sort_unstable();
        assert_eq!(ranks, (0..nodes).collect::<Vec<_>>(), "{outcome}");
    }
}

#[test]
fn threads_locks_and_references_work_on_one_node() {
    let outcome = run("threads", 1);
    assert!(outcome.success(), "{outcome}");
    let lines: Vec<&str> = outcome.nodes[0].stdout.lines().collect();
    assert_eq!(lines[0], "4 4 1 true", "{outcome}");
    assert!(lines[1].starts_with("true Err(the lock is poisoned"), "{outcome}");
}

#[test]
fn sections_that_are_nested_are_undone_together_when_their_node_dies_in_them() {
    let launch = Launch::new(example("transfer")).nodes(3).replicas(1).output(Output::Captured);
    let outcome = launch.spawn().expect("it starts").wait(BUDGET);
    let mut told = Vec::new();
    for survivor in &outcome.nodes[..2] {
        let (found, dead) =
            survivor.stdout.trim().rsplit_once(" [").expect("a line with whose death was told");
        assert_eq!(found, "[0, 1] -4950 4950 100 100 -4950 4950", "{outcome}");
        told.push(dead);
    }
    told.sort_unstable();
    assert_eq!(told, ["None, None]", "Some(2), Some(2)]"], "one of them, and no more, is told: {outcome}");
}
