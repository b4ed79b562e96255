//! Pointers into the region, typed: the one that anybody may follow, the one that nobody promises anything about, and
//! the one that owns.
//!
//! An address means the same on every node, so a pointer is just an address. Where blocks come from and go to is the
//! heap's duty.

use crate::dsm::Dsm;
use crate::heap;
use crate::layout::Shape;
use crate::shared::{Plain, Shared};
use std::alloc::Layout;
use std::fmt;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::ptr::{self, NonNull};

/// A pointer to a `T` in the region that is never freed: `Copy`, storable in the region, valid on every node.
///
/// `Option<DsmRef<T>>` takes eight bytes. Get one with [`DsmBox::leak`] or [`Dsm::root_ref`].
#[repr(transparent)]
pub struct DsmRef<T> {
    target: NonNull<T>,
}

impl<T: Shared> DsmRef<T> {
    /// A reference to what stands at `target`.
    ///
    /// # Safety
    /// A valid `T` stands there, in the region, and is never moved, dropped, freed, or changed other than through
    /// shared references.
    pub(crate) unsafe fn new(target: NonNull<T>) -> DsmRef<T> {
        DsmRef { target }
    }

    /// The address, the same on every node.
    #[must_use]
    pub fn address(self) -> usize {
        self.target.as_ptr().addr()
    }

    /// The object: a valid `T`, never freed, and changed only through shared references.
    pub(crate) fn target(self) -> NonNull<T> {
        self.target
    }
}

impl<T: Shared> Deref for DsmRef<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: `new`'s caller promised a valid `T` that is never freed and never changed other than through
        // shared references; after a leave the pages are gone, and touching them ends the process.
        unsafe { self.target.as_ref() }
    }
}

impl<T> Clone for DsmRef<T> {
    fn clone(&self) -> DsmRef<T> {
        *self
    }
}

impl<T> Copy for DsmRef<T> {}

impl<T> PartialEq for DsmRef<T> {
    /// Whether both point to the same object.
    fn eq(&self, other: &DsmRef<T>) -> bool {
        self.target == other.target
    }
}

impl<T> Eq for DsmRef<T> {}

impl<T> fmt::Debug for DsmRef<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DsmRef({:p})", self.target)
    }
}

// SAFETY: it gives out `&T` only, and a `Shared` type is `Sync`.
unsafe impl<T: Shared> Send for DsmRef<T> {}
// SAFETY: as above.
unsafe impl<T: Shared> Sync for DsmRef<T> {}

// SAFETY: an address in the region, valid on every node; the target is described.
#[diagnostic::do_not_recommend]
unsafe impl<T: Shared> Shared for DsmRef<T> {
    fn describe(shape: &mut Shape) {
        shape.element::<T>("target");
    }
}

// SAFETY: zero bytes are `None`, because `NonNull` has its niche there and `DsmRef` is transparent; it owns nothing.
#[diagnostic::do_not_recommend]
unsafe impl<T: Shared> Plain for Option<DsmRef<T>> {}

/// A raw address of a `T` in the region, or null. Following it is `unsafe`: nobody promises that anything is there.
#[repr(transparent)]
pub struct DsmPtr<T> {
    target: *mut T,
}

impl<T> DsmPtr<T> {
    /// The address zero.
    #[must_use]
    pub const fn null() -> DsmPtr<T> {
        DsmPtr { target: ptr::null_mut() }
    }

    /// The address that `target` has.
    #[must_use]
    pub const fn new(target: *mut T) -> DsmPtr<T> {
        DsmPtr { target }
    }

    /// Whether the address is zero.
    #[must_use]
    pub fn is_null(self) -> bool {
        self.target.is_null()
    }

    /// The address.
    #[must_use]
    pub fn address(self) -> usize {
        self.target.addr()
    }

    /// The address as a pointer of the language.
    #[must_use]
    pub const fn as_ptr(self) -> *mut T {
        self.target
    }

    /// The object, or `None` for null.
    ///
    /// # Safety
    /// The pointer is null, or a valid `T` stands there for as long as `'a`, and no node changes it meanwhile other
    /// than through shared references.
    pub unsafe fn as_ref<'a>(self) -> Option<&'a T> {
        // SAFETY: this function's caller promises what `as_ref` asks for.
        unsafe { self.target.as_ref() }
    }
}

impl<T> From<DsmRef<T>> for DsmPtr<T> {
    fn from(reference: DsmRef<T>) -> DsmPtr<T> {
        DsmPtr::new(reference.target.as_ptr())
    }
}

impl<T> Default for DsmPtr<T> {
    fn default() -> DsmPtr<T> {
        DsmPtr::null()
    }
}

impl<T> Clone for DsmPtr<T> {
    fn clone(&self) -> DsmPtr<T> {
        *self
    }
}

impl<T> Copy for DsmPtr<T> {}

impl<T> PartialEq for DsmPtr<T> {
    fn eq(&self, other: &DsmPtr<T>) -> bool {
        self.target == other.target
    }
}

impl<T> Eq for DsmPtr<T> {}

impl<T> fmt::Debug for DsmPtr<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DsmPtr({:p})", self.target)
    }
}

// SAFETY: an address; whoever follows it answers for what is there.
unsafe impl<T: Shared> Send for DsmPtr<T> {}
// SAFETY: as above.
unsafe impl<T: Shared> Sync for DsmPtr<T> {}

// SAFETY: an address means the same on every node; the target is described.
#[diagnostic::do_not_recommend]
unsafe impl<T: Shared> Shared for DsmPtr<T> {
    fn describe(shape: &mut Shape) {
        shape.element::<T>("target");
    }
}

// SAFETY: zero is null, and it owns nothing.
#[diagnostic::do_not_recommend]
unsafe impl<T: Shared> Plain for DsmPtr<T> {}

/// An owner of a `T` on the shared heap: dereferences mutably, and drops and frees on drop.
///
/// It is this process's alone until [`DsmBox::leak`] shares it for good.
pub struct DsmBox<'d, T> {
    target: NonNull<T>,
    owns: PhantomData<(&'d Dsm, T)>,
}

impl<'d, T: Shared> DsmBox<'d, T> {
    /// A box with `value`, on the heap of `dsm`'s node.
    pub(crate) fn new(dsm: &'d Dsm, value: T) -> crate::Result<DsmBox<'d, T>> {
        let target = heap::allocate(dsm.node(), Layout::new::<T>())?.cast::<T>();
        // SAFETY: the heap gave out a block of `T`'s size and alignment to this caller alone.
        unsafe { target.write(value) };
        Ok(DsmBox { target, owns: PhantomData })
    }

    /// Gives the object to all nodes for good: it is never dropped or freed.
    pub fn leak(this: DsmBox<'d, T>) -> DsmRef<T> {
        let this = ManuallyDrop::new(this);
        // SAFETY: the box owned a valid `T` in the region, and nothing drops or frees it any more.
        unsafe { DsmRef::new(this.target) }
    }

    /// The object's address, the same on every node.
    #[must_use]
    pub fn address(this: &DsmBox<'d, T>) -> usize {
        this.target.as_ptr().addr()
    }
}

impl<T> Deref for DsmBox<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the box owns a valid `T`, and lends it as it is borrowed itself.
        unsafe { self.target.as_ref() }
    }
}

impl<T> DerefMut for DsmBox<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the box owns a valid `T`, no other node knows of it, and it lends it as it is borrowed itself.
        unsafe { self.target.as_mut() }
    }
}

impl<T> Drop for DsmBox<'_, T> {
    fn drop(&mut self) {
        // SAFETY: the box owns a valid `T`, which nobody uses after this.
        unsafe { ptr::drop_in_place(self.target.as_ptr()) };
        heap::free(self.target.as_ptr().addr());
    }
}

impl<T: fmt::Debug> fmt::Debug for DsmBox<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

// SAFETY: the box owns its target as a `Box` does, and blocks may be freed by any thread.
unsafe impl<T: Send> Send for DsmBox<'_, T> {}
// SAFETY: a shared box gives out `&T` only.
unsafe impl<T: Sync> Sync for DsmBox<'_, T> {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::size_of;

    #[test]
    fn an_optional_reference_is_one_word_and_zero_is_none() {
        assert_eq!(size_of::<Option<DsmRef<u64>>>(), size_of::<u64>());
        // SAFETY: `Option<DsmRef<_>>` is `Plain`: zero bytes are a value.
        let none: Option<DsmRef<u64>> = unsafe { std::mem::zeroed() };
        assert!(none.is_none());
    }

    #[test]
    fn null_is_null() {
        assert!(DsmPtr::<u8>::default().is_null());
        // SAFETY: the pointer is null, which `as_ref` allows.
        assert!(unsafe { DsmPtr::<u8>::null().as_ref() }.is_none());
    }
}
