//! The times of the membership: their defaults, their limits, and why.

use core::time::Duration;

/// A lease, unless the user says otherwise. A machine that is busy for hundreds of milliseconds must not lose its nodes;
/// a death that nobody can prove must not hold up the others for long.
pub const LEASE_DEFAULT: Duration = Duration::from_secs(1);

/// The shortest lease. Below it, the time slices of a busy machine would pass for deaths.
pub const LEASE_MIN: Duration = Duration::from_millis(20);

/// The longest lease. Beyond it nobody waits for a view.
pub const LEASE_MAX: Duration = Duration::from_secs(600);

/// A lease is renewed so many times while it lasts: three renewals in a row may be lost or late and the fourth serves.
pub const HEARTBEATS_PER_LEASE: u32 = 5;

/// The fewest renewals per lease that are of use: one may be lost.
pub const HEARTBEATS_PER_LEASE_MIN: u32 = 2;

/// A node without a majority gives up after so many leases more. Long enough for a switch or a paused voter to come
/// back, and, with the default lease, short enough that a program ends within five seconds.
pub const QUORUM_TIMEOUT_LEASES: u32 = 3;

/// The clock assumption: while one of two members' clocks counts a lease, the other counts no more than one part in so
/// many less. Undisciplined quartz is good for one part in ten thousand, and clocks are slewed by at most one in two thousand.
pub const DRIFT_SHARE: u32 = 100;

/// The turns of those that may lead a change follow each other by one heartbeat divided by this: several round trips of
/// a local network, and a small part of a lease.
pub const TURNS_PER_HEARTBEAT: u32 = 4;

/// A candidate that nobody lets in gives up after so many leases beyond the quorum's time-out: its rank may have to be
/// freed first, which takes a lease, and the view that lets it in another change.
pub const JOIN_LEASES: u32 = 4;

/// Whoever runs so many heartbeats later than it asked for was stopped itself, and knows nothing of others' silence.
pub const PAUSE_HEARTBEATS: u32 = 2;

/// The times of one cluster. All its processes must have the same.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Settings {
    lease: Duration,
    heartbeat: Duration,
    quorum_timeout: Duration,
    witness: bool,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            lease: LEASE_DEFAULT,
            heartbeat: LEASE_DEFAULT / HEARTBEATS_PER_LEASE,
            quorum_timeout: LEASE_DEFAULT * QUORUM_TIMEOUT_LEASES,
            witness: false,
        }
    }
}

/// Why times do not fit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// The lease is too short or too long.
    #[error("a lease of {lease:?} is outside the limits; choose one from {LEASE_MIN:?} to {LEASE_MAX:?}")]
    Lease {
        /// The lease that was asked for.
        lease: Duration,
    },
    /// The lease would run out between heartbeats.
    #[error(
        "a heartbeat every {heartbeat:?} does not keep a lease of {lease:?}; choose at most the lease divided by {HEARTBEATS_PER_LEASE_MIN}"
    )]
    Heartbeat {
        /// The heartbeat that was asked for.
        heartbeat: Duration,
        /// The lease.
        lease: Duration,
    },
}

impl Settings {
    /// The settings with this lease; the other times follow from it.
    ///
    /// # Errors
    /// If the lease is outside [`LEASE_MIN`] and [`LEASE_MAX`].
    pub fn with_lease(self, lease: Duration) -> Result<Settings, SettingsError> {
        if !(LEASE_MIN..=LEASE_MAX).contains(&lease) {
            return Err(SettingsError::Lease { lease });
        }
        let heartbeat = lease / HEARTBEATS_PER_LEASE;
        Ok(Settings { lease, heartbeat, quorum_timeout: lease * QUORUM_TIMEOUT_LEASES, ..self })
    }

    /// The settings with this time between heartbeats.
    ///
    /// # Errors
    /// If it is zero, or too long for the lease.
    pub fn with_heartbeat(self, heartbeat: Duration) -> Result<Settings, SettingsError> {
        if heartbeat.is_zero() || heartbeat > self.lease / HEARTBEATS_PER_LEASE_MIN {
            return Err(SettingsError::Heartbeat { heartbeat, lease: self.lease });
        }
        Ok(Settings { heartbeat, ..self })
    }

    /// The settings with this time from a node's freeze to its `NoQuorum`.
    #[must_use]
    pub fn with_quorum_timeout(self, quorum_timeout: Duration) -> Settings {
        Settings { quorum_timeout, ..self }
    }

    /// The settings of a cluster that a launcher watches, or does not.
    #[must_use]
    pub fn with_witness(self, witness: bool) -> Settings {
        Settings { witness, ..self }
    }

    /// How long after its sending a renewal serves.
    #[must_use]
    pub fn lease(&self) -> Duration {
        self.lease
    }

    /// The time between renewals.
    #[must_use]
    pub fn heartbeat(&self) -> Duration {
        self.heartbeat
    }

    /// The time from a node's freeze to its `NoQuorum`.
    #[must_use]
    pub fn quorum_timeout(&self) -> Duration {
        self.quorum_timeout
    }

    /// Whether there is a launcher that can vote.
    #[must_use]
    pub fn witness(&self) -> bool {
        self.witness
    }

    /// For how long a voter keeps what it granted, by its own clock: the lease, and what the clocks may differ by.
    #[must_use]
    pub fn promise(&self) -> Duration {
        self.lease + self.lease / DRIFT_SHARE
    }

    /// How long a member may be silent before its first word: a process that was just started is slower than later.
    #[must_use]
    pub fn first_word(&self) -> Duration {
        self.promise().max(self.quorum_timeout)
    }

    /// How long two members may be out of each other's reach while a majority reaches both.
    #[must_use]
    pub fn rift_patience(&self) -> Duration {
        self.lease
    }

    /// The time between the turns of those that may lead a change.
    #[must_use]
    pub fn turn(&self) -> Duration {
        self.heartbeat / TURNS_PER_HEARTBEAT
    }

    /// How late a tick may come before it means that this process was stopped.
    #[must_use]
    pub fn pause(&self) -> Duration {
        self.heartbeat * PAUSE_HEARTBEATS
    }

    /// How long a candidate waits to be let in.
    #[must_use]
    pub fn join_timeout(&self) -> Duration {
        self.quorum_timeout + self.lease * JOIN_LEASES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_follow_from_the_lease() {
        let settings = Settings::default().with_lease(Duration::from_millis(100)).expect("within the limits");
        assert_eq!(settings.heartbeat(), Duration::from_millis(20));
        assert_eq!(settings.promise(), Duration::from_millis(101));
        assert!(settings.first_word() > settings.promise());
    }

    #[test]
    fn times_that_do_not_fit_are_refused_with_what_to_choose() {
        let error = Settings::default().with_lease(Duration::from_millis(1)).expect_err("too short");
        assert!(error.to_string().contains("20ms"), "{error}");
        let error = Settings::default().with_heartbeat(Duration::from_millis(600)).expect_err("too long");
        assert!(error.to_string().contains("1s"), "{error}");
        assert!(Settings::default().with_heartbeat(Duration::ZERO).is_err());
    }
}
