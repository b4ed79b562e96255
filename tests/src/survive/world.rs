//! The loop of one run: what happens next, to whom, and whether all is still as it must be.

use super::Check;
use super::node::{Frame, SimNode, State, slot};
use super::oracle::Oracle;
use super::plan::Plan;
use crate::sim::Tracing;
use crate::sim::rng::Rng;
use crate::sim::trace::Trace;
use dsm_core::{
    Access, CallId, Command, Event, Message, NodeId, PageId, Progress, SegmentId, SpanOwner, Time, Timer,
    View, ViewId, Want,
};
use std::collections::BTreeMap;
use std::time::Duration;

/// What was counted.
#[derive(Clone, Copy, Default, Debug)]
pub struct Counts {
    /// Things that happened.
    pub events: u64,
    /// Nodes that died.
    pub deaths: u64,
    /// Views that were agreed on after the first.
    pub views: u64,
    /// Views in which members went on.
    pub recoveries: u64,
    /// Records that a buddy put into its frames.
    pub records: u64,
    /// Pages lost, counted at each member.
    pub lost: u64,
    /// Sections that ended.
    pub sections: u64,
    /// Stores to plain pages.
    pub stores: u64,
}

/// What is going to happen.
#[derive(Clone, Debug)]
pub enum Happening {
    Step(NodeId, usize),
    Fault(NodeId, PageId, Want),
    Delivered { from: NodeId, to: NodeId, view: ViewId, message: Message, body: Option<Frame> },
    Timer(NodeId, Timer, u64),
    Probed(NodeId, PageId, Progress),
    Killed(NodeId),
    Agreed,
    Installed(NodeId, View),
}

/// One run.
pub struct World {
    pub(super) plan: Plan,
    pub(super) rng: Rng,
    pub(super) now: Time,
    pub(super) nodes: Vec<SimNode>,
    pub(super) oracle: Oracle,
    pub(super) counts: Counts,
    pub(super) trace: Trace,
    /// The latest view that was agreed on, and the last that each node is to install.
    pub(super) view: View,
    /// Views whose recovery the oracle has seen.
    pub(super) seen: ViewId,
    /// When the latest message of each ordered pair arrives.
    pub(super) latest: BTreeMap<(NodeId, NodeId), Time>,
    /// From when on nothing of a dead node arrives, by receiver.
    pub(super) cut: BTreeMap<(NodeId, NodeId), Time>,
    queue: BTreeMap<(Time, u64), Happening>,
    scheduled: u64,
}

/// Threads begin when everybody has heard of the leases.
const START: Duration = Duration::from_millis(2);

/// A run has some thousand events; this many mean that something goes round for ever.
const EVENTS_MAX: u64 = 500_000;

impl World {
    pub fn new(seed: u64, tracing: Tracing) -> World {
        let mut rng = Rng::new(seed);
        let plan = Plan::draw(&mut rng);
        let nodes = plan.view.members().iter().map(|node| SimNode::new(&plan, node)).collect();
        World {
            rng,
            now: Time::ZERO,
            nodes,
            oracle: Oracle::new(&plan),
            counts: Counts::default(),
            trace: Trace::new(tracing),
            view: plan.view.clone(),
            seen: plan.view.id(),
            latest: BTreeMap::new(),
            cut: BTreeMap::new(),
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

    /// Runs to the end, and checks that nothing is left waiting.
    pub fn run(&mut self) -> Check {
        self.trace.note(self.now, NodeId(0), || format!("{:?}", self.plan));
        for (at, node) in self.plan.deaths.clone() {
            self.schedule(at, Happening::Killed(node));
        }
        for node in self.plan.view.members().iter() {
            self.lease_all(node)?;
            for index in 0..self.node(node).threads.len() {
                self.schedule(Time::ZERO + START, Happening::Step(node, index));
            }
        }
        while let Some(((at, _), what)) = self.queue.pop_first() {
            self.now = at;
            self.counts.events += 1;
            if self.counts.events > EVENTS_MAX {
                return Err(format!("no end after {EVENTS_MAX} events: {}", self.unfinished()));
            }
            self.happen(what)?;
        }
        let waiting = self.unfinished();
        if !waiting.is_empty() {
            return Err(format!("blocked for ever: {waiting}"));
        }
        self.at_rest()
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
            Happening::Delivered { from, to, view, message, body } => {
                self.deliver(from, to, view, message, body)
            }
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
            Happening::Agreed => {
                self.agree();
                Ok(())
            }
            Happening::Installed(node, view) => self.install_view(node, view),
        }
    }

    /// Hands one event to a node's machine, carries out what it wants, and checks what must hold then.
    pub(super) fn feed(&mut self, node: NodeId, event: Event) -> Check {
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

    fn deliver(
        &mut self,
        from: NodeId,
        to: NodeId,
        view: ViewId,
        message: Message,
        body: Option<Frame>,
    ) -> Check {
        if self.cut.get(&(from, to)).is_some_and(|cut| self.now >= *cut) {
            return Ok(());
        }
        let receiver = &mut self.nodes[to.index()];
        if receiver.dead || view < receiver.machine.view().id() {
            return Ok(());
        }
        if view > receiver.machine.view().id() {
            if body.is_some() {
                return Err(format!(
                    "{from} sends bytes of {view} to {to}, which has not installed it: {message:?}"
                ));
            }
            receiver.early.push((view, from, message));
            return Ok(());
        }
        if let Some(frame) = body {
            self.land(from, to, &message, frame)?;
        }
        self.feed(to, Event::Received { from, message })
    }

    /// What must hold of a node between events, and of all nodes together.
    fn check(&mut self, node: NodeId) -> Check {
        let subject = &self.nodes[node.index()];
        if subject.dead {
            return Ok(());
        }
        subject.machine.invariants().map_err(|violation| format!("{node}: {violation}"))?;
        let pages = self.plan.plain.iter().chain(self.plan.domains.iter().flat_map(|domain| &domain.pages));
        for &page in pages {
            let (mapped, held) = (subject.access[slot(page)], subject.machine.access(page));
            if mapped != held {
                return Err(format!("{node} has {page} mapped {mapped:?}, but its machine holds {held:?}"));
            }
            let having = |access: Access| {
                self.nodes.iter().filter(|node| !node.dead && node.access[slot(page)] == access).count()
            };
            let (writers, readers) = (having(Access::Write), having(Access::Read));
            if writers > 1 || writers == 1 && readers > 0 {
                return Err(format!("{page} has {writers} writers and {readers} readers at once"));
            }
        }
        Ok(())
    }

    /// Everybody is done and nothing is under way: what is committed has all its holders.
    fn at_rest(&mut self) -> Check {
        let alive: Vec<NodeId> =
            self.view.members().iter().filter(|node| !self.nodes[node.index()].dead).collect();
        for node in alive {
            let machine = &self.nodes[node.index()].machine;
            if machine.view().id() != self.view.id() {
                return Err(format!("{node} has not installed {}", self.view.id()));
            }
            if !machine.is_fully_replicated() {
                return Err(format!("{node} does not know all to be replicated in {}", self.view.id()));
            }
        }
        Ok(())
    }

    /// Who is not done, and why.
    fn unfinished(&self) -> String {
        let mut found = Vec::new();
        for (rank, node) in self.nodes.iter().enumerate().filter(|(_, node)| !node.dead) {
            for (index, thread) in node.threads.iter().enumerate() {
                if thread.state != State::Done {
                    found.push(format!(
                        "thread {rank}.{index} {:?} at {:?}",
                        thread.state,
                        thread.program.front()
                    ));
                }
            }
        }
        found.join("; ")
    }
}
