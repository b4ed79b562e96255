//! Names of things. No bare integer crosses a module boundary: what a number counts is in its type.

use core::fmt;
use serde::{Deserialize, Serialize};

/// A node of the cluster: its rank, from 0 to the number of nodes at the start less one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct NodeId(pub u16);

impl NodeId {
    /// The node that runs the cluster-wide services (barrier, leave, names of large spans) while views are fixed.
    pub const COORDINATOR: NodeId = NodeId(0);

    /// The rank as an index.
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }

    /// The rank as users see it.
    #[must_use]
    pub fn rank(self) -> u32 {
        u32::from(self.0)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rank {}", self.0)
    }
}

/// One life of a process. Two processes that held the same rank, one after the other, differ in it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Incarnation(pub u64);

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// The number of an agreed membership. It only grows, and fences messages of earlier memberships.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct ViewId(pub u64);

impl ViewId {
    /// Before the first.
    pub const NONE: ViewId = ViewId(0);

    /// The membership that a cluster starts with.
    pub const FIRST: ViewId = ViewId(1);
}

impl fmt::Display for ViewId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "view {}", self.0)
    }
}

/// Which committed state of a page. Later commits of a page, by whatever node, have greater versions: numbers are taken
/// when a record's pages are protected, above every version that the node has seen, and never again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Version {
    /// The membership in which it was committed.
    pub view: ViewId,
    /// The number of the record that it was in.
    pub record: RecordId,
}

/// A record of a node: all pages that it commits at one instant. Numbered in the order in which they count.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct RecordId(pub u64);

impl RecordId {
    /// Before the first record.
    pub const NONE: RecordId = RecordId(0);
}

impl fmt::Display for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "record {}", self.0)
    }
}

/// A page of the region, counted from the region's base: the unit of coherence.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct PageId(pub u64);

impl fmt::Display for PageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "page {:#x}", self.0)
    }
}

/// A run of pages with one home, counted from the region's base.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct SegmentId(pub u64);

/// A virtual address in the region, the same on every node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Address(pub u64);

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// A lock of the cluster: the address of the domain that it owns. Its home is the home of that address's segment.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct LockId(pub Address);

impl fmt::Display for LockId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "lock {}", self.0)
    }
}

/// One fault's transaction: which node asked, and a number that it never uses twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct TransactionId {
    /// The node that faulted.
    pub node: NodeId,
    /// Grows with the requests of that node.
    pub number: u64,
}

impl fmt::Display for TransactionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "transaction {}.{}", self.node.0, self.number)
    }
}

/// One call of an application thread on this node that waits for an answer. Chosen by the driver, never used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct CallId(pub u64);

/// A call as the rest of the cluster sees it: whose it is, and which.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Ticket {
    /// The node whose thread waits.
    pub node: NodeId,
    /// That node's name for the call.
    pub call: CallId,
}
