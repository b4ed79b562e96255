//! Deliberate faults of a node's driver where membership and machine meet. The two have no switch for them.

/// One deliberate fault.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Mutant {
    /// Nobody looks at the lease before something is sent.
    SendsWithoutLease,
    /// Nobody looks at the lease before a call is answered.
    AnswersWithoutLease,
    /// A node that has no lease keeps its page table.
    KeepsMappings,
    /// A node that has no lease goes on as if it had.
    IgnoresFreeze,
    /// What comes while there is no lease is thrown away.
    DropsWhatComes,
    /// Faults that come while there is no lease are thrown away.
    DropsFaults,
    /// Answers to threads are thrown away while there is no lease.
    DropsAnswers,
    /// What had been put off is heard, though it is of an earlier view.
    HearsPutOffOfOldViews,
    /// Messages of members that were sent in an earlier view are heard.
    HearsOldViews,
    /// Messages of views that are not installed yet are thrown away.
    DropsEarly,
    /// A message carries the view in which it leaves, not that in which it was queued.
    StampsAtSending,
    /// A node that was evicted does not notice.
    IgnoresEviction,
    /// A node that has found no majority for too long waits on.
    IgnoresNoQuorum,
    /// Whoever does not take connections counts as proven dead.
    TakesSuspicionForProof,
    /// The machine is not told of views that are agreed on while there is no lease.
    MissesViews,
    /// When the lease comes back, what was queued meanwhile is not sent.
    ForgetsQueue,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Mutant; 16] = [
        Mutant::SendsWithoutLease,
        Mutant::AnswersWithoutLease,
        Mutant::KeepsMappings,
        Mutant::IgnoresFreeze,
        Mutant::DropsWhatComes,
        Mutant::DropsFaults,
        Mutant::DropsAnswers,
        Mutant::HearsPutOffOfOldViews,
        Mutant::HearsOldViews,
        Mutant::DropsEarly,
        Mutant::StampsAtSending,
        Mutant::IgnoresEviction,
        Mutant::IgnoresNoQuorum,
        Mutant::TakesSuspicionForProof,
        Mutant::MissesViews,
        Mutant::ForgetsQueue,
    ];

    /// The mutant of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Mutant> {
        Mutant::ALL.into_iter().find(|mutant| format!("{mutant:?}") == name)
    }
}
