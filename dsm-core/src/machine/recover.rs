//! A change of the view, from its installation to the moment at which this node serves again.

use super::Machine;
use crate::access::Want;
use crate::action::{Action, Cause, Replication};
use crate::barrier::Barrier;
use crate::event::Event;
use crate::home::Home;
use crate::ids::{Address, LockId, NodeId, PageId, RecordId, Ticket};
use crate::message::{Commit, Lost, Message, Note, Report, SpanRange};
use crate::outbox::Outbox;
use crate::placement::Placement;
use crate::recovery::{Fate, Fates, LostRun, Phase, Reported, kept};
use crate::time::Time;
use crate::view::View;
use std::collections::BTreeMap;

impl Machine {
    /// The members have agreed on `view`: what is under way is aborted, and all tell all what they hold.
    pub(super) fn install(&mut self, view: View, out: &mut Outbox<'_>) {
        let members = view.members();
        self.placement = Placement::new(self.placement.geometry, members);
        for (page, want) in self.local.abort() {
            self.recovery.deferred.push(Event::Fault { page, want });
        }
        out.act(Action::Replicate(Replication::DropRecords));
        let (id, buddies) = (view.id(), view.buddies_of(self.me));
        let survivors = self.recovery.install(view);
        self.local.install(id, survivors, buddies);
        self.locks.install(survivors);
        self.calls.install(self.placement);
        self.announced = false;
        self.report(out);
    }

    /// All reports are in: what follows from them is the same at every member.
    pub(super) fn conclude(&mut self, out: &mut Outbox<'_>) {
        for (first, run) in self.settle_pages() {
            self.lose(first, run, out);
        }
        let complete = !self.recovery.lost_a_group() && self.recovery.view.replicas() > 0;
        self.spans.install(self.placement, self.recovery.all_gone(), complete);
        let spans = self.recovery.leased(self.placement.geometry);
        let reports = core::mem::take(&mut self.recovery.reports);
        self.settle_locks(&reports);
        self.settle_spans(&spans);
        self.settle_names(&reports);
        self.recovery.reports = reports;
        let (passed, left) = (self.recovery.passed(), self.recovery.left());
        self.barrier = Barrier::new(self.placement.members, self.recovery.view.id(), passed, left);
        self.recovery.conclude();
        self.tell_all(&[Message::Report(Report::Ready)], out);
    }

    /// Which of the locks that are homed here from now on are held, and whose holders are dead.
    fn settle_locks(&mut self, reports: &BTreeMap<NodeId, Reported>) {
        let here = |lock: LockId| self.placement.home_of_lock(lock) == Some(self.me);
        self.locks.clear(here);
        for (&node, report) in reports {
            for &(lock, call) in report.locks.iter().filter(|(lock, _)| here(*lock)) {
                self.locks.restore(lock, Ticket { node, call });
            }
        }
        for &(lock, dead) in reports.values().flat_map(|report| &report.orphans) {
            if here(lock) {
                self.locks.restore_orphan(lock, dead);
            }
        }
    }

    /// Which spans are leased: what this node is to know of them as their home, and what it notes of those of others.
    fn settle_spans(&mut self, leased: &[SpanRange]) {
        self.calls.notes().forget_spans();
        for &span in leased {
            self.calls.notes().span(span);
            if self.placement.granter_of(span.first) == self.me {
                self.spans.restore(span);
            }
        }
    }

    /// Which roots have their addresses, as [`Machine::settle_spans`], and which spans are never leased again.
    fn settle_names(&mut self, reports: &BTreeMap<NodeId, Reported>) {
        self.roots.clear();
        for (&node, report) in reports {
            report.retired.iter().for_each(|retired| self.spans.retire(*retired));
            for (name, layout, address) in &report.roots {
                if let Some(address) = address {
                    self.calls.notes().root(name.clone(), *layout, *address);
                }
                if self.placement.home_of_name(name) == self.me {
                    self.roots.restore(node, name, *layout, *address);
                }
            }
        }
        self.spans.restored();
    }

    /// What is to become of each page: who owns it, and what its home is to know. Those that are lost, by run.
    fn settle_pages(&mut self) -> Vec<(PageId, LostRun)> {
        let Machine { me, placement, recovery, local, home, .. } = self;
        let mut lost = Vec::new();
        let mut kept_by = Vec::new();
        *home = Home::default();
        Fates::new(recovery, placement.geometry).visit(|first, pages, fate, held| {
            let (owner, copies) = match fate {
                Fate::Lost { last_owner, view } => {
                    lost.push((first, LostRun { pages, last_owner, view }));
                    return;
                }
                Fate::Stays { owner, copies } | Fate::Adopted { owner, copies } => (owner, copies),
            };
            let pages = first.0..first.0 + pages;
            if owner == *me {
                kept_by.clear();
                kept_by.extend(kept(held));
                if let Fate::Adopted { .. } = fate {
                    local.adopt(pages.clone(), copies, &kept_by);
                } else {
                    local.keep_on(pages.clone(), copies, &kept_by);
                }
            }
            for (part, node) in placement.homes_of(pages) {
                if node == *me {
                    home.restore(part, owner, copies);
                }
            }
        });
        lost
    }

    /// Pages are gone for good. What of them was not before is told.
    fn lose(&mut self, first: PageId, run: LostRun, out: &mut Outbox<'_>) {
        for (first, LostRun { pages, last_owner, view }) in self.recovery.lose(first, run) {
            self.local.forget(first.0..first.0 + pages, out);
            let lost = Lost { page: first, last_owner, view };
            out.act(Action::Replicate(Replication::Poison { first, pages, lost }));
        }
    }

    /// A member has drawn its conclusions.
    pub(super) fn ready(&mut self, now: Time, from: NodeId, out: &mut Outbox<'_>) -> Result<(), Cause> {
        if self.recovery.phase == Phase::Settled || self.recovery.ready.contains(from) {
            return Err(Cause::OutOfTurn);
        }
        self.recovery.ready = self.recovery.ready.with(from);
        if self.placement.members.minus(self.recovery.ready).is_empty() {
            self.resume(now, out);
        }
        Ok(())
    }

    /// All members have drawn their conclusions: this node serves again. What was asked for is asked for anew, and what
    /// has too few holders gets more, in the background.
    fn resume(&mut self, now: Time, out: &mut Outbox<'_>) {
        self.recovery.phase = Phase::Settled;
        let (me, placement) = (self.me, self.placement);
        self.locks.resume(|lock| placement.home_of_lock(lock) == Some(me));
        let view = self.recovery.view.id();
        out.act(Action::Replicate(Replication::Resumed { view }));
        self.note_everything(out);
        let record = self.local.resume(out);
        for ordered in &mut self.ordered {
            ordered.after = record.unwrap_or(RecordId::NONE);
        }
        // First what was said before and may not have been heard, then what could not be said yet.
        let (recovery, geometry) = (&self.recovery, self.placement.geometry);
        self.calls.resume(recovery.passed(), view, |lock| recovery.lost_domain(lock, geometry), out);
        if self.placement.coordinator == self.me {
            self.barrier.resume(out);
        }
        self.say_ordered(out);
        self.recovery.reports.clear();
        for event in core::mem::take(&mut self.recovery.deferred) {
            match event {
                Event::Fault { page, want } => self.fault(now, page, want, out),
                Event::Command { call, command } => self.command(now, call, command, out),
                Event::Received { .. }
                | Event::TimerFired(_)
                | Event::Probed { .. }
                | Event::ViewInstalled(_)
                | Event::Joined
                | Event::PeerLost { .. } => unreachable!("only what threads want is put off"),
            }
        }
        for (from, message) in core::mem::take(&mut self.recovery.held) {
            if let Err(cause) = self.receive(now, from, message, out) {
                out.act(Action::Reject { from, cause });
            }
        }
        self.local.thicken(out);
        self.announce(out);
    }

    /// Tells this node's buddies all that a successor would have to know of its spans and roots.
    fn note_everything(&mut self, out: &mut Outbox<'_>) {
        let buddies = self.recovery.view.buddies_of(self.me);
        for buddy in buddies.iter() {
            for (name, layout, address) in self.roots.ready() {
                out.send(buddy, Message::Note(Note::Root { name: name.clone(), layout, address }));
            }
        }
    }

    /// Says, once in a view, that all pages of this node are replicated.
    pub(super) fn announce(&mut self, out: &mut Outbox<'_>) {
        let settled = self.recovery.phase == Phase::Settled && !self.recovery.is_replicated();
        if settled && !self.announced && self.local.commits().is_replicated() {
            self.announced = true;
            self.tell_all(&[Message::Report(Report::Replicated)], out);
        }
    }

    /// A member says that all of its pages are replicated.
    pub(super) fn replicated(&mut self, from: NodeId, out: &mut Outbox<'_>) -> Result<(), Cause> {
        if self.recovery.is_replicated() || self.recovery.replicated.contains(from) {
            return Err(Cause::OutOfTurn);
        }
        self.recovery.replicated = self.recovery.replicated.with(from);
        if self.placement.members.minus(self.recovery.replicated).is_empty() {
            self.recovery.fully_replicated();
            self.local.commits().fully_replicated(out);
        }
        Ok(())
    }

    /// A root has its address.
    pub(super) fn publish_root(
        &mut self,
        from: NodeId,
        name: String,
        address: Address,
        out: &mut Outbox<'_>,
    ) -> Result<(), Cause> {
        let layout = self.roots.publish(from, &name, address, out)?;
        let note = Message::Note(Note::Root { name, layout, address });
        for buddy in self.recovery.view.buddies_of(self.me).iter() {
            out.send(buddy, note.clone());
        }
        Ok(())
    }

    /// Before the lessee can use the span, let alone tell of it, the note of it is on its way.
    pub(super) fn answer_lease(&mut self, asker: NodeId, answer: Message, out: &mut Outbox<'_>) {
        if let Message::SpanLeased { span, .. } = answer {
            self.calls.notes().span(span);
            self.tell_others(&Message::Note(Note::Span { span }), out);
        }
        out.send(asker, answer);
    }

    /// A span is free again.
    pub(super) fn take_span_back(
        &mut self,
        from: NodeId,
        first: PageId,
        out: &mut Outbox<'_>,
    ) -> Result<(), Cause> {
        self.spans.give_back(from, first)?;
        self.calls.notes().span_returned(first);
        self.tell_others(&Message::Note(Note::SpanReturned { first }), out);
        Ok(())
    }

    /// What a node hears as a buddy, as an owner, and as one that keeps what it does not own any more.
    pub(super) fn receive_commit(
        &mut self,
        now: Time,
        from: NodeId,
        commit: Commit,
        out: &mut Outbox<'_>,
    ) -> Result<(), Cause> {
        match commit {
            // These may overtake each other: whichever comes last makes the record count.
            Commit::Page { record, page } => {
                self.local.commits().record_page(from, record, page)?;
                self.local.apply_records(from, out);
            }
            // Nobody has made a page of it.
            Commit::Patch { .. } => return Err(Cause::OutOfTurn),
            Commit::End { record, previous, pages } => {
                self.local.commits().record_end(from, record, previous, pages)?;
                self.local.apply_records(from, out);
            }
            Commit::Ack { record } => {
                self.local.acked(from, record, out)?;
                self.say_ordered(out);
                // In this order: what is let go now is not protected again at once.
                self.local.thicken(out);
                while let Some(page) = self.local.take_held() {
                    self.fault(now, page, Want::Write, out);
                }
                self.announce(out);
            }
            Commit::Release { page, before } => self.local.release(page, before, out),
        }
        Ok(())
    }

    fn tell_others(&self, message: &Message, out: &mut Outbox<'_>) {
        for member in self.placement.members.without(self.me).iter() {
            out.send(member, message.clone());
        }
    }
}
