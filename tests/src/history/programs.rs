//! Random programs for real nodes: what each thread asks of which object, decided by a seed.
//!
//! A run has several rounds, each with objects of its own. In a long round every thread uses every object; in a short
//! one all threads use one object, a few times, so that its history is short enough for the library's checker.

use super::{LIBRARY_OPERATIONS_MAX, SequenceOperation, WordOperation};
use clap::ValueEnum;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use std::fmt;

/// What an object is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize, ValueEnum)]
pub enum Kind {
    /// An atomic word that threads add to.
    Counter,
    /// An atomic word that threads load, store and exchange.
    Register,
    /// A list under a lock, pushed to at the back and popped from the front.
    Queue,
    /// A list under a lock, with everything that it offers.
    List,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 4] = [Kind::Counter, Kind::Register, Kind::Queue, Kind::List];
}

/// Objects of each kind in a round. The first words share a page, the second have one each.
pub const OBJECTS_OF_KIND: usize = 2;

/// An object of a round.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Name {
    /// What it is.
    pub kind: Kind,
    /// Which of its kind.
    pub index: usize,
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {}", self.kind, self.index)
    }
}

/// What a thread asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Request {
    /// Something of a counter or a register.
    Word(WordOperation),
    /// Something of a queue or a list.
    Sequence(SequenceOperation),
}

/// What a thread does before an operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pause {
    /// Nothing.
    None,
    /// It lets others run.
    Yield,
    /// It keeps its core busy for so many turns.
    Spin(u32),
}

/// How a thread takes the lock of a queue or a list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Approach {
    /// It waits.
    Wait,
    /// It tries, and waits if somebody has it.
    Try,
    /// It gives up after a short time, and asks again: the lock may be granted at that very moment.
    GiveUpOnce,
}

/// One turn of a thread.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Turn {
    /// What it does first.
    pub pause: Pause,
    /// Whom it asks.
    pub name: Name,
    /// What.
    pub request: Request,
    /// How, if there is a lock.
    pub approach: Approach,
}

/// What all threads do in a round.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Round {
    /// The objects.
    pub names: Vec<Name>,
    /// How often each thread asks one.
    pub turns: u64,
}

/// Turns of each thread in a long round.
const TURNS_MIN: u64 = 20;
const TURNS_MAX: u64 = 60;

impl Round {
    /// A round of a run with so many threads on all nodes together.
    ///
    /// # Panics
    /// If there are no kinds.
    #[must_use]
    pub fn draw(seed: u64, round: u64, kinds: &[Kind], threads: u64) -> Round {
        let mut rng = stream(seed, round, u64::MAX);
        let objects = |kind: Kind| (0..OBJECTS_OF_KIND).map(move |index| Name { kind, index });
        let names: Vec<Name> = kinds.iter().copied().flat_map(objects).collect();
        if round % 2 == 1 {
            // One operation is left for the look at the end of the round.
            let turns = (LIBRARY_OPERATIONS_MAX as u64 - 1) / threads;
            return Round { names: vec![names[rng.random_range(0..names.len())]], turns: turns.max(1) };
        }
        Round { names, turns: rng.random_range(TURNS_MIN..=TURNS_MAX) }
    }
}

/// The numbers that decide what a thread does in a round.
fn stream(seed: u64, round: u64, thread: u64) -> ChaCha8Rng {
    let mut key = [0; 32];
    for (part, number) in key.chunks_exact_mut(8).zip([seed, round, thread]) {
        part.copy_from_slice(&number.to_le_bytes());
    }
    ChaCha8Rng::from_seed(key)
}

/// What one thread does in a round.
pub struct Program {
    rng: ChaCha8Rng,
    names: Vec<Name>,
    /// Every value that the thread puts anywhere is another, and tells whose it is.
    value: u64,
    /// How many turns in a thousand are without a pause. Threads that never pause do all their turns while the page is
    /// with them.
    hurry_permille: u32,
}

/// Values of thread 0 begin here, those of thread 1 at twice as much, and so on: decimal, for people.
const VALUES_OF_THREAD: u64 = 1000;
const _: () = assert!(TURNS_MAX < VALUES_OF_THREAD);

/// A spin lasts up to so many turns, some ten microseconds: about as long as a page takes to another node.
const SPIN_TURNS_MAX: u32 = 2000;

/// Places of a list that are named; lists are mostly not much longer.
const PLACES: usize = 6;

const PERMILLE: u32 = 1000;

impl Program {
    /// The program of a thread, numbered among those of all nodes.
    #[must_use]
    pub fn new(seed: u64, round: u64, thread: u64, names: &[Name]) -> Program {
        let mut rng = stream(seed, round, thread);
        let hurry_permille = [100, 500, 900][rng.random_range(0..3)];
        Program { rng, names: names.to_vec(), value: VALUES_OF_THREAD * (thread + 1), hurry_permille }
    }

    /// What comes next. `seen` tells what a word was when the thread saw it last.
    pub fn turn(&mut self, seen: impl Fn(Name) -> u64) -> Turn {
        let pause = if self.rng.random_range(0..PERMILLE) < self.hurry_permille {
            Pause::None
        } else if self.rng.random() {
            Pause::Yield
        } else {
            Pause::Spin(self.rng.random_range(0..SPIN_TURNS_MAX))
        };
        let name = self.names[self.rng.random_range(0..self.names.len())];
        let request = match name.kind {
            Kind::Counter => Request::Word(counter(&mut self.rng)),
            Kind::Register => Request::Word(register(&mut self.rng, seen(name), &mut self.value)),
            Kind::Queue => Request::Sequence(queue(&mut self.rng, &mut self.value)),
            Kind::List => Request::Sequence(list(&mut self.rng, &mut self.value)),
        };
        let approaches = [Approach::Wait, Approach::Wait, Approach::Try, Approach::GiveUpOnce];
        let approach = approaches[self.rng.random_range(0..approaches.len())];
        Turn { pause, name, request, approach }
    }
}

fn fresh(value: &mut u64) -> u64 {
    *value += 1;
    *value
}

fn counter(rng: &mut impl Rng) -> WordOperation {
    match rng.random_range(0..5) {
        0 => WordOperation::Load,
        // By more than one now and then, so that a value that was skipped is told from one that came twice.
        1 => WordOperation::Add(rng.random_range(2..9)),
        _ => WordOperation::Add(1),
    }
}

fn register(rng: &mut impl Rng, seen: u64, value: &mut u64) -> WordOperation {
    match rng.random_range(0..8) {
        0..3 => WordOperation::Load,
        3 | 4 => WordOperation::Store(fresh(value)),
        5 => WordOperation::Swap(fresh(value)),
        _ => WordOperation::CompareExchange { expected: seen, new: fresh(value) },
    }
}

fn queue(rng: &mut impl Rng, value: &mut u64) -> SequenceOperation {
    if rng.random() { SequenceOperation::PushBack(fresh(value)) } else { SequenceOperation::PopFront }
}

/// Puts in a little more often than it takes out.
fn list(rng: &mut impl Rng, value: &mut u64) -> SequenceOperation {
    match rng.random_range(0..14) {
        0..3 => SequenceOperation::PushBack(fresh(value)),
        3 | 4 => SequenceOperation::PushFront(fresh(value)),
        5 | 6 => SequenceOperation::Insert(rng.random_range(0..PLACES), fresh(value)),
        7 => SequenceOperation::PopFront,
        8 => SequenceOperation::PopBack,
        9 | 10 => SequenceOperation::Remove(rng.random_range(0..PLACES)),
        11 => SequenceOperation::Rotate,
        12 => SequenceOperation::Length,
        _ => SequenceOperation::Elements,
    }
}
