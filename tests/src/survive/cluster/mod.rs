//! Membership and machine together: each node runs `dsm_core::membership` and the real machine, as a real node does, and
//! agrees with the others on the views that the machine then recovers in.
//!
//! It is `survive` with another source of views: threads, executor and oracle are the same. What comes on top: every node
//! has a clock of its own and an engine that may be late; a message leaves only while its node has a lease, and carries
//! the view in which it was queued; a node without a lease empties its page table and puts everything off; nodes stop and
//! go on, links break in one direction or both, and the launcher votes, proves deaths and dies. The oracle besides holds
//! what a node that is no member did against what members see of it: nothing.
//!
//! Where things are: `trouble` is what a seed decides besides; `state` is what a node's driver keeps; `driver` is what the
//! engine of a real node does about the membership, `fence` when it may act, `wire` the way of messages and packets;
//! `time` is who runs when; `outside` are threads of nodes that are members no more; `watch` is when a run has come to
//! its end; `mutant` are faults that must be found.

mod counts;
mod driver;
mod fence;
mod mutant;
mod outside;
mod state;
mod time;
mod trouble;
mod watch;
mod wire;

pub use counts::Counts;
pub use mutant::Mutant;
pub(super) use state::{Cluster, Happening};

use super::plan::Plan;
use super::world::World;
use super::{Failure, TRACE_LINES, replay};
use crate::sim::Tracing;
use crate::sim::panics::caught;
use crate::sim::rng::Rng;

/// How to run a seed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// A deliberate fault, which the run should then report.
    pub mutant: Option<Mutant>,
    /// Whether a trace is printed as the run goes.
    pub echo: bool,
}

/// Runs one seed.
///
/// # Errors
/// The first thing that was not as it must be, a panic of machine or membership included.
pub fn run(seed: u64, options: &Options) -> Result<Counts, Box<Failure>> {
    if options.echo {
        return attempt(seed, options, Tracing::Echo);
    }
    // A trace costs more than the run. A seed that fails is run again with one, and fails the same way.
    attempt(seed, options, Tracing::Off).or_else(|plain| {
        let tracing = Tracing::Last { lines: TRACE_LINES, until: plain.time };
        attempt(seed, options, tracing).and(Err(plain))
    })
}

fn attempt(seed: u64, options: &Options, tracing: Tracing) -> Result<Counts, Box<Failure>> {
    let mut rng = Rng::new(seed);
    let mut plan = Plan::draw(&mut rng);
    let cluster = Cluster::draw(&mut rng, &mut plan, options.mutant);
    let mut world = World::begin(rng, plan, None, tracing);
    world.cluster = Some(Box::new(cluster));
    let outcome = caught(|| world.run_cluster());
    let counts = world.count_all();
    let (time, _, trace) = world.into_parts();
    outcome.map(|()| counts).map_err(|what| {
        let mutant = options.mutant.map(|mutant| format!("{mutant:?}"));
        Box::new(Failure { seed, replay: replay("cluster", seed, mutant), time, what, trace })
    })
}
