//! The nodes that run: watched by one thread from their start to their end, whether or not anybody waits for them.
//!
//! ```text
//! running --a node fails--> grace --the others end, or the grace runs out: kill--> ended
//!    |                                                                               ^
//!    +----------- all end by themselves, or `wait` runs out of time: kill -----------+
//! ```

use super::Signal;
use super::output::{Captures, Readers, Stream};
use super::process::{Group, Process};
use crate::error::{Error, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use parking_lot::{Condvar, Mutex};
use std::fmt;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// How long a killed process may take to be gone. The kernel needs milliseconds, and a stuck device may take for ever.
const KILL_PATIENCE: Duration = Duration::from_secs(10);

/// How long output may still come after the last node has ended: it is in a pipe already.
const OUTPUT_PATIENCE: Duration = Duration::from_secs(1);

/// What a process adds to the number of the signal that ended it, to make an exit code, as shells do.
const SIGNAL_CODE_BASE: i32 = 128;

/// The exit code of what ran out of time, as `timeout` has it.
const OVERDUE_CODE: i32 = 124;

/// Nodes that run together. Dropping it kills them.
pub struct Cluster {
    shared: Arc<Shared>,
    captures: Captures,
    started: Instant,
}

/// Signals a cluster's nodes from any thread.
#[derive(Clone)]
pub struct Signaller(Arc<Shared>);

struct Shared {
    group: Group,
    progress: Mutex<Progress>,
    /// Told at each end of a node.
    changed: Condvar,
}

struct Progress {
    running: usize,
    /// The first node that failed by itself, with its exit code.
    first_failure: Option<(u32, i32)>,
}

/// Why a node ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Ending {
    /// By itself, or by a signal from outside.
    Itself,
    /// [`Cluster::kill`] or [`Signaller::kill`] was called.
    Killed,
    /// Another node had failed, and the grace ran out.
    AfterAnother,
    /// [`Cluster::wait`] ran out of time.
    Overdue,
    /// The cluster was dropped.
    Dropped,
}

/// What became of the nodes.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The nodes, by rank.
    pub nodes: Vec<NodeOutcome>,
    /// The first node that failed by itself, with its exit code.
    pub first_failure: Option<(u32, i32)>,
    /// From the start to the last end.
    pub elapsed: Duration,
}

/// What became of one node.
#[derive(Clone, Debug)]
pub struct NodeOutcome {
    /// Its rank.
    pub rank: u32,
    /// How its process ended; `None` if the kernel could not end it in time.
    pub status: Option<ExitStatus>,
    /// Why it ended.
    pub ending: Ending,
    /// What it printed, where that was captured.
    pub stdout: String,
    /// What it printed to standard error, where that was captured.
    pub stderr: String,
}

impl Cluster {
    pub(super) fn watch(group: Group, readers: Readers, grace: Duration) -> Result<Cluster> {
        let progress = Progress { running: group.all().len(), first_failure: None };
        let shared = Arc::new(Shared { group, progress: Mutex::new(progress), changed: Condvar::new() });
        let watched = Arc::clone(&shared);
        thread::Builder::new()
            .name(String::from("dsm-watch"))
            .spawn(move || watched.watch(grace))
            .map_err(|cause| Error::io("starting the thread that watches the nodes", cause))?;
        Ok(Cluster { shared, captures: readers.complete(), started: Instant::now() })
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
            let (status, ending) = process.ended().unzip();
            NodeOutcome {
                rank,
                status,
                ending: ending.unwrap_or(Ending::Overdue),
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
    fn process(&self, rank: u32) -> Option<&Process> {
        self.group.all().get(usize::try_from(rank).ok()?)
    }

    fn kill_all(&self, why: Ending) {
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

    /// The watching thread: reaps each node as it ends, and ends the others when one has failed.
    fn watch(&self, grace: Duration) {
        let mut grace_ends: Option<Instant> = None;
        while self.progress.lock().running > 0 {
            let ended = self.next_ended(grace_ends);
            for rank in ended {
                if self.note_end(rank) && grace_ends.is_none() {
                    grace_ends = Instant::now().checked_add(grace);
                }
            }
            if grace_ends.is_some_and(|end| Instant::now() >= end) {
                self.kill_all(Ending::AfterAnother);
                // Once is enough: all that is left is to wait for their ends.
                grace_ends = None;
            }
        }
    }

    /// Waits for nodes to end, no longer than until `deadline`; which have.
    fn next_ended(&self, deadline: Option<Instant>) -> Vec<u32> {
        let running: Vec<(u32, &Process)> =
            (0..).zip(self.group.all()).filter(|(_, process)| process.ended().is_none()).collect();
        let mut ready: Vec<PollFd> =
            running.iter().map(|(_, process)| PollFd::new(process.pidfd(), PollFlags::POLLIN)).collect();
        match poll(&mut ready, timeout_until(deadline)) {
            Ok(_) => {}
            Err(Errno::EINTR) => return Vec::new(),
            // Poll refuses only what is wrong by construction, or for want of kernel memory. The first node can be
            // waited for without it.
            Err(_) => return running.iter().map(|&(rank, _)| rank).take(1).collect(),
        }
        let is_ready = |entry: &PollFd| entry.any().unwrap_or(false);
        running.iter().zip(&ready).filter(|(_, entry)| is_ready(entry)).map(|((rank, _), _)| *rank).collect()
    }

    /// Reaps a node that has ended; whether its end is a failure that ends the others.
    fn note_end(&self, rank: u32) -> bool {
        let Some((status, ending)) = self.process(rank).and_then(Process::reap) else { return false };
        let failed = ending == Ending::Itself && !status.success();
        let mut progress = self.progress.lock();
        progress.running -= 1;
        if failed {
            progress.first_failure.get_or_insert((rank, code_of(status)));
        }
        self.changed.notify_all();
        failed
    }
}

fn timeout_until(deadline: Option<Instant>) -> PollTimeout {
    let Some(deadline) = deadline else { return PollTimeout::NONE };
    // A whole millisecond more, so that the deadline is over when the call returns.
    let left = deadline.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
    PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
}

/// The exit code that a shell would make of `status`.
fn code_of(status: ExitStatus) -> i32 {
    let of_signal = || status.signal().map(|signal| SIGNAL_CODE_BASE + signal);
    status.code().or_else(of_signal).unwrap_or(SIGNAL_CODE_BASE)
}

impl NodeOutcome {
    /// The exit code, as a shell would have it: 128 and the signal's number for a node that a signal ended.
    #[must_use]
    pub fn code(&self) -> i32 {
        self.status.map_or(OVERDUE_CODE, code_of)
    }
}

impl Outcome {
    /// Whether no node failed and none ran out of time. Nodes that were killed on request do not count.
    #[must_use]
    pub fn success(&self) -> bool {
        self.exit_code() == 0
    }

    /// The exit code of the whole: that of the first node that failed, or 124 when time ran out.
    #[must_use]
    pub fn exit_code(&self) -> i32 {
        let overdue = || self.nodes.iter().any(|node| node.ending == Ending::Overdue);
        match self.first_failure {
            Some((_, code)) => code,
            None if overdue() => OVERDUE_CODE,
            None => 0,
        }
    }
}

/// What a test wants to read when it fails: each node's end, and what it printed.
impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} nodes, {:.3} s:", self.nodes.len(), self.elapsed.as_secs_f64())?;
        for node in &self.nodes {
            let why = match node.ending {
                Ending::Itself => "by itself",
                Ending::Killed => "killed on request",
                Ending::AfterAnother => "killed after another had failed",
                Ending::Overdue => "was still running when the time was over",
                Ending::Dropped => "killed when its cluster was dropped",
            };
            match node.status {
                Some(status) => writeln!(f, "  rank {}: {status}, {why}", node.rank)?,
                None => writeln!(f, "  rank {}: could not be ended", node.rank)?,
            }
            for (name, text) in [("stdout", &node.stdout), ("stderr", &node.stderr)] {
                for line in text.lines() {
                    writeln!(f, "    {name}: {line}")?;
                }
            }
        }
        Ok(())
    }
}
