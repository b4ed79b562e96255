//! How nodes ended, and what that makes of the whole.

use std::fmt;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

/// What a process adds to the number of the signal that ended it, to make an exit code, as shells do.
const SIGNAL_CODE_BASE: i32 = 128;

/// The exit code of what ran out of time, as `timeout` has it.
const OVERDUE_CODE: i32 = 124;

/// Why a node ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Ending {
    /// By itself, or by a signal from outside.
    Itself,
    /// [`Cluster::kill`](super::Cluster::kill) or [`Signaller::kill`](super::Signaller::kill) was called, or
    /// [`Launch::kill_at`](super::Launch::kill_at) had asked for it.
    Killed,
    /// Other nodes could not reach it. It was ended so that they need not wait until its lease runs out.
    Unreachable,
    /// Another node had failed, and the grace ran out.
    AfterAnother,
    /// [`Cluster::wait`](super::Cluster::wait) ran out of time.
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
    /// When it was sent the signal that ended it, if the launcher did that: the time since this machine was started, as
    /// `CLOCK_BOOTTIME` counts it.
    pub killed_at: Option<Duration>,
    /// What it printed, where that was captured.
    pub stdout: String,
    /// What it printed to standard error, where that was captured.
    pub stderr: String,
}

/// The exit code that a shell would make of `status`.
pub(super) fn code_of(status: ExitStatus) -> i32 {
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

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Ending::Itself => "by itself",
            Ending::Killed => "killed on request",
            Ending::Unreachable => "killed because others could not reach it",
            Ending::AfterAnother => "killed after another had failed",
            Ending::Overdue => "was still running when the time was over",
            Ending::Dropped => "killed when its cluster was dropped",
        })
    }
}

/// What a test wants to read when it fails: each node's end, and what it printed.
impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} nodes, {:.3} s:", self.nodes.len(), self.elapsed.as_secs_f64())?;
        for node in &self.nodes {
            match node.status {
                Some(status) => writeln!(f, "  rank {}: {status}, {}", node.rank, node.ending)?,
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
