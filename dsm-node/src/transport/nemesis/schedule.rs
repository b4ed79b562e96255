//! When something happens to a direction of a connection, and what: by byte offset, as the seed decides.

use super::plan::{DELAY_MAX, DELAY_MIN, LINGER_MAX, PARTITION_MAX, Temper};
use std::collections::VecDeque;
use std::time::Duration;

/// So many single bytes in a row, at most: a small page with its head.
const STORM_MAX: u64 = 4200;

/// What happens at a byte.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Event {
    /// The call ends before it.
    Split,
    /// It waits.
    Delay(Duration),
    /// Nothing passes, here and back or only here.
    Partition { span: Duration, both_ways: bool },
    /// Frames that were sent before come again, at the next place where a frame begins.
    Replay { salt: u64 },
    /// The connection breaks.
    Reset(Break),
}

/// How a connection breaks, before a byte.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Break {
    /// The byte and what comes with it seem to pass, and are lost with the connection.
    Lost,
    /// The call fails. What passed before arrives.
    Failed,
    /// The call fails, and the peer learns of it only after this time. What else was to be sent arrives then, if the
    /// peer still listens.
    Silent(Duration),
}

/// SplitMix64 (Steele, Lea and Flood, 2014): our own, so that a seed means the same after every update of a crate.
#[derive(Clone, Debug)]
pub(super) struct Dice(u64);

impl Dice {
    /// What `key` decides.
    pub fn new(key: &[u64]) -> Dice {
        let mut dice = Dice(0x6a09_e667_f3bc_c908);
        for word in key {
            dice.0 ^= word;
            dice.0 = dice.roll();
        }
        dice
    }

    /// Any number.
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.roll() % bound.max(1)
    }

    /// One of `choices`, if there are any.
    pub fn pick<'a, T>(&mut self, choices: &'a [T]) -> Option<&'a T> {
        let index = usize::try_from(self.below(choices.len() as u64)).unwrap_or(0);
        choices.get(index)
    }

    /// From 1 to about 2 to the power of `bits`, all magnitudes alike.
    fn magnitude(&mut self, bits: u64) -> u64 {
        let magnitude = self.below(bits + 1);
        1 + self.below(1 << magnitude)
    }

    /// From `low` to `high`, all magnitudes alike.
    fn span(&mut self, low: Duration, high: Duration) -> Duration {
        let factor = high.as_nanos() / low.as_nanos().max(1);
        let bits = u64::from(factor.max(1).ilog2());
        low.saturating_mul(u32::try_from(self.magnitude(bits)).unwrap_or(1)).min(high)
    }
}

/// The events of one direction, in the order of their offsets.
#[derive(Clone, Debug)]
pub(super) enum Schedule {
    /// Written down in advance.
    Script(VecDeque<(u64, Event)>),
    /// By chance.
    Seeded {
        /// Where chance comes from.
        dice: Dice,
        /// What is likely.
        temper: Temper,
        /// So many single bytes are yet to come.
        storm: u64,
        /// Before this offset nothing breaks.
        whole_until: u64,
    },
}

impl Schedule {
    /// The first event after `offset`.
    pub fn next(&mut self, offset: u64) -> Option<(u64, Event)> {
        match self {
            Schedule::Script(script) => script.pop_front(),
            Schedule::Seeded { dice, temper, storm, whole_until } => {
                if *storm > 0 {
                    *storm -= 1;
                    return Some((offset + 1, Event::Split));
                }
                let at = offset + dice.magnitude(temper.gap_bits);
                Some((at, draw(dice, temper, storm, at < *whole_until)))
            }
        }
    }
}

fn draw(dice: &mut Dice, temper: &Temper, storm: &mut u64, whole: bool) -> Event {
    let Temper { split, storm: storms, delay, reset, replay, partition, .. } = *temper;
    let mut ticket = dice.below(split + storms + delay + reset + replay + partition);
    // Whether the ticket falls into the next so many of all.
    let mut falls = |weight: u64| {
        let hit = ticket < weight;
        ticket = ticket.wrapping_sub(if hit { 0 } else { weight });
        hit
    };
    if falls(split) {
        Event::Split
    } else if falls(storms) {
        *storm = dice.below(STORM_MAX);
        Event::Split
    } else if falls(delay) {
        Event::Delay(dice.span(DELAY_MIN, DELAY_MAX))
    } else if falls(replay) {
        Event::Replay { salt: dice.roll() }
    } else if falls(partition) {
        let span = dice.span(DELAY_MAX, PARTITION_MAX);
        Event::Partition { span, both_ways: dice.below(2) == 0 }
    } else {
        let how = match dice.below(3) {
            0 => Break::Lost,
            1 => Break::Failed,
            _ => Break::Silent(dice.span(DELAY_MIN, LINGER_MAX)),
        };
        if whole { Event::Split } else { Event::Reset(how) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::plan::Plan;
    use super::*;

    fn events(seed: u64, count: usize) -> Vec<(u64, Event)> {
        let temper = Plan::seeded(seed, 4096).temper.expect("a seed has a temper");
        let dice = Dice::new(&[seed]);
        let mut schedule = Schedule::Seeded { dice, temper, storm: 0, whole_until: 0 };
        let mut offset = 0;
        let mut next = || {
            let (at, event) = schedule.next(offset).expect("it goes on");
            assert!(at > offset);
            offset = at;
            (at, event)
        };
        (0..count).map(|_| next()).collect()
    }

    #[test]
    fn a_seed_is_a_schedule() {
        for seed in 0..20 {
            assert_eq!(events(seed, 500), events(seed, 500));
            assert_ne!(events(seed, 500), events(seed + 1, 500));
        }
    }

    #[test]
    fn everything_comes_up_and_nothing_takes_too_long() {
        let all: Vec<Event> = (0..40).flat_map(|seed| events(seed, 3000)).map(|(_, event)| event).collect();
        let (mut splits, mut delays, mut partitions, mut replays, mut breaks) = (0, 0, 0, 0, [0; 3]);
        for event in all {
            match event {
                Event::Split => splits += 1,
                Event::Delay(span) => {
                    assert!((DELAY_MIN..=DELAY_MAX).contains(&span));
                    delays += 1;
                }
                Event::Partition { span, .. } => {
                    assert!(span <= PARTITION_MAX);
                    partitions += 1;
                }
                Event::Replay { .. } => replays += 1,
                Event::Reset(Break::Lost) => breaks[0] += 1,
                Event::Reset(Break::Failed) => breaks[1] += 1,
                Event::Reset(Break::Silent(span)) => {
                    assert!(span <= LINGER_MAX);
                    breaks[2] += 1;
                }
            }
        }
        let counts = [splits, delays, partitions, replays, breaks[0], breaks[1], breaks[2]];
        assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
    }
}
