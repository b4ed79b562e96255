//! Carrying out what makes pages outlive their owner: copies for buddies, twins, records that count, frames that nobody
//! needs, pages that are lost. When which is due is the machine's decision.

use super::faults::Mapped;
use super::timers::Reminder;
use super::{Engine, patch};
use crate::error::Result;
use crate::signals;
use crate::testing::RecoveryTime;
use crate::transport::{Delivered, Frames};
use dsm_core::failpoint::Moment;
use dsm_core::{
    Access, Commit, Copyset, Lost, Message, NodeId, PageId, RecordId, Replication, Source, Time, Version,
    ViewId,
};
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// A frame that nobody needs is given back so late: the page may be on its way back, and a new frame costs more than an
/// old one.
const DISCARD_DELAY: Duration = Duration::from_millis(50);

/// So many pages are given back at a time, in as few calls as they have runs: that is done within a millisecond. Others
/// have their turns before there are more.
const DISCARDS_AT_ONCE: usize = 256;

/// Frames whose memory may be given back, if nobody needs them when it comes to that.
#[derive(Default)]
pub(super) struct Discards(BTreeSet<PageId>);

/// A recovery under way, or whose first waiting fault has not been resolved.
#[derive(Clone, Copy)]
pub(super) struct Recovering {
    view: ViewId,
    installed: Time,
    resumed: Option<Time>,
}

impl Engine {
    pub(super) fn replicate(&mut self, what: Replication) -> Result<()> {
        match what {
            Replication::SendCopy { to, page, source, message } => self.send_copy(to, page, source, &message),
            Replication::KeepTwin { page } => {
                let bytes = match self.copies.granted(page) {
                    Some(bytes) => Arc::from(bytes),
                    None => self.copy_of(page),
                };
                self.copies.keep_twin(page, bytes);
            }
            Replication::DropTwin { page } => self.copies.drop_twin(page),
            Replication::ApplyRecord { from, record, pages } => self.apply(from, record, &pages),
            Replication::DropRecords => self.copies.drop_records(),
            Replication::Discard { page } => self.discard_later(page),
            Replication::Poison { first, pages, lost } => self.poison(first, pages, lost)?,
            Replication::Resumed { view } => self.recovery_ends(view),
        }
        Ok(())
    }

    fn send_copy(&mut self, to: Copyset, page: PageId, source: Source, message: &Message) {
        let bytes = match source {
            Source::Frame => self.copy_of(page),
            Source::Twin => match self.copies.twin(page) {
                Some(twin) => twin,
                None => signals::die(&format!("{}: the twin of {page} is missing", self.me)),
            },
        };
        self.stats.pages_committed += 1;
        let patch = self.patch(message, &bytes);
        self.stats.pages_patched += u64::from(patch.is_some());
        for buddy in to.iter() {
            if let Some(patch) = &patch {
                self.queue(buddy, patch, None);
                self.mark_unflushed(buddy);
                continue;
            }
            if self.pass(Moment::Send, message.name()) {
                continue;
            }
            let Some(link) = self.links.get_mut(buddy.index()).and_then(Option::as_mut) else { continue };
            if let Err(error) = link.send_copy(message, Arc::clone(&bytes)) {
                signals::die(&format!("{}: cannot encode {message:?} to {buddy}: {error}", self.me));
            }
            self.mark_unflushed(buddy);
            self.pass_sent(buddy, message);
        }
        if let Message::Commit(Commit::Page { record, page }) = message {
            self.copies.note_sent(*page, *record, bytes);
            self.timers.set_within(Reminder::Discard, DISCARD_DELAY);
        }
    }

    /// What `message`, which has a page of a record behind it, says in fewer words, if that can be: `bytes` are the page's.
    fn patch(&self, message: &Message, bytes: &[u8]) -> Option<Message> {
        let Message::Commit(Commit::Page { record, page }) = message else { return None };
        let (base, before) = self.copies.last_sent(*page)?;
        let changes = patch::diff(before, bytes)?;
        let crc = crc32fast::hash(bytes);
        Some(Message::Commit(Commit::Patch { record: *record, page: *page, base, crc, changes }))
    }

    /// Makes of a patch what it stands for: the message that has a page behind it, and that page. Any other message stays as
    /// it is.
    pub(super) fn unpatch(
        &mut self,
        from: NodeId,
        message: Message,
        body: Delivered,
    ) -> (Message, Delivered) {
        let Message::Commit(Commit::Patch { record, page, base, crc, changes }) = message else {
            return (message, body);
        };
        let version = Version { view: self.machine.view().id(), record: base };
        let before: Option<Box<[u8]>> = match self.copies.in_record(from, base, page) {
            Some(bytes) => Some(Box::from(bytes)),
            None if self.machine.kept(page) == Some(version) => Some(Box::from(&*self.copy_of(page))),
            None => None,
        };
        let after = before.and_then(|mut bytes| patch::apply(&mut bytes, &changes).then_some(bytes));
        let Some(bytes) = after.filter(|bytes| crc32fast::hash(bytes) == crc) else {
            // The sender and this node do not have the same. Whose fault it is cannot be told, but it is this node that can be
            // done without; and nothing that comes after this would ever count here.
            signals::die(&format!("{}: what it keeps of {page} is not what {from} sent in {base}", self.me));
        };
        (Message::Commit(Commit::Page { record, page }), Delivered::Aside(bytes))
    }

    /// The bytes of a page that nobody may store to now.
    fn copy_of(&self, page: PageId) -> Arc<[u8]> {
        let frames = self.region.frames();
        let mut bytes = vec![0; frames.page_size()];
        frames.copy(page, 0, &mut bytes);
        Arc::from(bytes)
    }

    /// A record of a peer counts: its bytes become what this node keeps.
    fn apply(&mut self, from: NodeId, record: RecordId, pages: &[PageId]) {
        let mut bytes = self.copies.take_record(from, record);
        let frames = self.region.frames();
        for page in pages {
            let Some(bytes) = bytes.remove(page) else {
                signals::die(&format!("{}: {record} of {from} counts, but its {page} never came", self.me));
            };
            self.discards.0.remove(page);
            frames.fill(*page, 0, &bytes);
        }
        self.stats.records_kept += 1;
    }

    /// The bytes of `page` are about to be mapped: those that were set aside for its frame go there.
    pub(super) fn settle_frame(&mut self, page: PageId) {
        self.discards.0.remove(&page);
        if let Some(bytes) = self.copies.take_granted(page) {
            self.region.frames().fill(page, 0, &bytes);
        }
    }

    pub(super) fn discard_later(&mut self, page: PageId) {
        self.discards.0.insert(page);
        self.timers.set_within(Reminder::Discard, DISCARD_DELAY);
    }

    /// The bytes of `page` are on their way to its next owner. Without replicas nobody else keeps them until that has them.
    pub(super) fn keep_frame(&mut self, page: PageId) {
        if self.machine.view().replicas() == 0 {
            self.discards.0.remove(&page);
        }
    }

    /// Gives the memory of some frames back, those that were not put to use again.
    pub(super) fn discard_some(&mut self) -> Result<()> {
        self.copies.forget_all_sent();
        let some: Vec<PageId> = self.discards.0.iter().take(DISCARDS_AT_ONCE).copied().collect();
        let mut runs: Vec<Range<u64>> = Vec::new();
        for page in some {
            self.discards.0.remove(&page);
            if !self.machine.is_discardable(page) {
                continue;
            }
            match runs.last_mut() {
                Some(run) if run.end == page.0 => run.end += 1,
                Some(_) | None => runs.push(page.0..page.0 + 1),
            }
        }
        for run in runs {
            self.region.discard(PageId(run.start), run.end - run.start)?;
        }
        if !self.discards.0.is_empty() {
            self.timers.set_within(Reminder::Discard, Duration::ZERO);
        }
        Ok(())
    }

    /// Pages are lost. Who touches one from now on faults on it, and has the machine ask for that one again: only then is it
    /// poisoned. A run may be as long as the region, and to poison all of it would outlast the lease; nor would it last: a
    /// node that freezes unmaps all.
    pub(super) fn poison(&mut self, first: PageId, pages: u64, lost: Lost) -> Result<()> {
        if signals::note_lost(&self.geometry, first, pages, lost) {
            self.stats.lost_pages += pages;
        }
        let now = self.timers.now();
        for page in self.faults.awaited_in(first, pages) {
            self.faults.resolve(page, Access::Write, Mapped::Now, now, |_| {});
        }
        if pages == 1 { self.region.poison(first) } else { self.region.empty_run(first, pages) }
    }

    pub(super) fn recovery_begins(&mut self, view: ViewId) {
        // A further change before the last was recovered from prolongs the same recovery.
        let installed = self.recovering.filter(|it| it.resumed.is_none()).map(|it| it.installed);
        let installed = installed.unwrap_or_else(|| self.timers.now());
        self.recovering = Some(Recovering { view, installed, resumed: None });
    }

    fn recovery_ends(&mut self, view: ViewId) {
        let now = self.timers.now();
        self.stats.recoveries += 1;
        if let Some(recovering) = &mut self.recovering {
            recovering.resumed = Some(now);
            let took = now.since(recovering.installed);
            self.log.info(format!("recovered from the change to {view} in {took:?}"));
            self.node.note_recovery(RecoveryTime::new(view, recovering.installed, now));
        }
    }

    /// A fault that took so long is resolved at `now`. The first that had waited when a recovery began tells how long that
    /// took for the program.
    pub(super) fn note_resolved(&mut self, took: Duration, now: Time) {
        if let Some(Recovering { view, installed, resumed: Some(_) }) = self.recovering
            && took >= now.since(installed)
        {
            self.recovering = None;
            self.node.note_first_resolved(view, now);
        }
    }
}
