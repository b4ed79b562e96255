//! Records whose pages come in pieces, on real nodes.

use dsm_tests::scenario;

/// What a buddy keeps after many small changes, among them whole pages and changes by others, is what was written last.
#[test]
fn what_came_in_pieces_is_whole_when_its_owner_dies() {
    for (nodes, replicas) in [(2, 1), (3, 1), (4, 2)] {
        let scenario = scenario!("patches").nodes(nodes).env("DSM_REPLICAS", replicas.to_string());
        let mut running = scenario.arg("sections", 2000).start();
        running.await_all_at("done");
        let number = |text: String| text.parse::<u64>().expect("a number");
        let written = running.await_fact(0, "sum");
        let patched = number(running.await_fact(0, "patched"));
        let committed = number(running.await_fact(0, "committed"));
        assert!(patched > committed / 4, "{patched} of {committed} pages came in pieces");
        running.kill(0);
        for rank in 1..nodes {
            running.go(rank);
            assert_eq!(running.await_fact(rank, "sum"), written, "rank {rank} of {nodes}");
            assert_eq!(running.await_fact(rank, "visits"), "20", "rank {rank} of {nodes}");
        }
        for rank in 1..nodes {
            running.await_at(rank, "looked");
        }
        (1..nodes).for_each(|rank| running.go(rank));
        let afterwards = running.await_fact(1, "sum afterwards");
        assert_ne!(afterwards, written);
        for rank in 2..nodes {
            assert_eq!(running.await_fact(rank, "sum afterwards"), afterwards, "rank {rank} of {nodes}");
        }
        let report = running.finish();
        (1..nodes as usize).for_each(|rank| report.expect_code(rank, 0));
    }
}
