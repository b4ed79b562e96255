//! The way of messages and of the bytes behind them: in order between two nodes, for as long as the sender lives, and
//! to whoever has installed the view in which they were sent.

use super::Check;
use super::mutant::Mutant;
use super::node::{Frame, slot};
use super::plan::{Trigger, WORDS};
use super::world::{Happening, World};
use dsm_core::failpoint::Moment;
use dsm_core::{Access, Commit, Event, Landing, Message, NodeId, Payload, Time, ViewId, wire};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A message forged in another's name is there at once.
const INSTANT: Duration = Duration::from_nanos(1);

/// What is under way, or never will be.
#[derive(Default)]
pub struct Network {
    /// When the latest message of each ordered pair arrives.
    latest: BTreeMap<(NodeId, NodeId), Time>,
    /// From when on nothing of a dead process arrives, by receiver.
    cut: BTreeMap<(NodeId, NodeId), Time>,
    /// Connections that have broken off in the middle of a body.
    torn: BTreeSet<(NodeId, NodeId)>,
}

impl Network {
    /// A time not before `at` that keeps the order of what `from` says to `to`.
    pub fn in_order(&mut self, from: NodeId, to: NodeId, at: Time) -> Time {
        let latest = self.latest.entry((from, to)).or_insert(at);
        *latest = at.max(*latest + INSTANT);
        *latest
    }

    /// Nothing of the process `from` arrives at `to` from `at` on.
    pub fn cut(&mut self, from: NodeId, to: NodeId, at: Time) {
        self.cut.insert((from, to), at);
    }
}

/// A message, and the bytes behind it.
#[derive(Clone, Debug)]
pub struct Said {
    pub from: NodeId,
    /// Which process of that rank.
    pub life: NodeId,
    pub to: NodeId,
    /// The view in which it was sent.
    pub view: ViewId,
    pub message: Message,
    pub body: Option<Frame>,
    /// Whether its sender had a lease when it left.
    pub leased: bool,
}

impl World {
    pub(super) fn send(&mut self, from: NodeId, to: NodeId, message: Message, body: Option<Frame>) {
        let view = self.nodes[from.index()].installed;
        let name = message.name();
        if self.come_to(from, Moment::Send, name) {
            return;
        }
        if matches!(message, Message::Grant { payload: Payload::Bytes, .. }) {
            self.does(from, Trigger::Serves);
        } else if matches!(message, Message::Commit(Commit::End { .. })) {
            self.does(from, Trigger::Replicates);
        }
        let said = Said { from, life: self.life(from), to, view, message, body, leased: true };
        if self.cluster.is_some() {
            self.queue_up(said);
            return;
        }
        let said = match self.mutant {
            None => Some(said),
            Some(mutant) => self.lies(mutant, said),
        };
        if let Some(said) = said {
            self.carry(said);
        }
        self.come_to(from, Moment::Sent, name);
    }

    pub(super) fn carry(&mut self, said: Said) {
        let (least, spread) = self.plan.way;
        let at = self.now + Duration::from_nanos(least + self.rng.below(spread) + self.sluggishness(said.to));
        let at = self.network.in_order(said.from, said.to, at);
        self.schedule(at, Happening::Delivered(said));
    }

    /// Puts words into the mouth of `from`; `to` hears them at once.
    pub(super) fn forge(&mut self, from: NodeId, to: NodeId, message: Message) {
        let view = self.nodes[to.index()].installed;
        let said = Said { from, life: self.life(from), to, view, message, body: None, leased: true };
        self.schedule(self.now + INSTANT, Happening::Delivered(said));
    }

    pub(super) fn deliver(&mut self, said: Said) -> Check {
        let to = said.to;
        if self.nodes[to.index()].dead {
            return Ok(());
        }
        if self.network.cut.get(&(said.life, to)).is_some_and(|cut| self.now >= *cut) {
            self.break_off(&said);
            return Ok(());
        }
        let Some(said) = self.pass(said) else { return Ok(()) };
        self.hear(said)
    }

    /// What has come in whole is handed to the machine, if it is of the view that is installed.
    pub(super) fn hear(&mut self, mut said: Said) -> Check {
        let (from, to) = (said.from, said.to);
        let (installed, joined) = (self.nodes[to.index()].installed, self.nodes[to.index()].joined);
        if said.view < joined {
            // It was said to the process that had the rank before.
            return Ok(());
        }
        if said.view < installed {
            let heard = self.hears_old_views() && self.view.members().contains(from);
            if !heard {
                return Ok(());
            }
        }
        if said.view > installed {
            if said.body.is_some() {
                return Err(format!(
                    "{from} sends bytes of {} to {to}, which has not installed it: {:?}",
                    said.view, said.message
                ));
            }
            if self.cluster.is_some() {
                self.postpone(said);
            } else {
                self.node(to).early.push(said);
            }
            return Ok(());
        }
        if self.is_held(to) {
            self.postpone(said);
            return Ok(());
        }
        self.is_fenced(&said)?;
        let name = said.message.name();
        if self.come_to(to, Moment::Receive, name) {
            return Ok(());
        }
        if self.mutant == Some(Mutant::CopiesLate)
            && let Message::Commit(Commit::Page { page, .. }) = said.message
            && !self.nodes[from.index()].twins.contains_key(&page)
        {
            said.body = Some(self.nodes[from.index()].frames[slot(page)]);
        }
        if let Some(frame) = said.body {
            self.land(from, to, &said.message, frame)?;
        }
        if let Message::Commit(Commit::Ack { .. }) = said.message {
            self.does(to, Trigger::IsAcked);
        }
        self.feed(to, Event::Received { from, message: said.message })?;
        self.come_to(to, Moment::Received, name);
        Ok(())
    }

    /// The sender dies while the bytes behind a message go over the wire: some of them have come, and where they went
    /// they stay.
    pub(super) fn break_off(&mut self, said: &Said) {
        let Some(frame) = said.body.filter(|_| self.network.torn.insert((said.from, said.to))) else {
            return;
        };
        let receiver = &self.nodes[said.to.index()];
        if receiver.installed != said.view {
            return;
        }
        let Some(page) = wire::page_behind(&said.message) else { return };
        let straight = match receiver.machine.landing(said.from, &said.message) {
            Landing::Frame => true,
            Landing::Aside => self.mutant == Some(Mutant::PlacesBodiesOverKept),
            Landing::Record(_) | Landing::Nowhere => false,
        };
        if straight {
            let words = self.rng.index(WORDS);
            self.counts.torn += 1;
            self.trace
                .note(self.now, said.to, || format!("{words} words of {page} come of {:?}", said.message));
            let target = &mut self.node(said.to).frames[slot(page)];
            target[..words].copy_from_slice(&frame[..words]);
            // What is left of it is no word that anybody stored.
            target[words] = u64::MAX;
        }
    }

    /// Puts the bytes behind a message where the machine wants them.
    fn land(&mut self, from: NodeId, to: NodeId, message: &Message, frame: Frame) -> Check {
        let as_they_come = self.mutant == Some(Mutant::AppliesPagesAsTheyCome);
        let receiver = self.node(to);
        let page = wire::page_behind(message)
            .ok_or_else(|| format!("{from} sends bytes to {to} with {message:?}"))?;
        let unmapped = receiver.access[slot(page)] == Access::None;
        match receiver.machine.landing(from, message) {
            Landing::Frame => {
                if !unmapped {
                    return Err(format!(
                        "{to} would have a body written into its mapped {page}: {message:?}"
                    ));
                }
                receiver.frames[slot(page)] = frame;
            }
            Landing::Aside => {
                receiver.aside.insert(page, frame);
            }
            Landing::Record(record) => {
                if as_they_come && unmapped && !receiver.machine.owns(page) {
                    receiver.frames[slot(page)] = frame;
                }
                receiver.records.entry((from, record)).or_default().insert(page, frame);
            }
            Landing::Nowhere => {}
        }
        Ok(())
    }
}
