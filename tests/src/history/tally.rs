//! How much was checked, in numbers.

use super::{
    Explanation, History, LIBRARY_OPERATIONS_MAX, Object, Verdict, check, explain, explain_acted,
    library_agrees,
};
use serde::Serialize;
use std::fmt;

/// What was checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Tally {
    /// Histories, each of one object.
    pub histories: u64,
    /// Their operations.
    pub operations: u64,
    /// Operations that were under way while another thread's on the same object was.
    pub overlapping: u64,
    /// Operations that never ended.
    pub open: u64,
    /// Operations of the longest history.
    pub longest: u64,
    /// Histories that stateright's tester was asked about as well.
    pub by_library: u64,
}

impl Tally {
    /// Checks a history and counts it. Short ones are put to the library too.
    ///
    /// # Errors
    /// Why it is not linearizable, as a table, or that this could not be told.
    pub fn check<S: Object>(&mut self, history: &History<S>) -> Result<(), Explanation> {
        self.decide(history)?;
        self.overlapping += history.overlapping() as u64;
        if history.len() <= LIBRARY_OPERATIONS_MAX {
            self.by_library += 1;
            if !library_agrees(history) {
                let text = format!("stateright's tester refuses what the search accepts: {history:?}");
                return Err(Explanation { text, at: u64::MAX });
            }
        }
        Ok(())
    }

    /// As [`Tally::check`], without the library and without looking for overlaps: for histories by the ten thousand.
    ///
    /// # Errors
    /// As [`Tally::check`].
    pub fn decide<S: Object>(&mut self, history: &History<S>) -> Result<(), Explanation> {
        let length = history.len() as u64;
        self.histories += 1;
        self.operations += length;
        self.longest = self.longest.max(length);
        self.open += history.entries().filter(|entry| entry.returned.is_none()).count() as u64;
        match check(history) {
            Verdict::Linearizable(_) => Ok(()),
            Verdict::Violated => Err(explain(history).unwrap_or_else(|| unexplained(history))),
            Verdict::Undecided => {
                let Explanation { text, at } = explain_acted(history).unwrap_or_else(|| unexplained(history));
                Err(Explanation { text: format!("{UNDECIDED} {text}"), at })
            }
        }
    }

    /// Adds what was checked elsewhere.
    pub fn add(&mut self, other: &Tally) {
        self.histories += other.histories;
        self.operations += other.operations;
        self.overlapping += other.overlapping;
        self.open += other.open;
        self.longest = self.longest.max(other.longest);
        self.by_library += other.by_library;
    }
}

/// Where there are too many orders to tell.
const UNDECIDED: &str = "the order in which the threads say that they acted explains nothing, and there are too many \
                         others to try them all; in that order:";

/// All that can be said of a history when nothing can be said of its operations.
fn unexplained<S: Object>(history: &History<S>) -> Explanation {
    Explanation { text: format!("{history:?}"), at: u64::MAX }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} histories of {} operations (longest {}, {} never ended)",
            self.histories, self.operations, self.longest, self.open
        )
    }
}
