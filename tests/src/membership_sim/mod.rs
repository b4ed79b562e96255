//! A simulator for the membership alone: `dsm_core::membership`, unchanged, in many processes with clocks of their own, on
//! a network that delays, loses, doubles and cuts, with crashes, pauses, joins and leaves. One seed is one run.
//!
//! It says nothing about pages: `crate::sim` does.

mod checks;
mod clock;
mod mutant;
mod network;
mod plan;
mod process;
mod tamper;
mod world;

pub use checks::{Checks, Counts};
pub use clock::Clock;
pub use mutant::{HIDES_ACCEPTANCE, Mutant, Rigged, SOUND};
pub use network::Network;
pub use plan::{Nemesis, Plan, carry_out, undo};
pub use process::{End, Process};
pub use world::{Happening, ProcessId, Step, Tracing, World, nanos};

use crate::sim::Rng;
use dsm_core::membership::{ConfigStore, Settings};
use mutant::{DECIDES_ALONE, FORGETS};
use std::fmt;

/// What a run is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// The bug that is in it.
    pub mutant: Option<Mutant>,
    /// What becomes of its trace. A failing run without one is run again for it.
    pub tracing: Tracing,
}

/// A run in which a rule was broken.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Its seed.
    pub seed: u64,
    /// The rule.
    pub what: String,
    /// What happened before.
    pub trace: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "membership, seed {}: {}", self.seed, self.what)?;
        self.trace.iter().try_for_each(|line| writeln!(f, "{line}"))?;
        let command = "cargo run --release -p dsm-tests --bin membership -- --trace --seed";
        write!(f, "again: {command} {}", self.seed)
    }
}

/// Runs one seed.
///
/// # Errors
/// If a rule is broken.
pub fn run(seed: u64, options: &Options) -> Result<Counts, Box<Failure>> {
    match run_once(seed, options) {
        Err(_) if options.tracing == Tracing::Off => {
            run_once(seed, &Options { tracing: Tracing::Keep, ..*options })
        }
        outcome => outcome,
    }
}

fn run_once(seed: u64, options: &Options) -> Result<Counts, Box<Failure>> {
    match options.mutant {
        Some(Mutant::GrantsAfterAccepting) => run_with::<Rigged<HIDES_ACCEPTANCE>>(seed, options),
        Some(Mutant::DecidesAlone) => run_with::<Rigged<DECIDES_ALONE>>(seed, options),
        Some(Mutant::ForgetsAccepted) => run_with::<Rigged<FORGETS>>(seed, options),
        Some(_) | None => run_with::<Rigged<SOUND>>(seed, options),
    }
}

/// What a rest is long enough for, beyond a candidate's patience, in leases: members that end one after the other, each
/// noticed only by its lease.
const REST_LEASES: u32 = 8;

fn run_with<S: ConfigStore>(seed: u64, options: &Options) -> Result<Counts, Box<Failure>> {
    let mut rng = Rng::new(seed);
    let nodes = u16::try_from(rng.between(1, plan::NODES_MAX)).unwrap_or(1);
    let settings = Settings::default().with_witness(rng.chance(700));
    let plan = Plan::draw(&mut rng, nodes, settings);
    let mut world: World<S> = World::new(rng.draw(), nodes, settings, options.mutant, options.tracing);
    world.proof_permille = *rng.pick(&[0, 500, 1000]);
    draw_network(&mut rng, &mut world);
    let outcome = live_through(&mut world, &plan);
    match outcome {
        Ok(()) => Ok(Counts::of(
            &world.checks,
            &world.processes,
            usize::from(nodes) + usize::from(settings.witness()),
        )),
        Err(what) => Err(Box::new(Failure { seed, what, trace: world.trace() })),
    }
}

fn draw_network<S: ConfigStore>(rng: &mut Rng, world: &mut World<S>) {
    if rng.chance(300) {
        world.network.delay_max = nanos(world.settings.heartbeat()) / 10;
    }
    if rng.chance(300) {
        world.network.loss_permille = rng.below(150);
        world.network.double_permille = rng.below(150);
        // A heartbeat after the other may be lost.
        world.processes.iter_mut().for_each(|it| it.disturbed = true);
    }
}

fn live_through<S: ConfigStore>(world: &mut World<S>, plan: &Plan) -> Result<(), String> {
    let mut troubles = plan.troubles.clone();
    for (place, (at, _)) in plan.troubles.iter().enumerate() {
        world.schedule(*at, Happening::Planned(place));
    }
    let rest = world.settings.join_timeout() + world.settings.lease() * REST_LEASES;
    let end = plan.rest + nanos(rest);
    loop {
        match world.step(end)? {
            Step::On => {}
            Step::End => return world.checks.settled(&world.processes),
            Step::Planned(place) => {
                let what = troubles[place].1.clone();
                carry_out(world, &what)?;
                if let Some((span, undone)) = plan::undo(&what).filter(|_| world.now < plan.rest) {
                    world.schedule(span, Happening::Planned(troubles.len()));
                    troubles.push((0, undone));
                }
            }
        }
    }
}
