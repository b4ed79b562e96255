//! What always holds.

use super::Cluster;
use super::configuration::Configuration;
use super::state::{Node, State, Waiting};
use super::turn::Check;
use dsm_core::{Access, Copyset, NodeId, ViewId};
use stateright::Property;

/// A rule of which a state says that it was broken.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Rule {
    /// One node may write a page, or any number may read it (I1).
    OneWriterOrReaders,
    /// Every access finds what was stored last and survived.
    LatestStore,
    /// A page's committed version never goes back (I2).
    VersionsGoOn,
    /// What a survivor has seen survives, with all that it depends on (I3, I4).
    SeenSurvives,
    /// In a view that is fully replicated, committed pages have as many holders as they should (I3).
    EnoughHolders,
    /// Who is to hold a committed state holds it, or a later one (I7).
    CustodyIsKept,
    /// Sections are all or nothing, and those that somebody knows of are there (I6).
    SectionsAreWhole,
    /// One node that lives holds the lock (I9).
    OneHolder,
    /// After a recovery, a page has one owner, whom its home knows.
    OneOwner,
    /// Nothing is lost while no more died than there are replicas.
    NothingLost,
    /// No node refuses what another node's machine said; so nothing of an earlier view has an effect (I5).
    NothingRefused,
    /// The machine wants only what its driver can do.
    ActionsFit,
    /// The page table is what the machine believes.
    TableIsBelief,
    /// `Machine::invariants` hold.
    Invariants,
    /// The machine does not panic.
    NoPanic,
    /// When nothing more is under way, nobody waits (I8).
    EveryFaultEnds,
    /// When nothing more happens, all that is committed has its holders, and nobody else keeps it.
    RestIsReplicated,
}

impl Rule {
    /// All of them.
    pub const ALL: [Rule; 17] = [
        Rule::OneWriterOrReaders,
        Rule::LatestStore,
        Rule::VersionsGoOn,
        Rule::SeenSurvives,
        Rule::EnoughHolders,
        Rule::CustodyIsKept,
        Rule::SectionsAreWhole,
        Rule::OneHolder,
        Rule::OneOwner,
        Rule::NothingLost,
        Rule::NothingRefused,
        Rule::ActionsFit,
        Rule::TableIsBelief,
        Rule::Invariants,
        Rule::NoPanic,
        Rule::EveryFaultEnds,
        Rule::RestIsReplicated,
    ];
}

/// That no step breaks a rule, and what is so when nothing is under way. A broken rule is named by the last step.
pub(super) fn properties() -> Vec<Property<Cluster>> {
    vec![
        Property::always("no step breaks a rule", |_, state: &State| state.broken.is_none()),
        Property::always("every fault ends", Cluster::every_fault_ends),
        Property::always("at rest, all is replicated", Cluster::rest_is_replicated),
    ]
}

/// What must have come up.
pub(super) fn sights(configuration: &Configuration) -> Vec<Property<Cluster>> {
    let mut sights = vec![
        Property::sometimes("members go on after a death", |_, state: &State| state.seen > ViewId::FIRST),
        Property::sometimes("all is replicated again after a death", |_, state: &State| {
            state.seen > ViewId::FIRST && state.alive().all(|(_, node)| node.machine.is_fully_replicated())
        }),
    ];
    if configuration.crashes > 1 {
        sights.push(Property::sometimes("members go on after two deaths", |_, state: &State| {
            state.seen.0 > ViewId::FIRST.0 + 1
        }));
    }
    sights
}

impl Cluster {
    /// What must hold after each step of `me`.
    pub(super) fn check(&self, state: &mut State, me: NodeId) -> Check {
        let node = &state.nodes[me.index()];
        if node.dead {
            return Ok(());
        }
        for (page, &id) in self.pages.iter().enumerate() {
            let (mapped, believed) = (node.table[page], node.machine.access(id));
            if mapped != believed {
                let what = format!("{me} maps page {page} {mapped:?}, its machine says {believed:?}");
                return Err((Rule::TableIsBelief, what));
            }
        }
        node.machine.invariants().map_err(|violation| (Rule::Invariants, format!("{me}: {violation}")))?;
        for page in 0..self.pages.len() {
            self.one_writer_or_readers(state, page)?;
            self.custody(state, page)?;
        }
        Ok(())
    }

    fn one_writer_or_readers(&self, state: &State, page: usize) -> Check {
        let having = |access: Access| state.alive().filter(|(_, node)| node.table[page] == access).count();
        let (writers, readers) = (having(Access::Write), having(Access::Read));
        if writers > 1 || writers == 1 && readers > 0 {
            return Err((
                Rule::OneWriterOrReaders,
                format!("page {page} has {writers} writers and {readers} readers"),
            ));
        }
        Ok(())
    }

    /// What the owner of a page says of its last committed state, once all are in the same view.
    fn custody(&self, state: &mut State, page: usize) -> Check {
        let latest = state.latest().clone();
        if state.alive().any(|(_, node)| node.installed != latest.id()) || state.seen != latest.id() {
            return Ok(());
        }
        let id = self.pages[page];
        let owner = state.alive().find(|(_, node)| node.machine.owns(id));
        let custody = owner.and_then(|(owner, node)| Some((owner, node.machine.custody(id)?)));
        let Some((owner, custody)) = custody else { return Ok(()) };
        let live: Copyset = state.alive().map(|(name, _)| name).collect();
        let keeps = |holder: &NodeId| {
            let kept = state.nodes[holder.index()].machine.kept(id);
            kept.is_some_and(|kept| kept >= custody.version)
        };
        // Who takes a page over counts whoever keeps anything of it, until it has committed it anew.
        let anew = custody.version.view == latest.id();
        let known = state.committed[page];
        if anew && known.is_some_and(|known| custody.version < known) {
            let what = format!("page {page} of {owner} goes back from {known:?} to {:?}", custody.version);
            return Err((Rule::VersionsGoOn, what));
        }
        let holders = custody.holders.intersection(live);
        if let Some(holder) = holders.iter().find(|holder| anew && !keeps(holder)) {
            let what = format!("{holder} does not keep page {page}, and {owner} counts on {custody:?}");
            return Err((Rule::CustodyIsKept, what));
        }
        let replicated = state.alive().all(|(_, node)| node.machine.is_fully_replicated());
        let wanted = latest.buddies_of(owner).len();
        let keepers = live.without(owner).iter().filter(keeps).count();
        if replicated && keepers < wanted {
            let what = format!("{custody:?} of page {page} of {owner} is kept by {keepers}, not by {wanted}");
            return Err((Rule::EnoughHolders, what));
        }
        if anew {
            state.committed[page] = Some(custody.version);
        }
        Ok(())
    }

    /// Nobody waits for a page while nothing is under way, nor for anything when nothing can happen any more. As every
    /// step uses something up, every run comes to such a state.
    fn every_fault_ends(&self, state: &State) -> bool {
        let mut steps = Vec::new();
        self.deliveries(state, &mut steps);
        self.installations(state, &mut steps);
        if state.broken.is_some() || !steps.is_empty() {
            return true;
        }
        let waits = |node: &Node| matches!(node.waiting, Waiting::Page(..));
        !state.alive().any(|(_, node)| waits(node)) && !self.is_stuck(state)
    }

    fn is_stuck(&self, state: &State) -> bool {
        let can_run = |node: &Node| node.waiting == Waiting::Not && !node.program.is_empty();
        !state.alive().any(|(_, node)| can_run(node))
            && state.alive().any(|(_, node)| !node.program.is_empty())
    }

    /// Everybody is done and nothing is under way: a committed page has all its holders, with the same bytes, and nobody
    /// else keeps it.
    fn rest_is_replicated(&self, state: &State) -> bool {
        let mut steps = Vec::new();
        self.deliveries(state, &mut steps);
        self.installations(state, &mut steps);
        let busy = state.alive().any(|(_, node)| !node.program.is_empty());
        if state.broken.is_some() || !steps.is_empty() || busy {
            return true;
        }
        state.alive().all(|(_, node)| node.machine.is_fully_replicated())
            && (0..self.pages.len()).all(|page| self.holders_agree(state, page))
    }

    fn holders_agree(&self, state: &State, page: usize) -> bool {
        let id = self.pages[page];
        let keepers = || state.alive().filter(|(_, node)| node.machine.kept(id).is_some());
        let Some((owner, node)) = state.alive().find(|(_, node)| node.machine.owns(id)) else {
            return keepers().next().is_none();
        };
        let holders = node.machine.custody(id).map_or(Copyset::EMPTY, |custody| custody.holders);
        let wanted = node.machine.view().buddies_of(owner).len();
        let names: Copyset = keepers().map(|(name, _)| name).collect();
        let mut words = keepers().map(|(_, node)| node.frames[page]);
        let first =
            if node.machine.is_committed(id) && wanted > 0 { Some(node.frames[page]) } else { words.next() };
        names == holders
            && (node.machine.custody(id).is_none() || holders.len() >= wanted)
            && words.all(|word| Some(word) == first)
    }
}
