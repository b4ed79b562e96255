//! Which types may live in the region: those whose bytes mean the same on every node.
//!
//! The traits and their implementations for the types of the language and its atomics. How layouts are compared is
//! `layout`'s duty; the implementations for this crate's own types stand beside those types.

use crate::layout::Shape;
use std::marker::PhantomData;
use std::mem::offset_of;
use std::num::{
    NonZeroI8, NonZeroI16, NonZeroI32, NonZeroI64, NonZeroI128, NonZeroIsize, NonZeroU8, NonZeroU16,
    NonZeroU32, NonZeroU64, NonZeroU128, NonZeroUsize,
};
use std::sync::atomic::{
    AtomicBool, AtomicI8, AtomicI16, AtomicI32, AtomicI64, AtomicIsize, AtomicU8, AtomicU16, AtomicU32,
    AtomicU64, AtomicUsize,
};

/// A type whose bytes mean the same on every node: it may live in distributed shared memory.
///
/// Implement it with `#[derive(Shared)]`, which checks each field. Numbers, `bool`, `char`, arrays, tuples, `Option`,
/// integer and bool atomics, [`crate::DsmRef`], [`crate::DsmPtr`], [`crate::DsmMutex`] and
/// [`crate::collections::DsmList`] are `Shared`. Whatever points into the memory of one process is not.
///
/// # Safety
/// The type has a layout that depends on nothing but its definition and the compiler. No value of it, and nothing
/// that it owns, refers to memory outside the region or means something in one process only (file descriptors, thread
/// ids, function pointers, process-local locks). It is valid on every node if it is valid on one.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot live in distributed shared memory",
    label = "not `Shared`: its bytes mean something in one process only, or it has not derived `Shared`",
    note = "a type of your own: `#[derive(Shared)]` and `#[repr(C)]`",
    note = "instead of `Vec`: `DsmList<T>` in a `DsmMutex`, or an array `[T; N]`; instead of `String` or `&str`: `[u8; N]`",
    note = "instead of `Box<T>`, `&T`, `Rc`, `Arc`, `DsmBox<T>` or `AtomicPtr<T>`: `DsmRef<T>` (`DsmBox::leak`), or `DsmPtr<T>`",
    note = "instead of `Cell`, `RefCell`, `Mutex` or `RwLock`: `DsmMutex<T>`, or an atomic integer",
    note = "instead of `dyn Trait` or a function pointer: an enum; code lies elsewhere in every process"
)]
pub unsafe trait Shared: Send + Sync + 'static {
    /// Describes the parts of this type. The default, for implementations by hand, says nothing but name, size and
    /// alignment.
    #[doc(hidden)]
    fn describe(shape: &mut Shape) {
        let _ = shape;
    }
}

/// A `Shared` type for which zero bytes are a value, and which owns nothing.
///
/// Implement it with `#[derive(Shared)]` and `#[shared(plain)]` on a struct.
///
/// # Safety
/// All bytes zero are a valid value, and dropping a value does nothing.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not plain: zero bytes need not be a value of it, or it owns something",
    label = "not `Plain`",
    note = "a struct of your own: `#[derive(Shared)] #[shared(plain)] #[repr(C)]`",
    note = "enums cannot be plain; store an integer"
)]
pub unsafe trait Plain: Shared {
    /// Compiles only if the fields are plain.
    #[doc(hidden)]
    fn check_fields() {}
}

macro_rules! leaf {
    ($($kind:ty),* $(,)?) => { $(
        // SAFETY: a number, or an atomic one, without parts: its bytes refer to nothing.
        #[diagnostic::do_not_recommend]
        unsafe impl Shared for $kind {}
    )* };
}

macro_rules! plain_leaf {
    ($($kind:ty),* $(,)?) => { $(
        leaf!($kind);
        // SAFETY: zero is a value of it, and it owns nothing.
        #[diagnostic::do_not_recommend]
        unsafe impl Plain for $kind {}
    )* };
}

plain_leaf!(u8, u16, u32, u64, u128, usize, i8, i16, i32, i64, i128, isize, f32, f64, bool, char, ());
plain_leaf!(
    AtomicBool,
    AtomicI8,
    AtomicI16,
    AtomicI32,
    AtomicI64,
    AtomicIsize,
    AtomicU8,
    AtomicU16,
    AtomicU32,
    AtomicU64,
    AtomicUsize,
);
leaf!(
    NonZeroU8,
    NonZeroU16,
    NonZeroU32,
    NonZeroU64,
    NonZeroU128,
    NonZeroUsize,
    NonZeroI8,
    NonZeroI16,
    NonZeroI32,
    NonZeroI64,
    NonZeroI128,
    NonZeroIsize,
);

// SAFETY: the elements lie one behind the other, and each is `Shared`.
#[diagnostic::do_not_recommend]
unsafe impl<T: Shared, const N: usize> Shared for [T; N] {
    fn describe(shape: &mut Shape) {
        shape.element::<T>("element");
    }
}

// SAFETY: each element is plain.
#[diagnostic::do_not_recommend]
unsafe impl<T: Plain, const N: usize> Plain for [T; N] {}

// SAFETY: where the compiler puts the tag depends on `T` and the compiler, and all nodes have the same of both: the
// join compares compilers, and the description reaches `T`.
#[diagnostic::do_not_recommend]
unsafe impl<T: Shared> Shared for Option<T> {
    fn describe(shape: &mut Shape) {
        shape.element::<T>("some");
    }
}

// SAFETY: it has no bytes.
#[diagnostic::do_not_recommend]
unsafe impl<T: Shared> Shared for PhantomData<T> {
    fn describe(shape: &mut Shape) {
        shape.element::<T>("marks");
    }
}

// SAFETY: it has no bytes, and owns nothing.
#[diagnostic::do_not_recommend]
unsafe impl<T: Shared> Plain for PhantomData<T> {}

macro_rules! tuple {
    ($($kind:ident $index:tt),*) => {
        // SAFETY: each part is `Shared`; where it lies is described, and so compared.
        #[diagnostic::do_not_recommend]
        unsafe impl<$($kind: Shared),*> Shared for ($($kind,)*) {
            fn describe(shape: &mut Shape) {
                $( shape.field::<$kind>(stringify!($index), offset_of!(Self, $index)); )*
            }
        }

        // SAFETY: each part is plain, and a tuple adds nothing to its parts.
        #[diagnostic::do_not_recommend]
        unsafe impl<$($kind: Plain),*> Plain for ($($kind,)*) {}
    };
}

tuple!(A 0);
tuple!(A 0, B 1);
tuple!(A 0, B 1, C 2);
tuple!(A 0, B 1, C 2, D 3);
tuple!(A 0, B 1, C 2, D 3, E 4);
tuple!(A 0, B 1, C 2, D 3, E 4, F 5);
tuple!(A 0, B 1, C 2, D 3, E 4, F 5, G 6);
tuple!(A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7);
