//! Guarded memory: a lock, and the memory that it owns.
//!
//! ```text
//! DsmMutex<T> --base--> domain: | header (poison, arena) | T | blocks of T's collections ... |  + more spans
//! ```
//! `arena` cuts the domain's spans into blocks, `domain` finds header, value and arena, `held` knows which locks a
//! thread holds, `place` tells where a collection may grow, and `mutex` is what the user sees.

mod arena;
mod domain;
mod held;
mod mutex;
mod place;

pub use mutex::{DsmMutex, DsmMutexGuard, Recovered};

pub(crate) use held::{is_in_section, refuse_in_section};
pub(crate) use place::{NO_PLACE, Place};

#[cfg(test)]
pub(crate) use {domain::Domain, held::Occupied};
