//! The nodes that run, for whoever started them: to be waited for, signalled, killed, and asked how they ended. Two threads
//! see to them whether or not anybody waits: `watch`, and `witness`.

use super::Signal;
use super::outcome::{Ending, NodeOutcome, Outcome};
use super::output::{Captures, Readers, Stream};
use super::process::{Group, Process};
use super::watch::Plan;
use super::witness;
use crate::error::{Error, Result};
use crate::witness::LauncherEnd;
use dsm_core::Time;
use parking_lot::{Condvar, Mutex};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How long a killed process may take to be gone. The kernel needs milliseconds, and a stuck device may take for ever.
const KILL_PATIENCE: Duration = Duration::from_secs(10);

/// How long output may still come after the last node has ended: it is in a pipe already.
const OUTPUT_PATIENCE: Duration = Duration::from_secs(1);

/// Nodes that run together. Dropping it kills them.
pub struct Cluster {
    shared: Arc<Shared>,
    captures: Captures,
    started: Instant,
}

/// Signals a cluster's nodes from any thread.
#[derive(Clone)]
pub struct Signaller(Arc<Shared>);

/// What the handles and the threads of one cluster have in common.
pub(super) struct Shared {
    group: Group,
    progress: Mutex<Progress>,
    /// Told at each end of a node.
    changed: Condvar,
    /// Whether the nodes have said that their cluster keeps replicas, so that a failure of one need not end the others.
    survivors_go_on: AtomicBool,
}

struct Progress {
    running: usize,
    /// The first node that failed by itself, with its exit code.
    first_failure: Option<(u32, i32)>,
}

impl Cluster {
    pub(super) fn watch(
        group: Group,
        readers: Readers,
        plan: Plan,
        channels: Vec<LauncherEnd>,
    ) -> Result<Cluster> {
        let shared = Arc::new(Shared::new(group));
        let watched = Arc::clone(&shared);
        thread::Builder::new()
            .name(String::from("dsm-watch"))
            .spawn(move || watched.watch(plan))
            .map_err(|cause| Error::io("starting the thread that watches the nodes", cause))?;
        let cluster = Cluster { shared, captures: readers.complete(), started: Instant::now() };
        // If this fails, dropping the cluster ends the nodes, which are watched by now.
        witness::start(Arc::clone(&cluster.shared), channels)?;
        Ok(cluster)
    }

    /// Waits until all nodes have ended. When `limit` is over first, those that still run are killed.
    pub fn wait(&self, limit: Duration) -> Outcome {
        if !self.shared.all_ended(Some(limit)) {
            self.shared.kill_all(Ending::Overdue);
            self.shared.all_ended(Some(KILL_PATIENCE));
        }
        self.outcome()
    }

    /// Waits until all nodes have ended, however long that takes.
    pub fn wait_forever(&self) -> Outcome {
        self.shared.all_ended(None);
        self.outcome()
    }

    /// Kills a node, as a crash of its machine would. Whether it was running. Its end does not count as a failure.
    pub fn kill(&self, rank: u32) -> bool {
        self.shared.process(rank).is_some_and(|process| process.kill(Ending::Killed))
    }

    /// Sends a signal to a node and what it has started. Whether it was running.
    pub fn signal(&self, rank: u32, signal: Signal) -> bool {
        self.shared.process(rank).is_some_and(|process| process.signal(signal))
    }

    /// The process of a node, if it has not ended.
    #[must_use]
    pub fn pid(&self, rank: u32) -> Option<u32> {
        self.shared.process(rank).filter(|process| process.ended().is_none()).map(Process::pid)
    }

    /// What a node has printed so far, if that is captured.
    #[must_use]
    pub fn captured(&self, rank: u32, stream: Stream) -> String {
        self.captures.text(rank, stream)
    }

    /// A handle for threads that signal the nodes while another waits for them.
    #[must_use]
    pub fn signaller(&self) -> Signaller {
        Signaller(Arc::clone(&self.shared))
    }

    fn outcome(&self) -> Outcome {
        let elapsed = self.started.elapsed();
        self.captures.wait(OUTPUT_PATIENCE);
        let node = |(process, rank): (&Process, u32)| {
            let end = process.ended();
            NodeOutcome {
                rank,
                status: end.map(|end| end.status),
                ending: end.map_or(Ending::Overdue, |end| end.ending),
                killed_at: end.and_then(|end| end.killed).map(|at| at.since(Time::ZERO)),
                stdout: self.captures.text(rank, Stream::Stdout),
                stderr: self.captures.text(rank, Stream::Stderr),
            }
        };
        Outcome {
            nodes: self.shared.group.all().iter().zip(0..).map(node).collect(),
            first_failure: self.shared.progress.lock().first_failure,
            elapsed,
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.shared.kill_all(Ending::Dropped);
        // The watching thread reaps them.
        self.shared.all_ended(Some(KILL_PATIENCE));
    }
}

impl Signaller {
    /// Sends a signal to all nodes and what they have started.
    pub fn signal_all(&self, signal: Signal) {
        for process in self.0.group.all() {
            process.signal(signal);
        }
    }

    /// As [`Cluster::kill`].
    pub fn kill(&self, rank: u32) -> bool {
        self.0.process(rank).is_some_and(|process| process.kill(Ending::Killed))
    }

    /// Kills all nodes.
    pub fn kill_all(&self) {
        self.0.kill_all(Ending::Killed);
    }
}

impl Shared {
    pub fn new(group: Group) -> Shared {
        let progress = Progress { running: group.all().len(), first_failure: None };
        Shared {
            group,
            progress: Mutex::new(progress),
            changed: Condvar::new(),
            survivors_go_on: AtomicBool::new(false),
        }
    }

    /// The nodes' processes, by rank.
    pub fn processes(&self) -> &[Process] {
        self.group.all()
    }

    pub fn process(&self, rank: u32) -> Option<&Process> {
        self.group.all().get(usize::try_from(rank).ok()?)
    }

    /// From now on a failure of one node does not end the others.
    pub fn let_survivors_go_on(&self) {
        self.survivors_go_on.store(true, Ordering::Release);
    }

    pub fn can_survivors_go_on(&self) -> bool {
        self.survivors_go_on.load(Ordering::Acquire)
    }

    pub fn is_any_running(&self) -> bool {
        self.progress.lock().running > 0
    }

    /// A node was reaped: did it fail, and with which exit code?
    pub fn note_progress(&self, failure: Option<(u32, i32)>) {
        let mut progress = self.progress.lock();
        progress.running -= 1;
        if let Some(failure) = failure {
            progress.first_failure.get_or_insert(failure);
        }
        self.changed.notify_all();
    }

    pub fn kill_all(&self, why: Ending) {
        for process in self.group.all() {
            process.kill(why);
        }
    }

    /// Waits until no node runs; whether that came to pass within `limit`.
    fn all_ended(&self, limit: Option<Duration>) -> bool {
        // A limit beyond what the clock can count is none.
        let deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
        let mut progress = self.progress.lock();
        match deadline {
            None => self.changed.wait_while(&mut progress, |progress| progress.running > 0),
            Some(deadline) => {
                self.changed.wait_while_until(&mut progress, |progress| progress.running > 0, deadline);
            }
        }
        progress.running == 0
    }
}
