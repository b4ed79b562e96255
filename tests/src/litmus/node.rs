//! One node of a run: joins, and has each of its threads do its job in every round.
//!
//! ```text
//!  every thread:  meet ─▶ its visits ─▶ meet ─▶ (one of them, another in each round) collect ─▶ meet ─▶ …
//! ```
//! The meetings are on the board, not in the region: the system must not be told when to make memory agree.

use super::board::{Board, wait_until};
use super::execute;
use super::outcome::{MADE_UP, Outcome};
use super::place::{Arena, Placement};
use super::program::{Op, Program};
use super::schedule::{Configuration, Job, Pace, Plan, Round};
use super::shape::{ALL_VARIABLES, REGISTERS_MAX, Shape, VARIABLES_MAX};
use dsm_node::{Dsm, Error};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::hint::spin_loop;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// Set in the environment of the nodes of a run: its plan.
pub const PLAN_VARIABLE: &str = "DSM_LITMUS_PLAN";

/// The exit code of a node that panicked, as the Rust runtime has it.
const PANIC_CODE: i32 = 101;

/// What a thread of the run saw of one configuration, in the rounds that it collected: one line of JSON.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Tally {
    /// Its place in the plan.
    pub configuration: usize,
    /// Outcomes, and how often each came.
    pub outcomes: Vec<(u64, u64)>,
    /// How long the configuration took, as this thread saw it.
    pub seconds: f64,
}

/// Where a thread of a run is, as the board has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Place {
    /// What it does.
    pub doing: Doing,
    /// In which configuration of the plan.
    pub configuration: usize,
    /// In which round of the run.
    pub round: u32,
    /// After how many visits.
    pub visit: usize,
}

/// What a thread of a run does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Doing {
    /// It has not begun.
    Joining,
    /// It waits for the others before a round.
    Waiting,
    /// It executes.
    Executing,
    /// It waits for the others after a round.
    Finishing,
    /// It reads what all have seen.
    Collecting,
    /// It is done.
    Leaving,
}

const DOINGS: [Doing; 6] =
    [Doing::Joining, Doing::Waiting, Doing::Executing, Doing::Finishing, Doing::Collecting, Doing::Leaving];

/// Bits of a place's parts, from the lowest: visits are counted per round, configurations per plan.
const VISIT_BITS: u32 = 12;
const ROUND_BITS: u32 = u32::BITS;
const CONFIGURATION_BITS: u32 = 12;

impl Place {
    pub(super) fn pack(self) -> u64 {
        let doing = DOINGS.iter().position(|doing| *doing == self.doing).unwrap_or(0);
        let high = (doing as u64) << CONFIGURATION_BITS | self.configuration as u64;
        (high << ROUND_BITS | u64::from(self.round)) << VISIT_BITS | self.visit as u64
    }

    pub(super) fn unpack(word: u64) -> Place {
        let high = word >> (VISIT_BITS + ROUND_BITS);
        let doing = (high >> CONFIGURATION_BITS) as usize;
        Place {
            doing: DOINGS.get(doing).copied().unwrap_or(Doing::Joining),
            configuration: high as usize & ((1 << CONFIGURATION_BITS) - 1),
            round: (word >> VISIT_BITS) as u32,
            visit: word as usize & ((1 << VISIT_BITS) - 1),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Place { round, visit, .. } = *self;
        match self.doing {
            Doing::Joining => write!(f, "joining the cluster"),
            Doing::Waiting => write!(f, "waiting for the others before round {round}"),
            Doing::Executing => write!(f, "executing instance {visit} of round {round}"),
            Doing::Finishing => write!(f, "waiting for the others after round {round}"),
            Doing::Collecting => write!(f, "reading the variables after round {round}"),
            Doing::Leaving => write!(f, "leaving the cluster"),
        }
    }
}

/// One thread of the run, in one configuration.
struct Worker<'a> {
    plan: &'a Plan,
    board: &'a Board,
    arena: &'a Arena,
    slot: usize,
    configuration: usize,
    program: Program,
    counts: BTreeMap<Outcome, u64>,
}

/// One thread's part in one instance.
struct Visit {
    thread: usize,
    instance: usize,
    addresses: [*mut u64; VARIABLES_MAX],
    round: u32,
    /// How many there were before, in the same round.
    visit: usize,
}

/// Runs the node that the environment describes.
pub fn main() -> ExitCode {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        usual(info);
        // A drop must not wait for nodes that wait for this one.
        std::process::exit(PANIC_CODE);
    }));
    let text = std::env::var(PLAN_VARIABLE).unwrap_or_default();
    let plan: Plan = match serde_json::from_str(&text) {
        Ok(plan) => plan,
        Err(error) => {
            eprintln!("litmus: {PLAN_VARIABLE} has no plan: {error}");
            return ExitCode::from(2);
        }
    };
    match run(&plan) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("litmus: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(plan: &Plan) -> Result<(), Error> {
    let board = Board::open(&plan.board)
        .map_err(|error| Error::Config(format!("the board of the run, {}: {error}", plan.board)))?;
    let dsm = Dsm::join()?;
    let arena = dsm.root("litmus", |_| Ok(Arena::zero()))?;
    let per_node = plan.placement.slots_per_node(plan.family().shape.threads.len());
    std::thread::scope(|scope| {
        for slot in (0..plan.slots()).skip(dsm.rank() as usize * per_node).take(per_node) {
            let board = &board;
            scope.spawn(move || run_slot(plan, board, arena, slot));
        }
    });
    dsm.leave()
}

/// One thread of the run, from its first configuration to its last.
fn run_slot(plan: &Plan, board: &Board, arena: &Arena, slot: usize) {
    if plan.placement == Placement::Threads {
        take_a_processor(slot);
    }
    let shape = plan.family().shape;
    let rounds: u64 = plan.configurations.iter().map(|configuration| u64::from(configuration.rounds)).sum();
    assert!(rounds <= u64::from(execute::ROUNDS_MAX), "{rounds} rounds cannot be told apart");
    let mut round = 0;
    for (index, configuration) in plan.configurations.iter().enumerate() {
        let began = Instant::now();
        let program = Program::new(shape, configuration.flavour);
        let mut worker =
            Worker { plan, board, arena, slot, configuration: index, program, counts: BTreeMap::new() };
        round = worker.run(configuration, round);
        let outcomes = worker.counts.iter().map(|(outcome, count)| (outcome.0, *count)).collect();
        let tally = Tally { configuration: index, outcomes, seconds: began.elapsed().as_secs_f64() };
        // Numbers have a JSON form always.
        println!("{}", serde_json::to_string(&tally).unwrap_or_default());
    }
    board
        .place(slot)
        .store(Place { doing: Doing::Leaving, configuration: 0, round, visit: 0 }.pack(), Ordering::Relaxed);
}

impl Worker<'_> {
    /// Executes all rounds of a configuration, the first of which comes after `last`; the last one's number.
    fn run(&mut self, configuration: &Configuration, last: u32) -> u32 {
        let shape = self.program.shape;
        let all = self.plan.slots() as u64;
        self.say(Doing::Waiting, last, 0);
        self.board.meet(all);
        if self.slot == 0 {
            self.remember(configuration);
        }
        for number in last + 1..=last + configuration.rounds {
            let round = Round::new(self.plan.seed, self.plan.placement, shape.threads.len(), number);
            let visits = round.visits(self.slot, configuration.layout);
            self.say(Doing::Waiting, number, 0);
            self.board.meet(all);
            self.visit_all(configuration, &round, number, &visits);
            self.say(Doing::Finishing, number, visits.len());
            self.board.meet(all);
            if round.collector == self.slot {
                self.say(Doing::Collecting, number, 0);
                self.collect(configuration, &shape, number);
            }
        }
        last + configuration.rounds
    }

    fn say(&self, doing: Doing, round: u32, visit: usize) {
        let place = Place { doing, configuration: self.configuration, round, visit };
        self.board.place(self.slot).store(place.pack(), Ordering::Relaxed);
    }

    fn addresses(&self, configuration: &Configuration, instance: usize) -> [*mut u64; VARIABLES_MAX] {
        std::array::from_fn(|variable| self.arena.address(configuration.layout, instance, variable))
    }

    /// Lays down what the variables have, whatever configuration wrote it.
    fn remember(&self, configuration: &Configuration) {
        for instance in 0..configuration.layout.instances() {
            for (at, previous) in
                self.addresses(configuration, instance).iter().zip(self.board.previous(instance))
            {
                // SAFETY: the arena lives as long as the node is joined.
                previous.store(unsafe { execute::load_plain(*at) }, Ordering::Relaxed);
            }
        }
    }

    fn visit_all(&self, configuration: &Configuration, round: &Round, number: u32, visits: &[usize]) {
        let mut rng = round.rng(self.slot);
        let pace = |visit: usize| u64::from(number) << VISIT_BITS | visit as u64;
        let partners: Vec<usize> = round.partners(self.slot).collect();
        for (visit, &instance) in visits.iter().enumerate() {
            self.say(Doing::Executing, number, visit);
            let addresses = self.addresses(configuration, instance);
            let thread = match round.jobs[self.slot] {
                Job::Thread { thread, .. } => thread,
                Job::Bystander => {
                    let at = addresses[rng.index(self.program.shape.variables())];
                    // SAFETY: the arena lives as long as the node is joined.
                    let _ = unsafe { execute::load_plain(at) };
                    continue;
                }
            };
            let delay = rng.below(1 << round.delay_exponent);
            if round.pace == Pace::Lockstep {
                let here = pace(visit + 1);
                self.board.pace(self.slot).store(here, Ordering::Release);
                for &partner in &partners {
                    wait_until(|| self.board.pace(partner).load(Ordering::Acquire) >= here);
                }
            }
            turns(delay);
            let visit = Visit { thread, instance, addresses, round: number, visit };
            match round.pause_exponent {
                None => self.execute(&visit, || {}),
                Some(exponent) => self.execute(&visit, || turns(rng.below(1 << exponent))),
            }
        }
    }

    fn execute(&self, visit: &Visit, pause: impl FnMut()) {
        let ops = &self.program.threads[visit.thread];
        let struck = self.plan.mutant.filter(|mutant| mutant.strikes(visit.visit));
        let steps = match struck {
            None => None,
            Some(mutant) => {
                if self.slot == 0 {
                    mutant.stop();
                }
                Some(mutant.steps(ops))
            }
        };
        let steps = steps.as_ref().unwrap_or(ops);
        // SAFETY: the arena lives as long as the node is joined; of its layouts only the straddling one has variables
        // that are not aligned, and it is run with plain accesses (see `run::Options::is_wanted`).
        let registers = unsafe { execute::run(steps, &visit.addresses, visit.round, pause) };
        for (register, variable) in loads(ops) {
            let mut found = registers[register];
            if let Some(mutant) = struck {
                let previous = self.board.previous(visit.instance)[variable].load(Ordering::Relaxed);
                found = mutant.loaded(found, previous);
            }
            self.board.registers(visit.instance)[register].store(found, Ordering::Relaxed);
        }
    }

    /// Counts what came of all instances, and lays down what the variables have for the next round.
    fn collect(&mut self, configuration: &Configuration, shape: &Shape, number: u32) {
        let values = ALL_VARIABLES.map(|variable| shape.values(variable));
        let loaded = self.loaded_variables();
        for instance in 0..configuration.layout.instances() {
            let addresses = self.addresses(configuration, instance);
            let words = self.board.registers(instance).each_ref().map(|word| word.load(Ordering::Relaxed));
            let previous = self.board.previous(instance).each_ref().map(|word| word.load(Ordering::Relaxed));
            let see = |word: u64, variable: usize| {
                execute::read(word, number, previous[variable], &values[variable])
            };
            // SAFETY: the arena lives as long as the node is joined.
            let finals = addresses.map(|at| unsafe { execute::load_plain(at) });
            let registers = (0..shape.registers()).map(|register| see(words[register], loaded[register]));
            let last = shape.finals.iter().map(|variable| variable.index());
            let last = last.map(|variable| see(finals[variable], variable));
            let mut outcome = Outcome::of(registers.chain(last));
            // Whatever a shape asks for, its stores have been done to every variable.
            let is_stored = |digit: u8| digit > 0 && digit < MADE_UP;
            let mut all = (0..shape.variables()).map(|variable| see(finals[variable], variable));
            if !all.all(|seen| is_stored(seen.low) && is_stored(seen.high)) {
                outcome = outcome.with_lost_store();
            }
            *self.counts.entry(outcome).or_default() += 1;
            for (previous, word) in self.board.previous(instance).iter().zip(finals) {
                previous.store(word, Ordering::Relaxed);
            }
        }
        self.board.finish(configuration.layout.instances() as u64);
    }

    /// Which variable each register is loaded from.
    fn loaded_variables(&self) -> [usize; REGISTERS_MAX] {
        let mut variables = [0; REGISTERS_MAX];
        for (register, variable) in self.program.threads.iter().flat_map(|ops| loads(ops)) {
            variables[register] = variable;
        }
        variables
    }
}

/// The registers that a thread loads, and from which variables.
fn loads(ops: &[Op]) -> impl Iterator<Item = (usize, usize)> {
    ops.iter().filter_map(|op| match *op {
        Op::Load { variable, register, .. } => Some((register, variable.index())),
        Op::Store { .. } | Op::Fence(_) => None,
    })
}

/// Lets a little time pass, at work.
fn turns(count: u64) {
    (0..count).for_each(|_| spin_loop());
}

/// Keeps this thread on a processor of its own, if there are enough: weak outcomes need two at work.
fn take_a_processor(slot: usize) {
    let this = Pid::from_raw(0);
    let Ok(allowed) = sched_getaffinity(this) else { return };
    let is_allowed = |processor: &usize| allowed.is_set(*processor).unwrap_or(false);
    let processors: Vec<usize> = (0..CpuSet::count()).filter(is_allowed).collect();
    let mut mine = CpuSet::new();
    if let Some(&processor) = processors.get(slot % processors.len().max(1))
        && mine.set(processor).is_ok()
    {
        // A thread that may not choose runs where the scheduler puts it.
        let _ = sched_setaffinity(this, &mine);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::litmus::board::INSTANCES_MAX;
    use crate::litmus::execute::ROUNDS_MAX;

    #[test]
    fn a_place_survives_packing() {
        for doing in DOINGS {
            let configuration = (1 << CONFIGURATION_BITS) - 1;
            let place = Place { doing, configuration, round: ROUNDS_MAX, visit: INSTANCES_MAX };
            assert_eq!(Place::unpack(place.pack()), place);
        }
    }
}
