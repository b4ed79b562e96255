//! Nodes that stop, are cut off, are slow, or die in greater numbers than can be survived; sections that end behind every
//! single store.

use dsm_node::launch::TransportKind;
use dsm_tests::harness::{Network, Report, Scenario, TOLD};
use dsm_tests::scenario;
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const WORKER: &str = env!("CARGO_BIN_EXE_worker");

/// A lease that is over soon, and that a busy machine does not break.
const LEASE: Duration = Duration::from_millis(400);

/// A lease that does not run out in these tests.
const LEASE_ENDLESS: Duration = Duration::from_secs(60);

/// The quorum's time-out, in leases, with the lease itself before it.
const LEASES_TO_NO_QUORUM: u32 = 4;

/// What may come on top of times that the membership promises.
const SLACK: Duration = Duration::from_secs(4);

/// The exit code of a process that touches what it cannot have: `EX_SOFTWARE`.
const DOOMED: i32 = 70;

/// No node says nothing for longer.
const SILENCE_MAX: Duration = Duration::from_secs(5);

fn of(name: &str, nodes: u32, lease: Duration) -> Scenario {
    let scenario = Scenario::new(WORKER, name).nodes(nodes).region_size(64 << 20).silence(SILENCE_MAX);
    scenario.env("DSM_LEASE", format!("{}ms", lease.as_millis()))
}

/// The scenario of `crash`, with rests.
fn crash(nodes: u32, lease: Duration, rests: u32) -> Scenario {
    let scenario = of("crash", nodes, lease).arg("turns", 8).arg("rests", rests);
    scenario.arg("may_lose", 0).arg("panics", 0)
}

/// Of each of `ranks`, all that was acknowledged is there, and no more than what may have been under way.
fn check_items(report: &Report, counting: &[usize]) {
    let items = report.fact(counting[0], "items");
    for rank in counting {
        report.expect_code(*rank, 0);
        assert_eq!(report.fact(*rank, "items"), items, "{report}");
        assert_eq!(report.fact(*rank, "lost pages"), "0", "{report}");
    }
    for (rank, found) in items.split(',').take(report.nodes.len()).enumerate() {
        let acked: u64 = report.said(rank, "acked").map_or(0, |text| text.parse().expect("a count"));
        let found: u64 = found.parse().expect("a count");
        assert!((acked..=acked + 1).contains(&found), "rank {rank}: {found} of {acked} items: {report}");
    }
    // By the second look the view has not changed for a while.
    report.check_pages_of(counting, 1);
}

/// It was told, by a call or by the signal of a touch, that it is no member any more.
fn expect_out(report: &Report, rank: usize, kinds: &[&str], words: &[&str]) {
    let node = &report.nodes[rank];
    if node.code == DOOMED {
        let told = node.stderr.iter().any(|line| words.iter().any(|word| line.contains(word)));
        assert!(told, "rank {rank} was not told: {report}");
    } else {
        report.expect_code(rank, 1);
        let kind = report.fact(rank, "error kind");
        assert!(kinds.contains(&kind), "rank {rank}: {report}");
    }
}

#[test]
fn a_node_that_was_stopped_beyond_its_lease_is_evicted() {
    for transport in [TransportKind::Tcp, TransportKind::Unix] {
        const VICTIM: u32 = 1;
        let mut running = crash(3, LEASE, 2).transport(transport).start();
        running.await_all_at("idle 0");
        running.freeze(VICTIM);
        for rank in [0, 2] {
            running.go(rank);
        }
        for rank in [0, 2] {
            running.await_at(rank, "idle 1");
        }
        // It goes on as if nothing had happened, while the others are far ahead in another view.
        running.go(VICTIM);
        running.thaw(VICTIM);
        running.await_end(VICTIM);
        for rank in [0, 2] {
            running.go(rank);
        }
        let report = running.finish();
        expect_out(&report, VICTIM as usize, &["Evicted"], &["was evicted"]);
        check_items(&report, &[0, 2]);
    }
}

#[test]
fn a_node_that_was_stopped_for_less_than_its_lease_stays() {
    let mut running = crash(3, LEASE_ENDLESS, 1).start();
    running.await_all_at("idle 0");
    running.freeze(1);
    for rank in [0, 2] {
        running.go(rank);
    }
    // They work on until they need it.
    running.await_at(0, "working again, 0");
    running.go(1);
    running.thaw(1);
    let report = running.finish();
    check_items(&report, &[0, 1, 2]);
    assert!((0..3).all(|rank| report.said(rank, "view").is_none()), "the view changed: {report}");
}

#[test]
fn a_slow_node_is_not_evicted() {
    // A message takes microseconds otherwise.
    let slow = "receive:Forward@1..=delay:3ms;receive:Grant@1..=delay:3ms;receive:Commit::Page@1..=delay:3ms;\
                receive:LockGrant@1..=delay:3ms;receive:Request@1..=delay:3ms";
    let report = crash(3, Duration::from_secs(1), 0).env_of(1, "DSM_FAILPOINTS", slow).run();
    check_items(&report, &[0, 1, 2]);
    assert!((0..3).all(|rank| report.said(rank, "view").is_none()), "the view changed: {report}");
}

/// Cuts the ranks from `first` on off from those below. There is no launcher that would tell them how the others decided,
/// as there is none where nodes are started by hand on several machines.
fn cut(nodes: u32, first: u32, way: &str, raw: bool) -> Report {
    let scenario = of("partition", nodes, LEASE).env("DSM_WITNESS_FD", "");
    let scenario = scenario.env("DSM_REPLICAS", (nodes - first).to_string());
    let scenario = scenario.arg("turns", 6).arg("first", first);
    let mut running = scenario.arg("way", way).arg("raw", u32::from(raw)).start();
    for rank in first..nodes {
        running.await_at(rank, "cut off");
    }
    let began = Instant::now();
    for rank in first..nodes {
        running.await_told_or_end(rank);
    }
    let took = began.elapsed();
    assert!(took < LEASE * LEASES_TO_NO_QUORUM + SLACK, "it took {took:?} to be told");
    let report = running.finish();
    let majority: Vec<usize> = (0..first as usize).collect();
    check_items(&report, &majority);
    report
}

const CUT_OFF: &str = "did not reach a majority of the members for too long";

#[test]
fn a_minority_says_so_and_the_majority_goes_on() {
    for (nodes, first) in [(3, 2), (5, 3)] {
        let report = cut(nodes, first, "both", false);
        for rank in first..nodes {
            expect_out(&report, rank as usize, &["NoQuorum"], &[CUT_OFF]);
        }
    }
}

#[test]
fn a_raw_touch_in_a_minority_ends_the_process_with_a_line() {
    let report = cut(3, 2, "both", true);
    assert_eq!(report.nodes[2].code, DOOMED, "{report}");
    expect_out(&report, 2, &[], &[CUT_OFF]);
}

#[test]
fn a_node_that_hears_or_is_heard_no_more_goes() {
    for way in ["to", "from"] {
        let report = cut(3, 2, way, false);
        expect_out(&report, 2, &["NoQuorum", "Evicted"], &[CUT_OFF, "was evicted"]);
    }
}

#[test]
fn a_node_whose_link_is_cut_says_so_and_the_others_go_on() {
    const NODES: u32 = 3;
    let network = match Network::new(NODES) {
        Ok(network) => network,
        Err(why) => return println!("skipped: there can be no network of one's own here: {why}"),
    };
    let scenario = Scenario::in_network(WORKER, &network, "partition").region_size(64 << 20);
    let scenario = scenario.silence(SILENCE_MAX).env("DSM_LEASE", format!("{}ms", LEASE.as_millis()));
    let scenario = scenario.arg("turns", 6).arg("first", NODES - 1).arg("way", "network").arg("raw", 0);
    let mut running = scenario.start();
    running.await_at(NODES - 1, "cut off");
    network.cut(NODES - 1);
    let report = running.finish();
    check_items(&report, &[0, 1]);
    expect_out(&report, 2, &["NoQuorum"], &[CUT_OFF]);
}

#[test]
fn the_last_of_four_says_that_it_has_no_majority() {
    let mut running = crash(4, LEASE, 1).start();
    running.await_all_at("idle 0");
    for rank in 1..4 {
        running.kill(rank);
    }
    let killed = Instant::now();
    running.go(0);
    running.await_end(0);
    assert!(killed.elapsed() < LEASE * LEASES_TO_NO_QUORUM + SLACK, "it took {:?}", killed.elapsed());
    let report = running.finish();
    expect_out(&report, 0, &["NoQuorum"], &[CUT_OFF]);
}

#[test]
fn a_rank_is_refused_while_the_old_one_may_live() {
    let mut running = crash(3, LEASE_ENDLESS, 1).start();
    running.await_all_at("idle 0");
    running.freeze(1);
    let address = running.variable(0, "DSM_RENDEZVOUS");
    let late = scenario!("join").env("DSM_JOIN_TIMEOUT", "1s").as_late_comer(1, 3, &address);
    let late = late.env("DSM_LEASE", "60000ms").region_size(64 << 20).start().finish();
    late.expect_code(0, 1);
    // It is told so, or waits in vain for a node that is stopped to say that it is gone.
    assert!(["Refused", "Rendezvous"].contains(&late.fact(0, "error kind")), "{late}");
    (0..3).for_each(|rank| running.go(rank));
    running.thaw(1);
    check_items(&running.finish(), &[0, 1, 2]);
}

#[test]
fn what_went_with_its_only_buddy_is_lost_and_nothing_else() {
    const NODES: u32 = 5;
    let mut running = of("losses", NODES, LEASE).env("DSM_REPLICAS", "1").start();
    running.await_all_at("idle 0");
    // Both hold still first, so that nobody takes up what one had before the other is gone.
    (0..2).for_each(|rank| running.freeze(rank));
    (0..2).for_each(|rank| running.kill(rank));
    (2..NODES).for_each(|rank| running.go(rank));
    let report = running.finish();
    let told =
        report.nodes[NODES as usize - 1].stderr.iter().filter(|line| line.contains("the page is lost"));
    assert_eq!(told.count(), 1, "{report}");
    report.expect_code(NODES as usize - 1, DOOMED);
    for rank in 2..NODES as usize {
        assert_eq!(report.fact(rank, "lost pages"), report.fact(2, "lost pages"), "{report}");
        // A page and a lock of each of the two at most, and at least those of the one whose buddy went along.
        assert!((2..=4).contains(&report.number::<u64>(rank, "lost")), "{report}");
        if rank + 1 < NODES as usize {
            report.expect_code(rank, 0);
        }
    }
}

/// Has a section of `operation` end behind each of its stores.
fn every_store(operation: &str) {
    /// Ranks from the last down to the third die.
    const NODES: u32 = 5;
    let mut from = 0;
    loop {
        let scenario = of("stores", NODES, LEASE).arg("operation", operation).arg("from", from);
        let report = scenario.start().finish();
        // Of who died with both locks whose homes were with it, no survivor knew that: that may be one of them.
        let facts = report.nodes.iter().flat_map(|node| &node.stdout);
        let told: BTreeSet<_> = facts.filter_map(|line| line.strip_prefix("recovered=")).collect();
        let deaths = NODES as usize - 2;
        assert!(
            told.len() + 1 >= deaths,
            "{told:?} of {deaths} were told to have died with a lock: {report}"
        );
        for rank in 0..2 {
            report.expect_code(rank, 0);
        }
        from += u64::from(NODES - 2);
        let stores = (2..NODES as usize).find_map(|rank| report.said(rank, "stores"));
        if let Some(stores) = stores {
            let stores: u64 = stores.parse().expect("a count");
            println!("{operation}: died behind each of {stores} stores");
            assert!(stores >= 3, "{operation} has stored so little: {report}");
            return;
        }
    }
}

#[test]
fn a_push_that_ends_behind_any_store_is_undone() {
    every_store("push");
}

#[test]
fn an_insertion_that_ends_behind_any_store_is_undone() {
    every_store("insert");
}

#[test]
fn a_removal_that_ends_behind_any_store_is_undone() {
    every_store("remove");
}

#[test]
fn two_nested_locks_are_undone_together_behind_any_store() {
    every_store("move");
}

#[test]
fn nodes_end_with_their_launcher() {
    let mut launcher =
        Command::new(WORKER).arg("launcher").stdout(Stdio::piped()).spawn().expect("it starts");
    let mut lines = BufReader::new(launcher.stdout.take().expect("piped")).lines().map_while(Result::ok);
    let (mut pids, mut working) = (Vec::new(), 0);
    while pids.len() < 3 || working < 3 {
        let line = lines.next().expect("its nodes work");
        pids.extend(line.strip_prefix("pid=").map(|pid| Path::new("/proc").join(pid)));
        working += usize::from(line == "at: working");
    }
    assert!(pids.iter().all(|pid| pid.exists()));
    launcher.kill().expect("it runs");
    launcher.wait().expect("it ends");
    // The pipe is at its end when all have ended that could write to it.
    let killed = Instant::now();
    assert_eq!(lines.find(|line| line.contains(TOLD)), None);
    assert!(killed.elapsed() < SLACK, "it took {:?}", killed.elapsed());
}
