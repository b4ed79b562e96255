//! The protocol of one node: one door for facts, one list of intentions.
//!
//! It validates what peers say, and hands each message to the part that it concerns. It decides nothing itself.

use crate::access::Access;
use crate::action::{Action, Actions, Cause};
use crate::barrier::Barrier;
use crate::calls::Calls;
use crate::checks::Checks;
use crate::copyset::Copyset;
use crate::event::{Event, Timer};
use crate::geometry::Geometry;
use crate::home::Home;
use crate::ids::{Address, NodeId, PageId, TransactionId, ViewId};
use crate::local::{Forward, Grant, Local};
use crate::locks::Locks;
use crate::message::{Message, Payload, SpanOwner};
use crate::outbox::Outbox;
use crate::placement::Placement;
use crate::roots::Roots;
use crate::spans::Spans;
use crate::time::Time;
use std::collections::VecDeque;

/// A broken invariant, in words.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct Violation(pub String);

/// The protocol of one node.
///
/// ```
/// use dsm_core::{Action, Copyset, Event, Geometry, Machine, NodeId, PageId, Time, Want};
/// use dsm_core::limits::REGION_BASE_DEFAULT;
///
/// let geometry = Geometry::new(REGION_BASE_DEFAULT, 1 << 30, 4096)?;
/// let mut alone = Machine::new(NodeId(0), Copyset::first(1), geometry);
/// let mut actions = Vec::new();
/// alone.handle(Time::ZERO, Event::Fault { page: PageId(7), want: Want::Write }, &mut actions);
/// assert!(matches!(actions[..], [Action::Install { page: PageId(7), .. }]));
/// # Ok::<(), dsm_core::GeometryError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Machine {
    me: NodeId,
    placement: Placement,
    /// Peers that are lost.
    gone: Copyset,
    local: Local,
    home: Home,
    locks: Locks,
    barrier: Barrier,
    roots: Roots,
    spans: Spans,
    calls: Calls,
    /// Messages to this node itself: empty between events, kept so that no event allocates it.
    to_self: VecDeque<Message>,
}

impl Machine {
    /// The machine of `me` in a cluster of `members`.
    ///
    /// # Panics
    /// If `me` is not a member.
    #[must_use]
    pub fn new(me: NodeId, members: Copyset, geometry: Geometry) -> Machine {
        assert!(members.contains(me), "{me} is not a member of {members:?}");
        let placement = Placement { geometry, members };
        Machine {
            me,
            placement,
            gone: Copyset::EMPTY,
            local: Local::new(me),
            home: Home::default(),
            locks: Locks::default(),
            barrier: Barrier::new(members, ViewId::FIRST),
            roots: Roots::default(),
            spans: Spans::new(me, placement),
            calls: Calls::new(me, placement),
            to_self: VecDeque::new(),
        }
    }

    /// The same machine, which numbers its transactions so that no peer names one by mistake. A grant is taken from
    /// whoever names the transaction, since only a page's home knows the owner: the number is what the owner and the
    /// readers were told, and others were not. It is no secret from an adversary: numbers that are known give the key
    /// away. `key` is to be as random as the driver can make it; without one, numbers count from 1.
    #[must_use]
    pub fn with_transaction_key(mut self, key: u64) -> Machine {
        self.local.number_by(key);
        self
    }

    /// Takes one fact, and appends what is to be done about it. The driver carries all of it out, in order, before it
    /// comes with the next fact.
    ///
    /// # Panics
    /// If the driver breaks its side: a fault outside the region, a call's name used twice. Never for what a peer
    /// sent.
    pub fn handle(&mut self, now: Time, event: Event, out: &mut Actions) {
        if let Event::PeerLost { node } = event {
            self.gone = self.gone.with(node);
        }
        let told_by = match &event {
            Event::Received { from, .. } => Some(*from),
            Event::Fault { .. }
            | Event::TimerFired(_)
            | Event::Probed { .. }
            | Event::Command { .. }
            | Event::PeerLost { .. } => None,
        };
        let mut to_self = core::mem::take(&mut self.to_self);
        let mut outbox = Outbox::new(self.me, self.gone, out, &mut to_self);
        match event {
            Event::Fault { page, want } => {
                assert!(self.placement.geometry.contains(page), "a fault on {page}, outside the region");
                let home = self.placement.home_of(page);
                self.local.fault(page, want, home, &mut outbox);
                if self.gone.contains(home) && self.local.access(page) < want.access() {
                    outbox.act(Action::Doom { page, node: home });
                }
            }
            Event::Received { from, message } => self.receive_from_peer(now, from, message, &mut outbox),
            Event::TimerFired(Timer::Residency(page)) => self.local.residency_over(page, &mut outbox),
            Event::Probed { page, progress } => self.local.probed(now, page, progress, &mut outbox),
            Event::Command { call, command } => self.calls.command(call, command, &mut outbox),
            Event::PeerLost { node } => {
                let placement = self.placement;
                self.local.peer_lost(now, node, |page| placement.home_of(page), &mut outbox);
                self.home.peer_lost(node, self.gone, &mut outbox);
                self.calls.peer_lost(node, &mut outbox);
            }
        }
        while let Some(message) = outbox.next_to_self() {
            if let Err(cause) = self.receive(now, self.me, message.clone(), &mut outbox) {
                // A peer that confirmed what it had not been granted makes this node's home ask its own copy for what
                // it cannot give. Without a peer's word, the mistake is this node's.
                match told_by {
                    Some(from) => outbox.act(Action::Reject { from, cause }),
                    None => assert!(
                        is_overtaken(&message),
                        "{} said what no correct node says, to itself: {message:?}: {cause}",
                        self.me
                    ),
                }
            }
        }
        self.to_self = to_self;
    }

    /// Whether the bytes behind `message` may go straight into the page's frame: the frame is unmapped, and waits for
    /// just these bytes. Otherwise they are read and thrown away.
    #[must_use]
    pub fn reserves(&self, from: NodeId, message: &Message) -> bool {
        let &Message::Grant { page, transaction, access, payload: Payload::Bytes, .. } = message else {
            return false;
        };
        let checks = Checks { me: self.me, from, placement: self.placement };
        checks.check(message).is_ok()
            && self.check_granter(from, page, transaction, (access, Payload::Bytes)).is_ok()
            && self.local.reserves(page, transaction)
    }

    /// What this node may do with `page`.
    #[must_use]
    pub fn access(&self, page: PageId) -> Access {
        self.local.access(page)
    }

    /// Owner and readers of `page`, if this node is its home, somebody touched it, and no transaction is active.
    #[must_use]
    pub fn holders(&self, page: PageId) -> Option<(Option<NodeId>, Copyset)> {
        self.home.holders(page)
    }

    /// The pages of which this node is home and that somebody touched.
    pub fn homed_pages(&self) -> impl Iterator<Item = PageId> + '_ {
        self.home.pages()
    }

    /// Whether nothing is under way: no fault, no transaction, no revocation, no call, no lock held.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.pages_are_quiet()
            && self.locks.is_quiet()
            && self.barrier.is_quiet()
            && self.roots.is_quiet()
            && self.calls.is_quiet()
    }

    /// Whether nothing is under way with any page: no fault, no transaction, no revocation.
    #[must_use]
    pub fn pages_are_quiet(&self) -> bool {
        self.local.is_quiet() && self.home.is_quiet()
    }

    /// Checks everything that must hold of this node between events.
    ///
    /// # Errors
    /// The first invariant that does not hold.
    pub fn invariants(&self) -> Result<(), Violation> {
        self.local.invariants().map_err(Violation)?;
        self.home.invariants().map_err(Violation)?;
        self.own_faults_are_known_at_home()?;
        for page in self.home.pages() {
            let Some((owner, readers)) = self.home.holders(page) else { continue };
            // A transaction whose requester died has ended here, though this node's copy may still be in use.
            if self.local.is_revoking(page) {
                continue;
            }
            let says = match owner {
                Some(owner) if owner == self.me => self.access(page) >= Access::Read,
                Some(_) | None => (self.access(page) == Access::Read) == readers.contains(self.me),
            };
            if !says {
                let access = self.access(page);
                return Err(Violation(format!(
                    "the directory says owner {owner:?}, readers {readers:?} of idle {page}, but {} has {access:?}",
                    self.me
                )));
            }
        }
        Ok(())
    }

    /// What this node says to itself never takes time: both ends of a fault on a page that is homed here agree.
    fn own_faults_are_known_at_home(&self) -> Result<(), Violation> {
        let stray = self
            .home
            .faults_of(self.me)
            .find(|&(page, transaction)| !self.local.waits_for(page, transaction));
        if let Some((page, transaction)) = stray {
            return Err(Violation(format!(
                "{transaction} is to get {page}, but its node does not wait for it"
            )));
        }
        // A fault that the home could not serve is doomed: it stays, and the process ends.
        let here = |page: PageId| self.gone.is_empty() && self.placement.home_of(page) == self.me;
        let forgotten = self
            .local
            .pending()
            .find(|&(page, transaction)| here(page) && !self.home.knows(page, transaction));
        match forgotten {
            Some((page, transaction)) => {
                Err(Violation(format!("{transaction} waits for {page}, which its home does not know of")))
            }
            None => Ok(()),
        }
    }

    fn receive_from_peer(&mut self, now: Time, from: NodeId, message: Message, out: &mut Outbox<'_>) {
        let checked = if from == self.me || !self.placement.members.contains(from) {
            Err(Cause::NotMember)
        } else if self.gone.contains(from) {
            return;
        } else {
            self.receive(now, from, message, out)
        };
        if let Err(cause) = checked {
            out.act(Action::Reject { from, cause });
        }
    }

    /// The one door for messages. Page messages are validated against the page's home, service messages against the
    /// home of what they speak of; what remains is between the part concerned and its state.
    fn receive(
        &mut self,
        now: Time,
        from: NodeId,
        message: Message,
        out: &mut Outbox<'_>,
    ) -> Result<(), Cause> {
        Checks { me: self.me, from, placement: self.placement }.check(&message)?;
        match message {
            Message::Request { page, transaction, want } => {
                self.home.request(page, transaction, want, self.gone, out)?;
            }
            Message::Confirm { page, transaction } => self.home.confirm(page, transaction, self.gone, out)?,
            Message::Forward { page, transaction, want, awaiting, contended } => {
                let forward = Forward { transaction, want, awaiting, contended };
                self.local.forward(now, page, forward, out)?;
            }
            Message::Invalidate { page, transaction } => {
                self.local.invalidate(now, page, transaction, out)?
            }
            Message::Ack { page, transaction } => {
                self.local.ack(now, from, page, transaction, self.placement.home_of(page), out)?;
            }
            Message::Grant { page, transaction, access, payload, awaiting, contended } => {
                self.check_granter(from, page, transaction, (access, payload))?;
                let grant = Grant { transaction, access, payload, awaiting, contended };
                self.local.grant(now, page, &grant, self.placement.home_of(page), self.gone, out)?;
            }
            Message::Hurry { page, transaction } => self.local.hurry(page, transaction, from, out),
            Message::Lost { page, transaction, node } => self.local.lost(page, transaction, node, out),
            Message::LockRequest { lock, ticket, wait } => self.locks.request(lock, ticket, wait, out)?,
            Message::LockWithdraw { lock, ticket } => self.locks.withdraw(lock, ticket, out),
            Message::LockRelease { lock, ticket } => self.locks.release(lock, ticket, out)?,
            Message::LockGrant { lock, ticket } => self.calls.lock_granted(from, lock, ticket, out)?,
            Message::LockDenied { lock, ticket, holder } => {
                self.calls.lock_denied(from, lock, ticket, holder, out)?;
            }
            Message::BarrierArrive { generation } => self.barrier.arrive(from, generation, out)?,
            Message::BarrierComplete { generation, view } => {
                self.calls.barrier_complete(generation, view, out)?;
            }
            Message::LeaveArrive => self.barrier.leave(from, out)?,
            Message::LeaveComplete => self.calls.leave_complete(out)?,
            Message::RootClaim { name, layout, ticket } => self.roots.claim(name, layout, ticket, out),
            Message::RootAnswered { ticket, answer } => {
                self.calls.root_answered(from, ticket, answer, out)?
            }
            Message::RootPublish { name, address } => self.roots.publish(from, &name, address, out)?,
            Message::RootAbandon { name } => self.roots.abandon(from, &name, out)?,
            Message::SpanLease { pages, zone, owner, ticket } => {
                out.send(from, self.spans.lease(pages, zone, owner, ticket));
            }
            Message::SpanLeased { ticket, span } => self.calls.span_leased(from, ticket, span, out)?,
            Message::SpanDenied { ticket, free, largest } => {
                self.calls.span_denied(from, ticket, free, largest, out)?;
            }
            Message::SpanReturn { first } => self.spans.give_back(from, first)?,
            Message::SpanFind { page, ticket } => {
                out.send(from, Message::SpanFound { ticket, span: self.spans.find(page) });
            }
            Message::SpanFound { ticket, span } => self.calls.span_found(from, ticket, span, out)?,
            Message::Free { address } => self.free(from, address, out)?,
        }
        Ok(())
    }

    /// Bytes come from a page's owner, whom only its home knows. Where this node is the home, it knows.
    fn check_granter(
        &self,
        from: NodeId,
        page: PageId,
        transaction: TransactionId,
        (access, payload): (Access, Payload),
    ) -> Result<(), Cause> {
        let known = match payload {
            Payload::Bytes => self.placement.home_of(page) == self.me,
            Payload::Zero | Payload::Held => false,
        };
        if known && !self.home.forwarded(from, page, transaction, access) {
            return Err(Cause::OutOfTurn);
        }
        Ok(())
    }

    /// A block was dropped: on its way to the span's granter, or from there to the lessee.
    fn free(&mut self, from: NodeId, address: Address, out: &mut Outbox<'_>) -> Result<(), Cause> {
        let (granter, page) = self.placement.granter_at(address).ok_or(Cause::AddressOutside)?;
        if granter != self.me {
            if from != granter {
                return Err(Cause::NotHome);
            }
            out.act(Action::Freed { address });
            return Ok(());
        }
        match self.spans.find(page).map(|span| span.owner) {
            Some(SpanOwner::Node(lessee)) if lessee == self.me => out.act(Action::Freed { address }),
            Some(SpanOwner::Node(lessee)) => out.send(lessee, Message::Free { address }),
            Some(SpanOwner::Domain(_) | SpanOwner::NewDomain) | None => return Err(Cause::OutOfTurn),
        }
        Ok(())
    }
}

/// Whether a peer's word, taken before, may have made `message` of a node to itself wrong: a member gave back the span
/// that it is about, as the one that dissolved the domain or as the heap's own node. Nothing is left to do then.
fn is_overtaken(message: &Message) -> bool {
    matches!(message, Message::SpanReturn { .. } | Message::Free { .. })
}
