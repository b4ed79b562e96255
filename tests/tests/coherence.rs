//! What one node writes, the others read: atomics, plain words, and the memory model, on real nodes.

use dsm_node::launch::TransportKind;
use dsm_tests::scenario;
use std::time::Duration;

#[test]
fn atomics_of_all_nodes_and_threads_add_up() {
    for (nodes, threads) in [(1, 4), (2, 3), (3, 2), (4, 2), (8, 1)] {
        scenario!("fetch_add").nodes(nodes).arg("threads", threads).arg("count", 500).run();
    }
}

#[test]
fn plain_words_under_a_lock_never_differ() {
    for (nodes, transport) in [(2, TransportKind::Tcp), (4, TransportKind::Unix)] {
        let scenario = scenario!("mutex_plain").nodes(nodes).transport(transport);
        scenario.arg("threads", 2).arg("count", 200).run();
    }
}

#[test]
fn words_of_one_page_do_not_disturb_each_other() {
    scenario!("false_sharing").nodes(4).arg("threads", 2).arg("count", 1000).run();
}

#[test]
fn every_count_of_nodes_over_every_transport() {
    for transport in [TransportKind::Tcp, TransportKind::Unix] {
        for nodes in [1, 2, 3, 4, 8] {
            scenario!("mixed").nodes(nodes).transport(transport).arg("count", 60).run();
        }
    }
}

#[test]
fn every_page_size() {
    for page_size in [4 << 10, 64 << 10, 2 << 20] {
        scenario!("mixed").nodes(3).page_size(page_size).arg("count", 100).run();
        let pages = scenario!("fetch_add").nodes(2).page_size(page_size);
        pages.arg("threads", 2).arg("count", 200).run();
    }
}

#[test]
fn a_page_is_handed_over_ten_thousand_times() {
    // Each turn waits for two processes to be scheduled; beside other work that takes some milliseconds.
    scenario!("handoff").nodes(2).arg("turns", 10_000).budget(Duration::from_secs(180)).run();
}

#[test]
fn a_page_is_handed_over_on_every_transport_and_by_more_nodes_than_cores() {
    scenario!("handoff").nodes(2).transport(TransportKind::Unix).arg("turns", 2_000).run();
    // Those whose turn it is not spin, and so take the cores from the one whose turn it is.
    scenario!("handoff").nodes(3).arg("turns", 300).run();
}

#[test]
fn two_nodes_hammer_one_word() {
    scenario!("fetch_add").nodes(2).arg("threads", 1).arg("count", 10_000).run();
}

#[test]
fn more_nodes_than_cores_hammer_one_page() {
    scenario!("fetch_add").nodes(8).arg("threads", 1).arg("count", 2_000).run();
    scenario!("false_sharing").nodes(8).arg("threads", 1).arg("count", 2_000).run();
}

#[test]
fn an_instruction_that_needs_two_pages_retires() {
    for page_size in [4 << 10, 64 << 10] {
        for nodes in [2, 3] {
            let scenario = scenario!("straddle").nodes(nodes).page_size(page_size);
            scenario.arg("page", page_size).arg("count", 300).run().agreed("last");
        }
    }
}

#[test]
fn who_sees_the_flag_sees_the_data() {
    scenario!("message_passing").nodes(2).arg("count", 3_000).run();
    scenario!("message_passing").nodes(3).arg("count", 1_000).run();
}

#[test]
fn of_two_stores_one_is_seen() {
    scenario!("store_buffering").nodes(2).arg("count", 500).run();
}

#[test]
fn readers_agree_on_the_order_of_independent_stores() {
    scenario!("independent_reads").nodes(4).arg("count", 400).run();
}

#[test]
fn nobody_may_do_all_but_let_the_kernel_fault() {
    let scenario = |name| scenario!(name).nodes(2).unprivileged();
    scenario("mixed").arg("count", 100).run();
    scenario("fetch_add").arg("threads", 2).arg("count", 500).run();
    scenario("straddle").arg("page", 4096).arg("count", 100).run().agreed("last");
    scenario("mutex_plain").arg("threads", 2).arg("count", 100).run();
}
