//! What threads of this node want: pages, and answers to their commands.

use super::{Machine, Ordered};
use crate::access::{Access, Want};
use crate::action::{Action, Replication, Reply};
use crate::event::{Command, Event};
use crate::ids::{CallId, LockId, PageId, RecordId};
use crate::message::Lost;
use crate::outbox::Outbox;
use crate::recovery::Phase;
use crate::time::Time;

impl Machine {
    pub(super) fn fault(&mut self, now: Time, page: PageId, want: Want, out: &mut Outbox<'_>) {
        assert!(self.placement.geometry.contains(page), "a fault on {page}, outside the region");
        if let Some(lost) = self.recovery.lost(page) {
            out.act(Action::Replicate(Replication::Poison { first: page, pages: 1, lost }));
            return;
        }
        if self.recovery.phase != Phase::Settled && self.local.access(page) < want.access() {
            self.recovery.deferred.push(Event::Fault { page, want });
            return;
        }
        let home = self.placement.home_of(page);
        self.local.fault(now, page, want, home, out);
        if self.gone.contains(home) && self.local.access(page) < want.access() {
            out.act(Action::Doom { page, node: home });
        }
    }

    pub(super) fn command(&mut self, now: Time, call: CallId, command: Command, out: &mut Outbox<'_>) {
        if let Some(lost) = self.asks_for_lost(&command) {
            out.act(Action::Complete { call, reply: Reply::Lost(lost) });
            return;
        }
        if self.recovery.phase != Phase::Settled {
            self.recovery.deferred.push(Event::Command { call, command });
            return;
        }
        match command {
            Command::Cover { lock, spans } => {
                self.local.cover(lock, &spans, out);
                out.act(Action::Complete { call, reply: Reply::Covered });
            }
            Command::Ensure { page } => self.ensure(now, call, page, out),
            Command::Unlock { lock, acquired } => self.end_sections(call, &[(lock, acquired)], out),
            Command::UnlockTogether { locks } => self.end_sections(call, &locks, out),
            Command::SpanReturn { .. } | Command::Free { .. } => self.give_up(call, command, out),
            Command::Barrier | Command::Leave | Command::RootPublish { .. } | Command::Sync => {
                self.order(call, command, out)
            }
            // Whoever does not wait would be told that this node has the lock, which it has given up: its home hears of
            // that only once what the section stored is replicated.
            Command::Lock { lock, wait: false } if self.is_giving_up(lock) => {
                self.ordered.push_back(Ordered { after: RecordId::NONE, call, command });
            }
            Command::Lock { .. }
            | Command::LockWithdraw { .. }
            | Command::RootClaim { .. }
            | Command::RootAbandon { .. }
            | Command::SpanLease { .. }
            | Command::SpanFind { .. } => self.calls.command(call, command, out),
        }
    }

    /// Whether this node has ended a section of `lock` whose release waits for a record.
    fn is_giving_up(&self, lock: LockId) -> bool {
        self.ordered.iter().any(|ordered| match ordered.command {
            Command::Unlock { lock: other, .. } => other == lock,
            Command::UnlockTogether { .. }
            | Command::Lock { .. }
            | Command::LockWithdraw { .. }
            | Command::Cover { .. }
            | Command::Ensure { .. }
            | Command::Sync
            | Command::Barrier
            | Command::Leave
            | Command::RootClaim { .. }
            | Command::RootPublish { .. }
            | Command::RootAbandon { .. }
            | Command::SpanLease { .. }
            | Command::SpanReturn { .. }
            | Command::SpanFind { .. }
            | Command::Free { .. } => false,
        })
    }

    /// What a command asks for, if that is lost. It stays lost: no answer is later than this.
    fn asks_for_lost(&self, command: &Command) -> Option<Lost> {
        match command {
            Command::Lock { lock, .. } => self.recovery.lost_domain(*lock, self.placement.geometry),
            Command::Ensure { page } => self.recovery.lost(*page),
            Command::Cover { .. }
            | Command::Unlock { .. }
            | Command::UnlockTogether { .. }
            | Command::Barrier
            | Command::Leave
            | Command::RootPublish { .. }
            | Command::Sync
            | Command::LockWithdraw { .. }
            | Command::RootClaim { .. }
            | Command::RootAbandon { .. }
            | Command::SpanLease { .. }
            | Command::SpanReturn { .. }
            | Command::SpanFind { .. }
            | Command::Free { .. } => None,
        }
    }

    /// A thread wants `page` to be here: what it waits for is the same as if it had loaded from it.
    fn ensure(&mut self, now: Time, call: CallId, page: PageId, out: &mut Outbox<'_>) {
        if self.local.access(page) >= Access::Read {
            out.act(Action::Complete { call, reply: Reply::Ensured });
            return;
        }
        self.calls.ensure(call, page);
        self.fault(now, page, Want::Read, out);
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
            } else if let Some(lost) = self.asks_for_lost(&command) {
                out.act(Action::Complete { call, reply: Reply::Lost(lost) });
            } else {
                self.calls.command(call, command, out);
            }
        }
    }
}
