//! History checks: what threads asked of an object and were told, with the times of question and answer, held against
//! linearizability (Herlihy and Wing, 1990): is there an order of all operations that a single thread could have
//! produced, in which nothing comes before an operation that had ended when it began?
//!
//! ```text
//!  threads ── Entry ──▶ History ── checker ──▶ Verdict ── explain ──▶ a table that people can read
//! ```
//! `objects` are the words and sequences that histories are about, `checker` decides, `library` asks stateright's tester
//! the same question, `explain` finds the first answer that nothing explains. `programs` and `run` are random programs
//! on real nodes; those of the simulator are in `sim`, which records into the same types.
//!
//! Linearizability is local: a history of several objects is linearizable if each object's is. So each is checked alone.

mod checker;
pub mod clock;
mod explain;
mod library;
mod objects;
pub mod programs;
pub mod run;
mod tally;
#[cfg(test)]
mod tests;

pub use checker::{Verdict, check};
pub use explain::{Explanation, explain, explain_acted};
pub use library::{LIBRARY_OPERATIONS_MAX, library_agrees};
pub use objects::{Sequence, SequenceAnswer, SequenceOperation, Word, WordAnswer, WordOperation};
pub use tally::Tally;

use serde::{Deserialize, Serialize};
use stateright::semantics::SequentialSpec;
use std::fmt::{self, Debug, Display};
use std::hash::Hash;

/// Something that operations change and ask: its state, and what an operation makes of it when nobody interferes.
pub trait Object:
    SequentialSpec<Op: Clone + Debug + Display, Ret: Clone + Debug + Display>
    + Clone
    + Eq
    + Hash
    + Debug
    + Display
{
}

/// A thread of the cluster.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Thread {
    /// Its node's rank.
    pub node: u16,
    /// Which of the node's threads it is.
    pub index: u16,
}

impl Display for Thread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("n{}.{}", self.node, self.index))
    }
}

/// One operation of one thread.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Entry<O, R> {
    /// Whose.
    pub thread: Thread,
    /// A time before which it had no effect, in nanoseconds.
    pub invoked: u64,
    /// When it took effect, as far as its thread can tell. A hint: the checker tries this order first, and no verdict
    /// depends on it.
    pub acted: u64,
    /// What it was.
    pub operation: O,
    /// A time by which it had taken effect, and what it answered; `None` if it never ended. Then it may have taken
    /// effect at any time, or not at all.
    pub returned: Option<(u64, R)>,
}

/// An operation on an object of type `S`.
pub type EntryOf<S> = Entry<<S as SequentialSpec>::Op, <S as SequentialSpec>::Ret>;

impl<O, R> Entry<O, R> {
    /// When it had taken effect at the latest.
    fn ended(&self) -> u64 {
        self.returned.as_ref().map_or(u64::MAX, |(time, _)| *time)
    }
}

/// All operations on one object.
#[derive(Clone, Debug)]
pub struct History<S: Object> {
    /// What the object was before.
    start: S,
    /// The operations by thread, in its order.
    lanes: Vec<Vec<EntryOf<S>>>,
}

impl<S: Object> History<S> {
    /// The history of an object that was `start`, from entries in any order.
    ///
    /// # Errors
    /// If a thread did two things at once, which says that the recorder, and not the object, is wrong.
    pub fn new(start: S, mut entries: Vec<EntryOf<S>>) -> Result<History<S>, String> {
        entries.sort_by_key(|entry| (entry.thread, entry.invoked));
        let mut lanes: Vec<Vec<EntryOf<S>>> = Vec::new();
        for entry in entries {
            if entry.ended() < entry.invoked {
                return Err(format!("{} of {} ends before it begins", entry.operation, entry.thread));
            }
            match lanes.last_mut().filter(|lane| lane[0].thread == entry.thread) {
                Some(lane) if lane.last().is_some_and(|last| last.ended() >= entry.invoked) => {
                    return Err(format!(
                        "{} is begun before {} is done with another",
                        entry.operation, entry.thread
                    ));
                }
                Some(lane) => lane.push(entry),
                None => lanes.push(vec![entry]),
            }
        }
        Ok(History { start, lanes })
    }

    /// The operations, thread by thread.
    pub fn entries(&self) -> impl Iterator<Item = &EntryOf<S>> {
        self.lanes.iter().flatten()
    }

    /// How many operations there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lanes.iter().map(Vec::len).sum()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lanes.is_empty()
    }

    /// How many operations were under way while another thread's was: only these leave the checker a choice.
    #[must_use]
    pub fn overlapping(&self) -> usize {
        let overlaps = |one: &&EntryOf<S>| {
            let meets = |lane: &Vec<EntryOf<S>>| {
                // Within a lane, ends are in order, so that one look tells.
                let next = lane.partition_point(|other| other.ended() < one.invoked);
                lane.get(next).is_some_and(|other| other.thread != one.thread && other.invoked <= one.ended())
            };
            self.lanes.iter().any(meets)
        };
        self.entries().filter(overlaps).count()
    }
}
