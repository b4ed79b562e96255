//! The holder's side of leases: until when this node may act.
//!
//! Every vote counts from when the renewal that it answers was sent, by this node's own clock. The node's own vote holds
//! by itself, until it accepts a successor of the view: then it counts like anybody's who grants no more.

use crate::membership::voters::{VoterId, Voters};
use crate::time::Time;
use core::time::Duration;
use std::collections::BTreeMap;

/// What this node holds.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Lease {
    me: VoterId,
    length: Duration,
    /// When the latest renewal was sent that each voter has granted in this view.
    renewed: BTreeMap<VoterId, Time>,
    /// When this node accepted a successor of the view.
    accepted: Option<Time>,
    /// Until when a lease of an earlier view serves.
    carried: Option<Time>,
}

/// How far a lease reaches.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Reach {
    /// There is none.
    None,
    /// To this time, and not that instant itself.
    Until(Time),
    /// There is nobody who could end it.
    Endless,
}

impl Lease {
    /// No lease yet.
    pub fn new(me: VoterId, length: Duration) -> Lease {
        Lease { me, length, renewed: BTreeMap::new(), accepted: None, carried: None }
    }

    /// `voter` has granted the renewal that was sent at `sent`.
    pub fn renew(&mut self, voter: VoterId, sent: Time) {
        let latest = self.renewed.entry(voter).or_insert(sent);
        *latest = sent.max(*latest);
    }

    /// Keeps in mind whether this node has accepted a successor of the view.
    pub fn accept(&mut self, now: Time, accepted: bool) {
        self.accepted = accepted.then_some(self.accepted.unwrap_or(now));
    }

    /// The next view begins. A lease of the old one serves to its end: nobody is late in the new view before.
    pub fn carry(&mut self, now: Time, voters: Voters) {
        self.accept(now, true);
        self.carried = match self.reach(voters) {
            Reach::None => None,
            Reach::Until(end) => Some(end),
            Reach::Endless => unreachable!("this node's own vote ended when it accepted"),
        };
        self.renewed.clear();
        self.accepted = None;
    }

    /// Gives it up: a leaver acts no more.
    pub fn drop_all(&mut self) {
        self.renewed.clear();
        self.carried = None;
    }

    /// How far it reaches.
    pub fn reach(&self, voters: Voters) -> Reach {
        let mut votes: Vec<Reach> = voters
            .iter()
            .map(|voter| {
                let renewed =
                    if voter == self.me { self.accepted } else { self.renewed.get(&voter).copied() };
                let end = renewed.map(|sent| Reach::Until(sent + self.length));
                end.unwrap_or(if voter == self.me { Reach::Endless } else { Reach::None })
            })
            .collect();
        votes.sort_unstable_by(|one, other| other.cmp(one));
        let here = votes.get(voters.majority() - 1).copied().unwrap_or(Reach::None);
        here.max(self.carried.map_or(Reach::None, Reach::Until))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Incarnation, NodeId};
    use crate::view::{Host, View};

    const LEASE: Duration = Duration::from_nanos(100);

    fn voters(count: u16) -> Voters {
        Voters::of(&View::first((0..count).map(|rank| (NodeId(rank), Incarnation(1), Host(0))), 1), true)
    }

    fn node(rank: u16) -> VoterId {
        VoterId::Node(NodeId(rank))
    }

    fn until(nanos: u64) -> Reach {
        Reach::Until(Time::from_nanos(nanos))
    }

    #[test]
    fn a_majority_counts_from_the_sending() {
        let mut lease = Lease::new(node(0), LEASE);
        assert_eq!(lease.reach(voters(1)), Reach::Endless);
        assert_eq!(lease.reach(voters(5)), Reach::None);
        lease.renew(node(1), Time::from_nanos(10));
        assert_eq!(lease.reach(voters(5)), Reach::None);
        lease.renew(node(2), Time::from_nanos(30));
        assert_eq!(lease.reach(voters(5)), until(110));
        lease.renew(node(1), Time::from_nanos(40));
        lease.renew(node(1), Time::from_nanos(20));
        assert_eq!(lease.reach(voters(5)), until(130), "an old answer takes nothing back");
    }

    #[test]
    fn who_accepted_counts_its_own_vote_from_then() {
        let mut lease = Lease::new(node(0), LEASE);
        lease.renew(node(1), Time::from_nanos(50));
        assert_eq!(lease.reach(voters(3)), until(150));
        lease.accept(Time::from_nanos(20), true);
        lease.accept(Time::from_nanos(60), true);
        assert_eq!(lease.reach(voters(3)), until(120));
        lease.accept(Time::from_nanos(70), false);
        assert_eq!(lease.reach(voters(3)), until(150));
    }

    #[test]
    fn the_next_view_takes_over_what_was_left() {
        let mut lease = Lease::new(node(0), LEASE);
        lease.renew(node(1), Time::from_nanos(50));
        lease.carry(Time::from_nanos(60), voters(3));
        assert_eq!(lease.reach(voters(3)), until(150));
        lease.renew(node(1), Time::from_nanos(70));
        assert_eq!(lease.reach(voters(3)), until(170));
        lease.drop_all();
        assert_eq!(lease.reach(voters(3)), Reach::None);
    }
}
