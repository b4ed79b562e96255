//! Sections of this node's threads: where one begins and ends, which pages are withheld until then, and what is not
//! given back before.
//!
//! A section that is undone by a crash must find all that it needs where it was. So a span or a block that is given up
//! while sections are open may become somebody else's only when all of these have ended, and are replicated.

use super::{Machine, Ordered};
use crate::action::Cause;
use crate::event::Command;
use crate::ids::{CallId, LockId, NodeId, RecordId, Ticket};
use crate::message::{SpanOwner, SpanRange};
use crate::outbox::Outbox;
use std::collections::BTreeSet;

/// Something that a thread of this node gave up while sections were open.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct GivenUp {
    call: CallId,
    command: Command,
    /// The sections that were open then, and are still.
    open: BTreeSet<LockId>,
}

impl Machine {
    /// A span was leased. If it is for a domain with an open section here, the section begins to use it now.
    pub(super) fn span_leased(
        &mut self,
        from: NodeId,
        ticket: Ticket,
        span: SpanRange,
        out: &mut Outbox<'_>,
    ) -> Result<(), Cause> {
        self.calls.span_leased(from, ticket, span, out)?;
        if let SpanOwner::Domain(base) = span.owner
            && self.local.commits_ref().is_open(LockId(base))
        {
            self.local.cover(LockId(base), &[span], out);
        }
        Ok(())
    }

    /// The sections of these locks end, all at one instant: their pages are in one record. The locks are released once
    /// that is replicated, and then what had to wait for these sections.
    pub(super) fn end_sections(&mut self, call: CallId, ended: &[(LockId, CallId)], out: &mut Outbox<'_>) {
        for &(lock, _) in ended {
            self.local.commits().close(lock, out);
        }
        self.local.commit_awaited(out);
        let after = self.local.flush(out).unwrap_or(RecordId::NONE);
        let unlock = |&(lock, acquired)| Ordered { after, call, command: Command::Unlock { lock, acquired } };
        self.ordered.extend(ended.iter().map(unlock));
        let waits_for_none = |given_up: &mut GivenUp| {
            given_up.open.retain(|lock| !ended.iter().any(|(other, _)| other == lock));
            given_up.open.is_empty()
        };
        let free = self.given_up.extract_if(.., waits_for_none);
        self.ordered.extend(free.map(|GivenUp { call, command, .. }| Ordered { after, call, command }));
        self.say_ordered(out);
    }

    /// A thread gives a span or a block up. Others may have it once the sections are replicated that are open now, and
    /// what has ended before.
    pub(super) fn give_up(&mut self, call: CallId, command: Command, out: &mut Outbox<'_>) {
        if !self.local.commits_ref().is_on() {
            return self.calls.command(call, command, out);
        }
        let open: BTreeSet<LockId> = self.local.commits_ref().open_sections().collect();
        if !open.is_empty() {
            self.given_up.push(GivenUp { call, command, open });
            return;
        }
        let after = self.local.commits_ref().pending().unwrap_or(RecordId::NONE);
        self.ordered.push_back(Ordered { after, call, command });
        self.say_ordered(out);
    }
}
