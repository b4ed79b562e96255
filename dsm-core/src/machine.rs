//! The protocol of one node: one door for facts, one list of intentions.
//!
//! It validates what peers say, and hands each message to the part that it concerns. It decides nothing itself.

use crate::access::Access;
mod asked;
mod recover;
mod report;
mod sections;

use crate::action::{Action, Actions, Cause};
use crate::barrier::Barrier;
use crate::calls::Calls;
use crate::checks::Checks;
use crate::commit::Commits;
use crate::copyset::Copyset;
use crate::event::{Command, Event, Timer};
use crate::geometry::Geometry;
use crate::home::Home;
use crate::ids::{Address, CallId, Incarnation, NodeId, PageId, RecordId, TransactionId, Version};
use crate::local::{Forward, Grant, Local};
use crate::locks::Locks;
use crate::message::{Commit, Custody, Message, Payload, SpanOwner};
use crate::outbox::Outbox;
use crate::placement::Placement;
use crate::recovery::{Phase, Recovery};
use crate::roots::Roots;
use crate::spans::Spans;
use crate::time::Time;
use crate::view::{Host, View};
use sections::GivenUp;
use std::collections::VecDeque;

/// Where the bytes behind a message are to go.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Landing {
    /// Into the page's frame.
    Frame,
    /// Aside, until the page is installed.
    Aside,
    /// Aside, until the record counts.
    Record(RecordId),
    /// Nowhere: they are read and thrown away.
    Nowhere,
}

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
    recovery: Recovery,
    /// Whether this node has said that its pages are replicated in this view.
    announced: bool,
    /// Commands of which others may learn only once a record is acked, in order.
    ordered: VecDeque<Ordered>,
    /// What threads gave up while sections were open, in order.
    given_up: Vec<GivenUp>,
    /// Messages to this node itself: empty between events, kept so that no event allocates it.
    to_self: VecDeque<Message>,
}

/// A command, and the record that must be acked before anybody hears of it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Ordered {
    after: RecordId,
    call: CallId,
    command: Command,
}

impl Machine {
    /// The machine of `me` in a cluster of `members` that keeps no replicas.
    ///
    /// # Panics
    /// If `me` is not a member.
    #[must_use]
    pub fn new(me: NodeId, members: Copyset, geometry: Geometry) -> Machine {
        let named = members.iter().map(|node| (node, Incarnation(0), Host(0)));
        Machine::in_view(me, View::first(named, 0), geometry)
    }

    /// The machine of `me` in a cluster that starts with `view`.
    ///
    /// # Panics
    /// If `me` is not a member.
    #[must_use]
    pub fn in_view(me: NodeId, view: View, geometry: Geometry) -> Machine {
        let placement = Placement::new(geometry, view.members());
        Machine { spans: Spans::new(me, placement), ..Machine::with(me, Recovery::new(view), geometry) }
    }

    /// The machine of `me`, which the members of a cluster have let into `view`. It holds nothing and knows nothing: the
    /// first fact that it is to be told is [`Event::Joined`], upon which it reports that to the others, as they report
    /// to it what they hold. It serves once all have recovered from the change of the view, as they do.
    ///
    /// # Panics
    /// If `me` is not a member.
    #[must_use]
    pub fn joining(me: NodeId, view: View, geometry: Geometry) -> Machine {
        let mut machine = Machine::with(me, Recovery::joining(view), geometry);
        machine.local.commits().join();
        machine
    }

    fn with(me: NodeId, recovery: Recovery, geometry: Geometry) -> Machine {
        let view = &recovery.view;
        let members = view.members();
        assert!(members.contains(me), "{me} is not a member of {members:?}");
        let placement = Placement::new(geometry, members);
        let commits = Commits::new(me, geometry, view.id(), view.buddies_of(me));
        Machine {
            me,
            placement,
            gone: Copyset::EMPTY,
            local: Local::new(me, commits),
            home: Home::default(),
            locks: Locks::default(),
            barrier: Barrier::new(members, view.id(), 0, Copyset::EMPTY),
            roots: Roots::default(),
            spans: Spans::joining(me, placement),
            calls: Calls::new(me, placement),
            recovery,
            announced: false,
            ordered: VecDeque::new(),
            given_up: Vec::new(),
            to_self: VecDeque::new(),
        }
    }

    /// The same machine, which lets its threads store to no more than `pages` pages while that much waits to be
    /// replicated, instead of [`limits::UNREPLICATED_PAGES_MAX`](crate::limits::UNREPLICATED_PAGES_MAX).
    #[must_use]
    pub fn with_unreplicated_max(mut self, pages: usize) -> Machine {
        self.local.commits().bound_unreplicated(pages);
        self
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
            | Event::ViewInstalled(_)
            | Event::Joined
            | Event::PeerLost { .. } => None,
        };
        let mut to_self = core::mem::take(&mut self.to_self);
        let mut outbox = Outbox::new(self.me, self.gone, out, &mut to_self);
        match event {
            Event::Fault { page, want } => self.fault(now, page, want, &mut outbox),
            Event::Received { from, message } => self.receive_from_peer(now, from, message, &mut outbox),
            Event::TimerFired(Timer::Residency(page)) => self.local.residency_over(page, &mut outbox),
            Event::Probed { page, progress } => self.local.probed(now, page, progress, &mut outbox),
            Event::Command { call, command } => self.command(now, call, command, &mut outbox),
            Event::ViewInstalled(view) => self.install(view, &mut outbox),
            Event::Joined => self.report(&mut outbox),
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
        let (local, recovery) = (&self.local, &self.recovery);
        let here = |page| local.access(page) >= Access::Read;
        self.calls.ensured(here, |page| recovery.lost(page), &mut outbox);
        self.to_self = to_self;
    }

    /// Where the bytes behind `message` are to go. A frame takes them only while it is unmapped, waits for just these
    /// bytes, and keeps no state for others: a sender may die in the middle of them.
    #[must_use]
    pub fn landing(&self, from: NodeId, message: &Message) -> Landing {
        let checks = Checks { me: self.me, from, placement: self.placement, view: &self.recovery.view };
        if checks.check(message).is_err() {
            return Landing::Nowhere;
        }
        if let Message::Grant { page, transaction, access, payload: Payload::Bytes, .. } = message {
            let reserved = self.local.reserves(*page, *transaction)
                && self.check_granter(from, *page, *transaction, (*access, Payload::Bytes)).is_ok();
            return match (reserved, self.local.commits_ref().keeps(*page)) {
                (false, _) => Landing::Nowhere,
                (true, false) => Landing::Frame,
                (true, true) => Landing::Aside,
            };
        }
        if let Message::Commit(Commit::Page { record, page: _ }) = message {
            return Landing::Record(*record);
        }
        Landing::Nowhere
    }

    /// Whether the bytes behind `message` may go straight into the page's frame.
    #[must_use]
    pub fn reserves(&self, from: NodeId, message: &Message) -> bool {
        self.landing(from, message) == Landing::Frame
    }

    /// The view that is installed.
    #[must_use]
    pub fn view(&self) -> &View {
        &self.recovery.view
    }

    /// Whether all pages of this node are known to be replicated as they should be.
    #[must_use]
    pub fn is_fully_replicated(&self) -> bool {
        self.recovery.is_replicated()
    }

    /// Whether this node owns `page`.
    #[must_use]
    pub fn owns(&self, page: PageId) -> bool {
        self.local.owns(page)
    }

    /// Who else holds the last committed state of `page`, and which that is, if this node owns the page and it was ever
    /// committed.
    #[must_use]
    pub fn custody(&self, page: PageId) -> Option<Custody> {
        self.local.commits_ref().custody(page)
    }

    /// The state that this node's frame of `page` keeps for others, if it keeps one.
    #[must_use]
    pub fn kept(&self, page: PageId) -> Option<Version> {
        self.local.commits_ref().kept_of(page)
    }

    /// Whether nothing was stored to `page` here, by its owner, since its last committed state.
    #[must_use]
    pub fn is_committed(&self, page: PageId) -> bool {
        self.local.commits_ref().is_clean(page)
    }

    /// Whether nobody needs this node's frame of `page`: it is not mapped, is not about to be, and keeps nothing for others.
    #[must_use]
    pub fn is_discardable(&self, page: PageId) -> bool {
        self.local.is_idle(page) && !self.local.commits_ref().keeps(page)
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
        if self.recovery.phase != Phase::Settled {
            // The directory is of another time than what this node holds.
            return Ok(());
        }
        self.own_faults_are_known_at_home()?;
        for page in self.home.pages() {
            let Some((owner, readers)) = self.home.holders(page) else { continue };
            // A transaction whose requester died has ended here, though this node's copy may still be in use.
            if self.local.is_revoking(page) {
                continue;
            }
            let owns = self.local.owns(page);
            let has_copy = self.access(page) == Access::Read && !owns;
            let says = owns == (owner == Some(self.me)) && has_copy == readers.contains(self.me);
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
        Checks { me: self.me, from, placement: self.placement, view: &self.recovery.view }.check(&message)?;
        if self.is_early(&message) {
            self.recovery.held.push((from, message));
            return Ok(());
        }
        self.hand_on(now, from, message, out)
    }

    /// Hands a message that its sender may send to the part that it concerns.
    fn hand_on(
        &mut self,
        now: Time,
        from: NodeId,
        message: Message,
        out: &mut Outbox<'_>,
    ) -> Result<(), Cause> {
        match message {
            Message::Request { page, transaction, want } => {
                self.home.request(page, transaction, want, self.gone, out)?;
            }
            Message::Confirm { page, transaction } => self.home.confirm(page, transaction, self.gone, out)?,
            Message::Forward { page, transaction, want, awaiting, contended } => {
                self.local.forward(now, page, Forward { transaction, want, awaiting, contended }, out)?;
            }
            Message::Invalidate { page, transaction } => {
                self.local.invalidate(now, page, transaction, out)?
            }
            Message::Ack { page, transaction, custody } => {
                self.local.ack(now, from, page, (transaction, custody), self.placement.home_of(page), out)?;
            }
            Message::Grant { page, transaction, access, payload, awaiting, contended, custody } => {
                self.check_granter(from, page, transaction, (access, payload))?;
                let grant = Grant { transaction, access, payload, awaiting, contended, custody };
                self.local.grant(now, page, &grant, self.placement.home_of(page), self.gone, out)?;
            }
            Message::Hurry { page, transaction } => self.local.hurry(page, transaction, from, out),
            Message::Lost { page, transaction, node } => self.local.lost(page, transaction, node, out),
            Message::LockRequest { lock, ticket, wait } => self.locks.request(lock, ticket, wait, out)?,
            Message::LockWithdraw { lock, ticket } => self.locks.withdraw(lock, ticket, out),
            Message::LockRelease { lock, ticket } => self.locks.release(lock, ticket, out)?,
            Message::LockGrant { lock, ticket, recovered } => {
                self.calls.lock_granted(from, lock, ticket, recovered, out)?;
                self.local.cover(lock, &[], out);
            }
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
                self.calls.root_answered(from, ticket, answer, out)?;
            }
            Message::RootPublish { name, address } => self.publish_root(from, name, address, out)?,
            Message::RootAbandon { name } => self.roots.abandon(from, &name, out)?,
            Message::SpanLease { pages, zone, owner, ticket } => {
                let answer = self.spans.lease(pages, zone, owner, ticket);
                self.answer_lease(from, answer, out);
            }
            Message::SpanLeased { ticket, span } => self.span_leased(from, ticket, span, out)?,
            Message::SpanDenied { ticket, free, largest } => {
                self.calls.span_denied(from, ticket, free, largest, out)?;
            }
            Message::SpanReturn { first } => self.take_span_back(from, first, out)?,
            Message::SpanFind { page, ticket } => {
                out.send(from, Message::SpanFound { ticket, span: self.spans.find(page) });
            }
            Message::SpanFound { ticket, span } => self.calls.span_found(from, ticket, span, out)?,
            Message::Free { address } => self.free(from, address, out)?,
            Message::Commit(commit) => self.receive_commit(now, from, commit, out)?,
            Message::Note(note) => self.calls.notes().take(note),
            Message::Report(report) => self.receive_report(now, from, report, out)?,
        }
        Ok(())
    }

    /// Whether `message` is of one that has gone on, while this node still waits to hear that all may.
    fn is_early(&self, message: &Message) -> bool {
        let recovers = matches!(
            message,
            Message::Report(_) | Message::Note(_) | Message::Commit(Commit::Page { .. } | Commit::End { .. })
        );
        !recovers && self.recovery.phase == Phase::Concluded
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
