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
        (&["list", "--kill", "owner@50%"], "--kill"),
        (&["list", "--replicas", "1"], "--replicas"),
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
    assert!(help.contains("items_acknowledged") && !help.contains("list-node"), "{help}");
}
