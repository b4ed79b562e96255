//! Joining, where that is all there is to see.

use super::cluster::with_cluster;
use super::confine::{become_nobody, forbid_userfaultfd};
use super::{Arguments, Outcome, Scenario};

pub(super) const SCENARIOS: &[(&str, Scenario)] = &[("join", join), ("join_forbidden", join_forbidden)];

/// Joins and leaves.
fn join(_: &Arguments) -> Outcome {
    with_cluster(|_| Ok(()))
}

/// Joins where the kernel refuses userfaultfd in every way.
fn join_forbidden(_: &Arguments) -> Outcome {
    become_nobody();
    forbid_userfaultfd();
    join(&Arguments(Default::default()))
}
