//! What can go wrong, said so that a user knows what happened, where, and what to do.

use crate::node::Node;
use crate::sync::DsmMutexGuard;
use dsm_core::{Geometry, GeometryError, NodeId, Reply};
use std::fmt;
use std::io;
use std::time::Duration;

/// The result of most calls of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a call failed. Its `Debug` reads like its `Display`, so that `fn main() -> Result<(), Error>` ends with a
/// sentence.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The configuration cannot work: the message names the value and what it should be.
    #[error("configuration: {0}")]
    Config(String),
    /// The region's shape cannot be.
    #[error("configuration: {0}")]
    Geometry(#[from] GeometryError),
    /// Two nodes disagree on something that all must agree on.
    #[error(
        "rank {theirs_rank} and rank {ours_rank} disagree on the {what}: {theirs} there, {ours} here; start all nodes with the same value"
    )]
    Mismatch {
        /// What they disagree on, such as "page size".
        what: &'static str,
        /// This node's rank.
        ours_rank: u32,
        /// This node's value.
        ours: String,
        /// The other node's rank.
        theirs_rank: u32,
        /// The other node's value.
        theirs: String,
    },
    /// A type has another layout than the one that the cluster knows under the same name.
    #[error(
        "{name:?} has layout {found} in the cluster, but {expected} here; build all nodes from the same types with the same compiler"
    )]
    LayoutMismatch {
        /// The name: of a root, or of a type.
        name: String,
        /// This node's layout.
        expected: String,
        /// The cluster's layout.
        found: String,
    },
    /// The kernel lacks something, or does not permit it.
    #[error("{what}; {fix} (`dsm doctor` checks everything that a node needs)")]
    Unsupported {
        /// What is missing.
        what: String,
        /// What to do about it.
        fix: String,
    },
    /// The rendezvous could not be reached, or did not answer.
    #[error("rendezvous {address}: {cause}")]
    Rendezvous {
        /// Its address.
        address: String,
        /// What happened there.
        cause: String,
    },
    /// The rendezvous refused this node.
    #[error("rendezvous {address} refused rank {rank}: {cause}")]
    Refused {
        /// Its address.
        address: String,
        /// The rank that this node asked for.
        rank: u32,
        /// Its reason.
        cause: String,
    },
    /// This process has joined a cluster before.
    #[error("this process has joined a cluster already; a process joins once, a rejoin is a new process")]
    AlreadyJoined,
    /// This process has not joined a cluster, or has left it.
    #[error("this process is not in a cluster: it has not joined, or has left")]
    NotJoined,
    /// What this call needed is lost: it went with every node that held it.
    #[error("{0}")]
    Lost(Lost),
    /// The other members took this node for dead and went on without it. Nothing that it did since reached them.
    #[error(
        "this node was evicted: view {view} is without it, because the others took it for dead; start it again as a new process"
    )]
    Evicted {
        /// The first view without this node, or the last that it knew of if it never learnt which that was.
        view: u64,
    },
    /// This node could not reach a majority for as long as it waits for one: it may do nothing more, since the others,
    /// if they live, have gone on without it.
    #[error(
        "no quorum: a majority of the members could not be reached in time, so this node may not go on; start it again when they can be, as a new process"
    )]
    NoQuorum,
    /// The region has no such run of free memory.
    #[error(
        "out of shared memory: asked for {asked} bytes, {free} bytes are free, the largest run has {largest}; join with a larger region_size"
    )]
    OutOfMemory {
        /// Bytes asked for.
        asked: u64,
        /// Bytes free in all.
        free: u64,
        /// Bytes in the longest free run.
        largest: u64,
    },
    /// Another thread of this node is in the same call.
    #[error("another thread of this node is in {call}; one thread per node calls it")]
    Busy {
        /// Which call.
        call: &'static str,
    },
    /// A call that waits for other nodes was made while this thread holds a lock.
    #[error("{call} was called while this thread holds a guard; drop the guard first")]
    InCriticalSection {
        /// Which call.
        call: &'static str,
    },
    /// A lock could not be had.
    #[error("{0}")]
    Lock(LockFailure),
    /// A collection that does not lie in the region was asked to grow: it was moved out of its lock or box.
    #[error(
        "a collection at {address:#x} is not in the shared region: it was moved out of its lock, and cannot be used"
    )]
    NotInRegion {
        /// Where it lies.
        address: usize,
    },
    /// A collection that has elements was moved, from the lock or box in whose memory they lie, into another.
    #[error(
        "a collection at {address:#x} was moved here from another lock or box, where its elements still are; move the elements one by one instead"
    )]
    Moved {
        /// Where it lies now.
        address: usize,
    },
    /// A name, an argument or a length is beyond what the call takes.
    #[error("{0}")]
    Argument(String),
    /// The operating system refused.
    #[error("{what}: {source}")]
    Io {
        /// What was attempted.
        what: String,
        /// Its answer.
        source: io::Error,
    },
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Error {
    /// An operating system's refusal, with what was attempted.
    pub(crate) fn io(what: impl Into<String>, source: impl Into<io::Error>) -> Error {
        Error::Io { what: what.into(), source: source.into() }
    }

    /// The engine answered a call with what does not answer it. This is a fault of this crate, not of its user.
    pub(crate) fn unexpected(call: &'static str, reply: Reply) -> Error {
        Error::Io {
            what: format!("{call} was answered with {reply:?}"),
            source: io::Error::from(io::ErrorKind::InvalidData),
        }
    }
}

/// Memory that went with every node that held it. What is lost stays lost: what was there is to be made anew, elsewhere.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub struct Lost {
    /// A page that is lost, counted from the region's base. Of a lock's memory, all is lost if one page is.
    pub page: u64,
    /// Where the page begins: the same on every node.
    pub address: u64,
    /// The rank that owned it last, if any survivor knows.
    pub last_owner: Option<u32>,
    /// The view in whose recovery it was found lost.
    pub view: u64,
}

impl Lost {
    /// What the machine says of `lost`, in a region of this shape.
    pub(crate) fn new(geometry: &Geometry, lost: dsm_core::Lost) -> Lost {
        Lost {
            page: lost.page.0,
            address: geometry.address_of(lost.page).0,
            last_owner: lost.last_owner.map(NodeId::rank),
            view: lost.view.0,
        }
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "page {:#x} at {:#x} is lost: ", self.page, self.address)?;
        match self.last_owner {
            Some(rank) => write!(f, "rank {rank} owned it last")?,
            None => write!(f, "no survivor knows who owned it last")?,
        }
        write!(
            f,
            ", and view {} began without any node that held it; build anew what lay there, and run with more replicas to \
             survive as many crashes",
            self.view
        )
    }
}

/// Why a lock could not be had, without the guard: what [`LockError`] becomes under `?`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LockFailure {
    /// A thread panicked while it held the lock.
    #[error("the lock is poisoned: a thread panicked while it held it")]
    Poisoned,
    /// The lock is held by another, and the call does not wait.
    #[error("the lock is held by another thread")]
    WouldBlock,
    /// The time ran out.
    #[error("the lock was not free in time; rank {holder} holds it")]
    Timeout {
        /// The rank that held it when the call gave up.
        holder: u32,
    },
    /// This thread holds the lock already.
    #[error("this thread holds the lock already")]
    Reentrant,
}

/// Why [`crate::DsmMutex::lock`] and its siblings did not return a plain guard.
#[non_exhaustive]
pub enum LockError<'a, T: ?Sized> {
    /// A thread panicked while it held the lock; the guard is inside.
    Poisoned(DsmMutexGuard<'a, T>),
    /// The lock is held by another, and the call does not wait.
    WouldBlock,
    /// The time ran out.
    Timeout {
        /// The rank that held it when the call gave up.
        holder: u32,
    },
    /// This thread holds the lock already.
    Reentrant,
    /// A page of the lock's memory is lost, and with it all that the lock guards.
    Lost(Lost),
    /// The other members took this node for dead and went on without it.
    Evicted,
    /// A majority of the members could not be reached for too long.
    NoQuorum,
    /// The call could not be carried out at all.
    Failed(Error),
}

impl<T: ?Sized> LockError<'_, T> {
    /// Why a call failed that a lock needs.
    pub(crate) fn failed(error: Error) -> Self {
        match error {
            Error::Lost(lost) => LockError::Lost(lost),
            Error::Evicted { view: _ } => LockError::Evicted,
            Error::NoQuorum => LockError::NoQuorum,
            error => LockError::Failed(error),
        }
    }
}

impl<T: ?Sized> From<LockError<'_, T>> for Error {
    fn from(error: LockError<'_, T>) -> Error {
        match error {
            LockError::Poisoned(_) => Error::Lock(LockFailure::Poisoned),
            LockError::WouldBlock => Error::Lock(LockFailure::WouldBlock),
            LockError::Timeout { holder } => Error::Lock(LockFailure::Timeout { holder }),
            LockError::Reentrant => Error::Lock(LockFailure::Reentrant),
            LockError::Lost(lost) => Error::Lost(lost),
            LockError::Evicted => Error::Evicted { view: Node::evicted_in() },
            LockError::NoQuorum => Error::NoQuorum,
            LockError::Failed(error) => error,
        }
    }
}

impl<T: ?Sized> fmt::Display for LockError<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LockError::Poisoned(_) => LockFailure::Poisoned.fmt(f),
            LockError::WouldBlock => LockFailure::WouldBlock.fmt(f),
            LockError::Timeout { holder } => LockFailure::Timeout { holder: *holder }.fmt(f),
            LockError::Reentrant => LockFailure::Reentrant.fmt(f),
            LockError::Lost(lost) => lost.fmt(f),
            LockError::Evicted => Error::Evicted { view: Node::evicted_in() }.fmt(f),
            LockError::NoQuorum => Error::NoQuorum.fmt(f),
            LockError::Failed(error) => fmt::Display::fmt(error, f),
        }
    }
}

impl<T: ?Sized> fmt::Debug for LockError<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<T: ?Sized> std::error::Error for LockError<'_, T> {}

/// How long a call that gives up in the end waits before it says so in the log.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
