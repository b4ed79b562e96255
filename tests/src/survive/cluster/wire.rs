//! The way of messages and packets: from a node's queue, while it has a lease, over links that may be cut.

use super::mutant::Mutant;
use super::state::{Happening, Word};
use crate::membership_sim::ProcessId;
use crate::survive::Check;
use crate::survive::network::Said;
use crate::survive::world::{self, World};
use dsm_core::membership::{Packet, VoterId};
use dsm_core::{NodeId, Time};
use std::time::Duration;

/// How long a queue usually stands before it is sent, at most, in nanoseconds.
const QUEUED_NANOS: u64 = 20_000;

/// How many queues in a thousand stand much longer, since a socket was full: at most by this part of a lease.
const STUCK_PERMILLE: u64 = 10;
const STUCK_PART: u64 = 8;

/// How many bodies in a thousand break off where their link does.
const TORN_PERMILLE: u64 = 500;

impl World {
    /// A message is to be sent: it carries the view of now.
    pub(in crate::survive) fn queue_up(&mut self, said: Said) {
        let node = said.from;
        let most = if self.rng.chance(STUCK_PERMILLE) { self.lease() / STUCK_PART } else { QUEUED_NANOS };
        let at = self.after(most);
        if let Some(cluster) = &mut self.cluster {
            cluster.drivers[node.index()].outbox.push_back(said);
        }
        self.schedule(at, world::Happening::Cluster(Happening::Depart(node)));
    }

    /// What is queued leaves, as long as the node has a lease.
    pub(super) fn depart(&mut self, node: NodeId) {
        loop {
            if self.is_held(node) || self.nodes[node.index()].dead {
                return;
            }
            let leased = self.holds_lease(node);
            let careless = self.is_mutant(Mutant::SendsWithoutLease) || self.is_mutant(Mutant::IgnoresFreeze);
            let stamps = self.is_mutant(Mutant::StampsAtSending);
            let installed = self.nodes[node.index()].installed;
            let Some(cluster) = &mut self.cluster else { return };
            let outbox = &mut cluster.drivers[node.index()].outbox;
            if outbox.is_empty() {
                return;
            }
            if !leased && !careless {
                self.hold(node);
                return;
            }
            let Some(mut said) = outbox.pop_front() else { return };
            said.leased = leased;
            if stamps {
                said.view = installed;
            }
            self.carry(said);
        }
    }

    /// How much longer than others a node takes for what comes, in nanoseconds.
    pub(in crate::survive) fn sluggishness(&self, node: NodeId) -> u64 {
        self.cluster.as_ref().map_or(0, |cluster| cluster.processes[node.index()].sluggish)
    }

    /// The message, if its link lets it through: else it waits there, as long as both live.
    pub(in crate::survive) fn pass(&mut self, said: Said) -> Option<Said> {
        let Some(cluster) = &mut self.cluster else { return Some(said) };
        let way = (said.from, said.to);
        let cut = cluster.network.cut.contains(&(VoterId::Node(said.from), VoterId::Node(said.to)));
        let waiting = cluster.stalled.entry(way).or_default();
        if !cut && waiting.is_empty() {
            let stale = said.view < self.nodes[said.to.index()].installed;
            cluster.tally.stale += u64::from(stale);
            return Some(said);
        }
        waiting.push(said.clone());
        cluster.tally.stalled += 1;
        if cut && self.rng.chance(TORN_PERMILLE) {
            self.break_off(&said);
        }
        None
    }

    /// A link is whole again: what waited comes, in order.
    pub(super) fn mended(&mut self, from: NodeId, to: NodeId) -> Check {
        let Some(cluster) = &mut self.cluster else { return Ok(()) };
        for said in cluster.stalled.remove(&(from, to)).unwrap_or_default() {
            self.deliver(said)?;
        }
        Ok(())
    }

    /// A packet is sent; one that does not come is not sent again.
    pub(super) fn send_packet(&mut self, process: ProcessId, to: VoterId, packet: Packet<Word>) {
        let Some(cluster) = &mut self.cluster else { return };
        let from = cluster.processes[process].identity.id;
        cluster.checks.packets += 1;
        let Some(receiver) = cluster.process_of(to) else { return };
        let sluggish = cluster.processes[receiver].sluggish;
        let ways = cluster.network.ways(&mut self.rng, from, to);
        for delay in ways {
            let at: Time = self.now + Duration::from_nanos(delay + sluggish);
            let what = Happening::Arrived(receiver, from, packet.clone());
            self.schedule(at, world::Happening::Cluster(what));
        }
    }

    /// Whether a packet that is there now has come over a link that was cut meanwhile.
    pub(super) fn is_cut(&self, from: VoterId, process: ProcessId) -> bool {
        self.cluster.as_ref().is_some_and(|cluster| {
            cluster.network.cut.contains(&(from, cluster.processes[process].identity.id))
        })
    }
}
