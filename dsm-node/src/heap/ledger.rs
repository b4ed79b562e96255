//! The plain heap's books: which spans it has, how they are cut into blocks, and which blocks are taken.
//!
//! The books lie in this process's private memory and are never in the pages that they speak of: to free a block
//! touches no shared page. The ledger only counts; it neither leases nor returns, and touches no block.

use super::classes::{CLASSES, Class};
use dsm_core::{Geometry, PageId, SpanRange};
use std::collections::{BTreeMap, BTreeSet};

/// Bits in a word of a slab's map.
const WORD: usize = u64::BITS as usize;

/// A span, cut into blocks of one size.
#[derive(Debug)]
struct Slab {
    first: PageId,
    /// Where the first block begins.
    start: u64,
    block: u64,
    count: usize,
    used: usize,
    /// One bit per block: whether it is taken.
    taken: Vec<u64>,
    /// `None`: one large block.
    class: Option<Class>,
}

/// What became of a block that was released.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Released {
    /// Its span stays with this heap.
    Kept,
    /// Its span is wholly free and no longer this heap's: it is to be given back.
    Emptied(PageId),
    /// The address is in none of this heap's spans.
    Foreign,
    /// The address is in one of this heap's spans, but no taken block begins there.
    NotTaken,
}

/// The books of one heap.
#[derive(Debug)]
pub(crate) struct Ledger {
    /// By the address where the span begins.
    slabs: BTreeMap<u64, Slab>,
    /// For each class, the slabs that have a free block.
    roomy: [BTreeSet<u64>; CLASSES],
}

impl Ledger {
    pub(crate) const fn new() -> Ledger {
        Ledger { slabs: BTreeMap::new(), roomy: [const { BTreeSet::new() }; CLASSES] }
    }

    /// Takes a block of `class`, the lowest that is free; `None` if all are taken.
    pub(crate) fn take(&mut self, class: Class) -> Option<u64> {
        let roomy = &mut self.roomy[class.index()];
        let base = *roomy.first()?;
        let slab = self.slabs.get_mut(&base)?;
        let block = slab.take();
        if slab.used == slab.count {
            roomy.remove(&base);
        }
        block
    }

    /// Enters a span, cut into blocks of `class`, and takes its first block.
    pub(crate) fn enter(&mut self, geometry: &Geometry, span: SpanRange, class: Class) -> u64 {
        let base = geometry.address_of(span.first).0;
        let block = class.size() as u64;
        let count = (span.pages * geometry.page_size() / block) as usize;
        assert!(count > 0, "a span of {} pages holds no block of {block} bytes", span.pages);
        let mut taken = vec![0; count.div_ceil(WORD)];
        taken[0] = 1;
        if count > 1 {
            self.roomy[class.index()].insert(base);
        }
        let slab = Slab { first: span.first, start: base, block, count, used: 1, taken, class: Some(class) };
        self.slabs.insert(base, slab);
        base
    }

    /// Enters a span that is one block, beginning at the span's first multiple of `align`.
    pub(crate) fn enter_large(&mut self, geometry: &Geometry, span: SpanRange, align: u64) -> u64 {
        let base = geometry.address_of(span.first).0;
        let start = base.next_multiple_of(align);
        let block = span.pages * geometry.page_size() - (start - base);
        let slab = Slab { first: span.first, start, block, count: 1, used: 1, taken: vec![1], class: None };
        self.slabs.insert(base, slab);
        start
    }

    /// Whether `address` lies in one of this heap's spans.
    pub(crate) fn holds(&self, address: u64) -> bool {
        self.slab_of(address).is_some()
    }

    /// Frees the block that begins at `address`. Any address will do: one that is no taken block changes nothing.
    pub(crate) fn release(&mut self, address: u64) -> Released {
        let Some(base) = self.slab_of(address) else { return Released::Foreign };
        let Some(slab) = self.slabs.get_mut(&base) else { return Released::Foreign };
        if !slab.release(address) {
            return Released::NotTaken;
        }
        let (empty, first, class) = (slab.used == 0, slab.first, slab.class);
        let Some(class) = class else {
            self.slabs.remove(&base);
            return Released::Emptied(first);
        };
        let roomy = &mut self.roomy[class.index()];
        roomy.insert(base);
        // One slab of each class stays, so that a program that takes and frees one block in turn leases once.
        if empty && roomy.len() > 1 {
            roomy.remove(&base);
            self.slabs.remove(&base);
            return Released::Emptied(first);
        }
        Released::Kept
    }

    /// Gives up every span that has no taken block. The caller gives them back.
    pub(crate) fn reclaim(&mut self) -> Vec<PageId> {
        let idle: Vec<u64> =
            self.slabs.iter().filter(|(_, slab)| slab.used == 0).map(|(base, _)| *base).collect();
        idle.iter()
            .filter_map(|base| {
                let slab = self.slabs.remove(base)?;
                if let Some(class) = slab.class {
                    self.roomy[class.index()].remove(base);
                }
                Some(slab.first)
            })
            .collect()
    }

    fn slab_of(&self, address: u64) -> Option<u64> {
        let (base, slab) = self.slabs.range(..=address).next_back()?;
        (address < slab.start + slab.block * slab.count as u64).then_some(*base)
    }
}

impl Slab {
    fn take(&mut self) -> Option<u64> {
        let (word, bits) = self.taken.iter_mut().enumerate().find(|(_, bits)| **bits != u64::MAX)?;
        let bit = bits.trailing_ones() as usize;
        let index = word * WORD + bit;
        if index >= self.count {
            return None;
        }
        *bits |= 1 << bit;
        self.used += 1;
        Some(self.start + index as u64 * self.block)
    }

    fn release(&mut self, address: u64) -> bool {
        let Some(offset) = address.checked_sub(self.start) else { return false };
        if !offset.is_multiple_of(self.block) {
            return false;
        }
        let index = (offset / self.block) as usize;
        let (word, mask) = (index / WORD, 1_u64 << (index % WORD));
        if self.taken[word] & mask == 0 {
            return false;
        }
        self.taken[word] &= !mask;
        self.used -= 1;
        true
    }
}
