//! What the tests of the whole project share: the seeded simulator, and what multi-process tests start.

pub mod crash;
pub mod harness;
pub mod history;
pub mod hostile;
pub mod litmus;
pub mod membership_sim;
pub mod model;
pub mod nemesis;
pub mod sim;
pub mod survive;
pub mod worker;
