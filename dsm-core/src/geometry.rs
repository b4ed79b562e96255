//! The shape of the region: pages, segments, zones, and which node is home to what.
//!
//! ```text
//! base                                                                  base + size
//!  |  segment  |  segment  | ...                       | large zone ...      |
//!  | page page |           |   small zone              |                     |
//! ```
//! A segment's home is chosen by rendezvous hashing over the members, so there is no table to agree on, and a member
//! that goes takes only its own segments along. Spans of up to a segment come from the *small zone*, each from one
//! segment, granted by its home; longer ones come from the *large zone*, granted by the coordinator.

use crate::copyset::Copyset;
use crate::ids::{Address, NodeId, PageId, SegmentId};
use crate::limits;
use core::ops::Range;
use serde::{Deserialize, Serialize};

/// Why a region cannot have a shape.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GeometryError {
    /// The page size is not a power of two within the limits.
    #[error(
        "page size {0} is not a power of two from {min} to {max}",
        min = limits::PAGE_SIZE_MIN,
        max = limits::PAGE_SIZE_MAX
    )]
    PageSize(u64),
    /// The base is not a multiple of the alignment that the page size asks for.
    #[error("region base {base:#x} is not a multiple of {align:#x}")]
    BaseUnaligned {
        /// The base asked for.
        base: u64,
        /// What it must be a multiple of.
        align: u64,
    },
    /// The size is zero or not a multiple of the page size, or the region is too small to hold two segments.
    #[error("region size {size} is not a multiple of the page size {page_size}, or below two pages")]
    Size {
        /// The size asked for, in bytes.
        size: u64,
        /// The page size, in bytes.
        page_size: u64,
    },
    /// The region leaves the user half of the address space.
    #[error("a region of {size} bytes at {base:#x} leaves the user address space")]
    BeyondAddressSpace {
        /// The base asked for.
        base: u64,
        /// The size asked for, in bytes.
        size: u64,
    },
}

/// The shape of the region. All nodes of a cluster agree on it at join.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Geometry {
    base: u64,
    size: u64,
    page_size: u64,
}

impl Geometry {
    /// A region of `size` bytes at `base`, in pages of `page_size` bytes.
    ///
    /// # Errors
    /// A [`GeometryError`] that names the value that does not fit.
    pub fn new(base: u64, size: u64, page_size: u64) -> Result<Geometry, GeometryError> {
        if !page_size.is_power_of_two()
            || !(limits::PAGE_SIZE_MIN..=limits::PAGE_SIZE_MAX).contains(&page_size)
        {
            return Err(GeometryError::PageSize(page_size));
        }
        if base == 0 || !base.is_multiple_of(page_size) {
            return Err(GeometryError::BaseUnaligned { base, align: page_size });
        }
        if !size.is_multiple_of(page_size) || size / page_size < 2 {
            return Err(GeometryError::Size { size, page_size });
        }
        match base.checked_add(size) {
            Some(end) if end <= limits::ADDRESS_MAX => Ok(Geometry { base, size, page_size }),
            Some(_) | None => Err(GeometryError::BeyondAddressSpace { base, size }),
        }
    }

    /// The region's first address.
    #[must_use]
    pub fn base(&self) -> Address {
        Address(self.base)
    }

    /// The region's length in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// A page's length in bytes.
    #[must_use]
    pub fn page_size(&self) -> u64 {
        self.page_size
    }

    /// How many pages the region has.
    #[must_use]
    pub fn pages(&self) -> u64 {
        self.size / self.page_size
    }

    /// Whether `page` lies in the region.
    #[must_use]
    pub fn contains(&self, page: PageId) -> bool {
        page.0 < self.pages()
    }

    /// The page that holds `address`, if it lies in the region.
    #[must_use]
    pub fn page_of(&self, address: Address) -> Option<PageId> {
        let offset = address.0.checked_sub(self.base)?;
        (offset < self.size).then(|| PageId(offset / self.page_size))
    }

    /// Where `page` begins. `page` must lie in the region.
    #[must_use]
    pub fn address_of(&self, page: PageId) -> Address {
        Address(self.base + page.0 * self.page_size)
    }

    /// How far from the region's base `page` begins, in bytes. `page` must lie in the region.
    #[must_use]
    pub fn offset_of(&self, page: PageId) -> u64 {
        page.0 * self.page_size
    }

    /// How many pages hold `bytes` bytes.
    #[must_use]
    pub fn pages_for(&self, bytes: u64) -> u64 {
        bytes.div_ceil(self.page_size)
    }

    /// How many pages a segment has. Small regions have smaller segments, so that every node is home to some.
    #[must_use]
    pub fn segment_pages(&self) -> u64 {
        let share = (self.size / limits::SEGMENTS_MIN).max(self.page_size);
        let floor = 1 << share.ilog2();
        limits::SEGMENT_SIZE.min(floor) / self.page_size
    }

    /// How many segments the region has; the last may be short.
    #[must_use]
    pub fn segments(&self) -> u64 {
        self.pages().div_ceil(self.segment_pages())
    }

    /// The segment that holds `page`.
    #[must_use]
    pub fn segment_of(&self, page: PageId) -> SegmentId {
        SegmentId(page.0 / self.segment_pages())
    }

    /// The pages of `segment`.
    #[must_use]
    pub fn pages_of(&self, segment: SegmentId) -> Range<u64> {
        let first = segment.0 * self.segment_pages();
        first..(first + self.segment_pages()).min(self.pages())
    }

    /// The segments of the small zone.
    #[must_use]
    pub fn small_zone(&self) -> Range<u64> {
        0..self.segments() - self.segments() / limits::LARGE_ZONE_SHARE
    }

    /// The pages of the large zone.
    #[must_use]
    pub fn large_zone(&self) -> Range<u64> {
        self.small_zone().end * self.segment_pages()..self.pages()
    }

    /// The home of `segment` among `members`: the member with the highest mix of segment and rank.
    ///
    /// # Panics
    /// If there are no members: a cluster has at least the node that asks.
    #[must_use]
    pub fn home_of_segment(&self, segment: SegmentId, members: Copyset) -> NodeId {
        members
            .iter()
            .max_by_key(|node| (mix(segment.0, u64::from(node.0)), node.0))
            .expect("a cluster has at least one member: the node that asks")
    }

    /// The home of `page` among `members`.
    #[must_use]
    pub fn home_of(&self, page: PageId, members: Copyset) -> NodeId {
        self.home_of_segment(self.segment_of(page), members)
    }
}

/// Two numbers, mixed so that each input bit moves about half of the output bits (the finaliser of `SplitMix64`, by
/// Steele, Lea and Flood, 2014).
pub(crate) fn mix(a: u64, b: u64) -> u64 {
    let mut x = a.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ b.wrapping_add(1).wrapping_mul(0xd1b5_4a32_d192_ed03);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn default_geometry() -> Geometry {
        Geometry::new(limits::REGION_BASE_DEFAULT, 64 * GIB, 4096).expect("the defaults fit")
    }

    #[test]
    fn shapes_that_cannot_be_are_named() {
        let base = limits::REGION_BASE_DEFAULT;
        assert_eq!(Geometry::new(base, GIB, 5000), Err(GeometryError::PageSize(5000)));
        assert_eq!(Geometry::new(base, GIB, 4 << 20), Err(GeometryError::PageSize(4 << 20)));
        assert_eq!(
            Geometry::new(base + 1, GIB, 4096),
            Err(GeometryError::BaseUnaligned { base: base + 1, align: 4096 })
        );
        assert_eq!(Geometry::new(base, 4096, 4096), Err(GeometryError::Size { size: 4096, page_size: 4096 }));
        assert!(matches!(Geometry::new(base, 1 << 62, 4096), Err(GeometryError::BeyondAddressSpace { .. })));
        assert!(matches!(Geometry::new(base, !4095, 4096), Err(GeometryError::BeyondAddressSpace { .. })));
    }

    #[test]
    fn an_address_belongs_to_one_page_or_none() {
        let geometry = default_geometry();
        let base = geometry.base().0;
        assert_eq!(geometry.page_of(Address(base - 1)), None);
        assert_eq!(geometry.page_of(Address(base + 4095)), Some(PageId(0)));
        assert_eq!(geometry.page_of(Address(base + 4096)), Some(PageId(1)));
        assert_eq!(geometry.page_of(Address(base + geometry.size())), None);
        assert_eq!(geometry.address_of(PageId(3)).0, base + 3 * 4096);
    }

    #[test]
    fn small_regions_have_small_segments() {
        for page_size in [4096, 64 << 10, 2 << 20] {
            let geometry = Geometry::new(limits::REGION_BASE_DEFAULT, 16 << 20, page_size).expect("fits");
            assert!(geometry.segments() >= 8, "{} segments", geometry.segments());
            assert_eq!(geometry.large_zone().end, geometry.pages());
        }
        assert_eq!(default_geometry().segment_pages(), 512);
    }

    #[test]
    fn a_departed_member_moves_only_its_own_segments() {
        let geometry = default_geometry();
        let all = Copyset::first(4);
        let rest = all.without(NodeId(2));
        let mut owned = [0u32; 4];
        for segment in (0..1000).map(SegmentId) {
            let before = geometry.home_of_segment(segment, all);
            let after = geometry.home_of_segment(segment, rest);
            owned[before.index()] += 1;
            assert!(before == after || before == NodeId(2));
        }
        assert!(owned.iter().all(|&count| count > 150), "uneven homes: {owned:?}");
    }
}
