//! Bytes of pages that are in no frame: those of records that do not count yet, those that came for a frame that keeps
//! something, and the twins of pages that are being written in a section. Which are needed when is the machine's business.

use dsm_core::{Commit, Message, NodeId, PageId, RecordId, wire};
use std::collections::HashMap;
use std::sync::Arc;

/// The bytes of a record's pages.
type Record = HashMap<PageId, Box<[u8]>>;

/// The copies of one node.
#[derive(Default)]
pub(super) struct Copies {
    /// The pages of records that do not count yet.
    records: HashMap<(NodeId, RecordId), Record>,
    /// Pages that came for frames that keep something for others.
    granted: HashMap<PageId, Box<[u8]>>,
    /// Committed states of pages that are being written.
    twins: HashMap<PageId, Arc<[u8]>>,
}

impl Copies {
    /// Keeps the bytes behind a message that is about to be handed to the machine.
    pub fn put_aside(&mut self, from: NodeId, message: &Message, bytes: Box<[u8]>) {
        if let Message::Commit(Commit::Page { record, page }) = message {
            self.records.entry((from, *record)).or_default().insert(*page, bytes);
        } else if let Some(page) = wire::page_behind(message) {
            self.granted.insert(page, bytes);
        }
    }

    /// The bytes behind a message have gone to their frame: what was set aside for it before is not what
    /// is to be mapped.
    pub fn supersede(&mut self, message: &Message) {
        if let Some(page) = wire::page_behind(message) {
            self.granted.remove(&page);
        }
    }

    /// The bytes that came for the frame of `page` and are not in it.
    pub fn take_granted(&mut self, page: PageId) -> Option<Box<[u8]>> {
        self.granted.remove(&page)
    }

    /// As [`Copies::take_granted`], but they stay.
    pub fn granted(&self, page: PageId) -> Option<&[u8]> {
        self.granted.get(&page).map(AsRef::as_ref)
    }

    /// The pages of a record that counts now.
    pub fn take_record(&mut self, from: NodeId, record: RecordId) -> Record {
        self.records.remove(&(from, record)).unwrap_or_default()
    }

    /// A change of the view: nothing that came counts any more. Twins stay: the sections that they belong to go on.
    pub fn drop_records(&mut self) {
        self.records.clear();
        self.granted.clear();
    }

    /// Keeps the committed state of a page.
    pub fn keep_twin(&mut self, page: PageId, bytes: Arc<[u8]>) {
        self.twins.insert(page, bytes);
    }

    /// The committed state of a page.
    pub fn twin(&self, page: PageId) -> Option<Arc<[u8]>> {
        self.twins.get(&page).cloned()
    }

    /// The committed state of a page is needed no more.
    pub fn drop_twin(&mut self, page: PageId) {
        self.twins.remove(&page);
    }
}
