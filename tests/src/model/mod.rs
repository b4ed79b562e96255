//! Model checks of the real [`dsm_core::Machine`]: small clusters in which every order of everything that may happen is
//! tried, by the model checker `stateright`.
//!
//! The simulator tries long runs of large clusters, a few of their orders; here are short runs of small clusters, and
//! all of their orders. The machines are the same that run in production. Time, bytes and threads are abstracted: there
//! is one instant, a page's bytes are the number of stores to it, and a thread is the instructions that it may still
//! begin.
//!
//! Where things are: `configuration` says what is checked, `catalogue` lists all configurations; `state` is a state,
//! `steps` what may happen in it, `turn` what happens then; `rules` are the properties that always hold, `races` the
//! situations that must have been seen; `mutant` are bugs that must be found; `check` runs it all.

mod catalogue;
mod check;
mod configuration;
mod mutant;
mod races;
pub mod recovery;
mod rules;
mod state;
mod steps;
mod turn;

pub use catalogue::CONFIGURATIONS;
pub use check::{Counterexample, Exhausted, counterexample, exhaust};
pub use configuration::{Configuration, HoldBack, Instruction, Network};
pub use mutant::Mutant;
pub use races::Race;
pub use state::Rule;

use dsm_core::{Copyset, NodeId, PageId};
use state::State;
use stateright::{Model, Property};
use steps::Step;
use turn::Turn;

/// A configuration, as a model to be checked.
pub struct Cluster {
    configuration: Configuration,
    mutant: Option<Mutant>,
    pages: Vec<PageId>,
}

impl Cluster {
    fn new(configuration: &Configuration, mutant: Option<Mutant>) -> Cluster {
        Cluster { configuration: *configuration, mutant, pages: configuration.pages() }
    }

    fn home_of(&self, page: PageId) -> NodeId {
        let members = Copyset::first(self.configuration.threads.len());
        self.configuration.geometry().home_of(page, members)
    }

    /// The state after `step`.
    fn after(&self, state: &State, step: Step) -> State {
        let mut next = state.clone();
        let node = self.node_of(state, step);
        Turn::new(self, &mut next, node).take(step);
        next
    }

    /// The state in which the prologue has ended: its instructions one after the other, in the plainest order.
    ///
    /// # Panics
    /// If the prologue does not run: it is part of the configuration.
    fn start(&self) -> State {
        let mut state = State::new(&self.configuration);
        for &(node, instruction) in self.configuration.prologue {
            let rank = u16::try_from(node).expect("a rank is short");
            let mut changed = (*state.nodes[node]).clone();
            // The prologue's instructions are not among those that the thread may begin.
            changed.threads[0].left += 1;
            state.nodes[node] = state::Shared::new(changed);
            state = self.after(&state, Step::Begin { node: NodeId(rank), thread: 0, instruction });
            let mut moves = Vec::new();
            loop {
                moves.clear();
                self.moves(&state, &mut moves);
                let Some(&step) = moves.first() else { break };
                state = self.after(&state, step);
            }
        }
        assert!(self.mutant.is_some() || state.broken.is_none(), "the prologue breaks {:?}", state.broken);
        state
    }
}

impl Model for Cluster {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        vec![self.start()]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        self.moves(state, steps);
        self.beginnings(state, steps);
    }

    fn next_state(&self, state: &State, step: Step) -> Option<State> {
        Some(self.after(state, step))
    }

    fn properties(&self) -> Vec<Property<Cluster>> {
        let mut properties = rules::properties();
        if self.mutant.is_none() {
            properties.extend(self.configuration.races.iter().map(|race| race.property()));
        }
        properties
    }
}
