//! What this node does with the pages that it owns so that they outlive it: stores to them are noticed, their commits
//! begin, and they are served once those are acked. What a commit is, and who keeps it, is the business of `commit`.

use super::{Local, Ownership, Page};
use crate::access::{Access, Want};
use crate::action::{Action, Cause, Replication};
use crate::commit::Sources;
use crate::copyset::Copyset;
use crate::ids::{LockId, NodeId, PageId, RecordId, Version, ViewId};
use crate::limits;
use crate::message::{Commit, Custody, Message, Payload, SpanRange};
use crate::outbox::Outbox;
use crate::time::Time;
use core::ops::Range;

impl Local {
    /// A fault on a page that this node owns needs nobody else, unless others have copies. Whether it is resolved.
    ///
    /// A commit protects pages, so that the next store is noticed; and a node may have become the owner of a page that
    /// it has not mapped.
    pub(super) fn resolve_as_owner(
        &mut self,
        now: Time,
        page: PageId,
        want: Want,
        out: &mut Outbox<'_>,
    ) -> bool {
        let Some(state) = self.pages.get_mut(page) else { return false };
        if state.ownership == Ownership::Elsewhere {
            return false;
        }
        let payload = if state.access == Access::None { Payload::Bytes } else { Payload::Held };
        match (want, state.ownership) {
            // What is to be served is not stored to before it is.
            (Want::Write, Ownership::Sole) if state.revocation.is_none() => {
                self.allow_stores(now, page, payload, None, out);
                true
            }
            (Want::Read | Want::Write, _) if state.access == Access::None => {
                state.access = Access::Read;
                state.installed = Some(now);
                out.act(Action::Install { page, access: Access::Read, payload });
                want == Want::Read
            }
            (Want::Read | Want::Write, _) => false,
        }
    }

    /// This node becomes, or is, the only one with a copy of `page`, and its threads may store to it.
    pub(super) fn allow_stores(
        &mut self,
        now: Time,
        page: PageId,
        payload: Payload,
        custody: Option<Custody>,
        out: &mut Outbox<'_>,
    ) {
        // Before the page is mapped: it would be protected again before its instruction had a chance.
        if self.commits.should_write_behind() {
            self.commit(out);
            self.commits.written_behind();
        }
        self.commits.written(page, custody, out);
        let Some(state) = self.pages.get_mut(page) else { return };
        state.access = Access::Write;
        state.ownership = Ownership::Sole;
        state.installed = Some(now);
        out.act(Action::Install { page, access: Access::Write, payload });
    }

    /// Commits all dirty pages that may be. They are all protected before the first is copied: the record is the
    /// memory as it stood when the last of them was.
    pub fn commit(&mut self, out: &mut Outbox<'_>) {
        let frames = self.commits.committable();
        self.commit_pages(Sources { frames, twins: Vec::new() }, out);
    }

    /// The next store to `page` is to be noticed, if it is not dirty already.
    fn protect_clean(&mut self, page: PageId, out: &mut Outbox<'_>) {
        let Some(state) = self.pages.get_mut(page) else { return };
        // An instruction that was to retire first, is still to: the page stays.
        if state.access == Access::Write && self.commits.is_on() && !self.commits.is_dirty(page) {
            state.access = Access::Read;
            out.act(Action::Protect { page, access: Access::Read });
        }
    }

    fn commit_pages(&mut self, pages: Sources, out: &mut Outbox<'_>) {
        if pages.frames.is_empty() && pages.twins.is_empty() || !self.commits.is_on() {
            return;
        }
        for page in &pages.frames {
            // An instruction that was to retire first, is still to: the page stays.
            if let Some(state) = self.pages.get_mut(*page).filter(|state| state.access == Access::Write) {
                state.access = Access::Read;
                out.act(Action::Protect { page: *page, access: Access::Read });
            }
        }
        self.commits.begin(pages, out);
    }

    /// The section of `lock` has `spans`, besides the first page of its domain. What was stored there before it, as by
    /// the one who made the domain, is no part of the section, and others may learn of it before that ends: it is
    /// committed now.
    pub fn cover(&mut self, lock: LockId, spans: &[SpanRange], out: &mut Outbox<'_>) {
        if self.commits.has_stores_in(lock, spans) {
            self.commit(out);
        }
        self.commits.open(lock, spans);
        // Where nobody kept commits when a page was mapped, and it has not been its turn since, no store would be noticed.
        for page in self.commits.thin_in(lock, spans).collect::<Vec<_>>() {
            self.protect_clean(page, out);
        }
    }

    /// `page` is to be served, and is not replicated: its commit begins, unless it has begun, or is withheld.
    pub(super) fn replicate(&mut self, page: PageId, out: &mut Outbox<'_>) {
        let frames = self.commits.committable();
        if frames.contains(&page) {
            self.commit_pages(Sources { frames, twins: Vec::new() }, out);
        } else if self.commits.is_thin(page) && !self.commits.withholds(page) {
            self.commit_pages(Sources { frames: vec![page], twins: Vec::new() }, out);
        }
    }

    /// A buddy keeps a record: what waited for it is served.
    pub fn acked(&mut self, from: NodeId, record: RecordId, out: &mut Outbox<'_>) -> Result<(), Cause> {
        for page in self.commits.acked(from, record, out)? {
            if self.awaited.contains(&page) {
                self.carry_out_revocation(page, out);
            }
        }
        Ok(())
    }

    /// A store that was held until less is to be replicated, if one may be begun by now.
    pub fn take_held(&mut self) -> Option<PageId> {
        if self.commits.is_full() { None } else { self.held.pop_first() }
    }

    /// What is written so far that is not withheld is to be replicated; the record to wait for, if any.
    pub fn flush(&mut self, out: &mut Outbox<'_>) -> Option<RecordId> {
        self.commit(out);
        self.commits.pending()
    }

    /// Pages that wait for a section's end may be committed by now.
    pub fn commit_awaited(&mut self, out: &mut Outbox<'_>) {
        for page in self.awaited.iter().copied().collect::<Vec<_>>() {
            if self.commits.is_clean(page) {
                self.carry_out_revocation(page, out);
            } else {
                self.replicate(page, out);
            }
        }
    }

    /// Replicates some of the pages that have too few holders, if nothing is under way.
    pub fn thicken(&mut self, out: &mut Outbox<'_>) {
        if self.commits.pending().is_some() {
            return;
        }
        let mut pages = self.commits.too_thin(|_| true, limits::WRITE_BEHIND_PAGES);
        if pages.frames.iter().any(|page| self.commits.is_dirty(*page)) {
            pages.frames.retain(|page| !self.commits.is_dirty(*page));
            pages.frames.extend(self.commits.committable());
        }
        self.commit_pages(pages, out);
    }

    /// A later state of `page` is replicated: what this node kept of it may go.
    pub fn release(&mut self, page: PageId, before: Version, out: &mut Outbox<'_>) {
        if self.commits.release(page, before) && self.is_idle(page) {
            out.act(Action::Replicate(Replication::Discard { page }));
        }
    }

    /// All of a record of `from` that has come to count; each is acked.
    pub fn apply_records(&mut self, from: NodeId, out: &mut Outbox<'_>) {
        while let Some(counted) = self.commits.next_counted(from) {
            // Who has a copy mapped, has these very bytes: a page is not stored to while there are copies.
            let unmapped = |page: &PageId| self.access(*page) == Access::None && !self.owns(*page);
            let pages = counted.pages.into_iter().filter(unmapped).collect();
            out.act(Action::Replicate(Replication::ApplyRecord { from, record: counted.record, pages }));
            out.send(from, Message::Commit(Commit::Ack { record: counted.record }));
        }
    }

    /// Another view is installed: nothing of the old one is under way any more. The faults that were are to be begun
    /// anew.
    pub fn abort(&mut self) -> Vec<(PageId, Want)> {
        let mut faults = Vec::new();
        for (page, state) in self.pages.iter_mut() {
            state.revocation = None;
            if let Some(pending) = state.pending.take() {
                faults.push((page, pending.want));
            }
        }
        self.pages.retain(|_, state| *state != Page::UNTOUCHED);
        self.awaited.clear();
        faults.extend(core::mem::take(&mut self.held).into_iter().map(|page| (page, Want::Write)));
        faults
    }

    /// What this node holds, by page: whether it is the page itself, or a read copy.
    pub fn held(&self) -> impl Iterator<Item = (PageId, bool)> + '_ {
        self.pages.iter().filter_map(|(page, state)| match (state.ownership, state.access) {
            (Ownership::Sole | Ownership::Shared, _) => Some((page, true)),
            (Ownership::Elsewhere, Access::Read | Access::Write) => Some((page, false)),
            (Ownership::Elsewhere, Access::None) => None,
        })
    }

    /// This node owns these pages from now on, whose owner is gone, and has their bytes; others have read `copies`, and
    /// members have `kept` these states of them.
    pub fn adopt(&mut self, pages: Range<u64>, copies: Copyset, kept: &[(NodeId, Version)]) {
        let ownership = if copies.is_empty() { Ownership::Sole } else { Ownership::Shared };
        for page in pages.map(PageId) {
            let state = self.pages.get_or_insert_with(page, || Page::UNTOUCHED);
            state.ownership = ownership;
            debug_assert!(copies.is_empty() || state.access < Access::Write, "{page} has copies elsewhere");
            self.commits.adopt(page, kept, copies);
        }
    }

    /// This node goes on owning these pages; others have read `copies`, and members have `kept` these states of them.
    pub fn keep_on(&mut self, pages: Range<u64>, copies: Copyset, kept: &[(NodeId, Version)]) {
        let ownership = if copies.is_empty() { Ownership::Sole } else { Ownership::Shared };
        for (_, state) in self.pages.range_mut(pages.clone()) {
            if state.ownership != Ownership::Elsewhere {
                state.ownership = ownership;
            }
        }
        self.commits.reported(pages, kept, copies);
    }

    /// Another view, to which `survivors` have come from the one before, and in which `buddies` keep this node's commits.
    pub fn install(&mut self, view: ViewId, survivors: Copyset, buddies: Copyset) {
        if !self.commits.is_on() && !buddies.is_empty() {
            let writable = self.pages.iter().filter(|(_, state)| state.access == Access::Write);
            self.commits.begins_to_notice(writable.map(|(page, _)| page));
        }
        self.commits.install(view, survivors, buddies);
    }

    /// All members have recovered: pages of this node that have too few holders are to have more. The record to wait for
    /// before anything is said that waited for one of the view before, if any.
    pub fn resume(&mut self, out: &mut Outbox<'_>) -> Option<RecordId> {
        let owned = self.pages.iter().filter(|(_, state)| state.ownership != Ownership::Elsewhere);
        let pages = self.commits.resume(owned.map(|(page, _)| page));
        self.commit_pages(pages, out);
        self.commits.pending()
    }

    /// Whether this node owns `page`.
    pub fn owns(&self, page: PageId) -> bool {
        self.pages.get(page).is_some_and(|state| state.ownership != Ownership::Elsewhere)
    }

    /// These pages are gone for good.
    pub fn forget(&mut self, pages: Range<u64>, out: &mut Outbox<'_>) {
        self.pages.remove_range(pages.clone());
        self.commits.forget(pages, out);
    }

    /// Whether the frame of `page` is neither mapped nor about to be.
    pub fn is_idle(&self, page: PageId) -> bool {
        self.pages.get(page).is_none_or(|state| {
            state.access == Access::None && state.ownership == Ownership::Elsewhere && state.pending.is_none()
        })
    }

    /// The commits of this node.
    pub fn commits_ref(&self) -> &crate::commit::Commits {
        &self.commits
    }

    /// The commits of this node.
    pub fn commits(&mut self) -> &mut crate::commit::Commits {
        &mut self.commits
    }
}
