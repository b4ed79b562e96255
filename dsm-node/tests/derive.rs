//! What `#[derive(Shared)]` accepts, and what it says about layouts.

use dsm_node::__private::{identity, registered};
use dsm_node::{DsmMutex, DsmPtr, DsmRef, Plain, Shared, collections::DsmList};
use std::marker::PhantomData;
use std::sync::atomic::AtomicU64;

#[derive(Shared)]
#[repr(C)]
struct Node {
    next: Option<DsmRef<Node>>,
    hits: AtomicU64,
}

#[derive(Shared)]
#[repr(C)]
struct Pair<T> {
    a: T,
    b: Option<DsmRef<Pair<T>>>,
}

/// Two types that know each other, and themselves through every kind of pointer.
#[derive(Shared)]
#[repr(C)]
struct Tree {
    children: DsmList<Tree>,
    inner: DsmMutex<DsmList<Tree>>,
    leaf: Option<DsmRef<Leaf>>,
}

#[derive(Shared)]
#[repr(transparent)]
struct Leaf(DsmPtr<Tree>);

#[derive(Shared)]
#[repr(u8)]
#[expect(dead_code, reason = "only its layout is looked at")]
enum Shape {
    Point = 3,
    Circle { radius: f64 },
    Named([u8; 8], Option<DsmRef<Shape>>) = 9,
}

#[derive(Clone, Copy, Shared)]
#[shared(plain)]
#[repr(C, align(32))]
struct Point<T: Copy, const N: usize>
where
    T: PartialEq,
{
    coordinates: [T; N],
    tag: PhantomData<u8>,
}

#[derive(Shared)]
#[repr(C)]
struct Unit;

/// Refers to a type of the same name elsewhere, with other fields.
mod elsewhere {
    #[derive(dsm_node::Shared)]
    #[repr(C)]
    pub struct Unit(pub u8);
}

fn shared<T: Shared>() {}
fn plain<T: Plain>() {}

#[test]
fn recursive_and_generic_types_are_shared() {
    shared::<Node>();
    shared::<Pair<u32>>();
    shared::<Pair<Pair<AtomicU64>>>();
    shared::<Tree>();
    shared::<Leaf>();
    shared::<Shape>();
    shared::<(Unit, Option<[Node; 2]>, DsmMutex<Pair<bool>>)>();
    plain::<Point<f32, 3>>();
    plain::<[(u8, Option<DsmRef<Tree>>, AtomicU64); 4]>();
}

#[test]
fn a_description_names_fields_offsets_and_what_pointers_reach() {
    let text = identity::<Pair<u16>>().text;
    let expected = "Pair<u16> size 16 align 8 { a: u16 @0, b: Option<DsmRef<Pair<u16>>> @8 }\n\
                    u16 size 2 align 2\n\
                    Option<DsmRef<Pair<u16>>> size 8 align 8 { some: DsmRef<Pair<u16>> }\n\
                    DsmRef<Pair<u16>> size 8 align 8 { target: Pair<u16> }\n";
    assert_eq!(text, expected);
}

#[test]
fn an_enum_names_variants_and_discriminants() {
    let text = identity::<Shape>().text;
    let first = text.lines().next().unwrap();
    assert!(first.contains("{ Point = 3, Circle = 4, radius: f64, Named = 9, 0: [u8; 8], 1: "), "{first}");
}

#[test]
fn a_change_behind_a_pointer_is_a_change() {
    mod before {
        #[derive(dsm_node::Shared)]
        #[repr(C)]
        pub struct Target(pub u32, pub u32);
        #[derive(dsm_node::Shared)]
        #[repr(C)]
        pub struct Holder(pub Option<dsm_node::DsmRef<Target>>);
    }
    mod after {
        #[derive(dsm_node::Shared)]
        #[repr(C)]
        pub struct Target(pub u32, pub i32);
        #[derive(dsm_node::Shared)]
        #[repr(C)]
        pub struct Holder(pub Option<dsm_node::DsmRef<Target>>);
    }
    let (before, after) = (identity::<before::Holder>(), identity::<after::Holder>());
    assert_eq!(before.name, after.name);
    assert_ne!(before.hash, after.hash);
}

#[test]
fn concrete_types_register_themselves_sorted_and_once() {
    let types = registered();
    assert!(types.is_sorted());
    for (name, hash) in [
        ("Node", identity::<Node>().hash),
        ("Unit", identity::<Unit>().hash),
        ("Unit", identity::<elsewhere::Unit>().hash),
    ] {
        assert_eq!(types.iter().filter(|entry| **entry == (name.to_owned(), hash)).count(), 1, "{types:?}");
    }
    assert!(types.iter().all(|(name, _)| !name.starts_with("Pair")), "generic types have no one layout");
}
