//! The multi-node linked list on real processes, judged by the JSON line that it ends with.

use serde_json::Value;
use std::process::{Command, Stdio};

/// Runs the list; its JSON line, its exit code, and what it said on standard error.
fn list_to_any_end(args: &[&str]) -> (Value, Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_dsm-demo"))
        .args(["list", "--json"])
        .args(args)
        .stdin(Stdio::null())
        .output()
        .expect("dsm-demo starts");
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    let summary = stdout.lines().last().and_then(|line| serde_json::from_str(line).ok());
    (summary.unwrap_or_else(|| panic!("{args:?}: no JSON\n{stdout}\n{stderr}")), output.status.code(), stderr)
}

/// Runs the list, and returns its JSON line, or panics with everything that was said.
fn list(args: &[&str]) -> Value {
    let (summary, code, stderr) = list_to_any_end(args);
    assert_eq!(code, Some(0), "{args:?}: {summary}\n{stderr}");
    summary
}

fn number(summary: &Value, field: &str) -> u64 {
    summary[field].as_u64().unwrap_or_else(|| panic!("{field}: {summary}"))
}

fn assert_intact(summary: &Value, nodes: u64, items: u64) {
    assert_eq!(summary["ok"], true, "{summary}");
    for (field, value) in [
        ("nodes", nodes),
        ("survivors", nodes),
        ("items_acknowledged", items),
        ("items_found", items),
        ("items_lost", 0),
        ("lost_pages", 0),
    ] {
        assert_eq!(summary[field], value, "{field}: {summary}");
    }
}

#[test]
fn every_count_of_nodes_over_every_transport() {
    for transport in ["tcp", "unix"] {
        for nodes in [1, 2, 4] {
            let args = ["--nodes", &nodes.to_string(), "--items", "1001", "--transport", transport];
            let summary = list(&args);
            assert_intact(&summary, nodes, 1001);
            // A list that several nodes build cannot be built without moving pages.
            assert_eq!(number(&summary, "pages_moved") > 0, nodes > 1, "{summary}");
            assert!(summary["recovery_ms"].is_null(), "{summary}");
        }
    }
}

#[test]
fn plain_memory_holds_the_list_as_well() {
    assert_intact(&list(&["--nodes", "3", "--items", "600", "--memory", "plain"]), 3, 600);
}

#[test]
fn an_empty_list_is_intact() {
    assert_intact(&list(&["--nodes", "2", "--items", "0"]), 2, 0);
}

/// What must hold when `killed` of four nodes were, and the others had copies of all that was committed.
fn assert_survived(summary: &Value, killed: u64, items: u64) {
    assert_eq!(summary["ok"], true, "{summary}");
    assert_eq!(number(summary, "survivors"), 4 - killed, "{summary}");
    assert_eq!(number(summary, "items_lost"), 0, "{summary}");
    assert_eq!(number(summary, "lost_pages"), 0, "{summary}");
    let acknowledged = number(summary, "items_acknowledged");
    assert!((1..items).contains(&acknowledged), "the dead appended no more: {summary}");
    assert!(number(summary, "items_found") >= acknowledged, "{summary}");
    assert!(summary["recovery_ms"].as_f64().is_some_and(|time| time > 0.0), "{summary}");
}

#[test]
fn a_killed_owner_costs_nothing_that_was_acknowledged() {
    for transport in ["tcp", "unix"] {
        for memory in ["guarded", "plain"] {
            let args =
                ["--items", "2000", "--kill", "owner@50%", "--transport", transport, "--memory", memory];
            assert_survived(&list(&args), 1, 2000);
        }
    }
}

#[test]
fn two_owners_one_after_the_other_cost_nothing_either() {
    let args = ["--items", "2000", "--kill", "owner@25%", "--kill", "owner@75%"];
    assert_survived(&list(&args), 2, 2000);
}

#[test]
fn a_kill_at_a_time_is_survived_whatever_the_node_was_at() {
    // Far more items than can be appended by then.
    let args = ["--items", "20000", "--kill", "0@700ms"];
    assert_survived(&list(&args), 1, 20_000);
}

#[test]
fn a_kill_that_comes_too_late_is_remarked_on() {
    let (summary, code, stderr) = list_to_any_end(&["--nodes", "2", "--items", "100", "--kill", "1@1000s"]);
    assert_eq!(code, Some(0), "{stderr}");
    assert_intact(&summary, 2, 100);
    assert!(stderr.contains("rank 1 had ended before"), "{stderr}");
}

/// The end of a list whose owner is killed while nobody keeps copies: its summary, and the line that says what is wrong.
fn without_copies(memory: &str) -> (Value, String) {
    let args = ["--items", "2000", "--replicas", "0", "--memory", memory, "--kill", "owner@50%"];
    let (summary, code, stderr) = list_to_any_end(&args);
    assert_eq!(code, Some(1), "{summary}\n{stderr}");
    assert_eq!(summary["ok"], false, "{summary}");
    assert_eq!(number(&summary, "survivors"), 3, "{summary}");
    assert!(number(&summary, "lost_pages") > 0, "{summary}");
    assert!(number(&summary, "items_lost") > 0, "{summary}");
    let line = stderr.lines().find(|line| line.starts_with("dsm-demo: ")).map(str::to_owned);
    (summary, line.unwrap_or_else(|| panic!("nothing is said: {stderr}")))
}

#[test]
fn without_copies_a_plain_chain_breaks_at_a_named_place() {
    let (summary, line) = without_copies("plain");
    for part in ["the chain breaks after", "page 0x", "address 0x2000", "last owner rank", "lost in view 2"] {
        assert!(line.contains(part), "{part}: {line}\n{summary}");
    }
}

#[test]
fn without_copies_a_lock_says_that_its_list_is_lost() {
    let (summary, line) = without_copies("guarded");
    for part in ["the lock says", "page 0x", "last owner rank", "lost in view 2"] {
        assert!(line.contains(part), "{part}: {line}\n{summary}");
    }
}

#[test]
fn without_copies_and_without_kills_all_is_well() {
    assert_intact(&list(&["--nodes", "3", "--items", "600", "--replicas", "0"]), 3, 600);
}
