//! Starts the nodes of each run, watches over them, and adds up what they counted.
//!
//! A run is one family on one placement, with all its flavours and layouts. Runs come one after the other, because they
//! would only take the processors from each other. A run in which no thread moves is ended, and said where it was.

use super::board::Board;
use super::mutant::Mutant;
use super::node::{PLAN_VARIABLE, Place, Tally};
use super::outcome::Outcome;
use super::place::{Layout, PAGE_SIZE, Placement};
use super::program::{Access, Family, Flavour};
use super::report::{Report, Row};
use super::schedule::{Configuration, Plan};
use crate::harness::stuck;
use dsm_node::launch::{Cluster, Launch, Line, Output, Stream};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// How often the runner looks whether the threads of a run have moved.
const LOOK: Duration = Duration::from_millis(100);

/// How long the others may go on after a node has died, to say what they have to say.
const GRACE: Duration = Duration::from_secs(2);

/// How long nodes may take to end once they have closed their output.
const END_MAX: Duration = Duration::from_secs(30);

/// What to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which families.
    pub families: Vec<Family>,
    /// On which layouts.
    pub layouts: Vec<Layout>,
    /// On which placements.
    pub placements: Vec<Placement>,
    /// With which accesses.
    pub accesses: Vec<Access>,
    /// How often each family is executed on each layout at least, its flavours and placements together.
    pub iterations: u64,
    /// What decides roles, orders and paces.
    pub seed: u64,
    /// A deliberate bug.
    pub mutant: Option<Mutant>,
    /// A run in which nothing moves for so long is ended.
    pub patience: Duration,
    /// The program that is started as a node: it calls [`super::node_main`] when [`PLAN_VARIABLE`] is set.
    pub program: PathBuf,
}

/// What is said while runs go on.
pub trait Progress {
    /// So many iterations of all are over.
    fn advanced(&mut self, iterations: u64);
    /// All runs of one family are over.
    fn family_done(&mut self, rows: &[Row]);
}

/// Why a run did not come to its end, in words for people.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure(pub String);

impl Options {
    /// How many iterations there will be.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.plans().iter().map(Plan::iterations).sum()
    }

    /// What is run, in its order: one after the other, those of a family together.
    fn plans(&self) -> Vec<Plan> {
        let mut plans = Vec::new();
        for family in &self.families {
            for &placement in &self.placements {
                let configurations = self.configurations(family);
                if !configurations.is_empty() {
                    plans.push(Plan {
                        family: family.name(),
                        placement,
                        configurations,
                        seed: self.seed,
                        board: String::new(),
                        mutant: self.mutant,
                    });
                }
            }
        }
        plans
    }

    /// What is executed of a family on each placement.
    fn configurations(&self, family: &Family) -> Vec<Configuration> {
        let mut configurations = Vec::new();
        for &layout in &self.layouts {
            let flavours: Vec<Flavour> = family
                .flavours()
                .iter()
                .copied()
                .filter(|flavour| self.is_wanted(*flavour, layout))
                .collect();
            let shares = (flavours.len() * self.placements.len()).max(1) as u64;
            let rounds = self.iterations.div_ceil(shares).div_ceil(layout.instances() as u64);
            let rounds = u32::try_from(rounds).unwrap_or(u32::MAX);
            configurations.extend(flavours.iter().map(|&flavour| Configuration { flavour, layout, rounds }));
        }
        configurations
    }

    /// Atomic accesses must be aligned, so only plain ones straddle.
    fn is_wanted(&self, flavour: Flavour, layout: Layout) -> bool {
        self.accesses.contains(&flavour.access)
            && (layout != Layout::Straddle || flavour.access == Access::Plain)
    }
}

/// Runs everything, until the first failure. What was run until then is in the report.
pub fn run(options: &Options, progress: &mut dyn Progress) -> (Report, Option<Failure>) {
    let began = Instant::now();
    let mut report = Report::new(options);
    let mut family = Vec::new();
    let plans = options.plans();
    let mut over = 0;
    for (index, plan) in plans.iter().enumerate() {
        let outcome = Run::start(options, plan.clone())
            .and_then(|mut run| run.finish(options.patience, &mut |now| progress.advanced(over + now)));
        match outcome {
            Ok(rows) => family.extend(rows),
            Err(failure) => {
                report.add(family, began.elapsed());
                return (report, Some(failure));
            }
        }
        over += plan.iterations();
        if plans.get(index + 1).is_none_or(|next| next.family != plan.family) {
            progress.family_done(&family);
            report.add(std::mem::take(&mut family), began.elapsed());
        }
    }
    (report, None)
}

/// A run that goes on. Dropping it ends its nodes.
struct Run {
    plan: Plan,
    board: Board,
    cluster: Cluster,
    lines: Receiver<Line>,
    tallies: Vec<Tally>,
    /// What nodes said beside their tallies.
    said: Vec<Line>,
    is_sequential: bool,
}

impl Run {
    fn start(options: &Options, mut plan: Plan) -> Result<Run, Failure> {
        let board = Board::create()
            .map_err(|error| Failure(format!("{}: no memory to meet in: {error}", title(&plan))))?;
        plan.board = board.path();
        let (sender, lines) = channel();
        let threads = plan.family().shape.threads.len();
        let text = serde_json::to_string(&plan)
            .map_err(|error| Failure(format!("{}: the plan cannot be told: {error}", title(&plan))))?;
        let cluster = Launch::new(&options.program)
            .nodes(plan.placement.nodes(threads) as u32)
            .env(PLAN_VARIABLE, text)
            .env("DSM_PAGE_SIZE", PAGE_SIZE.to_string())
            .output(Output::Lines(sender))
            // A shape needs all of its nodes: where one has died, the others wait for it in vain.
            .grace(GRACE)
            .spawn()
            .map_err(|error| Failure(format!("{}: the nodes cannot be started: {error}", title(&plan))))?;
        let is_sequential = options.mutant == Some(Mutant::SequentialJudge);
        Ok(Run { plan, board, cluster, lines, tallies: Vec::new(), said: Vec::new(), is_sequential })
    }

    /// Waits for the end of all nodes.
    fn finish(&mut self, patience: Duration, advanced: &mut dyn FnMut(u64)) -> Result<Vec<Row>, Failure> {
        let mut moved = Instant::now();
        let mut seen = self.positions();
        loop {
            match self.lines.recv_timeout(LOOK) {
                Ok(line) => self.take(line),
                Err(RecvTimeoutError::Timeout) => advanced(self.board.finished()),
                Err(RecvTimeoutError::Disconnected) => break,
            }
            let positions = self.positions();
            if positions != seen {
                (moved, seen) = (Instant::now(), positions);
            } else if moved.elapsed() > patience {
                return Err(self.failure(&format!("no thread has moved for {} s", patience.as_secs_f32())));
            }
        }
        let outcome = self.cluster.wait(END_MAX);
        if !outcome.success() {
            let ends = outcome.nodes.iter().filter(|node| node.code() != 0);
            let ends: Vec<String> =
                ends.map(|node| format!("rank {} ended with exit code {}", node.rank, node.code())).collect();
            return Err(self.failure(&ends.join(", ")));
        }
        self.rows()
    }

    fn take(&mut self, line: Line) {
        let tally = match line.stream {
            Stream::Stdout => serde_json::from_str::<Tally>(&line.text).ok(),
            Stream::Stderr => None,
        };
        match tally {
            Some(tally) => self.tallies.push(tally),
            None => self.said.push(line),
        }
    }

    /// Where all threads are, as they say.
    fn positions(&self) -> Vec<u64> {
        (0..self.plan.slots()).map(|slot| self.board.place(slot).load(Ordering::Relaxed)).collect()
    }

    /// Adds up what the threads of the run counted.
    fn rows(&self) -> Result<Vec<Row>, Failure> {
        let family = self.plan.family();
        let mut rows = Vec::new();
        for (index, configuration) in self.plan.configurations.iter().enumerate() {
            let tallies = || self.tallies.iter().filter(move |tally| tally.configuration == index);
            let mut counts = BTreeMap::<Outcome, u64>::new();
            for &(outcome, count) in tallies().flat_map(|tally| &tally.outcomes) {
                *counts.entry(Outcome(outcome)).or_default() += count;
            }
            let counted: u64 = counts.values().sum();
            if counted != configuration.iterations() {
                let expected = configuration.iterations();
                return Err(self.failure(&format!("{counted} iterations were counted, not {expected}")));
            }
            let seconds = tallies().map(|tally| tally.seconds).fold(0.0, f64::max);
            rows.push(Row::new(
                family,
                *configuration,
                self.plan.placement,
                &counts,
                seconds,
                self.is_sequential,
            ));
        }
        Ok(rows)
    }

    /// Why the run failed, and where each node was.
    fn failure(&self, why: &str) -> Failure {
        let mut text = format!("{}: {why}\n", title(&self.plan));
        let per_node = self.plan.placement.slots_per_node(self.plan.family().shape.threads.len());
        for rank in 0..self.plan.slots() / per_node {
            for slot in rank * per_node..(rank + 1) * per_node {
                let place = Place::unpack(self.board.place(slot).load(Ordering::Relaxed));
                let what = self.plan.configurations.get(place.configuration);
                let what = what.map(|what| format!("{}, {}", what.flavour, what.layout.name()));
                // Writing to a string cannot fail.
                let _ = writeln!(
                    text,
                    "rank {rank}, thread {}: {place} ({})",
                    slot % per_node,
                    what.unwrap_or_default()
                );
            }
            match self.cluster.pid(rank as u32) {
                Some(pid) => text += &stuck::threads_of(pid),
                None => text += "  its process has ended\n",
            }
            for line in self.said.iter().filter(|line| line.rank as usize == rank) {
                let _ = writeln!(text, "  it said: {}", line.text);
            }
        }
        Failure(text)
    }
}

fn title(plan: &Plan) -> String {
    format!("{} on {}", plan.family, plan.placement.describe())
}
