//! Deliberate bugs of the runner, each of which must make it fail: they lie between programs and memory, as a broken
//! system would, or in the judge. The system itself has no switch for any of them.

use super::program::Op;
use serde::{Deserialize, Serialize};

/// One deliberate bug.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize, clap::ValueEnum,
)]
pub enum Mutant {
    /// The judge takes what no interleaving gives for forbidden: threads of one node then show a failure in SB.
    SequentialJudge,
    /// A load now and then sees what was there before the round, as from a copy that was never invalidated.
    StaleLoads,
    /// A load now and then sees a value of long ago.
    OutdatedLoads,
    /// A load now and then sees half of what is there, and half of what was there.
    TornLoads,
    /// A store now and then is not done, as though its page had been taken before it retired.
    LostStores,
    /// A thread now and then does its steps in the opposite order.
    ReversedSteps,
    /// A thread stops in the middle of a round.
    Hangs,
    /// A node ends in the middle of a round.
    Dies,
}

/// A bug that comes now and then comes in one visit of this many.
const EVERY: usize = 16;

impl Mutant {
    /// All of them.
    pub const ALL: [Mutant; 8] = [
        Mutant::SequentialJudge,
        Mutant::StaleLoads,
        Mutant::OutdatedLoads,
        Mutant::TornLoads,
        Mutant::LostStores,
        Mutant::ReversedSteps,
        Mutant::Hangs,
        Mutant::Dies,
    ];

    /// Whether it shows in a thread's visit of this number.
    #[must_use]
    pub fn strikes(self, visit: usize) -> bool {
        self != Mutant::SequentialJudge && visit % EVERY == EVERY / 2
    }

    /// Does not come back, if that is the bug.
    pub fn stop(self) {
        match self {
            Mutant::Hangs => loop {
                std::thread::park();
            },
            Mutant::Dies => std::process::abort(),
            Mutant::SequentialJudge
            | Mutant::StaleLoads
            | Mutant::OutdatedLoads
            | Mutant::TornLoads
            | Mutant::LostStores
            | Mutant::ReversedSteps => {}
        }
    }

    /// The steps that a thread does instead of `ops`.
    #[must_use]
    pub fn steps(self, ops: &[Op]) -> Vec<Op> {
        match self {
            Mutant::ReversedSteps => ops.iter().rev().copied().collect(),
            Mutant::LostStores => {
                let first = ops.iter().position(|op| matches!(op, Op::Store { .. }));
                let kept = ops.iter().enumerate().filter(|(place, _)| Some(*place) != first);
                kept.map(|(_, op)| *op).collect()
            }
            Mutant::SequentialJudge
            | Mutant::StaleLoads
            | Mutant::OutdatedLoads
            | Mutant::TornLoads
            | Mutant::Hangs
            | Mutant::Dies => ops.to_vec(),
        }
    }

    /// What a load sees instead of `found`, where `previous` was before.
    #[must_use]
    pub fn loaded(self, found: u64, previous: u64) -> u64 {
        const LOWER_HALF: u64 = u32::MAX as u64;
        match self {
            Mutant::StaleLoads => previous,
            // Rounds are counted from one.
            Mutant::OutdatedLoads => super::execute::word(0, 1),
            Mutant::TornLoads => found & !LOWER_HALF | previous & LOWER_HALF,
            Mutant::SequentialJudge
            | Mutant::LostStores
            | Mutant::ReversedSteps
            | Mutant::Hangs
            | Mutant::Dies => found,
        }
    }
}
