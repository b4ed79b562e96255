//! The same question, put to stateright's tester. It tries orders without remembering which it has tried, so it is
//! asked about short histories only.

use super::{History, Object};
use stateright::semantics::{ConsistencyTester, LinearizabilityTester};

/// Longer histories are not put to the library: its time grows with the number of orders.
pub const LIBRARY_OPERATIONS_MAX: usize = 10;

/// What happens at an instant: all invocations come before all answers, since operations that only touch overlap.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Side {
    Invoked,
    Returned,
}

/// Whether stateright's tester finds the history linearizable.
///
/// # Panics
/// If the tester finds it malformed, which [`History::new`] rules out.
#[must_use]
pub fn library_agrees<S: Object>(history: &History<S>) -> bool {
    let mut sides: Vec<(u64, Side, usize, usize)> = Vec::new();
    for (lane, entries) in history.lanes.iter().enumerate() {
        for (index, entry) in entries.iter().enumerate() {
            sides.push((entry.invoked, Side::Invoked, lane, index));
            sides.extend(entry.returned.as_ref().map(|(time, _)| (*time, Side::Returned, lane, index)));
        }
    }
    sides.sort_unstable();
    let mut tester = LinearizabilityTester::new(history.start.clone());
    for (_, side, lane, index) in sides {
        let entry = &history.lanes[lane][index];
        let told = match (side, &entry.returned) {
            (Side::Returned, Some((_, answer))) => tester.on_return(lane, answer.clone()),
            (Side::Invoked | Side::Returned, _) => tester.on_invoke(lane, entry.operation.clone()),
        };
        told.map(drop).unwrap_or_else(|error| panic!("the history is malformed: {error}"));
    }
    tester.is_consistent()
}
