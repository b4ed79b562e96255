//! The directory for the pages homed at this node: who owns each, who has read copies, and whose turn it is.
//!
//! The home runs one transaction per page at a time (Li and Hudak, 1989, with a fixed manager per page). It decides
//! when a transaction starts and learns, by the requester's confirmation, when it has ended. It touches no page
//! itself; that the home's own node owns or wants a page is no special case.
//!
//! ```text
//!   Idle ── Request ──▶ Busy: forward to the owner, or grant; invalidate readers
//!   Busy ── Request ──▶ queued
//!   Busy ── Confirm ──▶ owner and readers as granted; next of the queue, or Idle
//! ```

use crate::access::{Access, Want};
use crate::action::{Action, Cause};
use crate::copyset::Copyset;
use crate::ids::{NodeId, PageId, TransactionId};
use crate::limits;
use crate::message::{Message, Payload};
use crate::outbox::Outbox;
use crate::page_map::PageMap;
use core::ops::Range;
use std::collections::VecDeque;

/// The directory of one home.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct Home {
    entries: PageMap<Entry>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
struct Entry {
    /// The last node that was granted a write; `None` while nobody ever was: the page is all zero.
    owner: Option<NodeId>,
    /// Nodes with a read copy, the owner not among them.
    readers: Copyset,
    active: Option<Fault>,
    queue: VecDeque<Fault>,
    /// Whether somebody waited for the page lately: whoever gets it is to confirm at once.
    contended: bool,
    /// How many more reads are granted as writes: see [`limits::MIGRATORY_GRANTS`].
    migratory: u8,
}

/// A request: its node is in the transaction's name.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Fault {
    transaction: TransactionId,
    want: Want,
}

impl Home {
    /// A node faulted on `page`.
    pub fn request(
        &mut self,
        page: PageId,
        transaction: TransactionId,
        want: Want,
        gone: Copyset,
        out: &mut Outbox<'_>,
    ) -> Result<(), Cause> {
        let entry = self.entries.get_or_insert_with(page, Entry::default);
        let asker = transaction.node;
        // A node has one fault per page under way. Its confirmation of an earlier one may not have come yet when
        // messages overtake each other: then that one is active, and this one waits its turn.
        if entry.queue.iter().any(|fault| fault.transaction.node == asker) {
            return Err(Cause::OutOfTurn);
        }
        if entry.active.is_some_and(|fault| fault.transaction == transaction) {
            return Err(Cause::OutOfTurn);
        }
        if let Some(active) = entry.active
            && !entry.contended
        {
            entry.contended = true;
            let hurry = Message::Hurry { page, transaction: active.transaction };
            out.send(active.transaction.node, hurry);
        }
        entry.queue.push_back(Fault { transaction, want });
        entry.advance(page, gone, out);
        Ok(())
    }

    /// The active transaction of `page` has ended.
    pub fn confirm(
        &mut self,
        page: PageId,
        transaction: TransactionId,
        gone: Copyset,
        out: &mut Outbox<'_>,
    ) -> Result<(), Cause> {
        let entry = self.entries.get_mut(page).ok_or(Cause::OutOfTurn)?;
        let fault = entry.active.take_if(|fault| fault.transaction == transaction).ok_or(Cause::OutOfTurn)?;
        entry.conclude(fault);
        entry.contended = !entry.queue.is_empty();
        entry.advance(page, gone, out);
        Ok(())
    }

    /// The pages that somebody has stored to, and whose each was last: whoever may store to it now, if that node is `gone`
    /// and so cannot tell by itself.
    pub fn written(&self, gone: Copyset) -> impl Iterator<Item = (PageId, NodeId)> + '_ {
        let owner = move |entry: &Entry| match entry.active {
            Some(Fault { transaction, want: Want::Write }) if gone.contains(transaction.node) => {
                Some(transaction.node)
            }
            Some(_) | None => entry.owner,
        };
        self.entries.iter().filter_map(move |(page, entry)| Some((page, owner(entry)?)))
    }

    /// Another view: the directory is told anew of these pages that `owner` owns them, and `readers` have read copies.
    pub fn restore(&mut self, pages: Range<u64>, owner: NodeId, readers: Copyset) {
        let entry = Entry { owner: Some(owner), readers, ..Entry::default() };
        for page in pages {
            *self.entries.get_or_insert_with(PageId(page), Entry::default) = entry.clone();
        }
    }

    /// A peer is gone. What it owned is lost, its read copies need no invalidation, and its faults end.
    pub fn peer_lost(&mut self, node: NodeId, gone: Copyset, out: &mut Outbox<'_>) {
        for (page, entry) in self.entries.iter_mut() {
            entry.readers = entry.readers.without(node);
            entry.queue.retain(|fault| fault.transaction.node != node);
            if let Some(fault) = entry.active.take_if(|fault| fault.transaction.node == node) {
                // Whether the grant reached it, nobody knows: for a write, the page must be taken for lost.
                if fault.want == Want::Write {
                    entry.conclude(fault);
                }
            } else if let (Some(fault), true) = (entry.active, entry.owner == Some(node)) {
                // The grant may be under way all the same: then this comes too late, and is ignored.
                fault.lost(page, node, out);
            }
            entry.advance(page, gone, out);
        }
    }

    /// Checks what must hold between events.
    pub fn invariants(&self) -> Result<(), String> {
        for (page, entry) in self.entries.iter() {
            if entry.owner.is_some_and(|owner| entry.readers.contains(owner)) {
                return Err(format!("the owner of {page} is also among its readers {:?}", entry.readers));
            }
            if entry.active.is_none() && !entry.queue.is_empty() {
                return Err(format!("{page} is idle, but {} faults wait for it", entry.queue.len()));
            }
            let asking: Copyset = entry.queue.iter().map(|fault| fault.transaction.node).collect();
            if asking.len() < entry.queue.len() {
                return Err(format!("a node waits twice for {page}: {:?}", entry.queue));
            }
            if entry.active.is_some() && !entry.queue.is_empty() && !entry.contended {
                return Err(format!("{:?} was not told that others wait for {page}", entry.active));
            }
        }
        Ok(())
    }

    /// Owner and readers of `page` while no transaction is active on it.
    pub fn holders(&self, page: PageId) -> Option<(Option<NodeId>, Copyset)> {
        self.entries
            .get(page)
            .filter(|entry| entry.active.is_none())
            .map(|entry| (entry.owner, entry.readers))
    }

    /// Whether `transaction` is active on `page` or waits for its turn.
    pub fn knows(&self, page: PageId, transaction: TransactionId) -> bool {
        self.entries.get(page).is_some_and(|entry| {
            entry.active.iter().chain(&entry.queue).any(|fault| fault.transaction == transaction)
        })
    }

    /// Whether this home told `granter` to pass `page` on with `access` for `transaction`.
    pub fn forwarded(
        &self,
        granter: NodeId,
        page: PageId,
        transaction: TransactionId,
        access: Access,
    ) -> bool {
        let asked = |fault: Fault| fault.transaction == transaction && fault.want.access() == access;
        self.entries
            .get(page)
            .is_some_and(|entry| entry.owner == Some(granter) && entry.active.is_some_and(asked))
    }

    /// The faults of `node` that have not ended.
    pub fn faults_of(&self, node: NodeId) -> impl Iterator<Item = (PageId, TransactionId)> + '_ {
        self.entries.iter().flat_map(move |(page, entry)| {
            let faults = entry.active.iter().chain(&entry.queue).map(|fault| fault.transaction);
            faults
                .filter(move |transaction| transaction.node == node)
                .map(move |transaction| (page, transaction))
        })
    }

    /// The pages that have an entry.
    pub fn pages(&self) -> impl Iterator<Item = PageId> + '_ {
        self.entries.keys()
    }

    /// Whether no transaction is active and none waits.
    pub fn is_quiet(&self) -> bool {
        self.entries.values().all(|entry| entry.active.is_none() && entry.queue.is_empty())
    }
}

impl Entry {
    /// Starts the next transaction, if none is active. A fault that cannot be served ends at once, and so does not
    /// hold up those behind it.
    fn advance(&mut self, page: PageId, gone: Copyset, out: &mut Outbox<'_>) {
        while self.active.is_none() {
            let Some(mut fault) = self.queue.pop_front() else { break };
            let asker = fault.transaction.node;
            let holds = self.readers.contains(asker) || self.owner == Some(asker);
            match (self.owner, fault.want) {
                (Some(owner), _) if gone.contains(owner) => {
                    fault.lost(page, owner, out);
                    continue;
                }
                // Who holds a copy can read it: no correct node asks.
                (_, Want::Read) if holds => {
                    out.act(Action::Reject { from: asker, cause: Cause::OutOfTurn });
                    continue;
                }
                (Some(_), Want::Read) if self.migratory > 0 => {
                    self.migratory -= 1;
                    fault.want = Want::Write;
                    self.start_write(page, fault.transaction, holds, out);
                }
                (_, Want::Read) => self.start_read(page, fault.transaction, out),
                (_, Want::Write) => {
                    if self.is_read_then_written_by(asker) {
                        self.migratory = limits::MIGRATORY_GRANTS;
                    }
                    self.start_write(page, fault.transaction, holds, out);
                }
            }
            self.active = Some(fault);
        }
    }

    /// Whether the page came to `asker` for a load, from another owner, and nobody else has loaded from it since: the
    /// mark of a page that moves from writer to writer (Stenström, Brorsson and Sandberg, ISCA 1993).
    fn is_read_then_written_by(&self, asker: NodeId) -> bool {
        self.owner.is_some_and(|owner| owner != asker) && self.readers == Copyset::EMPTY.with(asker)
    }

    fn start_read(&self, page: PageId, transaction: TransactionId, out: &mut Outbox<'_>) {
        let awaiting = Copyset::EMPTY;
        let contended = self.contended;
        match self.owner {
            None => {
                let grant = Message::Grant {
                    page,
                    transaction,
                    access: Access::Read,
                    payload: Payload::Zero,
                    awaiting,
                    contended,
                    custody: None,
                };
                out.send(transaction.node, grant);
            }
            Some(owner) => {
                out.send(
                    owner,
                    Message::Forward { page, transaction, want: Want::Read, awaiting, contended },
                );
            }
        }
    }

    /// The forward goes out before the invalidations: the page's way is the longer one.
    fn start_write(&self, page: PageId, transaction: TransactionId, holds: bool, out: &mut Outbox<'_>) {
        let asker = transaction.node;
        let mut awaiting = self.readers.without(asker);
        let contended = self.contended;
        match self.owner {
            Some(owner) if !holds => {
                out.send(
                    owner,
                    Message::Forward { page, transaction, want: Want::Write, awaiting, contended },
                );
            }
            owner => {
                // An upgrade: the owner, if it is another, holds just a read copy now.
                awaiting =
                    owner.filter(|owner| *owner != asker).map_or(awaiting, |owner| awaiting.with(owner));
                let payload = if holds { Payload::Held } else { Payload::Zero };
                let (access, custody) = (Access::Write, None);
                let grant =
                    Message::Grant { page, transaction, access, payload, awaiting, contended, custody };
                out.send(asker, grant);
            }
        }
        for reader in awaiting.iter() {
            out.send(reader, Message::Invalidate { page, transaction });
        }
    }

    /// What the directory says once `fault` has been granted.
    fn conclude(&mut self, fault: Fault) {
        let node = fault.transaction.node;
        match fault.want {
            Want::Read => self.readers = self.readers.with(node),
            Want::Write => {
                self.owner = Some(node);
                self.readers = Copyset::EMPTY;
            }
        }
    }
}

impl Fault {
    fn lost(self, page: PageId, node: NodeId, out: &mut Outbox<'_>) {
        out.send(self.transaction.node, Message::Lost { page, transaction: self.transaction, node });
    }
}
