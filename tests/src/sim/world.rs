//! The loop of one run: what happens next, to whom, and whether all is still as it must be.

use super::counts::Counts;
use super::histories::Histories;
use super::hostile::Hostile;
use super::mutant::Mutant;
use super::network::Network;
use super::node::{Body, SimNode, State, ThreadId, slot};
use super::oracle::Oracle;
use super::plan::Plan;
use super::program::{self, Operation};
use super::queue::{Happening, Queue};
use super::rng::Rng;
use super::trace::{Trace, Tracing};
use super::{Check, Checks, Options};
use dsm_core::{Access, Action, Event, Message, NodeId, PageId, Time};
use std::collections::VecDeque;
use std::mem;
use std::time::Duration;

/// One run.
pub struct World {
    pub(super) plan: Plan,
    pub(super) rng: Rng,
    pub(super) now: Time,
    pub(super) queue: Queue,
    pub(super) network: Network,
    pub(super) nodes: Vec<SimNode>,
    pub(super) oracle: Oracle,
    pub(super) histories: Histories,
    pub(super) counts: Counts,
    pub(super) trace: Trace,
    pub(super) mutant: Option<Mutant>,
    pub(super) checks: Checks,
    pub(super) hostile: Option<Hostile>,
    /// Threads that have not come to the end of their programs.
    pub(super) running: usize,
    phase: Phase,
    actions: Vec<Action>,
}

/// What all threads are at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Programs,
    /// One thread of each node loads every word.
    Audit,
    /// One thread of each node leaves.
    Leave,
    Over,
}

/// A run has a few thousand events; this many mean that something goes round for ever.
const EVENTS_MAX: u64 = 2_000_000;

/// What threads put into structures begins here: told at a glance from what they store to words.
const STRUCTURE_VALUES: u64 = 1_000_000;

/// Survivors learn of a death within this time.
const MOURNING_NS_MAX: u64 = 20_000_000;

impl World {
    /// The world of a seed, before anything has happened.
    #[must_use]
    pub fn new(seed: u64, options: &Options, tracing: Tracing) -> World {
        let mut rng = Rng::new(seed);
        let mut plan = Plan::draw(&mut rng, options.crashes);
        let hostile = options.hostile.and_then(|hostility| Hostile::draw(&mut plan, &mut rng, hostility));
        let mut nodes = Vec::new();
        let mut value = STRUCTURE_VALUES;
        for (node, &threads) in plan.nodes().zip(&plan.threads) {
            let mut draw = |index| program::draw(&plan, &mut rng, index == 0, &mut value);
            let programs = (0..threads).map(&mut draw).collect();
            let mut state = SimNode::new(&plan, node, programs);
            if hostile.is_some() {
                state.machine = state.machine.with_transaction_key(rng.draw());
            }
            nodes.push(state);
        }
        World {
            rng,
            now: Time::ZERO,
            queue: Queue::default(),
            network: Network::new(nodes.len()),
            nodes,
            oracle: Oracle::new(&plan),
            histories: Histories::new(&plan, options.checks != Checks::Oracle),
            counts: Counts { seeds: 1, ..Counts::default() },
            trace: Trace::new(tracing),
            mutant: options.mutant,
            checks: options.checks,
            hostile,
            running: 0,
            phase: Phase::Programs,
            actions: Vec::new(),
            plan,
        }
    }

    /// When the run ended, what it counted, and its trace.
    #[must_use]
    pub fn into_parts(mut self) -> (Time, Counts, Vec<String>) {
        self.counts.reached(self.now);
        (self.now, self.counts, self.trace.into_lines())
    }

    /// Runs to the end, and checks that all is quiet then.
    pub fn run(&mut self) -> Check {
        self.trace.note(self.now, NodeId::COORDINATOR, || format!("{:?}", self.plan));
        if let Some(crash) = self.plan.crash {
            self.queue.schedule(crash.at, Happening::Killed(crash.node));
        }
        for node in self.plan.nodes() {
            for index in 0..self.node(node).threads.len() {
                self.running += 1;
                self.resume(ThreadId { node, index });
            }
        }
        self.let_loose()?;
        while let Some((at, what)) = self.queue.next() {
            self.now = at;
            self.counts.events += 1;
            if self.counts.events > EVENTS_MAX {
                return Err(format!("no end after {EVENTS_MAX} events: {}", self.unfinished()));
            }
            self.happen(what)?;
            while self.running == 0 && self.phase != Phase::Over {
                self.next_phase();
            }
        }
        if self.phase != Phase::Over {
            return Err(format!("blocked for ever: {}", self.unfinished()));
        }
        self.judge(self.at_rest())
    }

    /// The verdict on what a check found that looks at more than threads can see; none if only histories count.
    pub(super) fn judge(&self, found: Check) -> Check {
        if self.checks == Checks::History { Ok(()) } else { found }
    }

    /// Whether what all threads were told can be explained. To be asked when the run is over, once. If it cannot, the
    /// run ends, as it were, with the first answer that cannot.
    pub fn check_histories(&mut self) -> Check {
        self.histories.check(&self.plan, &mut self.counts.histories).map_err(|why| {
            self.now = self.now.min(Time::from_nanos(why.at));
            why.text
        })
    }

    fn happen(&mut self, what: Happening) -> Check {
        match what {
            Happening::Step(thread) => self.step(thread),
            Happening::FaultReported { node, page, want } => self.feed(node, Event::Fault { page, want }),
            Happening::Delivered { from, to, message, body } => self.deliver(from, to, message, body),
            Happening::HeldLongEnough { from, to } => {
                if !self.node(from).dead {
                    self.release(from, to);
                }
                Ok(())
            }
            Happening::TimerDue { node, timer, generation } => {
                if self.node(node).timers.get(&timer) == Some(&generation) {
                    self.node(node).timers.remove(&timer);
                    return self.feed(node, Event::TimerFired(timer));
                }
                Ok(())
            }
            Happening::Probed { node, page, progress } => self.feed(node, Event::Probed { page, progress }),
            Happening::Impatient { node, lock, waiting } => self.lose_patience(node, lock, waiting),
            Happening::Babbles => self.babble(),
            Happening::Killed(node) => {
                // A run that is over has nobody left to notice.
                if self.phase != Phase::Over {
                    self.kill(node);
                }
                Ok(())
            }
            Happening::LossKnown { node, lost } => {
                let survivor = self.node(node);
                survivor.mourned = survivor.mourned.with(lost);
                self.feed(node, Event::PeerLost { node: lost })
            }
        }
    }

    /// Whether every node has left.
    pub(super) fn is_over(&self) -> bool {
        self.phase == Phase::Over
    }

    pub(super) fn node(&mut self, node: NodeId) -> &mut SimNode {
        &mut self.nodes[node.index()]
    }

    /// Hands one event to a node's machine, carries out what it wants, and checks what must hold then.
    pub(super) fn feed(&mut self, node: NodeId, event: Event) -> Check {
        if self.nodes[node.index()].dead {
            return Ok(());
        }
        self.trace.note(self.now, node, || format!("<- {event:?}"));
        let mut actions = mem::take(&mut self.actions);
        self.nodes[node.index()].machine.handle(self.now, event, &mut actions);
        for action in actions.drain(..) {
            if self.nodes[node.index()].dead {
                break;
            }
            self.trace.note(self.now, node, || format!("   {action:?}"));
            self.carry_out(node, action)?;
        }
        self.actions = actions;
        self.check(node)
    }

    fn deliver(&mut self, from: NodeId, to: NodeId, message: Message, body: Option<Body>) -> Check {
        let receiver = &mut self.nodes[to.index()];
        if receiver.dead || receiver.mourned.contains(from) {
            return Ok(());
        }
        if let Some(Body { page, frame }) = body
            && receiver.machine.reserves(from, &message)
        {
            if receiver.access(page) != Access::None && self.checks != Checks::History {
                return Err(format!("{to} would have a body written into its mapped {page}: {message:?}"));
            }
            if self.mutant != Some(Mutant::DiscardsBody) {
                receiver.frames[slot(page)] = frame;
            }
            let honest = self.checks != Checks::History
                && !self.mutant.is_some_and(Mutant::is_about_bodies)
                && !self.is_hostile(from);
            let sender = &self.nodes[from.index()];
            let held = sender.frames[slot(page)];
            if honest && !sender.dead && held != frame {
                return Err(format!(
                    "{from}'s frame of {page} changed while its bytes were on their way to {to}"
                ));
            }
        }
        if !self.is_hostile(from) {
            self.observe(to, &message);
        }
        self.feed(to, Event::Received { from, message })
    }

    /// What must hold of a node between events, and of all nodes together.
    fn check(&mut self, node: NodeId) -> Check {
        let subject = &self.nodes[node.index()];
        if subject.dead || self.checks == Checks::History || self.is_hostile(node) {
            return Ok(());
        }
        subject.machine.invariants().map_err(|violation| format!("{node}: {violation}"))?;
        for &page in &self.plan.hot {
            let (mapped, held) = (subject.access(page), subject.machine.access(page));
            if mapped != held && self.believes_page_tables() {
                return Err(format!("{node} has {page} mapped {mapped:?}, but its machine holds {held:?}"));
            }
            self.one_writer_xor_readers(page)?;
        }
        Ok(())
    }

    fn one_writer_xor_readers(&self, page: PageId) -> Check {
        let having = |access: Access| {
            let holds = move |node: &&SimNode| !node.dead && node.access(page) == access;
            self.nodes.iter().filter(holds).count()
        };
        let (writers, readers) = (having(Access::Write), having(Access::Read));
        if writers > 1 || writers == 1 && readers > 0 {
            return Err(format!("{page} has {writers} writers and {readers} readers at once"));
        }
        Ok(())
    }

    /// All programs have ended and nothing is under way any more: everything must be at rest.
    fn at_rest(&self) -> Check {
        self.oracle.totals()?;
        self.oracle.at_rest()?;
        let crashed = self.nodes.iter().any(|node| node.dead);
        let living = |(name, node): &(NodeId, &SimNode)| !node.dead && !self.is_hostile(*name);
        for (name, node) in self.plan.nodes().zip(&self.nodes).filter(living) {
            if let Some((call, what)) = node.calls.first_key_value() {
                return Err(format!("{call:?} of {name} was never answered: {what:?}"));
            }
            // What the hostile member began nobody need end.
            if !crashed && self.hostile.is_none() && !node.machine.is_quiet() {
                return Err(format!("{name} is not quiet at the end: {:?}", node.machine));
            }
            for &page in &self.plan.hot {
                let held = &node.frames[slot(page)];
                if node.access(page) != Access::None && held != self.oracle.frame(page) {
                    return Err(format!("{name} still has {page} mapped, with old contents {held:x?}"));
                }
            }
            if !crashed {
                self.directory_at_rest(name)?;
            }
        }
        Ok(())
    }

    /// The directory of a home must say what the page tables of all nodes say.
    fn directory_at_rest(&self, home: NodeId) -> Check {
        let machine = &self.nodes[home.index()].machine;
        let concerns = |page: &PageId| self.hostile.is_none() || self.plan.hot.contains(page);
        for page in machine.homed_pages().filter(concerns) {
            let Some((owner, readers)) = machine.holders(page) else {
                return Err(format!("{page} is in a transaction that never ends"));
            };
            for (node, state) in self.plan.nodes().zip(&self.nodes) {
                let expected = owner == Some(node) || readers.contains(node);
                if expected != (state.access(page) != Access::None) {
                    return Err(format!(
                        "the directory says owner {owner:?} and readers {readers:?} of {page}, but {node} has {:?}",
                        state.access(page)
                    ));
                }
            }
        }
        Ok(())
    }

    /// Everybody has come to the end of a phase: the next one begins.
    fn next_phase(&mut self) {
        self.phase = match self.phase {
            Phase::Programs => Phase::Audit,
            Phase::Audit => Phase::Leave,
            Phase::Leave | Phase::Over => Phase::Over,
        };
        let program = match self.phase {
            Phase::Programs | Phase::Over => return,
            Phase::Audit => program::audit(&self.plan, false),
            Phase::Leave => VecDeque::from([Operation::Leave]),
        };
        let mut looks = self.phase == Phase::Audit;
        for node in self.plan.nodes() {
            let state = &self.nodes[node.index()];
            if state.dead || state.threads.is_empty() {
                continue;
            }
            // One look at the structures is enough.
            let first = mem::take(&mut looks).then(|| program::audit(&self.plan, true));
            let state = self.node(node);
            state.threads[0].program.clone_from(first.as_ref().unwrap_or(&program));
            state.threads[0].state = State::Ready;
            self.running += 1;
            self.resume(ThreadId { node, index: 0 });
        }
    }

    /// A node is no more: its threads, its memory, and what it has not sent yet.
    pub(super) fn kill(&mut self, node: NodeId) {
        let victim = &mut self.nodes[node.index()];
        if mem::replace(&mut victim.dead, true) {
            return;
        }
        self.running -= victim.threads.iter().filter(|thread| thread.state != State::Done).count();
        self.abandon_sections(node);
        self.oracle.died(node);
        self.counts.crashes = 1;
        self.trace.note(self.now, node, || "killed".to_owned());
        if self.mutant == Some(Mutant::HidesDeaths) {
            return;
        }
        for survivor in self.plan.nodes().filter(|survivor| *survivor != node) {
            let at = self.now + Duration::from_nanos(self.rng.below(MOURNING_NS_MAX));
            self.queue.schedule(at, Happening::LossKnown { node: survivor, lost: node });
        }
    }

    /// Who is not done, and why.
    fn unfinished(&self) -> String {
        let mut found = Vec::new();
        for (rank, node) in self.nodes.iter().enumerate().filter(|(_, node)| !node.dead) {
            for (index, thread) in node.threads.iter().enumerate() {
                match thread.state {
                    State::Done => {}
                    State::Calling(call) => {
                        found.push(format!("thread {rank}.{index} waits for {:?}", node.calls.get(&call)));
                    }
                    State::Ready | State::Faulted { .. } => found.push(format!(
                        "thread {rank}.{index} is {:?} after {} faults of {:?}",
                        thread.state,
                        thread.faults,
                        thread.program.front()
                    )),
                }
            }
        }
        found.join("; ")
    }
}
