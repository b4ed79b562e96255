//! What nodes say to each other. `docs/protocol.md` has the same table with its reasons.
//!
//! One fault is one transaction, named by its [`TransactionId`]. Its course, for a write miss with one reader:
//!
//! ```text
//! requester            home                 owner               reader
//!    |---- Request ----->|                    |                    |
//!    |                   |----- Forward ----->|                    |
//!    |                   |------------------ Invalidate ---------->|
//!    |<------------- Grant + page ------------|                    |
//!    |<----------------------------- Ack --------------------------|
//!    |---- Confirm ----->|                    |                    |
//! ```

use crate::access::{Access, Want};
use crate::copyset::Copyset;
use crate::ids::{Address, CallId, LockId, NodeId, PageId, RecordId, Ticket, TransactionId, Version, ViewId};
use serde::{Deserialize, Serialize};

/// What a grant carries.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Payload {
    /// The page's bytes follow the message.
    Bytes,
    /// Nobody has written the page: it is all zero, and nothing follows.
    Zero,
    /// The requester holds a valid read copy: an upgrade moves no data.
    Held,
}

/// Who holds the last committed state of a page, besides its owner, and which state that is. It goes along with the
/// page's ownership.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Custody {
    /// The committed state.
    pub version: Version,
    /// Nodes that keep it until a later one is replicated.
    pub holders: Copyset,
}

/// What a node holds of a run of pages, as it reports it after a change of the view.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct PageRun {
    /// The first page.
    pub first: PageId,
    /// How many pages.
    pub pages: u64,
    /// What is held of each of them.
    pub holding: Holding,
}

/// A page that is gone for good: no live node has its last state that others may have seen.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Lost {
    /// The page; of a run of pages, the first.
    pub page: PageId,
    /// Who owned it last, as far as its home knew.
    pub last_owner: Option<NodeId>,
    /// The view in whose recovery it was found lost.
    pub view: ViewId,
}

/// What a node holds of a page.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Holding {
    /// It has been lost.
    Lost {
        /// Who owned it last, as far as its home knew.
        last_owner: Option<NodeId>,
        /// The view in whose recovery it was found lost.
        view: ViewId,
    },
    /// Nothing, but as its home it knows that somebody has stored to it.
    Known {
        /// Whose it was last.
        owner: Option<NodeId>,
    },
    /// A committed state, kept for others.
    Kept(Version),
    /// A read copy; it may be a kept state besides.
    Copy,
    /// The page itself.
    Owned,
}

/// To whom a span of pages was leased.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum SpanOwner {
    /// The plain heap of one node.
    Node(NodeId),
    /// The arena of the domain that begins at this address.
    Domain(Address),
    /// A domain of its own: the span's first address is the domain's.
    NewDomain,
}

/// A run of pages, leased as one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct SpanRange {
    /// The first page.
    pub first: PageId,
    /// How many pages.
    pub pages: u64,
    /// Whose they are.
    pub owner: SpanOwner,
}

/// A part of the region, by who grants spans of it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Zone {
    /// Spans of up to a segment, each granted by the home of its segment.
    Small,
    /// Longer spans, and the last resort for all: granted by the coordinator.
    Large,
}

/// How a request for a root by name ended.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum RootAnswer {
    /// The name is new: the asker is to create the object, and to publish or abandon it.
    Create,
    /// The object exists.
    Found(Address),
    /// The name stands for an object of another type, whose layout identity this is.
    OtherLayout(u64),
    /// The name's home keeps as many names, or as many waiting claims of the asker, as it can.
    TooMany,
}

/// One message from one node to another, or to itself.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Message {
    /// Requester → home: a thread of mine faulted on `page`.
    Request {
        /// The page.
        page: PageId,
        /// The fault's transaction.
        transaction: TransactionId,
        /// What the fault wants.
        want: Want,
    },
    /// Home → owner: give `page` to the transaction's node; for a write, give it up.
    Forward {
        /// The page.
        page: PageId,
        /// The fault's transaction; its node is the requester.
        transaction: TransactionId,
        /// What the fault wants.
        want: Want,
        /// Readers whose acks the requester must await; passed on in the grant.
        awaiting: Copyset,
        /// Whether others wait for the page; passed on in the grant.
        contended: bool,
    },
    /// Home → reader: drop your copy of `page`, then tell the transaction's node.
    Invalidate {
        /// The page.
        page: PageId,
        /// The fault's transaction; its node is the requester.
        transaction: TransactionId,
    },
    /// Reader → requester: my copy of `page` is gone.
    Ack {
        /// The page.
        page: PageId,
        /// The transaction for which it was dropped.
        transaction: TransactionId,
        /// From the owner, whose copy had become one of the read copies: what goes along with ownership.
        custody: Option<Custody>,
    },
    /// Owner or home → requester: `page` is yours, once all of `awaiting` have acked.
    Grant {
        /// The page.
        page: PageId,
        /// The transaction that it answers.
        transaction: TransactionId,
        /// What it allows.
        access: Access,
        /// Where the bytes are.
        payload: Payload,
        /// Readers whose acks must come before a write is allowed.
        awaiting: Copyset,
        /// Whether others wait for the page: the confirmation must not be held back.
        contended: bool,
        /// From an owner that gives the page up, once it is replicated.
        custody: Option<Custody>,
    },
    /// Requester → home: the grant is in force here; the page is free for the next transaction. While nobody waits for
    /// the page, it may be held back for a moment, to travel with the next message.
    Confirm {
        /// The page.
        page: PageId,
        /// The transaction that ends.
        transaction: TransactionId,
    },
    /// Home → requester: others have come to wait for the page; do not hold the confirmation back.
    Hurry {
        /// The page.
        page: PageId,
        /// The transaction that they wait for.
        transaction: TransactionId,
    },
    /// Home → requester: the transaction cannot end, because this node is gone and with it the page or its readers.
    Lost {
        /// The page.
        page: PageId,
        /// The transaction that cannot end.
        transaction: TransactionId,
        /// Who is gone.
        node: NodeId,
    },
    /// Node → lock's home: one of my threads wants the lock.
    LockRequest {
        /// The lock.
        lock: LockId,
        /// The waiting call.
        ticket: Ticket,
        /// Whether to queue while another holds it.
        wait: bool,
    },
    /// Lock's home → node: the lock is that call's.
    LockGrant {
        /// The lock.
        lock: LockId,
        /// The call.
        ticket: Ticket,
        /// Who held it last, if that node died with it.
        recovered: Option<NodeId>,
    },
    /// Lock's home → node: the call does not get the lock (not waiting, or withdrawn); `holder` has it.
    LockDenied {
        /// The lock.
        lock: LockId,
        /// The call.
        ticket: Ticket,
        /// Who holds it.
        holder: NodeId,
    },
    /// Node → lock's home: the call gave up waiting.
    LockWithdraw {
        /// The lock.
        lock: LockId,
        /// The call.
        ticket: Ticket,
    },
    /// Holder → lock's home: the lock is free again.
    LockRelease {
        /// The lock.
        lock: LockId,
        /// The call to which it had been granted.
        ticket: Ticket,
    },
    /// Node → coordinator: one of my threads reached the barrier for the `generation`th time.
    BarrierArrive {
        /// Counts the barriers of the cluster.
        generation: u64,
    },
    /// Coordinator → all: every member has arrived.
    BarrierComplete {
        /// Counts the barriers of the cluster.
        generation: u64,
        /// The view in which it completed.
        view: ViewId,
    },
    /// Node → coordinator: my program is done; I serve until all are.
    LeaveArrive,
    /// Coordinator → all: every program is done; nobody needs any page any more.
    LeaveComplete,
    /// Node → name's home: what does this name stand for?
    RootClaim {
        /// The name.
        name: String,
        /// Identity of the layout of the type that the asker expects.
        layout: u64,
        /// The waiting call.
        ticket: Ticket,
    },
    /// Name's home → node: the answer to a claim.
    RootAnswered {
        /// The call.
        ticket: Ticket,
        /// The answer.
        answer: RootAnswer,
    },
    /// Creator → name's home: the object stands at `address`.
    RootPublish {
        /// The name.
        name: String,
        /// Where it is.
        address: Address,
    },
    /// Creator → name's home: creating it failed; let the next claimant try.
    RootAbandon {
        /// The name.
        name: String,
    },
    /// Node → a home of segments, or the coordinator for the large zone: lease me `pages` pages in a row.
    SpanLease {
        /// How many pages.
        pages: u64,
        /// From which part of the region.
        zone: Zone,
        /// Who is to own them.
        owner: SpanOwner,
        /// The waiting call.
        ticket: Ticket,
    },
    /// Home → node: the lease.
    SpanLeased {
        /// The call.
        ticket: Ticket,
        /// The pages.
        span: SpanRange,
    },
    /// Home → node: no such run is free here.
    SpanDenied {
        /// The call.
        ticket: Ticket,
        /// Pages that are free at this home.
        free: u64,
        /// The longest run of them.
        largest: u64,
    },
    /// Node → span's home: the span that begins at `first` is free again.
    SpanReturn {
        /// Its first page.
        first: PageId,
    },
    /// Node → span's home: which span holds this page?
    SpanFind {
        /// The page.
        page: PageId,
        /// The waiting call.
        ticket: Ticket,
    },
    /// Home → node: the span that holds the page, if any does.
    SpanFound {
        /// The call.
        ticket: Ticket,
        /// The span.
        span: Option<SpanRange>,
    },
    /// Node → span's home → lessee: the block at `address` was dropped; its bytes may be used again.
    Free {
        /// Where the block begins.
        address: Address,
    },
    /// Owner ↔ buddy: what a node writes is to outlive it.
    Commit(Commit),
    /// Home → others: what its successor would have to know.
    Note(Note),
    /// Member → all, after a change of the view: see [`Report`].
    Report(Report),
}

/// What commits take: see `docs/protocol.md`.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Commit {
    /// Owner → buddy: the bytes of one page of a record follow.
    Page {
        /// The record.
        record: RecordId,
        /// The page.
        page: PageId,
    },
    /// Owner → buddy: one page of a record, by how it differs from the page in an earlier record. Machines know nothing of
    /// bytes: whoever carries messages makes [`Commit::Page`] of it, with the page behind it, before a machine hears it.
    Patch {
        /// The record.
        record: RecordId,
        /// The page.
        page: PageId,
        /// The last record before it that has the page: nobody else has owned that since.
        base: RecordId,
        /// The checksum of the page in this record: CRC-32 (ISO-HDLC).
        crc: u32,
        /// What differs, in ascending order.
        changes: Vec<Change>,
    },
    /// Owner → buddy: the record is whole once `pages` of its pages are there, and counts once `previous` does.
    End {
        /// The record.
        record: RecordId,
        /// The sender's record before it in this view; [`RecordId::NONE`] for the first.
        previous: RecordId,
        /// How many pages it has.
        pages: u32,
    },
    /// Buddy → owner: the record, and all before it, are kept here.
    Ack {
        /// The record.
        record: RecordId,
    },
    /// Owner → custodian: a state of the page later than `before` is replicated; yours need not be kept any longer.
    Release {
        /// The page.
        page: PageId,
        /// States before this one may go.
        before: Version,
    },
}

/// Bytes of a page that differ from those that were there.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Change {
    /// Where they begin in the page.
    pub at: u32,
    /// What they are now.
    pub bytes: Vec<u8>,
}

/// A note of a home.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Note {
    /// Home → all: a span is leased.
    Span {
        /// The span.
        span: SpanRange,
    },
    /// Home → all: a span is free again.
    SpanReturned {
        /// Its first page.
        first: PageId,
    },
    /// Home → buddy: a root has its address.
    Root {
        /// Its name.
        name: String,
        /// Identity of the layout of its type.
        layout: u64,
        /// Where it is.
        address: Address,
    },
}

/// Where a member stands, as it reports it after a change of the view.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Standing {
    /// How many barriers it has passed.
    pub generation: u64,
    /// Whether its program is done.
    pub left: bool,
    /// The view by which its directory goes; [`ViewId::NONE`] if it has none.
    pub directory: ViewId,
    /// The members over which the homes of that view are spread.
    pub homes: Copyset,
    /// Of members since that view, those that are gone.
    pub gone: Copyset,
    /// The last view of which it knows that all pages were replicated; [`ViewId::NONE`] if it knows of none.
    pub replicated: ViewId,
}

/// The segments that some dead homes had among some members.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Retired {
    /// The members over which homes were spread.
    pub homes: Copyset,
    /// Those of them that died.
    pub dead: Copyset,
}

/// What members tell each other after a change of the view, until all pages are replicated again.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Report {
    /// Member → all, after a change of the view: pages that it holds, by run. Any number of these come before the
    /// [`Report::End`].
    Pages {
        /// The runs, in ascending order: those of what is held, and apart from them those of what is only known.
        runs: Vec<PageRun>,
    },
    /// Member → all: locks that threads of the sender hold.
    Locks {
        /// The locks, and the calls that acquired them.
        held: Vec<(LockId, CallId)>,
    },
    /// Member → all: locks whose holders died with them, as far as the sender knows as their home, and whose each was.
    Orphans {
        /// The locks, and who died with each.
        locks: Vec<(LockId, NodeId)>,
    },
    /// Member → all: spans that the sender knows to be leased.
    Spans {
        /// The spans.
        spans: Vec<SpanRange>,
    },
    /// Member → all: a root that the sender knows, or is creating.
    Root {
        /// Its name.
        name: String,
        /// Identity of the layout of its type.
        layout: u64,
        /// Where it is, once it is.
        address: Option<Address>,
    },
    /// Member → all: segments of which nobody leases anything any more, since nobody knows what of them the dead had
    /// leased.
    Retired(Retired),
    /// Member → all: of each node with its buddies, in each view since all pages were last known to be replicated, those
    /// that live. Where none does, what they alone had is gone.
    Groups {
        /// The groups.
        groups: Vec<Copyset>,
    },
    /// Member → all: the report is complete.
    End(Standing),
    /// Member → all: the sender has all reports and has drawn the conclusions; it goes on once all have.
    Ready,
    /// Member → all: all pages that the sender owns are replicated in this view.
    Replicated,
}

impl Message {
    /// The name of its kind.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Message::Request { .. } => "Request",
            Message::Forward { .. } => "Forward",
            Message::Invalidate { .. } => "Invalidate",
            Message::Ack { .. } => "Ack",
            Message::Grant { .. } => "Grant",
            Message::Confirm { .. } => "Confirm",
            Message::Hurry { .. } => "Hurry",
            Message::Lost { .. } => "Lost",
            Message::LockRequest { .. } => "LockRequest",
            Message::LockGrant { .. } => "LockGrant",
            Message::LockDenied { .. } => "LockDenied",
            Message::LockWithdraw { .. } => "LockWithdraw",
            Message::LockRelease { .. } => "LockRelease",
            Message::BarrierArrive { .. } => "BarrierArrive",
            Message::BarrierComplete { .. } => "BarrierComplete",
            Message::LeaveArrive => "LeaveArrive",
            Message::LeaveComplete => "LeaveComplete",
            Message::RootClaim { .. } => "RootClaim",
            Message::RootAnswered { .. } => "RootAnswered",
            Message::RootPublish { .. } => "RootPublish",
            Message::RootAbandon { .. } => "RootAbandon",
            Message::SpanLease { .. } => "SpanLease",
            Message::SpanLeased { .. } => "SpanLeased",
            Message::SpanDenied { .. } => "SpanDenied",
            Message::SpanReturn { .. } => "SpanReturn",
            Message::SpanFind { .. } => "SpanFind",
            Message::SpanFound { .. } => "SpanFound",
            Message::Free { .. } => "Free",
            // One page of a record, either way.
            Message::Commit(Commit::Page { .. } | Commit::Patch { .. }) => "Commit::Page",
            Message::Commit(Commit::End { .. }) => "Commit::End",
            Message::Commit(Commit::Ack { .. }) => "Commit::Ack",
            Message::Commit(Commit::Release { .. }) => "Commit::Release",
            Message::Note(_) => "Note",
            Message::Report(Report::Pages { .. }) => "Report::Pages",
            Message::Report(Report::Ready) => "Report::Ready",
            Message::Report(Report::Replicated) => "Report::Replicated",
            Message::Report(
                Report::Locks { .. }
                | Report::Orphans { .. }
                | Report::Spans { .. }
                | Report::Root { .. }
                | Report::Retired(_)
                | Report::Groups { .. }
                | Report::End(_),
            ) => "Report",
        }
    }
}
