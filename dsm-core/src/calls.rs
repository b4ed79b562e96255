//! The calls of this node's application threads that wait for an answer from some home. It knows nothing of the
//! services: it speaks to them by message, even to those on its own node.

use crate::action::{Action, Cause, Reply};
use crate::copyset::Copyset;
use crate::event::Command;
use crate::ids::{CallId, LockId, NodeId, PageId, Ticket, ViewId};
use crate::message::{Message, RootAnswer, SpanOwner, SpanRange, Zone};
use crate::outbox::Outbox;
use crate::placement::Placement;
use std::collections::BTreeMap;

/// The outstanding calls of one node.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Calls {
    me: NodeId,
    placement: Placement,
    waiting: BTreeMap<CallId, Waiting>,
    generation: u64,
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
    Lock(LockId),
    Barrier,
    Leave,
    Root,
    Lease(Lease),
    Find(PageId),
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
        Calls { me, placement, waiting: BTreeMap::new(), generation: 0, lost: None }
    }

    /// A thread of this node asks for something.
    pub fn command(&mut self, id: CallId, command: Command, out: &mut Outbox<'_>) {
        let ticket = Ticket { node: self.me, call: id };
        match command {
            Command::Lock { lock, wait } => {
                let request = Message::LockRequest { lock, ticket, wait };
                self.ask(id, Call::Lock(lock), self.home_of_lock(lock), request, out);
            }
            Command::Barrier if self.is_in(&Call::Barrier) => {
                out.act(Action::Complete { call: id, reply: Reply::Busy });
            }
            Command::Barrier => {
                let arrive = Message::BarrierArrive { generation: self.generation };
                self.ask(id, Call::Barrier, NodeId::COORDINATOR, arrive, out);
            }
            Command::Leave if self.is_in(&Call::Leave) => {
                out.act(Action::Complete { call: id, reply: Reply::Busy });
            }
            Command::Leave => {
                self.ask(id, Call::Leave, NodeId::COORDINATOR, Message::LeaveArrive, out);
            }
            Command::RootClaim { name, layout } => {
                let home = self.placement.home_of_name(&name);
                self.ask(id, Call::Root, home, Message::RootClaim { name, layout, ticket }, out);
            }
            Command::SpanLease { pages, owner } => self.lease(id, pages, owner, out),
            Command::SpanFind { page } => {
                let home = self.placement.granter_of(page);
                self.ask(id, Call::Find(page), home, Message::SpanFind { page, ticket }, out);
            }
            Command::LockWithdraw { .. }
            | Command::Unlock { .. }
            | Command::RootPublish { .. }
            | Command::RootAbandon { .. }
            | Command::SpanReturn { .. }
            | Command::Free { .. } => self.tell(command, out),
        }
    }

    /// The commands that nobody waits for.
    fn tell(&self, command: Command, out: &mut Outbox<'_>) {
        let ticket = |call| Ticket { node: self.me, call };
        let (to, message) = match command {
            Command::LockWithdraw { lock, waiting } => {
                (self.home_of_lock(lock), Message::LockWithdraw { lock, ticket: ticket(waiting) })
            }
            Command::Unlock { lock, acquired } => {
                (self.home_of_lock(lock), Message::LockRelease { lock, ticket: ticket(acquired) })
            }
            Command::RootPublish { name, address } => {
                (self.placement.home_of_name(&name), Message::RootPublish { name, address })
            }
            Command::RootAbandon { name } => {
                (self.placement.home_of_name(&name), Message::RootAbandon { name })
            }
            Command::SpanReturn { first } => {
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
            | Command::SpanFind { .. } => unreachable!("a command that is waited for"),
        };
        out.send(to, message);
    }

    /// The lock is the call's.
    pub fn lock_granted(
        &mut self,
        from: NodeId,
        lock: LockId,
        ticket: Ticket,
        out: &mut Outbox<'_>,
    ) -> Result<(), Cause> {
        self.answer(from, ticket, |call| *call == Call::Lock(lock), Reply::Locked, out)
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
        self.answer(from, ticket, |call| *call == Call::Lock(lock), Reply::LockDenied { holder }, out)
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
        let call = self.find(&Call::Leave).ok_or(Cause::OutOfTurn)?;
        self.complete(call, Reply::Left, out);
        Ok(())
    }

    /// What a name stands for.
    pub fn root_answered(
        &mut self,
        from: NodeId,
        ticket: Ticket,
        answer: RootAnswer,
        out: &mut Outbox<'_>,
    ) -> Result<(), Cause> {
        self.answer(from, ticket, |call| *call == Call::Root, Reply::Root(answer), out)
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
        self.answer(from, ticket, fits, Reply::Span(span), out)
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
            |call: &Call| matches!(call, Call::Find(page) if span.is_none_or(|span| holds(span, *page)));
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
        match lease.next() {
            Some((home, message)) => {
                *asked = home;
                out.send(home, message(ticket));
            }
            None => self.complete(ticket.call, Reply::SpanDenied { free, largest }, out),
        }
        Ok(())
    }

    /// A peer is gone: no call of this node can be trusted to complete.
    pub fn peer_lost(&mut self, node: NodeId, out: &mut Outbox<'_>) {
        let node = *self.lost.get_or_insert(node);
        for call in core::mem::take(&mut self.waiting).into_keys() {
            out.act(Action::Complete { call, reply: Reply::PeerLost { node } });
        }
    }

    /// Whether no call waits.
    pub fn is_quiet(&self) -> bool {
        self.waiting.is_empty()
    }

    fn lease(&mut self, id: CallId, pages: u64, owner: SpanOwner, out: &mut Outbox<'_>) {
        let zone = if pages <= self.placement.geometry.segment_pages() { Zone::Small } else { Zone::Large };
        let (asked, untried) = match zone {
            Zone::Small => (self.me, self.placement.members.without(self.me)),
            Zone::Large => (NodeId::COORDINATOR, Copyset::EMPTY),
        };
        let lease = Lease { pages, owner, untried, zone, free: 0, largest: 0 };
        let ticket = Ticket { node: self.me, call: id };
        self.ask(id, Call::Lease(lease), asked, Message::SpanLease { pages, zone, owner, ticket }, out);
    }

    fn ask(&mut self, id: CallId, call: Call, to: NodeId, message: Message, out: &mut Outbox<'_>) {
        if let Some(node) = self.lost {
            out.act(Action::Complete { call: id, reply: Reply::PeerLost { node } });
            return;
        }
        let before = self.waiting.insert(id, Waiting { call, asked: to });
        assert!(before.is_none(), "the driver used {id:?} twice");
        out.send(to, message);
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
        self.placement.home_of_lock(lock).unwrap_or(NodeId::COORDINATOR)
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
    fn next(&mut self) -> Option<(NodeId, impl FnOnce(Ticket) -> Message + use<>)> {
        let home = match (self.zone, self.untried.iter().next()) {
            (Zone::Small, Some(home)) => {
                self.untried = self.untried.without(home);
                home
            }
            (Zone::Small, None) => {
                self.zone = Zone::Large;
                NodeId::COORDINATOR
            }
            (Zone::Large, _) => return None,
        };
        let (pages, zone, owner) = (self.pages, self.zone, self.owner);
        Some((home, move |ticket| Message::SpanLease { pages, zone, owner, ticket }))
    }
}
