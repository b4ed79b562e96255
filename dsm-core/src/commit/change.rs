//! What a change of the view means for commits: what was under way is committed anew, and so is what has too few holders.

use super::{Commits, Sources, State, postpone};
use crate::action::{Action, Replication};
use crate::copyset::Copyset;
use crate::ids::{NodeId, PageId, RecordId, Version, ViewId};
use crate::message::{Commit, Custody, Message};
use crate::outbox::Outbox;
use core::ops::Range;

impl Commits {
    /// This node has joined: not all pages have all their holders, and nothing that anybody keeps may go until they have.
    pub fn join(&mut self) {
        self.postponed.get_or_insert_default();
    }

    /// There will be somebody to keep commits, whom there was not: stores to these pages were not noticed. Of those with
    /// an open section, a part of it may be in the frame, and the state before it is nowhere: they wait for its end.
    pub fn begins_to_notice(&mut self, writable: impl Iterator<Item = PageId>) {
        let stored_to: Vec<PageId> = writable.chain(self.dirty.iter().copied()).collect();
        for page in stored_to {
            let twin = self.pages.get(page).is_some_and(|state| state.twin);
            if !twin && self.withholds(page) {
                self.dirty.insert(page);
                self.thin.insert(page);
            }
        }
    }

    /// Another view, to which these have come from the one before: records under way mean nothing any more, and what they
    /// had is dirty again. Copies that others kept and that are gone with them are missed.
    pub fn install(&mut self, view: ViewId, survivors: Copyset, buddies: Copyset) {
        self.view = view;
        self.clock = RecordId::NONE;
        self.last = RecordId::NONE;
        for record in core::mem::take(&mut self.records) {
            for page in record.pages {
                // What a withheld page had is set aside, if its section has stored to it, and in its frame otherwise:
                // were it dirty, it would wait for the section's end.
                let withheld = self.withholds(page);
                if !withheld {
                    self.dirty.insert(page);
                }
                // Of what was taken over, custody names whoever keeps anything: that it is too little is known by this.
                if withheld || record.thickens {
                    self.thin.insert(page);
                }
            }
        }
        self.unacked_pages = 0;
        self.left_behind = 0;
        self.incoming.clear();
        self.buddies = buddies;
        for state in self.pages.values_mut() {
            state.record = None;
            if let Some(custody) = &mut state.custody {
                custody.holders = custody.holders.intersection(survivors);
            }
        }
        self.postponed.get_or_insert_default().clear();
    }

    /// All members have recovered. Every one of the pages that this node owns, in ascending order, is to have all its
    /// holders again. What records under way had, and what is written since, is to be in one record, before anything that
    /// waits for them: the pages of it.
    pub fn resume(&mut self, owned: impl Iterator<Item = PageId>) -> Sources {
        if !self.is_on() {
            return Sources::default();
        }
        let Sources { mut frames, twins } = self.too_thin(|page| self.withholds(page), usize::MAX);
        frames.extend(self.committable());
        let mut states = self.pages.iter().peekable();
        let is_thin = |page: &PageId| {
            while states.next_if(|(before, _)| before < page).is_some() {}
            let custody = states.next_if(|(same, _)| same == page).and_then(|(_, state)| state.custody);
            match custody {
                Some(custody) => !self.buddies.minus(custody.holders).is_empty(),
                // Never committed: it will be when somebody asks for it, or its section ends.
                None => !self.dirty.contains(page),
            }
        };
        let mut thin = owned.filter(is_thin).collect();
        self.thin.append(&mut thin);
        Sources { frames, twins }
    }

    /// This node has taken over a page whose owner is gone; `kept` is what members reported that they keep of it. What
    /// this node has of it may be later than any of these: it is committed anew, in the background unless somebody waits
    /// for it, since nobody can have stored to it meanwhile. Who has one of the `copies` may keep a
    /// state besides, which is needed until then.
    pub fn adopt(&mut self, page: PageId, kept: &[(NodeId, Version)], copies: Copyset) {
        let version = kept.iter().map(|(_, version)| *version).max();
        let me = self.me;
        let holders = kept.iter().map(|(node, _)| *node).filter(|node| *node != me).collect();
        let state = self.pages.get_or_insert_with(page, State::default);
        state.kept = None;
        state.custody = version.map(|version| Custody { version, holders });
        if self.is_on() {
            self.thin.insert(page);
            // All states of earlier views: those of this one have a record number.
            let before = Version { view: self.view, record: RecordId::NONE };
            let postponed = self.postponed.get_or_insert_default();
            copies.iter().for_each(|holder| postpone(postponed, holder, page, before));
        }
    }

    /// Of these pages, which this node goes on owning, `kept` is what members reported that they keep; who has one of the
    /// `copies` may keep a state besides. What a message on its way would have released, is released anew.
    pub fn reported(&mut self, pages: Range<u64>, kept: &[(NodeId, Version)], copies: Copyset) {
        if kept.is_empty() && copies.is_empty() {
            return;
        }
        let postponed = self.postponed.get_or_insert_default();
        for (page, state) in self.pages.range_mut(pages) {
            let Some(custody) = &mut state.custody else {
                // Taken over in a view in which not all went on: it will be committed anew, as then.
                let before = Version { view: self.view, record: RecordId::NONE };
                copies.iter().for_each(|holder| postpone(postponed, holder, page, before));
                continue;
            };
            let besides = copies.minus(custody.holders);
            besides.iter().for_each(|holder| postpone(postponed, holder, page, custody.version));
            for &(node, version) in kept {
                if version < custody.version {
                    custody.holders = custody.holders.without(node);
                    postpone(postponed, node, page, custody.version);
                }
            }
        }
    }

    /// These pages are lost.
    pub fn forget(&mut self, pages: Range<u64>, out: &mut Outbox<'_>) {
        for (page, _) in self.pages.range_mut(pages.clone()).filter(|(_, state)| state.twin) {
            out.act(Action::Replicate(Replication::DropTwin { page }));
        }
        self.pages.remove_range(pages.clone());
        let pages = PageId(pages.start)..PageId(pages.end);
        for set in [&mut self.dirty, &mut self.thin] {
            for page in set.range(pages.clone()).copied().collect::<Vec<_>>() {
                set.remove(&page);
            }
        }
    }

    /// Whether all pages of this node have all their holders, and nothing is under way.
    pub fn is_replicated(&self) -> bool {
        !self.is_on() || self.thin.is_empty() && !self.records.iter().any(|record| record.thickens)
    }

    /// All members' pages have all their holders: what was kept besides may go.
    pub fn fully_replicated(&mut self, out: &mut Outbox<'_>) {
        for ((holder, page), before) in self.postponed.take().unwrap_or_default() {
            out.send_lazily(holder, Message::Commit(Commit::Release { page, before }));
        }
    }
}
