//! Who may say what: each message is held against the roles of its sender and of this node, before its state is.
//!
//! Nothing here asserts: a peer that errs is reported and its connection closed, whatever it sent.

use crate::action::Cause;
use crate::copyset::Copyset;
use crate::ids::{Address, LockId, NodeId, PageId, RecordId, Version};
use crate::limits;
use crate::message::{
    Commit, Custody, Holding, Message, Note, Payload, Report, RootAnswer, SpanOwner, SpanRange, Zone,
};
use crate::placement::Placement;
use crate::view::View;

/// The view of one node on who may say what.
#[derive(Clone, Copy)]
pub(crate) struct Checks<'a> {
    pub me: NodeId,
    pub from: NodeId,
    pub placement: Placement,
    pub view: &'a View,
}

impl Checks<'_> {
    /// Whether `message` may come from this sender to this node.
    pub fn check(&self, message: &Message) -> Result<(), Cause> {
        match message {
            Message::Request { page, transaction, want: _ } | Message::Confirm { page, transaction } => {
                self.homed_here(*page).and(self.speaks_for(transaction.node))
            }
            Message::Forward { page, transaction, want: _, awaiting, contended: _ } => {
                self.sent_by_home(*page).and(self.member(transaction.node)).and(self.members(*awaiting))
            }
            Message::Invalidate { page, transaction } => {
                self.sent_by_home(*page).and(self.member(transaction.node))
            }
            Message::Ack { page, transaction, custody } => {
                self.page(*page).and(self.is_mine(transaction.node)).and(self.custody(*custody))
            }
            Message::Grant { page, transaction, access: _, payload, awaiting, contended: _, custody } => self
                .is_mine(transaction.node)
                .and(self.members(*awaiting))
                .and(self.grants(*page, *payload))
                .and(self.custody(*custody)),
            Message::Hurry { page, transaction } => {
                self.sent_by_home(*page).and(self.is_mine(transaction.node))
            }
            Message::Lost { page, transaction, node } => {
                self.sent_by_home(*page).and(self.member(*node)).and(self.is_mine(transaction.node))
            }
            Message::LockRequest { lock, ticket, wait: _ }
            | Message::LockWithdraw { lock, ticket }
            | Message::LockRelease { lock, ticket } => {
                self.is_lock_home(self.me, *lock).and(self.speaks_for(ticket.node))
            }
            Message::LockGrant { lock, ticket, recovered: _ } => {
                self.is_lock_home(self.from, *lock).and(self.is_mine(ticket.node))
            }
            Message::LockDenied { lock, ticket, holder } => {
                self.is_lock_home(self.from, *lock).and(self.is_mine(ticket.node)).and(self.member(*holder))
            }
            Message::BarrierArrive { generation: _ } | Message::LeaveArrive => self.coordinates(self.me),
            Message::BarrierComplete { .. } | Message::LeaveComplete => self.coordinates(self.from),
            Message::RootClaim { name, layout: _, ticket } => {
                self.named_here(name).and(self.speaks_for(ticket.node))
            }
            Message::RootAnswered { ticket, answer } => self.is_mine(ticket.node).and(self.root(*answer)),
            Message::RootPublish { name, address } => self.named_here(name).and(self.address(*address)),
            Message::RootAbandon { name } => self.named_here(name),
            Message::SpanLease { pages, zone, owner, ticket } => {
                self.speaks_for(ticket.node).and(self.lease(*pages, *zone, *owner))
            }
            Message::SpanLeased { ticket, span } | Message::SpanFound { ticket, span: Some(span) } => {
                self.is_mine(ticket.node).and(self.span(*span))
            }
            Message::SpanDenied { ticket, .. } | Message::SpanFound { ticket, span: None } => {
                self.is_mine(ticket.node)
            }
            Message::SpanReturn { first } => self.granted_here(*first),
            Message::SpanFind { page, ticket } => self.granted_here(*page).and(self.speaks_for(ticket.node)),
            Message::Free { address } => self.address(*address),
            Message::Commit(commit) => self.check_commit(commit),
            Message::Note(note) => self.check_note(note),
            Message::Report(report) => self.check_report(report),
        }
    }

    /// Commits go from a node to its buddies.
    fn check_commit(&self, commit: &Commit) -> Result<(), Cause> {
        match commit {
            Commit::Page { record, page } | Commit::Patch { record, page, .. } => {
                self.page(*page).and(self.record(*record)).and(self.keeps_for(self.me, self.from))
            }
            Commit::End { record, .. } => self.record(*record).and(self.keeps_for(self.me, self.from)),
            Commit::Ack { .. } => self.keeps_for(self.from, self.me),
            Commit::Release { page, before } => self.page(*page).and(self.version(*before)),
        }
    }

    /// Notes are of the home of what they speak of.
    fn check_note(&self, note: &Note) -> Result<(), Cause> {
        match note {
            Note::Span { span } => self.span(*span).and(self.granted_there(span.first)),
            Note::SpanReturned { first } => self.granted_there(*first),
            Note::Root { name, layout: _, address } => {
                self.name(name).and(self.address(*address))?;
                require(self.placement.home_of_name(name) == self.from, Cause::NotHome)?;
                // Only a buddy keeps these: nobody else could be made to remember names without end.
                self.keeps_for(self.me, self.from)
            }
        }
    }

    /// Reports go from every member to every member.
    fn check_report(&self, report: &Report) -> Result<(), Cause> {
        match report {
            Report::Pages { runs } => runs.iter().try_for_each(|run| {
                let end = run.first.0.checked_add(run.pages);
                let inside = end.is_some_and(|end| end <= self.placement.geometry.pages());
                require(run.pages > 0 && inside, Cause::PageOutside)?;
                match run.holding {
                    Holding::Kept(version) => self.version(version),
                    Holding::Lost { .. } | Holding::Known { .. } | Holding::Copy | Holding::Owned => Ok(()),
                }
            }),
            Report::Locks { held } => held.iter().try_for_each(|(lock, _)| self.address(lock.0)),
            Report::Orphans { locks } => locks.iter().try_for_each(|(lock, _)| self.address(lock.0)),
            Report::Spans { spans } => spans.iter().try_for_each(|span| self.span(*span)),
            Report::Root { name, layout: _, address } => {
                self.name(name).and(address.map_or(Ok(()), |address| self.address(address)))
            }
            Report::Retired(_)
            | Report::Groups { .. }
            | Report::End(_)
            | Report::Ready
            | Report::Replicated => Ok(()),
        }
    }

    /// `buddy` keeps the commits of `node`.
    fn keeps_for(&self, buddy: NodeId, node: NodeId) -> Result<(), Cause> {
        require(self.view.buddies_of(node).contains(buddy), Cause::OutOfTurn)
    }

    fn custody(&self, custody: Option<Custody>) -> Result<(), Cause> {
        custody.map_or(Ok(()), |custody| self.members(custody.holders).and(self.version(custody.version)))
    }

    /// A state that may have been committed by now. Of one that was not, no later one could be committed.
    fn version(&self, version: Version) -> Result<(), Cause> {
        require(version.view <= self.view.id(), Cause::BeyondLimit).and(self.record(version.record))
    }

    fn record(&self, record: RecordId) -> Result<(), Cause> {
        require(record.0 <= limits::RECORDS_MAX, Cause::BeyondLimit)
    }

    fn name(&self, name: &str) -> Result<(), Cause> {
        require((1..=limits::NAME_LENGTH_MAX).contains(&name.len()), Cause::BeyondLimit)
    }

    fn coordinates(&self, node: NodeId) -> Result<(), Cause> {
        require(node == self.placement.coordinator, Cause::NotHome)
    }

    /// The sender may grant the page. An owner sends the bytes, and the receiver does not know who that is.
    fn grants(&self, page: PageId, payload: Payload) -> Result<(), Cause> {
        match payload {
            Payload::Bytes => self.page(page),
            Payload::Zero | Payload::Held => self.sent_by_home(page),
        }
    }

    fn root(&self, answer: RootAnswer) -> Result<(), Cause> {
        match answer {
            RootAnswer::Found(address) => self.address(address),
            RootAnswer::Create | RootAnswer::OtherLayout(_) | RootAnswer::TooMany => Ok(()),
        }
    }

    fn page(&self, page: PageId) -> Result<(), Cause> {
        require(self.placement.geometry.contains(page), Cause::PageOutside)
    }

    fn address(&self, address: Address) -> Result<(), Cause> {
        require(self.placement.geometry.page_of(address).is_some(), Cause::AddressOutside)
    }

    fn span(&self, span: SpanRange) -> Result<(), Cause> {
        let end = span.first.0.checked_add(span.pages);
        let inside = span.pages > 0 && end.is_some_and(|end| end <= self.placement.geometry.pages());
        require(inside, Cause::PageOutside)
    }

    fn lease(&self, pages: u64, zone: Zone, owner: SpanOwner) -> Result<(), Cause> {
        let most = match zone {
            Zone::Small => self.placement.geometry.segment_pages(),
            Zone::Large => {
                self.coordinates(self.me)?;
                self.placement.geometry.pages()
            }
        };
        require((1..=most).contains(&pages), Cause::BeyondLimit)?;
        match owner {
            SpanOwner::Node(node) => self.speaks_for(node),
            SpanOwner::Domain(address) => self.address(address),
            SpanOwner::NewDomain => Ok(()),
        }
    }

    /// This node is home of the page.
    fn homed_here(&self, page: PageId) -> Result<(), Cause> {
        self.page(page)?;
        require(self.placement.home_of(page) == self.me, Cause::NotHome)
    }

    /// The sender is home of the page.
    fn sent_by_home(&self, page: PageId) -> Result<(), Cause> {
        self.page(page)?;
        require(self.placement.home_of(page) == self.from, Cause::NotHome)
    }

    fn granted_here(&self, page: PageId) -> Result<(), Cause> {
        self.page(page)?;
        require(self.placement.granter_of(page) == self.me, Cause::NotHome)
    }

    fn granted_there(&self, page: PageId) -> Result<(), Cause> {
        self.page(page)?;
        require(self.placement.granter_of(page) == self.from, Cause::NotHome)
    }

    fn is_lock_home(&self, node: NodeId, lock: LockId) -> Result<(), Cause> {
        let home = self.placement.home_of_lock(lock).ok_or(Cause::AddressOutside)?;
        require(home == node, Cause::NotHome)
    }

    fn named_here(&self, name: &str) -> Result<(), Cause> {
        self.name(name)?;
        require(self.placement.home_of_name(name) == self.me, Cause::NotHome)
    }

    /// The sender speaks in its own name.
    fn speaks_for(&self, node: NodeId) -> Result<(), Cause> {
        require(node == self.from, Cause::Impersonation)
    }

    /// The message answers this node.
    fn is_mine(&self, node: NodeId) -> Result<(), Cause> {
        require(node == self.me, Cause::OutOfTurn)
    }

    fn members(&self, nodes: Copyset) -> Result<(), Cause> {
        require(nodes.minus(self.placement.members).is_empty(), Cause::NotMember)
    }

    /// The node is a member: it can be answered, and its rank means something.
    fn member(&self, node: NodeId) -> Result<(), Cause> {
        require(self.placement.members.contains(node), Cause::NotMember)
    }
}

fn require(holds: bool, cause: Cause) -> Result<(), Cause> {
    if holds { Ok(()) } else { Err(cause) }
}
