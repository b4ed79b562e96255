//! The calls of this node's application threads that wait for an answer from some home. It knows nothing of the
//! services: it speaks to them by message, even to those on its own node.

use crate::action::{Action, Cause, Reply};
use crate::copyset::Copyset;
use crate::event::Command;
use crate::ids::{CallId, LockId, NodeId, PageId, Ticket, ViewId};
use crate::message::{Lost, Message, RootAnswer, SpanOwner, SpanRange, Zone};
use crate::notes::Notes;
use crate::outbox::Outbox;
use crate::placement::Placement;
use std::collections::BTreeMap;

/// The outstanding calls of one node.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Calls {
    me: NodeId,
    placement: Placement,
    waiting: BTreeMap<CallId, Waiting>,
    /// The locks that threads of this node hold, by the call that acquired each.
    held: BTreeMap<LockId, CallId>,
    /// The calls that wait for a page to be here.
    ensuring: BTreeMap<PageId, Vec<CallId>>,
    /// The roots that threads of this node are creating, and their layouts.
    creating: BTreeMap<String, u64>,
    /// What this node knows of the spans and roots of others' homes.
    notes: Notes,
    generation: u64,
    /// Whether this node's program is done, and all others' are.
    left: bool,
    /// Whether it may hear so once more: the view has changed since, and not all may have heard it.
    left_again: bool,
    /// The first peer that was lost: no call completes any more but with its name.
    lost: Option<NodeId>,
}

/// A call that waits, and for whose word: nobody else's ends it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Waiting {
    call: Call,
    asked: NodeId,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Call {
    Lock { lock: LockId, wait: bool },
    Barrier,
    Leave,
    Root { name: String, layout: u64 },
    Lease(Lease),
    Find { page: PageId },
}

/// A lease that goes from home to home until one has room.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Lease {
    pages: u64,
    owner: SpanOwner,
    /// Homes of the small zone that have not been asked.
    untried: Copyset,
    zone: Zone,
    free: u64,
    largest: u64,
}

impl Calls {
    pub fn new(me: NodeId, placement: Placement) -> Calls {
        Calls {
            me,
            placement,
            waiting: BTreeMap::new(),
            held: BTreeMap::new(),
            ensuring: BTreeMap::new(),
            creating: BTreeMap::new(),
            notes: Notes::default(),
            generation: 0,
            left: false,
            left_again: false,
            lost: None,
        }
    }

    /// A thread of this node asks for something.
    pub fn command(&mut self, id: CallId, command: Command, out: &mut Outbox<'_>) {
        match command {
            Command::Lock { lock, wait } => {
                self.ask(id, Call::Lock { lock, wait }, out);
            }
            Command::Barrier if self.is_in(&Call::Barrier) => {
                out.act(Action::Complete { call: id, reply: Reply::Busy });
            }
            Command::Barrier => {
                self.ask(id, Call::Barrier, out);
            }
            Command::Leave if self.is_in(&Call::Leave) => {
                out.act(Action::Complete { call: id, reply: Reply::Busy });
            }
            Command::Leave => {
                self.ask(id, Call::Leave, out);
            }
            Command::RootClaim { name, layout } => {
                self.ask(id, Call::Root { name, layout }, out);
            }
            Command::SpanLease { pages, owner } => self.lease(id, pages, owner, out),
            Command::SpanFind { page } => {
                self.ask(id, Call::Find { page }, out);
            }
            Command::LockWithdraw { .. }
            | Command::Unlock { .. }
            | Command::RootPublish { .. }
            | Command::RootAbandon { .. }
            | Command::SpanReturn { .. }
            | Command::Free { .. } => self.tell(command, out),
            // These are between this node's threads and its own commits.
            Command::Cover { .. }
            | Command::UnlockTogether { .. }
            | Command::Ensure { .. }
            | Command::Sync => {}
        }
    }

    /// The commands that nobody waits for.
    fn tell(&mut self, command: Command, out: &mut Outbox<'_>) {
        let ticket = |call| Ticket { node: self.me, call };
        let (to, message) = match command {
            Command::LockWithdraw { lock, waiting } => {
                if let Some(Waiting { call: Call::Lock { wait, .. }, .. }) = self.waiting.get_mut(&waiting) {
                    *wait = false;
                }
                (self.home_of_lock(lock), Message::LockWithdraw { lock, ticket: ticket(waiting) })
            }
            Command::Unlock { lock, acquired } => {
                self.held.remove(&lock);
                (self.home_of_lock(lock), Message::LockRelease { lock, ticket: ticket(acquired) })
            }
            Command::RootPublish { name, address } => {
                let layout = self.creating.remove(&name).unwrap_or_default();
                self.notes.root(name.clone(), layout, address);
                (self.placement.home_of_name(&name), Message::RootPublish { name, address })
            }
            Command::RootAbandon { name } => {
                self.creating.remove(&name);
                (self.placement.home_of_name(&name), Message::RootAbandon { name })
            }
            Command::SpanReturn { first } => {
                self.notes.span_returned(first);
                (self.placement.granter_of(first), Message::SpanReturn { first })
            }
            Command::Free { address } => {
                let Some((granter, _)) = self.placement.granter_at(address) else { return };
                (granter, Message::Free { address })
            }
            Command::Lock { .. }
            | Command::Barrier
            | Command::Leave
            | Command::RootClaim { .. }
            | Command::SpanLease { .. }
            | Command::SpanFind { .. }
            | Command::Cover { .. }
            | Command::UnlockTogether { .. }
            | Command::Ensure { .. }
            | Command::Sync => unreachable!("a command that is waited for, or that nobody is told of"),
        };
        out.send(to, message);
    }

    /// The lock is the call's.
    pub fn lock_granted(
        &mut self,
        from: NodeId,
        lock: LockId,
        ticket: Ticket,
        recovered: Option<NodeId>,
        out: &mut Outbox<'_>,
    ) -> Result<(), Cause> {
        self.answer(from, ticket, |call| call.is_for(lock), Reply::Locked { recovered }, out)?;
        self.held.insert(lock, ticket.call);
        Ok(())
    }

    /// The lock is not the call's.
    pub fn lock_denied(
        &mut self,
        from: NodeId,
        lock: LockId,
        ticket: Ticket,
        holder: NodeId,
        out: &mut Outbox<'_>,
    ) -> Result<(), Cause> {
        self.answer(from, ticket, |call| call.is_for(lock), Reply::LockDenied { holder }, out)
    }

    /// All members have arrived.
    pub fn barrier_complete(
        &mut self,
        generation: u64,
        view: ViewId,
        out: &mut Outbox<'_>,
    ) -> Result<(), Cause> {
        if self.lost.is_some() {
            return Ok(());
        }
        let call = self.find(&Call::Barrier).filter(|_| generation == self.generation);
        let call = call.ok_or(Cause::OutOfTurn)?;
        self.generation += 1;
        self.complete(call, Reply::BarrierPassed { view }, out);
        Ok(())
    }

    /// Every program is done.
    pub fn leave_complete(&mut self, out: &mut Outbox<'_>) -> Result<(), Cause> {
        if self.lost.is_some() {
            return Ok(());
        }
        match self.find(&Call::Leave) {
            Some(call) => {
                self.left = true;
                self.complete(call, Reply::Left, out);
                Ok(())
            }
            None if core::mem::take(&mut self.left_again) => Ok(()),
            None => Err(Cause::OutOfTurn),
        }
    }

    /// What a name stands for.
    pub fn root_answered(
        &mut self,
        from: NodeId,
        ticket: Ticket,
        answer: RootAnswer,
        out: &mut Outbox<'_>,
    ) -> Result<(), Cause> {
        let claim = match self.waiting.get(&ticket.call) {
            Some(Waiting { call: Call::Root { name, layout }, .. }) if ticket.node == self.me => {
                Some((name.clone(), *layout))
            }
            Some(_) | None => None,
        };
        self.answer(from, ticket, |call| matches!(call, Call::Root { .. }), Reply::Root(answer), out)?;
        let Some((name, layout)) = claim else { return Ok(()) };
        match answer {
            RootAnswer::Create => {
                self.creating.insert(name, layout);
            }
            RootAnswer::Found(address) => self.notes.root(name, layout, address),
            RootAnswer::OtherLayout(_) | RootAnswer::TooMany => {}
        }
        Ok(())
    }

    /// A home leased a span.
    pub fn span_leased(
        &mut self,
        from: NodeId,
        ticket: Ticket,
        span: SpanRange,
        out: &mut Outbox<'_>,
    ) -> Result<(), Cause> {
        let placement = self.placement;
        let fits = |call: &Call| matches!(call, Call::Lease(lease) if lease.fits(span, &placement));
        let fits = |call: &Call| placement.grants(from, span) && fits(call);
        self.answer(from, ticket, fits, Reply::Span(span), out)?;
        self.notes.span(span);
        Ok(())
    }

    /// Where a page's span is.
    pub fn span_found(
        &mut self,
        from: NodeId,
        ticket: Ticket,
        span: Option<SpanRange>,
        out: &mut Outbox<'_>,
    ) -> Result<(), Cause> {
        let placement = self.placement;
        let holds = |span: SpanRange, page: PageId| {
            placement.grants(from, span) && (span.first..PageId(span.first.0 + span.pages)).contains(&page)
        };
        let fits =
            |call: &Call| matches!(call, Call::Find { page } if span.is_none_or(|span| holds(span, *page)));
        self.answer(from, ticket, fits, Reply::SpanFound(span), out)
    }

    /// A home had no room: the next is asked, the coordinator for the large zone last.
    pub fn span_denied(
        &mut self,
        from: NodeId,
        ticket: Ticket,
        free: u64,
        largest: u64,
        out: &mut Outbox<'_>,
    ) -> Result<(), Cause> {
        if self.lost.is_some() {
            return Ok(());
        }
        let Some(Waiting { call: Call::Lease(lease), asked }) = self.waiting.get_mut(&ticket.call) else {
            return Err(Cause::OutOfTurn);
        };
        if *asked != from {
            return Err(Cause::OutOfTurn);
        }
        lease.free = lease.free.saturating_add(free);
        lease.largest = lease.largest.max(largest);
        let (free, largest) = (lease.free, lease.largest);
        let coordinator = self.placement.coordinator;
        match lease.next(coordinator) {
            Some((home, message)) => {
                *asked = home;
                out.send(home, message(ticket));
            }
            None => self.complete(ticket.call, Reply::SpanDenied { free, largest }, out),
        }
        Ok(())
    }

    /// What this node knows of the spans and roots of others' homes.
    pub fn notes(&mut self) -> &mut Notes {
        &mut self.notes
    }

    /// The locks that threads of this node hold.
    pub fn held(&self) -> impl Iterator<Item = (LockId, CallId)> + '_ {
        self.held.iter().map(|(&lock, &call)| (lock, call))
    }

    /// The roots that threads of this node are creating, and their layouts.
    pub fn creating(&self) -> impl Iterator<Item = (&String, u64)> + '_ {
        self.creating.iter().map(|(name, &layout)| (name, layout))
    }

    /// Whether this node's program is done, and the coordinator was told so.
    pub fn has_left(&self) -> bool {
        self.left || self.is_in(&Call::Leave)
    }

    /// How many barriers this node has passed.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Another view: what was asked and not answered is to be asked anew.
    pub fn install(&mut self, placement: Placement) {
        self.placement = placement;
        self.left_again = self.left;
        for waiting in self.waiting.values_mut() {
            if let Call::Lease(lease) = &mut waiting.call {
                // Who denied it may have room by now: what others granted, it may grant.
                lease.untried = placement.members.without(self.me);
                (lease.free, lease.largest) = (0, 0);
            }
        }
    }

    /// A call waits until `page` is here.
    pub fn ensure(&mut self, call: CallId, page: PageId) {
        self.ensuring.entry(page).or_default().push(call);
    }

    /// Answers the calls that wait for pages that are here by now, or lost.
    pub fn ensured(
        &mut self,
        here: impl Fn(PageId) -> bool,
        lost: impl Fn(PageId) -> Option<Lost>,
        out: &mut Outbox<'_>,
    ) {
        self.ensuring.retain(|page, calls| {
            let reply = match lost(*page) {
                Some(lost) => Reply::Lost(lost),
                None if here(*page) => Reply::Ensured,
                None => return true,
            };
            calls.drain(..).for_each(|call| out.act(Action::Complete { call, reply }));
            false
        });
    }

    /// All members have recovered, and one of them has passed `passed` barriers: what waits is asked anew, but for the
    /// locks of domains that are `lost`.
    pub fn resume(
        &mut self,
        passed: u64,
        view: ViewId,
        lost: impl Fn(LockId) -> Option<Lost>,
        out: &mut Outbox<'_>,
    ) {
        if let Some(call) = self.find(&Call::Barrier).filter(|_| self.generation < passed) {
            self.complete(call, Reply::BarrierPassed { view }, out);
        }
        // Who has joined counts from where the others are.
        self.generation = self.generation.max(passed);
        let waiting = core::mem::take(&mut self.waiting);
        for (id, Waiting { call, .. }) in waiting {
            let gone = match &call {
                Call::Lock { lock, wait: _ } => lost(*lock),
                Call::Barrier | Call::Leave | Call::Root { .. } | Call::Lease(_) | Call::Find { .. } => None,
            };
            if let Some(lost) = gone {
                out.act(Action::Complete { call: id, reply: Reply::Lost(lost) });
            } else if call == Call::Leave {
                // All members have reported who is done.
                self.waiting.insert(id, Waiting { call, asked: self.placement.coordinator });
            } else {
                self.ask(id, call, out);
            }
        }
    }

    /// A peer is gone: no call of this node can be trusted to complete.
    pub fn peer_lost(&mut self, node: NodeId, out: &mut Outbox<'_>) {
        let node = *self.lost.get_or_insert(node);
        let ensuring = core::mem::take(&mut self.ensuring).into_values().flatten();
        for call in core::mem::take(&mut self.waiting).into_keys().chain(ensuring) {
            out.act(Action::Complete { call, reply: Reply::PeerLost { node } });
        }
    }

    /// Whether no call waits.
    pub fn is_quiet(&self) -> bool {
        self.waiting.is_empty() && self.ensuring.is_empty()
    }

    fn lease(&mut self, id: CallId, pages: u64, owner: SpanOwner, out: &mut Outbox<'_>) {
        let zone = if pages <= self.placement.geometry.segment_pages() { Zone::Small } else { Zone::Large };
        let untried = match zone {
            Zone::Small => self.placement.members.without(self.me),
            Zone::Large => Copyset::EMPTY,
        };
        let lease = Lease { pages, owner, untried, zone, free: 0, largest: 0 };
        self.ask(id, Call::Lease(lease), out);
    }

    fn ask(&mut self, id: CallId, call: Call, out: &mut Outbox<'_>) {
        if let Some(node) = self.lost {
            out.act(Action::Complete { call: id, reply: Reply::PeerLost { node } });
            return;
        }
        let asked = self.whom(&call);
        out.send(asked, self.request(id, &call));
        let before = self.waiting.insert(id, Waiting { call, asked });
        assert!(before.is_none(), "the driver used {id:?} twice");
    }

    /// Whom a call is asked of first.
    fn whom(&self, call: &Call) -> NodeId {
        match call {
            Call::Lock { lock, wait: _ } => self.home_of_lock(*lock),
            Call::Barrier | Call::Leave => self.placement.coordinator,
            Call::Root { name, layout: _ } => self.placement.home_of_name(name),
            Call::Lease(lease) => match lease.zone {
                Zone::Small => self.me,
                Zone::Large => self.placement.coordinator,
            },
            Call::Find { page } => self.placement.granter_of(*page),
        }
    }

    /// What a call says.
    fn request(&self, id: CallId, call: &Call) -> Message {
        let ticket = Ticket { node: self.me, call: id };
        match call {
            Call::Lock { lock, wait } => Message::LockRequest { lock: *lock, ticket, wait: *wait },
            Call::Barrier => Message::BarrierArrive { generation: self.generation },
            Call::Leave => Message::LeaveArrive,
            Call::Root { name, layout } => Message::RootClaim { name: name.clone(), layout: *layout, ticket },
            Call::Lease(Lease { pages, owner, zone, .. }) => {
                Message::SpanLease { pages: *pages, zone: *zone, owner: *owner, ticket }
            }
            Call::Find { page } => Message::SpanFind { page: *page, ticket },
        }
    }

    fn answer(
        &mut self,
        from: NodeId,
        ticket: Ticket,
        fits: impl Fn(&Call) -> bool,
        reply: Reply,
        out: &mut Outbox<'_>,
    ) -> Result<(), Cause> {
        if self.lost.is_some() {
            return Ok(());
        }
        let fits = |waiting: &Waiting| waiting.asked == from && fits(&waiting.call);
        if !self.waiting.get(&ticket.call).is_some_and(fits) {
            return Err(Cause::OutOfTurn);
        }
        self.complete(ticket.call, reply, out);
        Ok(())
    }

    fn complete(&mut self, call: CallId, reply: Reply, out: &mut Outbox<'_>) {
        self.waiting.remove(&call);
        out.act(Action::Complete { call, reply });
    }

    fn is_in(&self, call: &Call) -> bool {
        self.find(call).is_some()
    }

    fn find(&self, call: &Call) -> Option<CallId> {
        self.waiting.iter().find(|(_, waiting)| waiting.call == *call).map(|(id, _)| *id)
    }

    /// The driver takes locks only from domains, which lie in the region.
    fn home_of_lock(&self, lock: LockId) -> NodeId {
        self.placement.home_of_lock(lock).unwrap_or(self.placement.coordinator)
    }
}

impl Call {
    fn is_for(&self, wanted: LockId) -> bool {
        match self {
            Call::Lock { lock, wait: _ } => *lock == wanted,
            Call::Barrier | Call::Leave | Call::Root { .. } | Call::Lease(_) | Call::Find { .. } => false,
        }
    }
}

impl Lease {
    /// Whether `span` is what was asked for.
    fn fits(&self, span: SpanRange, placement: &Placement) -> bool {
        let owner = match self.owner {
            SpanOwner::NewDomain => SpanOwner::Domain(placement.geometry.address_of(span.first)),
            SpanOwner::Node(_) | SpanOwner::Domain(_) => self.owner,
        };
        span.pages == self.pages && span.owner == owner && placement.zone_of(span.first) == self.zone
    }

    /// Turns to the next home; says whom to ask, and what.
    fn next(&mut self, coordinator: NodeId) -> Option<(NodeId, impl FnOnce(Ticket) -> Message + use<>)> {
        let home = match (self.zone, self.untried.iter().next()) {
            (Zone::Small, Some(home)) => {
                self.untried = self.untried.without(home);
                home
            }
            (Zone::Small, None) => {
                self.zone = Zone::Large;
                coordinator
            }
            (Zone::Large, _) => return None,
        };
        let (pages, zone, owner) = (self.pages, self.zone, self.owner);
        Some((home, move |ticket| Message::SpanLease { pages, zone, owner, ticket }))
    }
}
