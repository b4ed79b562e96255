//! The chain under the list: elements in blocks of their own, linked both ways. Everything that follows a raw pointer
//! is here; which places the chain may use, and what users call, is `list`'s.

use crate::error::{Error, Result};
use crate::sync::{NO_PLACE, Place};
use std::alloc::Layout;
use std::ptr::{self, NonNull};

/// An element and its neighbours.
#[repr(C)]
pub(super) struct Node<T> {
    pub(super) next: Option<NonNull<Node<T>>>,
    pub(super) previous: Option<NonNull<Node<T>>>,
    pub(super) value: T,
}

/// A doubly linked chain, and the serial number of the place where its nodes lie.
///
/// Invariant: the nodes from `head` to `tail` are `length` valid ones, in blocks of the place with that serial, which
/// this chain owns.
#[repr(C)]
pub(super) struct Chain<T> {
    pub(super) head: Option<NonNull<Node<T>>>,
    pub(super) tail: Option<NonNull<Node<T>>>,
    pub(super) length: u64,
    serial: u64,
}

impl<T> Chain<T> {
    pub(super) const fn new() -> Chain<T> {
        Chain { head: None, tail: None, length: 0, serial: NO_PLACE }
    }

    /// The place of the chain's nodes, if the chain still lies in it. Every access to a node comes after this: what
    /// lies elsewhere is not this thread's to touch.
    pub(super) fn place(&self) -> Result<Place> {
        let address = ptr::from_ref(self).addr();
        // SAFETY: `self` lies at the address.
        let place = unsafe { Place::of(address) }?;
        if self.length == 0 || place.serial() == self.serial {
            Ok(place)
        } else {
            Err(Error::Moved { address })
        }
    }

    /// Puts `value` before `next`, or at the end.
    ///
    /// # Safety
    /// `next` is a node of this chain. `place` is this chain's, by [`Chain::place`].
    pub(super) unsafe fn insert(
        &mut self,
        place: Place,
        next: Option<NonNull<Node<T>>>,
        value: T,
    ) -> Result<()> {
        let node = place.allocate(Layout::new::<Node<T>>())?.cast::<Node<T>>();
        self.serial = place.serial();
        let previous = match next {
            // SAFETY: `next` is a valid node of this chain.
            Some(next) => unsafe { (*next.as_ptr()).previous },
            None => self.tail,
        };
        // SAFETY: the place gave out a block of a node's size and alignment to this call alone.
        unsafe { node.write(Node { next, previous, value }) };
        self.set_next(previous, Some(node));
        self.set_previous(next, Some(node));
        self.length += 1;
        Ok(())
    }

    /// Takes `node` out of the chain. Its value stays in it, and its block with the caller.
    ///
    /// # Safety
    /// `node` is a node of this chain, and the place was checked.
    pub(super) unsafe fn unlink(&mut self, node: NonNull<Node<T>>) {
        // SAFETY: `node` is a valid node of this chain.
        let (previous, next) = unsafe { ((*node.as_ptr()).previous, (*node.as_ptr()).next) };
        self.set_next(previous, next);
        self.set_previous(next, previous);
        self.length -= 1;
    }

    /// Takes `node` out of the chain, and returns its value.
    ///
    /// # Safety
    /// `node` is a node of this chain. `place` is this chain's, by [`Chain::place`].
    pub(super) unsafe fn take(&mut self, place: Place, node: NonNull<Node<T>>) -> T {
        // SAFETY: `node` is a node of this chain; the value is read once, as the block is freed unread after it.
        unsafe {
            self.unlink(node);
            let value = (&raw const (*node.as_ptr()).value).read();
            place.release(node.cast(), Layout::new::<Node<T>>());
            value
        }
    }

    /// Takes `node` out of the chain, and drops its value where it lies, so that collections in it find their place.
    ///
    /// # Safety
    /// `node` is a node of this chain. `place` is this chain's, by [`Chain::place`].
    pub(super) unsafe fn discard(&mut self, place: Place, node: NonNull<Node<T>>) {
        // SAFETY: `node` is a node of this chain. Should dropping the value panic, the node is out of the chain
        // already, and its block is never used again.
        unsafe {
            self.unlink(node);
            ptr::drop_in_place(&raw mut (*node.as_ptr()).value);
            place.release(node.cast(), Layout::new::<Node<T>>());
        }
    }

    /// The node with `index` nodes before it, reached from the nearer end. `None` beyond the last.
    ///
    /// # Safety
    /// The place was checked.
    pub(super) unsafe fn at(&self, index: usize) -> Option<NonNull<Node<T>>> {
        let behind = (self.length as usize).checked_sub(index + 1)?;
        let mut node = if index <= behind { self.head } else { self.tail };
        for _ in 0..index.min(behind) {
            // SAFETY: by the invariant, each node up to the wanted one is valid.
            node = node.and_then(|node| unsafe {
                if index <= behind { (*node.as_ptr()).next } else { (*node.as_ptr()).previous }
            });
        }
        node
    }

    fn set_next(&mut self, node: Option<NonNull<Node<T>>>, next: Option<NonNull<Node<T>>>) {
        match node {
            // SAFETY: both callers pass a valid node of this chain; only its link is written.
            Some(node) => unsafe { (&raw mut (*node.as_ptr()).next).write(next) },
            None => self.head = next,
        }
    }

    fn set_previous(&mut self, node: Option<NonNull<Node<T>>>, previous: Option<NonNull<Node<T>>>) {
        match node {
            // SAFETY: as above.
            Some(node) => unsafe { (&raw mut (*node.as_ptr()).previous).write(previous) },
            None => self.tail = previous,
        }
    }
}
