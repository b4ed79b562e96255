//! A change of the view, from its installation to the moment at which this node serves again.

use super::{Machine, Ordered};
use crate::action::{Action, Cause, Replication, Reply};
use crate::barrier::Barrier;
use crate::event::{Command, Event};
use crate::ids::{Address, CallId, NodeId, PageId, RecordId, Ticket};
use crate::limits;
use crate::message::{Commit, Holding, Lost, Message, Note, Report};
use crate::outbox::Outbox;
use crate::placement::Placement;
use crate::recovery::{End, Fate, Fates, LostRun, Phase, kept, runs};
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
        let buddies = view.buddies_of(self.me);
        self.local.commits().install(view.id(), members, buddies);
        self.locks.install(members);
        self.calls.install(self.placement);
        self.recovery.install(view);
        self.announced = false;
        self.report(out);
    }

    /// Tells every member what this node holds, itself included.
    fn report(&mut self, out: &mut Outbox<'_>) {
        let mut parts = Vec::new();
        let (members, held) = (self.placement.members, runs(self.holdings().into_iter()));
        let known =
            self.home.written(members).map(|(page, owner)| (page, Holding::Known { owner: Some(owner) }));
        for all in [held, runs(known)] {
            for some in all.chunks(limits::REPORT_RUNS_MAX) {
                parts.push(Message::Report(Report::Pages { runs: some.to_vec() }));
            }
        }
        let held: Vec<_> = self.calls.held().collect();
        for some in held.chunks(limits::REPORT_ITEMS_MAX) {
            parts.push(Message::Report(Report::Locks { held: some.to_vec() }));
        }
        let known: BTreeMap<PageId, _> =
            self.spans.leased().chain(self.calls.notes().spans()).map(|span| (span.first, span)).collect();
        let spans: Vec<_> = known.into_values().collect();
        for some in spans.chunks(limits::REPORT_ITEMS_MAX) {
            parts.push(Message::Report(Report::Spans { spans: some.to_vec() }));
        }
        for (name, layout, address) in self.calls.notes().roots() {
            parts.push(Message::Report(Report::Root { name: name.clone(), layout, address: Some(address) }));
        }
        for (name, layout) in self.calls.creating() {
            parts.push(Message::Report(Report::Root { name: name.clone(), layout, address: None }));
        }
        let generation = self.calls.generation();
        let replicated = self.recovery.since.first().map_or(self.recovery.view.id(), View::id);
        let directory = self.recovery.directory;
        parts.push(Message::Report(Report::End { generation, directory, replicated }));
        self.tell_all(&parts, out);
    }

    fn tell_all(&self, messages: &[Message], out: &mut Outbox<'_>) {
        for member in self.placement.members.iter() {
            for message in messages {
                out.send(member, message.clone());
            }
        }
    }

    /// What this node holds of each page that it holds something of.
    fn holdings(&mut self) -> BTreeMap<PageId, Holding> {
        let kept = self.local.commits().kept();
        let mut holdings: BTreeMap<PageId, Holding> =
            kept.map(|(page, version)| (page, Holding::Kept(version))).collect();
        for (page, owned) in self.local.held() {
            holdings.insert(page, if owned { Holding::Owned } else { Holding::Copy });
        }
        for (&first, &LostRun { pages, last_owner, view }) in &self.recovery.lost {
            let lost = Holding::Lost { last_owner, view };
            holdings.extend((first..first + pages).map(|page| (PageId(page), lost)));
        }
        holdings
    }

    /// What members say to each other between the view and the moment at which all go on.
    pub(super) fn receive_report(
        &mut self,
        now: Time,
        from: NodeId,
        part: Report,
        out: &mut Outbox<'_>,
    ) -> Result<(), Cause> {
        match part {
            Report::Ready => return self.ready(now, from, out),
            Report::Replicated => return self.replicated(from, out),
            Report::Pages { .. }
            | Report::Locks { .. }
            | Report::Spans { .. }
            | Report::Root { .. }
            | Report::End { .. } => {}
        }
        if self.recovery.phase != Phase::Gathering {
            return Err(Cause::OutOfTurn);
        }
        let report = self.recovery.reports.entry(from).or_default();
        if report.end.is_some() {
            return Err(Cause::OutOfTurn);
        }
        match part {
            Report::Pages { runs } => {
                for run in runs {
                    let list = match run.holding {
                        Holding::Known { .. } => &mut report.known,
                        Holding::Lost { .. } | Holding::Kept(_) | Holding::Copy | Holding::Owned => {
                            &mut report.held
                        }
                    };
                    let end = list.last().map_or(0, |run| run.first.0 + run.pages);
                    if run.first.0 < end || run.pages == 0 {
                        return Err(Cause::OutOfTurn);
                    }
                    list.push(run);
                }
            }
            Report::Locks { held } => report.locks.extend(held),
            Report::Spans { spans } => report.spans.extend(spans),
            Report::Root { name, layout, address } => report.roots.push((name, layout, address)),
            Report::End { generation, directory, replicated } => {
                report.end = Some(End { generation, directory, replicated });
            }
            Report::Ready | Report::Replicated => return Err(Cause::OutOfTurn),
        }
        if self.recovery.is_complete() {
            self.conclude(out);
        }
        Ok(())
    }

    /// All reports are in: what follows from them is the same at every member.
    fn conclude(&mut self, out: &mut Outbox<'_>) {
        for (first, run) in self.settle_pages() {
            self.lose(first, run, out);
        }
        self.recovery.directory = self.recovery.view.id();
        let reports = core::mem::take(&mut self.recovery.reports);
        let complete = !self.recovery.lost_a_group() && self.recovery.view.replicas() > 0;
        self.spans.install(self.placement, complete);
        self.roots.clear();
        for (&node, report) in &reports {
            for &(lock, call) in &report.locks {
                if self.placement.home_of_lock(lock) == Some(self.me) {
                    self.locks.restore(lock, Ticket { node, call });
                }
            }
            for &span in &report.spans {
                self.calls.notes().span(span);
                if self.placement.granter_of(span.first) == self.me {
                    self.spans.restore(span);
                }
            }
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
        self.locks.restored();
        self.recovery.reports = reports;
        let passed = self.recovery.passed();
        self.barrier = Barrier::new(self.placement.members, self.recovery.view.id(), passed);
        self.recovery.phase = Phase::Concluded;
        self.tell_all(&[Message::Report(Report::Ready)], out);
    }

    /// What is to become of each page: who owns it, and what its home is to know. Those that are lost, by run.
    fn settle_pages(&mut self) -> Vec<(PageId, LostRun)> {
        let Machine { me, placement, recovery, local, home, .. } = self;
        let mut lost = Vec::new();
        let mut kept_by = Vec::new();
        home.clear();
        Fates::new(recovery, placement.geometry).visit(|first, pages, fate, held| {
            let (owner, copies) = match fate {
                Fate::Lost { last_owner, view } => {
                    lost.push((first, LostRun { pages, last_owner, view }));
                    return;
                }
                Fate::Stays { owner, copies } | Fate::Adopted { owner, copies } => (owner, copies),
            };
            kept_by.clear();
            kept_by.extend(kept(held));
            for page in (first.0..first.0 + pages).map(PageId) {
                if owner == *me {
                    if let Fate::Adopted { .. } = fate {
                        local.adopt(page, copies, &kept_by);
                    } else {
                        local.keep_on(page, copies, &kept_by);
                    }
                }
                if placement.home_of(page) == *me {
                    home.restore(page, owner, copies);
                }
            }
        });
        lost
    }

    /// Pages are gone for good. What of them was not before is told.
    fn lose(&mut self, first: PageId, run: LostRun, out: &mut Outbox<'_>) {
        for (first, LostRun { pages, last_owner, view }) in self.recovery.lose(first, run) {
            for page in first.0..first.0 + pages {
                self.local.forget(PageId(page));
            }
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
        let view = self.recovery.view.id();
        out.act(Action::Replicate(Replication::Resumed { view }));
        let owned = self.local.owned();
        self.local.commits().resume(owned.into_iter());
        self.note_everything(out);
        let record = self.local.flush(out);
        for ordered in &mut self.ordered {
            ordered.after = record.unwrap_or(RecordId::NONE);
        }
        // First what was said before and may not have been heard, then what could not be said yet.
        let (recovery, geometry) = (&self.recovery, self.placement.geometry);
        self.calls.resume(recovery.passed(), view, |lock| recovery.lost_domain(lock, geometry), out);
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
        let settled = self.recovery.phase == Phase::Settled && !self.recovery.since.is_empty();
        if settled && !self.announced && self.local.commits().is_replicated() {
            self.announced = true;
            self.tell_all(&[Message::Report(Report::Replicated)], out);
        }
    }

    /// A member says that all of its pages are replicated.
    pub(super) fn replicated(&mut self, from: NodeId, out: &mut Outbox<'_>) -> Result<(), Cause> {
        if self.recovery.since.is_empty() || self.recovery.replicated.contains(from) {
            return Err(Cause::OutOfTurn);
        }
        self.recovery.replicated = self.recovery.replicated.with(from);
        if self.placement.members.minus(self.recovery.replicated).is_empty() {
            self.recovery.since.clear();
            self.local.commits().fully_replicated(out);
        }
        Ok(())
    }

    /// A command whose effect others learn of only once what was written before it is replicated.
    pub(super) fn order(&mut self, call: CallId, command: Command, out: &mut Outbox<'_>) {
        let after = self.local.flush(out).unwrap_or(RecordId::NONE);
        self.ordered.push_back(Ordered { after, call, command });
        self.say_ordered(out);
    }

    /// Says what waited for records that are acked by now.
    pub(super) fn say_ordered(&mut self, out: &mut Outbox<'_>) {
        while self.ordered.front().is_some_and(|first| self.local.commits_ref().is_acked(first.after)) {
            let Some(Ordered { call, command, .. }) = self.ordered.pop_front() else { break };
            if command == Command::Sync {
                out.act(Action::Complete { call, reply: Reply::Synced });
            } else {
                self.calls.command(call, command, out);
            }
        }
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
    pub(super) fn answer_lease(&self, asker: NodeId, answer: Message, out: &mut Outbox<'_>) {
        if let Message::SpanLeased { span, .. } = answer {
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
        self.tell_others(&Message::Note(Note::SpanReturned { first }), out);
        Ok(())
    }

    /// What a node hears as a buddy, as an owner, and as one that keeps what it does not own any more.
    pub(super) fn receive_commit(
        &mut self,
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
            Commit::End { record, previous, pages } => {
                self.local.commits().record_end(from, record, previous, pages)?;
                self.local.apply_records(from, out);
            }
            Commit::Ack { record } => {
                self.local.acked(from, record, out)?;
                self.say_ordered(out);
                self.local.thicken(out);
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
