//! What the virtual threads asked of each word and each structure, and were told, with virtual times; and the check
//! that these histories are linearizable.
//!
//! The oracle knows more than any thread can: the instant of each instruction. The histories hold only what a user's
//! program could have noticed, and so tell whether a bug can be noticed at all. `Checks::History` leaves the verdict to
//! them alone.

use super::node::ThreadId;
use super::plan::{Cell, Plan, WORDS_COUNTED_APART};
use super::structures::Structure;
use crate::history::{
    Entry, EntryOf, Explanation, History, Sequence, SequenceAnswer, SequenceOperation, Tally, Thread,
};
use crate::history::{Word, WordAnswer, WordOperation};
use dsm_core::Time;

/// From when to when an operation was under way.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// Whose it was.
    pub thread: ThreadId,
    /// When its thread tried it first.
    pub invoked: Time,
    /// When it was done.
    pub ended: Time,
}

/// The histories of one run.
pub struct Histories {
    /// Of the words of the hot pages, page by page. Cells of structures have none of their own.
    words: Vec<Vec<EntryOf<Word>>>,
    queue: Vec<EntryOf<Sequence>>,
    list: Vec<EntryOf<Sequence>>,
    recorded: bool,
}

impl Histories {
    /// Nothing has happened yet. Nothing is kept unless it is to be `recorded`.
    #[must_use]
    pub fn new(plan: &Plan, recorded: bool) -> Histories {
        let words = plan.hot.len() * WORDS_COUNTED_APART;
        Histories { words: vec![Vec::new(); words], queue: Vec::new(), list: Vec::new(), recorded }
    }

    /// A thread used a word.
    pub fn word(
        &mut self,
        plan: &Plan,
        window: Window,
        cell: Cell,
        operation: WordOperation,
        answer: WordAnswer,
    ) {
        let page = plan.hot.iter().position(|page| *page == cell.page);
        if let Some(page) = page.filter(|_| self.recorded) {
            self.words[page * WORDS_COUNTED_APART + cell.word].push(window.entry(operation, answer));
        }
    }

    /// A thread used a structure.
    pub fn sequence(
        &mut self,
        window: Window,
        structure: Structure,
        operation: SequenceOperation,
        answer: SequenceAnswer,
    ) {
        if self.recorded {
            self.of(structure).push(window.entry(operation, answer));
        }
    }

    /// A thread began to use a structure, and was killed.
    pub fn open(
        &mut self,
        thread: ThreadId,
        invoked: Time,
        structure: Structure,
        operation: SequenceOperation,
    ) {
        if self.recorded {
            let (thread, invoked) = (name(thread), invoked.as_nanos());
            let entry = Entry { thread, invoked, acted: u64::MAX, operation, returned: None };
            self.of(structure).push(entry);
        }
    }

    fn of(&mut self, structure: Structure) -> &mut Vec<EntryOf<Sequence>> {
        match structure {
            Structure::Queue => &mut self.queue,
            Structure::List => &mut self.list,
        }
    }

    /// Checks all histories and counts them. To be asked when the run is over, once.
    ///
    /// # Errors
    /// The first that is not linearizable.
    ///
    /// # Panics
    /// If a thread was recorded to do two things at once.
    pub fn check(&mut self, plan: &Plan, tally: &mut Tally) -> Result<(), Explanation> {
        for (index, entries) in self.words.iter_mut().enumerate().filter(|(_, entries)| !entries.is_empty()) {
            let (page, word) = (plan.hot[index / WORDS_COUNTED_APART], index % WORDS_COUNTED_APART);
            let history = History::new(Word(0), std::mem::take(entries)).expect(SEQUENTIAL);
            tally.decide(&history).map_err(|why| refused(&format!("word {word} of {page}"), why))?;
        }
        for structure in Structure::ALL {
            let entries = std::mem::take(self.of(structure));
            if !entries.is_empty() {
                let history = History::new(structure.empty(plan), entries).expect(SEQUENTIAL);
                tally.decide(&history).map_err(|why| refused(&format!("the {structure:?}"), why))?;
            }
        }
        Ok(())
    }
}

/// Virtual threads do one thing after the other.
const SEQUENTIAL: &str = "a virtual thread takes a nanosecond from one operation to the next";

fn refused(what: &str, why: Explanation) -> Explanation {
    Explanation { text: format!("the history of {what} is not linearizable: {}", why.text), ..why }
}

fn name(thread: ThreadId) -> Thread {
    Thread { node: thread.node.0, index: u16::try_from(thread.index).unwrap_or(u16::MAX) }
}

impl Window {
    fn entry<O, R>(self, operation: O, answer: R) -> Entry<O, R> {
        let ended = self.ended.as_nanos();
        let (thread, invoked) = (name(self.thread), self.invoked.as_nanos());
        Entry { thread, invoked, acted: ended, operation, returned: Some((ended, answer)) }
    }
}
