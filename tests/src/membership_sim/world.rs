//! The simulated cluster: processes, what is on its way, and the order in which things happen. Virtual time, one seed.

use super::checks::Checks;
use super::clock::Clock;
use super::mutant::Mutant;
use super::network::Network;
use super::process::{End, Process};
use super::tamper;
use crate::sim::Rng;
use dsm_core::membership::{
    Body, Candidate, ConfigStore, Fact, Identity, Intent, Membership, Packet, Settings, VoterId,
};
use dsm_core::{Host, Incarnation, NodeId, View};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::fmt;
use std::time::Duration;

/// A process, by the order of their starts.
pub type ProcessId = usize;

/// One thing that is going to happen.
pub enum Happening<S: ConfigStore> {
    /// A process is told something.
    Tell(ProcessId, Fact<S::Message>),
    /// A packet arrives.
    Arrive(ProcessId, VoterId, Packet<S::Message>),
    /// A process's own wake-up call, with its number.
    Alarm(ProcessId, u64),
    /// What the plan wants, by its place in the plan.
    Planned(usize),
    /// A stopped process runs again.
    Continue(ProcessId),
}

/// A cluster.
pub struct World<S: ConfigStore> {
    /// The one source of chance.
    pub rng: Rng,
    /// The simulation's time, in nanoseconds.
    pub now: u64,
    /// All processes that ever were. The first are the nodes of the first view, by rank.
    pub processes: Vec<Process<S>>,
    /// The launcher, if there is one.
    pub witness: Option<ProcessId>,
    /// The network.
    pub network: Network,
    /// The cluster's times.
    pub settings: Settings,
    /// How many in a thousand deaths of nodes are seen by the launcher.
    pub proof_permille: u64,
    /// What is checked, and what was seen.
    pub checks: Checks,
    mutant: Option<Mutant>,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    happenings: BTreeMap<u64, Happening<S>>,
    next: u64,
    incarnations: u64,
    tracing: Tracing,
    trace: VecDeque<String>,
}

/// What becomes of the lines that say what happens.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Tracing {
    /// Nothing: they take most of a run's time.
    #[default]
    Off,
    /// The last ones are kept.
    Keep,
    /// All are printed.
    Print,
}

/// Lines of a trace that a failure shows.
const TRACE_LINES: usize = 80;

/// What the launcher takes to see a death: its least and its most, in nanoseconds.
const PROOF_DELAY: (u64, u64) = (50_000, 5_000_000);

/// How much too fast a clock is that breaks the clock assumption.
const FAST_MILLIONTHS: i64 = 600_000;

/// What others take to see that connections are closed.
const CLOSED_DELAY: (u64, u64) = (20_000, 2_000_000);

impl<S: ConfigStore> World<S> {
    /// A cluster of `nodes` nodes, in its first view, at rest.
    pub fn new(
        seed: u64,
        nodes: u16,
        settings: Settings,
        mutant: Option<Mutant>,
        tracing: Tracing,
    ) -> World<S> {
        let mut rng = Rng::new(seed);
        let hosts = rng.between(1, 3);
        let members = (0..nodes)
            .map(|rank| (NodeId(rank), Incarnation(u64::from(rank) + 1), Host(u64::from(rank) % hosts)));
        let view = View::first(members, 1);
        let mut world = World {
            rng,
            now: 0,
            processes: Vec::new(),
            witness: None,
            network: Network::calm(),
            settings,
            proof_permille: 0,
            checks: Checks::new(&view, settings),
            mutant,
            queue: BinaryHeap::new(),
            happenings: BTreeMap::new(),
            next: 0,
            incarnations: u64::from(nodes) + 1,
            tracing,
            trace: VecDeque::new(),
        };
        for (node, member) in view.iter() {
            let id = VoterId::Node(node);
            world.start(Identity { id, incarnation: member.incarnation, host: member.host }, &view);
        }
        if settings.witness() {
            world.witness = Some(world.processes.len());
            world.start(Identity::WITNESS, &view);
        }
        world
    }

    fn start(&mut self, identity: Identity, view: &View) {
        let clock = self.clock();
        let membership = Membership::new(clock.shows(self.now), identity, self.settings, view.clone());
        self.add(identity, clock, membership, Some(view.id()));
    }

    /// A new process asks to become `node`.
    pub fn join(&mut self, node: NodeId) {
        self.incarnations += 1;
        let candidate = Candidate { node, incarnation: Incarnation(self.incarnations), host: Host(0) };
        let identity =
            Identity { id: VoterId::Node(node), incarnation: candidate.incarnation, host: candidate.host };
        let clock = self.clock();
        let contacts: Vec<VoterId> = self
            .processes
            .iter()
            .filter(|it| it.lives())
            .map(|it| it.identity.id)
            .filter(|id| *id != identity.id)
            .collect();
        let membership = Membership::joining(clock.shows(self.now), candidate, self.settings, contacts);
        self.note(format_args!("{node} is to be {}", candidate.incarnation));
        self.add(identity, clock, membership, None);
    }

    fn clock(&mut self) -> Clock {
        let clock = Clock::draw(&mut self.rng);
        let fast = self.mutant == Some(Mutant::FastClocks) && self.rng.chance(500);
        if fast { Clock { drift_millionths: FAST_MILLIONTHS, ..clock } } else { clock }
    }

    fn add(
        &mut self,
        identity: Identity,
        clock: Clock,
        membership: Membership<S>,
        installed: Option<dsm_core::ViewId>,
    ) {
        let process = self.processes.len();
        self.processes.push(Process::new(self.now, identity, clock, membership, installed));
        self.schedule(0, Happening::Tell(process, Fact::Tick));
    }

    /// Lets something happen after `delay`.
    pub fn schedule(&mut self, delay: u64, happening: Happening<S>) {
        self.next += 1;
        self.queue.push(Reverse((self.now + delay, self.next)));
        self.happenings.insert(self.next, happening);
    }

    /// The next thing that happens before `end`; without one, time goes on to `end`.
    pub fn step(&mut self, end: u64) -> Result<Step, String> {
        let Some(Reverse((time, number))) =
            self.queue.peek().copied().filter(|Reverse((time, _))| *time <= end)
        else {
            self.now = end;
            return Ok(Step::End);
        };
        self.queue.pop();
        self.now = time;
        match self.happenings.remove(&number) {
            Some(Happening::Tell(process, fact)) => self.tell(process, fact)?,
            Some(Happening::Arrive(process, from, packet)) => self.arrive(process, from, packet)?,
            Some(Happening::Alarm(process, alarm)) if self.processes[process].alarm == alarm => {
                self.tell(process, Fact::Tick)?;
            }
            Some(Happening::Alarm(..)) | None => {}
            Some(Happening::Continue(process)) => self.proceed(process)?,
            Some(Happening::Planned(place)) => return Ok(Step::Planned(place)),
        }
        Ok(Step::On)
    }

    /// What was on its way when its link was cut is lost as well.
    fn arrive(
        &mut self,
        process: ProcessId,
        from: VoterId,
        packet: Packet<S::Message>,
    ) -> Result<(), String> {
        let to = self.processes[process].identity.id;
        if self.network.cut.contains(&(from, to)) {
            return Ok(());
        }
        self.tell(process, Fact::Received { from, packet })
    }

    /// Runs for a while, without a plan.
    pub fn run_for(&mut self, span: Duration) -> Result<(), String> {
        let end = self.now + nanos(span);
        while self.step(end)? != Step::End {}
        Ok(())
    }

    /// Tells a process something, and does what it wants done.
    pub fn tell(&mut self, process: ProcessId, fact: Fact<S::Message>) -> Result<(), String> {
        let it = &mut self.processes[process];
        if !it.lives() {
            return Ok(());
        }
        if it.stopped.is_some() {
            it.backlog.push(fact);
            return Ok(());
        }
        let now = it.clock.shows(self.now);
        let mut fact = fact;
        tamper::fact(self.mutant, it, now, &mut fact);
        self.line(process, format_args!("<- {fact:?}"));
        let mut intents = Vec::new();
        self.processes[process].membership.handle(now, fact, &mut intents);
        for intent in intents {
            self.carry_out(process, intent)?;
        }
        self.checks.after(self.now, &self.processes, process, self.mutant == Some(Mutant::IgnoresFreeze))?;
        self.set_alarm(process);
        Ok(())
    }

    fn set_alarm(&mut self, process: ProcessId) {
        let it = &mut self.processes[process];
        it.alarm += 1;
        let (alarm, sluggish) = (it.alarm, it.sluggish);
        if let Some(deadline) = it.membership.deadline() {
            let mut at = it.clock.when(deadline);
            if self.mutant == Some(Mutant::LosesTicks) {
                at += nanos(self.settings.lease());
            }
            // The end of a lease is looked at whenever anything leaves: being slow does not prolong it.
            self.schedule(at.saturating_sub(self.now) + sluggish, Happening::Alarm(process, alarm));
        }
    }

    fn carry_out(&mut self, process: ProcessId, intent: Intent<S::Message>) -> Result<(), String> {
        let is_packet = matches!(intent, Intent::Send { .. });
        self.line(process, format_args!("   {intent:?}"));
        if !is_packet {
            self.checks.intents += 1;
        }
        let local = self.processes[process].clock.shows(self.now);
        match intent {
            Intent::Send { to, packet } => self.send(process, to, packet),
            Intent::Install(view) => {
                self.checks.installed(self.now, &mut self.processes, process, view)?;
                // It is said of one view. What would have to be handed over first, is not simulated.
                if self.processes[process].leaving {
                    self.schedule(0, Happening::Tell(process, Fact::Leave));
                }
            }
            Intent::Freeze => {
                if self.mutant != Some(Mutant::IgnoresFreeze) {
                    self.processes[process].frozen = Some(local);
                }
            }
            Intent::Resume => self.processes[process].frozen = None,
            Intent::Evicted { view } => {
                self.checks.evicted(&self.processes[process], view)?;
                self.end(process, End::Evicted);
            }
            Intent::Left => self.end(process, End::Left),
            Intent::NoQuorum => self.end(process, End::NoQuorum),
            Intent::Kill { node, incarnation } => {
                let victim = self.processes.iter().position(|it| {
                    it.identity.id == VoterId::Node(node)
                        && it.identity.incarnation == incarnation
                        && it.lives()
                });
                if let Some(victim) = victim.filter(|_| self.proof_permille > 0) {
                    self.processes[victim].disturbed = true;
                    self.end(victim, End::Killed);
                }
            }
        }
        Ok(())
    }

    fn send(&mut self, process: ProcessId, to: VoterId, mut packet: Packet<S::Message>) {
        let it = &mut self.processes[process];
        let from = it.identity.id;
        if matches!(packet.body, Body::Consensus(_)) {
            it.consensus_sent += 1;
        }
        let (sent, dies_at) = (it.consensus_sent, it.dies_at_consensus);
        self.checks.packets += 1;
        let is_muted = self.network.mute.contains(&to) && matches!(packet.body, Body::Consensus(_));
        if is_muted || !tamper::packet(self.mutant, &mut packet) {
            return;
        }
        // A rank may have had several processes: whoever is wrong has to notice.
        let receivers: Vec<ProcessId> =
            (0..self.processes.len()).filter(|other| self.processes[*other].identity.id == to).collect();
        for receiver in receivers {
            for delay in self.network.ways(&mut self.rng, from, to) {
                let delay = delay + self.processes[receiver].sluggish;
                self.schedule(delay, Happening::Arrive(receiver, from, packet.clone()));
            }
        }
        if dies_at.is_some_and(|at| sent >= at) {
            self.end(process, End::Killed);
        }
    }

    /// Ends a process.
    pub fn end(&mut self, process: ProcessId, end: End) {
        let it = &mut self.processes[process];
        if it.end.is_some() {
            return;
        }
        it.end = Some(end);
        it.backlog.clear();
        let identity = it.identity;
        self.line(process, format_args!("ends: {end:?}"));
        let VoterId::Node(node) = identity.id else { return };
        let is_seen = self.rng.chance(self.proof_permille);
        if let Some(witness) = self.witness.filter(|_| is_seen) {
            let delay = self.rng.between(PROOF_DELAY.0, PROOF_DELAY.1);
            let fact = Fact::ProvenDead { node, incarnation: identity.incarnation };
            self.schedule(delay, Happening::Tell(witness, fact));
        }
        for other in 0..self.processes.len() {
            if other != process && self.rng.chance(self.proof_permille) {
                let delay = self.rng.between(CLOSED_DELAY.0, CLOSED_DELAY.1);
                self.schedule(delay, Happening::Tell(other, Fact::Suspected { node }));
            }
        }
    }

    /// Stops a process for a while.
    pub fn stop(&mut self, process: ProcessId, span: u64) {
        if self.processes[process].lives() && self.processes[process].stopped.is_none() {
            self.processes[process].stopped = Some(self.now);
            self.processes[process].disturbed = true;
            self.line(process, format_args!("is stopped"));
            self.schedule(span, Happening::Continue(process));
        }
    }

    fn proceed(&mut self, process: ProcessId) -> Result<(), String> {
        self.processes[process].stopped = None;
        self.line(process, format_args!("runs again"));
        let mut backlog = core::mem::take(&mut self.processes[process].backlog);
        // Its queues are read in any order, one of them after the other, and timers first or last.
        if self.rng.chance(500) {
            let middle = self.rng.index(backlog.len().max(1));
            backlog.rotate_left(middle);
        }
        for fact in backlog {
            self.tell(process, fact)?;
        }
        self.tell(process, Fact::Tick)
    }

    /// A live process of this rank, the newest if there are several.
    #[must_use]
    pub fn process_of(&self, id: VoterId) -> Option<ProcessId> {
        self.processes.iter().rposition(|it| it.identity.id == id && it.lives())
    }

    /// The trace's last lines.
    #[must_use]
    pub fn trace(&self) -> Vec<String> {
        self.trace.iter().cloned().collect()
    }

    /// A line of the trace about nobody in particular.
    pub fn note(&mut self, what: fmt::Arguments<'_>) {
        let line = match self.tracing {
            Tracing::Off => return,
            Tracing::Keep | Tracing::Print => format!("{:>14.3} ms  {what}", self.now as f64 / NANOS_PER_MS),
        };
        if self.tracing == Tracing::Print {
            println!("{line}");
        }
        if self.trace.len() == TRACE_LINES {
            self.trace.pop_front();
        }
        self.trace.push_back(line);
    }

    fn line(&mut self, process: ProcessId, what: fmt::Arguments<'_>) {
        let identity = self.processes[process].identity;
        self.note(format_args!("{} #{}  {what}", identity.id, identity.incarnation.0));
    }
}

/// Traces are in milliseconds.
const NANOS_PER_MS: f64 = 1e6;

/// What a step was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Something happened.
    On,
    /// The plan's turn has come.
    Planned(usize),
    /// Nothing more happens in time.
    End,
}

/// A span in the simulation's unit.
#[must_use]
pub fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}
