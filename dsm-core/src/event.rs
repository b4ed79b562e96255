//! What the machine is told: facts, never questions.

use crate::access::Want;
use crate::ids::{Address, CallId, LockId, NodeId, PageId};
use crate::message::{Message, SpanOwner, SpanRange};
use crate::view::View;

/// A fact, for [`crate::Machine::handle`].
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Event {
    /// A thread of this node faulted. Duplicates are normal: the kernel reports a fault again after a signal.
    Fault {
        /// The page.
        page: PageId,
        /// What the instruction wants.
        want: Want,
    },
    /// A message came from a peer. If it is a grant with bytes, they are in the page's frame already when
    /// [`crate::Machine::reserves`] said so, and were discarded otherwise.
    Received {
        /// Who sent it.
        from: NodeId,
        /// What it says.
        message: Message,
    },
    /// A timer that the machine had set ran out.
    TimerFired(Timer),
    /// The answer to [`crate::Action::ProbeResidency`].
    Probed {
        /// The page.
        page: PageId,
        /// How far the instruction is for which the page was last installed.
        progress: Progress,
    },
    /// An application thread of this node asks for something. The answer is one [`crate::Action::Complete`] with the
    /// same call, except for commands that say that they have none.
    Command {
        /// The driver's name for the call.
        call: CallId,
        /// What is asked.
        command: Command,
    },
    /// The members have agreed on another view. Messages of earlier views do not come any more, and those of later ones
    /// not before that view is installed.
    ViewInstalled(View),
    /// This node was let into the view that its machine was made with ([`crate::Machine::joining`]): the first fact of
    /// such a machine, and of no other.
    Joined,
    /// A peer is gone for good, and there is no membership to agree on a view without it: nothing more will come from it, and nothing that is sent will reach it.
    PeerLost {
        /// Which.
        node: NodeId,
    },
}

/// How far the instruction is for which a page was installed, as far as the driver can tell.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Progress {
    /// It has retired, or its thread is gone.
    Retired,
    /// Its thread has not run since.
    Waiting,
    /// Its thread faulted on another page at once: the instruction may need both.
    Straddling {
        /// The other page, for which the thread waits.
        awaits: PageId,
    },
}

/// What an application thread may ask for.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Command {
    /// Acquire a lock; queue for it if `wait`. Answer: `Locked`, `LockDenied`, or `Lost` if the lock's
    /// domain is.
    Lock {
        /// The lock.
        lock: LockId,
        /// Whether to wait. A home that keeps as many waiting as it can denies the lock all the same.
        wait: bool,
    },
    /// Give up a waiting `Lock` call. No answer of its own: the withdrawn call is answered, with `LockDenied`, or with
    /// `Locked` if the grant was under way.
    LockWithdraw {
        /// The lock.
        lock: LockId,
        /// The waiting call.
        waiting: CallId,
    },
    /// The domain of a held lock has these spans besides its first page: they are not committed before its section
    /// ends. To be said, and its answer awaited, before the section stores to them; spans that this node leases for the
    /// domain while the section is open need not be told. Answer: `Covered`.
    Cover {
        /// The lock.
        lock: LockId,
        /// The spans.
        spans: Vec<SpanRange>,
    },
    /// Release a lock, once what was written is replicated. No answer.
    Unlock {
        /// The lock.
        lock: LockId,
        /// The call that acquired it.
        acquired: CallId,
    },
    /// Release several locks of one thread, once what was written is replicated: their sections are in one record. No
    /// answer.
    UnlockTogether {
        /// The locks, and for each the call that acquired it.
        locks: Vec<(LockId, CallId)>,
    },
    /// Bring a page here, readable. Answer: `Ensured`, or `Lost`.
    Ensure {
        /// The page.
        page: PageId,
    },
    /// Wait until what was written outside open sections is replicated. Answer: `Synced`.
    Sync,
    /// Wait for all members. Answer: `BarrierPassed`, or `Busy` if another thread of this node is in it.
    Barrier,
    /// Wait until every member's program is done. Answer: `Left`.
    Leave,
    /// Ask for a root object. Answer: `Root`.
    RootClaim {
        /// Its name.
        name: String,
        /// The layout identity of the type that the caller expects.
        layout: u64,
    },
    /// Tell where the object stands that a claim asked this node to create. No answer.
    RootPublish {
        /// Its name.
        name: String,
        /// Where it is.
        address: Address,
    },
    /// Tell that creating it failed. No answer.
    RootAbandon {
        /// Its name.
        name: String,
    },
    /// Lease a run of pages from the region. Answer: `Span` or `SpanDenied`.
    SpanLease {
        /// How many pages.
        pages: u64,
        /// Who is to own them.
        owner: SpanOwner,
    },
    /// Give a leased run back, once the sections are replicated that are open on this node now. No answer.
    SpanReturn {
        /// Its first page.
        first: PageId,
    },
    /// Find the leased run that holds a page. Answer: `SpanFound`.
    SpanFind {
        /// The page.
        page: PageId,
    },
    /// A block of the plain heap was dropped here. Its lessee, which may be this node, is told once the sections are
    /// replicated that are open on this node now. No answer.
    Free {
        /// Where it begins.
        address: Address,
    },
}

/// A timer, by what it is for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Timer {
    /// A page was asked for before its instruction had retired: look again.
    Residency(PageId),
}
