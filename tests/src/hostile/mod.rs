//! One member of a cluster says whatever it likes; the others run the real machine. Bytes decide everything: what
//! happened before, what the hostile member says, when, and what the others do meanwhile.
//!
//! The same functions serve `cargo fuzz` (`tests/fuzz/`), the replay of the corpus (`tests/tests/fuzz.rs`), random
//! bytes by seed, and, for the messages alone, the simulator's `--hostile`. `docs/testing.md` says which pages count as
//! *other* pages: those whose home is an honest node, which the hostile member never asked for, and of which it did not
//! forge a grant that its receiver was waiting for.
//!
//! Where things are: `forge` makes messages; `cluster` carries out what the machines want and notes what is not as it
//! must be; `honest` is what the honest nodes do; `story` turns bytes into all of this; `truth` is the checker; `wire`
//! is about frames, `flood` about a member that says one thing over and over.

mod cluster;
mod flood;
mod forge;
mod honest;
mod story;
mod truth;
pub mod wire;

pub use flood::{Flood, flood};
pub use forge::{Palette, message};
pub use story::{
    Counts, EVENT_BYTES_MAX, LENGTH_MAX, Measure, attempt, bytes_of_seed, replay, run, unmeasured,
};

/// The outcome of a check: what went wrong, in words.
type Check<T = ()> = Result<T, String>;
