//! A small cluster: machines, page tables, one word per page, and a first-in-first-out wire per ordered pair of nodes.
//! It carries out what the machines want. What comes from bytes is decided elsewhere; what must be true, in `truth`.

use super::Check;
use super::forge::{About, Palette};
use super::story::{ANSWER_BYTES_MAX, Counts, EVENT_BYTES_MAX, Measure};
use super::truth::Truth;
use dsm_core::{
    Access, Action, Actions, CallId, Event, Machine, Message, NodeId, PageId, Payload, Progress, Time, Timer,
    Want,
};
use std::collections::{BTreeMap, VecDeque};
use std::io::Write;
use std::time::Duration;

/// A page's bytes on their way: one word stands for all of them.
pub(super) type Word = u64;

/// One node.
pub(super) struct Node {
    pub machine: Machine,
    access: BTreeMap<PageId, Access>,
    frames: BTreeMap<PageId, Word>,
    /// Pages for which a thread waits, and what its instruction wants.
    pub waiting: BTreeMap<PageId, Want>,
    /// Looks that the driver owes the machine.
    pub probes: VecDeque<PageId>,
    timers: BTreeMap<Timer, Time>,
    /// What is not to be sent before something else is.
    held_back: BTreeMap<NodeId, Vec<Message>>,
    pub calls_made: u64,
}

/// A message, and the word behind it.
type Parcel = (Message, Option<Word>);

/// The cluster.
pub(super) struct Cluster {
    pub palette: Palette,
    pub nodes: Vec<Node>,
    pub truth: Truth,
    pub counts: Counts,
    /// Whether the hostile member has begun to be hostile; before, it is one of the honest.
    pub turned: bool,
    now: Time,
    wire: BTreeMap<(NodeId, NodeId), VecDeque<Parcel>>,
    actions: Actions,
    /// Threads that were woken with too little: they fault again.
    refaults: VecDeque<(NodeId, PageId, Want)>,
    measure: Measure,
    /// Whether what happens is printed.
    pub echo: bool,
}

/// A cluster at rest comes to rest again within this many deliveries, looks and timers: a fault takes a handful.
const SETTLE_STEPS_MAX: u32 = 100_000;

/// How far time goes on between two things that happen.
const TICK: Duration = Duration::from_micros(5);

impl Cluster {
    pub fn new(palette: Palette, key: Option<u64>, measure: Measure) -> Cluster {
        let machine = |node: NodeId| {
            let machine = Machine::new(node, palette.members, palette.geometry);
            match key {
                Some(key) => machine.with_transaction_key(key ^ u64::from(node.0)),
                None => machine,
            }
        };
        let nodes = palette.members.iter().map(|node| Node {
            machine: machine(node),
            access: BTreeMap::new(),
            frames: BTreeMap::new(),
            waiting: BTreeMap::new(),
            probes: VecDeque::new(),
            timers: BTreeMap::new(),
            held_back: BTreeMap::new(),
            calls_made: 0,
        });
        Cluster {
            nodes: nodes.collect(),
            truth: Truth::new(&palette),
            palette,
            counts: Counts::default(),
            turned: false,
            now: Time::ZERO,
            wire: BTreeMap::new(),
            actions: Actions::new(),
            refaults: VecDeque::new(),
            measure,
            echo: false,
        }
    }

    /// Whether the node runs a machine still.
    pub fn is_honest(&self, node: NodeId) -> bool {
        !(self.turned && node == self.palette.hostile)
    }

    /// The nodes that run a machine.
    pub fn honest(&self) -> Vec<NodeId> {
        self.palette.members.iter().filter(|node| self.is_honest(*node)).collect()
    }

    /// From now on one member says whatever it likes.
    pub fn turn(&mut self) {
        self.note(|| format!("n{} turns hostile", self.palette.hostile.0));
        self.turned = true;
        self.truth.turned(self.palette.hostile);
    }

    pub fn access(&self, node: NodeId, page: PageId) -> Access {
        self.nodes[node.index()].access.get(&page).copied().unwrap_or(Access::None)
    }

    /// Lets time pass.
    pub fn wait(&mut self, span: Duration) {
        self.now = self.now + span;
    }

    /// Hands an event to a node's machine, carries out its answer, and checks what must hold then.
    pub fn feed(&mut self, node: NodeId, event: Event) -> Check {
        if !self.is_honest(node) {
            return Ok(());
        }
        self.now = self.now + TICK;
        self.counts.events += 1;
        self.note(|| format!("n{} <- {event:?}", node.0));
        let said = match &event {
            Event::Received { from, message } => Some((*from, message.clone())),
            Event::Fault { .. }
            | Event::TimerFired(_)
            | Event::Probed { .. }
            | Event::Command { .. }
            | Event::ViewInstalled(_)
            | Event::Joined
            | Event::PeerLost { .. } => None,
        };
        let mut actions = std::mem::take(&mut self.actions);
        let machine = &mut self.nodes[node.index()].machine;
        let (now, mut event) = (self.now, Some(event));
        let bytes = (self.measure)(&mut || {
            if let Some(event) = event.take() {
                machine.handle(now, event, &mut actions);
            }
        });
        let waiting = self.counts.hostile + self.truth.calls.len() as u64;
        if bytes > EVENT_BYTES_MAX + waiting * ANSWER_BYTES_MAX {
            return Err(format!("{node} allocated {bytes} bytes for one event: {said:?}"));
        }
        self.note_refusal(node, said.as_ref(), &actions)?;
        for action in actions.drain(..) {
            self.note(|| format!("n{}    {action:?}", node.0));
            self.carry_out(node, action)?;
        }
        self.actions = actions;
        self.check(node)?;
        match self.refaults.pop_front() {
            Some((node, page, want)) => self.feed(node, Event::Fault { page, want }),
            None => Ok(()),
        }
    }

    fn note(&self, line: impl FnOnce() -> String) {
        if self.echo {
            // Whoever closed the pipe has seen enough.
            drop(writeln!(std::io::stdout(), "{}", line()));
        }
    }

    /// What the hostile member says reaches `to` now.
    pub fn hostile_says(&mut self, to: NodeId, message: Message, word: Word) -> Check {
        let from = self.palette.hostile;
        self.counts.hostile += 1;
        let body = matches!(message, Message::Grant { payload: Payload::Bytes, .. }).then_some(word);
        self.arrive(from, to, message, body)
    }

    fn arrive(&mut self, from: NodeId, to: NodeId, message: Message, body: Option<Word>) -> Check {
        if !self.is_honest(to) {
            self.palette.hear(&message);
            return Ok(());
        }
        let receiver = &mut self.nodes[to.index()];
        if let (About::Page(page, _), Some(word)) = (About::of(&message), body)
            && receiver.machine.reserves(from, &message)
        {
            if receiver.access.get(&page).is_some_and(|access| *access != Access::None) {
                return Err(format!("{to} would have bytes written into its mapped {page}: {message:?}"));
            }
            receiver.frames.insert(page, word);
            // Whoever guesses the number of a fault that is under way takes part in it.
            if !self.is_honest(from) && !self.truth.is_involved(page) {
                self.truth.involve(page);
                self.counts.guessed += 1;
            }
        }
        self.feed(to, Event::Received { from, message })
    }

    /// Whether the machine refuses what it was told; and whether it may.
    fn note_refusal(&mut self, node: NodeId, said: Option<&(NodeId, Message)>, actions: &[Action]) -> Check {
        let refused = actions.iter().find_map(|action| {
            if let Action::Reject { from, cause } = action { Some((*from, *cause)) } else { None }
        });
        let page = said.and_then(|(_, message)| match About::of(message) {
            About::Page(page, _) => Some(page),
            About::Call(_) | About::Other => None,
        });
        match (refused, said) {
            (Some((from, _)), _) if !self.is_honest(from) => self.counts.refused += 1,
            // The hostile member took part in this page: what its home and its holders believe may differ.
            (Some(_), _) if page.is_some_and(|page| self.truth.is_involved(page)) => {
                self.counts.bystanders += 1;
            }
            (Some((from, cause)), said) => {
                return Err(format!("{node} refuses what {from} says, who is honest: {cause}: {said:?}"));
            }
            (None, Some((from, Message::Request { page, .. }))) if !self.is_honest(*from) => {
                self.truth.involve(*page);
            }
            (None, Some((from, message))) if !self.is_honest(*from) => self.truth.taken(message)?,
            (None, _) => {}
        }
        Ok(())
    }

    fn carry_out(&mut self, node: NodeId, action: Action) -> Check {
        match action {
            Action::Protect { page, access } => {
                self.nodes[node.index()].access.insert(page, access);
                Ok(())
            }
            Action::Install { page, access, payload } => {
                let state = &mut self.nodes[node.index()];
                if payload == Payload::Zero {
                    state.frames.insert(page, 0);
                }
                state.access.insert(page, access);
                self.wake(node, page)
            }
            Action::Refresh { page, .. } => self.wake(node, page),
            Action::Replicate(what) => {
                Err(format!("{node} replicates, though nobody is to keep anything: {what:?}"))
            }
            Action::Send { to, message } => {
                self.put_on_wire(node, to, message, None);
                Ok(())
            }
            Action::SendLazily { to, message } => {
                self.nodes[node.index()].held_back.entry(to).or_default().push(message);
                Ok(())
            }
            Action::Flush { to } => {
                self.release(node, to);
                Ok(())
            }
            Action::SendPage { to, page, message } => {
                let word = self.nodes[node.index()].frames.get(&page).copied().unwrap_or(0);
                self.put_on_wire(node, to, message, Some(word));
                Ok(())
            }
            Action::SetTimer { timer, at } => {
                self.nodes[node.index()].timers.insert(timer, at);
                Ok(())
            }
            Action::ProbeResidency { page } => {
                self.nodes[node.index()].probes.push_back(page);
                Ok(())
            }
            Action::Complete { call, reply } => self.truth.answered(&self.palette, node, call, reply),
            Action::Doom { page, node: lost } => {
                self.nodes[node.index()].waiting.remove(&page);
                self.truth.doomed(node, page, lost)
            }
            Action::Freed { .. } => Ok(()),
            // Noted already.
            Action::Reject { .. } => Ok(()),
        }
    }

    fn put_on_wire(&mut self, from: NodeId, to: NodeId, message: Message, word: Option<Word>) {
        self.release(from, to);
        self.truth.sent(to, &message);
        self.wire.entry((from, to)).or_default().push_back((message, word));
    }

    /// Sends what was held back.
    fn release(&mut self, from: NodeId, to: NodeId) {
        for message in self.nodes[from.index()].held_back.remove(&to).unwrap_or_default() {
            self.wire.entry((from, to)).or_default().push_back((message, None));
        }
    }

    /// Delivers the next message of the pair that `choice` picks among those that have one; `false` if none has.
    pub fn deliver(&mut self, choice: usize) -> Check<bool> {
        self.wire.retain(|_, parcels| !parcels.is_empty());
        if self.wire.is_empty() {
            return Ok(false);
        }
        let at = choice % self.wire.len();
        let next =
            self.wire.iter_mut().nth(at).and_then(|(pair, parcels)| Some((*pair, parcels.pop_front()?)));
        let Some(((from, to), (message, word))) = next else { return Ok(false) };
        self.arrive(from, to, message, word).map(|()| true)
    }

    /// Answers the oldest look that the node's driver owes.
    pub fn look(&mut self, node: NodeId, progress: Progress) -> Check {
        match self.nodes[node.index()].probes.pop_front() {
            Some(page) => self.feed(node, Event::Probed { page, progress }),
            None => Ok(()),
        }
    }

    /// Delivers everything, looks until every instruction has retired, and lets every timer run out.
    pub fn settle(&mut self) -> Check {
        for _ in 0..SETTLE_STEPS_MAX {
            if self.deliver(0)? || self.look_once()? || self.ring_once()? {
                continue;
            }
            let held: Vec<(NodeId, NodeId)> = self
                .palette
                .members
                .iter()
                .flat_map(|from| {
                    let to = self.nodes[from.index()].held_back.keys();
                    to.map(move |to| (from, *to)).collect::<Vec<_>>()
                })
                .collect();
            if held.is_empty() {
                return Ok(());
            }
            held.into_iter().for_each(|(from, to)| self.release(from, to));
        }
        Err(format!("no rest after {SETTLE_STEPS_MAX} steps"))
    }

    fn look_once(&mut self) -> Check<bool> {
        for node in self.honest() {
            if !self.nodes[node.index()].probes.is_empty() {
                return self.look(node, Progress::Retired).map(|()| true);
            }
        }
        Ok(false)
    }

    fn ring_once(&mut self) -> Check<bool> {
        for node in self.honest() {
            if self.ring(node)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Lets the node's first timer run out; `false` if it has none.
    pub fn ring(&mut self, node: NodeId) -> Check<bool> {
        let Some((timer, at)) = self.nodes[node.index()].timers.pop_first() else { return Ok(false) };
        self.now = self.now.max(at);
        self.feed(node, Event::TimerFired(timer)).map(|()| true)
    }

    /// A thread of `node` is to load from `page`, or to store to it.
    pub fn touch(&mut self, node: NodeId, page: PageId, want: Want) -> Check {
        if self.access(node, page) >= want.access() {
            return self.perform(node, page, want);
        }
        let state = &mut self.nodes[node.index()];
        let waits = state.waiting.entry(page).or_insert(want);
        *waits = (*waits).max(want);
        self.feed(node, Event::Fault { page, want })
    }

    fn wake(&mut self, node: NodeId, page: PageId) -> Check {
        let Some(want) = self.nodes[node.index()].waiting.get(&page).copied() else { return Ok(()) };
        if self.access(node, page) >= want.access() {
            self.nodes[node.index()].waiting.remove(&page);
            return self.perform(node, page, want);
        }
        self.refaults.push_back((node, page, want));
        Ok(())
    }

    fn perform(&mut self, node: NodeId, page: PageId, want: Want) -> Check {
        let word = self.nodes[node.index()].frames.entry(page).or_insert(0);
        self.truth.accessed(node, page, want, word)
    }

    fn check(&self, node: NodeId) -> Check {
        let machine = &self.nodes[node.index()].machine;
        machine.invariants().map_err(|violation| format!("{node}: {violation}"))?;
        for &page in &self.palette.pages {
            if self.access(node, page) != machine.access(page) {
                return Err(format!("{node}'s page table and machine disagree about {page}"));
            }
            if self.truth.is_involved(page) {
                continue;
            }
            let with = |access| self.honest().into_iter().filter(|n| self.access(*n, page) == access).count();
            let (writers, readers) = (with(Access::Write), with(Access::Read));
            if writers > 1 || writers == 1 && readers > 0 {
                return Err(format!("{page} has {writers} writers and {readers} readers at once"));
            }
        }
        Ok(())
    }

    /// The node's next call.
    pub fn next_call(&mut self, node: NodeId) -> CallId {
        let state = &mut self.nodes[node.index()];
        state.calls_made += 1;
        CallId(state.calls_made)
    }
}
