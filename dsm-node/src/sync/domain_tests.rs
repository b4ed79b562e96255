//! Domains and their arenas over ordinary memory.

use super::*;
use crate::heap::spans::testing::TestRegion;
use proptest::prelude::*;
use std::collections::BTreeMap;

const PAGE: u64 = dsm_core::limits::PAGE_SIZE_MIN;

fn layout(size: usize, align: usize) -> Layout {
    Layout::from_size_align(size, align).unwrap()
}

fn take(domain: Domain, layout: Layout) -> Result<NonNull<u8>> {
    // SAFETY: the test made the domain and is its only user.
    unsafe { domain.allocate(layout) }
}

fn give(domain: Domain, block: NonNull<u8>, layout: Layout) {
    // SAFETY: as above; the tests give each block once, with the layout that it was taken with.
    unsafe { domain.release(block, layout) }
}

fn dissolve(domain: Domain) {
    // SAFETY: as above; the tests' values need no drop, and no test uses the domain after this.
    unsafe { domain.dissolve() }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Blocks are aligned, lie in the domain, and overlap neither each other nor the value, whatever is written to
    /// them; the bookkeeping survives all that, and dissolving gives every page back.
    #[test]
    fn blocks_are_the_callers_alone(
        steps in prop::collection::vec(
            (prop_oneof![4 => 1..600_usize, 1 => 1..40_000_usize], 0..13_u32, any::<prop::sample::Index>(), any::<bool>()),
            1..200,
        )
    ) {
        let region = TestRegion::new(4096);
        let domain = Domain::create(region, 3, [0x5a_u8; 100]).unwrap();
        let mut live: BTreeMap<usize, (Layout, u8)> = BTreeMap::new();
        let mut stamp = 0_u8;
        for (size, align, nth, frees) in steps {
            if frees && !live.is_empty() {
                let address = *live.keys().nth(nth.index(live.len())).unwrap();
                let (layout, stamp) = live.remove(&address).unwrap();
                let block = NonNull::new(ptr::with_exposed_provenance_mut::<u8>(address)).unwrap();
                // SAFETY: the block is live and `layout` long.
                let bytes = unsafe { std::slice::from_raw_parts(block.as_ptr(), layout.size()) };
                prop_assert!(bytes.iter().all(|byte| *byte == stamp));
                give(domain, block, layout);
                continue;
            }
            let layout = layout(size, 1 << align);
            let block = take(domain, layout).unwrap();
            prop_assert!(block.as_ptr().addr().is_multiple_of(layout.align()));
            // SAFETY: the test is the domain's only user; the block is live and `layout` long.
            unsafe {
                prop_assert!(domain.contains(block.as_ptr().addr()));
                prop_assert!(domain.contains(block.as_ptr().addr() + size - 1));
                stamp = stamp.wrapping_add(1);
                block.write_bytes(stamp, size);
            }
            live.insert(block.as_ptr().expose_provenance(), (layout, stamp));
        }
        // SAFETY: the domain's value is this array, and nobody changes it.
        prop_assert_eq!(unsafe { domain.value::<[u8; 100]>().read() }, [0x5a_u8; 100]);
        dissolve(domain);
        prop_assert_eq!(region.leased_pages(), 0);
    }
}

#[test]
fn a_freed_block_is_used_again() {
    let region = TestRegion::new(64);
    let domain = Domain::create(region, 0, 0_u64).unwrap();
    let first = take(domain, layout(48, 8)).unwrap();
    let second = take(domain, layout(48, 8)).unwrap();
    give(domain, first, layout(48, 8));
    give(domain, second, layout(48, 8));
    assert_eq!(take(domain, layout(48, 8)).unwrap(), second);
    assert_eq!(take(domain, layout(40, 8)).unwrap(), first);
}

#[test]
fn spans_grow_and_tables_chain() {
    let region = TestRegion::new(64 * 1024);
    let domain = Domain::create(region, 0, 0_u64).unwrap();
    let large = layout(100_000, 8);
    let blocks: Vec<NonNull<u8>> = (0..100).map(|_| take(domain, large).unwrap()).collect();
    // SAFETY: the test is the domain's only user.
    assert!(blocks.iter().all(|block| unsafe { domain.contains(block.as_ptr().addr()) }));
    let leased = region.leased_pages();
    for block in &blocks {
        give(domain, *block, large);
    }
    assert_eq!(region.leased_pages(), leased - 100 * 100_000_u64.div_ceil(PAGE));
    // SAFETY: as above.
    assert!(blocks.iter().all(|block| unsafe { !domain.contains(block.as_ptr().addr()) }));
    while take(domain, layout(1000, 8)).is_ok() {}
    dissolve(domain);
    assert_eq!(region.leased_pages(), 0);
}

#[test]
fn exhaustion_names_the_bytes_asked_for_and_loses_nothing() {
    let region = TestRegion::new(64);
    let domain = Domain::create(region, 0, 0_u64).unwrap();
    let mut blocks = Vec::new();
    let full = loop {
        match take(domain, layout(500, 8)) {
            Ok(block) => blocks.push(block),
            Err(error) => break error,
        }
    };
    match full {
        Error::OutOfMemory { asked, free, largest } => assert_eq!((asked, free, largest), (500, 0, 0)),
        other => panic!("expected OutOfMemory, not {other:?}"),
    }
    assert!(blocks.len() > 63 * 7, "{} blocks of 512 bytes in 63 pages", blocks.len());
    let last = blocks.pop().unwrap();
    give(domain, last, layout(500, 8));
    assert_eq!(take(domain, layout(500, 8)).unwrap(), last);
}

#[test]
fn no_two_domains_have_one_serial_even_at_one_address() {
    let region = TestRegion::new(64);
    let first = Domain::create(region, 1, 0_u64).unwrap();
    // SAFETY: the test made the domain.
    let (base, serial) = (first.base(), unsafe { first.serial() });
    dissolve(first);
    let second = Domain::create(region, 1, 0_u64).unwrap();
    assert_eq!(second.base(), base);
    // SAFETY: as above.
    assert_ne!(unsafe { second.serial() }, serial);
}

#[test]
fn a_value_that_is_aligned_to_more_than_a_page_is_refused() {
    #[repr(C, align(8192))]
    struct Wide(u8);
    let refused = Domain::create(TestRegion::new(64), 0, Wide(1)).map(|_| ());
    assert!(matches!(refused, Err(Error::Argument(_))), "{refused:?}");
}
