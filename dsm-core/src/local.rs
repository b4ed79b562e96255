//! What this node holds: its access to each page that it touched, its outstanding faults, and the revocations that it
//! owes to others. It knows nothing of the directory: it speaks to homes by message, even to the one on its own node.
//!
//! ```text
//!            fault: Request            Grant + all Acks: Install, Confirm
//!   None ───────────────────▶ pending ───────────────────────────────────▶ Read | Write
//!   Read ── store: Request ──▶ pending, still Read ── Grant(Held) ───────▶ Write
//!
//!   Write ── Forward(Read): protect, send ──▶ Read      Write | Read ── Forward(Write): unmap, send ──▶ None
//!   Read  ── Invalidate: unmap, Ack ────────▶ None
//! ```
//!
//! A revocation waits until the instruction for which the page came has retired (minimum residency): otherwise two
//! nodes that store to one page, or an instruction that needs two pages at once, could take pages from each other for
//! ever without one instruction done.

use crate::access::{Access, Want};
mod replicate;

use crate::action::{Action, Cause};
use crate::commit::Commits;
use crate::copyset::Copyset;
use crate::event::{Progress, Timer};
use crate::geometry::mix;
use crate::ids::{NodeId, PageId, TransactionId};
use crate::limits;
use crate::message::{Custody, Message, Payload};
use crate::outbox::Outbox;
use crate::page_map::PageMap;
use crate::time::Time;
use core::time::Duration;
use std::collections::BTreeSet;

/// The pages of one node.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Local {
    me: NodeId,
    pages: PageMap<Page>,
    /// How many transactions this node has had.
    transactions: u64,
    /// Pages that threads of this node want to store to, once less is to be replicated.
    held: BTreeSet<PageId>,
    /// Pages that are to be served once they are replicated.
    awaited: BTreeSet<PageId>,
    /// Makes their numbers hard to guess, where there is one.
    key: Option<u64>,
    commits: Commits,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Page {
    access: Access,
    ownership: Ownership,
    pending: Option<Pending>,
    revocation: Option<(Revocation, Stage)>,
    /// When the access was granted, until the instruction that asked for it is known to have retired.
    installed: Option<Time>,
}

/// Whether this node holds the authoritative copy of a page.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Ownership {
    /// Another node does, or nobody.
    Elsewhere,
    /// This one does, and no other has a copy.
    Sole,
    /// This one does, and others have read copies.
    Shared,
}

/// What a revocation waits for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Stage {
    /// For the instruction to retire for which the page came.
    Residency,
    /// For the page, which nobody stores to meanwhile, to be replicated.
    Replication,
}

/// A fault that is under way.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Pending {
    transaction: TransactionId,
    want: Want,
    grant: Option<Granted>,
    acked: Copyset,
    /// What came along with ownership.
    custody: Option<Custody>,
    /// Whether others wait for the page to be confirmed.
    contended: bool,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Granted {
    access: Access,
    payload: Payload,
    awaiting: Copyset,
}

/// What another node's fault demands of this one's copy.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Revocation {
    /// This node owns the page: send it to the requester, and keep what its want leaves.
    Forward(Forward),
    /// This node has a read copy: drop it.
    Invalidate { transaction: TransactionId },
}

/// A forward, as it came.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Forward {
    pub transaction: TransactionId,
    pub want: Want,
    pub awaiting: Copyset,
    pub contended: bool,
}

/// A grant, as it came.
pub(crate) struct Grant {
    pub transaction: TransactionId,
    pub access: Access,
    pub payload: Payload,
    pub awaiting: Copyset,
    pub contended: bool,
    pub custody: Option<Custody>,
}

impl Page {
    const UNTOUCHED: Page = Page {
        access: Access::None,
        ownership: Ownership::Elsewhere,
        pending: None,
        revocation: None,
        installed: None,
    };
}

impl Local {
    pub fn new(me: NodeId, commits: Commits) -> Local {
        Local {
            me,
            pages: PageMap::default(),
            transactions: 0,
            held: BTreeSet::new(),
            awaited: BTreeSet::new(),
            key: None,
            commits,
        }
    }

    /// Numbers this node's transactions so that whoever does not know `key` cannot name one that it was not told of.
    pub fn number_by(&mut self, key: u64) {
        self.key = Some(key);
    }

    /// What this node may do with `page`.
    pub fn access(&self, page: PageId) -> Access {
        self.pages.get(page).map_or(Access::None, |page| page.access)
    }

    /// Whether this node is about to give up some of its access to `page`.
    pub fn is_revoking(&self, page: PageId) -> bool {
        self.pages.get(page).is_some_and(|page| page.revocation.is_some())
    }

    /// Whether this node, which may write `page`, is about to share it.
    fn owes_read_copy(&self, page: PageId) -> bool {
        self.pages.get(page).is_some_and(|state| match state.revocation {
            Some((Revocation::Forward(Forward { want: Want::Read, .. }), _)) => state.access == Access::Write,
            Some((Revocation::Forward(_) | Revocation::Invalidate { .. }, _)) | None => false,
        })
    }

    /// The faults of this node that are under way.
    pub fn pending(&self) -> impl Iterator<Item = (PageId, TransactionId)> + '_ {
        self.pages.iter().filter_map(|(page, state)| Some((page, state.pending.as_ref()?.transaction)))
    }

    /// Whether `transaction` is this node's fault under way on `page`.
    pub fn waits_for(&self, page: PageId, transaction: TransactionId) -> bool {
        let pending = self.pages.get(page).and_then(|state| state.pending.as_ref());
        pending.is_some_and(|pending| pending.transaction == transaction)
    }

    /// Whether bytes that come with a grant of `transaction` may be put into the frame of `page`: it is unmapped, and
    /// waits for just them.
    pub fn reserves(&self, page: PageId, transaction: TransactionId) -> bool {
        self.pages.get(page).is_some_and(|page| {
            page.access == Access::None
                && page
                    .pending
                    .as_ref()
                    .is_some_and(|pending| pending.transaction == transaction && pending.grant.is_none())
        })
    }

    /// A thread of this node faulted.
    pub fn fault(&mut self, now: Time, page: PageId, want: Want, home: NodeId, out: &mut Outbox<'_>) {
        let number = self.number_of(self.transactions + 1);
        let (access, pends) = self
            .pages
            .get(page)
            .map_or((Access::None, false), |state| (state.access, state.pending.is_some()));
        if access >= want.access() {
            out.act(Action::Refresh { page, access });
            return;
        }
        if pends {
            // The thread is woken by the grant that is under way. If that allows too little, it faults again.
            return;
        }
        if want == Want::Write && self.commits.is_full() && !self.commits.is_dirty(page) {
            self.held.insert(page);
            return;
        }
        if self.resolve_as_owner(now, page, want, out) {
            return;
        }
        let state = self.pages.get_or_insert_with(page, || Page::UNTOUCHED);
        self.transactions += 1;
        let transaction = TransactionId { node: self.me, number };
        state.pending = Some(Pending {
            transaction,
            want,
            grant: None,
            acked: Copyset::EMPTY,
            custody: None,
            contended: false,
        });
        out.send(home, Message::Request { page, transaction, want });
    }

    /// The page for which this node asked comes.
    pub fn grant(
        &mut self,
        now: Time,
        page: PageId,
        grant: &Grant,
        home: NodeId,
        gone: Copyset,
        out: &mut Outbox<'_>,
    ) -> Result<(), Cause> {
        let state = self.pages.get_mut(page).ok_or(Cause::OutOfTurn)?;
        let held = match grant.payload {
            Payload::Held => Access::Read,
            Payload::Bytes | Payload::Zero => Access::None,
        };
        let access = state.access;
        let pending = state.outstanding(grant.transaction)?;
        if pending.grant.is_some() || access != held || grant.access < pending.want.access() {
            return Err(Cause::OutOfTurn);
        }
        // The home may have sent an invalidation to a reader of whose end this node knows already.
        let awaiting = grant.awaiting.minus(gone);
        pending.contended |= grant.contended;
        pending.custody = pending.custody.or(grant.custody);
        pending.grant = Some(Granted { access: grant.access, payload: grant.payload, awaiting });
        self.settle(now, page, home, out);
        Ok(())
    }

    /// A reader dropped its copy for a fault of this node.
    pub fn ack(
        &mut self,
        now: Time,
        from: NodeId,
        page: PageId,
        (transaction, custody): (TransactionId, Option<Custody>),
        home: NodeId,
        out: &mut Outbox<'_>,
    ) -> Result<(), Cause> {
        let state = self.pages.get_mut(page).ok_or(Cause::OutOfTurn)?;
        let pending = state.outstanding(transaction)?;
        pending.acked = pending.acked.with(from);
        pending.custody = pending.custody.or(custody);
        self.settle(now, page, home, out);
        Ok(())
    }

    /// This node, the owner, is to pass the page on as `forward` says, which is to its transaction's node.
    pub fn forward(
        &mut self,
        now: Time,
        page: PageId,
        forward: Forward,
        out: &mut Outbox<'_>,
    ) -> Result<(), Cause> {
        let owns = self.pages.get(page).is_some_and(|state| state.ownership != Ownership::Elsewhere);
        if !owns || forward.transaction.node == self.me {
            return Err(Cause::OutOfTurn);
        }
        self.revoke(now, page, Revocation::Forward(forward), out);
        Ok(())
    }

    /// This node, a reader, is to drop its copy.
    pub fn invalidate(
        &mut self,
        now: Time,
        page: PageId,
        transaction: TransactionId,
        out: &mut Outbox<'_>,
    ) -> Result<(), Cause> {
        if self.owes_read_copy(page) {
            // Only where the reader confirmed what it has not got yet, and then asked to write: the home believes that
            // this node, like the reader, holds no more than a read copy.
            self.carry_out_revocation(page, out);
        }
        let holds = self.pages.get(page).is_some_and(|state| match state.ownership {
            Ownership::Elsewhere => state.access == Access::Read,
            Ownership::Shared => true,
            Ownership::Sole => false,
        });
        if !holds || transaction.node == self.me {
            return Err(Cause::OutOfTurn);
        }
        self.revoke(now, page, Revocation::Invalidate { transaction }, out);
        Ok(())
    }

    /// Others wait for the page: its confirmation is not to be held back. It may have been sent meanwhile.
    pub fn hurry(&mut self, page: PageId, transaction: TransactionId, home: NodeId, out: &mut Outbox<'_>) {
        let pending = self.pages.get_mut(page).and_then(|state| state.pending.as_mut());
        match pending.filter(|pending| pending.transaction == transaction) {
            Some(pending) => pending.contended = true,
            None => out.flush(home),
        }
    }

    /// A fault of this node cannot be resolved any more. The transaction may have ended meanwhile: then nothing is.
    pub fn lost(&mut self, page: PageId, transaction: TransactionId, node: NodeId, out: &mut Outbox<'_>) {
        if self.waits_for(page, transaction) {
            out.act(Action::Doom { page, node });
        }
    }

    /// The driver looked how far the instruction is for which `page` was installed.
    pub fn probed(&mut self, now: Time, page: PageId, progress: Progress, out: &mut Outbox<'_>) {
        let Some(state) = self.pages.get_mut(page) else { return };
        let (Some((_, Stage::Residency)), Some(installed)) = (state.revocation, state.installed) else {
            return;
        };
        let resident = now.since(installed);
        let patience = match progress {
            Progress::Retired => Duration::ZERO,
            Progress::Waiting => limits::RESIDENCY_MAX,
            // Two nodes that hold what the other waits for would wait for ever, or take the pages from each other for
            // ever. So pages have an order: who holds the higher one yields it, who holds the lower one keeps it.
            Progress::Straddling { awaits } if awaits > page => limits::STRADDLE_PATIENCE,
            Progress::Straddling { awaits: _ } => Duration::ZERO,
        };
        if resident >= patience {
            self.carry_out_revocation(page, out);
        } else {
            // Half as long again as it has been here: the looks stay few however long the thread is kept waiting.
            let pause = limits::RESIDENCY_POLL.max(resident / 2).min(patience - resident);
            out.act(Action::SetTimer { timer: Timer::Residency(page), at: now + pause });
        }
    }

    /// The pause before the next look is over.
    pub fn residency_over(&mut self, page: PageId, out: &mut Outbox<'_>) {
        let waits = |state: &Page| matches!(state.revocation, Some((_, Stage::Residency)));
        if self.pages.get(page).is_some_and(waits) {
            out.act(Action::ProbeResidency { page });
        }
    }

    /// A peer is gone: it needs no page any more, owes no ack any more, and answers no request any more.
    pub fn peer_lost(
        &mut self,
        now: Time,
        node: NodeId,
        home_of: impl Fn(PageId) -> NodeId,
        out: &mut Outbox<'_>,
    ) {
        let touched: Vec<PageId> = self.pages.keys().collect();
        for page in touched {
            let Some(state) = self.pages.get_mut(page) else { continue };
            let home = home_of(page);
            if let Some(pending) = state.pending.as_mut() {
                pending.acked = pending.acked.with(node);
                self.settle(now, page, home, out);
            }
            if self.pages.get(page).is_some_and(|state| state.pending.is_some()) && home == node {
                out.act(Action::Doom { page, node });
            }
        }
    }

    /// Checks what must hold between events.
    pub fn invariants(&self) -> Result<(), String> {
        self.commits.invariants()?;
        if let Some(page) = self.held.first().filter(|_| !self.commits.is_full()) {
            return Err(format!("a store to {page} waits for nothing"));
        }
        for (page, state) in self.pages.iter() {
            if let Some(pending) = &state.pending {
                if state.access >= pending.want.access() {
                    return Err(format!("{page} waits for an access that it has"));
                }
                let latest = self.number_of(self.transactions);
                if pending.transaction.node != self.me || pending.transaction.number > latest {
                    return Err(format!("{page} waits for {} that is not ours", pending.transaction));
                }
                if pending.grant.as_ref().is_some_and(|grant| grant.awaiting.minus(pending.acked).is_empty())
                {
                    return Err(format!("{page} waits though all that it waits for has come"));
                }
            }
            let owned = state.ownership != Ownership::Elsewhere;
            if state.revocation.is_some() && state.access == Access::None && !owned {
                return Err(format!("{page} is to be revoked, but is not held"));
            }
            let noticed = !self.commits.is_on() || self.commits.is_dirty(page);
            if state.access == Access::Write && !noticed && self.commits.withholds(page) {
                return Err(format!("{page} may be written in a section, and nobody would notice"));
            }
            if state.access == Access::Write && state.ownership != Ownership::Sole {
                return Err(format!("{page} may be written, but is {:?}", state.ownership));
            }
            let awaited = matches!(state.revocation, Some((_, Stage::Replication)));
            if awaited != self.awaited.contains(&page) {
                return Err(format!(
                    "{page} waits to be replicated, which is forgotten, or the other way round"
                ));
            }
            match state.revocation {
                Some((_, Stage::Residency)) if state.installed.is_none() => {
                    return Err(format!("{page}'s revocation waits for nothing"));
                }
                Some((_, Stage::Replication)) if state.access == Access::Write => {
                    return Err(format!("{page} is to be served, and may be written"));
                }
                Some(_) | None => {}
            }
        }
        Ok(())
    }

    /// Whether no fault is under way and no revocation is owed.
    pub fn is_quiet(&self) -> bool {
        self.held.is_empty()
            && self.pages.values().all(|page| page.pending.is_none() && page.revocation.is_none())
    }

    /// The number of this node's `count`th transaction. Numbers only grow, so none comes twice.
    fn number_of(&self, count: u64) -> u64 {
        match self.key {
            None => count,
            Some(key) => {
                let token = mix(key, count) & ((1 << limits::TOKEN_BITS) - 1);
                count << limits::TOKEN_BITS | token
            }
        }
    }

    fn revoke(&mut self, now: Time, page: PageId, revocation: Revocation, out: &mut Outbox<'_>) {
        if self.pages.get(page).is_some_and(|state| state.revocation.is_some()) {
            // Only where the node died for which the first was: the home then goes on without its confirmation.
            self.carry_out_revocation(page, out);
        }
        let Some(state) = self.pages.get_mut(page) else { return };
        state.revocation = Some((revocation, Stage::Residency));
        let takes = match revocation {
            Revocation::Forward(Forward { want: Want::Read, .. }) => state.access == Access::Write,
            Revocation::Forward(Forward { want: Want::Write, .. }) | Revocation::Invalidate { .. } => true,
        };
        let fresh = state.installed.is_some_and(|at| now.since(at) < limits::STRADDLE_PATIENCE);
        if takes && fresh {
            out.act(Action::ProbeResidency { page });
        } else {
            self.carry_out_revocation(page, out);
        }
    }

    /// The instruction for which the page came has retired, or has waited long enough: nobody stores to the page any
    /// more, and it goes as soon as what was stored to it is replicated.
    fn carry_out_revocation(&mut self, page: PageId, out: &mut Outbox<'_>) {
        let Some(state) = self.pages.get_mut(page) else { return };
        let Some((revocation, _)) = state.revocation.take() else { return };
        self.awaited.remove(&page);
        if state.ownership != Ownership::Elsewhere && !self.commits.is_clean(page) {
            state.reduce(page, Access::Read, out);
            state.revocation = Some((revocation, Stage::Replication));
            self.awaited.insert(page);
            self.replicate(page, out);
            return;
        }
        match revocation {
            Revocation::Forward(forward) => self.serve(page, forward, out),
            Revocation::Invalidate { transaction } => {
                state.reduce(page, Access::None, out);
                let gives_up = state.ownership != Ownership::Elsewhere;
                state.ownership = Ownership::Elsewhere;
                let custody = if gives_up { self.commits.give_up(page) } else { None };
                out.send(transaction.node, Message::Ack { page, transaction, custody });
            }
        }
        if self.pages.get(page) == Some(&Page::UNTOUCHED) {
            self.pages.remove(page);
        }
    }

    fn serve(&mut self, page: PageId, forward: Forward, out: &mut Outbox<'_>) {
        let Some(state) = self.pages.get_mut(page) else { return };
        let Forward { transaction, want, awaiting, contended } = forward;
        let custody = match want {
            Want::Read => {
                state.reduce(page, Access::Read, out);
                state.ownership = Ownership::Shared;
                None
            }
            Want::Write => {
                state.reduce(page, Access::None, out);
                state.ownership = Ownership::Elsewhere;
                self.commits.give_up(page)
            }
        };
        let (access, payload) = (want.access(), Payload::Bytes);
        let grant = Message::Grant { page, transaction, access, payload, awaiting, contended, custody };
        out.send_page(transaction.node, page, grant);
    }

    /// Puts the grant into force once every reader that it names has acked.
    fn settle(&mut self, now: Time, page: PageId, home: NodeId, out: &mut Outbox<'_>) {
        let Some(state) = self.pages.get_mut(page) else { return };
        let Some(pending) = &state.pending else { return };
        let Some(Granted { access, payload, awaiting }) = pending.grant.clone() else { return };
        if !awaiting.minus(pending.acked).is_empty() {
            return;
        }
        let Pending { transaction, want, contended, custody, .. } = *pending;
        state.pending = None;
        match access {
            // A load of a page that is expected to be stored to next: the store is to wait for its turn.
            Access::Write if want == Want::Read && self.commits.is_full() => {
                state.ownership = Ownership::Sole;
                state.access = Access::Read;
                state.installed = Some(now);
                self.commits.taken_over(page, custody);
                out.act(Action::Install { page, access: Access::Read, payload });
            }
            Access::Write => self.allow_stores(now, page, payload, custody, out),
            Access::Read | Access::None => {
                state.access = access;
                state.installed = Some(now);
                out.act(Action::Install { page, access, payload });
            }
        }
        // The home starts no other transaction on this page before it hears this: a later Forward or Invalidate could
        // otherwise overtake the grant.
        let confirm = Message::Confirm { page, transaction };
        if contended {
            out.send(home, confirm);
        } else {
            out.send_lazily(home, confirm);
        }
    }
}

impl Page {
    /// The fault under way, if it is the one that `transaction` names.
    fn outstanding(&mut self, transaction: TransactionId) -> Result<&mut Pending, Cause> {
        self.pending.as_mut().filter(|pending| pending.transaction == transaction).ok_or(Cause::OutOfTurn)
    }

    /// Leaves no more than `access`. The access that remains was not granted just now: nothing keeps it resident.
    fn reduce(&mut self, page: PageId, access: Access, out: &mut Outbox<'_>) {
        if self.access > access {
            self.access = access;
            self.installed = None;
            out.act(Action::Protect { page, access });
        }
    }
}
