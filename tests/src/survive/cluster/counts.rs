//! What happened in a run, or in many, in numbers.

use super::super::counts;
use super::super::world::World;
use crate::membership_sim;
use std::fmt;

/// What is counted of one run, as it goes.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Tally {
    /// Processes that were stopped.
    pub stopped: u64,
    /// Nodes that lost their lease, or gave it up.
    pub frozen: u64,
    /// Times that somebody noticed the end of a lease only as something was to leave.
    pub caught: u64,
    /// Things that were put off.
    pub postponed: u64,
    /// Messages of earlier views that were dropped.
    pub stale: u64,
    /// Messages that waited for a broken link.
    pub stalled: u64,
    /// Loads and stores of nodes that were members no more, and had not noticed.
    pub outside: u64,
    /// The longest that a thread was seen waiting for a page though nothing was wrong any more, in nanoseconds.
    pub longest: u64,
    /// What was retired, and when anything was last, as far as the last look saw.
    pub retired: u64,
    pub progress: u64,
    /// Whether the run has come to its end.
    pub is_over: bool,
}

/// What happened.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Counts {
    /// What threads and machines did.
    pub nodes: counts::Counts,
    /// What memberships did.
    pub members: membership_sim::Counts,
    /// What drivers did.
    pub tally: Tally,
}

impl Counts {
    /// Adds another run, or other runs.
    pub fn add(&mut self, other: &Counts) {
        self.nodes.add(&other.nodes);
        self.members.add(&other.members);
        let (all, one) = (&mut self.tally, &other.tally);
        all.stopped += one.stopped;
        all.frozen += one.frozen;
        all.caught += one.caught;
        all.postponed += one.postponed;
        all.stale += one.stale;
        all.stalled += one.stalled;
        all.outside += one.outside;
        all.longest = all.longest.max(one.longest);
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { nodes, members, tally } = self;
        writeln!(f, "{nodes}")?;
        writeln!(
            f,
            "  {} views agreed on, {} killed, {} evicted, {} without a quorum, {} packets",
            members.views, members.killed, members.evicted, members.without_quorum, members.packets
        )?;
        write!(
            f,
            "  {} stopped, {} times without a lease, {} of them noticed on sending, {} things put off, {} stale messages, \
             {} stalled, {} accesses of evicted nodes, longest wait for a page {:.3} ms",
            tally.stopped,
            tally.frozen,
            tally.caught,
            tally.postponed,
            tally.stale,
            tally.stalled,
            tally.outside,
            tally.longest as f64 / NANOS_PER_MILLI
        )
    }
}

const NANOS_PER_MILLI: f64 = 1e6;

impl World {
    /// What has happened so far.
    pub(super) fn count_all(&self) -> Counts {
        let Some(cluster) = &self.cluster else { return Counts { nodes: self.counts, ..Counts::default() } };
        let first = cluster.processes.len();
        Counts {
            nodes: self.counts,
            members: membership_sim::Counts::of(&cluster.checks, &cluster.processes, first),
            tally: cluster.tally,
        }
    }
}
