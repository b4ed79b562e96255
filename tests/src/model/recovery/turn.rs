//! One step: what may happen in a state, and what one node makes of it.

use super::super::state::{Shared, Slot};
use super::Cluster;
use super::configuration::{Crashes, Task};
use super::mutant::Mutant;
use super::rules::Rule;
use super::state::{Node, Said, State, Step, Waiting, Word};
use crate::sim::panics;
use dsm_core::{
    Access, Action, CallId, Command, Commit, Event, Landing, LockId, Machine, Message, NodeId, PageId,
    Progress, RecordId, Report, SpanOwner, SpanRange, Time, Version, View, Want, wire,
};
use std::collections::{BTreeSet, VecDeque};

/// The model has no clock: all happens at one instant.
const NOW: Time = Time::ZERO;

/// What is in a frame in which bytes broke off, or that was used for something else.
pub(super) const RUBBISH: Word = Word::MAX;

/// A broken rule, and how.
pub(super) type Check<T = ()> = Result<T, (Rule, String)>;

impl Cluster {
    /// All messages that may come, and all that may break off.
    pub(super) fn deliveries(&self, state: &State, steps: &mut Vec<Step>) {
        if state.broken.is_some() {
            return;
        }
        for (index, said) in state.network.iter().enumerate() {
            let receiver = &state.nodes[said.to.index()];
            if !state.is_first(index) || said.view != receiver.installed {
                continue;
            }
            steps.push(Step::Deliver(index));
            let straight = match receiver.machine.landing(said.from, &said.message) {
                Landing::Frame => true,
                Landing::Aside => self.mutant == Some(Mutant::PlacesBodiesOverKept),
                Landing::Record(_) | Landing::Nowhere => false,
            };
            if straight && state.nodes[said.from.index()].dead {
                steps.push(Step::Tear(index));
            }
        }
    }

    /// All views that may be installed.
    pub(super) fn installations(&self, state: &State, steps: &mut Vec<Step>) {
        if state.broken.is_none() {
            let latest = state.latest().id();
            let behind = state.alive().filter(|(_, node)| node.installed < latest);
            steps.extend(behind.map(|(name, _)| Step::Install(name)));
        }
    }

    /// All that threads may do, and all deaths.
    pub(super) fn beginnings(&self, state: &State, steps: &mut Vec<Step>) {
        if state.broken.is_some() {
            return;
        }
        let ready = |node: &Node| node.waiting == Waiting::Not && !node.program.is_empty();
        steps.extend(state.alive().filter(|(_, node)| ready(node)).map(|(name, _)| Step::Run(name)));
        let replicated =
            |node: &Node| node.installed == state.latest().id() && node.machine.is_fully_replicated();
        let apart = self.configuration.when == Crashes::Anytime
            || state.views.len() == 1
            || state.alive().all(|(_, node)| replicated(node));
        if state.crashes > 0 && apart && state.alive().count() > 1 {
            let victims = state.alive().filter(|(name, _)| self.configuration.victims.contains(&name.0));
            steps.extend(victims.map(|(name, _)| Step::Crash(name)));
        }
    }

    pub(super) fn slot(&self, page: PageId) -> Option<Slot> {
        self.pages.iter().position(|&known| known == page)
    }

    /// The lock of the domain.
    pub(super) fn lock(&self) -> LockId {
        LockId(self.configuration.geometry().address_of(self.pages[0]))
    }
}

/// The turn of one node.
pub(super) struct Turn<'a> {
    pub cluster: &'a Cluster,
    pub state: &'a mut State,
    pub me: NodeId,
    pub node: Node,
    /// Pages at whose instruction the machine wants the driver to look.
    pub probes: BTreeSet<PageId>,
    /// Whether the thread may try again.
    pub woken: bool,
    /// Whether the section that has just begun is to say what it has.
    pub covering: bool,
    /// What a mutant puts into others' mouths, to be heard next.
    pub forged: VecDeque<(NodeId, Message)>,
}

impl<'a> Turn<'a> {
    pub fn new(cluster: &'a Cluster, state: &'a mut State, me: NodeId) -> Turn<'a> {
        let node = (*state.nodes[me.index()]).clone();
        Turn {
            cluster,
            state,
            me,
            node,
            probes: BTreeSet::new(),
            woken: false,
            covering: false,
            forged: VecDeque::new(),
        }
    }

    /// Takes the step, and notes in the state what came of it.
    pub fn take(mut self, step: Step) {
        let outcome = match step {
            Step::Run(_) => self.attempt(),
            Step::Deliver(index) => self.deliver(index),
            Step::Tear(index) => self.tear(index),
            Step::Crash(_) => {
                self.crash();
                Ok(())
            }
            Step::Install(_) => self.install_view(),
        };
        let outcome = outcome.and_then(|()| self.settle());
        self.state.nodes[self.me.index()] = Shared::new(self.node);
        self.state.broken = outcome.and_then(|()| self.cluster.check(self.state, self.me)).err();
    }

    pub(super) fn is(&self, mutant: Mutant) -> bool {
        self.cluster.mutant == Some(mutant)
    }

    /// Answers probes and lets the thread go on, until nothing more follows.
    fn settle(&mut self) -> Check {
        loop {
            if core::mem::take(&mut self.woken) {
                self.attempt()?;
            } else if core::mem::take(&mut self.covering) {
                self.cover()?;
            } else if let Some((from, message)) = self.forged.pop_front() {
                self.handle(Event::Received { from, message })?;
            } else if let Some(page) = self.probes.pop_first() {
                self.handle(Event::Probed { page, progress: Progress::Retired })?;
            } else {
                return Ok(());
            }
        }
    }

    /// Hands one fact to the machine, and does all that it wants.
    pub(super) fn handle(&mut self, event: Event) -> Check {
        let mut actions = Vec::new();
        let machine = &mut self.node.machine;
        let handled = panics::caught(|| {
            machine.handle(NOW, event, &mut actions);
            Ok(())
        });
        handled.map_err(|what| (Rule::NoPanic, what))?;
        actions.into_iter().try_for_each(|action: Action| self.act(action))
    }

    /// The thread tries what is next.
    fn attempt(&mut self) -> Check {
        let Some(&task) = self.node.program.first() else { return Ok(()) };
        let truth = |what| (Rule::LatestStore, what);
        match task {
            Task::Load(page) => {
                if self.can(page, Want::Read)? {
                    self.state.truth.loaded(self.me, page, self.node.frames[page]).map_err(truth)?;
                    self.retire();
                }
            }
            Task::Store(page) => {
                if self.can(page, Want::Write)? {
                    let found = self.node.frames[page];
                    self.node.frames[page] = self.state.truth.store(self.me, page, found).map_err(truth)?;
                    self.retire();
                }
            }
            Task::Look => {
                if self.can(0, Want::Read)? && self.can(1, Want::Read)? {
                    let counts = [self.node.frames[0], self.node.frames[1]];
                    let whole = self.state.truth.looked(self.me, counts);
                    whole.map_err(|what| (Rule::SectionsAreWhole, what))?;
                    self.node.found = counts[0];
                    self.retire();
                }
            }
            Task::Count(page) => {
                if self.can(page, Want::Write)? {
                    self.node.frames[page] = self.node.found + 1;
                    self.retire();
                }
            }
            Task::Lock => {
                let lock = self.cluster.lock();
                self.ask(Command::Lock { lock, wait: true })?;
            }
            Task::Sync => self.ask(Command::Sync)?,
            Task::Unlock => {
                let count = self.node.found + 1;
                self.state.truth.unlocked(self.me, count);
                let lock = self.cluster.lock();
                if let Some(acquired) = self.node.acquired.take() {
                    let call = self.name();
                    self.retire();
                    self.handle(Event::Command { call, command: Command::Unlock { lock, acquired } })?;
                }
            }
        }
        Ok(())
    }

    /// Whether the thread may touch the page; if not, it faults.
    fn can(&mut self, page: Slot, want: Want) -> Check<bool> {
        if self.node.table[page] >= want.access() {
            return Ok(true);
        }
        self.node.waiting = Waiting::Page(page, want);
        self.handle(Event::Fault { page: self.cluster.pages[page], want })?;
        Ok(false)
    }

    pub(super) fn retire(&mut self) {
        self.node.program.remove(0);
    }

    fn name(&mut self) -> CallId {
        self.node.calls += 1;
        CallId(self.node.calls)
    }

    fn ask(&mut self, command: Command) -> Check {
        let call = self.name();
        self.node.waiting = Waiting::Call(call);
        self.handle(Event::Command { call, command })
    }

    /// Says which pages the section has besides the lock's own.
    pub(super) fn cover(&mut self) -> Check {
        let lock = self.cluster.lock();
        let owner = SpanOwner::Domain(lock.0);
        let spans = vec![SpanRange { first: self.cluster.pages[1], pages: 1, owner }];
        let call = self.name();
        self.handle(Event::Command { call, command: Command::Cover { lock, spans } })
    }

    /// A message comes. The parts of a report come as one: before its end, they mean nothing.
    fn deliver(&mut self, index: usize) -> Check {
        loop {
            let said = self.state.network.remove(index);
            let is_part = matches!(
                said.message,
                Message::Report(
                    Report::Pages { .. } | Report::Locks { .. } | Report::Spans { .. } | Report::Root { .. }
                )
            );
            let whole = !is_part || !self.is_next(index, &said);
            self.hear(said)?;
            if whole {
                return Ok(());
            }
        }
    }

    fn is_next(&self, index: usize, said: &Said) -> bool {
        let next = self.state.network.get(index);
        next.is_some_and(|next| (next.from, next.to, next.view) == (said.from, said.to, said.view))
    }

    fn hear(&mut self, said: Said) -> Check {
        let Said { from, mut message, body, .. } = said;
        if let (Some(word), Some(page)) = (body, wire::page_behind(&message)) {
            let page = self.known(page)?;
            match self.node.machine.landing(from, &message) {
                Landing::Frame => {
                    let mapped = self.node.table[page];
                    self.require(mapped == Access::None, || format!("bytes come over mapped page {page}"))?;
                    self.node.frames[page] = word;
                }
                Landing::Aside => drop(self.node.aside.insert(page, word)),
                Landing::Record(record) => {
                    self.node.records.entry((from, record)).or_default().insert(page, word);
                }
                Landing::Nowhere => {}
            }
        }
        if let Message::Commit(Commit::Ack { record }) = &mut message
            && self.is(Mutant::AcksAnyNumber)
        {
            *record = self.node.sent.get(&from).copied().unwrap_or(*record);
        }
        let acked = match (&message, self.cluster.mutant) {
            (Message::Commit(Commit::Ack { record }), Some(Mutant::ReleasesAtOnce)) => Some(*record),
            (_, Some(_) | None) => None,
        };
        self.handle(Event::Received { from, message })?;
        acked.into_iter().for_each(|record| self.release_all(record));
        Ok(())
    }

    /// The one buddy has acked a record: all others hear that they need not keep what came before.
    fn release_all(&mut self, record: RecordId) {
        let view = self.node.machine.view().clone();
        let before = Version { view: view.id(), record };
        let others = view.members().minus(view.buddies_of(self.me)).without(self.me);
        let pages: Vec<PageId> =
            self.node.pages.iter().filter(|(of, _)| *of == record).map(|(_, page)| *page).collect();
        for page in pages {
            for other in others.iter() {
                self.say(other, Message::Commit(Commit::Release { page, before }), None);
            }
        }
    }

    /// A part of the bytes behind a message comes, and nothing more of its sender.
    fn tear(&mut self, index: usize) -> Check {
        let said = self.state.network[index].clone();
        if let Some(page) = wire::page_behind(&said.message) {
            let page = self.known(page)?;
            self.node.frames[page] = RUBBISH;
        }
        self.state.network.retain(|other| (other.from, other.to) != (said.from, said.to));
        Ok(())
    }

    /// This node is no more: what it was is told apart no longer.
    fn crash(&mut self) {
        let me = self.me;
        let view = self.cluster.configuration.view();
        let pages = self.cluster.pages.len();
        self.node = Node {
            machine: Machine::in_view(me, view, self.cluster.configuration.geometry()),
            table: vec![Access::None; pages],
            frames: vec![0; pages],
            twins: Default::default(),
            aside: Default::default(),
            records: Default::default(),
            program: Vec::new(),
            waiting: Waiting::Not,
            acquired: None,
            found: 0,
            calls: 0,
            installed: self.node.installed,
            dead: true,
            begun: BTreeSet::new(),
            sent: Default::default(),
            pages: BTreeSet::new(),
        };
        self.state.truth.died(me);
        self.state.crashes -= 1;
        self.state.network.retain(|said| said.to != me);
        let next = self.state.latest().next(dsm_core::Copyset::EMPTY.with(me), []);
        self.state.views.push(next);
    }

    /// This node installs the next view. Nothing of earlier ones comes any more.
    fn install_view(&mut self) -> Check {
        let me = self.me;
        if self.is(Mutant::CountsHalfRecords) {
            self.count_halves()?;
        }
        let installed = self.node.installed;
        let Some(view) = self.state.views.iter().find(|view| view.id().0 == installed.0 + 1).cloned() else {
            return Ok(());
        };
        self.state.network.retain(|said| said.to != me || said.view >= view.id());
        self.node.installed = view.id();
        let view = if self.is(Mutant::ReusesVersions) {
            let member = |node| view.member(node).map(|member| (node, member.incarnation, member.host));
            View::first(view.members().iter().filter_map(member), view.replicas())
        } else {
            view
        };
        self.node.sent.clear();
        self.node.begun.clear();
        self.node.pages.clear();
        self.handle(Event::ViewInstalled(view))
    }

    /// What has come of records of the dead is taken for whole.
    fn count_halves(&mut self) -> Check {
        let dead = |from: &NodeId| self.state.nodes[from.index()].dead;
        let begun: Vec<_> = self.node.records.iter().filter(|((from, _), _)| dead(from)).collect();
        let begun: Vec<_> = begun.into_iter().map(|(&(from, id), pages)| (from, id, pages.len())).collect();
        for (from, record, pages) in begun {
            let previous = self.node.sent.get(&from).copied().unwrap_or(RecordId::NONE);
            let pages = u32::try_from(pages).unwrap_or(u32::MAX);
            let message = Message::Commit(Commit::End { record, previous, pages });
            self.handle(Event::Received { from, message })?;
        }
        Ok(())
    }
}
