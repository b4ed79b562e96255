//! One step: the node whose turn it is takes a fact to its machine, and carries out what the machine wants.

use super::Cluster;
use super::configuration::{HoldBack, Instruction};
use super::mutant::Mutant;
use super::state::{Envelope, Node, Rule, Shared, Slot, State};
use super::steps::{Step, accesses, fault_of};
use crate::sim::panics;
use dsm_core::{Access, Action, Event, Message, NodeId, PageId, Payload, Progress, Time, Timer};

/// The model has no clock: all happens at one instant. A page's residency then never runs out by itself; that a driver
/// finds it retired is a step of its own.
const NOW: Time = Time::ZERO;

/// What a frame holds after a mutant has used it for something else.
const OVERWRITTEN: u8 = u8::MAX;

/// No node has more transactions than this in a configuration.
const TRANSACTIONS_MAX: u64 = 32;

/// A broken rule, and how.
pub(super) type Check = Result<(), (Rule, String)>;

/// The turn of one node.
pub(super) struct Turn<'a> {
    cluster: &'a Cluster,
    state: &'a mut State,
    me: NodeId,
    node: Node,
    /// The message at hand is a stray: the machine must refuse it.
    stray: bool,
    /// Who owned a page of this home before the event, where the directory said.
    owner: Option<NodeId>,
}

impl<'a> Turn<'a> {
    /// A turn of `me`.
    pub fn new(cluster: &'a Cluster, state: &'a mut State, me: NodeId) -> Turn<'a> {
        let node = (*state.nodes[me.index()]).clone();
        Turn { cluster, state, me, node, stray: false, owner: None }
    }

    /// Takes the step, and notes in the state what came of it.
    pub fn take(mut self, step: Step) {
        let outcome = self.carry_out(step).and_then(|()| self.check());
        self.state.nodes[self.me.index()] = Shared::new(self.node);
        self.state.broken = outcome.and_then(|()| self.cluster.one_writer_or_readers(self.state)).err();
    }

    fn carry_out(&mut self, step: Step) -> Check {
        match step {
            Step::Begin { thread, instruction, .. } => {
                self.node.threads[thread].left -= 1;
                self.node.threads[thread].doing = Some(instruction);
                self.attempt(thread, instruction)
            }
            Step::Retry { thread, .. } => match self.node.threads[thread].doing {
                Some(instruction) => self.attempt(thread, instruction),
                None => Ok(()),
            },
            Step::Deliver { index, twice } => self.deliver(index, twice),
            Step::Look { page, progress, hasty, .. } => self.look(page, progress, hasty),
            Step::Timer { page, .. } => {
                self.node.timers.remove(&page);
                self.feed(Event::TimerFired(Timer::Residency(self.cluster.pages[page])))
            }
            Step::Protect { .. } => {
                let (page, access) = self.node.overdue.remove(0);
                self.node.table[page] = self.node.table[page].min(access);
                Ok(())
            }
        }
    }

    /// A thread tries its instruction: it retires, or faults.
    fn attempt(&mut self, thread: usize, instruction: Instruction) -> Check {
        if let Some((page, want)) = fault_of(&self.node, instruction) {
            self.node.threads[thread].faulted = Some((page, want));
            return self.feed(Event::Fault { page: self.cluster.pages[page], want });
        }
        for (page, want) in accesses(instruction) {
            let (found, latest) = (self.node.frames[page], self.state.latest[page]);
            if found != latest {
                let what = format!("{} finds version {found} of page {page}, not {latest}", self.me);
                return Err((Rule::LatestStore, what));
            }
            if want.access() == Access::Write {
                self.state.latest[page] += 1;
                self.node.frames[page] = self.state.latest[page];
            }
        }
        self.node.threads[thread].doing = None;
        for unretired in &mut self.node.unretired {
            *unretired &= !(1 << thread);
        }
        Ok(())
    }

    fn deliver(&mut self, index: usize, twice: bool) -> Check {
        let envelope = self.state.network.remove(index);
        let Envelope { from, mut message, body, .. } = envelope.clone();
        if twice {
            self.state.strays -= 1;
            self.state.transmit(envelope.again(), self.cluster.configuration.network);
        }
        self.receive_body(&envelope)?;
        self.say_too_early(&message);
        self.stray = envelope.stray;
        if !self.stray {
            return self.feed(Event::Received { from, message });
        }
        let before = self.node.clone();
        if self.cluster.mutant == Some(Mutant::AcceptsAnyGrant) {
            message = self.renamed(from, message);
        }
        self.feed(Event::Received { from, message })?;
        if self.node == before || body.is_some_and(|_| self.accepts_any_body()) {
            return Ok(());
        }
        Err((Rule::StraysChangeNothing, format!("{} is changed by what comes twice from {from}", self.me)))
    }

    /// The ack or the confirmation that a mutant sends as soon as it hears of what it is to wait for.
    fn say_too_early(&mut self, message: &Message) {
        match (self.cluster.mutant, message) {
            (Some(Mutant::AcksBeforeUnmapping), &Message::Invalidate { page, transaction }) => {
                self.node.said.insert(transaction);
                self.transmit(transaction.node, Message::Ack { page, transaction, custody: None }, None);
            }
            (Some(Mutant::ConfirmsBeforeAcks), &Message::Grant { page, transaction, awaiting, .. })
                if !awaiting.is_empty() && self.home_of(page) != self.me =>
            {
                self.node.said.insert(transaction);
                self.transmit(self.home_of(page), Message::Confirm { page, transaction }, None);
            }
            (Some(_) | None, _) => {}
        }
    }

    /// Whether a mutant has sent this ack or confirmation before.
    fn was_said(&mut self, message: &Message) -> bool {
        if let Message::Ack { transaction, .. } | Message::Confirm { transaction, .. } = message {
            self.node.said.remove(transaction)
        } else {
            false
        }
    }

    /// The same grant, in the name of the transaction for which this node waits, if it waits for the page.
    fn renamed(&self, from: NodeId, mut message: Message) -> Message {
        for number in 1..=TRANSACTIONS_MAX {
            if let Message::Grant { transaction, .. } = &mut message {
                transaction.number = number;
            }
            if self.node.machine.reserves(from, &message) {
                break;
            }
        }
        message
    }

    /// Puts the bytes of a message where they belong.
    fn receive_body(&mut self, envelope: &Envelope) -> Check {
        let (Some(body), Message::Grant { page, .. }) = (envelope.body, &envelope.message) else {
            return Ok(());
        };
        let page = self.known(*page)?;
        let frame = self.state.nodes[envelope.from.index()].frames[page];
        if frame != body && !envelope.stray && self.cluster.mutant != Some(Mutant::SendsStaleBody) {
            let what =
                format!("page {page} of {} holds version {frame}, {body} is on its way", envelope.from);
            return Err((Rule::BodyIsFrame, what));
        }
        let reserved = self.node.machine.reserves(envelope.from, &envelope.message);
        if (reserved || self.accepts_any_body()) && self.cluster.mutant != Some(Mutant::DiscardsBody) {
            self.node.frames[page] = body;
        }
        Ok(())
    }

    fn accepts_any_body(&self) -> bool {
        self.cluster.mutant == Some(Mutant::AcceptsAnyBody)
    }

    fn look(&mut self, page: Slot, progress: Progress, hasty: bool) -> Check {
        self.state.hasty -= u8::from(hasty);
        self.node.probes.remove(&page);
        self.feed(Event::Probed { page: self.cluster.pages[page], progress })?;
        // A timer that the machine set now waits for another sight than this.
        if let Some(seen) = self.node.timers.get_mut(&page) {
            *seen = progress;
        }
        Ok(())
    }

    /// Hands one fact to the machine, and does all that it wants.
    fn feed(&mut self, event: Event) -> Check {
        let mut actions = Vec::new();
        self.owner = self.owner_before(&event);
        let machine = &mut self.node.machine;
        let handled = panics::caught(|| {
            machine.handle(NOW, event, &mut actions);
            Ok(())
        });
        handled.map_err(|what| (Rule::NoPanic, what))?;
        let mut started = Vec::new();
        for action in actions {
            started.extend(self.unconfirmed(&action));
            self.act(action)?;
        }
        // A home that waits for no confirmation goes on as if it had come.
        started.into_iter().try_for_each(|(from, message)| self.feed(Event::Received { from, message }))
    }

    fn act(&mut self, action: Action) -> Check {
        match action {
            Action::Protect { page, access } => self.protect(page, access),
            Action::Install { page, access, payload } => self.install(page, access, payload),
            Action::Refresh { page, access } => {
                let page = self.known(page)?;
                self.require(self.node.table[page] == access, || format!("page {page} is not {access:?}"))?;
                self.wake(page);
                Ok(())
            }
            Action::Send { to, message } => {
                self.say(to, message, None);
                Ok(())
            }
            Action::SendLazily { to, message } => {
                match self.cluster.configuration.hold_back {
                    HoldBack::AnyTime => self.say(to, message, None),
                    HoldBack::UntilNeeded => self.node.held.push((to, message)),
                }
                Ok(())
            }
            Action::Flush { to } => {
                if self.cluster.mutant != Some(Mutant::IgnoresFlush) {
                    self.release(to);
                }
                Ok(())
            }
            Action::SendPage { to, page, message } => {
                let page = self.known(page)?;
                let frame = self.node.frames[page];
                let stale = self.cluster.mutant == Some(Mutant::SendsStaleBody);
                self.say(to, message, Some(frame.saturating_sub(u8::from(stale))));
                if self.cluster.mutant == Some(Mutant::ReusesSentFrame) {
                    self.node.frames[page] = OVERWRITTEN;
                }
                Ok(())
            }
            Action::SetTimer { timer: Timer::Residency(page), at: _ } => {
                let page = self.known(page)?;
                self.node.timers.insert(page, Progress::Waiting);
                Ok(())
            }
            Action::ProbeResidency { page } => {
                let page = self.known(page)?;
                self.node.probes.insert(page);
                Ok(())
            }
            Action::Reject { .. } if self.stray => Ok(()),
            Action::Reject { from, cause } => {
                Err((Rule::NothingRefused, format!("{} refuses what {from} said: {cause}", self.me)))
            }
            Action::Doom { page, node } => {
                Err((Rule::NothingRefused, format!("{} gives up {page}, lost with {node}", self.me)))
            }
            Action::Complete { .. } | Action::Freed { .. } | Action::Replicate(_) => {
                Err((Rule::ActionsFit, format!("{} answers what nobody asked: {action:?}", self.me)))
            }
        }
    }

    fn protect(&mut self, page: PageId, access: Access) -> Check {
        let page = self.known(page)?;
        let mapped = self.node.table[page];
        let honest = !self.cluster.mutant.is_some_and(Mutant::is_about_page_tables);
        self.require(mapped > access || !honest, || {
            format!("page {page} is {mapped:?}, not above {access:?}")
        })?;
        self.node.table[page] = match (self.cluster.mutant, access) {
            (Some(Mutant::KeepsReadMapping), Access::None) => Access::Read,
            (Some(Mutant::ForgetsProtecting), _) => mapped,
            (Some(Mutant::KeepsWriteMapping), Access::Read) => mapped,
            (Some(Mutant::SendsBeforeProtecting), access) => {
                self.node.overdue.push((page, access));
                mapped
            }
            (Some(_) | None, access) => access,
        };
        Ok(())
    }

    fn install(&mut self, page: PageId, access: Access, payload: Payload) -> Check {
        let page = self.known(page)?;
        let mapped = self.node.table[page];
        let fits = match payload {
            Payload::Bytes | Payload::Zero => mapped == Access::None && access != Access::None,
            Payload::Held => mapped == Access::Read && access == Access::Write,
        };
        let honest = !self.cluster.mutant.is_some_and(Mutant::is_about_page_tables);
        self.require(fits || !honest, || {
            format!("{payload:?} as {access:?} over {mapped:?} on page {page}")
        })?;
        let cleared = match payload {
            Payload::Zero => true,
            Payload::Bytes => self.cluster.mutant == Some(Mutant::ClearsPages),
            Payload::Held => false,
        };
        if cleared {
            self.node.frames[page] = 0;
        }
        let writable = self.cluster.mutant == Some(Mutant::MapsReadsWritable);
        self.node.table[page] = if writable { Access::Write } else { access };
        self.wake(page);
        Ok(())
    }

    /// Wakes every thread that waits for the page.
    fn wake(&mut self, page: Slot) {
        for (index, thread) in self.node.threads.iter_mut().enumerate() {
            if thread.faulted.is_none_or(|(awaited, _)| awaited != page) {
                continue;
            }
            if self.cluster.mutant == Some(Mutant::LosesWakes) {
                return;
            }
            thread.faulted = None;
            self.node.unretired[page] |= 1 << index;
            if self.cluster.mutant == Some(Mutant::WakesOneThread) {
                return;
            }
        }
    }

    /// Says a message to a peer, after all that was held back for it.
    fn say(&mut self, to: NodeId, message: Message, body: Option<u8>) {
        self.release(to);
        let mut message = message;
        if let Some(mutant) = self.cluster.mutant {
            if mutant.loses(&message, to, self.owner) || self.was_said(&message) {
                return;
            }
            mutant.alter(&mut message, self.owner);
            if mutant == Mutant::DoublesRequests && matches!(message, Message::Request { .. }) {
                self.transmit(to, message.clone(), None);
            }
        }
        self.transmit(to, message, body);
    }

    fn transmit(&mut self, to: NodeId, message: Message, body: Option<u8>) {
        let envelope = Envelope::new(self.me, to, message, body);
        self.state.transmit(envelope, self.cluster.configuration.network);
    }

    /// Lets go what was held back for a peer.
    fn release(&mut self, to: NodeId) {
        let (released, held): (Vec<_>, Vec<_>) =
            core::mem::take(&mut self.node.held).into_iter().partition(|&(other, _)| other == to);
        self.node.held = held;
        for (to, message) in released {
            self.say(to, message, None);
        }
    }

    /// The confirmation of a transaction that this home starts with `action`, for a home that does not wait for it.
    fn unconfirmed(&self, action: &Action) -> Option<(NodeId, Message)> {
        let (Action::Send { message, .. } | Action::SendPage { message, .. }) = action else { return None };
        let (Message::Grant { page, transaction, .. } | Message::Forward { page, transaction, .. }) =
            *message
        else {
            return None;
        };
        let mine = self.home_of(page) == self.me && transaction.node != self.me;
        let careless = self.cluster.mutant == Some(Mutant::NoWaitForConfirm);
        (mine && careless).then_some((transaction.node, Message::Confirm { page, transaction }))
    }

    /// The owner of the page that an event is about, if this is its home and the page is idle.
    fn owner_before(&self, event: &Event) -> Option<NodeId> {
        let Event::Received { message: Message::Request { page, .. }, .. } = event else { return None };
        self.node.machine.holders(*page).and_then(|(owner, _)| owner)
    }

    fn home_of(&self, page: PageId) -> NodeId {
        self.cluster.home_of(page)
    }

    fn known(&self, page: PageId) -> Result<Slot, (Rule, String)> {
        let unknown = || (Rule::ActionsFit, format!("{} speaks of {page}, which nobody touched", self.me));
        self.cluster.slot(page).ok_or_else(unknown)
    }

    fn require(&self, holds: bool, what: impl FnOnce() -> String) -> Check {
        if holds { Ok(()) } else { Err((Rule::ActionsFit, format!("{}: {}", self.me, what()))) }
    }

    /// What must hold of this node after each step.
    fn check(&self) -> Check {
        let honest = !self.cluster.mutant.is_some_and(Mutant::is_about_page_tables);
        for (page, &id) in self.cluster.pages.iter().enumerate() {
            let (mapped, believed) = (self.node.table[page], self.node.machine.access(id));
            if honest && mapped != believed {
                let what = format!("{} maps page {page} {mapped:?}, its machine says {believed:?}", self.me);
                return Err((Rule::TableIsBelief, what));
            }
        }
        let broken = |violation| (Rule::Invariants, format!("{}: {violation}", self.me));
        self.node.machine.invariants().map_err(broken)
    }
}
