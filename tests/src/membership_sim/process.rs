//! One simulated process: its membership, its clock, and what its driver knows.

use super::clock::Clock;
use dsm_core::membership::{ConfigStore, Fact, Identity, Membership};
use dsm_core::{Time, ViewId};

/// How a process came to its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// It was killed.
    Killed,
    /// It was told that it is no member.
    Evicted,
    /// It left.
    Left,
    /// It found no majority.
    NoQuorum,
}

/// A process.
pub struct Process<S: ConfigStore> {
    /// Which it is.
    pub identity: Identity,
    /// Its part in the membership.
    pub membership: Membership<S>,
    /// Its clock.
    pub clock: Clock,
    /// How it ended.
    pub end: Option<End>,
    /// The simulation's time at which it began to be stopped, if it is.
    pub stopped: Option<u64>,
    /// What came while it was stopped.
    pub backlog: Vec<Fact<S::Message>>,
    /// How much longer than others it takes to do anything.
    pub sluggish: u64,
    /// Whether anything was done to it that could cost it its lease.
    pub disturbed: bool,
    /// The view it installed last.
    pub installed: Option<ViewId>,
    /// Since when, by its own clock, its driver holds everything back.
    pub frozen: Option<Time>,
    /// Which of its wake-up calls counts.
    pub alarm: u64,
    /// How many words of consensus it has sent.
    pub consensus_sent: u64,
    /// It is killed when it has sent so many.
    pub dies_at_consensus: Option<u64>,
    /// It asked to leave.
    pub leaving: bool,
}

impl<S: ConfigStore> Process<S> {
    /// A process at `now` of the simulation's time, in a view if it has `installed` one.
    #[must_use]
    pub fn new(
        now: u64,
        identity: Identity,
        clock: Clock,
        membership: Membership<S>,
        installed: Option<ViewId>,
    ) -> Process<S> {
        Process {
            identity,
            frozen: Some(clock.shows(now)),
            membership,
            clock,
            end: None,
            stopped: None,
            backlog: Vec::new(),
            sluggish: 0,
            disturbed: false,
            installed,
            alarm: 0,
            consensus_sent: 0,
            dies_at_consensus: None,
            leaving: false,
        }
    }

    /// Whether it runs, or could go on.
    #[must_use]
    pub fn lives(&self) -> bool {
        self.end.is_none()
    }
}
