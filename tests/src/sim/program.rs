//! The programs of the virtual threads: straight lines of operations, drawn before the run.

use super::plan::{Cell, Plan, WORD_COUNTED, WORD_STORED, WORDS_COUNTED_APART};
use super::rng::Rng;
use super::structures::Structure;
use crate::history::SequenceOperation;
use dsm_core::Want;
use std::collections::VecDeque;

/// How a thread asks for a lock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Patience {
    /// It waits.
    Endless,
    /// It does not wait.
    None,
    /// It waits for so many nanoseconds, then withdraws.
    Until(u64),
}

/// One instruction, or one call.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Operation {
    /// Loads a word and checks it.
    Load(Cell),
    /// Stores a value that was never stored before.
    Store(Cell),
    /// Stores such a value, and loads what was there, atomically.
    Swap(Cell),
    /// Stores such a value if the word is what the thread loaded last, atomically.
    CompareExchange(Cell),
    /// Adds one to a word, atomically.
    Increment(Cell),
    /// The second half of an increment that a mutant tore: stores the register's value plus one.
    FinishIncrement(Cell),
    /// One instruction that loads from, or stores to, two pages: both must be accessible at one moment.
    Straddle(Cell, Cell, Want),
    /// Acquires the lock of that index; when it is denied, everything up to the `Unlock` is skipped.
    Lock(usize, Patience),
    /// Loads the lock's word into the thread's register.
    LoadGuarded(usize),
    /// Stores the register's value plus one into the lock's word.
    StoreGuarded(usize),
    /// Uses the structure that the lock guards.
    Ask(Structure, SequenceOperation),
    /// Releases the lock.
    Unlock(usize),
    /// Waits for all nodes.
    Barrier,
    /// Calls the barrier while another thread of the node is in it, if one is: it must be told so.
    IntrudeBarrier,
    /// Claims the root of that name, expecting that layout.
    Claim(usize, u64),
    /// Publishes the root that a claim asked this thread to create.
    Publish(usize),
    /// Says that creating the root failed.
    Abandon(usize),
    /// Leases a span of so many pages, for the node's heap or for a domain of its own.
    Lease(u64, Leaseholder),
    /// Gives back the thread's latest span.
    Return,
    /// Looks up a page of the thread's latest span.
    Find,
    /// Drops a block that lies in a span of another node.
    Free,
    /// Waits until every node's program is done.
    Leave,
}

/// For whom a thread leases a span.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Leaseholder {
    /// Its node's heap.
    Heap,
    /// A new domain.
    Domain,
}

/// The layout that most claims expect, and the one that some expect instead.
pub const LAYOUTS: [u64; 2] = [0x1a, 0x2b];

/// The program of one thread of a node; only the first takes part in barriers. What it puts into structures is counted
/// by `value`, so that no value is put in twice.
#[must_use]
pub fn draw(plan: &Plan, rng: &mut Rng, first: bool, value: &mut u64) -> VecDeque<Operation> {
    let mut blocks: Vec<Vec<Operation>> = (0..plan.blocks).map(|_| block(plan, rng, value)).collect();
    for _ in 0..plan.barriers {
        let at = rng.index(blocks.len() + 1);
        let barrier = if first { Operation::Barrier } else { Operation::IntrudeBarrier };
        blocks.insert(at, vec![barrier]);
    }
    blocks.into_iter().flatten().collect()
}

/// A program that loads every word of every hot page and, if it is to, looks at the structures.
#[must_use]
pub fn audit(plan: &Plan, structures: bool) -> VecDeque<Operation> {
    let words = |page| (0..WORDS_COUNTED_APART).map(move |word| Operation::Load(Cell { page, word }));
    let look = |structure: Structure| {
        let lock = structure.lock(plan);
        let look = Operation::Ask(structure, SequenceOperation::Elements);
        [Operation::Lock(lock, Patience::Endless), look, Operation::Unlock(lock)]
    };
    let structures = Structure::ALL.into_iter().filter(|_| structures).flat_map(look);
    plan.hot.iter().copied().flat_map(words).chain(structures).collect()
}

/// Operations that belong together.
fn block(plan: &Plan, rng: &mut Rng, value: &mut u64) -> Vec<Operation> {
    match rng.weighted(&plan.mix.weights()) {
        0 => vec![Operation::Load(any_cell(plan, rng))],
        1 => store(cell(plan, rng, WORD_STORED), rng),
        2 => vec![Operation::Increment(cell(plan, rng, WORD_COUNTED))],
        3 => straddle(plan, rng),
        4 if rng.chance(STRUCTURES_PERMILLE) => structure_section(plan, rng, value),
        4 => section(plan, rng),
        5 => {
            let layout = LAYOUTS[usize::from(rng.chance(100))];
            vec![Operation::Claim(rng.index(plan.names), layout)]
        }
        _ => vec![span(plan, rng)],
    }
}

fn cell(plan: &Plan, rng: &mut Rng, word: usize) -> Cell {
    Cell { page: *rng.pick(&plan.hot), word }
}

fn any_cell(plan: &Plan, rng: &mut Rng) -> Cell {
    let word = rng.index(WORDS_COUNTED_APART);
    cell(plan, rng, word)
}

/// A store, alone or as one half of an atomic instruction.
fn store(cell: Cell, rng: &mut Rng) -> Vec<Operation> {
    match rng.below(4) {
        0 => vec![Operation::Swap(cell)],
        1 => vec![Operation::Load(cell), Operation::CompareExchange(cell)],
        _ => vec![Operation::Store(cell)],
    }
}

/// Two different pages, in either order; with one hot page there is nothing to straddle.
fn straddle(plan: &Plan, rng: &mut Rng) -> Vec<Operation> {
    let first = rng.index(plan.hot.len());
    let second = (first + 1) % plan.hot.len();
    let want = if rng.chance(700) { Want::Write } else { Want::Read };
    let at = |index: usize| Cell { page: plan.hot[index], word: WORD_STORED };
    match (first == second, rng.chance(500)) {
        (true, _) => vec![Operation::Store(at(first))],
        (false, true) => vec![Operation::Straddle(at(first), at(second), want)],
        (false, false) => vec![Operation::Straddle(at(second), at(first), want)],
    }
}

/// A critical section with increments that only the lock makes safe, and other work between them.
fn section(plan: &Plan, rng: &mut Rng) -> Vec<Operation> {
    let lock = rng.index(plan.locks.len());
    let mut operations = vec![Operation::Lock(lock, patience(rng))];
    for _ in 0..rng.between(0, 2) {
        operations.push(Operation::LoadGuarded(lock));
        if rng.chance(200) {
            operations.push(Operation::Increment(cell(plan, rng, WORD_COUNTED)));
        }
        operations.push(Operation::StoreGuarded(lock));
    }
    operations.push(Operation::Unlock(lock));
    operations
}

fn patience(rng: &mut Rng) -> Patience {
    match rng.below(5) {
        0 => Patience::None,
        1 => Patience::Until(rng.below(3_000_000)),
        _ => Patience::Endless,
    }
}

/// How many critical sections in a thousand work on a structure.
const STRUCTURES_PERMILLE: u64 = 400;

/// A critical section that works on a structure.
fn structure_section(plan: &Plan, rng: &mut Rng, value: &mut u64) -> Vec<Operation> {
    let structure = *rng.pick(&Structure::ALL);
    let lock = structure.lock(plan);
    let ask = Operation::Ask(structure, draw_request(structure, rng, value));
    vec![Operation::Lock(lock, patience(rng)), ask, Operation::Unlock(lock)]
}

/// Something to ask of a structure. Puts in a little more often than it takes out.
pub(super) fn draw_request(structure: Structure, rng: &mut Rng, value: &mut u64) -> SequenceOperation {
    /// Places that are named: a list has up to seven nodes.
    const PLACES: usize = 5;
    *value += 1;
    match (structure, rng.below(14)) {
        (Structure::Queue, 0..7) | (Structure::List, 0..3) => SequenceOperation::PushBack(*value),
        (Structure::Queue, 7..12) | (Structure::List, 3) => SequenceOperation::PopFront,
        (Structure::List, 4 | 5) => SequenceOperation::PushFront(*value),
        (Structure::List, 6 | 7) => SequenceOperation::Insert(rng.index(PLACES), *value),
        (Structure::List, 8) => SequenceOperation::PopBack,
        (Structure::List, 9 | 10) => SequenceOperation::Remove(rng.index(PLACES)),
        (Structure::List, 11) => SequenceOperation::Rotate,
        (Structure::Queue | Structure::List, 12) => SequenceOperation::Length,
        (Structure::Queue | Structure::List, _) => SequenceOperation::Elements,
    }
}

fn span(plan: &Plan, rng: &mut Rng) -> Operation {
    let segment = plan.geometry.segment_pages();
    match rng.below(5) {
        0 => {
            // Some are longer than a segment, and one in a while cannot be had at all.
            let pages = match rng.below(8) {
                0 => rng.between(1, plan.geometry.pages()),
                1 | 2 => rng.between(1, 4 * segment),
                _ => rng.between(1, segment),
            };
            Operation::Lease(pages, if rng.chance(300) { Leaseholder::Domain } else { Leaseholder::Heap })
        }
        1 => Operation::Lease(1, Leaseholder::Heap),
        2 => Operation::Return,
        3 => Operation::Find,
        _ => Operation::Free,
    }
}
