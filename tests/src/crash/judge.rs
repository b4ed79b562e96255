//! Judges a run: what was promised, and what is there.

use super::Plan;
use crate::harness::Report;
use crate::worker::crash::LOOKS;
use std::fmt;
use std::time::Duration;

/// The exit code of a process that was killed, as shells have it.
const KILLED: i32 = 128 + 9;

/// The exit code of a process that touched a page that is lost, or whose node failed: `EX_SOFTWARE`.
const DOOMED: i32 = 70;

/// What came of one run, or of several.
#[derive(Clone, Default, Debug)]
pub struct Tally {
    /// Runs.
    pub runs: u64,
    /// Nodes that died.
    pub deaths: u64,
    /// Failpoints that were never met.
    pub unmet: u64,
    /// Items that were acknowledged.
    pub acknowledged: u64,
    /// Of those, of nodes that died.
    pub of_the_dead: u64,
    /// Pages that were lost, where some may be.
    pub lost_pages: u64,
    /// How long it took each survivor from the kill to when it served again, where the time of the kill is known.
    pub recoveries: Vec<Duration>,
}

impl Tally {
    /// Adds another.
    pub fn add(&mut self, other: &Tally) {
        self.runs += other.runs;
        self.deaths += other.deaths;
        self.unmet += other.unmet;
        self.acknowledged += other.acknowledged;
        self.of_the_dead += other.of_the_dead;
        self.lost_pages += other.lost_pages;
        self.recoveries.extend_from_slice(&other.recoveries);
    }

    /// The time that so many percent of the recoveries did not exceed.
    #[must_use]
    pub fn recovery(&self, percent: usize) -> Option<Duration> {
        let mut sorted = self.recoveries.clone();
        sorted.sort_unstable();
        sorted.get((sorted.len() * percent / 100).min(sorted.len().saturating_sub(1))).copied()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} runs, {} deaths, {} failpoints not met, {} items acknowledged ({} by the dead), {} pages lost",
            self.runs, self.deaths, self.unmet, self.acknowledged, self.of_the_dead, self.lost_pages
        )?;
        if let (Some(half), Some(most)) = (self.recovery(50), self.recovery(99)) {
            write!(f, ", recovery {half:.1?} p50, {most:.1?} p99")?;
        }
        Ok(())
    }
}

pub(super) fn judge(plan: &Plan, report: &Report) -> Tally {
    let mut tally = Tally { runs: 1, ..Tally::default() };
    let is_dead = |rank: &usize| report.nodes[*rank].code == KILLED || has_failed(report, *rank);
    let dead: Vec<usize> = plan.victims.iter().map(|rank| *rank as usize).filter(is_dead).collect();
    tally.deaths = dead.len() as u64;
    tally.unmet = plan.victims.len() as u64 - tally.deaths;
    let mut counting = Vec::new();
    let alive = (0..report.nodes.len()).filter(|rank| !dead.contains(rank));
    for rank in alive.clone() {
        let code = report.nodes[rank].code;
        let told = report.nodes[rank].stderr.iter().any(|line| line.contains("the page is lost"));
        if code == DOOMED && told && plan.case.may_lose {
            continue;
        }
        assert_eq!(code, 0, "{plan}\nrank {rank} did not end well: {report}");
        tally.lost_pages = tally.lost_pages.max(report.number(rank, "lost pages"));
        assert_eq!(report.fact(rank, "refused messages"), "0", "{plan}\n{report}");
        if report.fact(rank, "counted") == "1" {
            counting.push(rank);
        }
    }
    for rank in alive.clone() {
        if report.said(rank, "lost pages").is_some() {
            assert_eq!(report.number::<u64>(rank, "lost pages"), tally.lost_pages, "{plan}\n{report}");
        }
    }
    let is_complete = tally.lost_pages == 0;
    assert!(is_complete || plan.case.may_lose, "{plan}\npages are lost: {report}");
    if is_complete {
        assert_eq!(counting, alive.clone().collect::<Vec<_>>(), "{plan}\nsomebody did not count: {report}");
    }
    for name in ["items", "moves"] {
        check_counts(plan, report, name, &counting);
    }
    let alive: Vec<usize> = alive.collect();
    if is_complete {
        looks_of(&alive, report).into_iter().for_each(|look| report.check_pages_of(&alive, look));
    }
    for rank in 0..report.nodes.len() {
        let acked = said_number(report, rank, "acked");
        tally.acknowledged += acked;
        tally.of_the_dead += if dead.contains(&rank) { acked } else { 0 };
    }
    tally.recoveries = recoveries(report, &dead);
    tally
}

/// Whether the node's own thread failed, and the process ended for it.
fn has_failed(report: &Report, rank: usize) -> bool {
    let node = &report.nodes[rank];
    node.code == DOOMED && node.stderr.iter().any(|line| line.contains("the engine panicked"))
}

/// All that count find the same, and of each rank as much as it was told to be there, or one more that was under way.
fn check_counts(plan: &Plan, report: &Report, name: &str, counting: &[usize]) {
    let Some(first) = counting.first() else { return };
    let found = report.fact(*first, name);
    assert!(counting.iter().all(|rank| report.fact(*rank, name) == found), "{plan}\n{name} differ: {report}");
    let acked = if name == "items" { "acked" } else { "moved" };
    for (rank, found) in found.split(',').take(report.nodes.len()).enumerate() {
        let found: u64 = found.parse().expect("a count");
        let acked = said_number(report, rank, acked);
        assert!(
            (acked..=acked + 1).contains(&found),
            "{plan}\nrank {rank} was told that {acked} {name} are safe, and {found} are there: {report}"
        );
    }
}

/// The looks at which the same members were there for all, and none of them has died since.
fn looks_of(alive: &[usize], report: &Report) -> Vec<u64> {
    let all: Vec<String> = alive.iter().map(usize::to_string).collect();
    let all = all.join(",");
    let is_theirs =
        |round: &u64| alive.iter().all(|rank| report.fact(*rank, &format!("members {round}")) == all);
    (0..LOOKS).filter(is_theirs).collect()
}

fn said_number(report: &Report, rank: usize, name: &str) -> u64 {
    report.said(rank, name).map_or(0, |text| text.parse().expect("a count"))
}

/// For each survivor, from the last kill to when its last recovery ended.
fn recoveries(report: &Report, dead: &[usize]) -> Vec<Duration> {
    let killed: Option<Vec<Duration>> = dead.iter().map(|rank| report.nodes[*rank].killed_at).collect();
    let Some(last) = killed.and_then(|killed| killed.into_iter().max()) else { return Vec::new() };
    let resumed = |rank: usize| {
        let lines = report.nodes[rank].stdout.iter().rev();
        let found =
            lines.filter_map(|line| line.strip_prefix("resumed in view ")?.split_once('=')?.1.parse().ok());
        found.map(Duration::from_nanos).next()
    };
    let alive = (0..report.nodes.len()).filter(|rank| !dead.contains(rank));
    alive.filter_map(resumed).filter_map(|resumed| resumed.checked_sub(last)).collect()
}
