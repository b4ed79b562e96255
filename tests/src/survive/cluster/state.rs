//! What the agreement on views adds to a simulated cluster. Data only.

use super::counts::Tally;
use super::mutant::Mutant;
use super::trouble::Trouble;
use crate::membership_sim::{Checks, Clock, Network, Process, ProcessId};
use crate::sim::rng::Rng;
use crate::survive::network::Said;
use crate::survive::plan::Plan;
use crate::survive::world;
use dsm_core::membership::{ConfigStore, Fact, Identity, Membership, OmniStore, Packet, Settings, VoterId};
use dsm_core::{CallId, Event, NodeId, Reply, Time};
use std::collections::{BTreeMap, VecDeque};

/// What consensus says.
pub type Word = <OmniStore as ConfigStore>::Message;

/// One thing that is going to happen.
#[derive(Clone, Debug)]
pub enum Happening {
    /// A process is told something about the membership.
    Told(ProcessId, Fact<Word>),
    /// A packet arrives.
    Arrived(ProcessId, VoterId, Packet<Word>),
    /// A process's own wake-up call, with its number.
    Alarm(ProcessId, u64),
    /// A node sends what it has queued.
    Depart(NodeId),
    /// A link is whole again: what waited on it arrives.
    Mended(NodeId, NodeId),
    /// A stopped process runs again.
    Continue(ProcessId),
    /// What the seed wants done, by its place.
    Trouble(usize),
    /// A look at whether the run has come to its end.
    Look,
}

/// Something that a node could not deal with when it came.
#[derive(Clone, Debug)]
pub enum Postponed {
    /// A message: of a view that is not installed, or while there was no lease.
    Heard(Said),
    /// What threads, timers and probes want.
    Wanted(Event),
    /// The answer to a call.
    Answered(CallId, Reply),
}

/// What one process's driver keeps.
#[derive(Default, Debug)]
pub struct Driver {
    /// Whether nothing may leave, and nobody may touch a page.
    pub held: bool,
    /// Whether pages may be mapped with less than the machine allows: it was held once.
    pub emptied: bool,
    /// Whether the others have gone on without it.
    pub out: bool,
    /// What waits for a lease or a view, in order.
    pub postponed: VecDeque<Postponed>,
    /// What is to be sent, in order.
    pub outbox: VecDeque<Said>,
    /// When its engine comes to anything, after it was stopped.
    pub busy_until: Time,
    /// What would have happened while it was stopped.
    pub backlog: Vec<world::Happening>,
}

/// The agreement on views.
pub struct Cluster {
    pub mutant: Option<Mutant>,
    pub settings: Settings,
    /// The nodes by rank, and then the launcher, if it votes.
    pub processes: Vec<Process<OmniStore>>,
    pub drivers: Vec<Driver>,
    pub checks: Checks,
    pub network: Network,
    pub trouble: Trouble,
    /// Messages that wait for their link to be mended, in order.
    pub stalled: BTreeMap<(NodeId, NodeId), Vec<Said>>,
    pub tally: Tally,
}

impl Cluster {
    /// What a seed decides, at the start. Changes those parts of the plan that decree would decide.
    pub fn draw(rng: &mut Rng, plan: &mut Plan, mutant: Option<Mutant>) -> Cluster {
        let settings = Trouble::settings(rng);
        let trouble = Trouble::draw(rng, plan, settings);
        // Who has which rank does not change here: the launcher comes behind the nodes.
        plan.joins.clear();
        let mut processes = Vec::new();
        let mut add = |rng: &mut Rng, identity: Identity| {
            let clock = Clock::draw(rng);
            let membership = Membership::new(clock.shows(0), identity, settings, plan.view.clone());
            processes.push(Process::new(0, identity, clock, membership, Some(plan.view.id())));
        };
        for (node, member) in plan.view.iter() {
            add(
                rng,
                Identity { id: VoterId::Node(node), incarnation: member.incarnation, host: member.host },
            );
        }
        if settings.witness() {
            add(rng, Identity::WITNESS);
        }
        // A member begins without a lease.
        let driver = || Driver { held: true, ..Driver::default() };
        Cluster {
            mutant,
            settings,
            drivers: processes.iter().map(|_| driver()).collect(),
            processes,
            checks: Checks::new(&plan.view, settings),
            network: Network::calm(),
            trouble,
            stalled: BTreeMap::new(),
            tally: Tally::default(),
        }
    }

    /// Whether this run has that fault.
    pub fn has(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    /// A process by what it is.
    pub fn process_of(&self, id: VoterId) -> Option<ProcessId> {
        self.processes.iter().position(|process| process.identity.id == id)
    }
}
