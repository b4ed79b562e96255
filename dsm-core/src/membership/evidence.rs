//! What is known against members and for candidates, by this process and by others, and what follows from it.
//!
//! Claims belong to one view: they say ranks, and ranks mean processes only within a view. With the next view all begins
//! anew, but for proofs of death and requests to be let in, which name incarnations.

use crate::copyset::Copyset;
use crate::ids::{Incarnation, NodeId};
use crate::limits::NODES_MAX;
use crate::membership::change::{Candidate, Change, JOINED_MAX};
use crate::membership::packet::Claims;
use crate::membership::voters::{VoterId, Voters};
use crate::time::Time;
use crate::view::View;
use core::time::Duration;
use std::collections::BTreeMap;

/// What is known.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Evidence {
    me: VoterId,
    /// What this process knows in this view, candidates left out.
    mine: Claims,
    /// What others said last in this view, and when, by their own clocks.
    others: BTreeMap<VoterId, (u64, Claims)>,
    /// Processes that are known to be dead.
    proofs: BTreeMap<NodeId, Incarnation>,
    /// Who asked this process to be let in, and when it did last.
    candidates: BTreeMap<Candidate, Time>,
    /// The last process of each rank that was a member and is none any more. It never comes back.
    departed: BTreeMap<NodeId, Incarnation>,
}

impl Evidence {
    /// Nothing.
    pub fn new(me: VoterId) -> Evidence {
        Evidence {
            me,
            mine: Claims::default(),
            others: BTreeMap::new(),
            proofs: BTreeMap::new(),
            candidates: BTreeMap::new(),
            departed: BTreeMap::new(),
        }
    }

    /// The view changes from `old` to `new`.
    pub fn begin(&mut self, old: &View, new: &View) {
        for (node, member) in old.iter() {
            if new.member(node).is_none() {
                self.departed.insert(node, member.incarnation);
            }
        }
        self.others.clear();
        // Who wanted to leave may have kept something for whoever did, and has to see to that first.
        self.mine = Claims::default();
        let is_member = |node: &NodeId, incarnation: &Incarnation| {
            new.member(*node).is_some_and(|member| member.incarnation == *incarnation)
        };
        self.proofs.retain(|node, incarnation| is_member(node, incarnation));
        self.mine.dead = self.proofs.keys().copied().collect();
        self.candidates.retain(|candidate, _| !is_member(&candidate.node, &candidate.incarnation));
    }

    /// What this process says with a heartbeat. Requests to be let in that were not repeated for `patience` are void.
    pub fn claims(&mut self, now: Time, patience: Duration) -> Claims {
        self.candidates.retain(|_, asked| now.since(*asked) < patience);
        let candidates = self.candidates.keys().take(JOINED_MAX).copied().collect();
        Claims { candidates, ..self.mine.clone() }
    }

    /// Takes what `from` says in this view. What it said later already, counts.
    pub fn hear(&mut self, from: VoterId, stamp: u64, claims: Claims, view: &View) {
        if self.others.get(&from).is_some_and(|(latest, _)| *latest > stamp) {
            return;
        }
        let members = view.members();
        let itself = from.node().map_or(Copyset::EMPTY, |node| Copyset::EMPTY.with(node));
        let dead = self.without_me(claims.dead.intersection(members));
        for node in dead.iter() {
            if let Some(member) = view.member(node) {
                self.prove(node, member.incarnation, view);
            }
        }
        let mut candidates = claims.candidates;
        candidates.truncate(JOINED_MAX);
        let claims = Claims {
            late: claims.late.intersection(members),
            refused: claims.refused.intersection(members),
            dead,
            suspected: claims.suspected.intersection(members),
            // Only a node itself can say that it has handed over what it had.
            leaving: claims.leaving.intersection(itself).intersection(members),
            candidates,
        };
        self.others.insert(from, (stamp, claims));
        self.mine.suspected = self.mine.suspected.minus(itself);
    }

    /// A process is dead.
    pub fn prove(&mut self, node: NodeId, incarnation: Incarnation, view: &View) {
        if self.me == VoterId::Node(node) {
            return;
        }
        self.proofs.insert(node, incarnation);
        if view.member(node).is_some_and(|member| member.incarnation == incarnation) {
            self.mine.dead = self.mine.dead.with(node);
        }
    }

    /// A member does not take connections.
    pub fn suspect(&mut self, node: NodeId, view: &View) {
        if view.member(node).is_some() {
            self.mine.suspected = self.without_me(self.mine.suspected.with(node));
        }
    }

    /// This node has handed over what it had.
    pub fn leave(&mut self) {
        if let VoterId::Node(node) = self.me {
            self.mine.leaving = self.mine.leaving.with(node);
        }
    }

    /// A process asks to be let in.
    pub fn ask(&mut self, now: Time, candidate: Candidate) {
        if candidate.node.index() < NODES_MAX
            && (self.candidates.len() < NODES_MAX || self.candidates.contains_key(&candidate))
        {
            self.candidates.insert(candidate, now);
        }
    }

    /// Whether the process was the last member of its rank that went. It never comes back.
    pub fn has_departed(&self, candidate: &Candidate) -> bool {
        self.departed.get(&candidate.node) == Some(&candidate.incarnation)
    }

    /// Who is late, by this voter's own promises. Who was refused stays so; and whoever a majority calls late is
    /// refused: from now on this voter grants it nothing in this view.
    pub fn judge(&mut self, late: Copyset, voters: Voters) {
        self.mine.late = self.without_me(late).union(self.mine.refused);
        let refused: Copyset = self
            .mine
            .late
            .iter()
            .filter(|node| self.say(voters, *node, |it| it.late) >= voters.majority())
            .collect();
        self.mine.refused = self.mine.refused.union(refused);
    }

    /// What this process claims itself.
    pub fn mine(&self) -> &Claims {
        &self.mine
    }

    /// What everybody claims.
    pub fn all(&self) -> impl Iterator<Item = (VoterId, &Claims)> {
        let others = self.others.iter().map(|(voter, (_, claims))| (*voter, claims));
        others.chain([(self.me, &self.mine)])
    }

    /// Whom anybody suspects.
    pub fn suspected(&self) -> Copyset {
        self.union(|claims| claims.suspected)
    }

    /// Who had better not lead a change.
    pub fn unfit(&self) -> Copyset {
        self.union(|claims| claims.suspected.union(claims.dead).union(claims.leaving)).union(self.mine.late)
    }

    /// The change that is called for.
    pub fn change(&self, view: &View, voters: Voters) -> Option<Change> {
        let members = view.members();
        let refused = members
            .iter()
            .filter(|node| self.say(voters, *node, |claims| claims.refused) >= voters.majority());
        let cut: Copyset = refused.collect::<Copyset>().union(self.union(|claims| claims.dead));
        // Two at once might be the only ones that keep what either has: whoever leaves does so alone, and the next only
        // when it has said so in a view in which all that is needed.
        let leaving = self.union(|claims| claims.leaving).iter().next().filter(|_| cut.is_empty());
        let mut gone = leaving.map_or(cut, |node| cut.with(node));
        if members.minus(gone).is_empty() {
            // Somebody has to be the last to go; if nobody is left at all, nothing is left to be agreed on.
            gone = gone.without(members.minus(cut).iter().next()?);
        }
        let change = Change { gone, joined: self.joined(view) };
        change.fits(view).then_some(change)
    }

    /// The candidates that can be let in: whose rank is free already, one per rank.
    fn joined(&self, view: &View) -> Vec<Candidate> {
        let asked =
            self.candidates.keys().chain(self.others.values().flat_map(|(_, claims)| &claims.candidates));
        let fit = asked.filter(|candidate| {
            candidate.node.index() < NODES_MAX
                && view.member(candidate.node).is_none()
                && !self.has_departed(candidate)
        });
        let by_rank: BTreeMap<NodeId, Candidate> =
            fit.map(|candidate| (candidate.node, *candidate)).collect();
        by_rank.into_values().take(JOINED_MAX).collect()
    }

    /// How many voters claim `what` of `node`.
    fn say(&self, voters: Voters, node: NodeId, what: impl Fn(&Claims) -> Copyset) -> usize {
        self.all().filter(|(voter, claims)| voters.contains(*voter) && what(claims).contains(node)).count()
    }

    fn union(&self, what: impl Fn(&Claims) -> Copyset) -> Copyset {
        self.all().fold(Copyset::EMPTY, |set, (_, claims)| set.union(what(claims)))
    }

    fn without_me(&self, nodes: Copyset) -> Copyset {
        self.me.node().map_or(nodes, |me| nodes.without(me))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::Host;

    #[test]
    fn whoever_leaves_does_so_alone_and_says_so_in_each_view() {
        let view = View::first((0..5).map(|rank| (NodeId(rank), Incarnation(1), Host(0))), 1);
        let voters = Voters::of(&view, false);
        let mut evidence = Evidence::new(VoterId::Node(NodeId(3)));
        let only = |rank: u16| Copyset::EMPTY.with(NodeId(rank));
        evidence.leave();
        for rank in [1, 2] {
            let claims = Claims { leaving: only(rank), ..Claims::default() };
            evidence.hear(VoterId::Node(NodeId(rank)), 1, claims, &view);
        }
        let gone = |evidence: &Evidence, view: &View| evidence.change(view, voters).map(|change| change.gone);
        assert_eq!(gone(&evidence, &view), Some(only(1)));
        // Who has died goes first: those that leave may keep what it had.
        evidence.prove(NodeId(4), Incarnation(1), &view);
        assert_eq!(gone(&evidence, &view), Some(only(4)));
        let next = view.next(only(4), []);
        evidence.begin(&view, &next);
        assert_eq!(gone(&evidence, &next), None);
        evidence.leave();
        assert_eq!(gone(&evidence, &next), Some(only(3)));
    }
}
