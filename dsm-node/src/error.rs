//! What can go wrong, said so that a user knows what happened, where, and what to do.

use crate::sync::DsmMutexGuard;
use dsm_core::{GeometryError, Reply};
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
    /// A peer died, and with it what this call needed.
    #[error("rank {rank} is gone; this call cannot complete")]
    PeerLost {
        /// The rank of the peer.
        rank: u32,
    },
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
    /// The call could not be carried out at all.
    Failed(Error),
}

impl<T: ?Sized> From<LockError<'_, T>> for Error {
    fn from(error: LockError<'_, T>) -> Error {
        match error {
            LockError::Poisoned(_) => Error::Lock(LockFailure::Poisoned),
            LockError::WouldBlock => Error::Lock(LockFailure::WouldBlock),
            LockError::Timeout { holder } => Error::Lock(LockFailure::Timeout { holder }),
            LockError::Reentrant => Error::Lock(LockFailure::Reentrant),
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
