//! What the nodes' lines and figures add up to: whether the list is intact, in one object, and in words. Pure.
//!
//! What a node acknowledged counts when it was heard. All of it must be found by every survivor, once and in order. Of a
//! node that was killed more may be there than was heard of: what it could not say any more, and one item that was about
//! to be acknowledged. How much that is, all survivors must agree on.

use super::check::{Verdict, share};
use super::line::{Break, NodeLine, Report};
use super::table;
use dsm_node::launch::{Ending, NodeOutcome, Outcome};
use serde::Serialize;
use std::fmt;
use std::time::Duration;

/// What is known of all nodes.
pub struct Tally {
    items: u64,
    nodes: Vec<Progress>,
}

/// What is known of one node.
#[derive(Clone, Default)]
struct Progress {
    appended: u64,
    checked: u64,
    fault_nanos: Vec<(u64, u64)>,
    /// When it got over deaths, by the machine's clock since its start.
    recovered: Vec<u64>,
    broken: Option<Break>,
    report: Option<Report>,
    failure: Option<String>,
}

/// The result of a run, field by field what `--json` prints.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// Whether the list is intact, nothing acknowledged is missing, and no node failed.
    pub ok: bool,
    /// Nodes started.
    pub nodes: usize,
    /// Nodes that walked the list, and were not killed.
    pub survivors: usize,
    /// Items whose appending a node has reported as acknowledged.
    pub items_acknowledged: u64,
    /// Items that every survivor found.
    pub items_found: u64,
    /// Acknowledged items that some survivor did not find.
    pub items_lost: u64,
    /// Faults of loads, of all nodes.
    pub read_faults: u64,
    /// Faults of stores, of all nodes.
    pub write_faults: u64,
    /// Pages whose bytes moved between nodes.
    pub pages_moved: u64,
    /// Bytes that moved between nodes.
    pub bytes_moved: u64,
    /// The median fault, in microseconds.
    pub fault_p50_us: f64,
    /// The 99th percentile of faults, in microseconds.
    pub fault_p99_us: f64,
    /// From the start of the first node to the end of the last.
    pub elapsed_s: f64,
    /// From a kill until a survivor had what it had waited for; the longest, if there were several kills.
    pub recovery_ms: Option<f64>,
    /// Pages whose contents are gone.
    pub lost_pages: u64,
    /// The ranks that were killed.
    #[serde(skip)]
    pub killed: Vec<u32>,
}

impl Tally {
    /// Nothing was reported yet.
    pub fn new(nodes: u32, items: u64) -> Tally {
        Tally { items, nodes: (0..nodes).map(|_| Progress::default()).collect() }
    }

    /// Takes one line of a node.
    pub fn take(&mut self, rank: u32, line: NodeLine) {
        let Some(node) = self.nodes.get_mut(rank as usize) else { return };
        match line {
            NodeLine::Appended { count } | NodeLine::Reached { count, .. } => {
                node.appended = node.appended.max(count);
            }
            NodeLine::Checked { count } => node.checked = count,
            NodeLine::Faults { nanos } => node.fault_nanos.extend(nanos),
            NodeLine::Recovered { at } => node.recovered.push(at),
            NodeLine::Broken(broken) => node.broken = Some(broken),
            NodeLine::Report(report) => {
                node.checked = self.items;
                node.report = Some(*report);
            }
            NodeLine::Failed { message } => node.failure = Some(message),
        }
    }

    /// Steps in all: each item is appended once, and checked by every node.
    pub fn steps(&self) -> u64 {
        self.items.saturating_mul(self.nodes.len() as u64 + 1)
    }

    /// Steps done.
    pub fn position(&self) -> u64 {
        self.nodes.iter().map(|node| node.appended.saturating_add(node.checked)).fold(0, u64::saturating_add)
    }

    /// Why a node failed, in its own words.
    pub fn failure(&self, rank: u32) -> Option<&str> {
        self.nodes.get(rank as usize)?.failure.as_deref()
    }

    /// How far each node came.
    pub fn whereabouts(&self) -> String {
        let of_node = |(rank, node): (usize, &Progress)| match &node.report {
            Some(_) => format!("rank {rank} was done"),
            None => format!("rank {rank} had appended {} and checked {}", node.appended, node.checked),
        };
        self.nodes.iter().enumerate().map(of_node).collect::<Vec<_>>().join(", ")
    }

    /// Where the list breaks for the first survivor that came to such a place.
    pub fn broken(&self) -> Option<(usize, Break)> {
        self.nodes.iter().enumerate().find_map(|(rank, node)| Some((rank, node.broken?)))
    }

    /// What is wrong with the list as survivors found it, in words.
    pub fn damage(&self, outcome: &Outcome) -> String {
        let of_node = |(rank, node): (usize, &Progress)| {
            let Some(report) = &node.report else { return Some(format!("rank {rank} did not report")) };
            let verdict = report.verdict.as_ref()?;
            let (missing, gaps) = (self.missing(verdict), verdict.gaps());
            if missing == 0 && gaps == 0 && verdict.misplaced == 0 {
                return None;
            }
            Some(format!(
                "rank {rank} missed {missing} acknowledged items, met {} twice or out of order, and saw {gaps} gaps",
                verdict.misplaced
            ))
        };
        let survivors = self.nodes.iter().enumerate().filter(|(rank, _)| !was_killed(outcome, *rank));
        let mut damage: Vec<String> = survivors.filter_map(of_node).collect();
        if damage.is_empty() {
            damage.push(match self.verdicts(outcome).next() {
                None => String::from("no node is left that could tell"),
                Some(_) => String::from("survivors found different items, or more than were appended"),
            });
        }
        damage.join(", ")
    }

    /// Adds everything up.
    pub fn summary(&self, outcome: &Outcome, elapsed: Duration) -> Summary {
        let reports: Vec<&Report> = self.nodes.iter().filter_map(|node| node.report.as_ref()).collect();
        let sum = |of: fn(&Report) -> u64| reports.iter().map(|report| of(report)).sum::<u64>();
        let faults = table::merge(self.nodes.iter().map(|node| node.fault_nanos.as_slice()));
        let killed: Vec<u32> = (0..).zip(&self.nodes).map(|(rank, _)| rank).collect();
        let killed = killed.into_iter().filter(|rank| was_killed(outcome, *rank as usize)).collect();
        Summary {
            ok: outcome.success() && self.is_intact(outcome),
            nodes: self.nodes.len(),
            survivors: self.survivors(outcome).count(),
            items_acknowledged: self.nodes.iter().map(|node| node.appended).sum(),
            items_found: self.survivors(outcome).map(Progress::found).min().unwrap_or(0),
            items_lost: self.survivors(outcome).map(|node| self.lost(node)).max().unwrap_or(0),
            read_faults: sum(|report| report.read_faults),
            write_faults: sum(|report| report.write_faults),
            pages_moved: sum(|report| report.pages_moved),
            bytes_moved: sum(|report| report.bytes_moved),
            fault_p50_us: table::percentile_us(&faults, 50),
            fault_p99_us: table::percentile_us(&faults, 99),
            elapsed_s: thousandths(elapsed.as_secs_f64()),
            recovery_ms: self.recovery(outcome).map(|time| thousandths(time.as_secs_f64() * 1e3)),
            lost_pages: self.lost_pages(&reports),
            killed,
        }
    }

    /// Whether every node that was not killed found the same whole list.
    fn is_intact(&self, outcome: &Outcome) -> bool {
        let verdicts: Vec<&Verdict> = self.verdicts(outcome).collect();
        let living = (0..self.nodes.len()).filter(|rank| !was_killed(outcome, *rank)).count();
        let is_whole =
            |verdict: &&Verdict| verdict.misplaced == 0 && verdict.gaps() == 0 && self.missing(verdict) == 0;
        let exact = |verdict: &&Verdict| {
            (0..).zip(&self.nodes).zip(&verdict.ranks).all(|((rank, node), met)| {
                was_killed(outcome, rank as usize)
                    || (met.count == node.appended && met.count == share(self.items, self.size(), rank))
            })
        };
        !verdicts.is_empty()
            && verdicts.len() == living
            && verdicts.iter().all(is_whole)
            && verdicts.iter().all(exact)
            && verdicts.windows(2).all(|pair| pair[0] == pair[1])
    }

    fn size(&self) -> u32 {
        u32::try_from(self.nodes.len()).unwrap_or(u32::MAX)
    }

    /// Acknowledged items that a walk did not meet.
    fn missing(&self, verdict: &Verdict) -> u64 {
        let counts = verdict.ranks.iter().map(|met| met.count).chain(std::iter::repeat(0));
        self.nodes.iter().zip(counts).map(|(node, count)| node.appended.saturating_sub(count)).sum()
    }

    /// Acknowledged items that a survivor did not find: of a list that breaks, all behind the break.
    fn lost(&self, node: &Progress) -> u64 {
        match node.report.as_ref().and_then(|report| report.verdict.as_ref()) {
            Some(verdict) => self.missing(verdict),
            None => self.nodes.iter().map(|node| node.appended).sum::<u64>().saturating_sub(node.found()),
        }
    }

    /// Nodes that came to the end of their walk, wherever that was, and were not killed.
    fn survivors(&self, outcome: &Outcome) -> impl Iterator<Item = &Progress> {
        let ended_well = |rank: usize, node: &Progress| {
            !was_killed(outcome, rank) && (node.broken.is_some() || code_of(outcome, rank) == Some(0))
        };
        let reported = self.nodes.iter().enumerate().filter(|(_, node)| node.report.is_some());
        reported.filter(move |(rank, node)| ended_well(*rank, node)).map(|(_, node)| node)
    }

    fn verdicts(&self, outcome: &Outcome) -> impl Iterator<Item = &Verdict> {
        self.survivors(outcome).filter_map(|node| node.report.as_ref()?.verdict.as_ref())
    }

    /// From each kill until a survivor had what it had waited for: the longest.
    fn recovery(&self, outcome: &Outcome) -> Option<Duration> {
        let recovered: Vec<Duration> =
            self.nodes.iter().flat_map(|node| &node.recovered).map(|at| Duration::from_nanos(*at)).collect();
        let kills = outcome.nodes.iter().filter(|node| is_killed(node)).filter_map(|node| node.killed_at);
        let after = |kill: Duration| recovered.iter().filter_map(|at| at.checked_sub(kill)).min();
        kills.filter_map(after).max()
    }

    /// As many as the best informed node knows of.
    fn lost_pages(&self, reports: &[&Report]) -> u64 {
        let known = reports.iter().map(|report| report.lost_pages).max().unwrap_or(0);
        known.max(u64::from(self.broken().is_some()))
    }

    /// A row per node that reported or was killed.
    pub fn table(&self, outcome: &Outcome) -> String {
        let head = ["rank", "items", "read faults", "write faults", "pages in", "MiB in", "p50 us", "p99 us"];
        let row = |(rank, node): (usize, &Progress)| {
            let Some(report) = node.report.as_ref().filter(|_| !was_killed(outcome, rank)) else {
                let killed = [rank.to_string(), node.appended.to_string(), String::from("killed")];
                let mut cells: [String; 8] = Default::default();
                cells[..killed.len()].clone_from_slice(&killed);
                return was_killed(outcome, rank).then_some(cells);
            };
            let faults = table::merge([node.fault_nanos.as_slice()]);
            Some([
                rank.to_string(),
                report.acknowledged.to_string(),
                report.read_faults.to_string(),
                report.write_faults.to_string(),
                report.pages_moved.to_string(),
                format!("{:.1}", table::mebibytes(report.bytes_moved)),
                format!("{:.1}", table::percentile_us(&faults, 50)),
                format!("{:.1}", table::percentile_us(&faults, 99)),
            ])
        };
        let rows = self.nodes.iter().enumerate().filter_map(row);
        table::align(std::iter::once(head.map(str::to_owned)).chain(rows).collect())
    }
}

impl Progress {
    /// Items that the node met: up to where the list breaks, if it does.
    fn found(&self) -> u64 {
        let verdict = self.report.as_ref().and_then(|report| report.verdict.as_ref());
        verdict.map_or_else(|| self.broken.and_then(|broken| broken.walked).unwrap_or(0), Verdict::found)
    }
}

fn is_killed(node: &NodeOutcome) -> bool {
    node.ending == Ending::Killed
}

fn was_killed(outcome: &Outcome, rank: usize) -> bool {
    outcome.nodes.get(rank).is_some_and(is_killed)
}

fn code_of(outcome: &Outcome, rank: usize) -> Option<i32> {
    outcome.nodes.get(rank).map(NodeOutcome::code)
}

/// Three digits behind the point are enough of seconds and milliseconds.
fn thousandths(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

impl Summary {
    /// The summary as one line.
    pub fn to_json(&self) -> String {
        // A value of numbers has a JSON form always.
        serde_json::to_string(self).unwrap_or_default()
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let who = if self.killed.is_empty() { "every node" } else { "every survivor" };
        let verdict = match self.ok {
            true => format!("{who} found each once and in order"),
            false => String::from("the list is NOT intact"),
        };
        writeln!(
            f,
            "{} items appended by {} nodes in {:.2} s: {verdict}.",
            self.items_acknowledged, self.nodes, self.elapsed_s
        )?;
        for rank in &self.killed {
            writeln!(f, "Rank {rank} was killed.")?;
        }
        if let Some(recovery_ms) = self.recovery_ms {
            writeln!(f, "Survivors had what they had waited for {recovery_ms:.1} ms after the kill.")?;
        }
        writeln!(
            f,
            "{} pages and {:.1} MiB moved; faults took {:.1} us (p50) and {:.1} us (p99).",
            self.pages_moved,
            table::mebibytes(self.bytes_moved),
            self.fault_p50_us,
            self.fault_p99_us
        )
    }
}

#[cfg(test)]
mod tests;
