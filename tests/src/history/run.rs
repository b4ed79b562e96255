//! Runs a seed's programs on real nodes, puts together what each node recorded, and checks it.
//!
//! The programs are the seed's; how they interleave is the machine's, and another every time. What the nodes do is in
//! `worker::history`.

use super::programs::{Kind, Name, Round};
use super::{EntryOf, History, Object, Sequence, Tally, Word, clock};
use crate::harness::{Report, Scenario};
use clap::ValueEnum;
use dsm_node::launch::TransportKind;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::panic::{self, AssertUnwindSafe};
use std::time::Duration;

/// The scenario of the worker, and the name of the fact that carries what it recorded.
pub const SCENARIO: &str = "history";

/// The fact that names a worker's clock.
pub const CLOCK: &str = "clock";

/// A deliberate fault of the programs, which the check must find: the nodes themselves have no switch for faults.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
#[value(rename_all = "PascalCase")]
pub enum Mutant {
    /// An addition is a load and a store, with anything between them.
    TearsAdditions,
    /// A load answers what the thread saw last.
    LoadsFromMemory,
    /// One push in a while is not done.
    LosesPushes,
    /// What is in a list is told as it was before the question.
    LooksEarly,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Mutant; 4] =
        [Mutant::TearsAdditions, Mutant::LoadsFromMemory, Mutant::LosesPushes, Mutant::LooksEarly];
}

/// How to run seeds.
#[derive(Clone, Debug)]
pub struct Options {
    /// On objects of this kind only.
    pub object: Option<Kind>,
    /// On so many nodes; else the seed decides.
    pub nodes: Option<u32>,
    /// A deliberate fault.
    pub mutant: Option<Mutant>,
    /// A seed that takes longer hangs.
    pub budget: Duration,
}

impl Default for Options {
    fn default() -> Options {
        /// Tens of times what a seed takes on two noisy cores.
        const BUDGET: Duration = Duration::from_secs(60);
        Options { object: None, nodes: None, mutant: None, budget: BUDGET }
    }
}

/// What a seed decides about the cluster.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shape {
    /// How many nodes there are.
    pub nodes: u32,
    /// How many threads each of them runs.
    pub threads: u64,
    /// How many rounds they do.
    pub rounds: u64,
    /// How they talk.
    pub transport: TransportKind,
    /// Bytes of a page.
    pub page_size: u64,
}

/// A seed whose run was not as it must be.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// On what.
    pub shape: Shape,
    /// Which object's history it was; `None` if the run did not come to its end.
    pub object: Option<String>,
    /// What was wrong: several lines.
    pub what: String,
    /// What runs it again.
    pub replay: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shape { nodes, threads, .. } = self.shape;
        let object = self.object.as_deref().unwrap_or("the run did not come to its end");
        writeln!(f, "seed {} ({nodes} nodes, {threads} threads each): {object}", self.seed)?;
        for line in self.what.lines() {
            writeln!(f, "  {line}")?;
        }
        write!(f, "again: {}", self.replay)
    }
}

impl std::error::Error for Failure {}

/// What a thread recorded about an object: one line of a worker's output.
#[derive(Serialize, Deserialize)]
pub struct Told {
    /// In which round.
    pub round: u64,
    /// About which object.
    pub name: Name,
    /// What.
    pub entries: Entries,
}

/// What threads did with an object.
#[derive(Serialize, Deserialize)]
pub enum Entries {
    /// With a counter or a register.
    Word(Vec<EntryOf<Word>>),
    /// With a queue or a list.
    Sequence(Vec<EntryOf<Sequence>>),
}

impl Shape {
    /// The shape of a seed.
    #[must_use]
    pub fn draw(seed: u64, options: &Options) -> Shape {
        /// Enough that starting the nodes is not most of the work.
        const ROUNDS: u64 = 24;
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let drawn = rng.random_range(2..=4);
        Shape {
            nodes: options.nodes.unwrap_or(drawn),
            threads: rng.random_range(1..=3),
            rounds: ROUNDS,
            transport: if rng.random() { TransportKind::Tcp } else { TransportKind::Unix },
            page_size: if rng.random_range(0..4) == 0 { 64 << 10 } else { 4 << 10 },
        }
    }

    /// What the threads do in a round.
    #[must_use]
    pub fn round(&self, seed: u64, round: u64, kinds: &[Kind]) -> Round {
        Round::draw(seed, round, kinds, u64::from(self.nodes) * self.threads)
    }
}

/// Runs one seed with copies of `program`, and counts what was checked.
///
/// # Errors
/// The first history that is not linearizable; or what the nodes did when they did not come to an end.
pub fn run(program: &str, seed: u64, options: &Options) -> Result<Tally, Box<Failure>> {
    let shape = Shape::draw(seed, options);
    let failure = |object: Option<String>, what: String| {
        Box::new(Failure { seed, shape, object, what, replay: replay(seed, options) })
    };
    let began = clock::now();
    // The harness fails as tests do: by a panic, which says what every node was at.
    let outcome = panic::catch_unwind(AssertUnwindSafe(|| scenario(program, seed, &shape, options).run()));
    let report = outcome.map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        failure(None, text.unwrap_or_else(|| "a panic without words".to_owned()))
    })?;
    let histories = Histories::collect(&report, began..=clock::now()).map_err(|what| failure(None, what))?;
    let mut tally = Tally::default();
    for ((round, name), entries) in histories.found {
        let checked = match entries {
            Entries::Word(entries) => check_one(&mut tally, Word(0), entries),
            Entries::Sequence(entries) => check_one(&mut tally, Sequence::unbounded(), entries),
        };
        checked
            .map_err(|what| failure(Some(format!("{name} of round {round} is not linearizable")), what))?;
    }
    Ok(tally)
}

fn check_one<S: Object>(tally: &mut Tally, start: S, entries: Vec<EntryOf<S>>) -> Result<(), String> {
    tally.check(&History::new(start, entries)?).map_err(|why| why.text)
}

fn scenario(program: &str, seed: u64, shape: &Shape, options: &Options) -> Scenario {
    let scenario = Scenario::new(program, SCENARIO).nodes(shape.nodes).transport(shape.transport);
    let object = options.object.map_or("all".to_owned(), |kind| format!("{kind:?}"));
    let mutant = options.mutant.map_or("none".to_owned(), |mutant| format!("{mutant:?}"));
    let scenario = scenario.page_size(shape.page_size).budget(options.budget).arg("seed", seed);
    let scenario = scenario.arg("threads", shape.threads).arg("rounds", shape.rounds);
    scenario.arg("object", object).arg("mutant", mutant)
}

fn replay(seed: u64, options: &Options) -> String {
    /// How they interleave is another every time, so that one run may well pass.
    const TIMES: u32 = 20;
    let mut text = format!(
        "cargo run --release -p dsm-tests --bin history -- --seeds {seed}..{} --repeat {TIMES}",
        seed + 1
    );
    if let Some(kind) = options.object {
        text += &format!(" --object {}", format!("{kind:?}").to_lowercase());
    }
    if let Some(nodes) = options.nodes {
        text += &format!(" --nodes {nodes}");
    }
    if let Some(mutant) = options.mutant {
        text += &format!(" --mutant {mutant:?}");
    }
    text
}

/// What all nodes recorded, by round and object.
struct Histories {
    found: BTreeMap<(u64, Name), Entries>,
}

impl Histories {
    /// # Errors
    /// If what the nodes say cannot be compared, or not be read.
    fn collect(report: &Report, run: std::ops::RangeInclusive<u64>) -> Result<Histories, String> {
        let mut found = BTreeMap::new();
        for (rank, node) in report.nodes.iter().enumerate() {
            let clock = report.fact(rank, CLOCK);
            if clock != clock::identity() {
                return Err(format!("rank {rank} has another clock than this process: {clock}"));
            }
            for line in node.stdout.iter().filter_map(|line| line.strip_prefix(SCENARIO)?.strip_prefix('=')) {
                let mut told: Told =
                    serde_json::from_str(line).map_err(|error| format!("{error} in {line}"))?;
                for time in told.entries.times() {
                    if !run.contains(time) {
                        return Err(format!(
                            "rank {rank} did something at {time} ns, outside of the run: {run:?}"
                        ));
                    }
                    // For people, time begins with the run.
                    *time -= run.start();
                }
                merge(&mut found, told)?;
            }
        }
        Ok(Histories { found })
    }
}

fn merge(found: &mut BTreeMap<(u64, Name), Entries>, told: Told) -> Result<(), String> {
    let key = (told.round, told.name);
    match (found.remove(&key), told.entries) {
        (None, entries) => found.insert(key, entries),
        (Some(Entries::Word(mut all)), Entries::Word(more)) => {
            all.extend(more);
            found.insert(key, Entries::Word(all))
        }
        (Some(Entries::Sequence(mut all)), Entries::Sequence(more)) => {
            all.extend(more);
            found.insert(key, Entries::Sequence(all))
        }
        (Some(Entries::Word(_)), Entries::Sequence(_)) | (Some(Entries::Sequence(_)), Entries::Word(_)) => {
            return Err(format!("{} is a word to some nodes, and a sequence to others", told.name));
        }
    };
    Ok(())
}

impl Entries {
    fn times(&mut self) -> Vec<&mut u64> {
        fn of<O, R>(entries: &mut [super::Entry<O, R>]) -> Vec<&mut u64> {
            let mut times = Vec::new();
            for entry in entries {
                times.extend([&mut entry.invoked, &mut entry.acted]);
                times.extend(entry.returned.as_mut().map(|(time, _)| time));
            }
            times
        }
        match self {
            Entries::Word(entries) => of(entries),
            Entries::Sequence(entries) => of(entries),
        }
    }
}
