//! The plain shared heap of this node: blocks in the region, in spans that no other node's heap has a part of.
//!
//! ```text
//! home --lease--> span (a run of pages) --cut--> blocks of one class     ledger: private memory
//! ```
//! Objects of two nodes never share a page, and the books never lie in the pages that they speak of. A thread holds
//! the heap's lock only while it reads and writes the books: never while it waits for the engine or touches the
//! region, because the engine takes the same lock when a block that was dropped elsewhere comes home. Domains have
//! arenas of their own: `sync` has those.

pub(crate) mod classes;
mod ledger;
pub(crate) mod spans;
#[cfg(test)]
mod tests;

use crate::error::{Error, Result};
use crate::node::Node;
use crate::sync::is_in_section;
use classes::Class;
use dsm_core::{Address, Command, PageId, SpanRange};
use ledger::{Ledger, Released};
use parking_lot::Mutex;
use spans::{Spans, asked_for, lease_up_to};
use std::alloc::Layout;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU64, Ordering};

/// A slab's length, where the page size and the region's segments allow it: many small blocks to a lease, and no
/// large part of a segment kept for one size of block.
const SLAB_BYTES: u64 = 64 << 10;

/// This process's heap. A process joins once, so there is one.
static HEAP: Heap = Heap::new();

/// Takes a block for `layout` from this node's heap. Waits for the engine when a span must be leased.
pub(crate) fn allocate(node: &Node, layout: Layout) -> Result<NonNull<u8>> {
    let address = HEAP.allocate(node, layout)?;
    NonNull::new(ptr::with_exposed_provenance_mut(address as usize))
        .ok_or_else(|| Error::Argument(String::from("the region begins at address zero")))
}

/// Frees the block at `address`, whichever node leased it. Does not wait.
///
/// While this thread holds a guard, the block stays taken until the section is replicated: were it used again before,
/// a crash that undoes the section would find something else there.
pub(crate) fn free(address: usize) {
    // After a leave the region is gone, and the block with it.
    let Ok(node) = Node::current() else { return };
    if node.replicas > 0 && is_in_section() {
        // The machine has it wait, and then tells the lessee: this node, too. As for blocks of others, below.
        let _ = node.post(Command::Free { address: Address(address as u64) });
        return;
    }
    match HEAP.release(address as u64) {
        Released::Kept => {}
        Released::Emptied(first) => node.give_back(first),
        Released::Foreign => {
            // This fails only when the engine has ended, and the region with it.
            let _ = node.post(Command::Free { address: Address(address as u64) });
        }
        Released::NotTaken => HEAP.count_garbage(),
    }
}

/// Frees the block at `address`, which another node dropped. For the engine: takes the heap's lock for a moment, and
/// waits for nothing else. An address that is no block of this heap is counted and ignored.
///
/// The returned span is wholly free now: the caller feeds `Command::SpanReturn` for it.
#[must_use]
pub(crate) fn free_local(address: Address) -> Option<PageId> {
    HEAP.release_from_peer(address)
}

/// Whether `address` lies in a span of this node's heap.
pub(crate) fn holds(address: usize) -> bool {
    HEAP.ledger.lock().holds(address as u64)
}

/// How many frees named an address that was no block of this heap.
pub(crate) fn garbage_frees() -> u64 {
    HEAP.garbage.load(Ordering::Relaxed)
}

/// The heap of one node.
struct Heap {
    ledger: Mutex<Ledger>,
    garbage: AtomicU64,
}

impl Heap {
    const fn new() -> Heap {
        Heap { ledger: Mutex::new(Ledger::new()), garbage: AtomicU64::new(0) }
    }

    fn allocate(&self, spans: &dyn Spans, layout: Layout) -> Result<u64> {
        match Class::in_pages_of(spans.geometry().page_size(), layout) {
            Some(class) => self.allocate_small(spans, class),
            None => self.allocate_large(spans, layout),
        }
        .map_err(|error| asked_for(error, layout.size()))
    }

    fn allocate_small(&self, spans: &dyn Spans, class: Class) -> Result<u64> {
        if let Some(address) = self.ledger.lock().take(class) {
            return Ok(address);
        }
        let geometry = spans.geometry();
        let needed = geometry.pages_for(class.size() as u64);
        let wanted = geometry.pages_for(SLAB_BYTES).min(geometry.segment_pages()).max(needed);
        let span = self.lease(spans, wanted, needed)?;
        Ok(self.ledger.lock().enter(geometry, span, class))
    }

    fn allocate_large(&self, spans: &dyn Spans, layout: Layout) -> Result<u64> {
        let geometry = spans.geometry();
        // A span begins at a page; an alignment beyond that needs room to move the block's start.
        let room = (layout.align() as u64).saturating_sub(geometry.page_size());
        // Even a block of no bytes has an address in the span.
        let bytes = (layout.size() as u64).max(1);
        let pages = geometry.pages_for(bytes.saturating_add(room));
        let span = self.lease(spans, pages, pages)?;
        Ok(self.ledger.lock().enter_large(geometry, span, layout.align() as u64))
    }

    /// Leases a span; when the region is full, gives this heap's idle spans back and asks once more.
    fn lease(&self, spans: &dyn Spans, wanted: u64, needed: u64) -> Result<SpanRange> {
        let denied = match lease_up_to(spans, wanted, needed, spans.plain_owner()) {
            Err(denied @ Error::OutOfMemory { .. }) => denied,
            leased => return leased,
        };
        let idle = self.ledger.lock().reclaim();
        if idle.is_empty() {
            return Err(denied);
        }
        for first in idle {
            spans.give_back(first);
        }
        spans.lease(needed, spans.plain_owner())
    }

    fn release(&self, address: u64) -> Released {
        self.ledger.lock().release(address)
    }

    fn release_from_peer(&self, address: Address) -> Option<PageId> {
        match self.release(address.0) {
            Released::Kept => None,
            Released::Emptied(first) => Some(first),
            Released::Foreign | Released::NotTaken => {
                self.count_garbage();
                None
            }
        }
    }

    fn count_garbage(&self) {
        self.garbage.fetch_add(1, Ordering::Relaxed);
    }
}
