//! Nodes that die and strangers that call, on real nodes.

use dsm_node::launch::TransportKind;
use dsm_tests::harness::ports::{self, Connection, Listener, Listening};
use dsm_tests::harness::{Report, Running, TOLD};
use dsm_tests::scenario;
use std::io::{ErrorKind, Write};
use std::time::{Duration, Instant};

/// What every survivor's call, and every fault, may take to learn of a death.
const NEWS_MAX: Duration = Duration::from_secs(5);

/// The exit code of a process that cannot have a page: `EX_SOFTWARE`.
const DOOMED: i32 = 70;

/// Nodes of the scenario `death`: a victim, and one survivor for each role.
const NODES: u32 = 6;

/// Runs the scenario `death` until all have ended. `is_lost` says whether the page is lost, so that whoever touches it ends.
fn die(victim: u32, page: &str, is_lost: bool, transport: TransportKind) {
    let scenario = scenario!("death").nodes(NODES).transport(transport).env("DSM_REPLICAS", "0");
    let mut running = scenario.arg("victim", victim).arg("page", page).start();
    running.await_all_at("ready");
    let listeners = listeners(&running);
    let survivors: Vec<u32> = (0..NODES).filter(|rank| *rank != victim).collect();
    let role_of: Vec<String> = survivors.iter().map(|rank| running.await_fact(*rank, "role")).collect();
    let rank_of = |role| survivors[role_of.iter().position(|it| it == role).expect("a role of one")];
    let (computing, touching) = (rank_of("compute"), rank_of("touch"));
    let busy: Vec<u32> = survivors.iter().copied().filter(|rank| *rank != computing).collect();
    // A frozen node answers nothing, so that the others are, or will be, waiting for it when it dies.
    running.freeze(victim);
    for rank in &busy {
        running.go(*rank);
        running.await_at(*rank, "busy");
    }
    running.kill(victim);
    let killed = Instant::now();
    for rank in busy.iter().filter(|rank| **rank != rank_of("barrier")) {
        running.await_told_or_end(*rank);
        assert!(killed.elapsed() < NEWS_MAX, "rank {rank} took {:?}", killed.elapsed());
    }
    let computed_from = Instant::now();
    running.go(computing);
    for rank in survivors.iter().filter(|rank| !(is_lost && **rank == touching)) {
        running.await_at(*rank, TOLD);
    }
    assert!(computed_from.elapsed() < NEWS_MAX);
    let report = running.finish();
    for rank in &survivors {
        let is_doomed = is_lost && *rank == touching;
        report.expect_code(*rank as usize, if is_doomed { DOOMED } else { 0 });
        if is_doomed {
            let owner = last_words(&report, *rank as usize);
            // Where the home died too, there may be nobody who knows whose it was.
            assert!(owner == Some(victim) || owner.is_none() && page != "owned", "{report}");
        }
    }
    check_nothing_left(&listeners);
}

/// Whether the node ended by a touch of a page because it did not reach a majority.
fn lacks_majority(report: &Report, rank: usize) -> bool {
    let told = |line: &String| line.contains("a touch of 0x") && line.contains("did not reach a majority");
    report.nodes[rank].stderr.iter().any(told)
}

/// One line names the page and, if it can, its last owner: which that is.
fn last_words(report: &Report, rank: usize) -> Option<u32> {
    let lines = report.nodes[rank].stderr.iter().filter(|line| line.contains("the page is lost"));
    let lines: Vec<_> = lines.collect();
    assert_eq!(lines.len(), 1, "{report}");
    assert!(lines[0].contains(" page 0x") && lines[0].contains(" view "), "{report}");
    let owner = lines[0].split_once(": rank ").and_then(|(_, rest)| rest.split_once(" owned it last"));
    assert!(owner.is_some() || lines[0].contains("no survivor knows who owned it last"), "{report}");
    owner.map(|(owner, _)| owner.parse().expect("a rank"))
}

fn listeners(running: &Running) -> Vec<Listener> {
    let of = |rank| ports::of_process(running.pid(rank)).expect("the node runs");
    (0..running.nodes()).flat_map(of).collect()
}

/// No socket and no shared memory outlives the nodes. (That no process does, the launcher has seen to: it reaped all.)
fn check_nothing_left(listeners: &[Listener]) {
    for listener in listeners {
        assert!(!listener.is_open().expect("/proc can be read"), "{listener:?} is still open");
    }
    let shared = std::fs::read_dir("/dev/shm").into_iter().flatten().flatten();
    let ours: Vec<_> =
        shared.map(|entry| entry.file_name()).filter(|name| name.to_string_lossy().contains("dsm")).collect();
    assert!(ours.is_empty(), "left in /dev/shm: {ours:?}");
}

#[test]
fn a_killed_owner_costs_what_it_alone_had() {
    die(3, "both", true, TransportKind::Tcp);
}

#[test]
fn a_killed_coordinator_is_replaced() {
    die(0, "owned", true, TransportKind::Tcp);
}

#[test]
fn a_killed_home_costs_no_page_of_others() {
    die(5, "homed", false, TransportKind::Unix);
}

#[test]
fn a_node_that_dies_at_work_leaves_nobody_waiting() {
    for victim in [0, 2] {
        let scenario = scenario!("death_while_computing").nodes(4).env("DSM_REPLICAS", "0");
        let mut running = scenario.arg("victim", victim).start();
        running.await_all_at("working");
        running.kill(victim);
        let killed = Instant::now();
        for rank in (0..4).filter(|rank| *rank != victim) {
            running.await_told_or_end(rank);
            assert!(killed.elapsed() < NEWS_MAX, "rank {rank} took {:?}", killed.elapsed());
        }
        let report = running.finish();
        let survivors = || (0..4_usize).filter(|rank| *rank != victim as usize);
        let doomed = survivors().filter(|rank| report.nodes[*rank].code == DOOMED).count();
        for rank in survivors() {
            // The page that it waited for may have gone with the victim, or with one that ended for that reason. When all
            // others have gone at once, the last has no majority, which a call or a touch may be the first to tell.
            match report.nodes[rank].code {
                0 => {}
                DOOMED if lacks_majority(&report, rank) => {
                    assert_eq!(doomed, survivors().count(), "{report}")
                }
                DOOMED => assert_ne!(last_words(&report, rank), u32::try_from(rank).ok(), "{report}"),
                code => {
                    assert_eq!((code, doomed), (1, survivors().count() - 1), "rank {rank}: {report}");
                    assert_eq!(report.fact(rank, "error kind"), "NoQuorum", "rank {rank}: {report}");
                }
            }
        }
    }
}

#[test]
fn strangers_do_not_disturb_the_cluster() {
    for transport in [TransportKind::Tcp, TransportKind::Unix] {
        let mut running = scenario!("steady").nodes(3).transport(transport).start();
        running.await_all_at("working");
        let listeners = listeners(&running);
        assert!(listeners.len() >= 3, "every node listens: {listeners:?}");
        for listener in &listeners {
            pester(&listener.at);
        }
        running.go(0);
        let report = running.finish();
        report.expect_success();
        let total: u64 = (0..3).map(|rank| report.number::<u64>(rank, "own")).sum();
        assert_eq!(report.agreed("total"), total.to_string(), "{report}");
        for rank in 0..3 {
            assert!(report.number::<u64>(rank, "refused") >= GARBAGE.len() as u64, "rank {rank}: {report}");
            assert_eq!(report.number::<u64>(rank, "reconnects"), 0, "{report}");
            // Many strangers, one line.
            let lines = report.nodes[rank].stderr.iter().filter(|line| line.contains("does not speak"));
            assert_eq!(lines.count(), 1, "{report}");
        }
    }
}

/// What strangers say: nothing that makes sense; the start of a handshake that claims to be huge; one that breaks off;
/// one whose checksum is wrong; a frame of the protocol with no handshake before it.
const GARBAGE: [&[u8]; 5] = [
    b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"DSMh\x01\x00\x01\x00\xff\xff\xff\xff\x00\x00\x00\x00",
    b"DSMh\x01\x00",
    b"DSMh\x01\x00\x01\x00\x04\x00\x00\x00\xde\xad\xbe\xefabcd",
    b"DSMf\x01\x00\x01\x00\x10\x00\x00\x00\x00\x10\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff",
];

/// Says everything of [`GARBAGE`], and nothing at all, and a lot of it, each on a connection of its own.
fn pester(name: &Listening) {
    let silent = name.call().expect("the node listens");
    for garbage in GARBAGE {
        let mut stranger = name.call().expect("the node listens");
        // The node may have heard enough before all is said.
        let _ = stranger.write_all(garbage);
        if garbage.len() > 6 {
            expect_hang_up(stranger);
        }
    }
    let mut long_winded = name.call().expect("the node listens");
    let noise: Vec<u8> =
        (0..1_u32 << 16).map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let _ = long_winded.write_all(&noise);
    expect_hang_up(long_winded);
    // Who says nothing is sent away as well, when the node's patience is over.
    expect_hang_up(silent);
}

/// The node may answer, but then it closes the connection.
fn expect_hang_up(mut stranger: Box<dyn Connection>) {
    let mut answer = Vec::new();
    match stranger.read_to_end(&mut answer) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}"),
    }
}
