//! Decides whether a history is linearizable: the search of Wing and Gong (1993) with the memory of Lowe (2017).
//!
//! Our own, because no library's fits: stateright's tester forgets what it has tried, so that its time is exponential
//! in a history's length; todc-utils refuses operations that never ended, searches its history from the start at each
//! step and gives no order. `library` holds this one against stateright's where histories are short.
//!
//! Threads do one thing after the other, so that what has taken effect is told by one number per thread: how many of
//! its operations have. The next to take effect is some thread's next operation, unless another's had ended when it
//! began. Candidates are tried in the order in which their threads say that they acted. Where the object is as it should
//! be, that order is mostly right, and the check takes time in proportion to the history's length. Without it fifteen
//! threads that push to a queue leave millions of orders, which only the pops much later tell apart.

use super::{EntryOf, History, Object};
use std::collections::HashSet;
use std::mem;

/// What a history is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Linearizable: the threads (by their place among those of the history) in an order in which their operations may
    /// have taken effect.
    Linearizable(Vec<usize>),
    /// No order explains all answers.
    Violated,
    /// The search was given up: there are too many orders.
    Undecided,
}

/// Dead ends that a search remembers before it gives up, some hundred MiB of them. Histories of objects that behave have
/// a few dozen.
const DEAD_ENDS_MAX: usize = 1_000_000;

/// Where this many ways lead on, not all of them are followed for the sake of an explanation.
const LAYER_MAX: usize = 50_000;

/// Decides about a history.
#[must_use]
pub fn check<S: Object>(history: &History<S>) -> Verdict {
    let mut search = Search::new(history);
    let mut tried = None;
    while search.left > 0 {
        if search.take_next(tried) {
            tried = None;
            continue;
        }
        match search.give_up() {
            None => return Verdict::Violated,
            Some(_) if search.dead_ends.len() > DEAD_ENDS_MAX => return Verdict::Undecided,
            Some(candidate) => tried = Some(candidate),
        }
    }
    Verdict::Linearizable(search.taken.iter().map(|taken| taken.candidate.lane).collect())
}

/// All states in which the object may be, each with the operations that have taken effect, when all operations that
/// ended have; of those that did not end, some may have. At most `limit` of them.
///
/// Tries everything, and so is an answer to the same question by other means: there are none if and only if the
/// history is not linearizable, or leaves too many orders.
#[must_use]
pub fn outcomes<S: Object>(history: &History<S>, limit: usize) -> Vec<(Vec<usize>, S)> {
    let search = Search::new(history);
    let mut found = Vec::new();
    let mut layer = HashSet::from([(search.at, search.state)]);
    while !layer.is_empty() && layer.len() <= LAYER_MAX && found.len() < limit {
        let mut next = HashSet::new();
        for (at, state) in layer {
            let ended = |(lane, at): (&Vec<EntryOf<S>>, &usize)| {
                lane[*at..].iter().all(|entry| entry.returned.is_none())
            };
            let deadline = deadline(&history.lanes, &at);
            for candidate in candidates(&history.lanes, &at, deadline) {
                if let Some(after) = effect(&history.lanes[candidate.lane][at[candidate.lane]], &state) {
                    next.insert((advanced(&at, candidate.lane), after));
                }
            }
            if history.lanes.iter().zip(&at).all(ended) {
                found.push((at, state));
            }
        }
        layer = next;
    }
    found.truncate(limit);
    found
}

/// An operation that may be the next to take effect. Those that acted first come first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Candidate {
    acted: u64,
    lane: usize,
}

/// An operation that has taken effect, and what the object was before.
struct Taken<S> {
    candidate: Candidate,
    before: S,
}

struct Search<'a, S: Object> {
    lanes: &'a [Vec<EntryOf<S>>],
    /// How many operations of each thread have taken effect.
    at: Vec<usize>,
    state: S,
    /// How many operations that ended have not.
    left: usize,
    taken: Vec<Taken<S>>,
    /// From here no order leads to the end.
    dead_ends: HashSet<(Vec<usize>, S)>,
}

impl<'a, S: Object> Search<'a, S> {
    fn new(history: &'a History<S>) -> Search<'a, S> {
        Search {
            lanes: &history.lanes,
            at: vec![0; history.lanes.len()],
            state: history.start.clone(),
            left: history.entries().filter(|entry| entry.returned.is_some()).count(),
            taken: Vec::with_capacity(history.len()),
            dead_ends: HashSet::new(),
        }
    }

    /// Lets the first candidate after `tried` take effect that may; `false` if none may.
    fn take_next(&mut self, mut tried: Option<Candidate>) -> bool {
        let deadline = deadline(self.lanes, &self.at);
        loop {
            let untried = |candidate: &Candidate| tried.is_none_or(|tried| *candidate > tried);
            let Some(candidate) = candidates(self.lanes, &self.at, deadline).filter(untried).min() else {
                return false;
            };
            let entry = &self.lanes[candidate.lane][self.at[candidate.lane]];
            if let Some(after) = effect(entry, &self.state)
                && !self.is_dead_end(candidate.lane, &after)
            {
                self.at[candidate.lane] += 1;
                self.left -= usize::from(entry.returned.is_some());
                let before = mem::replace(&mut self.state, after);
                self.taken.push(Taken { candidate, before });
                return true;
            }
            tried = Some(candidate);
        }
    }

    fn is_dead_end(&self, lane: usize, after: &S) -> bool {
        // Most searches never turn back, and so need not build the key.
        !self.dead_ends.is_empty() && self.dead_ends.contains(&(advanced(&self.at, lane), after.clone()))
    }

    /// Takes back what took effect last, and remembers that it leads nowhere; `None` if nothing has taken effect.
    fn give_up(&mut self) -> Option<Candidate> {
        let Taken { candidate, before } = self.taken.pop()?;
        let dead_end = (self.at.clone(), mem::replace(&mut self.state, before));
        self.dead_ends.insert(dead_end);
        self.at[candidate.lane] -= 1;
        let entry = &self.lanes[candidate.lane][self.at[candidate.lane]];
        self.left += usize::from(entry.returned.is_some());
        Some(candidate)
    }
}

/// When the first of the operations ended that have not taken effect. What began after that comes after it.
fn deadline<O, R>(lanes: &[Vec<super::Entry<O, R>>], at: &[usize]) -> u64 {
    lanes.iter().zip(at).filter_map(|(lane, at)| lane.get(*at)).map(super::Entry::ended).min().unwrap_or(0)
}

fn candidates<O, R>(
    lanes: &[Vec<super::Entry<O, R>>],
    at: &[usize],
    deadline: u64,
) -> impl Iterator<Item = Candidate> {
    let next = lanes.iter().zip(at).enumerate();
    next.filter_map(move |(lane, (entries, at))| {
        let entry = entries.get(*at).filter(|entry| entry.invoked <= deadline)?;
        Some(Candidate { acted: entry.acted, lane })
    })
}

/// What the object becomes by an operation; `None` if the operation would answer otherwise than it did.
fn effect<S: Object>(entry: &EntryOf<S>, state: &S) -> Option<S> {
    let mut after = state.clone();
    match &entry.returned {
        Some((_, answer)) => after.is_valid_step(&entry.operation, answer).then_some(after),
        None => {
            after.invoke(&entry.operation);
            Some(after)
        }
    }
}

fn advanced(at: &[usize], lane: usize) -> Vec<usize> {
    let mut at = at.to_vec();
    at[lane] += 1;
    at
}
