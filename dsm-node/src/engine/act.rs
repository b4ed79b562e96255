//! Carrying out what the machine wants, one action at a time, in order.

use super::Engine;
use super::faults::Mapped;
use super::timers::Reminder;
use crate::error::Result;
use crate::heap;
use crate::signals;
use crate::stats::Stats;
use crate::transport::{Flushed, Voice};
use dsm_core::failpoint::{Moment, change};
use dsm_core::{
    Access, Action, Address, CallId, Cause, Command, Event, Message, NodeId, PageId, Payload, Want, limits,
};

/// The name of the engine's own commands, none of which has an answer.
const UNANSWERED: CallId = CallId(u64::MAX);

impl Engine {
    pub(super) fn carry_out(&mut self, action: Action) -> Result<()> {
        if !self.failpoints.is_empty()
            && let Some(name) = change(&action)
        {
            self.pass(Moment::Change, name);
        }
        match action {
            Action::Protect { page, access } => self.protect(page, access)?,
            Action::Install { page, access, payload } => self.install(page, access, payload)?,
            Action::Refresh { page, access } => {
                self.resolve_faults(page, access, Mapped::Before);
                self.region.refresh(page, access)?;
            }
            Action::Send { to, message } => {
                self.queue(to, &message, None);
                self.mark_unflushed(to);
            }
            Action::SendLazily { to, message } => {
                self.queue(to, &message, None);
                self.held_back = self.held_back.with(to);
                self.timers.set_within(Reminder::Flush, limits::HOLD_BACK_MAX);
            }
            Action::Flush { to } => self.mark_unflushed(to),
            Action::SendPage { to, page, message } => {
                self.keep_frame(page);
                self.queue(to, &message, Some(page));
                self.mark_unflushed(to);
            }
            Action::SetTimer { timer, at } => self.timers.set(Reminder::Machine(timer), at),
            Action::ProbeResidency { page } => {
                let progress = self.faults.progress(page, self.timers.now());
                self.upcoming.push_back(Event::Probed { page, progress });
            }
            Action::Complete { call, reply } => self.answer(call, reply),
            Action::Doom { page, node } => self.doom(page, node),
            Action::Freed { address } => self.free_block(address),
            Action::Reject { from, cause } => self.reject(from, cause),
            Action::Replicate(what) => self.replicate(what)?,
        }
        Ok(())
    }

    fn protect(&mut self, page: PageId, access: Access) -> Result<()> {
        self.region.protect(page, access)?;
        if access == Access::None {
            self.stats.invalidations += 1;
            self.discard_later(page);
        }
        Ok(())
    }

    fn install(&mut self, page: PageId, access: Access, payload: Payload) -> Result<()> {
        match payload {
            Payload::Bytes => {
                // Others may have owned it since.
                self.copies.forget_sent(page);
                self.settle_frame(page);
            }
            Payload::Zero => self.stats.zero_pages += 1,
            Payload::Held => self.stats.upgrades += 1,
        }
        self.resolve_faults(page, access, Mapped::Now);
        self.region.install(page, access, payload)
    }

    /// Counts the faults that `access` to `page` ends, just before the threads are woken.
    fn resolve_faults(&mut self, page: PageId, access: Access, mapped: Mapped) {
        let stats = &mut self.stats;
        let now = self.timers.now();
        let mut longest = None;
        self.faults.resolve(page, access, mapped, now, |fault| {
            longest = longest.max(Some(fault.took));
            let nanos = u64::try_from(fault.took.as_nanos()).unwrap_or(u64::MAX);
            match fault.want {
                Want::Read => {
                    stats.read_faults += 1;
                    stats.read_latency.record(nanos);
                }
                Want::Write => {
                    stats.write_faults += 1;
                    stats.write_latency.record(nanos);
                }
            }
        });
        if let (Some(took), Some(_)) = (longest, self.recovering) {
            self.note_resolved(took, now);
        }
    }

    /// A block of this node's heap was dropped elsewhere. If it was the last of its span, the span goes back.
    fn free_block(&mut self, address: Address) {
        if let Some(first) = heap::free_local(address) {
            self.upcoming
                .push_back(Event::Command { call: UNANSWERED, command: Command::SpanReturn { first } });
        }
    }

    pub(super) fn queue(&mut self, to: NodeId, message: &Message, page: Option<PageId>) {
        if self.pass(Moment::Send, message.name()) {
            return;
        }
        let Some(link) = self.links.get_mut(to.index()).and_then(Option::as_mut) else { return };
        if let Err(error) = link.send(message, page) {
            // Only a message beyond the wire's limits cannot be encoded, and every limit is checked where it is made.
            signals::die(&format!("{}: cannot encode {message:?} to {to}: {error}", self.me));
        }
        self.pass_sent(to, message);
    }

    /// A message was queued: a failpoint behind it wants it to have left.
    pub(super) fn pass_sent(&mut self, to: NodeId, message: &Message) {
        if !self.failpoints.is_empty() {
            self.flush(to);
            self.pass(Moment::Sent, message.name());
        }
    }

    pub(super) fn mark_unflushed(&mut self, peer: NodeId) {
        if !self.unflushed.contains(&peer) {
            self.unflushed.push(peer);
        }
    }

    /// Writes out what was said since the last flush.
    pub(super) fn flush_all(&mut self) {
        while let Some(peer) = self.unflushed.pop() {
            self.flush(peer);
        }
    }

    pub(super) fn flush(&mut self, peer: NodeId) {
        let Some(link) = self.links.get_mut(peer.index()).and_then(Option::as_mut) else { return };
        let was_blocked = self.blocked.contains(peer);
        let voice = if self.members.frozen { Voice::Membership } else { Voice::Full };
        let flushed = match link.flush(&self.region.frames(), voice) {
            Ok(flushed) => flushed,
            Err(down) => return self.link_down(peer, &down.to_string()),
        };
        let blocked = flushed == Flushed::Blocked;
        if blocked == was_blocked {
            return;
        }
        self.blocked = if blocked { self.blocked.with(peer) } else { self.blocked.without(peer) };
        let Some(descriptor) = link.descriptor() else { return };
        if let Err(error) = self.poller.want_writable(peer, descriptor, blocked) {
            self.link_down(peer, &error.to_string());
        }
    }

    /// A fault can never be resolved. The thread that waits for it can neither go on nor be told: the process ends.
    fn doom(&self, page: PageId, node: NodeId) {
        let address = self.geometry.address_of(page);
        signals::die(&format!(
            "rank {}: {page} at {address} cannot be had: it went with rank {}, which is gone; a thread of this process \
             waits for it, so the process ends",
            self.me.rank(),
            node.rank()
        ));
    }

    fn reject(&mut self, from: NodeId, cause: Cause) {
        self.stats.refused_messages += 1;
        self.log.warn_once("refused message", u64::from(from.0), || {
            format!("{from} sent {cause}; closing its connection")
        });
        self.link_down(from, "it sent what no correct node sends");
    }

    /// What has been counted, the links' counts included.
    pub(super) fn count(&self) -> Stats {
        let mut stats = self.stats.clone();
        for link in self.links.iter().flatten() {
            let counters = link.counters();
            stats.pages_received += counters.pages_received;
            stats.pages_sent += counters.pages_sent;
            stats.messages_received += counters.frames_received;
            stats.messages_sent += counters.frames_sent;
            stats.bytes_received += counters.bytes_received;
            stats.bytes_sent += counters.bytes_sent;
            stats.reconnects += counters.reconnects;
            stats.resent_messages += counters.resent;
            stats.duplicate_messages += counters.duplicates;
            stats.refused_frames += counters.bad_frames;
            stats.stale_messages += counters.stale;
        }
        stats
    }
}
