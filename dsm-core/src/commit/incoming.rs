//! The records of those whose buddy this node is: they are set aside until they are whole, and count in order.

use super::{Commits, State};
use crate::action::Cause;
use crate::ids::{NodeId, PageId, RecordId, Version};
use std::collections::{BTreeMap, BTreeSet};

/// The records of another node, as they come.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct Incoming {
    /// The last one that counts.
    through: RecordId,
    partial: BTreeMap<RecordId, Partial>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
struct Partial {
    pages: BTreeSet<PageId>,
    /// The record before it, and how many pages it has.
    end: Option<(RecordId, u32)>,
}

/// Which pages a record that has come to count brings, for the caller to put into their frames.
pub(crate) struct Counted {
    pub record: RecordId,
    pub pages: Vec<PageId>,
}

impl Commits {
    /// One page of a record of `from` has come.
    pub fn record_page(&mut self, from: NodeId, id: RecordId, page: PageId) -> Result<(), Cause> {
        // No page is in it twice: it is bounded by the region, as the section is that has stored to all of it.
        let is_new = self.partial(from, id)?.pages.insert(page);
        is_new.then_some(()).ok_or(Cause::OutOfTurn)
    }

    /// The last of a record of `from` has come.
    pub fn record_end(
        &mut self,
        from: NodeId,
        id: RecordId,
        previous: RecordId,
        pages: u32,
    ) -> Result<(), Cause> {
        let partial = self.partial(from, id)?;
        if partial.end.is_some() || previous >= id {
            return Err(Cause::OutOfTurn);
        }
        partial.end = Some((previous, pages));
        Ok(())
    }

    fn partial(&mut self, from: NodeId, id: RecordId) -> Result<&mut Partial, Cause> {
        let incoming = self.incoming.entry(from).or_default();
        if id <= incoming.through {
            return Err(Cause::OutOfTurn);
        }
        Ok(incoming.partial.entry(id).or_default())
    }

    /// The next record of `from` that counts: it is whole, and so are all before it. Its pages are those of which it
    /// brings a later state than this node keeps.
    pub fn next_counted(&mut self, from: NodeId) -> Option<Counted> {
        let view = self.view;
        let incoming = self.incoming.get_mut(&from)?;
        let (&id, partial) = incoming.partial.first_key_value()?;
        let (previous, count) = partial.end?;
        if previous != incoming.through || usize::try_from(count) != Ok(partial.pages.len()) {
            return None;
        }
        let pages = incoming.partial.remove(&id)?.pages;
        incoming.through = id;
        let version = Version { view, record: id };
        let newer = pages.into_iter().filter(|page| {
            let state = self.pages.get_or_insert_with(*page, State::default);
            let newer = state.kept.is_none_or(|kept| kept < version);
            state.kept = state.kept.max(Some(version));
            newer
        });
        Some(Counted { record: id, pages: newer.collect() })
    }
}
