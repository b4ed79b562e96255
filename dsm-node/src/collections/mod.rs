//! Collections that live in the region: in the arena of the lock, or on the heap of the box, that holds them.
//!
//! A collection finds its memory by its own address. Moved out of its lock (`std::mem::take`), it has none: it says
//! [`crate::Error::NotInRegion`] when it is to grow, and panics when its elements are asked for.

mod list;
mod node;

pub use list::{DsmList, Iter, IterMut};
