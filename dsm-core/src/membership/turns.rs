//! Whose turn it is to lead a change. Two that lead at once cost each other a round, so they take turns by rank: the first
//! at once, the others one turn after another in case those before them are dead or out of reach. Without success the
//! round is repeated, each time at half the pace, until it is slow enough for the network.

use crate::time::Time;
use core::time::Duration;

/// The pace is halved so many times at most: then a turn of the default heartbeat takes 0.4 s.
const HALVINGS_MAX: u32 = 3;

/// One voter's turns in one view.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Turns {
    rounds: u32,
    due: Option<Time>,
}

impl Turns {
    /// Whether to lead now, there being something `wanted`. Of `voters` this one is the one at `position`, and its turn is
    /// so long.
    pub fn take(&mut self, now: Time, wanted: bool, position: usize, voters: usize, turn: Duration) -> bool {
        if !wanted {
            *self = Turns::default();
            return false;
        }
        let turns = |count: usize| turn.saturating_mul(u32::try_from(count).unwrap_or(u32::MAX));
        let due = self.due.unwrap_or(now + turns(position));
        if now < due {
            self.due = Some(due);
            return false;
        }
        let pace = 1 << self.rounds.min(HALVINGS_MAX);
        // The own position counts again, so that the distance to the next in line grows with the pace.
        self.due = Some(now + turns(voters + position) * pace);
        self.rounds += 1;
        true
    }

    /// When the next turn comes.
    pub fn deadline(&self) -> Option<Time> {
        self.due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_follow_each_other_and_slow_down() {
        let turn = Duration::from_nanos(10);
        let mut turns = Turns::default();
        assert!(!turns.take(Time::ZERO, true, 1, 3, turn));
        assert_eq!(turns.deadline(), Some(Time::from_nanos(10)));
        assert!(turns.take(Time::from_nanos(10), true, 1, 3, turn));
        assert_eq!(turns.deadline(), Some(Time::from_nanos(50)));
        assert!(turns.take(Time::from_nanos(50), true, 1, 3, turn));
        assert_eq!(turns.deadline(), Some(Time::from_nanos(130)));
        assert!(!turns.take(Time::from_nanos(60), false, 1, 3, turn));
        assert!(turns.take(Time::from_nanos(70), true, 0, 3, turn), "a new want begins anew");
    }
}
