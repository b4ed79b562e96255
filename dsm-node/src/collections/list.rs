//! A doubly linked list in shared memory: what users call. The chain of nodes is `node`'s.

use super::node::{Chain, Node};
use crate::error::{Error, Result};
use crate::layout::Shape;
use crate::shared::Shared;
use crate::sync::Place;
use std::fmt;
use std::iter::FusedIterator;
use std::marker::PhantomData;
use std::ptr::NonNull;

/// A doubly linked list that lives in the arena of the [`crate::DsmMutex`], or on the heap of the
/// [`crate::DsmBox`], that holds it.
///
/// It finds its memory by its own address, so it must stay where it is: in the value of its lock. Growing one that was
/// moved out is an error; asking such a list for its elements is a panic; dropping it leaks them.
///
/// # Panics
/// Every method that reaches elements panics if the list has some and lies outside the lock or box whose memory holds
/// them.
#[repr(C)]
pub struct DsmList<T> {
    chain: Chain<T>,
}

impl<T> DsmList<T> {
    /// An empty list. It takes no memory until it grows.
    #[must_use]
    pub const fn new() -> DsmList<T> {
        DsmList { chain: Chain::new() }
    }

    /// How many elements it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.chain.length as usize
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.chain.length == 0
    }

    /// The place of the elements; `None` if there are none.
    fn reach(&self) -> Option<Place> {
        if self.is_empty() {
            return None;
        }
        match self.chain.place() {
            Ok(place) => Some(place),
            Err(error) => panic!("{error}"),
        }
    }
}

impl<T: Shared> DsmList<T> {
    /// Appends `value`.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] where the region has no room; [`Error::NotInRegion`] or [`Error::Moved`] where the list
    /// does not lie in its lock or box. The list is as before then, and `value` dropped.
    pub fn push_back(&mut self, value: T) -> Result<()> {
        let place = self.chain.place()?;
        // SAFETY: the place is the chain's; no node is named.
        unsafe { self.chain.insert(place, None, value) }
    }

    /// Prepends `value`.
    ///
    /// # Errors
    /// As [`DsmList::push_back`].
    pub fn push_front(&mut self, value: T) -> Result<()> {
        let place = self.chain.place()?;
        // SAFETY: the place is the chain's, and so is its first node.
        unsafe { self.chain.insert(place, self.chain.head, value) }
    }

    /// Inserts `value` so that `index` elements are before it.
    ///
    /// # Errors
    /// As [`DsmList::push_back`], and [`Error::Argument`] if the list has fewer than `index` elements.
    pub fn insert(&mut self, index: usize, value: T) -> Result<()> {
        let place = self.chain.place()?;
        if index > self.len() {
            let length = self.len();
            return Err(Error::Argument(format!("insertion index {index} in a list of {length} elements")));
        }
        // SAFETY: the place is the chain's, and so is the node.
        unsafe { self.chain.insert(place, self.chain.at(index), value) }
    }

    /// Removes the first element.
    pub fn pop_front(&mut self) -> Option<T> {
        let place = self.reach()?;
        // SAFETY: the place is the chain's, and so is its first node.
        self.chain.head.map(|node| unsafe { self.chain.take(place, node) })
    }

    /// Removes the last element.
    pub fn pop_back(&mut self) -> Option<T> {
        let place = self.reach()?;
        // SAFETY: the place is the chain's, and so is its last node.
        self.chain.tail.map(|node| unsafe { self.chain.take(place, node) })
    }

    /// Removes the element that has `index` elements before it; `None` if there is none.
    pub fn remove(&mut self, index: usize) -> Option<T> {
        let place = self.reach()?;
        // SAFETY: the place was checked.
        let node = unsafe { self.chain.at(index) }?;
        // SAFETY: the place is the chain's, and so is the node.
        Some(unsafe { self.chain.take(place, node) })
    }

    /// The first element.
    #[must_use]
    pub fn front(&self) -> Option<&T> {
        self.iter().next()
    }

    /// The first element, to change.
    pub fn front_mut(&mut self) -> Option<&mut T> {
        self.iter_mut().next()
    }

    /// The last element.
    #[must_use]
    pub fn back(&self) -> Option<&T> {
        self.iter().next_back()
    }

    /// The last element, to change.
    pub fn back_mut(&mut self) -> Option<&mut T> {
        self.iter_mut().next_back()
    }

    /// The element that has `index` elements before it. Walks from the nearer end.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&T> {
        self.reach()?;
        // SAFETY: the place was checked; the nodes and their values are valid for as long as the list is borrowed.
        unsafe { self.chain.at(index).map(|node| &(*node.as_ptr()).value) }
    }

    /// The elements, from the first to the last.
    #[must_use]
    pub fn iter(&self) -> Iter<'_, T> {
        self.reach();
        Iter { ends: Ends::of(&self.chain), borrows: PhantomData }
    }

    /// The elements, to change.
    pub fn iter_mut(&mut self) -> IterMut<'_, T> {
        self.reach();
        IterMut { ends: Ends::of(&self.chain), borrows: PhantomData }
    }

    /// Drops all elements.
    pub fn clear(&mut self) {
        if let Some(place) = self.reach() {
            self.discard_all(place);
        }
    }

    /// Drops the elements for which `keep` is false.
    pub fn retain(&mut self, mut keep: impl FnMut(&T) -> bool) {
        let Some(place) = self.reach() else { return };
        let mut next = self.chain.head;
        while let Some(node) = next {
            // SAFETY: the place was checked, and the chain's nodes are valid; the reference ends with the call.
            let kept = unsafe {
                next = (*node.as_ptr()).next;
                keep(&(*node.as_ptr()).value)
            };
            if !kept {
                // SAFETY: the place is the chain's, and so is the node.
                unsafe { self.chain.discard(place, node) };
            }
        }
    }
}

impl<T> DsmList<T> {
    fn discard_all(&mut self, place: Place) {
        while let Some(node) = self.chain.head {
            // SAFETY: the place is the chain's, and so is its first node.
            unsafe { self.chain.discard(place, node) };
        }
    }
}

impl<T> Drop for DsmList<T> {
    /// Drops all elements, if the list lies where they do. Else they are not this thread's to touch, and leak.
    fn drop(&mut self) {
        if !self.is_empty()
            && let Ok(place) = self.chain.place()
        {
            self.discard_all(place);
        }
    }
}

impl<T> Default for DsmList<T> {
    fn default() -> DsmList<T> {
        DsmList::new()
    }
}

impl<T: Shared + fmt::Debug> fmt::Debug for DsmList<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.chain.place() {
            Err(error @ (Error::NotInRegion { .. } | Error::Moved { .. })) if !self.is_empty() => {
                write!(f, "DsmList({} elements out of reach: {error})", self.len())
            }
            _ => f.debug_list().entries(self.iter()).finish(),
        }
    }
}

impl<'a, T: Shared> IntoIterator for &'a DsmList<T> {
    type Item = &'a T;
    type IntoIter = Iter<'a, T>;

    fn into_iter(self) -> Iter<'a, T> {
        self.iter()
    }
}

impl<'a, T: Shared> IntoIterator for &'a mut DsmList<T> {
    type Item = &'a mut T;
    type IntoIter = IterMut<'a, T>;

    fn into_iter(self) -> IterMut<'a, T> {
        self.iter_mut()
    }
}

// SAFETY: the list owns its elements, and a `Shared` type is `Send`. Two lists of one arena may be in two threads of a
// process: each use of an arena takes a lock of the process.
unsafe impl<T: Shared> Send for DsmList<T> {}
// SAFETY: a shared list gives out `&T` only, and a `Shared` type is `Sync`.
unsafe impl<T: Shared> Sync for DsmList<T> {}

// SAFETY: addresses in the region, a length and a serial number, which mean the same on every node; the elements'
// type is described.
#[diagnostic::do_not_recommend]
unsafe impl<T: Shared> Shared for DsmList<T> {
    fn describe(shape: &mut Shape) {
        shape.element::<T>("elements");
    }
}

/// What is left of a walk from both ends.
struct Ends<T> {
    front: Option<NonNull<Node<T>>>,
    back: Option<NonNull<Node<T>>>,
    left: usize,
}

impl<T> Ends<T> {
    fn of(chain: &Chain<T>) -> Ends<T> {
        Ends { front: chain.head, back: chain.tail, left: chain.length as usize }
    }

    /// # Safety
    /// The chain's place was checked, and the chain is borrowed for as long as the walk lasts.
    unsafe fn next(&mut self) -> Option<NonNull<T>> {
        self.left = self.left.checked_sub(1)?;
        let node = self.front?.as_ptr();
        // SAFETY: nodes are left, so that this is a valid one of the chain; the pointer covers the value alone.
        unsafe {
            self.front = (*node).next;
            Some(NonNull::new_unchecked(&raw mut (*node).value))
        }
    }

    /// # Safety
    /// As for [`Ends::next`].
    unsafe fn next_back(&mut self) -> Option<NonNull<T>> {
        self.left = self.left.checked_sub(1)?;
        let node = self.back?.as_ptr();
        // SAFETY: as above.
        unsafe {
            self.back = (*node).previous;
            Some(NonNull::new_unchecked(&raw mut (*node).value))
        }
    }
}

/// The elements of a [`DsmList`].
pub struct Iter<'a, T> {
    ends: Ends<T>,
    borrows: PhantomData<&'a DsmList<T>>,
}

/// The elements of a [`DsmList`], to change.
pub struct IterMut<'a, T> {
    ends: Ends<T>,
    borrows: PhantomData<&'a mut DsmList<T>>,
}

macro_rules! iterator {
    ($name:ident, $item:ty, $reference:ident) => {
        impl<'a, T> Iterator for $name<'a, T> {
            type Item = $item;

            fn next(&mut self) -> Option<$item> {
                // SAFETY: the iterator was made after a check of the place and borrows the list; each element is
                // given out once.
                unsafe { self.ends.next().map(|value| $reference(value)) }
            }

            fn size_hint(&self) -> (usize, Option<usize>) {
                (self.ends.left, Some(self.ends.left))
            }
        }

        impl<T> DoubleEndedIterator for $name<'_, T> {
            fn next_back(&mut self) -> Option<Self::Item> {
                // SAFETY: as above.
                unsafe { self.ends.next_back().map(|value| $reference(value)) }
            }
        }

        impl<T> ExactSizeIterator for $name<'_, T> {}
        impl<T> FusedIterator for $name<'_, T> {}
    };
}

iterator!(Iter, &'a T, shared);
iterator!(IterMut, &'a mut T, exclusive);

/// # Safety
/// As for `NonNull::as_ref`.
unsafe fn shared<'a, T>(value: NonNull<T>) -> &'a T {
    // SAFETY: the caller promises what `as_ref` asks for.
    unsafe { value.as_ref() }
}

/// # Safety
/// As for `NonNull::as_mut`.
unsafe fn exclusive<'a, T>(mut value: NonNull<T>) -> &'a mut T {
    // SAFETY: the caller promises what `as_mut` asks for.
    unsafe { value.as_mut() }
}

#[cfg(test)]
#[path = "list_tests.rs"]
mod tests;
