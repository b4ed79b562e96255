//! What the nodes of a run counted, added up.

use crate::harness::Report;
use std::collections::BTreeMap;
use std::fmt;

/// What every node counts, and in this order it is printed: the work, what was done to it, and what the sessions did
/// about it.
const NAMES: [&str; 22] = [
    "faults",
    "pages_received",
    "messages_received",
    "connections",
    "splits",
    "delays",
    "partitions",
    "resets",
    "resets_in_handshake",
    "resets_in_frame",
    "resets_in_page",
    "resets_as_aimed",
    "bytes_lost",
    "bytes_late",
    "replays",
    "reordered",
    "gaps",
    "reconnects",
    "resent",
    "duplicates_dropped",
    "refused_frames",
    "refused_messages",
];

/// What a run of seeds must have done at least once, or it has shown nothing.
const NEEDED: [&str; 13] = [
    "splits",
    "delays",
    "partitions",
    "resets",
    "resets_in_handshake",
    "resets_in_frame",
    "resets_in_page",
    "replays",
    "reordered",
    "gaps",
    "reconnects",
    "resent",
    "duplicates_dropped",
];

/// Sums over all nodes, and over all runs that were added.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Runs that were added up.
    pub runs: u64,
    sums: BTreeMap<&'static str, u64>,
}

impl Counts {
    pub(super) fn read(report: &Report) -> Counts {
        let nodes = report.nodes.len();
        let sum = |name| (0..nodes).map(|rank| report.number::<u64>(rank, name)).sum();
        Counts { runs: 1, sums: NAMES.into_iter().map(|name| (name, sum(name))).collect() }
    }

    /// Adds those of further runs.
    pub fn add(&mut self, other: &Counts) {
        self.runs += other.runs;
        for (name, sum) in &other.sums {
            *self.sums.entry(name).or_default() += sum;
        }
    }

    /// What was counted under `name`; 0 where nothing was.
    #[must_use]
    pub fn of(&self, name: &str) -> u64 {
        self.sums.get(name).copied().unwrap_or(0)
    }

    /// All of them, in the order in which they are printed.
    pub fn entries(&self) -> impl Iterator<Item = (&'static str, u64)> {
        NAMES.into_iter().map(|name| (name, self.of(name)))
    }

    /// What should have come up in so many runs, and has not.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        NEEDED.into_iter().filter(|name| self.of(name) == 0).collect()
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, sum) in self.entries() {
            writeln!(f, "{:>22} {sum}", name.replace('_', " "))?;
        }
        write!(f, "{:>22} {}", "runs", self.runs)
    }
}
