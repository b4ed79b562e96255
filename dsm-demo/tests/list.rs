//! The multi-node linked list on real processes, judged by the JSON line that it ends with.

use serde_json::Value;
use std::process::{Command, Stdio};

/// Runs the list, and returns its JSON line, or panics with everything that was said.
fn list(args: &[&str]) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_dsm-demo"))
        .args(["list", "--json"])
        .args(args)
        .stdin(Stdio::null())
        .output()
        .expect("dsm-demo starts");
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {}\n{stdout}\n{stderr}", output.status);
    serde_json::from_str(stdout.lines().last().expect("a line")).expect("JSON")
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
            assert_eq!(summary["pages_moved"].as_u64().expect("a count") > 0, nodes > 1, "{summary}");
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
