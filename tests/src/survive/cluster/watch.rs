//! When a run has come to its end, and what must be so then.

use super::state::Happening;
use super::trouble::START;
use crate::survive::Check;
use crate::survive::node::State;
use crate::survive::world::{self, World};
use dsm_core::membership::Fact;
use dsm_core::{NodeId, Time};
use std::time::Duration;

/// When nothing is wrong any more, somebody ends an instruction or a call within so many leases, as long as anybody has one.
const PROGRESS_LEASES: u64 = 20;

/// When nothing is wrong any more, a page comes within so many leases: a member may have to be missed, or a node to find
/// that it has no majority, before others can go on.
const FAULT_LEASES: u64 = 10;

/// Nodes that end one after the other are each missed by a lease only; so long all rests before the end.
const REST_LEASES: u64 = 15;

impl World {
    /// Runs to the end, and checks what must be so there.
    pub(super) fn run_cluster(&mut self) -> Check {
        let processes = self.cluster.as_ref().map_or(0, |cluster| cluster.processes.len());
        for process in 0..processes {
            self.told_later(process, 0, Fact::Tick);
        }
        self.plan_trouble();
        self.begin_all(START)?;
        self.schedule(self.now, world::Happening::Cluster(Happening::Look));
        while !self.is_over() && self.next()? {}
        let Some(cluster) = &self.cluster else { return Ok(()) };
        cluster.checks.settled(&cluster.processes)?;
        if self.nodes.iter().any(|node| !node.dead) { self.at_rest() } else { Ok(()) }
    }

    fn is_over(&self) -> bool {
        self.cluster.as_ref().is_some_and(|cluster| cluster.tally.is_over)
    }

    /// Looks around once in a lease.
    pub(super) fn look_around(&mut self) -> Check {
        let (now, lease) = (self.now.as_nanos(), self.lease());
        let Some(cluster) = &mut self.cluster else { return Ok(()) };
        let (rest, newest) = (cluster.trouble.rest, cluster.checks.newest_since);
        if self.counts.retired > cluster.tally.retired {
            cluster.tally.retired = self.counts.retired;
            cluster.tally.progress = now;
        }
        let calm = rest.max(newest);
        for (node, rank) in self.nodes.iter().zip(0..).filter(|(node, _)| !node.dead) {
            for thread in &node.threads {
                let State::Faulted(page, want) = thread.state else { continue };
                let waits = now.saturating_sub(thread.since.as_nanos().max(calm));
                cluster.tally.longest = cluster.tally.longest.max(waits);
                if waits > FAULT_LEASES * lease {
                    let since = Time::from_nanos(now - waits);
                    return Err(format!("{} waits for {page} ({want:?}) since {since:?}", NodeId(rank)));
                }
            }
        }
        let quiet_since = calm.max(cluster.tally.progress);
        let idle = self
            .nodes
            .iter()
            .filter(|node| !node.dead)
            .all(|node| node.threads.iter().all(|thread| thread.state == State::Done));
        if idle && now > quiet_since + REST_LEASES * lease {
            cluster.tally.is_over = true;
        } else if !idle && now > quiet_since + PROGRESS_LEASES * lease {
            return Err(format!("blocked for ever: {}", self.unfinished()));
        }
        let at = self.now + Duration::from_nanos(lease);
        self.schedule(at, world::Happening::Cluster(Happening::Look));
        Ok(())
    }
}
