//! What happened in a run, or in many, in numbers.

use crate::history::Tally;
use dsm_core::{Message, Time};
use std::collections::BTreeMap;
use std::fmt;

/// What happened.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Runs.
    pub seeds: u64,
    /// Runs in which a node died.
    pub crashes: u64,
    /// Things that happened at an instant.
    pub events: u64,
    /// Instructions and calls of virtual threads.
    pub operations: u64,
    /// Faults, duplicates not among them.
    pub faults: u64,
    /// Writable mappings: a page changed hands, or was upgraded.
    pub hand_offs: u64,
    /// Messages, by kind.
    pub messages: BTreeMap<&'static str, u64>,
    /// What was checked for linearizability.
    pub histories: Tally,
    /// Virtual nanoseconds.
    pub virtual_ns: u64,
    /// Messages that a hostile member made up.
    pub hostile: u64,
    /// Of these, those that were refused.
    pub refused: u64,
    /// The most faults that one instruction took.
    pub faults_of_instruction_max: u32,
    /// The longest that one fault took, in virtual nanoseconds.
    pub fault_ns_max: u64,
}

impl Counts {
    /// One more message.
    pub(super) fn message(&mut self, message: &Message) {
        *self.messages.entry(message.name()).or_default() += 1;
    }

    /// The run came to this instant.
    pub(super) fn reached(&mut self, now: Time) {
        self.virtual_ns = now.as_nanos();
    }

    /// Adds another run, or other runs.
    pub fn add(&mut self, other: &Counts) {
        self.seeds += other.seeds;
        self.crashes += other.crashes;
        self.events += other.events;
        self.operations += other.operations;
        self.faults += other.faults;
        self.hand_offs += other.hand_offs;
        self.histories.add(&other.histories);
        self.virtual_ns += other.virtual_ns;
        self.hostile += other.hostile;
        self.refused += other.refused;
        self.faults_of_instruction_max = self.faults_of_instruction_max.max(other.faults_of_instruction_max);
        self.fault_ns_max = self.fault_ns_max.max(other.fault_ns_max);
        for (kind, count) in &other.messages {
            *self.messages.entry(kind).or_default() += count;
        }
    }
}

/// Nanoseconds of a second and of a millisecond, for people.
const NANOS_PER_SECOND: f64 = 1e9;
const NANOS_PER_MILLI: f64 = 1e6;

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let messages: u64 = self.messages.values().sum();
        write!(
            f,
            "{} seeds ({} with a crash), {} events, {messages} messages, {} operations, {} faults (longest {:.1} ms, \
             at most {} an instruction), {} hand-offs, {} checked, {:.1} s of virtual time",
            self.seeds,
            self.crashes,
            self.events,
            self.operations,
            self.faults,
            self.fault_ns_max as f64 / NANOS_PER_MILLI,
            self.faults_of_instruction_max,
            self.hand_offs,
            self.histories,
            self.virtual_ns as f64 / NANOS_PER_SECOND,
        )?;
        if self.hostile > 0 {
            write!(f, ", {} hostile messages ({} refused)", self.hostile, self.refused)?;
        }
        Ok(())
    }
}
