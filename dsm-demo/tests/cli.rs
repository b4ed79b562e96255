//! The `dsm-demo` binary from outside: its help, its errors, and the list itself on real nodes.

use std::process::{Command, Output, Stdio};

fn demo(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_dsm-demo"))
        .args(args)
        .stdin(Stdio::null())
        .output()
        .expect("dsm-demo starts")
}

#[test]
fn errors_of_usage_are_one_line_and_exit_2() {
    for (args, part) in [
        (&[][..], "list"),
        (&["tree"], "tree"),
        (&["list", "--nodes", "0"], "1..=64"),
        (&["list", "--nodes", "65"], "65"),
        (&["list", "--items", "many"], "many"),
        (&["list", "--memory", "paper"], "guarded"),
        (&["list", "--transport", "rdma"], "tcp or unix"),
        (&["list", "--kill", "owner@50"], "owner@50%"),
        (&["list", "--kill", "owner@101%"], "owner@50%"),
        (&["list", "--kill", "2"], "RANK@WHEN"),
        (&["list", "--kill", "0@1s", "--kill", "4@1s"], "ranks are from 0 to 3"),
        (&["list", "--replicas", "4"], "3 others at most"),
        (&["list", "--nodes", "1", "--replicas", "1"], "0 others at most"),
        (&["list", "--frobnicate"], "--frobnicate"),
    ] {
        let output = demo(args);
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {output:?}");
        assert!(output.stdout.is_empty(), "{args:?}: {output:?}");
        assert_eq!(message.lines().count(), 1, "{args:?}: {message}");
        assert!(message.starts_with("dsm-demo: ") && message.contains(part), "{args:?}: {message}");
    }
}

#[test]
fn help_names_the_fields_of_the_json_line() {
    let output = demo(&["list", "--help"]);
    assert!(output.status.success());
    let help = String::from_utf8_lossy(&output.stdout).into_owned();
    for part in ["items_acknowledged", "recovery_ms", "owner@50%", "1@500ms", "--replicas 0"] {
        assert!(help.contains(part), "{part}: {help}");
    }
    assert!(!help.contains("list-node"), "{help}");
}
