//! Memory in bulk, the kernel as the one that touches it, names, and page tables as the oracle, on real nodes.

use dsm_node::launch::TransportKind;
use dsm_tests::harness::Report;
use dsm_tests::scenario;
use std::collections::BTreeMap;

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
            check_pages(&report, round);
        }
    }
}

/// What the directory says of one page: its owner, and its readers.
type Holders = (Option<usize>, Vec<usize>);

/// One writer xor readers, and every home knows them.
fn check_pages(report: &Report, round: u64) {
    let access: Vec<&[u8]> = (0..report.nodes.len())
        .map(|rank| report.fact(rank, &format!("access {round}")).as_bytes())
        .collect();
    let mut directory = BTreeMap::new();
    for rank in 0..report.nodes.len() {
        read_directory(report.fact(rank, &format!("directory {round}")), &mut directory);
    }
    let mut touched = 0;
    for page in 0..access[0].len() {
        let letters: Vec<u8> = access.iter().map(|node| node[page]).collect();
        let with =
            |letter| letters.iter().enumerate().filter(move |(_, one)| **one == letter).map(|(rank, _)| rank);
        let (writers, readers): (Vec<usize>, Vec<usize>) = (with(b'w').collect(), with(b'r').collect());
        assert!(writers.len() <= 1, "round {round}, page {page}: {writers:?} write");
        assert!(writers.is_empty() || readers.is_empty(), "round {round}, page {page}: {letters:?}");
        let Some((owner, copies)) = directory.get(&page) else {
            assert!(
                writers.is_empty() && readers.is_empty(),
                "round {round}: page {page} is in no directory"
            );
            continue;
        };
        touched += 1;
        let mut holders: Vec<usize> = copies.iter().copied().chain(*owner).collect();
        holders.sort_unstable();
        let mut found: Vec<usize> = writers.iter().copied().chain(readers).collect();
        found.sort_unstable();
        assert_eq!(holders, found, "round {round}, page {page}: directory {owner:?} {copies:?}");
        assert!(writers.is_empty() || writers == owner.iter().copied().collect::<Vec<_>>(), "page {page}");
    }
    assert!(touched > 0, "the nodes touched pages: {report}");
}

fn read_directory(text: &str, directory: &mut BTreeMap<usize, Holders>) {
    for entry in text.split_whitespace() {
        let parts: Vec<&str> = entry.split(':').collect();
        let readers = parts[2].split(',').filter(|reader| !reader.is_empty());
        let readers = readers.map(|reader| reader.parse().expect("a rank")).collect();
        let before = directory.insert(parts[0].parse().expect("a page"), (parts[1].parse().ok(), readers));
        assert!(before.is_none(), "page {} has two homes", parts[0]);
    }
}
