//! What became of a scenario's nodes, and what a test asserts about that.

use super::AT;
use dsm_node::launch::{Ending, Line, NodeOutcome, Stream};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// What became of a scenario.
#[derive(Debug)]
pub struct Report {
    /// The scenario.
    pub name: String,
    /// Its nodes, by rank.
    pub nodes: Vec<NodeReport>,
    /// How long it took.
    pub elapsed: Duration,
}

/// What became of one node.
#[derive(Debug)]
pub struct NodeReport {
    /// Its exit code; 128 and the signal's number if a signal ended it.
    pub code: i32,
    /// Why it ended.
    pub ending: Ending,
    /// When it was killed, if the harness did that, by `CLOCK_BOOTTIME`.
    pub killed_at: Option<Duration>,
    /// What it printed to standard output.
    pub stdout: Vec<String>,
    /// What it printed to standard error.
    pub stderr: Vec<String>,
}

impl NodeReport {
    pub(super) fn new(outcome: &NodeOutcome, lines: Vec<Line>) -> NodeReport {
        let (out, err): (Vec<Line>, Vec<Line>) =
            lines.into_iter().partition(|line| line.stream == Stream::Stdout);
        let texts = |lines: Vec<Line>| lines.into_iter().map(|line| line.text).collect();
        NodeReport {
            code: outcome.code(),
            ending: outcome.ending,
            killed_at: outcome.killed_at,
            stdout: texts(out),
            stderr: texts(err),
        }
    }
}

impl Report {
    /// All nodes must have ended well.
    ///
    /// # Panics
    /// If one has not.
    pub fn expect_success(&self) {
        assert!(self.nodes.iter().all(|node| node.code == 0), "{self}");
    }

    /// A node must have ended with this code.
    ///
    /// # Panics
    /// If it has not.
    pub fn expect_code(&self, rank: usize, code: i32) {
        assert_eq!(self.nodes[rank].code, code, "rank {rank} of {self}");
    }

    /// What `rank` said about `name` last.
    ///
    /// # Panics
    /// If it said nothing about it.
    pub fn fact(&self, rank: usize, name: &str) -> &str {
        let found = self.said(rank, name);
        found.unwrap_or_else(|| panic!("rank {rank} did not say what {name:?} is: {self}"))
    }

    /// What `rank` said about `name` last, if it said anything.
    #[must_use]
    pub fn said(&self, rank: usize, name: &str) -> Option<&str> {
        let mut facts = self.nodes[rank].stdout.iter().rev().filter_map(|line| line.split_once('='));
        facts.find(|(found, _)| *found == name).map(|(_, value)| value)
    }

    /// As [`Report::fact`], read as a `T`.
    ///
    /// # Panics
    /// If it is none.
    pub fn number<T: FromStr>(&self, rank: usize, name: &str) -> T {
        let text = self.fact(rank, name);
        text.parse().unwrap_or_else(|_| panic!("{name:?} of rank {rank} is {text:?}: {self}"))
    }

    /// What all nodes say about `name`, which must be the same.
    ///
    /// # Panics
    /// If it is not.
    pub fn agreed(&self, name: &str) -> &str {
        let first = self.fact(0, name);
        for rank in 1..self.nodes.len() {
            assert_eq!(self.fact(rank, name), first, "{name:?} at rank {rank}: {self}");
        }
        first
    }

    /// The only line that a node printed to standard error.
    ///
    /// # Panics
    /// If there is another number of them.
    pub fn only_complaint(&self, rank: usize) -> &str {
        let complaints = &self.nodes[rank].stderr;
        assert_eq!(complaints.len(), 1, "rank {rank} should complain in one line: {self}");
        &complaints[0]
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "scenario {:?}, {:.3} s:", self.name, self.elapsed.as_secs_f64())?;
        for (rank, node) in self.nodes.iter().enumerate() {
            writeln!(f, "  rank {rank}: exit code {}, {:?}", node.code, node.ending)?;
            let at = node.stdout.iter().rev().find_map(|line| line.strip_prefix(AT));
            writeln!(f, "    was at: {}", at.unwrap_or("its start"))?;
            for line in node.stdout.iter().filter(|line| !line.starts_with(AT)) {
                writeln!(f, "    stdout: {line}")?;
            }
            for line in &node.stderr {
                writeln!(f, "    stderr: {line}")?;
            }
        }
        Ok(())
    }
}
