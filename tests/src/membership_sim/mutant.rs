//! Deliberate bugs. All lie between the memberships, or in the consensus engine that is put behind them: the component has
//! no switch for them.

use dsm_core::ViewId;
use dsm_core::membership::{Change, ConfigStore, OmniStore, VoterId, Voters};

/// What is wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mutant {
    /// A lease counts from when its renewal's answer is received.
    CountsFromReceipt,
    /// Whoever is suspected is taken for dead.
    EvictsOnSuspicion,
    /// A voter renews what it said it would renew no more.
    RenewsRefused,
    /// A voter grants on after it has accepted a successor of the view.
    GrantsAfterAccepting,
    /// Voters call others late before their time: their clocks are much too fast.
    FastClocks,
    /// Everybody decides alone.
    DecidesAlone,
    /// A voter forgets what it accepted.
    ForgetsAccepted,
    /// Packets of another view are taken for such of this view.
    IgnoresViews,
    /// What is claimed is lost.
    LosesClaims,
    /// Nobody is told the time when its lease ends.
    LosesTicks,
    /// Who missed a decision is not told.
    TellsNobody,
    /// A process that was removed is not told.
    LosesRemovals,
    /// Candidates get no answer.
    LosesWelcomes,
    /// A driver acts on without a lease.
    IgnoresFreeze,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Mutant; 14] = [
        Mutant::CountsFromReceipt,
        Mutant::EvictsOnSuspicion,
        Mutant::RenewsRefused,
        Mutant::GrantsAfterAccepting,
        Mutant::FastClocks,
        Mutant::DecidesAlone,
        Mutant::ForgetsAccepted,
        Mutant::IgnoresViews,
        Mutant::LosesClaims,
        Mutant::LosesTicks,
        Mutant::TellsNobody,
        Mutant::LosesRemovals,
        Mutant::LosesWelcomes,
        Mutant::IgnoresFreeze,
    ];

    /// The mutant of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Mutant> {
        Mutant::ALL.into_iter().find(|mutant| format!("{mutant:?}") == name)
    }
}

/// The engine, with or without one of the bugs that concern it.
pub struct Rigged<const BUG: u8> {
    engine: OmniStore,
    alone: Option<Change>,
    view: ViewId,
    me: VoterId,
    voters: Voters,
}

/// No bug.
pub const SOUND: u8 = 0;
/// [`Mutant::GrantsAfterAccepting`].
pub const HIDES_ACCEPTANCE: u8 = 1;
/// [`Mutant::DecidesAlone`].
pub const DECIDES_ALONE: u8 = 2;
/// [`Mutant::ForgetsAccepted`].
pub const FORGETS: u8 = 3;

impl<const BUG: u8> ConfigStore for Rigged<BUG> {
    type Message = <OmniStore as ConfigStore>::Message;

    fn new(view: ViewId, me: VoterId, voters: Voters) -> Self {
        Rigged { engine: OmniStore::new(view, me, voters), alone: None, view, me, voters }
    }

    fn lead(&mut self, change: Option<Change>) {
        if BUG == DECIDES_ALONE && self.alone.is_none() {
            self.alone.clone_from(&change);
        }
        self.engine.lead(change);
    }

    fn receive(&mut self, from: VoterId, message: Self::Message) -> bool {
        self.engine.receive(from, message)
    }

    fn repeat(&mut self) {
        self.engine.repeat();
    }

    fn drain(&mut self) -> Vec<(VoterId, Self::Message)> {
        let messages = self.engine.drain();
        if BUG == FORGETS && self.engine.accepted() && self.engine.decided().is_none() {
            self.engine = OmniStore::new(self.view, self.me, self.voters);
        }
        messages
    }

    fn accepted(&self) -> bool {
        BUG != HIDES_ACCEPTANCE && (self.engine.accepted() || self.alone.is_some())
    }

    fn decided(&self) -> Option<Change> {
        self.alone.clone().or_else(|| self.engine.decided())
    }
}
