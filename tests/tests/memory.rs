//! Memory in bulk, the kernel as the one that touches it, names, and page tables as the oracle, on real nodes.

use dsm_node::launch::TransportKind;
use dsm_tests::scenario;

#[test]
fn sixty_four_mebibytes_are_read_as_they_were_written() {
    for (page_size, nodes, transport) in [
        (4 << 10, 2, TransportKind::Tcp),
        (64 << 10, 3, TransportKind::Unix),
        (2 << 20, 4, TransportKind::Tcp),
    ] {
        let report = scenario!("scan").nodes(nodes).transport(transport).page_size(page_size).run();
        // Every page but those that it wrote itself came from a peer.
        let least = (64 << 20) / page_size;
        for rank in 1..nodes as usize {
            assert!(report.number::<u64>(rank, "pages received") >= least, "{report}");
        }
    }
}

#[test]
fn the_kernel_reads_and_writes_pages_of_other_nodes() {
    if nix::unistd::geteuid().is_root() {
        scenario!("system_calls").nodes(2).run();
        scenario!("system_calls").nodes(2).page_size(64 << 10).transport(TransportKind::Unix).run();
    }
}

#[test]
fn without_privileges_the_kernel_refuses_pages_of_other_nodes() {
    let report = scenario!("system_calls").nodes(2).unprivileged().run();
    assert_eq!(report.fact(1, "errno"), "EFAULT: Bad address");
}

#[test]
fn names_mean_the_same_object_everywhere() {
    const NAMES: u64 = 50;
    let report = scenario!("roots").nodes(4).arg("count", NAMES).run();
    report.agreed("addresses");
    let created: u64 = (0..4).map(|rank| report.number::<u64>(rank, "created")).sum();
    assert_eq!(created, NAMES, "{report}");
}

#[test]
fn who_fails_to_create_passes_the_duty_on() {
    scenario!("failing_roots").nodes(4).run();
}

#[test]
fn a_process_joins_once() {
    scenario!("already_joined").nodes(1).run();
    scenario!("already_joined").nodes(2).run();
}

#[test]
fn one_thread_of_a_node_is_in_the_barrier() {
    for _ in 0..5 {
        scenario!("busy").nodes(2).run();
    }
}

#[test]
fn a_full_region_refuses_and_loses_nothing() {
    for nodes in [1, 2, 4] {
        let report = scenario!("exhaust").nodes(nodes).region_size(16 << 20).run();
        // A heap keeps one empty span for what comes next, which the others miss.
        const SPAN_BLOCKS: u64 = (64 << 10) / 3200;
        let blocks = |rank| report.number::<u64>(rank, "blocks");
        for rank in 1..nodes as usize {
            assert!(blocks(rank) + SPAN_BLOCKS * rank as u64 >= blocks(0), "{report}");
        }
        // Most of the region is the heap's: a block has 3,200 bytes.
        assert!(report.number::<u64>(0, "blocks") * 3200 > 12 << 20, "{report}");
    }
}

#[test]
fn a_touch_after_leave_ends_with_a_line() {
    let report = scenario!("after_leave").start().finish();
    report.expect_code(0, 70);
    let complaint = report.only_complaint(0);
    assert!(complaint.contains(report.fact(0, "address")) && complaint.contains("left"), "{report}");
}

#[test]
fn page_tables_equal_protocol_state_and_the_nodes_agree() {
    const ROUNDS: u64 = 4;
    for (nodes, page_size) in [(2, 4 << 10), (4, 4 << 10), (3, 64 << 10), (2, 2 << 20)] {
        let scenario = scenario!("oracle").nodes(nodes).page_size(page_size).region_size(256 << 20);
        let report = scenario.arg("rounds", ROUNDS).arg("count", 300).run();
        let own: u64 = (0..nodes as usize).map(|rank| report.number::<u64>(rank, "own")).sum();
        assert_eq!(report.agreed("sum"), own.to_string(), "{report}");
        for round in 0..ROUNDS {
            report.check_pages(round);
        }
    }
}
