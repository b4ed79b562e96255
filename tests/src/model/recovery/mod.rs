//! Model checks of recovery: the real machines with buddies, in small clusters of which nodes die at any moment.
//!
//! Views are by decree: once a node has died, each member installs the view without it, at any time. Messages between two
//! nodes keep their order. What a dead node had said arrives up to any point, since whoever installs the next view hears
//! nothing of it any more; a body may break off in the frame that it goes to. Programs are fixed, one thread per node; an
//! instruction retires as soon as its page is mapped, which leaves residency to the other model.
//!
//! Where things are: `configuration` says what is checked; `state` is a state, `turn` one step of it; `truth` knows what
//! must have survived; `rules` are the properties; `mutant` are faults that must be found.

mod act;
mod configuration;
mod mutant;
mod rules;
mod state;
mod truth;
mod turn;

pub use configuration::{Configuration, RECOVERIES, Task};
pub use mutant::Mutant;
pub use rules::Rule;

use super::check::{self, Checked, Counterexample, Exhausted};
use dsm_core::{NodeId, PageId};
use state::{State, Step};
use stateright::{Model, Property};
use turn::Turn;

/// A configuration, as a model to be checked.
pub struct Cluster {
    configuration: Configuration,
    mutant: Option<Mutant>,
    pages: Vec<PageId>,
}

/// Tries everything that may happen in `configuration`.
///
/// # Errors
/// The shortest run that breaks a rule; or, without steps, something that was to be seen and was not.
pub fn exhaust(configuration: &Configuration) -> Result<Exhausted, Box<Counterexample>> {
    check::exhaust_model(|| Cluster::new(configuration, None))
}

/// The shortest run in which `mutant` breaks a rule, if any does.
pub fn counterexample(configuration: &Configuration, mutant: Option<Mutant>) -> Option<Counterexample> {
    check::shortest(|| Cluster::new(configuration, mutant))
}

impl Cluster {
    fn new(configuration: &Configuration, mutant: Option<Mutant>) -> Cluster {
        Cluster { configuration: *configuration, mutant, pages: configuration.pages() }
    }

    /// The state after `step`.
    fn after(&self, state: &State, step: Step) -> State {
        let mut next = state.clone();
        Turn::new(self, &mut next, step.node(state)).take(step);
        next
    }

    /// The state in which the prologue has ended, each of its instructions in the plainest order.
    ///
    /// # Panics
    /// If the prologue breaks a rule: it is part of the configuration.
    fn start(&self) -> State {
        let mut state = State::new(&self.configuration);
        for &(rank, task) in self.configuration.prologue {
            state.with_node(NodeId(rank), |node| node.program.insert(0, task));
            state = self.after(&state, Step::Run(NodeId(rank)));
            loop {
                let mut steps = Vec::new();
                self.deliveries(&state, &mut steps);
                let Some(&step) = steps.first() else { break };
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
        self.deliveries(state, steps);
        self.installations(state, steps);
        self.beginnings(state, steps);
    }

    fn next_state(&self, state: &State, step: Step) -> Option<State> {
        Some(self.after(state, step))
    }

    fn properties(&self) -> Vec<Property<Cluster>> {
        let mut properties = rules::properties();
        if self.mutant.is_none() {
            properties.extend(rules::sights(&self.configuration));
        }
        properties
    }
}

impl Checked for Cluster {
    fn line(&self, state: &State, step: Step) -> String {
        let node = step.node(state).0;
        match step {
            Step::Run(rank) => format!("n{node}  does {:?}", state.nodes[rank.index()].program.first()),
            Step::Deliver(index) => {
                let said = &state.network[index];
                format!("n{node}  hears from n{}: {:?}", said.from.0, said.message)
            }
            Step::Tear(index) => {
                let said = &state.network[index];
                format!("n{node}  gets a part of the bytes of {:?} from n{}", said.message, said.from.0)
            }
            Step::Crash(_) => format!("n{node}  dies"),
            Step::Install(_) => format!("n{node}  installs the next view"),
        }
    }

    fn broken(state: &State) -> Option<String> {
        state.broken.as_ref().map(|(rule, what)| format!("{rule:?}: {what}"))
    }
}
