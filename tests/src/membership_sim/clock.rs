//! A process's clock: it begins anywhere, and runs a little too fast or too slow.

use crate::sim::Rng;
use dsm_core::Time;

/// Clocks of this simulation run too fast or too slow by so many parts in a million at most: two of them differ by less
/// than one part in [`dsm_core::membership::settings::DRIFT_SHARE`].
pub const DRIFT_MILLIONTHS_MAX: i64 = 4_000;

const MILLION: i128 = 1_000_000;

/// Clocks begin below this many nanoseconds: some twenty minutes after their machines.
const ORIGIN_MAX: u64 = 1 << 40;

/// One process's clock.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// What it shows when the simulation begins.
    pub origin: u64,
    /// How much too fast it is.
    pub drift_millionths: i64,
}

impl Clock {
    /// A clock within the clock assumption.
    pub fn draw(rng: &mut Rng) -> Clock {
        let span = u64::try_from(2 * DRIFT_MILLIONTHS_MAX).unwrap_or(0);
        let drift_millionths = i64::try_from(rng.below(span + 1)).unwrap_or(0) - DRIFT_MILLIONTHS_MAX;
        Clock { origin: rng.below(ORIGIN_MAX), drift_millionths }
    }

    /// What it shows at `real`, in nanoseconds of the simulation.
    #[must_use]
    pub fn shows(self, real: u64) -> Time {
        let passed = i128::from(real) * (MILLION + i128::from(self.drift_millionths)) / MILLION;
        Time::from_nanos(self.origin + u64::try_from(passed).unwrap_or(u64::MAX))
    }

    /// The first instant of the simulation at which it shows `time` or more.
    #[must_use]
    pub fn when(self, time: Time) -> u64 {
        let passed = i128::from(time.as_nanos().saturating_sub(self.origin));
        let rate = MILLION + i128::from(self.drift_millionths);
        let mut real = u64::try_from(passed * MILLION / rate).unwrap_or(u64::MAX);
        while self.shows(real) < time {
            real += 1;
        }
        real
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_back_where_it_was() {
        for drift_millionths in [-DRIFT_MILLIONTHS_MAX, 0, 17, DRIFT_MILLIONTHS_MAX] {
            let clock = Clock { origin: 12_345, drift_millionths };
            for real in [0, 1, 999, 1_000_000_007] {
                let back = clock.when(clock.shows(real));
                assert!(back <= real && clock.shows(back) >= clock.shows(real), "{clock:?} {real} {back}");
            }
        }
    }
}
