//! Pairs of members that do not reach each other while a majority reaches both.
//!
//! Nobody would be evicted for it, and faults between the two would wait for ever. So after a while the others decide for
//! one of them: they grant the other no more leases, which leads to its eviction by the common way.

use crate::copyset::Copyset;
use crate::ids::NodeId;
use crate::membership::packet::Claims;
use crate::membership::voters::VoterId;
use crate::time::Time;
use core::time::Duration;
use std::collections::BTreeMap;

/// The rifts that this voter hears of, and since when it does.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Rifts {
    since: BTreeMap<(NodeId, NodeId), Time>,
    /// Members that somebody refuses, which is for good in this view: only their going can mend it.
    refused: Copyset,
}

impl Rifts {
    /// Takes what everybody claims now. Members that are `out` for this voter too are dealt with already.
    pub fn update<'a>(
        &mut self,
        now: Time,
        claims: impl Iterator<Item = (VoterId, &'a Claims)>,
        out: Copyset,
    ) {
        let mut since = BTreeMap::new();
        self.refused = Copyset::EMPTY;
        for (voter, claims) in claims {
            let Some(complainer) = voter.node().filter(|node| !out.contains(*node)) else { continue };
            self.refused = self.refused.union(claims.refused);
            for other in claims.late.minus(out).iter() {
                let pair = (complainer.min(other), complainer.max(other));
                since.insert(pair, self.since.get(&pair).copied().unwrap_or(now));
            }
        }
        self.since = since;
    }

    /// Who is to go, once there is a rift that has lasted for `patience`: one that is refused if there is such, else the
    /// member with the most rifts, and of several the one of the highest rank. All who hear the same claims come to the
    /// same answer.
    pub fn victim(&self, now: Time, patience: Duration) -> Option<NodeId> {
        let mut counts: BTreeMap<NodeId, usize> = BTreeMap::new();
        for (one, other) in
            self.since.iter().filter(|(_, since)| now.since(**since) >= patience).map(|(it, _)| it)
        {
            *counts.entry(*one).or_default() += 1;
            *counts.entry(*other).or_default() += 1;
        }
        counts
            .into_iter()
            .max_by_key(|(node, count)| (self.refused.contains(*node), *count, *node))
            .map(|(node, _)| node)
    }

    /// When the next rift will have lasted for `patience`.
    pub fn deadline(&self, now: Time, patience: Duration) -> Option<Time> {
        self.since.values().map(|since| *since + patience).filter(|end| *end > now).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_member_with_the_most_rifts_goes_and_else_the_highest() {
        let patience = Duration::from_nanos(10);
        let claims = |late: &[u16]| Claims {
            late: late.iter().map(|rank| NodeId(*rank)).collect(),
            ..Claims::default()
        };
        let (one, two) = (claims(&[2, 3]), claims(&[1]));
        let said = || [(VoterId::Node(NodeId(1)), &one), (VoterId::Node(NodeId(2)), &two)].into_iter();
        let mut rifts = Rifts::default();
        rifts.update(Time::from_nanos(5), said(), Copyset::EMPTY);
        assert_eq!(rifts.victim(Time::from_nanos(14), patience), None);
        assert_eq!(rifts.deadline(Time::from_nanos(14), patience), Some(Time::from_nanos(15)));
        assert_eq!(rifts.victim(Time::from_nanos(15), patience), Some(NodeId(1)));
        rifts.update(Time::from_nanos(16), said(), Copyset::EMPTY.with(NodeId(3)));
        assert_eq!(
            rifts.victim(Time::from_nanos(16), patience),
            Some(NodeId(2)),
            "as many, and the higher rank"
        );
        let refuses = Claims { refused: Copyset::EMPTY.with(NodeId(1)), ..two.clone() };
        let said = [(VoterId::Node(NodeId(1)), &one), (VoterId::Node(NodeId(2)), &refuses)];
        rifts.update(Time::from_nanos(16), said.into_iter(), Copyset::EMPTY.with(NodeId(3)));
        assert_eq!(rifts.victim(Time::from_nanos(16), patience), Some(NodeId(1)), "it is refused for good");
        rifts.update(Time::from_nanos(17), [].into_iter(), Copyset::EMPTY);
        assert_eq!(rifts.victim(Time::from_nanos(90), patience), None, "healed");
    }
}
