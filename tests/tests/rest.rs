//! What a cluster of real nodes holds once it is at rest: not more than what is to survive takes.

use dsm_tests::scenario;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

/// Bytes in one of a file's blocks, as the kernel counts them.
const BLOCK: u64 = 512;

/// Between two looks at what is held: nobody tells when a node has given memory back.
const LOOK: Duration = Duration::from_millis(20);

/// What a node's region takes is its memory file's blocks.
fn held_by(pid: u32) -> u64 {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).expect("the node runs");
    let paths = descriptors.map(|descriptor| descriptor.expect("a descriptor").path());
    let is_region = |path: &std::path::PathBuf| {
        fs::read_link(path).is_ok_and(|target| target.to_string_lossy().contains("memfd:dsm-region"))
    };
    let region = paths.filter(is_region).map(|path| fs::metadata(path).expect("it is open").blocks());
    region.sum::<u64>() * BLOCK
}

/// Each page is held by its owner and as many others as there are replicas, give or take a tenth, wherever it was before.
#[test]
fn at_rest_no_more_is_held_than_has_to_survive() {
    const NODES: u32 = 4;
    const TOUCHED: u64 = NODES as u64 * 1024 * 4096;
    const REST_MAX: Duration = Duration::from_secs(10);
    for replicas in 1..=2_u64 {
        let mut running = scenario!("rest").nodes(NODES).env("DSM_REPLICAS", replicas.to_string()).start();
        for phase in 0..=NODES {
            running.await_all_at(&format!("rest {phase}"));
            let began = Instant::now();
            let held = loop {
                let held: u64 = (0..NODES).map(|rank| held_by(running.pid(rank))).sum();
                if held <= (replicas + 1) * TOUCHED * 11 / 10 || began.elapsed() > REST_MAX {
                    break held;
                }
                std::thread::sleep(LOOK);
            };
            println!("k = {replicas}, phase {phase}: {held} bytes after {:?}", began.elapsed());
            let least = (replicas + 1) * TOUCHED;
            assert!((least..=least * 11 / 10).contains(&held), "phase {phase}: {held}, not {least}");
            (0..NODES).for_each(|rank| running.go(rank));
        }
        running.finish().expect_success();
    }
}
