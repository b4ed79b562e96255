//! Runs a configuration: to its end, or to the shortest way in which a mutant breaks a rule.

use super::configuration::Configuration;
use super::mutant::Mutant;
use super::state::State;
use super::steps::Step;
use super::{Cluster, Rule};
use stateright::{Checker, Expectation, HasDiscoveries, Model, Path, Property};
use std::fmt;
use std::hash::Hash;

/// A configuration of which every state was seen, and all was as it must be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Exhausted {
    /// How many states it has.
    pub states: usize,
    /// How many steps led to them, in all.
    pub steps: usize,
    /// How many steps the longest run has.
    pub depth: usize,
}

/// The shortest run in which something is not as it must be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Counterexample {
    /// What is not, by its property's name.
    pub property: &'static str,
    /// The steps, one line each, the first first, and what they led to.
    pub steps: Vec<String>,
}

impl fmt::Display for Counterexample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "not so: {}", self.property)?;
        self.steps.iter().try_for_each(|line| writeln!(f, "  {line}"))
    }
}

impl std::error::Error for Counterexample {}

/// Tries everything that may happen in `configuration`.
///
/// # Errors
/// The shortest run that breaks a rule; or, without steps, a race that was never seen.
pub fn exhaust(configuration: &Configuration) -> Result<Exhausted, Box<Counterexample>> {
    exhaust_model(|| Cluster::new(configuration, None))
}

/// A model whose runs can be shown.
pub(super) trait Checked:
    Model<
        State: Clone + fmt::Debug + Hash + PartialEq + Send + Sync,
        Action: Copy + fmt::Debug + PartialEq + Send + Sync,
    > + Send
    + Sync
    + 'static
{
    /// A step, in words.
    fn line(&self, state: &Self::State, step: Self::Action) -> String;

    /// The rule that was broken on the way to a state, and how.
    fn broken(state: &Self::State) -> Option<String>;
}

impl Checked for Cluster {
    fn line(&self, state: &State, step: Step) -> String {
        line(self, state, step)
    }

    fn broken(state: &State) -> Option<String> {
        state.broken.as_ref().map(|(rule, what)| format!("{rule:?}: {what}"))
    }
}

/// Tries everything that may happen in a model.
///
/// # Errors
/// As of [`exhaust`].
pub(super) fn exhaust_model<M: Checked>(model: impl Fn() -> M) -> Result<Exhausted, Box<Counterexample>> {
    let checker = model().checker().finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    // Asked for again, it is the shortest.
    if failure(&checker).is_some()
        && let Some(found) = shortest(&model)
    {
        return Err(Box::new(found));
    }
    if let Some(&property) = unseen(&checker).first() {
        return Err(Box::new(Counterexample { property, steps: Vec::new() }));
    }
    // The checker counts the start as a step of its own.
    let depth = checker.max_depth() - 1;
    Ok(Exhausted { states: checker.unique_state_count(), steps: checker.state_count(), depth })
}

/// The shortest run in which `mutant` breaks a rule, if any does.
pub fn counterexample(configuration: &Configuration, mutant: Option<Mutant>) -> Option<Counterexample> {
    shortest(|| Cluster::new(configuration, mutant))
}

/// The shortest run of a model in which a rule is broken, if any is.
pub(super) fn shortest<M: Checked>(model: impl Fn() -> M) -> Option<Counterexample> {
    let mut shortest: Option<Counterexample> = None;
    loop {
        let mut checker = model().checker().finish_when(HasDiscoveries::AnyFailures);
        // The checker works in blocks, and keeps the last failure of a block, not the first. So it is asked for a
        // shorter one until there is none. It counts states, which are one more than steps.
        if let Some(found) = &shortest {
            checker = checker.target_max_depth(found.steps.len());
        }
        let checker = checker.spawn_bfs().join();
        let Some((property, path)) = failure(&checker) else { return shortest };
        let found = Counterexample { property, steps: lines(checker.model(), path) };
        if found.steps.is_empty() {
            return Some(found);
        }
        shortest = Some(found);
    }
}

/// A broken property, and the way to where it is.
type Broken<M> = (&'static str, Path<<M as Model>::State, <M as Model>::Action>);

fn failure<M: Checked>(checker: &impl Checker<M>) -> Option<Broken<M>> {
    let mut failures: Vec<_> = checker
        .discoveries()
        .into_iter()
        .filter(|(name, _)| checker.model().property(name).expectation == Expectation::Always)
        .map(|(name, path)| (path.clone().into_actions().len(), name, path))
        .collect();
    failures.sort_by_key(|&(length, name, _)| (length, name));
    failures.into_iter().next().map(|(_, name, path)| (name, path))
}

/// The races that were not seen.
fn unseen<M: Checked>(checker: &impl Checker<M>) -> Vec<&'static str> {
    let seen = checker.discoveries();
    let wanted = |property: &Property<M>| property.expectation == Expectation::Sometimes;
    let properties = checker.model().properties().into_iter().filter(wanted);
    properties.map(|property| property.name).filter(|name| !seen.contains_key(name)).collect()
}

/// A run, a line for each step.
fn lines<M: Checked>(model: &M, path: Path<M::State, M::Action>) -> Vec<String> {
    let mut lines = Vec::new();
    for (state, step) in path.into_vec() {
        match step {
            Some(step) => lines.push(model.line(&state, step)),
            None => {
                if let (Some(broken), Some(last)) = (M::broken(&state), lines.last_mut()) {
                    *last = format!("{last}: {broken}");
                }
            }
        }
    }
    lines
}

fn line(cluster: &Cluster, state: &State, step: Step) -> String {
    let node = cluster.node_of(state, step).0;
    match step {
        Step::Begin { thread, instruction, .. } => format!("n{node}  thread {thread} begins {instruction:?}"),
        Step::Retry { thread, .. } => format!("n{node}  thread {thread} tries again"),
        Step::Deliver { index, twice } => {
            let envelope = &state.network[index];
            let note = if twice { ", which will come again" } else { "" };
            format!("n{node}  hears from n{}: {:?}{note}", envelope.from.0, envelope.message)
        }
        Step::Look { page, progress, hasty, .. } => {
            let note = if hasty { ", wrongly" } else { "" };
            format!("n{node}  finds the instruction for page {page} {progress:?}{note}")
        }
        Step::Timer { page, .. } => format!("n{node}  is to look at page {page} again"),
        Step::Protect { .. } => format!("n{node}  protects a page at last"),
    }
}

impl Counterexample {
    /// Whether it breaks `rule`.
    #[must_use]
    pub fn breaks(&self, rule: Rule) -> bool {
        self.property == rule.name()
    }
}
