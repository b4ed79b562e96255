//! What always holds, in every state of every configuration.

use super::Cluster;
use super::state::{Rule, State};
use super::turn::Check;
use dsm_core::Access;
use stateright::Property;

impl Rule {
    /// What the checker calls it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Rule::OneWriterOrReaders => "one node may write a page, or any number may read it",
            Rule::LatestStore => "every access finds what was stored last",
            Rule::TableIsBelief => "the page table is what the machine believes",
            Rule::Invariants => "the machine's invariants hold",
            Rule::NothingRefused => "nothing that a machine says is refused",
            Rule::ActionsFit => "the machine wants only what can be done",
            Rule::BodyIsFrame => "a frame keeps its bytes while they are on their way",
            Rule::StraysChangeNothing => "what comes twice changes nothing",
            Rule::NoPanic => "the machine does not panic",
            Rule::EveryFaultEnds => "every fault ends",
            Rule::DirectoryIsRight => "at rest, the directory says who holds what",
        }
    }
}

/// One property per rule.
pub(super) fn properties() -> Vec<Property<Cluster>> {
    fn keeps(rule: Rule, condition: fn(&Cluster, &State) -> bool) -> Property<Cluster> {
        Property::always(rule.name(), condition)
    }
    vec![
        keeps(Rule::OneWriterOrReaders, |_, state| !state.breaks(Rule::OneWriterOrReaders)),
        keeps(Rule::LatestStore, |_, state| !state.breaks(Rule::LatestStore)),
        keeps(Rule::TableIsBelief, |_, state| !state.breaks(Rule::TableIsBelief)),
        keeps(Rule::Invariants, |_, state| !state.breaks(Rule::Invariants)),
        keeps(Rule::NothingRefused, |_, state| !state.breaks(Rule::NothingRefused)),
        keeps(Rule::ActionsFit, |_, state| !state.breaks(Rule::ActionsFit)),
        keeps(Rule::BodyIsFrame, |_, state| !state.breaks(Rule::BodyIsFrame)),
        keeps(Rule::StraysChangeNothing, |_, state| !state.breaks(Rule::StraysChangeNothing)),
        keeps(Rule::NoPanic, |_, state| !state.breaks(Rule::NoPanic)),
        keeps(Rule::EveryFaultEnds, Cluster::every_fault_ends),
        keeps(Rule::DirectoryIsRight, Cluster::directory_is_right),
    ]
}

impl State {
    fn breaks(&self, rule: Rule) -> bool {
        self.broken.as_ref().is_some_and(|(broken, _)| *broken == rule)
    }
}

impl Cluster {
    /// I1, over page tables.
    pub(super) fn one_writer_or_readers(&self, state: &State) -> Check {
        for page in 0..self.pages.len() {
            let writer = (0..state.nodes.len()).find(|&node| state.nodes[node].table[page] == Access::Write);
            let Some(writer) = writer else { continue };
            if let Some(other) = Cluster::readers(state, page).find(|&node| node != writer) {
                let what = format!("rank {writer} may write page {page} while rank {other} may read it");
                return Err((Rule::OneWriterOrReaders, what));
            }
        }
        Ok(())
    }

    /// Nobody waits in a state in which nothing happens unless a thread begins something new. As every configuration
    /// has finitely many states and no way back (each step uses up a message, an instruction or a look), every run
    /// comes to such a state: so every fault ends.
    fn every_fault_ends(&self, state: &State) -> bool {
        let mut moves = Vec::new();
        self.moves(state, &mut moves);
        state.broken.is_some() || !moves.is_empty() || self.is_at_rest(state)
    }

    fn directory_is_right(&self, state: &State) -> bool {
        let quiet = state.nodes.iter().all(|node| node.machine.pages_are_quiet());
        let settled = state.network.is_empty() && state.nodes.iter().all(|node| node.held.is_empty());
        if state.broken.is_some() || !quiet || !settled {
            return true;
        }
        self.pages.iter().enumerate().all(|(slot, &page)| {
            let home = &state.nodes[self.home_of(page).index()];
            let Some((owner, copyset)) = home.machine.holders(page) else {
                return Cluster::readers(state, slot).next().is_none();
            };
            let holders = owner.map_or(copyset, |owner| copyset.with(owner));
            let mapped: dsm_core::Copyset = Cluster::readers(state, slot)
                .filter_map(|node| u16::try_from(node).ok().map(dsm_core::NodeId))
                .collect();
            let current =
                owner.is_none_or(|owner| state.nodes[owner.index()].frames[slot] == state.latest[slot]);
            holders == mapped && current
        })
    }
}
