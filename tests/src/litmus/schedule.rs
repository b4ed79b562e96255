//! What a run executes, and in which order: the same for all of its nodes, decided by one seed.
//!
//! A *round* executes all instances of a program once. Which thread of the program runs where changes from round to
//! round, and so does the order of the instances and the pace, because different races need different ones:
//!
//! - in *lockstep* the threads of an instance wait for each other before it, so that they race for its pages;
//! - in a *chase* they go through the instances in one order without waiting, and meet where one overtakes another;
//! - when *scattered* each has an order of its own, and pages are taken from threads that are elsewhere.
//!
//! In some rounds threads also pause between their steps, so that a page is taken in the middle of an instance.

use super::mutant::Mutant;
use super::place::{Layout, Placement};
use super::program::{Family, Flavour};
use super::shape::THREADS_MAX;
use crate::sim::rng::Rng;
use serde::{Deserialize, Serialize};

/// What a run is told, as JSON in the environment of its nodes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// The family's name.
    pub family: String,
    /// Where its threads run.
    pub placement: Placement,
    /// What it is to execute.
    pub configurations: Vec<Configuration>,
    /// What decides roles, orders and paces.
    pub seed: u64,
    /// Where the board is.
    pub board: String,
    /// A deliberate bug.
    pub mutant: Option<Mutant>,
}

/// One program on one layout.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Configuration {
    /// The program's orderings.
    pub flavour: Flavour,
    /// Where its variables lie.
    pub layout: Layout,
    /// How often all instances are executed.
    pub rounds: u32,
}

/// What a thread of the run does in a round.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Job {
    /// It is thread `thread` of the program, in the instances of `gang`.
    Thread {
        /// Which of the gangs that share the instances.
        gang: usize,
        /// Which thread of the program.
        thread: usize,
    },
    /// It loads variables here and there, so that pages are shared.
    Bystander,
}

/// Whether threads wait for each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pace {
    /// Before each instance.
    Lockstep,
    /// At the round's start only; all in one order.
    Chase,
    /// At the round's start only; each in its own order.
    Scatter,
}

/// One round.
#[derive(Clone, Debug)]
pub struct Round {
    /// What each thread of the run does.
    pub jobs: Vec<Job>,
    /// Whether threads wait for each other.
    pub pace: Pace,
    /// Which thread of the run collects what all have seen.
    pub collector: usize,
    /// A thread waits below two to the power of this many turns before an instance.
    pub delay_exponent: u32,
    /// A thread waits below two to the power of this many turns before each step; not at all if there is none.
    pub pause_exponent: Option<u32>,
    gangs: usize,
    in_order: bool,
    seed: u64,
}

impl Plan {
    /// The family.
    ///
    /// # Panics
    /// If no family has that name: the runner took it from the list.
    #[must_use]
    pub fn family(&self) -> Family {
        let all = Family::named(&self.family);
        all.into_iter().find(|family| family.name() == self.family).expect("the plan names a family")
    }

    /// How many threads run, on all nodes together.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.placement.slots(self.family().shape.threads.len())
    }

    /// How many iterations all rounds have.
    #[must_use]
    pub fn iterations(&self) -> u64 {
        self.configurations.iter().map(Configuration::iterations).sum()
    }
}

impl Configuration {
    /// How many iterations its rounds have.
    #[must_use]
    pub fn iterations(&self) -> u64 {
        u64::from(self.rounds) * self.layout.instances() as u64
    }
}

impl Round {
    /// The round of this number, of a program of so many threads.
    #[must_use]
    pub fn new(seed: u64, placement: Placement, threads: usize, number: u32) -> Round {
        let slots = placement.slots(threads);
        let mut rng = Rng::new(seed ^ (u64::from(number) << u32::BITS));
        let gangs = slots / threads;
        let mut jobs: Vec<Job> = (0..slots)
            .map(|slot| match slot / threads {
                gang if gang < gangs => Job::Thread { gang, thread: slot % threads },
                _ => Job::Bystander,
            })
            .collect();
        shuffle(&mut jobs, &mut rng);
        let paces = [Pace::Lockstep, Pace::Chase, Pace::Scatter];
        Round {
            jobs,
            pace: paces[rng.weighted(pace_weights(placement))],
            collector: rng.index(slots),
            delay_exponent: rng.index(delay_exponent_max(placement) + 1) as u32,
            pause_exponent: rng
                .chance(pause_permille(placement))
                .then(|| rng.index(pause_exponent_max(placement) + 1) as u32),
            gangs,
            in_order: rng.chance(IN_ORDER_PERMILLE),
            seed: rng.draw(),
        }
    }

    /// The instances that a thread of the run executes, in its order.
    #[must_use]
    pub fn visits(&self, slot: usize, layout: Layout) -> Vec<usize> {
        let gang = match self.jobs[slot] {
            Job::Thread { gang, .. } => gang,
            Job::Bystander => 0,
        };
        let mut visits: Vec<usize> = (gang..layout.instances()).step_by(self.gangs).collect();
        let mut rng = match self.pace {
            Pace::Lockstep | Pace::Chase => Rng::new(self.seed ^ gang as u64),
            Pace::Scatter => self.rng(slot),
        };
        if self.in_order {
            let start = rng.index(visits.len());
            visits.rotate_left(start);
        } else {
            shuffle(&mut visits, &mut rng);
        }
        visits
    }

    /// What decides a thread's delays.
    #[must_use]
    pub fn rng(&self, slot: usize) -> Rng {
        Rng::new(self.seed ^ (THREADS_MAX + slot) as u64)
    }

    /// The threads of the run that execute the same instances.
    pub fn partners(&self, slot: usize) -> impl Iterator<Item = usize> {
        let gang_of = |slot: usize| match self.jobs[slot] {
            Job::Thread { gang, .. } => Some(gang),
            Job::Bystander => None,
        };
        let mine = gang_of(slot);
        (0..self.jobs.len()).filter(move |&other| other != slot && mine.is_some() && gang_of(other) == mine)
    }
}

/// How often the instances come one after the other: neighbours share pages, which shuffled ones seldom do.
const IN_ORDER_PERMILLE: u64 = 500;

/// Of lockstep, chase and scatter. On one node only threads that are at one instance at once show anything. Across nodes
/// lockstep is what costs the time, and shows most.
fn pace_weights(placement: Placement) -> &'static [u64; 3] {
    match placement {
        Placement::Threads => &[8, 1, 1],
        Placement::Nodes | Placement::Mixed => &[2, 1, 1],
    }
}

/// Delays are up to what the race takes: some cache misses on one node, the fetch of a page across nodes.
fn delay_exponent_max(placement: Placement) -> usize {
    match placement {
        Placement::Threads => 5,
        Placement::Nodes | Placement::Mixed => 10,
    }
}

/// How often threads pause between steps. On one node the processor's store queue is empty after a pause, so that no
/// weak outcome comes; across nodes a page is not taken between two steps without one.
fn pause_permille(placement: Placement) -> u64 {
    match placement {
        Placement::Threads => 200,
        Placement::Nodes | Placement::Mixed => 500,
    }
}

/// Pauses are up to some times what it takes until a page is asked for and taken.
fn pause_exponent_max(placement: Placement) -> usize {
    match placement {
        Placement::Threads => 5,
        Placement::Nodes | Placement::Mixed => 12,
    }
}

fn shuffle<T>(items: &mut [T], rng: &mut Rng) {
    for last in (1..items.len()).rev() {
        items.swap(last, rng.index(last + 1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_instance_is_executed_by_every_thread_of_the_program_once() {
        for threads in 2..=THREADS_MAX {
            for (placement, number) in Placement::ALL.into_iter().flat_map(|p| (0..20).map(move |n| (p, n))) {
                let round = Round::new(1, placement, threads, number);
                let mut done = BTreeSet::new();
                for slot in 0..placement.slots(threads) {
                    let Job::Thread { thread, .. } = round.jobs[slot] else { continue };
                    let visits = round.visits(slot, Layout::Separate);
                    assert!(visits.iter().all(|&instance| done.insert((instance, thread))));
                    assert_eq!(round.partners(slot).count(), threads - 1);
                }
                assert_eq!(done.len(), Layout::Separate.instances() * threads, "{placement:?}");
            }
        }
    }

    #[test]
    fn threads_change_their_places() {
        let jobs = |number| format!("{:?}", Round::new(1, Placement::Mixed, THREADS_MAX, number).jobs);
        let different: BTreeSet<String> = (0..50).map(jobs).collect();
        assert!(different.len() > 10, "{different:?}");
    }
}
