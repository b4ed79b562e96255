//! What was seen, beside what may be seen: per configuration, per family and layout, and in all. Tables for people, and
//! one JSON object for programs. Pure: nothing is run or printed here.

use super::outcome::{Outcome, all_whole};
use super::place::{Layout, Placement};
use super::program::{Family, Flavour, Program};
use super::run::Options;
use super::schedule::Configuration;
use super::verdict::{Judge, Verdict};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};
use std::time::Duration;

/// One outcome of one configuration.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Judged {
    /// Which.
    pub outcome: Outcome,
    /// How often it was seen.
    pub count: u64,
    /// What is said about it.
    pub verdict: Verdict,
}

/// What was seen of one configuration on one placement.
#[derive(Clone, PartialEq, Debug)]
pub struct Row {
    /// The family.
    pub family: Family,
    /// Its orderings.
    pub flavour: Flavour,
    /// Where its variables were.
    pub layout: Layout,
    /// Where its threads were.
    pub placement: Placement,
    /// How often it was executed.
    pub iterations: u64,
    /// All outcomes without torn values, and all that were seen.
    pub outcomes: Vec<Judged>,
    /// How many outcomes x86 allows.
    pub possible: usize,
    /// How long it took.
    pub seconds: f64,
}

/// What was seen in all.
#[derive(Clone, PartialEq, Debug)]
pub struct Report {
    rows: Vec<Row>,
    seed: u64,
    elapsed: Duration,
}

impl Row {
    /// Judges what was counted.
    #[must_use]
    pub fn new(
        family: Family,
        configuration: Configuration,
        placement: Placement,
        counts: &BTreeMap<Outcome, u64>,
        seconds: f64,
        sequential: bool,
    ) -> Row {
        let Configuration { flavour, layout, .. } = configuration;
        let program = Program::new(family.shape, flavour);
        let straddles = layout == Layout::Straddle;
        let judge = match sequential {
            true => Judge::sequential(&program, straddles),
            false => Judge::new(&program, straddles),
        };
        let all: BTreeSet<Outcome> =
            all_whole(&family.shape).into_iter().chain(counts.keys().copied()).collect();
        let judged = |outcome| Judged {
            outcome,
            count: counts.get(&outcome).copied().unwrap_or(0),
            verdict: judge.judge(outcome),
        };
        Row {
            family,
            flavour,
            layout,
            placement,
            iterations: counts.values().sum(),
            outcomes: all.into_iter().map(judged).collect(),
            possible: judge.possible(),
            seconds,
        }
    }

    fn sum(&self, is_counted: impl Fn(&Judged) -> bool) -> u64 {
        self.outcomes.iter().filter(|judged| is_counted(judged)).map(|judged| judged.count).sum()
    }

    /// How many forbidden outcomes were seen.
    #[must_use]
    pub fn forbidden(&self) -> u64 {
        self.sum(|judged| judged.verdict.is_forbidden())
    }

    /// How many weak outcomes were seen that are allowed.
    #[must_use]
    pub fn weak(&self) -> u64 {
        self.sum(|judged| judged.verdict.is_weak())
    }

    /// Whether there are weak outcomes that may be seen.
    fn may_be_weak(&self) -> bool {
        self.outcomes.iter().any(|judged| judged.verdict.is_weak())
    }

    fn kinds(&self) -> usize {
        self.outcomes.iter().filter(|judged| judged.count > 0).count()
    }

    fn title(&self) -> String {
        format!("{} {} {}", self.family.name(), self.flavour, self.layout.name())
    }

    fn to_json(&self) -> Value {
        let shape = &self.family.shape;
        let outcome = |judged: &Judged| {
            json!({
                "outcome": judged.outcome.describe(shape),
                "count": judged.count,
                "rust": judged.verdict.rust,
                "x86": judged.verdict.x86,
                "forbidden": judged.verdict.is_forbidden(),
            })
        };
        json!({
            "shape": self.family.name(),
            "access": self.flavour.access,
            "fence": self.flavour.fence,
            "layout": self.layout,
            "placement": self.placement,
            "iterations": self.iterations,
            "forbidden": self.forbidden(),
            "weak": self.weak(),
            "seconds": self.seconds,
            "outcomes": self.outcomes.iter().map(outcome).collect::<Vec<_>>(),
        })
    }
}

impl Report {
    /// Nothing was seen yet.
    #[must_use]
    pub fn new(options: &Options) -> Report {
        Report { rows: Vec::new(), seed: options.seed, elapsed: Duration::ZERO }
    }

    /// Adds what was seen until now.
    pub fn add(&mut self, rows: Vec<Row>, elapsed: Duration) {
        self.rows.extend(rows);
        self.elapsed = elapsed;
    }

    /// All configurations.
    #[must_use]
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// How many forbidden outcomes were seen.
    #[must_use]
    pub fn forbidden(&self) -> u64 {
        self.rows.iter().map(Row::forbidden).sum()
    }

    /// How many weak outcomes were seen that are allowed.
    #[must_use]
    pub fn weak(&self) -> u64 {
        self.rows.iter().map(Row::weak).sum()
    }

    /// How many iterations there were.
    #[must_use]
    pub fn iterations(&self) -> u64 {
        self.rows.iter().map(|row| row.iterations).sum()
    }

    /// Rows by family and layout, in the order of the rows.
    fn groups(&self) -> Vec<Vec<&Row>> {
        groups(&self.rows)
    }

    /// The least number of iterations that any family has on any layout.
    #[must_use]
    pub fn fewest(&self) -> u64 {
        let sum = |rows: &Vec<&Row>| rows.iter().map(|row| row.iterations).sum();
        self.groups().iter().map(sum).min().unwrap_or(0)
    }

    fn families(&self) -> usize {
        self.rows.iter().map(|row| row.family.name()).collect::<BTreeSet<_>>().len()
    }

    /// Why a weak outcome should have been seen, but was not; for people.
    #[must_use]
    pub fn missing_weakness(&self) -> Option<&'static str> {
        let on_one_node = |row: &&Row| row.placement == Placement::Threads && row.may_be_weak();
        if self.weak() > 0 || !self.rows.iter().any(|row| on_one_node(&row)) {
            return None;
        }
        match std::thread::available_parallelism() {
            Ok(processors) if processors.get() > 1 => {
                Some("threads of one node showed no weak outcome; with more --iterations they should")
            }
            Ok(_) | Err(_) => Some("no weak outcome can be seen: threads of one node had one processor only"),
        }
    }

    /// The object that `--json` prints.
    #[must_use]
    pub fn to_json(&self, failure: Option<&str>) -> Value {
        json!({
            "ok": self.forbidden() == 0 && failure.is_none(),
            "shapes": self.families(),
            "configurations": self.rows.len(),
            "iterations": self.iterations(),
            "iterations_fewest": self.fewest(),
            "forbidden": self.forbidden(),
            "weak_seen": self.weak(),
            "elapsed_s": self.elapsed.as_secs_f64(),
            "seed": self.seed,
            "failure": failure,
            "runs": self.rows.iter().map(Row::to_json).collect::<Vec<_>>(),
        })
    }
}

/// Rows of one family on one layout, in the order of the rows.
fn groups(rows: &[Row]) -> Vec<Vec<&Row>> {
    let mut groups: Vec<Vec<&Row>> = Vec::new();
    for row in rows {
        let is_same = |group: &&mut Vec<&Row>| group[0].family == row.family && group[0].layout == row.layout;
        match groups.iter_mut().find(is_same) {
            Some(group) => group.push(row),
            None => groups.push(vec![row]),
        }
    }
    groups
}

/// The outcomes of one family's rows: a table per layout, with a column per flavour, all placements together.
#[must_use]
pub fn outcomes_table(rows: &[Row]) -> String {
    let mut text = String::new();
    for group in groups(rows) {
        let first = group[0];
        let shape = &first.family.shape;
        let layout = first.layout.name();
        let _ = writeln!(text, "\n{}, {layout}: {shape}\n  {}", first.family.name(), shape.asks);
        let mut flavours: Vec<Flavour> = Vec::new();
        for row in &group {
            if !flavours.contains(&row.flavour) {
                flavours.push(row.flavour);
            }
        }
        let mut lines =
            vec![std::iter::once(String::new()).chain(flavours.iter().map(Flavour::to_string)).collect()];
        for (outcome, cells) in cells(&group, &flavours) {
            let cells = cells.into_iter().map(|cell| cell.map_or(String::new(), |cell| cell.to_string()));
            lines.push(std::iter::once(outcome).chain(cells).collect());
        }
        text += &aligned(&lines);
    }
    text
}

struct Cell {
    count: u64,
    word: &'static str,
    is_failure: bool,
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = if self.is_failure { " (!)" } else { "" };
        write!(f, "{} {}{mark}", self.count, self.word)
    }
}

/// What a table shows of each outcome in each flavour. Torn values that are allowed are many, and share a line.
fn cells(group: &[&Row], flavours: &[Flavour]) -> Vec<(String, Vec<Option<Cell>>)> {
    const TORN: &str = "torn values";
    let shape = &group[0].family.shape;
    let mut lines: Vec<(String, Vec<Option<Cell>>)> = Vec::new();
    for row in group {
        let column = flavours.iter().position(|flavour| *flavour == row.flavour).unwrap_or(0);
        for judged in &row.outcomes {
            let is_failure = judged.verdict.is_forbidden() && judged.count > 0;
            let shared = !judged.outcome.is_whole(shape) && !is_failure;
            let name = if shared { TORN.to_owned() } else { judged.outcome.describe(shape) };
            let line = match lines.iter().position(|(known, _)| *known == name) {
                Some(line) => line,
                None => {
                    lines.push((name, flavours.iter().map(|_| None).collect()));
                    lines.len() - 1
                }
            };
            let word = if shared { "race:allowed" } else { judged.verdict.word() };
            let cell = lines[line].1[column].get_or_insert(Cell { count: 0, word, is_failure });
            cell.count += judged.count;
            cell.is_failure |= is_failure;
        }
    }
    lines.sort_by_key(|(name, _)| name == TORN);
    lines
}

/// A line per family and layout, and one for all.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let heads = ["shape", "layout", "runs", "iterations", "outcomes", "weak: nodes", "mixed", "threads"];
        let heads = heads.into_iter().chain(["forbidden", "us each"]).map(str::to_owned);
        let mut lines: Vec<Vec<String>> = vec![heads.collect()];
        lines.extend(self.groups().iter().map(|group| summary(group)));
        if lines.len() > 1 {
            writeln!(f, "{}", aligned(&lines))?;
        }
        for row in self.rows.iter().filter(|row| row.forbidden() > 0) {
            for judged in
                row.outcomes.iter().filter(|judged| judged.count > 0 && judged.verdict.is_forbidden())
            {
                let what = judged.outcome.describe(&row.family.shape);
                let (title, on) = (row.title(), row.placement.describe());
                writeln!(
                    f,
                    "FORBIDDEN: {title}, on {on}: {what}, {} times ({})",
                    judged.count,
                    judged.verdict.word()
                )?;
            }
        }
        if let Some(note) = self.missing_weakness() {
            writeln!(f, "note: {note}")?;
        }
        write!(
            f,
            "{} shapes, {} configurations, {} iterations (at least {} of each shape and layout), \
             {} forbidden outcomes, {} weak outcomes seen, {:.1} s, seed {}",
            self.families(),
            self.rows.len(),
            self.iterations(),
            self.fewest(),
            self.forbidden(),
            self.weak(),
            self.elapsed.as_secs_f64(),
            self.seed
        )
    }
}

fn summary(group: &[&Row]) -> Vec<String> {
    let sum = |of: &dyn Fn(&Row) -> u64| group.iter().map(|row| of(row)).sum::<u64>();
    let weak = |placement| {
        let on_it = || group.iter().filter(move |row| row.placement == placement);
        match on_it().any(|row| row.may_be_weak()) {
            true => on_it().map(|row| row.weak()).sum::<u64>().to_string(),
            false => "-".to_owned(),
        }
    };
    let (kinds, possible): (usize, usize) =
        (group.iter().map(|row| row.kinds()).sum(), group.iter().map(|row| row.possible).sum());
    let iterations = sum(&|row| row.iterations);
    let seconds: f64 = group.iter().map(|row| row.seconds).sum();
    let mut line = vec![
        group[0].family.name(),
        group[0].layout.name().to_owned(),
        group.len().to_string(),
        iterations.to_string(),
        format!("{kinds}/{possible}"),
    ];
    line.extend(Placement::ALL.map(weak));
    line.push(sum(&|row| row.forbidden()).to_string());
    line.push(format!("{:.1}", seconds * 1e6 / iterations.max(1) as f64));
    line
}

/// Lines of a table: the first column to the left, all others to the right.
fn aligned(lines: &[Vec<String>]) -> String {
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let width =
        |column: usize| lines.iter().filter_map(|line| line.get(column)).map(String::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for line in lines {
        let mut printed = String::new();
        for (column, cell) in line.iter().enumerate() {
            let width = widths[column];
            let _ = match column {
                0 => write!(printed, "  {cell:<width$}"),
                1.. => write!(printed, "  {cell:>width$}"),
            };
        }
        text += printed.trim_end();
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests;
