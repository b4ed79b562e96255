//! What nodes report, and what their figures add up to. Pure: lines in, a table and a summary out.

use super::check::Verdict;
use dsm_node::launch::Outcome;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// One line of a node to the process that started it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeLine {
    /// So many items of this node's share are in the list.
    Appended {
        /// How many.
        count: u64,
    },
    /// So many items of the whole list were checked.
    Checked {
        /// How many.
        count: u64,
    },
    /// How long some of the node's faults took; said before the report, in as many lines as it takes.
    Faults {
        /// Pairs of a time in nanoseconds and how often it came.
        nanos: Vec<(u64, u64)>,
    },
    /// The node is done.
    Report(Box<Report>),
    /// The node cannot go on.
    Failed {
        /// Why.
        message: String,
    },
}

impl NodeLine {
    /// The line.
    pub fn to_json(&self) -> String {
        // A value of numbers and strings has a JSON form always; an empty line would be shown to the user.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// A node's figures.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Report {
    /// Items whose appending was acknowledged.
    pub acknowledged: u64,
    /// What its walk found.
    pub verdict: Verdict,
    /// Faults of loads.
    pub read_faults: u64,
    /// Faults of stores.
    pub write_faults: u64,
    /// Pages whose bytes came from other nodes.
    pub pages_moved: u64,
    /// Bytes that came from other nodes.
    pub bytes_moved: u64,
}

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
    report: Option<Report>,
    failure: Option<String>,
}

/// The result of a run, field by field what `--json` prints.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// Whether the list is intact and no node failed.
    pub ok: bool,
    /// Nodes started.
    pub nodes: usize,
    /// Nodes that reported and ended well.
    pub survivors: usize,
    /// Items whose appending was acknowledged to a node.
    pub items_acknowledged: u64,
    /// Items that every node found.
    pub items_found: u64,
    /// Acknowledged items that some node did not find.
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
    /// How long recovery took; nothing was killed, so there was none.
    pub recovery_ms: Option<f64>,
    /// Pages whose contents are gone.
    pub lost_pages: u64,
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
            NodeLine::Appended { count } => node.appended = count,
            NodeLine::Checked { count } => node.checked = count,
            NodeLine::Faults { nanos } => node.fault_nanos.extend(nanos),
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

    /// What nodes found wrong with the list.
    pub fn damage(&self) -> String {
        let of_node = |(rank, node): (usize, &Progress)| match &node.report {
            None => Some(format!("rank {rank} did not report")),
            Some(report) if report.verdict.is_intact() => None,
            Some(Report { verdict, .. }) => Some(format!(
                "rank {rank} missed {} of {} items and met {} twice or out of order",
                verdict.missing, self.items, verdict.misplaced
            )),
        };
        self.nodes.iter().enumerate().filter_map(of_node).collect::<Vec<_>>().join(", ")
    }

    /// Adds everything up.
    pub fn summary(&self, outcome: &Outcome, elapsed: Duration) -> Summary {
        let ended_well = |rank: usize| outcome.nodes.get(rank).is_some_and(|node| node.code() == 0);
        let reported: Vec<(usize, &Report)> = self
            .nodes
            .iter()
            .enumerate()
            .filter_map(|(rank, node)| Some((rank, node.report.as_ref()?)))
            .collect();
        let survivors = reported.iter().filter(|(rank, _)| ended_well(*rank)).count();
        let sum = |of: fn(&Report) -> u64| reported.iter().map(|(_, report)| of(report)).sum::<u64>();
        let acknowledged = self.nodes.iter().map(|node| node.appended).sum::<u64>();
        let found = reported.iter().map(|(_, report)| report.verdict.found).min().unwrap_or(0);
        let intact = reported.iter().all(|(_, report)| report.verdict.is_intact());
        let faults = merge(self.nodes.iter().map(|node| node.fault_nanos.as_slice()));
        Summary {
            ok: outcome.success() && intact && survivors == self.nodes.len() && found == self.items,
            nodes: self.nodes.len(),
            survivors,
            items_acknowledged: acknowledged,
            items_found: found,
            items_lost: acknowledged.saturating_sub(found),
            read_faults: sum(|report| report.read_faults),
            write_faults: sum(|report| report.write_faults),
            pages_moved: sum(|report| report.pages_moved),
            bytes_moved: sum(|report| report.bytes_moved),
            fault_p50_us: percentile_us(&faults, 50),
            fault_p99_us: percentile_us(&faults, 99),
            elapsed_s: (elapsed.as_secs_f64() * 1e3).round() / 1e3,
            recovery_ms: None,
            lost_pages: 0,
        }
    }

    /// A row per node that reported.
    pub fn table(&self) -> String {
        let head = ["rank", "items", "read faults", "write faults", "pages in", "MiB in", "p50 us", "p99 us"];
        let row = |(rank, node): (usize, &Progress)| {
            let report = node.report.as_ref()?;
            let faults = merge([node.fault_nanos.as_slice()]);
            Some([
                rank.to_string(),
                report.acknowledged.to_string(),
                report.read_faults.to_string(),
                report.write_faults.to_string(),
                report.pages_moved.to_string(),
                format!("{:.1}", mebibytes(report.bytes_moved)),
                format!("{:.1}", percentile_us(&faults, 50)),
                format!("{:.1}", percentile_us(&faults, 99)),
            ])
        };
        let rows = self.nodes.iter().enumerate().filter_map(row);
        align(std::iter::once(head.map(str::to_owned)).chain(rows).collect())
    }
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
        let verdict =
            if self.ok { "every node found each once and in order" } else { "the list is NOT intact" };
        writeln!(
            f,
            "{} items appended by {} nodes in {:.2} s: {verdict}.",
            self.items_acknowledged, self.nodes, self.elapsed_s
        )?;
        writeln!(
            f,
            "{} pages and {:.1} MiB moved; faults took {:.1} us (p50) and {:.1} us (p99).",
            self.pages_moved,
            mebibytes(self.bytes_moved),
            self.fault_p50_us,
            self.fault_p99_us
        )
    }
}

fn mebibytes(bytes: u64) -> f64 {
    const MIB: f64 = (1u64 << 20) as f64;
    bytes as f64 / MIB
}

/// Columns to the right, two spaces apart.
fn align<const N: usize>(rows: Vec<[String; N]>) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let line = |row: &[String; N]| {
        let cells: Vec<String> =
            row.iter().zip(widths).map(|(cell, width)| format!("{cell:>width$}")).collect();
        format!("{}\n", cells.join("  "))
    };
    rows.iter().map(line).collect()
}

/// The distributions of several nodes as one.
fn merge<'a>(parts: impl IntoIterator<Item = &'a [(u64, u64)]>) -> BTreeMap<u64, u64> {
    let mut whole = BTreeMap::new();
    for &(nanos, count) in parts.into_iter().flatten() {
        *whole.entry(nanos).or_insert(0) += count;
    }
    whole
}

/// The time below which `percent` percent of the counted ones lie, in microseconds; 0 if none were counted.
fn percentile_us(times: &BTreeMap<u64, u64>, percent: u64) -> f64 {
    const NANOS_PER_MICRO: f64 = 1e3;
    let total: u64 = times.values().sum();
    let rank = (total.saturating_mul(percent)).div_ceil(100);
    let mut seen = 0;
    let found = times.iter().find(|(_, count)| {
        seen += *count;
        seen >= rank
    });
    found.map_or(0.0, |(nanos, _)| *nanos as f64 / NANOS_PER_MICRO)
}

#[cfg(test)]
mod tests {
    use super::*;
    use dsm_node::launch::{Ending, NodeOutcome};
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    fn outcome(codes: &[i32]) -> Outcome {
        const EXIT_CODE_SHIFT: i32 = 8;
        let node = |(rank, code): (u32, &i32)| NodeOutcome {
            rank,
            status: Some(ExitStatus::from_raw(code << EXIT_CODE_SHIFT)),
            ending: Ending::Itself,
            stdout: String::new(),
            stderr: String::new(),
        };
        let failed = (0..).zip(codes).find(|(_, code)| **code != 0);
        Outcome {
            nodes: (0..).zip(codes).map(node).collect(),
            first_failure: failed.map(|(rank, code)| (rank, *code)),
            elapsed: Duration::ZERO,
        }
    }

    fn report(found: u64, missing: u64) -> NodeLine {
        NodeLine::Report(Box::new(Report {
            acknowledged: 5,
            verdict: Verdict { found, missing, misplaced: 0 },
            read_faults: 3,
            pages_moved: 2,
            ..Report::default()
        }))
    }

    fn tally(lines: [NodeLine; 2]) -> Tally {
        let mut tally = Tally::new(2, 10);
        for (rank, line) in (0..).zip(lines) {
            tally.take(rank, NodeLine::Appended { count: 5 });
            // In two lines, as from a node that has much to say.
            tally.take(rank, NodeLine::Faults { nanos: vec![(10_000, 98)] });
            tally.take(rank, NodeLine::Faults { nanos: vec![(90_000, 2)] });
            let line = serde_json::from_str(&line.to_json()).expect("a line survives its way");
            tally.take(rank, line);
        }
        tally
    }

    #[test]
    fn the_json_object_has_exactly_the_agreed_fields() {
        let summary =
            tally([report(10, 0), report(10, 0)]).summary(&outcome(&[0, 0]), Duration::from_millis(1500));
        let value: serde_json::Value = serde_json::from_str(&summary.to_json()).expect("JSON");
        let fields: Vec<_> = value.as_object().expect("an object").keys().map(String::as_str).collect();
        let mut agreed = [
            "ok",
            "nodes",
            "survivors",
            "items_acknowledged",
            "items_found",
            "items_lost",
            "read_faults",
            "write_faults",
            "pages_moved",
            "bytes_moved",
            "fault_p50_us",
            "fault_p99_us",
            "elapsed_s",
            "recovery_ms",
            "lost_pages",
        ];
        agreed.sort_unstable();
        assert_eq!(fields, agreed);
        assert_eq!(value["ok"], true);
        assert_eq!(value["survivors"], 2);
        assert_eq!(value["items_acknowledged"], 10);
        assert_eq!(value["items_lost"], 0);
        assert_eq!(value["read_faults"], 6);
        assert_eq!(value["pages_moved"], 4);
        assert_eq!(value["fault_p50_us"], 10.0);
        assert_eq!(value["fault_p99_us"], 90.0);
        assert_eq!(value["elapsed_s"], 1.5);
        assert!(value["recovery_ms"].is_null());
    }

    #[test]
    fn one_node_that_misses_an_item_spoils_the_whole() {
        let tally = tally([report(10, 0), report(9, 1)]);
        let summary = tally.summary(&outcome(&[0, 0]), Duration::ZERO);
        assert!(!summary.ok);
        assert_eq!((summary.items_found, summary.items_lost), (9, 1));
        assert_eq!(tally.damage(), "rank 1 missed 1 of 10 items and met 0 twice or out of order");
    }

    #[test]
    fn a_node_that_fails_is_no_survivor() {
        let tally = tally([report(10, 0), NodeLine::Failed { message: String::from("no such luck") }]);
        let summary = tally.summary(&outcome(&[0, 1]), Duration::ZERO);
        assert!(!summary.ok);
        assert_eq!((summary.nodes, summary.survivors), (2, 1));
        assert_eq!(tally.failure(1), Some("no such luck"));
        assert!(tally.whereabouts().contains("rank 1 had appended 5 and checked 0"));
    }

    #[test]
    fn progress_ends_where_it_should() {
        let tally = tally([report(10, 0), report(10, 0)]);
        assert_eq!((tally.steps(), tally.position()), (30, 30));
    }

    #[test]
    fn percentiles_of_nothing_and_of_one() {
        assert_eq!(percentile_us(&BTreeMap::new(), 50), 0.0);
        assert_eq!(percentile_us(&BTreeMap::from([(7_000, 1)]), 99), 7.0);
    }

    #[test]
    fn the_table_has_a_row_per_node_that_reported() {
        let table = tally([report(10, 0), NodeLine::Failed { message: String::new() }]).table();
        let lines: Vec<_> = table.lines().collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0].len(), lines[1].len(), "{table}");
    }
}
