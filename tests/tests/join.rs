//! Joins that cannot be: each ends with an error that names the reason, in bounded time, and disturbs nobody.

use dsm_node::launch::TransportKind;
use dsm_tests::harness::{Report, Scenario};
use dsm_tests::scenario;
use std::time::{Duration, Instant};

/// A join with its time-out set short, for those that run into it.
const PATIENCE: Duration = Duration::from_secs(1);

/// What a join may take beyond its time-out.
const SLACK: Duration = Duration::from_secs(4);

fn join() -> Scenario {
    scenario!("join").env("DSM_JOIN_TIMEOUT", format!("{}s", PATIENCE.as_secs()))
}

/// All nodes fail with an error of this kind that has all these words.
fn expect_failure(report: &Report, kind: &str, words: &[&str]) {
    for rank in 0..report.nodes.len() {
        report.expect_code(rank, 1);
        assert_eq!(report.fact(rank, "error kind"), kind, "rank {rank}: {report}");
        let error = report.fact(rank, "error");
        assert!(
            words.iter().all(|word| error.contains(word)),
            "rank {rank} does not say {words:?}: {report}"
        );
    }
}

#[test]
fn both_sides_name_what_they_disagree_on() {
    for (variable, other, what, values) in [
        ("DSM_PAGE_SIZE", "65536", "page size", ["4096", "65536"]),
        ("DSM_REGION_SIZE", "1073741824", "region size", ["68719476736", "1073741824"]),
        ("DSM_REGION_BASE", "0x300000000000", "region base", ["0x200000000000", "0x300000000000"]),
        ("DSM_NODES", "3", "number of nodes", ["2", "3"]),
    ] {
        let start = Instant::now();
        let report = join().nodes(2).env_of(1, variable, other).start().finish();
        expect_failure(&report, "Mismatch", &[what, values[0], values[1]]);
        assert!(start.elapsed() < PATIENCE + SLACK, "{report}");
    }
}

#[test]
fn both_sides_name_the_type_whose_layouts_differ() {
    for stranger in [0, 1] {
        let (worker, other) = (env!("CARGO_BIN_EXE_worker"), env!("CARGO_BIN_EXE_stranger"));
        let scenario = Scenario::with_other_program(worker, other, stranger, "join").nodes(2);
        let report = scenario.start().finish();
        for rank in 0..2 {
            report.expect_code(rank, 1);
            let error = report.fact(rank, "error");
            assert!(error.contains("\"Guarded\" has layout"), "rank {rank}: {report}");
        }
        assert_eq!(report.fact(1 - stranger as usize, "error kind"), "LayoutMismatch", "{report}");
    }
}

#[test]
fn a_rank_that_does_not_exist_is_refused() {
    let report = join().nodes(2).env_of(1, "DSM_RANK", "2").start().finish();
    report.expect_code(1, 1);
    assert_eq!(report.fact(1, "error kind"), "Config", "{report}");
    assert!(report.fact(1, "error").contains('2'), "{report}");
}

#[test]
fn a_rendezvous_that_nobody_answers_is_named() {
    for (transport, address) in
        [(TransportKind::Tcp, "127.0.0.1:1"), (TransportKind::Unix, "unix:dsm-test-nobody-is-here")]
    {
        let start = Instant::now();
        let report = join().transport(transport).as_late_comer(1, 2, address).start().finish();
        expect_failure(&report, "Rendezvous", &[address]);
        assert!(start.elapsed() < PATIENCE + SLACK, "{report}");
    }
}

#[test]
fn ranks_that_do_not_come_are_named() {
    let start = Instant::now();
    let report = join().nodes(2).env("DSM_NODES", "4").start().finish();
    expect_failure(&report, "Rendezvous", &["2, 3"]);
    assert!(start.elapsed() < PATIENCE + SLACK, "{report}");
}

#[test]
fn a_taken_rank_is_refused_and_nobody_is_disturbed() {
    for transport in [TransportKind::Tcp, TransportKind::Unix] {
        let mut running = scenario!("steady").nodes(2).transport(transport).start();
        running.await_all_at("working");
        let address = running.variable(0, "DSM_RENDEZVOUS");
        let late = || join().transport(transport).as_late_comer(1, 2, &address);
        expect_failure(&late().start().finish(), "Refused", &["taken", &address]);
        let other = late().page_size(64 << 10).start().finish();
        expect_failure(&other, "Mismatch", &["page size", "4096", "65536"]);
        running.go(0);
        let report = running.finish();
        report.expect_success();
        let total: u64 = (0..2).map(|rank| report.number::<u64>(rank, "own")).sum();
        assert_eq!(report.agreed("total"), total.to_string(), "{report}");
        assert!(report.number::<u64>(0, "refused") >= 2, "{report}");
    }
}

#[test]
fn what_the_kernel_does_not_permit_is_named_with_its_fix() {
    for nodes in [1, 2] {
        let report = scenario!("join_forbidden").nodes(nodes).start().finish();
        expect_failure(&report, "Unsupported", &["userfaultfd", "dsm doctor"]);
    }
}
