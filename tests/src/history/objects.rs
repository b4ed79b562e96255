//! What the objects of histories do when one thread has them for itself.
//!
//! A counter and a register are both a [`Word`], on which different operations are used; a queue and a list are both a
//! [`Sequence`].

use super::Object;
use serde::{Deserialize, Serialize};
use stateright::semantics::SequentialSpec;
use std::collections::VecDeque;
use std::fmt::{self, Display};

/// One word of memory.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Word(
    /// Its value.
    pub u64,
);

/// One instruction on a [`Word`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum WordOperation {
    /// What is it?
    Load,
    /// Be this.
    Store(u64),
    /// Be this; what was it?
    Swap(u64),
    /// Be more by this; what was it?
    Add(u64),
    /// Be `new` if it is `expected`.
    CompareExchange {
        /// What it must be.
        expected: u64,
        /// What it then becomes.
        new: u64,
    },
}

/// What a [`WordOperation`] answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum WordAnswer {
    /// Nothing.
    Done,
    /// What the word was.
    Was(u64),
    /// The word was this instead, and stays it.
    Differed(u64),
}

impl SequentialSpec for Word {
    type Op = WordOperation;
    type Ret = WordAnswer;

    fn invoke(&mut self, operation: &WordOperation) -> WordAnswer {
        let was = self.0;
        match *operation {
            WordOperation::Load => {}
            WordOperation::Store(value) => {
                self.0 = value;
                return WordAnswer::Done;
            }
            WordOperation::Swap(value) => self.0 = value,
            WordOperation::Add(more) => self.0 = was.wrapping_add(more),
            WordOperation::CompareExchange { expected, .. } if was != expected => {
                return WordAnswer::Differed(was);
            }
            WordOperation::CompareExchange { new, .. } => self.0 = new,
        }
        WordAnswer::Was(was)
    }
}

impl Object for Word {}

/// Elements in a row; a queue, if pushed to at the back and popped from the front.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Sequence {
    elements: VecDeque<u64>,
    capacity: usize,
}

/// One call on a [`Sequence`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum SequenceOperation {
    /// Append it.
    PushBack(u64),
    /// Prepend it.
    PushFront(u64),
    /// Take the first.
    PopFront,
    /// Take the last.
    PopBack,
    /// Put the value behind so many others.
    Insert(usize, u64),
    /// Take the one that is behind so many others.
    Remove(usize),
    /// Make the first the last, and tell which it is.
    Rotate,
    /// How many are there?
    Length,
    /// Which are there?
    Elements,
}

/// What a [`SequenceOperation`] answers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum SequenceAnswer {
    /// It is in.
    Done,
    /// There is no room, or no such place. Nothing has changed.
    Refused,
    /// This was it, or there is none.
    Element(Option<u64>),
    /// So many.
    Length(usize),
    /// These.
    Elements(Vec<u64>),
    /// The sequence is no sequence any more. Never right.
    Broken,
}

impl Sequence {
    /// An empty one, for any number of elements.
    #[must_use]
    pub fn unbounded() -> Sequence {
        Sequence::bounded(usize::MAX)
    }

    /// An empty one, for so many elements.
    #[must_use]
    pub fn bounded(capacity: usize) -> Sequence {
        Sequence { elements: VecDeque::new(), capacity }
    }

    fn insert(&mut self, index: usize, value: u64) -> SequenceAnswer {
        if index > self.elements.len() || self.elements.len() >= self.capacity {
            return SequenceAnswer::Refused;
        }
        self.elements.insert(index, value);
        SequenceAnswer::Done
    }
}

impl SequentialSpec for Sequence {
    type Op = SequenceOperation;
    type Ret = SequenceAnswer;

    fn invoke(&mut self, operation: &SequenceOperation) -> SequenceAnswer {
        match *operation {
            SequenceOperation::PushBack(value) => self.insert(self.elements.len(), value),
            SequenceOperation::PushFront(value) => self.insert(0, value),
            SequenceOperation::Insert(index, value) => self.insert(index, value),
            SequenceOperation::PopFront => SequenceAnswer::Element(self.elements.pop_front()),
            SequenceOperation::PopBack => SequenceAnswer::Element(self.elements.pop_back()),
            SequenceOperation::Remove(index) => SequenceAnswer::Element(self.elements.remove(index)),
            SequenceOperation::Rotate => {
                let first = self.elements.pop_front();
                self.elements.extend(first);
                SequenceAnswer::Element(first)
            }
            SequenceOperation::Length => SequenceAnswer::Length(self.elements.len()),
            SequenceOperation::Elements => SequenceAnswer::Elements(self.elements.iter().copied().collect()),
        }
    }
}

impl Object for Sequence {}

impl Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl Display for WordOperation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            WordOperation::Load => "load".to_owned(),
            WordOperation::Store(value) => format!("store {value}"),
            WordOperation::Swap(value) => format!("swap {value}"),
            WordOperation::Add(more) => format!("fetch_add {more}"),
            WordOperation::CompareExchange { expected, new } => {
                format!("compare_exchange {expected} -> {new}")
            }
        };
        f.pad(&text)
    }
}

impl Display for WordAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WordAnswer::Done => f.write_str("done"),
            WordAnswer::Was(value) => write!(f, "was {value}"),
            WordAnswer::Differed(value) => write!(f, "no, it is {value}"),
        }
    }
}

impl Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.elements)
    }
}

impl Display for SequenceOperation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            SequenceOperation::PushBack(value) => format!("push_back {value}"),
            SequenceOperation::PushFront(value) => format!("push_front {value}"),
            SequenceOperation::PopFront => "pop_front".to_owned(),
            SequenceOperation::PopBack => "pop_back".to_owned(),
            SequenceOperation::Insert(index, value) => format!("insert {value} at {index}"),
            SequenceOperation::Remove(index) => format!("remove at {index}"),
            SequenceOperation::Rotate => "rotate".to_owned(),
            SequenceOperation::Length => "len".to_owned(),
            SequenceOperation::Elements => "iter".to_owned(),
        };
        f.pad(&text)
    }
}

impl Display for SequenceAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SequenceAnswer::Done => f.write_str("done"),
            SequenceAnswer::Refused => f.write_str("refused"),
            SequenceAnswer::Element(Some(value)) => write!(f, "{value}"),
            SequenceAnswer::Element(None) => f.write_str("none"),
            SequenceAnswer::Length(length) => write!(f, "{length} elements"),
            SequenceAnswer::Elements(elements) => write!(f, "{elements:?}"),
            SequenceAnswer::Broken => f.write_str("broken links"),
        }
    }
}
