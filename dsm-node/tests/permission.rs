//! What the `dsm` binary says where the kernel does not permit userfaultfd: what it is and its fix.

#[path = "common/forbid.rs"]
mod forbid;

use std::process::Output;

fn forbidden(args: &[&str]) -> Output {
    forbid::command(env!("CARGO_BIN_EXE_dsm")).args(args).output().expect("dsm starts")
}

#[test]
fn the_doctor_names_what_is_forbidden_and_its_fix() {
    let output = forbidden(&["doctor"]);
    // Not an error of usage: that nodes cannot run here is the answer.
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let table = String::from_utf8_lossy(&output.stdout);
    assert!(table.contains("userfaultfd") && table.contains("seccomp"), "{table}");
}

#[test]
fn the_bench_ends_with_one_line() {
    let output = forbidden(&["bench", "--only", "read_miss"]);
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert_eq!(message.lines().count(), 1, "{message}");
    assert!(message.contains("userfaultfd") && message.contains("dsm doctor"), "{message}");
}
