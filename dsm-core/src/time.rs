//! Instants, as the driver gives them: the core has no clock of its own.

use core::ops::Add;
use core::time::Duration;

/// An instant: nanoseconds since an origin that the driver chose. It never goes back.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Time {
    nanos: u64,
}

impl Time {
    /// The driver's origin.
    pub const ZERO: Time = Time { nanos: 0 };

    /// The instant that lies `nanos` nanoseconds after the origin.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Time {
        Time { nanos }
    }

    /// Nanoseconds since the origin.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.nanos
    }

    /// How long after `earlier` this instant is; zero if it is before it.
    #[must_use]
    pub const fn since(self, earlier: Time) -> Duration {
        Duration::from_nanos(self.nanos.saturating_sub(earlier.nanos))
    }
}

impl Add<Duration> for Time {
    type Output = Time;

    fn add(self, span: Duration) -> Time {
        let nanos = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        Time { nanos: self.nanos.saturating_add(nanos) }
    }
}
