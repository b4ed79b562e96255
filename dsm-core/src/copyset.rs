//! A set of nodes in one machine word: who holds a read copy, whose acknowledgement is awaited.

use crate::ids::NodeId;
use core::fmt;
use serde::{Deserialize, Serialize};

/// A set of nodes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Copyset {
    bits: u64,
}

impl Copyset {
    /// How many nodes a set can tell apart.
    pub const BITS: usize = u64::BITS as usize;

    /// The empty set.
    pub const EMPTY: Copyset = Copyset { bits: 0 };

    /// The set of the nodes 0 to `count` less one.
    ///
    /// # Panics
    /// If `count` exceeds [`Copyset::BITS`].
    #[must_use]
    pub fn first(count: usize) -> Copyset {
        assert!(count <= Self::BITS, "a copyset tells {} nodes apart, not {count}", Self::BITS);
        let bits = if count == Self::BITS { u64::MAX } else { (1 << count) - 1 };
        Copyset { bits }
    }

    /// Whether `node` is in the set.
    #[must_use]
    pub fn contains(self, node: NodeId) -> bool {
        self.bits & Self::bit(node) != 0
    }

    /// This set and `node`.
    #[must_use]
    pub fn with(self, node: NodeId) -> Copyset {
        Copyset { bits: self.bits | Self::bit(node) }
    }

    /// This set without `node`.
    #[must_use]
    pub fn without(self, node: NodeId) -> Copyset {
        Copyset { bits: self.bits & !Self::bit(node) }
    }

    /// The nodes of this set that are not in `other`.
    #[must_use]
    pub fn minus(self, other: Copyset) -> Copyset {
        Copyset { bits: self.bits & !other.bits }
    }

    /// The nodes that are in this set and in `other`.
    #[must_use]
    pub fn intersection(self, other: Copyset) -> Copyset {
        Copyset { bits: self.bits & other.bits }
    }

    /// This set and all of `other`.
    #[must_use]
    pub fn union(self, other: Copyset) -> Copyset {
        Copyset { bits: self.bits | other.bits }
    }

    /// Whether no node is in the set.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.bits == 0
    }

    /// How many nodes are in the set.
    #[must_use]
    pub fn len(self) -> usize {
        self.bits.count_ones() as usize
    }

    /// The nodes of the set, by rank.
    pub fn iter(self) -> impl Iterator<Item = NodeId> {
        let mut rest = self.bits;
        core::iter::from_fn(move || {
            if rest == 0 {
                return None;
            }
            let index = rest.trailing_zeros();
            rest &= rest - 1;
            u16::try_from(index).ok().map(NodeId)
        })
    }

    /// A node beyond the set's width has no bit: it is in no set.
    fn bit(node: NodeId) -> u64 {
        1u64.checked_shl(u32::from(node.0)).unwrap_or(0)
    }
}

impl fmt::Debug for Copyset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(|node| node.0)).finish()
    }
}

impl FromIterator<NodeId> for Copyset {
    fn from_iter<I: IntoIterator<Item = NodeId>>(nodes: I) -> Copyset {
        nodes.into_iter().fold(Copyset::EMPTY, Copyset::with)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_come_back_by_rank() {
        let set: Copyset = [NodeId(63), NodeId(0), NodeId(7)].into_iter().collect();
        assert_eq!(set.iter().collect::<Vec<_>>(), [NodeId(0), NodeId(7), NodeId(63)]);
        assert_eq!(set.len(), 3);
        assert!(!set.without(NodeId(7)).contains(NodeId(7)));
    }

    #[test]
    fn a_rank_beyond_the_width_is_in_no_set() {
        assert!(!Copyset::first(64).contains(NodeId(64)));
        assert!(Copyset::EMPTY.with(NodeId(9999)).is_empty());
    }

    #[test]
    fn the_first_nodes_are_the_low_ranks() {
        assert_eq!(Copyset::first(0), Copyset::EMPTY);
        assert_eq!(Copyset::first(3).minus(Copyset::EMPTY.with(NodeId(1))).len(), 2);
        assert_eq!(Copyset::first(64).len(), 64);
    }
}
