//! What a cluster holds once it is at rest.

use super::{Arguments, Outcome, Scenario, at, await_go};
use dsm_node::{Dsm, DsmBox, DsmRef, Error, Shared};
use std::sync::atomic::{AtomicU64, Ordering};

pub(super) const SCENARIOS: &[(&str, Scenario)] = &[("rest", rest)];

/// Pages that each node allocates: four mebibytes of the smallest.
const PAGES: usize = 1024;

/// One page of the smallest size.
#[derive(Shared)]
#[repr(C, align(4096))]
struct Page {
    words: [AtomicU64; 512],
}

/// The pages of one node.
#[derive(Shared)]
#[repr(C)]
struct Pages {
    pages: [DsmRef<Page>; PAGES],
}

/// Stores to all pages of its own; then, in as many phases as there are nodes, to those of the next node, and so on: in the
/// end to its own again. Before that everybody reads everything in each phase, and after it rests until it is told to go on.
fn rest(_: &Arguments) -> Outcome {
    at("join");
    let dsm = Dsm::join()?;
    let name = |rank: u32| format!("pages {rank}");
    let mut mine = Vec::with_capacity(PAGES);
    for _ in 0..PAGES {
        let page = Page { words: [const { AtomicU64::new(0) }; 512] };
        mine.push(DsmBox::leak(dsm.alloc(page)?));
    }
    dsm.root(&name(dsm.rank()), |_| Ok(Pages { pages: std::array::from_fn(|page| mine[page]) }))?;
    dsm.barrier()?;
    for phase in 0..=dsm.size() {
        for whose in 0..dsm.size() {
            let theirs = dsm.root(&name(whose), |_| Err::<Pages, _>(Error::NotJoined))?;
            let sum: u64 = theirs.pages.iter().map(|page| page.words[0].load(Ordering::Relaxed)).sum();
            assert_eq!(
                sum,
                u64::from(phase) * PAGES as u64,
                "before phase {phase}, at the pages of rank {whose}"
            );
        }
        dsm.barrier()?;
        let whose = (dsm.rank() + phase) % dsm.size();
        let theirs = dsm.root(&name(whose), |_| Err::<Pages, _>(Error::NotJoined))?;
        for page in &theirs.pages {
            page.words[0].fetch_add(1, Ordering::Relaxed);
        }
        dsm.sync()?;
        dsm.barrier()?;
        at(format_args!("rest {phase}"));
        await_go();
    }
    at("leave");
    dsm.leave()
}
