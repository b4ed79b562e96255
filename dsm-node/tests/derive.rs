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

/// Two types of one name, and two that differ in which of them they have.
mod twins {
    pub mod a {
        #[derive(dsm_node::Shared)]
        #[repr(C)]
        pub struct Part(pub u64);
    }
    pub mod b {
        #[derive(dsm_node::Shared)]
        #[repr(C)]
        pub struct Part(pub f64);
    }
    pub mod before {
        #[derive(dsm_node::Shared)]
        #[repr(C)]
        pub struct Whole(pub super::a::Part, pub super::b::Part, pub super::a::Part);
    }
    pub mod after {
        #[derive(dsm_node::Shared)]
        #[repr(C)]
        pub struct Whole(pub super::a::Part, pub super::b::Part, pub super::b::Part);
    }
}

#[test]
fn types_of_one_name_are_not_taken_for_each_other() {
    let (before, after) = (identity::<twins::before::Whole>(), identity::<twins::after::Whole>());
    assert_ne!(before.hash, after.hash, "{}", before.text);
    assert!(before.text.contains("{ 0: Part @0, 1: Part~2 @8, 2: Part @16 }"), "{}", before.text);
    assert_eq!(identity::<twins::a::Part>().name, identity::<twins::b::Part>().name);
}

macro_rules! through_a_macro {
    ($name:ident, $field:ident: $kind:ty, $variant:ident) => {
        #[derive(Shared)]
        #[repr(C)]
        struct $name {
            number: u32,
            $field: $kind,
        }

        mod inside {
            #[derive(dsm_node::Shared)]
            #[repr(u8)]
            #[expect(dead_code, reason = "only its layout is looked at")]
            pub enum $name {
                Own(u8),
                $variant($kind),
            }
        }
    };
}

through_a_macro!(Made, given: u16, Given);

#[test]
fn types_that_a_macro_makes_are_shared() {
    shared::<Made>();
    shared::<inside::Made>();
    let made = Made { number: 1, given: 2 };
    assert_eq!(made.number + u32::from(made.given), 3);
    let text = identity::<Made>().text;
    assert!(text.starts_with("Made size 8 align 4 { number: u32 @0, given: u16 @4 }"), "{text}");
}
