//! The heap over ordinary memory.

use super::spans::testing::TestRegion;
use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

fn layout(size: usize, align: usize) -> Layout {
    Layout::from_size_align(size, align).unwrap()
}

#[derive(Clone, Debug)]
enum Step {
    Take { size: usize, align_shift: u32 },
    Free(usize),
    FreeGarbage(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let take = prop_oneof![0..300_usize, 0..70_000_usize]
        .prop_flat_map(|size| (0..14_u32).prop_map(move |align_shift| Step::Take { size, align_shift }));
    let step = prop_oneof![3 => take, 2 => any::<usize>().prop_map(Step::Free), 1 => any::<u64>().prop_map(Step::FreeGarbage)];
    prop::collection::vec(step, 1..120)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Blocks are aligned, lie in leased pages and never overlap; freeing all of them gives all large spans back, and
    /// keeps at most one slab per class.
    #[test]
    fn blocks_never_overlap(steps in steps()) {
        let region = TestRegion::new(2048);
        let heap = Heap::new();
        let mut live: BTreeMap<u64, usize> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Take { size, align_shift } => {
                    let layout = layout(size, 1 << align_shift);
                    let Ok(address) = heap.allocate(region, layout) else { continue };
                    prop_assert!(address.is_multiple_of(layout.align() as u64));
                    let page = region.geometry().page_of(Address(address));
                    prop_assert!(page.is_some_and(|page| region.find(page).unwrap().is_some()));
                    let below = live.range(..=address).next_back();
                    prop_assert!(below.is_none_or(|(start, length)| start + (*length as u64) <= address));
                    let above = live.range(address..).next();
                    prop_assert!(above.is_none_or(|(start, _)| address + size.max(1) as u64 <= *start));
                    live.insert(address, size.max(1));
                }
                Step::Free(nth) => {
                    if live.is_empty() { continue }
                    let address = *live.keys().nth(nth % live.len()).unwrap();
                    live.remove(&address);
                    prop_assert!(heap.ledger.lock().holds(address));
                    if let Some(first) = heap.release_from_peer(Address(address)) { region.give_back(first); }
                }
                Step::FreeGarbage(address) => {
                    if live.contains_key(&address) { continue }
                    let before = heap.garbage.load(Ordering::Relaxed);
                    prop_assert_eq!(heap.release_from_peer(Address(address)), None);
                    prop_assert_eq!(heap.garbage.load(Ordering::Relaxed), before + 1);
                }
            }
        }
        for address in live.into_keys() {
            if let Some(first) = heap.release_from_peer(Address(address)) { region.give_back(first); }
        }
        for first in heap.ledger.lock().reclaim() { region.give_back(first); }
        prop_assert_eq!(region.leased_pages(), 0);
    }
}

#[test]
fn a_freed_block_is_used_again_without_a_lease() {
    let region = TestRegion::new(64);
    let heap = Heap::new();
    let first = heap.allocate(region, layout(100, 8)).unwrap();
    let leased = region.leased_pages();
    for _ in 0..1000 {
        assert_eq!(heap.release(first), Released::Kept);
        assert_eq!(heap.allocate(region, layout(100, 8)).unwrap(), first);
    }
    assert_eq!(region.leased_pages(), leased);
}

#[test]
fn a_double_or_crooked_free_changes_nothing() {
    let region = TestRegion::new(64);
    let heap = Heap::new();
    let block = heap.allocate(region, layout(100, 8)).unwrap();
    let other = heap.allocate(region, layout(100, 8)).unwrap();
    assert_eq!(heap.release(block + 8), Released::NotTaken);
    assert_eq!(heap.release(block), Released::Kept);
    assert_eq!(heap.release(block), Released::NotTaken);
    assert_eq!(heap.release(u64::MAX), Released::Foreign);
    assert_eq!(heap.release(0), Released::Foreign);
    assert_eq!(heap.release(other), Released::Kept);
}

#[test]
fn exhaustion_names_the_sizes_and_loses_nothing() {
    let region = TestRegion::new(64);
    let heap = Heap::new();
    let big = layout(48 * 4096, 8);
    let block = heap.allocate(region, big).unwrap();
    match heap.allocate(region, big) {
        Err(Error::OutOfMemory { asked, free, largest }) => {
            assert_eq!((asked, free, largest), (48 * 4096, 16 * 4096, 16 * 4096));
        }
        other => panic!("expected OutOfMemory, not {other:?}"),
    }
    match heap.release(block) {
        Released::Emptied(first) => region.give_back(first),
        other => panic!("a large block's span goes back, not {other:?}"),
    }
    assert_eq!(heap.allocate(region, big).unwrap(), block);
}

#[test]
fn a_full_region_is_used_to_the_last_page_and_idle_slabs_come_back() {
    let region = TestRegion::new(64);
    let heap = Heap::new();
    let mut blocks = Vec::new();
    while let Ok(block) = heap.allocate(region, layout(1024, 8)) {
        blocks.push(block);
    }
    assert_eq!(blocks.len(), 64 * 4);
    for block in blocks {
        if let Released::Emptied(first) = heap.release(block) {
            region.give_back(first);
        }
    }
    assert!(region.leased_pages() > 0, "one slab stays with the heap");
    heap.allocate(region, layout(64 * 4096, 8))
        .expect("the idle slab is given back for a block that needs it");
}

#[test]
fn an_empty_block_of_wide_alignment_has_an_address_of_its_own() {
    let region = TestRegion::new(64);
    let heap = Heap::new();
    for shift in 13..16 {
        let address = heap.allocate(region, layout(0, 1 << shift)).unwrap();
        assert!(address.is_multiple_of(1 << shift) && heap.ledger.lock().holds(address));
        assert!(matches!(heap.release(address), Released::Emptied(_)));
    }
}
