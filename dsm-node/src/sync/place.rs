//! Where a collection may take its memory from: it finds out by its own address.
//!
//! A collection in a lock's value grows in that lock's arena; one in a box on the plain heap grows there. Anything
//! else, such as a collection that was moved out of its lock onto the stack, has no place and cannot be used.

use super::domain::Domain;
use super::held;
use crate::error::{Error, Result};
use crate::heap;
use crate::heap::spans::Spans;
use crate::node::Node;
use dsm_core::{Address, SpanOwner};
use std::alloc::Layout;
use std::ptr::NonNull;

/// The serial number of no place: a collection that has never grown.
pub(crate) const NO_PLACE: u64 = 0;

/// The serial number of the plain heap. Domains have larger ones.
const PLAIN: u64 = 1;

/// Where memory comes from.
#[derive(Clone, Copy)]
pub(crate) enum Place {
    /// The arena of a domain, whose lock the caller's thread has, or the thread that lent to it.
    Domain(Domain),
    /// The plain heap of this node.
    Plain(&'static Node),
}

impl Place {
    /// The place of what lies at `address`.
    ///
    /// A thread finds the domains of its own locks without asking. Others, as scoped threads that were lent a part of
    /// a lock's value, ask the home of the page: nothing is remembered, because spans change hands.
    ///
    /// # Safety
    /// If `address` lies in a domain, the caller has a reference to what lies there.
    pub(crate) unsafe fn of(address: usize) -> Result<Place> {
        if let Some(domain) = held::domain_of(address) {
            return Ok(Place::Domain(domain));
        }
        let outside = || Error::NotInRegion { address };
        let node = Node::current().map_err(|_| outside())?;
        let page = node.geometry.page_of(Address(address as u64)).ok_or_else(outside)?;
        if heap::holds(address) {
            return Ok(Place::Plain(node));
        }
        let span = node.find(page)?.ok_or_else(outside)?;
        match span.owner {
            SpanOwner::Node(_) => Ok(Place::Plain(node)),
            SpanOwner::Domain(base) => Domain::at(base, node).map(Place::Domain),
            SpanOwner::NewDomain => Domain::at(node.geometry.address_of(span.first), node).map(Place::Domain),
        }
    }

    /// What tells the place from every other that ever was.
    pub(crate) fn serial(self) -> u64 {
        match self {
            // SAFETY: a `Place` is made for an address at which the caller has a reference, or whose domain this
            // thread holds, so that the domain stands.
            Place::Domain(domain) => unsafe { domain.serial() },
            Place::Plain(_) => PLAIN,
        }
    }

    /// Takes a block. Waits for the engine when a span must be leased.
    pub(crate) fn allocate(self, layout: Layout) -> Result<NonNull<u8>> {
        match self {
            // SAFETY: as in `serial`; and a caller with `&mut` to what lies in the domain has its lock, or was lent
            // to by the thread that has it.
            Place::Domain(domain) => unsafe { domain.allocate(layout) },
            Place::Plain(node) => heap::allocate(node, layout),
        }
    }

    /// Frees a block.
    ///
    /// # Safety
    /// `block` came from [`Place::allocate`] of a place with the same serial, with the same layout, was not freed
    /// since, and nobody uses it.
    pub(crate) unsafe fn release(self, block: NonNull<u8>, layout: Layout) {
        match self {
            // SAFETY: as in `allocate`, and as this function's caller promises.
            Place::Domain(domain) => unsafe { domain.release(block, layout) },
            Place::Plain(_) => heap::free(block.as_ptr().expose_provenance()),
        }
    }
}
