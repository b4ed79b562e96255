//! Who is a member: views that a majority agrees on, leases that fence whoever is cut off, and proofs of death.
//!
//! Pure like the rest of the core. A driver feeds [`Membership::handle`] one [`Fact`] at a time, carries out every
//! [`Intent`] in order, and comes back with [`Fact::Tick`] no later than [`Membership::deadline`]. What follows from a view
//! for pages is the machine's business, not this module's.
//!
//! ```text
//!   holder X                    voter V                       all voters
//!     |-- Heartbeat{stamp} ------->| promise: X is not late       |
//!     |<-- Answer{stamp} ----------| before now + lease + drift   |
//!     | lease from V until         |                              |
//!     | stamp + lease              |-- claims: late{X} ---------->| may be taken back
//!     |                            |-- claims: refused{X} ------->| once a majority is late: V gives X no more
//!     |                            |<=== consensus: view v+1 ====>| once a majority refuses, or X is proven dead
//! ```
//!
//! Why no node acts in a view that others have replaced by one without it:
//! - A lease is held from a majority of voters, counted from when its renewals were *sent*. An eviction by lease needs
//!   the refusal of a majority. The two share a voter, who refuses only after all that it granted has run out.
//! - A voter that has accepted a successor of the view grants nothing in it any more. So whoever has not heard of the
//!   new view loses its old lease within one lease of the decision, and its own vote counts no longer than the others'.
//! - In a new view nobody is late before one whole lease has passed since its installation.
//!
//! Clocks need not agree on the time, only on how fast it passes: to one part in [`DRIFT_SHARE`](settings::DRIFT_SHARE).

pub mod change;
pub mod omni;
pub mod packet;
pub mod settings;
pub mod store;
pub mod voters;

mod evidence;
mod joiner;
mod lease;
mod node;
mod promises;
mod rifts;
mod seat;
mod turns;

pub use change::{Candidate, Change};
pub use node::{Fact, Identity, Intent, Membership};
pub use omni::OmniStore;
pub use packet::{Body, Claims, Packet, Welcome};
pub use settings::{Settings, SettingsError};
pub use store::ConfigStore;
pub use voters::{VoterId, Voters};
