//! Real nodes over a network that delays, splits, breaks, forgets and repeats, by seed. Many more seeds are run by the
//! command `nemesis`; here, as many as a test may take.

use dsm_node::launch::TransportKind;
use dsm_tests::nemesis::{self, Counts, Shape};
use dsm_tests::scenario;
use std::collections::BTreeSet;

const WORKER: &str = env!("CARGO_BIN_EXE_worker");

#[test]
fn seeds_lose_double_and_tear_nothing() {
    const SEEDS: u64 = 12;
    let mut total = Counts::default();
    for seed in 0..SEEDS {
        total.add(&nemesis::run(WORKER, seed, None));
    }
    println!("{total}");
    assert_eq!(total.missing(), Vec::<&str>::new(), "these never came up:\n{total}");
}

#[test]
fn a_frame_with_a_page_breaks_at_every_byte() {
    const PAGE: u64 = 4096;
    /// Heads grow a little as transactions are counted, so that a byte may be in a head twice.
    const HEAD_GROWTH_MAX: u64 = 8;
    for (transport, replicas) in [(TransportKind::Tcp, 0), (TransportKind::Unix, 0), (TransportKind::Unix, 1)]
    {
        let counts = nemesis::run_aimed(WORKER, 1, transport, replicas);
        println!("{counts}");
        assert!(counts.of("resets_in_page") >= PAGE - HEAD_GROWTH_MAX, "{counts}");
    }
}

#[test]
fn nodes_that_leave_hear_so_though_the_connection_breaks() {
    for transport in [TransportKind::Tcp, TransportKind::Unix] {
        for nodes in [2, 4] {
            scenario!("nemesis_leave").nodes(nodes).transport(transport).run();
        }
    }
}

#[test]
fn seeds_make_all_sorts_of_clusters() {
    let shapes: BTreeSet<String> = (0..60).map(|seed| format!("{:?}", Shape::of(seed, None))).collect();
    assert_eq!(shapes.len(), 2 * 3 * 2, "{shapes:?}");
}
