//! What a view's successor differs in: the one entry that consensus decides per view.
//!
//! The difference and not the view, so that it fits into one control message in a cluster of any size. All voters hold
//! the view that it applies to.

use crate::copyset::Copyset;
use crate::ids::{Incarnation, NodeId};
use crate::limits::NODES_MAX;
use crate::view::{Host, View};
use serde::{Deserialize, Serialize};

/// Nodes that one change lets in at most: with them, every message stays well below the longest control message.
pub const JOINED_MAX: usize = 8;

/// A process that wants to be a member.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Candidate {
    /// The rank that it wants.
    pub node: NodeId,
    /// Which process it is. No two processes of a cluster share a rank and an incarnation, ever.
    pub incarnation: Incarnation,
    /// Where it runs.
    pub host: Host,
}

/// From one view to the next.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Change {
    /// Members that are none any more.
    pub gone: Copyset,
    /// New members, in the order of their ranks.
    pub joined: Vec<Candidate>,
}

impl Change {
    /// Whether it changes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.gone.is_empty() && self.joined.is_empty()
    }

    /// Whether it makes sense for `view`: who goes is there, somebody stays, and who comes takes a free rank.
    #[must_use]
    pub fn fits(&self, view: &View) -> bool {
        let members = view.members();
        let free =
            |candidate: &Candidate| candidate.node.index() < NODES_MAX && !members.contains(candidate.node);
        let ascending = self.joined.is_sorted_by(|one, other| one.node < other.node);
        !self.is_empty()
            && self.gone.minus(members).is_empty()
            && !members.minus(self.gone).is_empty()
            && self.joined.len() <= JOINED_MAX
            && ascending
            && self.joined.iter().all(free)
    }

    /// The view that it leads to.
    #[must_use]
    pub fn apply(&self, view: &View) -> View {
        view.next(self.gone, self.joined.iter().map(|it| (it.node, it.incarnation, it.host)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(rank: u16) -> Candidate {
        Candidate { node: NodeId(rank), incarnation: Incarnation(9), host: Host(0) }
    }

    #[test]
    fn a_change_that_makes_no_sense_is_told_apart() {
        let view = View::first((0..3).map(|rank| (NodeId(rank), Incarnation(1), Host(0))), 1);
        let one = Copyset::EMPTY.with(NodeId(1));
        let join = |ranks: &[u16]| ranks.iter().map(|rank| candidate(*rank)).collect();
        assert!(Change { gone: one, joined: join(&[3, 4]) }.fits(&view));
        assert!(!Change::default().fits(&view), "nothing changes");
        assert!(!Change { gone: view.members(), joined: join(&[3]) }.fits(&view), "nobody stays");
        assert!(!Change { gone: Copyset::EMPTY.with(NodeId(7)), joined: join(&[]) }.fits(&view), "not there");
        assert!(
            !Change { gone: one, joined: join(&[1]) }.fits(&view),
            "its rank is free only in the next view"
        );
        assert!(!Change { gone: one, joined: join(&[4, 3]) }.fits(&view), "out of order");
        assert!(!Change { gone: one, joined: join(&[3, 3]) }.fits(&view), "twice");
        assert!(!Change { gone: one, joined: join(&[64]) }.fits(&view), "no such rank");
    }
}
