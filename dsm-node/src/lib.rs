//! Page-fault-driven distributed shared memory: N processes, on one or many machines, map one region at the same
//! virtual address, and an ordinary load or store of a page that is elsewhere fetches it.
//!
//! Start with [`Dsm::join`]. Structures live in the region through [`Dsm::root`], [`Dsm::alloc`], [`DsmMutex`] and
//! [`collections`]; what may live there is a matter of types: [`Shared`].

// The derive macro speaks of this crate by its name, here as well.
extern crate self as dsm_node;

mod config;
mod dsm;
mod engine;
mod error;
mod heap;
mod layout;
mod log;
mod node;
mod pidfd;
mod refs;
mod region;
mod shared;
mod signals;
mod stats;
mod sync;
mod transport;
mod uffd;
mod views;
mod witness;

pub mod bench;
pub mod collections;
pub mod doctor;
pub mod launch;
#[doc(hidden)]
pub mod testing;

#[doc(hidden)]
pub use layout::__private;

pub use config::{Builder, TransportKind};
pub use dsm::Dsm;
pub use dsm_derive::Shared;
pub use error::{Error, LockError, LockFailure, Lost, Result};
pub use refs::{DsmBox, DsmPtr, DsmRef};
pub use shared::{Plain, Shared};
pub use stats::{Latency, Stats};
pub use sync::{DsmMutex, DsmMutexGuard, Recovered};
pub use views::{View, Views};
