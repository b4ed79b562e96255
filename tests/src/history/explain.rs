//! Says where a history stops being linearizable, in a table.
//!
//! Whatever begins a linearizable history is linearizable. So there is a first answer that no order explains: everything
//! up to it is shown not to fit, and everything before it fits. The table shows that operation, all that were under way
//! at the same time, what the object may have been before them, and the earlier operations that name the same values.

use super::checker::{Verdict, check, outcomes};
use super::{EntryOf, History, Object};
use std::collections::BTreeSet;
use std::fmt::Write;

/// States of the object before the window that are shown.
const STATES_SHOWN: usize = 4;

/// Earlier operations that are shown because they are the latest.
const LATEST_SHOWN: usize = 4;

/// Earlier operations that are shown because they name a value of the unexplained answer.
const RELATED_SHOWN: usize = 8;

/// What is said of the states where there are too many orders to try them all.
const TOO_MANY: &str = "too much to list";

const NANOS_PER_MICRO: f64 = 1000.0;

/// Where a history stops to make sense.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Explanation {
    /// Several lines for people.
    pub text: String,
    /// When the answer was given that cannot be explained, in nanoseconds.
    pub at: u64,
}

/// Why the history is not linearizable; `None` if it is, or if that cannot be told.
#[must_use]
pub fn explain<S: Object>(history: &History<S>) -> Option<Explanation> {
    if check(history) != Verdict::Violated {
        return None;
    }
    let culprit = first_unexplained(history)?;
    let before = until(history, |entry| entry.ended() < culprit.invoked);
    let mut states: Vec<String> =
        outcomes(&before, STATES_SHOWN + 1).iter().map(|(_, state)| state.to_string()).collect();
    states.sort_unstable();
    states.dedup();
    let more = if states.len() > STATES_SHOWN { ", …" } else { "" };
    states.truncate(STATES_SHOWN);
    let states = if states.is_empty() { TOO_MANY.to_owned() } else { format!("{}{more}", states.join(", ")) };
    table(history, culprit, "which no order of the operations explains", &states)
}

/// The first answer that does not fit the order in which the threads say that they acted; `None` if all fit. This is a
/// proof of nothing, and helps where there are too many orders to prove anything.
#[must_use]
pub fn explain_acted<S: Object>(history: &History<S>) -> Option<Explanation> {
    let mut entries: Vec<&EntryOf<S>> = history.entries().collect();
    entries.sort_by_key(|entry| (entry.acted, entry.thread));
    let mut state = history.start.clone();
    for entry in entries {
        let before = state.to_string();
        let answer = state.invoke(&entry.operation);
        if entry.returned.as_ref().is_some_and(|(_, told)| *told != answer) {
            return table(history, entry, "which does not fit", &before);
        }
    }
    None
}

/// The operation that cannot be explained, and what is to be known about it.
fn table<S: Object>(
    history: &History<S>,
    culprit: &EntryOf<S>,
    why: &str,
    states: &str,
) -> Option<Explanation> {
    let (known, _) = culprit.returned.as_ref()?;
    let (operation, thread) = (&culprit.operation, culprit.thread);
    let mut text = format!("{operation} of {thread} answered {:?}, {why}\n", answer(culprit));
    writeln!(text, "when it began, the object may have been: {states}").ok()?;
    writeln!(text, "  {:>12} {:>12}  {:<7} {:<36} answer", "from us", "to us", "thread", "operation").ok()?;
    for entry in shown(history, culprit, *known) {
        let mark = if std::ptr::eq(entry, culprit) { '>' } else { ' ' };
        let micros = |time: u64| time as f64 / NANOS_PER_MICRO;
        let to =
            entry.returned.as_ref().map_or("never".to_owned(), |(time, _)| format!("{:.3}", micros(*time)));
        let (from, thread, operation) = (micros(entry.invoked), entry.thread, &entry.operation);
        writeln!(text, "{mark} {from:>12.3} {to:>12}  {thread:<7} {operation:<36} {}", answer(entry)).ok()?;
    }
    Some(Explanation { text, at: *known })
}

fn answer<O, R: ToString>(entry: &super::Entry<O, R>) -> String {
    entry.returned.as_ref().map_or("never ended".to_owned(), |(_, answer)| answer.to_string())
}

/// The operation that ended first among those whose answers, with all that ended before, nothing explains.
fn first_unexplained<S: Object>(history: &History<S>) -> Option<&EntryOf<S>> {
    let mut ended: Vec<&EntryOf<S>> = history.entries().filter(|entry| entry.returned.is_some()).collect();
    let key = |entry: &EntryOf<S>| (entry.ended(), entry.thread);
    ended.sort_by_key(|entry| key(entry));
    let fits = |last: &&EntryOf<S>| {
        let known = until(history, |entry| key(entry) <= key(last));
        check(&known) != Verdict::Violated
    };
    let first = ended.partition_point(fits);
    ended.get(first).copied()
}

/// The history as it was known when all `known` operations had ended: others that had begun by then had not ended.
fn until<S: Object>(history: &History<S>, known: impl Fn(&EntryOf<S>) -> bool) -> History<S> {
    let last = history.entries().filter(|entry| known(entry)).map(super::Entry::ended).max().unwrap_or(0);
    let lanes = history.lanes.iter().map(|lane| {
        let mut begun: Vec<EntryOf<S>> = Vec::new();
        for entry in lane.iter().filter(|entry| known(entry) || entry.invoked <= last) {
            let mut entry = entry.clone();
            if !known(&entry) {
                entry.returned = None;
            }
            begun.push(entry);
        }
        begun
    });
    History { start: history.start.clone(), lanes: lanes.filter(|lane| !lane.is_empty()).collect() }
}

/// What the table shows, by time.
fn shown<'a, S: Object>(history: &'a History<S>, culprit: &EntryOf<S>, known: u64) -> Vec<&'a EntryOf<S>> {
    let mut earlier: Vec<&EntryOf<S>> =
        history.entries().filter(|entry| entry.ended() < culprit.invoked).collect();
    earlier.sort_by_key(|entry| (entry.ended(), entry.thread));
    let values = values_of::<S>(culprit);
    let related = |entry: &&&EntryOf<S>| !values_of::<S>(entry).is_disjoint(&values);
    let mut rows: Vec<&EntryOf<S>> = earlier.iter().rev().take(LATEST_SHOWN).copied().collect();
    rows.extend(earlier.iter().rev().skip(LATEST_SHOWN).filter(related).take(RELATED_SHOWN).copied());
    rows.extend(history.entries().filter(|entry| entry.ended() >= culprit.invoked && entry.invoked <= known));
    rows.sort_by_key(|entry| (entry.invoked, entry.thread));
    rows
}

/// The numbers that an operation and its answer name. Small ones are indexes and counts as likely as values.
fn values_of<S: Object>(entry: &EntryOf<S>) -> BTreeSet<u64> {
    /// Values of random programs begin here.
    const VALUE_MIN: u64 = 1000;
    let text = format!("{} {}", entry.operation, answer(entry));
    let numbers = text.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok());
    numbers.filter(|value| *value >= VALUE_MIN).collect()
}
