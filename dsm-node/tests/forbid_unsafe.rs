//! A crate that forbids `unsafe` derives `Shared` all the same: what the macro writes is the macro's to answer for.

#![forbid(unsafe_code)]

use dsm_node::{DsmMutex, DsmRef, Plain, Shared, collections::DsmList};
use std::sync::atomic::AtomicU64;

#[derive(Shared)]
#[shared(plain)]
#[repr(C)]
struct Counter {
    hits: AtomicU64,
}

#[derive(Shared)]
#[repr(C)]
struct Tree<T> {
    value: T,
    children: DsmMutex<DsmList<Tree<T>>>,
    parent: Option<DsmRef<Tree<T>>>,
}

#[derive(Shared)]
#[repr(u8)]
#[expect(dead_code, reason = "that it compiles is what is tested")]
enum State {
    Idle = 1,
    Busy { since: u64 },
}

fn shared<T: Shared>() {}
fn plain<T: Plain>() {}

#[test]
fn the_derive_needs_no_leave_for_unsafe() {
    plain::<Counter>();
    shared::<Tree<State>>();
}
