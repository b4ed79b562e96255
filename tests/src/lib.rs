//! What the tests of the whole project share: the seeded simulator, and what multi-process tests start.

pub mod harness;
pub mod membership_sim;
pub mod model;
pub mod sim;
pub mod worker;
