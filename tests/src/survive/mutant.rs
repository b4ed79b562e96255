//! Deliberate faults of the driver and the network, each of which the oracle must find.
//!
//! As in `sim`, nothing here touches the machine: a mutant lies to it, or carries out its actions wrongly.

/// One deliberate fault.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Mutant {
    /// A buddy's ack comes as soon as the record is sent: pages are served before they are kept.
    AcksBeforeKept,
    /// Some records are acked and never come.
    AcksWhatNeverCame,
    /// An ack counts for all records that were sent by then, whatever its number says.
    AcksAnyNumber,
    /// Of a record, only one page is replicated: the others of the same instant are not.
    CommitsOnePage,
    /// The frame of a page that is given up is used for something else, though it keeps the committed state.
    ReusesFrozenFrames,
    /// The pages of a record are put into their frames as they come, not when the record counts.
    AppliesPagesAsTheyCome,
    /// What has come of a record when its node dies, counts.
    CountsHalfRecords,
    /// The committed state is not set aside when a section writes over it.
    KeepsNoTwins,
    /// A page of a record is copied when it is delivered, not at the record's instant.
    CopiesLate,
    /// A node that has become a buddy acks what it never gets: it has no base.
    SkipsNewBuddies,
    /// Custodians are released as soon as a later state is sent, not when it is acked.
    ReleasesBeforeAcked,
    /// Custodians are released by the first ack, though the view is not fully replicated.
    ReleasesAtOnce,
    /// Releases are lost: what nobody needs is kept for ever.
    LosesReleases,
    /// A member goes on as soon as it has drawn its own conclusions.
    ResumesAlone,
    /// All views have one number, so that versions of a later view are spent anew.
    ReusesVersions,
    /// Messages of members that were sent in an earlier view are heard.
    HearsOldViews,
    /// Nobody says which pages a lock's domain has: they are committed in the middle of sections.
    CommitsOpenSections,
    /// A lock's home hears of the release before what was written is replicated.
    UnlocksEarly,
    /// The coordinator hears of an arrival before what was written is replicated.
    ArrivesEarly,
    /// `sync` waits for nothing.
    SyncsAtOnce,
    /// All members say that all was replicated in this very view, so that nothing ever counts as lost.
    LosesNothing,
    /// Locks that the dead held are never free again.
    KeepsLocksOfTheDead,
    /// Nobody is told that a lock came from the dead.
    HidesInheritance,
    /// Members do not tell how many barriers they have passed.
    ForgetsBarriers,
    /// Bytes on their way go straight into frames that keep something.
    PlacesBodiesOverKept,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Mutant; 25] = [
        Mutant::AcksBeforeKept,
        Mutant::AcksWhatNeverCame,
        Mutant::AcksAnyNumber,
        Mutant::CommitsOnePage,
        Mutant::ReusesFrozenFrames,
        Mutant::AppliesPagesAsTheyCome,
        Mutant::CountsHalfRecords,
        Mutant::KeepsNoTwins,
        Mutant::CopiesLate,
        Mutant::SkipsNewBuddies,
        Mutant::ReleasesBeforeAcked,
        Mutant::ReleasesAtOnce,
        Mutant::LosesReleases,
        Mutant::ResumesAlone,
        Mutant::ReusesVersions,
        Mutant::HearsOldViews,
        Mutant::CommitsOpenSections,
        Mutant::UnlocksEarly,
        Mutant::ArrivesEarly,
        Mutant::SyncsAtOnce,
        Mutant::LosesNothing,
        Mutant::KeepsLocksOfTheDead,
        Mutant::HidesInheritance,
        Mutant::ForgetsBarriers,
        Mutant::PlacesBodiesOverKept,
    ];

    /// The mutant of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Mutant> {
        Mutant::ALL.into_iter().find(|mutant| format!("{mutant:?}") == name)
    }
}
