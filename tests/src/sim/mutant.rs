//! Deliberate faults of the executor and the network, each of which the checker must find.
//!
//! A checker that could never fail proves nothing, so every property has a mutant that breaks it. Nothing here touches
//! the machine: a mutant lies to it, or carries out its actions wrongly.

/// One deliberate fault.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Mutant {
    /// `Protect(None)` leaves a read mapping: an owner reads on after it granted a write, a reader after its ack.
    KeepsReadMapping,
    /// `Protect(Read)` leaves the page writable: an owner writes on after it granted a read.
    KeepsWriteMapping,
    /// `Install(Read)` maps the page writable, as `CONTINUE` without write protection does.
    MapsReadsWritable,
    /// The network loses every invalidation.
    DropsInvalidate,
    /// A reader's ack comes when its invalidation is sent, not when its copy is gone.
    AcksEarly,
    /// The home hears a confirmation as soon as the grant is sent: it does not wait for the grant to be in force.
    ConfirmsEarly,
    /// A grant carries the bytes that its sender's frame held when it last sent that page.
    StaleBody,
    /// The body of a grant is not placed in the frame.
    DiscardsBody,
    /// Every residency probe says that the instruction has retired.
    NoResidency,
    /// An install wakes nobody, now and then.
    LosesWake,
    /// A denied lock call is told that it has the lock.
    GrantsDeniedLocks,
    /// A lock is released as soon as it is granted.
    ReleasesEarly,
    /// `Protect` is not carried out at all.
    ForgetsProtect,
    /// A frame is given to something else as soon as its bytes were sent.
    ReusesSentFrame,
    /// An atomic increment is a load and a store, with anything between them.
    TearsIncrements,
    /// Who reaches the barrier is let through.
    PassesBarrierAlone,
    /// Who leaves need not wait for the others.
    LeavesAlone,
    /// Every claimant of a root is to create it.
    CreatesRootsTwice,
    /// A span is leased that was leased before.
    LeasesTwice,
    /// The news that a block was dropped is lost.
    LosesFrees,
    /// No survivor hears of a death.
    HidesDeaths,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Mutant; 21] = [
        Mutant::KeepsReadMapping,
        Mutant::KeepsWriteMapping,
        Mutant::MapsReadsWritable,
        Mutant::DropsInvalidate,
        Mutant::AcksEarly,
        Mutant::ConfirmsEarly,
        Mutant::StaleBody,
        Mutant::DiscardsBody,
        Mutant::NoResidency,
        Mutant::LosesWake,
        Mutant::GrantsDeniedLocks,
        Mutant::ReleasesEarly,
        Mutant::ForgetsProtect,
        Mutant::ReusesSentFrame,
        Mutant::TearsIncrements,
        Mutant::PassesBarrierAlone,
        Mutant::LeavesAlone,
        Mutant::CreatesRootsTwice,
        Mutant::LeasesTwice,
        Mutant::LosesFrees,
        Mutant::HidesDeaths,
    ];

    /// The mutant of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Mutant> {
        Mutant::ALL.into_iter().find(|mutant| format!("{mutant:?}") == name)
    }

    /// Whether the lie is one about page tables: then its effect on memory is to be found, and not the lie itself, so
    /// page tables are not held against the machine.
    #[must_use]
    pub fn is_about_page_tables(self) -> bool {
        matches!(self, Mutant::KeepsReadMapping | Mutant::KeepsWriteMapping | Mutant::MapsReadsWritable)
    }

    /// Whether the lie is one about the bytes of a grant, which then are not what the sender's frame holds.
    #[must_use]
    pub fn is_about_bodies(self) -> bool {
        matches!(self, Mutant::StaleBody)
    }
}
