//! What the machine wants done: an ordered list, to be carried out completely before the next event.
//!
//! The order carries meaning: *protect*, then read the bytes, then *send*.

use crate::access::Access;
use crate::copyset::Copyset;
use crate::event::Timer;
use crate::ids::{Address, CallId, NodeId, PageId, RecordId, ViewId};
use crate::message::{Lost, Message, Payload, RootAnswer, SpanRange};
use crate::time::Time;

/// The actions of one event, in order. The driver drains it before it hands in the next event.
pub type Actions = Vec<Action>;

/// One intention of the machine.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Action {
    /// Reduce this node's access to a page. Once done, no store (`Read`), or no access at all (`None`), may land.
    Protect {
        /// The page.
        page: PageId,
        /// What remains: `Read` or `None`.
        access: Access,
    },
    /// Map a page with `access` and wake every thread that waits for it.
    Install {
        /// The page.
        page: PageId,
        /// `Read` or `Write`.
        access: Access,
        /// `Bytes`: the frame holds them. `Zero`: the frame is to be all zero. `Held`: the frame is mapped read-only
        /// already, and `access` is `Write`.
        payload: Payload,
    },
    /// A fault came for a page whose access suffices already: make sure that it is mapped so, and wake the threads.
    Refresh {
        /// The page.
        page: PageId,
        /// What it is to be mapped with.
        access: Access,
    },
    /// Send a message to a peer.
    Send {
        /// To whom; never this node itself.
        to: NodeId,
        /// What.
        message: Message,
    },
    /// Send a message to a peer that nobody waits for yet: it may be held back until the next message to that peer, but
    /// for no longer than [`crate::limits::HOLD_BACK_MAX`]. Order is kept.
    SendLazily {
        /// To whom; never this node itself.
        to: NodeId,
        /// What.
        message: Message,
    },
    /// Hold nothing back any longer that was to be sent to a peer.
    Flush {
        /// To whom.
        to: NodeId,
    },
    /// Send a message to a peer, and behind it the bytes of this node's frame of `page`.
    ///
    /// The frame does not change before the peer has the bytes: a page that is on its way is in a transaction, which
    /// ends with the receiver's confirmation. So an executor may read the frame as late as it likes.
    SendPage {
        /// To whom; never this node itself.
        to: NodeId,
        /// Which page.
        page: PageId,
        /// What.
        message: Message,
    },
    /// Something that makes pages outlive their owner: see [`Replication`].
    Replicate(Replication),
    /// Feed [`crate::Event::TimerFired`] once `at` has come. A timer of the same name is replaced.
    SetTimer {
        /// Its name.
        timer: Timer,
        /// When.
        at: Time,
    },
    /// Find out how far the instruction is for which the page was last installed; answer with
    /// [`crate::Event::Probed`].
    ProbeResidency {
        /// The page.
        page: PageId,
    },
    /// Answer a call.
    Complete {
        /// Which.
        call: CallId,
        /// With what.
        reply: Reply,
    },
    /// A fault of this node can never be resolved: end the process with a line that says so.
    Doom {
        /// The page.
        page: PageId,
        /// The node whose death is the cause.
        node: NodeId,
    },
    /// A block of this node's plain heap was dropped elsewhere.
    Freed {
        /// Where it begins.
        address: Address,
    },
    /// A peer sent what no correct peer sends: count it, log it, close its connection.
    Reject {
        /// Who.
        from: NodeId,
        /// What was wrong.
        cause: Cause,
    },
}

/// One intention about commits, and about what is left of them when nodes are gone.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Replication {
    /// Copy the bytes of a page as they are now, and send a message with them behind it to some peers.
    SendCopy {
        /// To whom; never this node itself.
        to: Copyset,
        /// Which page.
        page: PageId,
        /// Which bytes.
        source: Source,
        /// What.
        message: Message,
    },
    /// Copy the frame of a page, which nobody may store to now, aside: it holds the last committed state.
    KeepTwin {
        /// The page.
        page: PageId,
    },
    /// The bytes that were set aside are not needed any more.
    DropTwin {
        /// The page.
        page: PageId,
    },
    /// A record counts: put the bytes that came with it into the frames of these pages, which are not mapped, and throw
    /// the bytes of its other pages away.
    ApplyRecord {
        /// Whose record.
        from: NodeId,
        /// Which.
        record: RecordId,
        /// The pages.
        pages: Vec<PageId>,
    },
    /// Throw away what came of records that do not count yet.
    DropRecords,
    /// Nobody needs the frame of an unmapped page any more: its memory may be used for something else.
    Discard {
        /// The page.
        page: PageId,
    },
    /// Pages have been lost. A thread that touches one must be told, or end; it must never see zeros.
    Poison {
        /// The first page.
        first: PageId,
        /// How many.
        pages: u64,
        /// The first of them, who owned it last, and when they were found lost.
        lost: Lost,
    },
    /// All members have recovered from the change of the view: faults are served again.
    Resumed {
        /// The view.
        view: ViewId,
    },
}

/// Which bytes of a page.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Source {
    /// Those in its frame.
    Frame,
    /// Those that [`Replication::KeepTwin`] had set aside.
    Twin,
}

/// The answer to a command.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Reply {
    /// The lock is the caller's.
    Locked {
        /// Who held it last, if that node died with it.
        recovered: Option<NodeId>,
    },
    /// What was written is replicated.
    Synced,
    /// The section has these spans.
    Covered,
    /// The page is here, and can be read.
    Ensured,
    /// The page, or the domain that the lock owns, is lost.
    Lost(Lost),
    /// The lock is not the caller's; `holder` has it.
    LockDenied {
        /// Who holds it.
        holder: NodeId,
    },
    /// All members arrived.
    BarrierPassed {
        /// The view in which they did.
        view: ViewId,
    },
    /// Another thread of this node is in the barrier.
    Busy,
    /// Every member's program is done.
    Left,
    /// What the root's name stands for.
    Root(RootAnswer),
    /// The leased span.
    Span(SpanRange),
    /// No home had such a run of pages.
    SpanDenied {
        /// Pages that are free in all.
        free: u64,
        /// The longest run of them.
        largest: u64,
    },
    /// The span that holds the page.
    SpanFound(Option<SpanRange>),
    /// A peer is gone, and the call with it.
    PeerLost {
        /// Which peer.
        node: NodeId,
    },
}

/// What was wrong with a peer's message.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Cause {
    /// It speaks of a page outside the region.
    #[error("a page outside the region")]
    PageOutside,
    /// It speaks of an address outside the region.
    #[error("an address outside the region")]
    AddressOutside,
    /// It came to a node that is not the home of what it speaks of.
    #[error("a message for another home")]
    NotHome,
    /// It speaks for another node than its sender.
    #[error("a message in another node's name")]
    Impersonation,
    /// It names a node that is not a member.
    #[error("a node that is not a member")]
    NotMember,
    /// It is not what the protocol allows in this state.
    #[error("a message that this state does not allow")]
    OutOfTurn,
    /// A name, a count or a queue is beyond its limit.
    #[error("a field beyond its limit")]
    BeyondLimit,
}
