//! What a node may do with a page, and what a fault wants to do.

use serde::{Deserialize, Serialize};

/// What the page table of a node allows on a page. Ordered: each allows all that the one before it does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Access {
    /// Nothing: a load or store faults.
    None,
    /// Loads: a store faults.
    Read,
    /// Loads and stores.
    Write,
}

/// What a faulting instruction was about to do.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Want {
    /// A load.
    Read,
    /// A store.
    Write,
}

impl Want {
    /// The access that satisfies it.
    #[must_use]
    pub const fn access(self) -> Access {
        match self {
            Want::Read => Access::Read,
            Want::Write => Access::Write,
        }
    }
}
