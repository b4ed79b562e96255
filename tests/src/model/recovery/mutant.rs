//! Deliberate faults between machines, each of which must be found as a counterexample.

/// One deliberate fault.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Mutant {
    /// A buddy's ack is there as soon as the record is sent.
    AcksBeforeKept,
    /// Of a record, only one page is replicated.
    CommitsOnePage,
    /// The frame of a page that is given up is used for something else.
    ReusesFrozenFrames,
    /// What has come of a record when its node dies, counts: each page is a commit of its own.
    CountsHalfRecords,
    /// An ack counts for all records that were sent by then, whatever its number says.
    AcksAnyNumber,
    /// All views have one number, so that versions are spent twice.
    ReusesVersions,
    /// A member goes on as soon as it has drawn its own conclusions.
    ResumesAlone,
    /// A node that has become a buddy acks what it never gets.
    SkipsNewBuddies,
    /// The committed state is not set aside when a section writes over it.
    KeepsNoTwins,
    /// Bytes on their way go straight into frames that keep something.
    PlacesBodiesOverKept,
    /// Custodians are released as soon as a later state has all its holders, though the view is not fully replicated.
    ReleasesAtOnce,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Mutant; 11] = [
        Mutant::AcksBeforeKept,
        Mutant::CommitsOnePage,
        Mutant::ReusesFrozenFrames,
        Mutant::CountsHalfRecords,
        Mutant::AcksAnyNumber,
        Mutant::ReusesVersions,
        Mutant::ResumesAlone,
        Mutant::SkipsNewBuddies,
        Mutant::KeepsNoTwins,
        Mutant::PlacesBodiesOverKept,
        Mutant::ReleasesAtOnce,
    ];

    /// The mutant of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Mutant> {
        Mutant::ALL.into_iter().find(|mutant| format!("{mutant:?}") == name)
    }
}
