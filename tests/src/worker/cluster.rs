//! What most scenarios do around their subject: join, meet, leave.

use super::{Outcome, at};
use dsm_node::{Dsm, Error};
use std::fmt::Display;

/// Joins as the launcher says, runs `body`, and leaves.
pub(super) fn with_cluster(body: impl FnOnce(&Dsm) -> Outcome) -> Outcome {
    at("join");
    let dsm = Dsm::join()?;
    body(&dsm)?;
    at("leave");
    dsm.leave()
}

/// Waits for all nodes.
pub(super) fn meet(dsm: &Dsm, why: impl Display) -> Outcome {
    at(format_args!("barrier: {why}"));
    dsm.barrier().map(|_| ())
}

/// Runs `body` on so many threads of this node at once; each knows its number among all threads of the cluster.
pub(super) fn on_threads(dsm: &Dsm, threads: u64, body: impl Fn(u64) -> Outcome + Sync) -> Outcome {
    std::thread::scope(|scope| {
        let body = &body;
        let first = u64::from(dsm.rank()) * threads;
        let running: Vec<_> = (0..threads).map(|thread| scope.spawn(move || body(first + thread))).collect();
        // A thread that panics ends the process, so that every one comes back with a result.
        running.into_iter().try_for_each(|thread| thread.join().unwrap_or(Err(Error::NotJoined)))
    })
}
