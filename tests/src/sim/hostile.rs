//! One member that says anything at any time, while the others run their programs on pages, locks and names in which it
//! has no part. Its machine runs too, without threads, and serves what it is home of; what it says besides is drawn.
//!
//! What it takes part in is left alone (`docs/testing.md` says why): it asks for none of the threads' pages, locks and
//! names, answers no lease, drops no block, and gives no domain's span back.

use super::Check;
use super::network::INSTANT;
use super::node::Body;
use super::plan::{Plan, WORDS};
use super::queue::Happening;
use super::rng::Rng;
use super::world::World;
use crate::hostile::{self, Palette};
use arbitrary::Unstructured;
use dsm_core::{
    Action, CallId, Command, Copyset, Event, LockId, Machine, Message, NodeId, PageId, Payload, Time, wire,
};
use std::time::Duration;

/// What the hostile member knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hostility {
    /// What it was told, and what it can guess.
    Guesses,
    /// Everything that anybody says, and it forges a grant for each request: which the checker must find.
    Overhears,
}

/// The hostile member of a run.
pub struct Hostile {
    /// Who.
    pub node: NodeId,
    hostility: Hostility,
    palette: Palette,
    left: u32,
}

/// How much it says in one run.
const MESSAGES: u32 = 400;

/// It waits for up to this between two messages.
const PAUSE_NS_MAX: u64 = 100_000;

/// Bytes that decide one message: more than the longest name takes.
const BYTES: usize = 64;

impl Hostile {
    /// Makes one member hostile; `None` in a cluster of one. The plan is changed so that the others can do without it.
    pub fn draw(plan: &mut Plan, rng: &mut Rng, hostility: Hostility) -> Option<Hostile> {
        let others = u64::try_from(plan.members.len() - 1).unwrap_or(0);
        if others == 0 {
            return None;
        }
        // Rank 0 counts the barriers: without it nobody gets anywhere.
        let node = NodeId(u16::try_from(rng.between(1, others)).unwrap_or(1));
        plan.crash = None;
        plan.threads[node.index()] = 0;
        let geometry = plan.geometry;
        let homed = |page: &PageId| geometry.home_of(*page, plan.members) == node;
        let elsewhere = (0..geometry.pages()).map(PageId).filter(|page| !homed(page));
        let locked: Vec<_> = plan.locks.iter().map(|guarded| geometry.page_of(guarded.lock.0)).collect();
        let used = |page: &PageId| plan.hot.contains(page) || locked.contains(&Some(*page));
        let mut spare = elsewhere.filter(|page| !used(page)).collect::<Vec<_>>().into_iter();
        for page in &mut plan.hot {
            if homed(page) {
                let other = spare.next().unwrap_or(*page);
                let moved = *page;
                *page = other;
                plan.locks
                    .iter_mut()
                    .filter(|lock| lock.cell.page == moved)
                    .for_each(|lock| lock.cell.page = other);
            }
        }
        for guarded in &mut plan.locks {
            if geometry.page_of(guarded.lock.0).is_some_and(|page| homed(&page)) {
                guarded.lock = LockId(geometry.address_of(spare.next().unwrap_or(PageId(0))));
            }
        }
        let names: Vec<String> = (0..plan.names).map(super::calls::name_of).collect();
        if names.iter().any(|name| home_of_name(plan, name) == node) {
            plan.mix.claim = 0;
        }
        let mut pages = plan.hot.clone();
        pages.extend((0..geometry.pages()).map(PageId).filter(homed).take(plan.hot.len()));
        let palette = Palette {
            geometry,
            members: plan.members,
            hostile: node,
            pages,
            locks: plan.locks.iter().map(|guarded| guarded.lock).collect(),
            names,
            transactions: Vec::new(),
            tickets: Vec::new(),
        };
        Some(Hostile { node, hostility, palette, left: MESSAGES })
    }

    /// Whether the message is about something in which it would take part: then its word counts.
    fn would_take_part(&self, plan: &Plan, message: &Message) -> bool {
        match message {
            Message::Request { page, .. } => plan.hot.contains(page),
            Message::LockRequest { lock, .. } => self.palette.locks.contains(lock),
            Message::RootClaim { name, .. } => self.palette.names.contains(name),
            Message::SpanLeased { .. }
            | Message::SpanDenied { .. }
            | Message::SpanFound { .. }
            | Message::SpanReturn { .. }
            | Message::Free { .. } => true,
            Message::Forward { .. }
            | Message::Invalidate { .. }
            | Message::Ack { .. }
            | Message::Grant { .. }
            | Message::Confirm { .. }
            | Message::Hurry { .. }
            | Message::Lost { .. }
            | Message::LockGrant { .. }
            | Message::LockDenied { .. }
            | Message::LockWithdraw { .. }
            | Message::LockRelease { .. }
            | Message::BarrierArrive { .. }
            | Message::BarrierComplete { .. }
            | Message::LeaveArrive
            | Message::LeaveComplete
            | Message::RootAnswered { .. }
            | Message::RootPublish { .. }
            | Message::RootAbandon { .. }
            | Message::SpanLease { .. }
            | Message::SpanFind { .. }
            | Message::Commit(_)
            | Message::Note(_)
            | Message::Report(_) => false,
        }
    }
}

/// Where a claim of `name` goes.
fn home_of_name(plan: &Plan, name: &str) -> NodeId {
    let asker = NodeId::COORDINATOR;
    let mut actions = Vec::new();
    let command = Command::RootClaim { name: name.to_owned(), layout: 0 };
    let mut machine = Machine::new(asker, plan.members, plan.geometry);
    machine.handle(Time::ZERO, Event::Command { call: CallId(0), command }, &mut actions);
    let sent =
        actions.iter().find_map(|action| if let Action::Send { to, .. } = action { Some(*to) } else { None });
    sent.unwrap_or(asker)
}

impl World {
    /// A message is on its way from which the hostile member may learn.
    pub(super) fn overheard(&mut self, to: NodeId, message: &Message) {
        let Some(hostile) = &mut self.hostile else { return };
        if to == hostile.node {
            hostile.palette.hear(message);
        }
        let (from, all) = (hostile.node, hostile.hostility == Hostility::Overhears);
        let &Message::Request { page, transaction, want } = message else { return };
        if all && transaction.node != from {
            let message = Message::Grant {
                page,
                transaction,
                access: want.access(),
                payload: Payload::Bytes,
                awaiting: Copyset::EMPTY,
                contended: false,
                custody: None,
            };
            let body = Some(Body { page, frame: [u64::MAX; WORDS] });
            let at = self.now + INSTANT;
            self.queue.schedule(at, Happening::Delivered { from, to: transaction.node, message, body });
        }
    }

    /// Whether `node` is the hostile member.
    pub(super) fn is_hostile(&self, node: NodeId) -> bool {
        self.hostile.as_ref().is_some_and(|hostile| hostile.node == node)
    }

    /// The hostile member, whose program is empty, says that it is done; and begins to say other things.
    pub(super) fn let_loose(&mut self) -> Check {
        let Some(node) = self.hostile.as_ref().map(|hostile| hostile.node) else { return Ok(()) };
        self.oracle.excuse(node);
        self.queue.schedule(self.now, Happening::Babbles);
        self.feed(node, Event::Command { call: CallId(0), command: Command::Leave })
    }

    /// The hostile member says one thing, and will say another soon.
    pub(super) fn babble(&mut self) -> Check {
        let Some(mut hostile) = self.hostile.take() else { return Ok(()) };
        let bytes: Vec<u8> = (0..BYTES).map(|_| self.rng.draw().to_le_bytes()[0]).collect();
        let others: Vec<NodeId> = self.plan.nodes().filter(|node| *node != hostile.node).collect();
        let to = *self.rng.pick(&others);
        let message = hostile::message(&mut Unstructured::new(&bytes), &hostile.palette, to);
        let message = message.map_err(|error| error.to_string())?;
        hostile.left -= 1;
        let (from, more) = (hostile.node, hostile.left > 0);
        let counts = !hostile.would_take_part(&self.plan, &message);
        self.hostile = Some(hostile);
        if counts {
            self.counts.hostile += 1;
            self.trace.note(self.now, from, || format!("says to n{}: {message:?}", to.0));
            let body = wire::page_behind(&message).map(|page| Body { page, frame: [u64::MAX; WORDS] });
            self.transmit(from, to, message, body);
        }
        if more && !self.is_over() {
            let at = self.now + Duration::from_nanos(self.rng.below(PAUSE_NS_MAX));
            self.queue.schedule(at, Happening::Babbles);
        }
        Ok(())
    }

    /// Carries out what the hostile member's machine wants: only what others see of it matters.
    pub(super) fn carry_out_hostile(&mut self, node: NodeId, action: Action) -> Check {
        match action {
            Action::Send { to, message } | Action::SendLazily { to, message } => {
                self.transmit(node, to, message, None);
            }
            Action::SendPage { to, page, message } => {
                self.transmit(node, to, message, Some(Body { page, frame: [0; WORDS] }));
            }
            Action::Replicate(_)
            | Action::Protect { .. }
            | Action::Install { .. }
            | Action::Refresh { .. }
            | Action::Flush { .. }
            | Action::SetTimer { .. }
            | Action::ProbeResidency { .. }
            | Action::Complete { .. }
            | Action::Doom { .. }
            | Action::Freed { .. }
            | Action::Reject { .. } => {}
        }
        Ok(())
    }
}
