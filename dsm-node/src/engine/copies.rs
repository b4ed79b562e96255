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
    /// Pages as the last record had them that went to all of this node's buddies, while nobody else can have owned them.
    sent: HashMap<PageId, (RecordId, Arc<[u8]>)>,
    sent_bytes: usize,
}

/// So many bytes of pages that were sent are remembered: what is committed again and again is a few pages.
const SENT_MAX: usize = 4 << 20;

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

    /// A change of the view: nothing that came counts any more, and others may keep this node's commits. Twins stay: the
    /// sections that they belong to go on.
    pub fn drop_records(&mut self) {
        self.records.clear();
        self.granted.clear();
        self.forget_all_sent();
    }

    /// The page as `record` of `from` has it, which does not count yet.
    pub fn in_record(&self, from: NodeId, record: RecordId, page: PageId) -> Option<&[u8]> {
        self.records.get(&(from, record)).and_then(|pages| pages.get(&page)).map(AsRef::as_ref)
    }

    /// What a record of this node had last of `page`.
    pub fn last_sent(&self, page: PageId) -> Option<(RecordId, &[u8])> {
        self.sent.get(&page).map(|(record, bytes)| (*record, bytes.as_ref()))
    }

    /// A record of this node has this of `page`.
    pub fn note_sent(&mut self, page: PageId, record: RecordId, bytes: Arc<[u8]>) {
        if self.sent_bytes + bytes.len() > SENT_MAX {
            self.forget_all_sent();
        }
        self.sent_bytes += bytes.len();
        let before = self.sent.insert(page, (record, bytes));
        self.forget_replaced(before);
    }

    /// Others may own `page` from now on.
    pub fn forget_sent(&mut self, page: PageId) {
        if !self.sent.is_empty() {
            let before = self.sent.remove(&page);
            self.forget_replaced(before);
        }
    }

    /// The next record has whole pages: at rest nothing is remembered.
    pub fn forget_all_sent(&mut self) {
        self.sent.clear();
        self.sent_bytes = 0;
    }

    fn forget_replaced(&mut self, before: Option<(RecordId, Arc<[u8]>)>) {
        self.sent_bytes -= before.map_or(0, |(_, bytes)| bytes.len());
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
