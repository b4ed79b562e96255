//! The agreed membership: who is in it, on which machine, and who keeps whose commits.
//!
//! Pure data, the same at every member. How a view comes to be agreed on is the membership's business; what follows
//! from it for pages is the machine's.

use crate::copyset::Copyset;
use crate::ids::{Incarnation, NodeId, ViewId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A machine that runs nodes, as far as telling them apart goes: nodes on one machine may die together.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Host(pub u64);

/// One node of a view.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Member {
    /// Which life of the rank this is.
    pub incarnation: Incarnation,
    /// Where it runs.
    pub host: Host,
    /// The members that keep its commits.
    pub buddies: Copyset,
}

/// An agreed membership.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct View {
    id: ViewId,
    replicas: u32,
    members: BTreeMap<NodeId, Member>,
}

impl View {
    /// The view that a cluster starts with: `members`, each with `replicas` buddies where there are so many others.
    #[must_use]
    pub fn first(members: impl IntoIterator<Item = (NodeId, Incarnation, Host)>, replicas: u32) -> View {
        let alone = |(node, incarnation, host)| (node, Member { incarnation, host, buddies: Copyset::EMPTY });
        let members = members.into_iter().map(alone).collect();
        View { id: ViewId::FIRST, replicas, members }.with_buddies()
    }

    /// The view that follows this one when `gone` are members no more and `new` are.
    #[must_use]
    pub fn next(&self, gone: Copyset, new: impl IntoIterator<Item = (NodeId, Incarnation, Host)>) -> View {
        let mut members = self.members.clone();
        members.retain(|node, _| !gone.contains(*node));
        for (node, incarnation, host) in new {
            members.insert(node, Member { incarnation, host, buddies: Copyset::EMPTY });
        }
        View { id: ViewId(self.id.0 + 1), replicas: self.replicas, members }.with_buddies()
    }

    /// A view that others have agreed on, as they tell it.
    #[must_use]
    pub fn told(id: ViewId, replicas: u32, members: BTreeMap<NodeId, Member>) -> View {
        View { id, replicas, members }
    }

    /// Its number.
    #[must_use]
    pub fn id(&self) -> ViewId {
        self.id
    }

    /// The crashes that it is to survive.
    #[must_use]
    pub fn replicas(&self) -> u32 {
        self.replicas
    }

    /// The ranks of its members.
    #[must_use]
    pub fn members(&self) -> Copyset {
        self.members.keys().copied().collect()
    }

    /// A member.
    #[must_use]
    pub fn member(&self, node: NodeId) -> Option<&Member> {
        self.members.get(&node)
    }

    /// Its members, by rank.
    pub fn iter(&self) -> impl Iterator<Item = (NodeId, &Member)> {
        self.members.iter().map(|(node, member)| (*node, member))
    }

    /// The members of `before` that still are members, in the same life.
    #[must_use]
    pub fn survivors_of(&self, before: &View) -> Copyset {
        let life = |view: &View, node| view.member(node).map(|member| member.incarnation);
        before.members().iter().filter(|node| life(self, *node) == life(before, *node)).collect()
    }

    /// The members that keep the commits of `node`.
    #[must_use]
    pub fn buddies_of(&self, node: NodeId) -> Copyset {
        self.members.get(&node).map_or(Copyset::EMPTY, |member| member.buddies)
    }

    /// The member that runs the cluster-wide services, and decides for all after a change.
    #[must_use]
    pub fn coordinator(&self) -> NodeId {
        self.members.keys().next().copied().unwrap_or(NodeId::COORDINATOR)
    }

    /// Gives every member its buddies. Who has some keeps them: a change costs a copy of all that the member owns.
    /// Others are taken from other machines first, then from those that keep the fewest, then in a circle by rank.
    fn with_buddies(mut self) -> View {
        let all = self.members();
        let wanted = usize::try_from(self.replicas).unwrap_or(usize::MAX).min(all.len().saturating_sub(1));
        for node in all.iter() {
            let kept = all.without(node).intersection(self.buddies_of(node));
            let mut buddies: Copyset = kept.iter().take(wanted).collect();
            while buddies.len() < wanted {
                let Some(buddy) = self.best_buddy(node, buddies) else { break };
                buddies = buddies.with(buddy);
            }
            if let Some(member) = self.members.get_mut(&node) {
                member.buddies = buddies;
            }
        }
        self
    }

    fn best_buddy(&self, node: NodeId, taken: Copyset) -> Option<NodeId> {
        let host = self.members.get(&node)?.host;
        let load =
            |buddy: NodeId| self.members.values().filter(|member| member.buddies.contains(buddy)).count();
        let candidates = self.members.iter().filter(|(other, _)| **other != node && !taken.contains(**other));
        candidates
            .min_by_key(|(other, member)| {
                let distance = other.0.wrapping_sub(node.0);
                (member.host == host, load(**other), distance)
            })
            .map(|(other, _)| *other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on_one_host(count: u16, replicas: u32) -> View {
        View::first((0..count).map(|rank| (NodeId(rank), Incarnation(u64::from(rank)), Host(0))), replicas)
    }

    #[test]
    fn buddies_are_spread_and_as_many_as_there_can_be() {
        let view = on_one_host(4, 1);
        let kept: Vec<_> = (0..4).map(|rank| view.buddies_of(NodeId(rank)).iter().next()).collect();
        assert_eq!(kept, [Some(NodeId(1)), Some(NodeId(2)), Some(NodeId(3)), Some(NodeId(0))]);
        assert_eq!(on_one_host(2, 5).buddies_of(NodeId(0)).len(), 1);
        assert!(on_one_host(1, 1).buddies_of(NodeId(0)).is_empty());
        assert!(on_one_host(3, 0).buddies_of(NodeId(1)).is_empty());
    }

    #[test]
    fn buddies_live_on_other_machines_where_there_are_any() {
        let hosts = [0, 0, 1, 1];
        let members = (0..4).map(|rank: u16| (NodeId(rank), Incarnation(1), Host(hosts[usize::from(rank)])));
        let view = View::first(members, 1);
        for rank in 0..4 {
            let node = NodeId(rank);
            let buddy = view.buddies_of(node).iter().next().expect("each has one");
            assert_ne!(view.member(node).map(|it| it.host), view.member(buddy).map(|it| it.host));
        }
    }

    #[test]
    fn who_has_come_back_has_not_survived() {
        let first = on_one_host(3, 1);
        let again = [(NodeId(1), Incarnation(7), Host(0)), (NodeId(5), Incarnation(9), Host(0))];
        let next = first.next(Copyset::EMPTY.with(NodeId(1)), again);
        assert_eq!(next.members(), Copyset::first(3).with(NodeId(5)));
        assert_eq!(next.survivors_of(&first), Copyset::first(3).without(NodeId(1)));
    }

    #[test]
    fn only_who_lost_a_buddy_gets_another() {
        let first = on_one_host(4, 1);
        let next = first.next(Copyset::EMPTY.with(NodeId(2)), []);
        assert_eq!(next.id(), ViewId(2));
        assert_eq!(next.members(), Copyset::first(4).without(NodeId(2)));
        assert_eq!(next.buddies_of(NodeId(0)), first.buddies_of(NodeId(0)));
        assert_eq!(next.buddies_of(NodeId(3)), first.buddies_of(NodeId(3)));
        assert!(!next.buddies_of(NodeId(1)).contains(NodeId(2)));
        assert_eq!(next.coordinator(), NodeId(0));
        assert_eq!(next.next(Copyset::EMPTY.with(NodeId(0)), []).coordinator(), NodeId(1));
    }
}
