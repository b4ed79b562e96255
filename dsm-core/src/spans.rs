//! The spans of this home: which runs of its pages are leased, and to whom.
//!
//! Spans of the small zone lie within one segment and are granted by its home, so that what a node allocates from
//! its own segments is homed at itself, and its first touch needs no network. The coordinator grants those of the
//! large zone. Bookkeeping grows with the segments opened, not with the region.

use crate::action::Cause;
use crate::copyset::Copyset;
use crate::ids::{NodeId, PageId, SegmentId, Ticket};
use crate::message::{Message, Retired, SpanOwner, SpanRange, Zone};
use crate::placement::Placement;
use core::ops::Range;
use std::collections::{BTreeMap, BTreeSet};

/// The spans that one node grants.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Spans {
    me: NodeId,
    placement: Placement,
    /// The first segment of the small zone that has not been looked at in this view.
    unseen: u64,
    /// Segments of the small zone whose pages are in the pool.
    opened: BTreeSet<u64>,
    /// Segments whose homes died with what they alone knew to be leased: they are never leased again.
    retired: BTreeSet<Retired>,
    /// Whether this node grants what is free of the large zone.
    grants_large: bool,
    small: Pool,
    large: Pool,
}

/// Runs of pages, free or leased, by their first page.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
struct Pool {
    free: BTreeMap<u64, u64>,
    leased: BTreeMap<u64, (u64, SpanOwner)>,
}

impl Spans {
    /// The spans of a node that is a member from the beginning.
    pub fn new(me: NodeId, placement: Placement) -> Spans {
        let mut spans = Spans::joining(me, placement);
        spans.restored();
        spans
    }

    /// The spans of a node that is to hear from the others what is leased.
    pub fn joining(me: NodeId, placement: Placement) -> Spans {
        let (opened, retired) = (BTreeSet::new(), BTreeSet::new());
        let (small, large) = (Pool::default(), Pool::default());
        Spans { me, placement, unseen: 0, opened, retired, grants_large: false, small, large }
    }

    /// Another view: this node may grant what others granted before, who may be `dead`. Unless all leases are known,
    /// what those might have leased is never leased again.
    pub fn install(&mut self, placement: Placement, dead: Copyset, complete: bool) {
        let before = core::mem::replace(&mut self.placement, placement);
        let dead = dead.intersection(before.members);
        if !complete && !dead.is_empty() {
            self.retire(Retired { homes: before.members, dead });
        }
        self.unseen = 0;
        self.grants_large &= placement.coordinator == self.me;
        for zone in [Zone::Small, Zone::Large] {
            let me = self.me;
            let pool = self.pool(zone);
            pool.leased.retain(|first, _| placement.granter_of(PageId(*first)) == me);
            pool.free.retain(|first, _| placement.granter_of(PageId(*first)) == me);
        }
        self.opened.retain(|segment| {
            let first = placement.geometry.pages_of(SegmentId(*segment)).start;
            placement.home_of(PageId(first)) == self.me
        });
    }

    /// Some member knows that nobody knows what these dead homes had leased.
    pub fn retire(&mut self, retired: Retired) {
        if !retired.homes.is_empty() {
            self.retired.insert(retired);
        }
    }

    /// What is never leased again.
    pub fn retired(&self) -> impl Iterator<Item = Retired> + '_ {
        self.retired.iter().copied()
    }

    /// A lease that some member knows of, and that is this node's to keep from now on.
    pub fn restore(&mut self, span: SpanRange) {
        self.pool(self.placement.zone_of(span.first)).leased.insert(span.first.0, (span.pages, span.owner));
    }

    /// All leases that are known have been restored: what is free of the large zone, if this node grants it now.
    pub fn restored(&mut self) {
        let zone = self.placement.geometry.large_zone();
        let newly = self.me == self.placement.coordinator && !self.grants_large && !zone.is_empty();
        let coordinator = |retired: &Retired| retired.homes.iter().next();
        let is_dead =
            |retired: &Retired| coordinator(retired).is_some_and(|node| retired.dead.contains(node));
        if newly && !self.retired.iter().any(is_dead) {
            self.large.free = self.large.gaps(zone);
            self.grants_large = true;
        }
    }

    /// The spans that this node has leased.
    pub fn leased(&self) -> impl Iterator<Item = SpanRange> + '_ {
        let range = |(&first, &(pages, owner)): (&u64, &(u64, SpanOwner))| SpanRange {
            first: PageId(first),
            pages,
            owner,
        };
        self.small.leased.iter().chain(&self.large.leased).map(range)
    }

    /// Leases `pages` pages in a row, or says what there is.
    pub fn lease(&mut self, pages: u64, zone: Zone, owner: SpanOwner, ticket: Ticket) -> Message {
        match self.find_room(pages, zone) {
            Some(first) => {
                let owner = match owner {
                    SpanOwner::NewDomain => SpanOwner::Domain(self.placement.geometry.address_of(first)),
                    SpanOwner::Node(_) | SpanOwner::Domain(_) => owner,
                };
                self.pool(zone).leased.insert(first.0, (pages, owner));
                Message::SpanLeased { ticket, span: SpanRange { first, pages, owner } }
            }
            None => {
                let free = &self.pool(zone).free;
                let largest = free.values().copied().max().unwrap_or(0);
                Message::SpanDenied { ticket, free: free.values().sum(), largest }
            }
        }
    }

    fn find_room(&mut self, pages: u64, zone: Zone) -> Option<PageId> {
        let first = match zone {
            Zone::Large => self.large.take(pages),
            Zone::Small => loop {
                match self.small.take(pages) {
                    Some(first) => break Some(first),
                    None if !self.open_segment() => break None,
                    None => {}
                }
            },
        };
        first.map(PageId)
    }

    /// Takes a span back: a heap's from its node, a domain's from whichever member dissolved the domain.
    pub fn give_back(&mut self, from: NodeId, first: PageId) -> Result<(), Cause> {
        let zone = self.placement.zone_of(first);
        let segment_pages = self.placement.geometry.segment_pages();
        let pool = self.pool(zone);
        let (pages, owner) = *pool.leased.get(&first.0).ok_or(Cause::OutOfTurn)?;
        match owner {
            SpanOwner::Node(node) if node != from => return Err(Cause::Impersonation),
            SpanOwner::Node(_) | SpanOwner::Domain(_) | SpanOwner::NewDomain => {}
        }
        pool.leased.remove(&first.0);
        let mergeable = |a: u64, b: u64| zone == Zone::Large || a / segment_pages == b / segment_pages;
        pool.give(first.0, pages, mergeable);
        Ok(())
    }

    /// The span that holds `page`, if any does.
    pub fn find(&self, page: PageId) -> Option<SpanRange> {
        let pool = match self.placement.zone_of(page) {
            Zone::Small => &self.small,
            Zone::Large => &self.large,
        };
        let (&first, &(pages, owner)) = pool.leased.range(..=page.0).next_back()?;
        (page.0 < first + pages).then_some(SpanRange { first: PageId(first), pages, owner })
    }

    fn pool(&mut self, zone: Zone) -> &mut Pool {
        match zone {
            Zone::Small => &mut self.small,
            Zone::Large => &mut self.large,
        }
    }

    /// Adds the pages of the next segment that is homed here; false if there is none.
    fn open_segment(&mut self) -> bool {
        while self.unseen < self.placement.geometry.small_zone().end {
            let segment = SegmentId(self.unseen);
            self.unseen += 1;
            let home = |members: Copyset| self.placement.geometry.home_of_segment(segment, members);
            let unknown = |retired: &Retired| retired.dead.contains(home(retired.homes));
            if home(self.placement.members) == self.me
                && !self.retired.iter().any(unknown)
                && self.opened.insert(segment.0)
            {
                let pages = self.placement.geometry.pages_of(segment);
                let gaps = self.small.gaps(pages.clone());
                // What of it was given back before, which others had granted, is among them.
                self.small.free.retain(|first, _| !pages.contains(first));
                if !gaps.is_empty() {
                    self.small.free.extend(gaps);
                    return true;
                }
            }
        }
        false
    }
}

impl Pool {
    /// Takes the first run that is long enough, from its front.
    fn take(&mut self, pages: u64) -> Option<u64> {
        let (&first, &length) = self.free.iter().find(|&(_, &length)| length >= pages)?;
        self.free.remove(&first);
        if length > pages {
            self.free.insert(first + pages, length - pages);
        }
        Some(first)
    }

    /// The runs of `pages` that are not leased.
    fn gaps(&self, pages: Range<u64>) -> BTreeMap<u64, u64> {
        let mut gaps = BTreeMap::new();
        let mut from = pages.start;
        for (&first, &(length, _)) in self.leased.range(pages.clone()) {
            if first > from {
                gaps.insert(from, first - from);
            }
            from = from.max(first + length);
        }
        if pages.end > from {
            gaps.insert(from, pages.end - from);
        }
        gaps
    }

    /// Puts a run back, and joins it with its neighbours where `mergeable` allows.
    fn give(&mut self, first: u64, pages: u64, mergeable: impl Fn(u64, u64) -> bool) {
        let (mut first, mut pages) = (first, pages);
        if let Some(&after) = self.free.get(&(first + pages))
            && mergeable(first, first + pages)
        {
            self.free.remove(&(first + pages));
            pages += after;
        }
        if let Some((&before, &length)) = self.free.range(..first).next_back()
            && before + length == first
            && mergeable(before, first)
        {
            first = before;
            pages += length;
        }
        self.free.insert(first, pages);
    }
}
