//! Where runs of pages come from: the homes of the region, behind a trait, so that heap, arena and list run over
//! ordinary memory in tests.

use crate::error::{Error, Result};
use crate::node::Node;
use dsm_core::{Command, Geometry, PageId, Reply, SpanOwner, SpanRange};

/// A source of runs of pages.
pub(crate) trait Spans: Sync {
    /// The region's shape.
    fn geometry(&self) -> &Geometry;

    /// This node's plain heap, as an owner of spans.
    fn plain_owner(&self) -> SpanOwner;

    /// Leases `pages` pages in a row. Waits for the engine, and maybe for other nodes.
    fn lease(&self, pages: u64, owner: SpanOwner) -> Result<SpanRange>;

    /// Gives a leased run back. Does not wait.
    fn give_back(&self, first: PageId);

    /// Finds the leased run that holds `page`. Waits for the engine, and maybe for another node.
    fn find(&self, page: PageId) -> Result<Option<SpanRange>>;
}

impl Spans for Node {
    fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    fn plain_owner(&self) -> SpanOwner {
        SpanOwner::Node(self.rank)
    }

    fn lease(&self, pages: u64, owner: SpanOwner) -> Result<SpanRange> {
        match self.call(Command::SpanLease { pages, owner })? {
            Reply::Span(span) => Ok(span),
            Reply::SpanDenied { free, largest } => {
                let page_size = self.geometry.page_size();
                Err(Error::OutOfMemory {
                    asked: pages.saturating_mul(page_size),
                    free: free.saturating_mul(page_size),
                    largest: largest.saturating_mul(page_size),
                })
            }
            other => Err(Error::unexpected("a lease of pages", other)),
        }
    }

    fn give_back(&self, first: PageId) {
        // This fails only when the engine has ended, and the region with it: nothing is left to give back to.
        let _ = self.post(Command::SpanReturn { first });
    }

    fn find(&self, page: PageId) -> Result<Option<SpanRange>> {
        match self.call(Command::SpanFind { page })? {
            Reply::SpanFound(span) => Ok(span),
            other => Err(Error::unexpected("a search for a span", other)),
        }
    }
}

/// Leases `wanted` pages, or, where the region is too full for that, `needed`.
pub(crate) fn lease_up_to(
    spans: &dyn Spans,
    wanted: u64,
    needed: u64,
    owner: SpanOwner,
) -> Result<SpanRange> {
    match spans.lease(wanted, owner) {
        Err(Error::OutOfMemory { .. }) if needed < wanted => spans.lease(needed, owner),
        leased => leased,
    }
}

/// Names the bytes that the user asked for in place of the pages that were asked of the homes.
pub(crate) fn asked_for(error: Error, bytes: usize) -> Error {
    match error {
        Error::OutOfMemory { free, largest, .. } => Error::OutOfMemory { asked: bytes as u64, free, largest },
        other => other,
    }
}

#[cfg(test)]
pub(crate) mod testing {
    //! A region in ordinary memory, whose pages are leased by a list in the same process.

    use super::*;
    use dsm_core::NodeId;
    use parking_lot::Mutex;
    use std::alloc::{Layout, alloc_zeroed};
    use std::collections::BTreeMap;

    /// The ordinary memory. It is never freed, as a region is not.
    pub(crate) struct TestRegion {
        geometry: Geometry,
        leased: Mutex<BTreeMap<u64, SpanRange>>,
    }

    impl TestRegion {
        /// A region of `pages` pages of the smallest size.
        pub(crate) fn new(pages: u64) -> &'static TestRegion {
            let page_size = dsm_core::limits::PAGE_SIZE_MIN;
            let layout = Layout::from_size_align((pages * page_size) as usize, page_size as usize).unwrap();
            // SAFETY: the layout's size is not zero: every test asks for pages.
            let base = unsafe { alloc_zeroed(layout) };
            assert!(!base.is_null());
            let geometry =
                Geometry::new(base.expose_provenance() as u64, pages * page_size, page_size).unwrap();
            Box::leak(Box::new(TestRegion { geometry, leased: Mutex::new(BTreeMap::new()) }))
        }

        /// How many pages are leased.
        pub(crate) fn leased_pages(&self) -> u64 {
            self.leased.lock().values().map(|span| span.pages).sum()
        }
    }

    impl Spans for TestRegion {
        fn geometry(&self) -> &Geometry {
            &self.geometry
        }

        fn plain_owner(&self) -> SpanOwner {
            SpanOwner::Node(NodeId(0))
        }

        fn lease(&self, pages: u64, owner: SpanOwner) -> Result<SpanRange> {
            let mut leased = self.leased.lock();
            let (mut at, mut free, mut largest, mut place) = (0, 0, 0, None);
            let ends = leased.values().map(|span| (span.first.0, span.pages));
            for (first, length) in ends.chain([(self.geometry.pages(), 0)]) {
                let gap = first - at;
                if gap >= pages && place.is_none() {
                    place = Some(at);
                }
                free += gap;
                largest = largest.max(gap);
                at = first + length;
            }
            let page_size = self.geometry.page_size();
            let Some(first) = place else {
                return Err(Error::OutOfMemory {
                    asked: pages * page_size,
                    free: free * page_size,
                    largest: largest * page_size,
                });
            };
            let span = SpanRange { first: PageId(first), pages, owner };
            leased.insert(first, span);
            Ok(span)
        }

        fn give_back(&self, first: PageId) {
            assert!(self.leased.lock().remove(&first.0).is_some(), "{first} was not leased");
        }

        fn find(&self, page: PageId) -> Result<Option<SpanRange>> {
            let leased = self.leased.lock();
            let candidate = leased.range(..=page.0).next_back().map(|(_, span)| *span);
            Ok(candidate.filter(|span| page.0 < span.first.0 + span.pages))
        }
    }
}
