//! The launcher, over shells.

use super::*;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::kill;
use nix::unistd::Pid;
use std::os::fd::AsFd;
use std::sync::mpsc::channel;
use std::time::Instant;

/// What any of these tests may take, on a busy machine.
const BUDGET: Duration = Duration::from_secs(30);

/// A sleep that only an end from outside cuts short.
const FOR_EVER: &str = "exec sleep 1000";

fn shell(script: &str, nodes: u32) -> Launch {
    Launch::new("/bin/sh").arg("-c").arg(script).nodes(nodes).output(Output::Captured)
}

/// Whether no process has this number any more, reaped or not.
fn is_gone(pid: u32) -> bool {
    let pid = i32::try_from(pid).expect("a process number");
    kill(Pid::from_raw(pid), None) == Err(Errno::ESRCH)
}

#[test]
fn each_node_learns_its_place() {
    for transport in [TransportKind::Tcp, TransportKind::Unix] {
        let script =
            "echo $DSM_RANK/$DSM_NODES $DSM_RENDEZVOUS $DSM_TRANSPORT ${DSM_RENDEZVOUS_FD:+fd} $EXTRA";
        let launch = shell(script, 3).transport(transport).env("EXTRA", "all").env_of(1, "EXTRA", "one");
        let outcome = launch.spawn().expect("shells start").wait(BUDGET);
        assert!(outcome.success(), "{outcome}");
        let words: Vec<Vec<&str>> =
            outcome.nodes.iter().map(|node| node.stdout.split_whitespace().collect()).collect();
        let address = words[0][1];
        assert_eq!(words[0], ["0/3", address, transport.name(), "fd", "all"]);
        assert_eq!(words[1], ["1/3", address, transport.name(), "one"]);
        assert_eq!(words[2], ["2/3", address, transport.name(), "all"]);
        assert!(address.starts_with(if transport == TransportKind::Tcp {
            "127.0.0.1:"
        } else {
            "unix:dsm-"
        }));
    }
}

#[test]
fn each_node_inherits_its_channel_and_rank_0_alone_the_listening_socket() {
    let script = "ls -l /proc/self/fd | grep -c socket: ; readlink /proc/self/fd/$DSM_WITNESS_FD; \
                  test -z \"$DSM_RENDEZVOUS_FD\" || readlink /proc/self/fd/$DSM_RENDEZVOUS_FD";
    let outcome = shell(script, 2).spawn().expect("shells start").wait(BUDGET);
    let sockets: Vec<Vec<&str>> = outcome.nodes.iter().map(|node| node.stdout.lines().collect()).collect();
    assert_eq!((sockets[0][0], sockets[0].len()), ("2", 3), "{outcome}");
    assert_eq!((sockets[1][0], sockets[1].len()), ("1", 2), "{outcome}");
    let links: std::collections::BTreeSet<&str> =
        sockets.iter().flat_map(|lines| &lines[1..]).copied().collect();
    assert_eq!(links.len(), 3, "each its own: {outcome}");
    assert!(links.iter().all(|link| link.starts_with("socket:[")), "{outcome}");
}

#[test]
fn what_the_cluster_is_to_survive_is_said_to_all() {
    let script = "echo ${DSM_REPLICAS-unset} ${DSM_LEASE-unset}";
    let outcome = shell(script, 2).spawn().expect("shells start").wait(BUDGET);
    assert!(outcome.nodes.iter().all(|node| node.stdout == "unset unset\n"), "{outcome}");
    let launch = shell(script, 3).replicas(2).lease(Duration::from_millis(250));
    let outcome = launch.spawn().expect("shells start").wait(BUDGET);
    assert!(outcome.nodes.iter().all(|node| node.stdout == "2 250000us\n"), "{outcome}");
}

#[test]
fn the_meeting_point_closes_with_rank_0() {
    let (lines, printed) = channel();
    let cluster = shell(&format!("echo $DSM_RENDEZVOUS; {FOR_EVER}"), 2)
        .output(Output::Lines(lines))
        .spawn()
        .expect("start");
    let address = printed.recv_timeout(BUDGET).expect("an address").text;
    std::net::TcpStream::connect(&address).expect("rank 0 holds the socket");
    assert!(cluster.kill(0));
    wait_for(&cluster, 0);
    // A process that another test has just forked holds every descriptor of this one until its exec.
    let end = Instant::now() + BUDGET;
    while std::net::TcpStream::connect(&address).is_ok() {
        assert!(Instant::now() < end, "somebody else holds it");
        std::thread::yield_now();
    }
}

/// Waits until a node was reaped.
fn wait_for(cluster: &Cluster, rank: u32) {
    let end = Instant::now() + BUDGET;
    while cluster.pid(rank).is_some() {
        assert!(Instant::now() < end, "rank {rank} is still there");
        std::thread::yield_now();
    }
}

#[test]
fn the_first_failure_ends_the_others_after_the_grace() {
    let script = format!("test $DSM_RANK = 1 && exit 3; {FOR_EVER}");
    let start = Instant::now();
    let cluster = shell(&script, 3).grace(Duration::from_millis(100)).spawn().expect("shells start");
    let outcome = cluster.wait(BUDGET);
    assert!(start.elapsed() < BUDGET);
    assert_eq!(outcome.first_failure, Some((1, 3)), "{outcome}");
    assert_eq!(outcome.exit_code(), 3);
    assert_eq!(outcome.nodes[0].ending, Ending::AfterAnother, "{outcome}");
    assert_eq!(outcome.nodes[2].ending, Ending::AfterAnother, "{outcome}");
}

#[test]
fn a_signal_is_128_and_its_number() {
    let outcome = shell("kill -TERM $$", 1).spawn().expect("starts").wait(BUDGET);
    assert_eq!(outcome.exit_code(), 128 + Signal::SIGTERM as i32, "{outcome}");
}

#[test]
fn a_kill_on_request_is_no_failure() {
    let cluster =
        shell(&format!("test $DSM_RANK = 0 && exit 0; {FOR_EVER}"), 2).spawn().expect("shells start");
    assert!(cluster.kill(1));
    let outcome = cluster.wait(BUDGET);
    assert!(outcome.success(), "{outcome}");
    assert_eq!(outcome.nodes[1].ending, Ending::Killed);
    assert!(!cluster.kill(1), "it is gone");
}

#[test]
fn a_kill_that_was_asked_for_comes_in_its_time() {
    let before = crate::witness::now();
    let wait = Duration::from_millis(50);
    let script = format!("test $DSM_RANK = 2 && exit 0; {FOR_EVER}");
    let launch = shell(&script, 3).kill_at(1, wait).kill_at(0, 2 * wait).kill_at(2, Duration::from_secs(100));
    let outcome = launch.spawn().expect("shells start").wait(BUDGET);
    assert!(outcome.success(), "{outcome}");
    let endings: Vec<Ending> = outcome.nodes.iter().map(|node| node.ending).collect();
    assert_eq!(endings, [Ending::Killed, Ending::Killed, Ending::Itself]);
    let at = |rank: usize| outcome.nodes[rank].killed_at;
    assert!(at(1).expect("killed") >= before.since(dsm_core::Time::ZERO) + wait);
    assert!(at(0).expect("killed") >= at(1).expect("killed") + wait / 2, "{outcome}");
    assert_eq!(at(2), None);
}

#[test]
fn a_deadline_names_who_was_stuck() {
    let script = format!("test $DSM_RANK = 0 && exit 0; echo waiting for a page; {FOR_EVER}");
    let (lines, printed) = channel();
    let cluster = shell(&script, 2).output(Output::Lines(lines)).spawn().expect("shells start");
    printed.recv_timeout(BUDGET).expect("rank 1 speaks");
    let outcome = cluster.wait(Duration::from_millis(50));
    assert_eq!(outcome.exit_code(), OVERDUE_CODE_EXPECTED, "{outcome}");
    assert_eq!(outcome.nodes[1].ending, Ending::Overdue);
    assert!(outcome.to_string().contains("rank 1: signal: 9"), "{outcome}");
}

/// What `timeout` of coreutils returns.
const OVERDUE_CODE_EXPECTED: i32 = 124;

#[test]
fn dropping_a_cluster_leaves_no_process() {
    // The shell starts a child of its own, which must go as well.
    let (lines, printed) = channel();
    let script = "sleep 1000 & echo $$ $!; wait";
    let cluster = shell(script, 2).output(Output::Lines(lines)).spawn().expect("shells start");
    let pids: Vec<u32> = printed
        .iter()
        .take(2)
        .flat_map(|line| line.text.split(' ').map(|pid| pid.parse().expect("a number")).collect::<Vec<_>>())
        .collect();
    assert_eq!(pids.len(), 4);
    let shells: Vec<u32> = (0..2).filter_map(|rank| cluster.pid(rank)).collect();
    drop(cluster);
    assert!(shells.iter().all(|&pid| is_gone(pid)), "reaped when the drop returns");
    // The shells' children have another parent now, which reaps them in its own time.
    assert!(pids.iter().all(|&pid| ends(pid)), "{pids:?}");
}

/// Waits until the process has ended, even if its new parent has not reaped it.
fn ends(pid: u32) -> bool {
    // SAFETY: the call takes two numbers and makes a new descriptor.
    let number = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let Ok(number @ 0..) = i32::try_from(number) else { return true };
    // SAFETY: the kernel has just made this descriptor for us, so nothing else owns it.
    let pidfd = unsafe { <std::os::fd::OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(number) };
    let mut ready = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
    poll(&mut ready, PollTimeout::try_from(BUDGET).expect("fits")) == Ok(1)
}

#[test]
fn output_is_read_to_its_end_and_apart() {
    let script = "i=0; while [ $i -lt 3000 ]; do echo out $i; echo err $i >&2; i=$((i+1)); done; printf end";
    let outcome = shell(script, 2).spawn().expect("shells start").wait(BUDGET);
    for node in &outcome.nodes {
        assert_eq!(node.stdout.lines().count(), 3001, "rank {}", node.rank);
        assert_eq!(node.stderr.lines().count(), 3000);
        assert!(node.stdout.ends_with("out 2999\nend"));
    }
}

#[test]
fn a_signal_reaches_each_node_once() {
    // Not SIGINT: whatever is started in the background ignores that, and a shell cannot trap what was ignored before it.
    let script = "trap 'echo got it' USR1; trap 'exit 0' TERM; echo ready; while :; do sleep 0.01; done";
    let (lines, printed) = channel();
    let cluster = shell(script, 2).output(Output::Lines(lines)).spawn().expect("shells start");
    // A shell may say on standard error that a signal has ended its `sleep`: that is not counted.
    let next = || loop {
        let line = printed.recv_timeout(BUDGET).expect("a line");
        if line.stream == Stream::Stdout {
            return line.text;
        }
    };
    assert_eq!([next(), next()], ["ready", "ready"]);
    cluster.signaller().signal_all(Signal::SIGUSR1);
    assert_eq!([next(), next()], ["got it", "got it"]);
    cluster.signaller().signal_all(Signal::SIGTERM);
    let outcome = cluster.wait(BUDGET);
    assert!(outcome.success(), "{outcome}");
    let more = printed.try_iter().filter(|line| line.stream == Stream::Stdout).count();
    assert_eq!(more, 0, "no signal came twice");
}

#[test]
fn what_cannot_start_is_named() {
    let error = Launch::new("/no/such/program").nodes(2).spawn().err().expect("nothing to start").to_string();
    assert!(error.contains("/no/such/program") && error.contains("rank 0"), "{error}");
    for nodes in [0, 65] {
        let error = shell("true", nodes).spawn().err().expect("a count that cannot be").to_string();
        assert!(error.contains("1 to 64"), "{error}");
    }
    let error = shell("true", 2).kill_at(2, Duration::ZERO).spawn().err().expect("no such rank").to_string();
    assert!(error.contains("rank 2") && error.contains("from 0 to 1"), "{error}");
}
