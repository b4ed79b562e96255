//! For tests: what a node believes about its pages, held to what its page tables say, and a network that misbehaves.

use crate::dsm::Dsm;
use crate::error::{Error, Result};
pub use crate::transport::nemesis::{Deeds, Nemesis, Plan, Way};
pub use dsm_core::Access;
use dsm_core::{Time, ViewId};

/// What one node says of itself between two events of its engine.
#[derive(Clone, Debug)]
pub struct Examination {
    /// Whether nothing is under way with this node's pages: no fault, no transaction, no revocation.
    pub quiet: bool,
    /// Whether every page of every member has all of its holders, as far as this node knows.
    pub replicated: bool,
    /// What this node may do with each page of the region, by the protocol's state.
    pub access: Vec<Access>,
    /// Where page tables or invariants say otherwise, in words.
    pub mismatches: Vec<String>,
    /// What the directory says of the pages that are homed here and were touched.
    pub directory: Vec<Entry>,
}

/// What the directory says of one page.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The page's number.
    pub page: u64,
    /// The rank of its owner, if anybody ever wrote it.
    pub owner: Option<u32>,
    /// The ranks that have a copy to read, the owner not among them.
    pub readers: Vec<u32>,
}

/// When one change of the membership was recovered from, by the machine's clock since its start, which all processes of a
/// machine have in common: nanoseconds of `CLOCK_BOOTTIME`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RecoveryTime {
    /// The number of the view.
    pub view: u64,
    /// When this node learned of the view, or of an earlier one that it had not recovered from.
    pub installed_at: u64,
    /// When it served again.
    pub resumed_at: u64,
    /// When the first fault was resolved that had waited when the view was installed.
    pub first_resolved_at: Option<u64>,
}

impl RecoveryTime {
    pub(crate) fn new(view: ViewId, installed: Time, resumed: Time) -> RecoveryTime {
        let (installed_at, resumed_at) = (installed.as_nanos(), resumed.as_nanos());
        RecoveryTime { view: view.0, installed_at, resumed_at, first_resolved_at: None }
    }
}

/// The recoveries of this node so far, in order.
#[must_use]
pub fn recovery_times(dsm: &Dsm) -> Vec<RecoveryTime> {
    dsm.node().recoveries()
}

/// Examines every page of the region. For regions of test size: it looks at each.
///
/// # Errors
/// If the node has left, or the kernel cannot tell what its page tables say.
pub fn examine(dsm: &Dsm) -> Result<Examination> {
    let (sender, answer) = crossbeam_channel::bounded(1);
    dsm.node().examine(sender)?;
    answer.recv().map_err(|_| Error::NotJoined)?
}
