//! Who votes on the successor of a view, and how many are a majority.

use crate::copyset::Copyset;
use crate::ids::NodeId;
use crate::view::View;
use core::fmt;
use serde::{Deserialize, Serialize};

/// A process that takes part in the membership.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum VoterId {
    /// A node.
    Node(NodeId),
    /// The launcher: it may vote, and is never a member.
    Witness,
}

impl VoterId {
    /// The node, if it is one.
    #[must_use]
    pub fn node(self) -> Option<NodeId> {
        match self {
            VoterId::Node(node) => Some(node),
            VoterId::Witness => None,
        }
    }
}

impl fmt::Display for VoterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            VoterId::Node(node) => node.fmt(f),
            VoterId::Witness => f.write_str("the launcher"),
        }
    }
}

/// The voters of one view: its members, and the launcher where their number is even.
///
/// With an even number, one more voter lets half of the members die instead of one less than half. With an odd number it
/// would not, and a launcher that died would count as a dead member. A single member decides by itself: it has nobody
/// to disagree with, so its launcher's death takes nothing from it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Voters {
    nodes: Copyset,
    witness: bool,
}

impl Voters {
    /// The voters of `view` in a cluster with or without a launcher that can vote.
    #[must_use]
    pub fn of(view: &View, witness: bool) -> Voters {
        let nodes = view.members();
        Voters { nodes, witness: witness && nodes.len().is_multiple_of(2) }
    }

    /// How many they are.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a view has at least one member")]
    pub fn len(self) -> usize {
        self.nodes.len() + usize::from(self.witness)
    }

    /// The fewest that are a majority.
    #[must_use]
    pub fn majority(self) -> usize {
        self.len() / 2 + 1
    }

    /// Whether `voter` is one.
    #[must_use]
    pub fn contains(self, voter: VoterId) -> bool {
        match voter {
            VoterId::Node(node) => self.nodes.contains(node),
            VoterId::Witness => self.witness,
        }
    }

    /// They, by rank, the launcher last.
    pub fn iter(self) -> impl Iterator<Item = VoterId> {
        self.nodes.iter().map(VoterId::Node).chain(self.witness.then_some(VoterId::Witness))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Incarnation;
    use crate::view::Host;

    #[test]
    fn the_launcher_votes_where_it_helps() {
        let majorities = |witness: bool| {
            [1, 2, 3, 4, 5].map(|count: u16| {
                let members = (0..count).map(|rank| (NodeId(rank), Incarnation(1), Host(0)));
                let voters = Voters::of(&View::first(members, 1), witness);
                (voters.len(), voters.majority())
            })
        };
        assert_eq!(majorities(true), [(1, 1), (3, 2), (3, 2), (5, 3), (5, 3)]);
        assert_eq!(majorities(false), [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3)]);
    }
}
