//! Who may say what: each message is held against the roles of its sender and of this node, before its state is.
//!
//! Nothing here asserts: a peer that errs is reported and its connection closed, whatever it sent.

use crate::action::Cause;
use crate::copyset::Copyset;
use crate::ids::{Address, LockId, NodeId, PageId};
use crate::limits;
use crate::message::{Message, Payload, RootAnswer, SpanOwner, SpanRange, Zone};
use crate::placement::Placement;

/// The view of one node on who may say what.
#[derive(Clone, Copy)]
pub(crate) struct Checks {
    pub me: NodeId,
    pub from: NodeId,
    pub placement: Placement,
}

impl Checks {
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
            Message::Ack { page, transaction } => self.page(*page).and(self.is_mine(transaction.node)),
            Message::Grant { page, transaction, access: _, payload, awaiting, contended: _ } => {
                self.is_mine(transaction.node).and(self.members(*awaiting)).and(self.grants(*page, *payload))
            }
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
            Message::LockGrant { lock, ticket } => {
                self.is_lock_home(self.from, *lock).and(self.is_mine(ticket.node))
            }
            Message::LockDenied { lock, ticket, holder } => {
                self.is_lock_home(self.from, *lock).and(self.is_mine(ticket.node)).and(self.member(*holder))
            }
            Message::BarrierArrive { generation: _ } | Message::LeaveArrive => coordinates(self.me),
            Message::BarrierComplete { .. } | Message::LeaveComplete => coordinates(self.from),
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
        }
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
                coordinates(self.me)?;
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

    fn is_lock_home(&self, node: NodeId, lock: LockId) -> Result<(), Cause> {
        let home = self.placement.home_of_lock(lock).ok_or(Cause::AddressOutside)?;
        require(home == node, Cause::NotHome)
    }

    fn named_here(&self, name: &str) -> Result<(), Cause> {
        require((1..=limits::NAME_LENGTH_MAX).contains(&name.len()), Cause::BeyondLimit)?;
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

fn coordinates(node: NodeId) -> Result<(), Cause> {
    require(node == NodeId::COORDINATOR, Cause::NotHome)
}

fn require(holds: bool, cause: Cause) -> Result<(), Cause> {
    if holds { Ok(()) } else { Err(cause) }
}
