//! What this node has to commit, and what it keeps of others' commits.
//!
//! A node replicates what it wrote before anyone else can learn of it. A *record* holds all of its dirty pages, as they
//! stood at one instant; its buddies keep the bytes. What must not be learned before, waits for the record's acks.
//!
//! ```text
//!   clean ── store ──▶ dirty ── all protected, then copied ──▶ in a record ── all buddies acked ──▶ clean
//!                        ▲                                          │
//!                        └───────────────── store ──────────────────┘
//! ```
//!
//! *Custody* says who holds a page's last committed state besides its owner. It goes along with ownership, the granter
//! added; when a later state is acked, those who are needed no more are released. Nothing else drops a copy.
//!
//! Pages of domains with an open section here are withheld: no record has them before the section ends. This module
//! decides nothing about access: `local` protects, serves, and asks here whether it may.

mod change;
mod incoming;

use crate::action::{Action, Cause, Replication, Source};
use crate::copyset::Copyset;
use crate::geometry::Geometry;
use crate::ids::{LockId, NodeId, PageId, RecordId, Version, ViewId};
use crate::limits;
use crate::message::{Commit, Custody, Message, SpanRange};
use crate::outbox::Outbox;
use crate::page_map::PageMap;
use incoming::Incoming;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Pages of a record, by where the bytes of each are.
#[derive(Default)]
pub(crate) struct Sources {
    pub frames: Vec<PageId>,
    /// Those whose states were set aside.
    pub twins: Vec<PageId>,
}

type Postponed = BTreeMap<(NodeId, PageId), Version>;

/// The commits of one node: its own, and those that it keeps for others.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Commits {
    me: NodeId,
    geometry: Geometry,
    view: ViewId,
    /// Who keeps this node's commits. Nobody: then nothing of this is done, and all of it costs nothing.
    buddies: Copyset,
    /// The highest record number that was spent here or seen in a version of this view.
    clock: RecordId,
    /// The last record of this node in this view.
    last: RecordId,
    pages: PageMap<State>,
    dirty: BTreeSet<PageId>,
    /// Pages of this node whose committed state has fewer holders than it should.
    thin: BTreeSet<PageId>,
    /// Records that some buddy has not acked, in order, and how many pages they have in all.
    records: VecDeque<Record>,
    unacked_pages: usize,
    /// How many of those and of the dirty pages there may be before stores to further ones wait.
    unreplicated_max: usize,
    /// How many pages were dirty when write-behind had done what it could.
    left_behind: usize,
    /// Domains with an open section on this node.
    sections: BTreeMap<LockId, Vec<SpanRange>>,
    incoming: BTreeMap<NodeId, Incoming>,
    /// Releases that wait until the view is fully replicated, `None` once it is: of each holder and page, the state before
    /// which all may go.
    postponed: Option<Postponed>,
}

/// What is known of the committed states of one page.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
struct State {
    /// Of a page that this node owns: who else holds its last committed state.
    custody: Option<Custody>,
    /// The state that this node's frame keeps for others.
    kept: Option<Version>,
    /// The last record that has the page and is not acked.
    record: Option<RecordId>,
    /// Whether the last committed state was set aside before it was written over.
    twin: bool,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Record {
    id: RecordId,
    pages: Vec<PageId>,
    unacked: Copyset,
    /// Whether pages in it had too few holders.
    thickens: bool,
}

impl Commits {
    pub fn new(me: NodeId, geometry: Geometry, view: ViewId, buddies: Copyset) -> Commits {
        Commits {
            me,
            geometry,
            view,
            buddies,
            clock: RecordId::NONE,
            last: RecordId::NONE,
            pages: PageMap::default(),
            dirty: BTreeSet::new(),
            thin: BTreeSet::new(),
            records: VecDeque::new(),
            unacked_pages: 0,
            unreplicated_max: limits::UNREPLICATED_PAGES_MAX,
            left_behind: 0,
            sections: BTreeMap::new(),
            incoming: BTreeMap::new(),
            postponed: None,
        }
    }

    /// Stores to further pages wait while more than `pages` are not replicated.
    pub fn bound_unreplicated(&mut self, pages: usize) {
        self.unreplicated_max = pages;
    }

    /// Whether anything is replicated.
    pub fn is_on(&self) -> bool {
        !self.buddies.is_empty()
    }

    /// Stores to `page`, which this node owns, are about to be allowed. `custody` came with its ownership, if that came
    /// just now.
    pub fn written(&mut self, page: PageId, custody: Option<Custody>, out: &mut Outbox<'_>) {
        if let Some(custody) = custody {
            self.saw(custody.version);
        }
        if !self.is_on() {
            if let Some(state) = self.pages.get_mut(page) {
                state.kept = None;
            }
            return;
        }
        let withheld = self.withholds(page);
        let me = self.me;
        let state = self.pages.get_or_insert_with(page, State::default);
        if let Some(custody) = custody {
            state.custody = Some(Custody { holders: custody.holders.without(me), ..custody });
        }
        // Also one whose acks are still to come: nobody else may have it, should the view change before.
        let committed = state.custody.is_some() || state.record.is_some() || self.thin.contains(&page);
        state.kept = None;
        // Of a page that the section has stored to before, the frame is no committed state.
        if self.dirty.insert(page) && withheld && committed {
            state.twin = true;
            out.act(Action::Replicate(Replication::KeepTwin { page }));
        }
    }

    /// Whether the last state of `page` is replicated, so that others may see it.
    pub fn is_clean(&self, page: PageId) -> bool {
        !self.is_on()
            || !self.dirty.contains(&page)
                && !self.thin.contains(&page)
                && self.pages.get(page).is_none_or(|state| state.record.is_none())
    }

    /// This node gives up the ownership of a clean page: it keeps the frame, and says who else does.
    pub fn give_up(&mut self, page: PageId) -> Option<Custody> {
        let state = self.pages.get_mut(page)?;
        let custody = state.custody.take()?;
        state.kept = Some(custody.version);
        Some(Custody { version: custody.version, holders: custody.holders.with(self.me) })
    }

    /// A section of `lock` begins or grows: pages of `spans` are withheld until it ends.
    pub fn open(&mut self, lock: LockId, spans: &[SpanRange]) {
        self.sections.entry(lock).or_default().extend(spans);
    }

    /// Whether a section of `lock` is open here.
    pub fn is_open(&self, lock: LockId) -> bool {
        self.sections.contains_key(&lock)
    }

    /// The locks whose sections are open here.
    pub fn open_sections(&self) -> impl Iterator<Item = LockId> + '_ {
        self.sections.keys().copied()
    }

    /// Whether a record may have stores to the first page of the domain of `lock`, or to `spans`.
    pub fn has_stores_in(&self, lock: LockId, spans: &[SpanRange]) -> bool {
        self.of_domain(&self.dirty, lock, spans).any(|page| !self.withholds(page))
    }

    /// Those of these pages that have too few holders.
    pub fn thin_in(&self, lock: LockId, spans: &[SpanRange]) -> impl Iterator<Item = PageId> {
        self.of_domain(&self.thin, lock, spans)
    }

    fn of_domain(
        &self,
        pages: &BTreeSet<PageId>,
        lock: LockId,
        spans: &[SpanRange],
    ) -> impl Iterator<Item = PageId> {
        let first = self.geometry.page_of(lock.0).filter(|page| pages.contains(page));
        let in_spans = spans
            .iter()
            .flat_map(|span| pages.range(span.first..PageId(span.first.0.saturating_add(span.pages))));
        first.into_iter().chain(in_spans.copied())
    }

    /// The section of `lock` is over. Where no record ends it, since nobody is there to keep one, what was set aside for
    /// it is no last state any more.
    pub fn close(&mut self, lock: LockId, out: &mut Outbox<'_>) {
        let Some(spans) = self.sections.remove(&lock) else { return };
        self.left_behind = 0;
        if self.is_on() {
            return;
        }
        let over = |page: &PageId| !self.withholds(*page);
        for page in self.of_domain(&self.dirty, lock, &spans).filter(over).collect::<Vec<_>>() {
            self.dirty.remove(&page);
            if self.pages.get_mut(page).is_some_and(|state| core::mem::take(&mut state.twin)) {
                out.act(Action::Replicate(Replication::DropTwin { page }));
            }
        }
    }

    /// The dirty pages that a record may have now.
    pub fn committable(&self) -> Vec<PageId> {
        let free = |page: &&PageId| !self.withholds(**page);
        self.dirty.iter().filter(free).copied().collect()
    }

    /// Whether so much is dirty that it should be committed though nobody waits for it: besides what was withheld when that
    /// was done last.
    pub fn should_write_behind(&self) -> bool {
        self.is_on() && self.dirty.len() >= self.left_behind + limits::WRITE_BEHIND_PAGES
    }

    /// That was done now. What is dirty still is withheld: it need not be looked at with every further store of its section.
    pub fn written_behind(&mut self) {
        self.left_behind = self.dirty.len();
    }

    /// Whether so much is not replicated yet that a store to another page should wait for acks: some are to come, and
    /// they depend on nothing that this node does.
    pub fn is_full(&self) -> bool {
        !self.records.is_empty() && self.unacked_pages + self.dirty.len() > self.unreplicated_max
    }

    /// Commits the bytes of `frames`, all of which are protected now, and what was set aside of `twins`.
    pub fn begin(&mut self, Sources { frames, twins }: Sources, out: &mut Outbox<'_>) {
        let (id, previous) = self.next_record();
        let mut thickens = false;
        let set_aside = twins.iter().map(|page| (*page, Source::Twin));
        for (page, source) in frames.iter().map(|page| (*page, Source::Frame)).chain(set_aside) {
            thickens |= self.thin.remove(&page);
            let state = self.pages.get_or_insert_with(page, State::default);
            state.record = Some(id);
            let message = Message::Commit(Commit::Page { record: id, page });
            out.act(Action::Replicate(Replication::SendCopy { to: self.buddies, page, source, message }));
            if source == Source::Frame {
                self.dirty.remove(&page);
                if core::mem::take(&mut state.twin) {
                    out.act(Action::Replicate(Replication::DropTwin { page }));
                }
            }
        }
        let pages = [frames, twins].concat();
        self.end_record((id, previous), pages, thickens, out);
    }

    /// Pages that have too few holders and of which `which` holds, `most` at most, by where their last committed states
    /// are: what their sections have written since is not touched.
    pub fn too_thin(&self, which: impl Fn(PageId) -> bool, most: usize) -> Sources {
        let mut sources = Sources::default();
        for &page in self.thin.iter().filter(|page| which(**page)) {
            if sources.frames.len() + sources.twins.len() == most {
                break;
            }
            let stored_to = self.is_dirty(page) && self.withholds(page);
            if !stored_to {
                sources.frames.push(page);
            } else if self.pages.get(page).is_some_and(|state| state.twin) {
                sources.twins.push(page);
            }
            // The rest is in no frame any more: it waits for the section's end.
        }
        sources
    }

    fn next_record(&mut self) -> (RecordId, RecordId) {
        self.clock = RecordId(self.clock.0 + 1);
        let previous = core::mem::replace(&mut self.last, self.clock);
        (self.clock, previous)
    }

    fn end_record(
        &mut self,
        (id, previous): (RecordId, RecordId),
        pages: Vec<PageId>,
        thickens: bool,
        out: &mut Outbox<'_>,
    ) {
        // A record has as many pages as a node can have dirty, which is far below the width of the count.
        let count = u32::try_from(pages.len()).unwrap_or(u32::MAX);
        for buddy in self.buddies.iter() {
            out.send(buddy, Message::Commit(Commit::End { record: id, previous, pages: count }));
        }
        self.unacked_pages += pages.len();
        self.records.push_back(Record { id, pages, unacked: self.buddies, thickens });
    }

    /// The record that must be acked before anything may be said that depends on what was written so far; `None` if
    /// nothing is under way.
    pub fn pending(&self) -> Option<RecordId> {
        self.records.back().map(|record| record.id)
    }

    /// Whether `record` and all before it are acked.
    pub fn is_acked(&self, record: RecordId) -> bool {
        self.records.front().is_none_or(|first| first.id > record)
    }

    /// A buddy keeps `id` and all before it. Says which pages have become clean by that.
    pub fn acked(&mut self, from: NodeId, id: RecordId, out: &mut Outbox<'_>) -> Result<Vec<PageId>, Cause> {
        if !self.buddies.contains(from) || id > self.last {
            return Err(Cause::OutOfTurn);
        }
        for record in self.records.iter_mut().take_while(|record| record.id <= id) {
            record.unacked = record.unacked.without(from);
        }
        let mut clean = Vec::new();
        while self.records.front().is_some_and(|record| record.unacked.is_empty()) {
            let Some(record) = self.records.pop_front() else { break };
            self.unacked_pages -= record.pages.len();
            for page in record.pages {
                self.replicated(page, record.id, out);
                if self.is_clean(page) {
                    clean.push(page);
                }
            }
        }
        Ok(clean)
    }

    /// The state of `page` in record `id` has all its holders: those of the state before are needed no more.
    fn replicated(&mut self, page: PageId, id: RecordId, out: &mut Outbox<'_>) {
        let Some(state) = self.pages.get_mut(page) else { return };
        state.record.take_if(|last| *last == id);
        let version = Version { view: self.view, record: id };
        let before = state.custody.replace(Custody { version, holders: self.buddies });
        let Some(before) = before else { return };
        for holder in before.holders.minus(self.buddies).iter() {
            match &mut self.postponed {
                Some(postponed) => postpone(postponed, holder, page, version),
                None => out.send_lazily(holder, Message::Commit(Commit::Release { page, before: version })),
            }
        }
    }

    /// A later state of `page` is replicated elsewhere. Whether this node kept one that may go.
    pub fn release(&mut self, page: PageId, before: Version) -> bool {
        let Some(state) = self.pages.get_mut(page) else { return false };
        if state.kept.take_if(|kept| *kept < before).is_none() {
            return false;
        }
        if *state == State::default() {
            self.pages.remove(page);
        }
        true
    }

    /// `page` has come with its ownership, and is not stored to yet.
    pub fn taken_over(&mut self, page: PageId, custody: Option<Custody>) {
        let me = self.me;
        if let Some(custody) = custody {
            self.saw(custody.version);
            let state = self.pages.get_or_insert_with(page, State::default);
            state.custody = Some(Custody { holders: custody.holders.without(me), ..custody });
            state.kept = None;
        }
    }

    /// Whether `page` was stored to since its last record.
    pub fn is_dirty(&self, page: PageId) -> bool {
        self.dirty.contains(&page)
    }

    /// Whether the last committed state of `page`, which this node owns, has too few holders.
    pub fn is_thin(&self, page: PageId) -> bool {
        self.thin.contains(&page)
    }

    /// Whether this node's frame of `page` keeps a state for others.
    pub fn keeps(&self, page: PageId) -> bool {
        self.pages.get(page).is_some_and(|state| state.kept.is_some())
    }

    /// The state of `page` that this node keeps for others.
    pub fn kept_of(&self, page: PageId) -> Option<Version> {
        self.pages.get(page).and_then(|state| state.kept)
    }

    /// Who else holds the last committed state of `page`, which this node owns.
    pub fn custody(&self, page: PageId) -> Option<Custody> {
        self.pages.get(page).and_then(|state| state.custody)
    }

    /// The states that this node keeps for others.
    pub fn kept(&self) -> impl Iterator<Item = (PageId, Version)> + '_ {
        self.pages.iter().filter_map(|(page, state)| Some((page, state.kept?)))
    }

    /// A version that somebody else spent: those spent here later are above it.
    fn saw(&mut self, version: Version) {
        if version.view == self.view {
            self.clock = self.clock.max(version.record);
        }
    }

    /// Whether `page` belongs to a domain with an open section here.
    pub fn withholds(&self, page: PageId) -> bool {
        self.sections.iter().any(|(lock, spans)| {
            self.geometry.page_of(lock.0) == Some(page)
                || spans.iter().any(|span| (span.first.0..span.first.0 + span.pages).contains(&page.0))
        })
    }

    /// Checks what must hold between events.
    pub fn invariants(&self) -> Result<(), String> {
        let aside = self.pages.iter().filter(|(_, state)| state.twin).map(|(page, _)| page);
        match aside.into_iter().find(|page| !self.is_dirty(*page) || !self.withholds(*page)) {
            Some(page) => Err(format!("{page} is set aside, but is not being written in a section")),
            None => Ok(()),
        }
    }
}

/// What `holder` keeps of `page` from before `version` may go, as soon as any may.
fn postpone(postponed: &mut Postponed, holder: NodeId, page: PageId, version: Version) {
    let before = postponed.entry((holder, page)).or_insert(version);
    *before = version.max(*before);
}
