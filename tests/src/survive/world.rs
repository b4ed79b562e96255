//! The loop of one run: what happens next, to whom, and whether all is still as it must be.

use super::Check;
use super::cluster::{self, Cluster};
use super::counts::Counts;
use super::lies::Lies;
use super::mutant::Mutant;
use super::network::{Network, Said};
use super::node::SimNode;
use super::oracle::Oracle;
use super::plan::{Plan, When};
use super::points::Doom;
use crate::sim::Tracing;
use crate::sim::rng::Rng;
use crate::sim::trace::Trace;
use dsm_core::{
    CallId, Command, Event, NodeId, PageId, Progress, SegmentId, SpanOwner, Time, Timer, View, ViewId, Want,
};
use std::collections::BTreeMap;
use std::time::Duration;

/// What is going to happen.
#[derive(Clone, Debug)]
pub enum Happening {
    Step(NodeId, usize),
    Fault(NodeId, PageId, Want),
    Delivered(Said),
    Timer(NodeId, Timer, u64),
    Probed(NodeId, PageId, Progress),
    Killed(NodeId),
    Knocks(usize),
    Joined(NodeId),
    Agreed,
    Installed(NodeId, View),
    /// Something that concerns the agreement on views.
    Cluster(cluster::Happening),
}

/// One run.
pub struct World {
    pub(super) plan: Plan,
    pub(super) rng: Rng,
    pub(super) now: Time,
    pub(super) nodes: Vec<SimNode>,
    /// Processes whose rank another has now.
    pub(super) graves: Vec<SimNode>,
    /// Who waits to be let in, by the plan's count, and how many processes there have been.
    pub(super) knocking: Vec<usize>,
    pub(super) lives: u16,
    pub(super) oracle: Oracle,
    pub(super) counts: Counts,
    pub(super) trace: Trace,
    /// The latest view that was agreed on, and the last that each node is to install.
    pub(super) view: View,
    /// Views whose recovery the oracle has seen.
    pub(super) seen: ViewId,
    /// All views so far.
    pub(super) views: Vec<View>,
    pub(super) network: Network,
    pub(super) mutant: Option<Mutant>,
    pub(super) lies: Lies,
    /// The agreement on views; without it they come by decree.
    pub(super) cluster: Option<Box<Cluster>>,
    /// A node that dies at a place that has a name.
    pub(super) doom: Option<Doom>,
    queue: BTreeMap<(Time, u64), Happening>,
    scheduled: u64,
}

/// Threads begin when everybody has heard of the leases.
const START: Duration = Duration::from_millis(2);

/// A run has some thousand events; this many mean that something goes round for ever.
const EVENTS_MAX: u64 = 500_000;

impl World {
    pub fn new(seed: u64, mutant: Option<Mutant>, tracing: Tracing) -> World {
        let mut rng = Rng::new(seed);
        let plan = Plan::draw(&mut rng);
        World::begin(rng, plan, mutant, tracing)
    }

    /// A cluster at its start.
    pub(super) fn begin(rng: Rng, plan: Plan, mutant: Option<Mutant>, tracing: Tracing) -> World {
        let nodes: Vec<SimNode> = plan.view.members().iter().map(|node| SimNode::new(&plan, node)).collect();
        let lives = u16::try_from(nodes.len()).unwrap_or(u16::MAX);
        World {
            rng,
            now: Time::ZERO,
            nodes,
            graves: Vec::new(),
            knocking: Vec::new(),
            lives,
            oracle: Oracle::new(&plan),
            counts: Counts { seeds: 1, ..Counts::default() },
            trace: Trace::new(tracing),
            view: plan.view.clone(),
            seen: plan.view.id(),
            views: vec![plan.view.clone()],
            network: Network::default(),
            mutant,
            lies: Lies::default(),
            cluster: None,
            doom: None,
            queue: BTreeMap::new(),
            scheduled: 0,
            plan,
        }
    }

    pub fn into_parts(self) -> (Time, Counts, Vec<String>) {
        (self.now, self.counts, self.trace.into_lines())
    }

    pub(super) fn schedule(&mut self, at: Time, what: Happening) {
        self.scheduled += 1;
        self.queue.insert((at, self.scheduled), what);
    }

    pub(super) fn after(&mut self, most: u64) -> Time {
        self.now + Duration::from_nanos(1 + self.rng.below(most))
    }

    pub(super) fn node(&mut self, node: NodeId) -> &mut SimNode {
        &mut self.nodes[node.index()]
    }

    /// Which process of the run has the rank now.
    pub(super) fn life(&self, node: NodeId) -> NodeId {
        self.nodes[node.index()].life
    }

    /// Nothing that was to happen to a process of this rank happens to the next.
    pub(super) fn forget_plans_of(&mut self, rank: NodeId) {
        self.queue.retain(|_, what| match what {
            Happening::Step(node, _)
            | Happening::Fault(node, ..)
            | Happening::Timer(node, ..)
            | Happening::Probed(node, ..)
            | Happening::Killed(node)
            | Happening::Joined(node)
            | Happening::Installed(node, _) => *node != rank,
            Happening::Delivered(_) | Happening::Knocks(_) | Happening::Agreed | Happening::Cluster(_) => {
                true
            }
        });
    }

    /// Runs to the end, and checks that nothing is left waiting.
    pub fn run(&mut self) -> Check {
        self.begin_all(START)?;
        while self.next()? {}
        let waiting = self.unfinished();
        if !waiting.is_empty() {
            return Err(format!("blocked for ever: {waiting}"));
        }
        self.at_rest()
    }

    /// Schedules what the plan wants, and lets the threads begin at `start`.
    pub(super) fn begin_all(&mut self, start: Duration) -> Check {
        self.trace.note(self.now, NodeId(0), || format!("{:?}", self.plan));
        for (node, when) in self.plan.deaths.clone() {
            match when {
                When::At(at) => self.schedule(at, Happening::Killed(node)),
                When::Nth(..) => {}
            }
        }
        for (index, join) in self.plan.joins.clone().into_iter().enumerate() {
            self.schedule(join.at, Happening::Knocks(index));
        }
        for node in self.plan.view.members().iter() {
            self.lease_all(node)?;
            for index in 0..self.node(node).threads.len() {
                self.schedule(Time::ZERO + start, Happening::Step(node, index));
            }
        }
        Ok(())
    }

    /// The next thing that happens; false if nothing does any more.
    pub(super) fn next(&mut self) -> Check<bool> {
        if let Some(((at, _), what)) = self.queue.pop_first() {
            self.now = at;
            self.counts.events += 1;
            if self.counts.events > EVENTS_MAX {
                return Err(format!("no end after {EVENTS_MAX} events: {}", self.unfinished()));
            }
            if let Some(what) = self.when_it_runs(what) {
                self.happen(what)?;
            }
            return Ok(true);
        }
        Ok(false)
    }

    /// All pages of the small zone are leased, as pages in use are: else nobody would miss them.
    fn lease_all(&mut self, node: NodeId) -> Check {
        let (geometry, members) = (self.plan.geometry, self.plan.view.members());
        for segment in geometry.small_zone().map(SegmentId) {
            if geometry.home_of_segment(segment, members) == node {
                let pages = geometry.segment_pages();
                let command = Command::SpanLease { pages, owner: SpanOwner::Node(node) };
                self.node(node).calls_made += 1;
                let call = CallId(self.node(node).calls_made);
                self.feed(node, Event::Command { call, command })?;
            }
        }
        Ok(())
    }

    fn happen(&mut self, what: Happening) -> Check {
        match what {
            Happening::Step(node, index) => self.step(node, index),
            Happening::Fault(node, page, want) => self.feed(node, Event::Fault { page, want }),
            Happening::Delivered(said) => self.deliver(said),
            Happening::Timer(node, timer, generation) => {
                if self.node(node).timers.get(&timer) == Some(&generation) {
                    self.node(node).timers.remove(&timer);
                    return self.feed(node, Event::TimerFired(timer));
                }
                Ok(())
            }
            Happening::Probed(node, page, progress) => self.feed(node, Event::Probed { page, progress }),
            Happening::Killed(node) => {
                self.kill(node);
                Ok(())
            }
            Happening::Knocks(index) => {
                self.knock(index);
                Ok(())
            }
            Happening::Joined(node) => self.join(node),
            Happening::Agreed => {
                self.agree();
                Ok(())
            }
            Happening::Installed(node, view) => self.install_view(node, view),
            Happening::Cluster(what) => self.happen_in_cluster(what),
        }
    }

    /// Hands one event to a node, which may have to put it off.
    pub(super) fn feed(&mut self, node: NodeId, event: Event) -> Check {
        match self.put_off(node, event) {
            Some(event) => self.handle(node, event),
            None => Ok(()),
        }
    }

    /// Hands one event to a node's machine, carries out what it wants, and checks what must hold then.
    pub(super) fn handle(&mut self, node: NodeId, event: Event) -> Check {
        if self.node(node).dead {
            return Ok(());
        }
        self.trace.note(self.now, node, || format!("<- {event:?}"));
        let mut actions = Vec::new();
        let now = self.now;
        self.node(node).machine.handle(now, event, &mut actions);
        for action in actions {
            self.trace.note(self.now, node, || format!("   {action:?}"));
            self.carry_out(node, action)?;
        }
        self.check(node)
    }
}
