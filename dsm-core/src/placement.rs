//! Who is responsible for what: the homes of pages, locks, names and spans, as all members agree on without a table.

use crate::copyset::Copyset;
use crate::geometry::{Geometry, mix};
use crate::ids::{Address, LockId, NodeId, PageId, SegmentId};
use crate::message::{SpanRange, Zone};
use core::ops::Range;

/// The region's shape, the members over which its homes are spread, and the one of them that runs what there is one of.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Placement {
    pub geometry: Geometry,
    pub members: Copyset,
    pub coordinator: NodeId,
}

impl Placement {
    /// Over `members`. The one with the lowest rank coordinates.
    pub fn new(geometry: Geometry, members: Copyset) -> Placement {
        let coordinator = members.iter().next().unwrap_or(NodeId::COORDINATOR);
        Placement { geometry, members, coordinator }
    }

    /// The home of `page`.
    pub fn home_of(&self, page: PageId) -> NodeId {
        self.geometry.home_of(page, self.members)
    }

    /// These pages by home, in ascending order.
    pub fn homes_of(&self, pages: Range<u64>) -> impl Iterator<Item = (Range<u64>, NodeId)> + '_ {
        let mut from = pages.start;
        core::iter::from_fn(move || {
            let first = from;
            let segment = self.geometry.segment_of(PageId(first));
            from = self.geometry.pages_of(segment).end.min(pages.end);
            (first < pages.end).then(|| (first..from, self.geometry.home_of_segment(segment, self.members)))
        })
    }

    /// The home of `lock`, if it lies in the region.
    pub fn home_of_lock(&self, lock: LockId) -> Option<NodeId> {
        self.geometry.page_of(lock.0).map(|page| self.home_of(page))
    }

    /// The home of a root's name: names are spread like segments.
    pub fn home_of_name(&self, name: &str) -> NodeId {
        let hash = name.bytes().fold(0, |hash, byte| mix(hash, u64::from(byte)));
        self.geometry.home_of_segment(SegmentId(hash), self.members)
    }

    /// The part of the region that holds `page`.
    pub fn zone_of(&self, page: PageId) -> Zone {
        if self.geometry.large_zone().contains(&page.0) { Zone::Large } else { Zone::Small }
    }

    /// The node that grants the span that holds `page`.
    pub fn granter_of(&self, page: PageId) -> NodeId {
        match self.zone_of(page) {
            Zone::Small => self.home_of(page),
            Zone::Large => self.coordinator,
        }
    }

    /// The node that grants the span that holds `address`, and the page there, if it lies in the region.
    pub fn granter_at(&self, address: Address) -> Option<(NodeId, PageId)> {
        self.geometry.page_of(address).map(|page| (self.granter_of(page), page))
    }

    /// Whether `granter` is the node that grants spans like this: one segment of its own, or the large zone, holds it.
    pub fn grants(&self, granter: NodeId, span: SpanRange) -> bool {
        let Some(last) = span.first.0.checked_add(span.pages).and_then(|end| end.checked_sub(1)) else {
            return false;
        };
        let together = match self.zone_of(span.first) {
            Zone::Small => self.geometry.segment_of(span.first) == self.geometry.segment_of(PageId(last)),
            Zone::Large => self.geometry.contains(PageId(last)),
        };
        together && self.granter_of(span.first) == granter
    }
}
