//! The `dsm` binary from outside: its help, its errors, its exit codes, and that it leaves no process behind.

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

/// What any wait in these tests may take, on a busy machine.
const BUDGET: Duration = Duration::from_secs(30);

fn dsm(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_dsm")).args(args).stdin(Stdio::null()).output().expect("dsm starts")
}

fn start(args: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_dsm"))
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("dsm starts")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}

/// The one line of an error of usage.
fn refusal(args: &[&str]) -> String {
    let output = dsm(args);
    assert_eq!(output.status.code(), Some(2), "{args:?}: {output:?}");
    assert!(output.stdout.is_empty(), "{args:?}: {output:?}");
    let message = text(&output.stderr);
    assert_eq!(message.lines().count(), 1, "{args:?}: {message}");
    assert!(message.starts_with("dsm: ") && message.ends_with('\n'), "{args:?}: {message}");
    message.to_owned()
}

#[test]
fn errors_of_usage_are_one_line_and_exit_2() {
    for (args, part) in [
        (&[][..], "run, doctor or bench"),
        (&["fly"], "fly"),
        (&["run"], "--nodes"),
        (&["run", "-n", "2"], "PROG"),
        (&["run", "-n", "0", "--", "true"], "1..=64"),
        (&["run", "-n", "65", "--", "true"], "65"),
        (&["run", "-n", "2", "--transport", "rdma", "--", "true"], "tcp or unix"),
        (&["run", "-n", "2", "--kill", "1", "--", "true"], "RANK@WHEN"),
        (&["run", "-n", "2", "--kill", "1@soon", "--", "true"], "1@2s"),
        (&["run", "-n", "2", "--kill", "owner@50%", "--", "true"], "RANK@WHEN"),
        (&["run", "-n", "2", "--kill", "0@1s", "--kill", "2@1s", "--", "true"], "ranks are from 0 to 1"),
        (&["run", "-n", "2", "--replicas", "many", "--", "true"], "--replicas"),
        (&["run", "-n", "2", "--replicas", "64", "--", "true"], "0..=63"),
        (&["run", "-n", "2", "--replicas", "2", "--", "true"], "1 others at most"),
        (&["run", "-n", "2", "--lease", "500", "--", "true"], "500ms"),
        (&["run", "-n", "2", "--lease", "0s", "--", "true"], "20ms"),
        (&["run", "-n", "2", "--lease", "9ms", "--", "true"], "20ms"),
        (&["run", "-n", "2", "--hosts", "file", "--", "true"], "--hosts"),
        (&["run", "-n", "2", "--", "/no/such/program"], "/no/such/program"),
        (&["doctor", "--loud"], "--loud"),
        (&["bench", "--only"], "--only"),
    ] {
        let message = refusal(args);
        assert!(message.contains(part), "{args:?}: {message}");
    }
}

#[test]
fn help_teaches() {
    let output = dsm(&["--help"]);
    assert!(output.status.success());
    assert!(text(&output.stdout).contains("dsm run -n 4 -- ./first"), "{output:?}");
    let output = dsm(&["run", "--help"]);
    assert!(output.status.success());
    for part in ["DSM_RENDEZVOUS", "DSM_REPLICAS", "RANK@WHEN", "--kill 2@500ms", "does not count"] {
        assert!(text(&output.stdout).contains(part), "{part}: {output:?}");
    }
    assert!(dsm(&["--version"]).status.success());
}

#[test]
fn each_line_comes_after_its_rank() {
    let output =
        dsm(&["run", "-n", "3", "--", "/bin/sh", "-c", "echo out of $DSM_NODES; echo err >&2; printf tail"]);
    assert!(output.status.success(), "{output:?}");
    let mut lines: Vec<_> = text(&output.stdout).lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["[0] out of 3", "[0] tail", "[1] out of 3", "[1] tail", "[2] out of 3", "[2] tail"]);
    let mut lines: Vec<_> = text(&output.stderr).lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["[0] err", "[1] err", "[2] err"]);
}

#[test]
fn the_first_failure_is_the_exit_code() {
    let output = dsm(&["run", "-n", "2", "--", "/bin/sh", "-c", "test $DSM_RANK = 0 || exit 7"]);
    assert_eq!(output.status.code(), Some(7), "{output:?}");
    assert!(text(&output.stderr).contains("rank 1 failed first, with exit code 7"), "{output:?}");
    let output = dsm(&["run", "-n", "1", "--", "/bin/sh", "-c", "kill -SEGV $$"]);
    assert_eq!(output.status.code(), Some(128 + Signal::SIGSEGV as i32), "{output:?}");
}

#[test]
fn a_kill_reaches_the_node_and_its_children_and_is_no_failure() {
    // The shell starts a child in its group, which holds the node's output open for as long as it lives.
    let script = "test $DSM_RANK = 1 || exit 0; sleep 1000 & echo started; wait; echo survived";
    let output = dsm(&["run", "-n", "2", "--kill", "1@300ms", "--", "/bin/sh", "-c", script]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(text(&output.stdout), "[1] started\n");
    assert!(output.stderr.is_empty(), "{output:?}");
    let output = dsm(&["run", "-n", "2", "--kill", "1@1000s", "--", "true"]);
    assert!(output.status.success(), "{output:?}");
    assert!(text(&output.stderr).contains("rank 1 had ended before"), "{output:?}");
}

#[test]
fn replicas_and_lease_are_said_to_the_nodes() {
    let args = ["run", "-n", "2", "--replicas", "0", "--lease", "250ms", "--", "/bin/sh", "-c"];
    let output = dsm(&[&args[..], &["echo $DSM_REPLICAS $DSM_LEASE"]].concat());
    let mut lines: Vec<_> = text(&output.stdout).lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["[0] 0 250000us", "[1] 0 250000us"], "{output:?}");
}

#[test]
fn a_pipe_is_read_by_rank_0() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_dsm"))
        .args(["run", "-n", "2", "--", "cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("dsm starts");
    child.stdin.take().expect("piped").write_all(b"hello\n").expect("dsm reads");
    let output = child.wait_with_output().expect("dsm ends");
    assert_eq!(text(&output.stdout), "[0] hello\n");
}

#[test]
fn signals_are_passed_on() {
    let script = "trap 'echo told; exit 0' TERM; echo ready; while :; do sleep 0.01; done";
    let mut child = start(&["run", "-n", "2", "--", "/bin/sh", "-c", script]);
    let mut lines =
        BufReader::new(child.stdout.take().expect("piped")).lines().map(|line| line.expect("text"));
    let mut ready: Vec<_> = lines.by_ref().take(2).collect();
    ready.sort_unstable();
    assert_eq!(ready, ["[0] ready", "[1] ready"]);
    kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).expect("dsm runs");
    let mut told: Vec<_> = lines.collect();
    told.sort_unstable();
    assert_eq!(told, ["[0] told", "[1] told"]);
    assert!(child.wait().expect("dsm ends").success());
}

#[test]
fn a_killed_launcher_takes_its_nodes_along() {
    let mut child = start(&["run", "-n", "2", "--", "/bin/sh", "-c", "echo $$; exec sleep 1000"]);
    let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let pids: Vec<i32> = lines
        .take(2)
        .map(|line| line.expect("text").split_once("] ").expect("a prefix").1.parse().expect("a number"))
        .collect();
    let nodes: Vec<_> = pids.iter().map(|&pid| open_process(pid).expect("the node runs")).collect();
    child.kill().expect("dsm runs");
    child.wait().expect("dsm ends");
    for (node, pid) in nodes.iter().zip(pids) {
        let mut ended = [PollFd::new(node.as_fd(), PollFlags::POLLIN)];
        let budget = PollTimeout::try_from(BUDGET).expect("fits");
        assert_eq!(poll(&mut ended, budget), Ok(1), "process {pid} outlives its launcher");
    }
}

/// A descriptor that becomes readable when the process has ended.
fn open_process(pid: i32) -> std::io::Result<std::os::fd::OwnedFd> {
    // SAFETY: the call takes two numbers and makes a new descriptor.
    let number = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if number < 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us, so nothing else owns it.
    Ok(unsafe { std::os::fd::FromRawFd::from_raw_fd(number as std::os::fd::RawFd) })
}

#[test]
fn the_doctor_says_the_same_in_words_and_in_json() {
    let table = dsm(&["doctor"]);
    let json = dsm(&["doctor", "--json"]);
    assert_eq!(table.status.code(), json.status.code());
    let last = text(&json.stdout).lines().last().expect("a line");
    let value: serde_json::Value = serde_json::from_str(last).expect("JSON");
    assert_eq!(value["ok"].as_bool(), Some(json.status.success()));
    let checks = value["checks"].as_array().expect("a list");
    assert!(!checks.is_empty());
    for check in checks {
        let name = check["name"].as_str().expect("a name");
        assert!(text(&table.stdout).contains(name), "{name}");
        assert!(["ok", "warning", "failed"].contains(&check["status"].as_str().expect("a word")), "{check}");
    }
}
