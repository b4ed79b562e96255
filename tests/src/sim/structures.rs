//! A queue and a list in simulated memory: what a thread does in a critical section, one load or store at a time.
//!
//! Between two instructions of a section other nodes do what they like with the pages, so that a section is no plain
//! function. Still it is written as one: it runs from its start at each step, is told again what its first instructions
//! gave, and comes back with the first one that has not been carried out. Nothing of it lies outside of simulated
//! memory but that record.
//!
//! ```text
//!  queue: | pushed so far | popped so far | slot | slot | …    a ring
//!  list:  | first | value, next | value, next | …              linked; a node without a value is free
//! ```

use super::plan::{Cell, Plan, WORDS_OF_STRUCTURE};
use crate::history::{Sequence, SequenceAnswer, SequenceOperation};

/// A structure of a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Structure {
    /// Pushed to at the back, popped from the front.
    Queue,
    /// Changed anywhere.
    List,
}

/// What a section does next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Next {
    /// It loads a word.
    Load(Cell),
    /// It stores a value to a word.
    Store(Cell, u64),
    /// It is done, and this is its answer.
    Answer(SequenceAnswer),
}

/// What a section does after its first instructions gave `record`. A store gives nothing of interest.
#[must_use]
pub fn next(plan: &Plan, structure: Structure, operation: SequenceOperation, record: &[u64]) -> Next {
    let mut memory = Memory { plan, structure, record };
    let done = match structure {
        Structure::Queue => queue(operation, &mut memory),
        Structure::List => list(operation, &mut memory),
    };
    match done {
        Ok(answer) => Next::Answer(answer),
        Err(Stop::At(next)) => next,
        // No operation on a whole structure answers this, so that the checker will tell.
        Err(Stop::Broken) => Next::Answer(SequenceAnswer::Broken),
    }
}

impl Structure {
    /// Both.
    pub const ALL: [Structure; 2] = [Structure::Queue, Structure::List];

    /// The lock that guards it.
    #[must_use]
    pub fn lock(self, plan: &Plan) -> usize {
        match self {
            Structure::Queue => 0,
            Structure::List => plan.locks.len() - 1,
        }
    }

    /// What it is before anybody has done anything.
    #[must_use]
    pub fn empty(self, plan: &Plan) -> Sequence {
        Sequence::bounded(self.capacity(plan))
    }

    fn capacity(self, plan: &Plan) -> usize {
        let cells = WORDS_OF_STRUCTURE * plan.hot.len();
        match self {
            Structure::Queue => cells - SLOTS,
            Structure::List => (cells - NODES) / NODE_CELLS,
        }
    }

    fn cell(self, plan: &Plan, index: usize) -> Cell {
        let first = match self {
            Structure::Queue => super::plan::WORD_QUEUE,
            Structure::List => super::plan::WORD_LIST,
        };
        Cell { page: plan.hot[index / WORDS_OF_STRUCTURE], word: first + index % WORDS_OF_STRUCTURE }
    }
}

/// Why a section does not go on.
enum Stop {
    At(Next),
    /// What it found cannot be.
    Broken,
}

/// The structure's cells, as far as the section has come.
struct Memory<'a> {
    plan: &'a Plan,
    structure: Structure,
    record: &'a [u64],
}

impl Memory<'_> {
    fn load(&mut self, index: usize) -> Result<u64, Stop> {
        self.carried_out().ok_or_else(|| Stop::At(Next::Load(self.structure.cell(self.plan, index))))
    }

    fn store(&mut self, index: usize, value: u64) -> Result<(), Stop> {
        let cell = self.structure.cell(self.plan, index);
        self.carried_out().map(drop).ok_or(Stop::At(Next::Store(cell, value)))
    }

    fn carried_out(&mut self) -> Option<u64> {
        let (first, rest) = self.record.split_first()?;
        self.record = rest;
        Some(*first)
    }

    fn capacity(&self) -> usize {
        self.structure.capacity(self.plan)
    }
}

/// Cells of the queue.
const PUSHED: usize = 0;
const POPPED: usize = 1;
const SLOTS: usize = 2;

fn queue(operation: SequenceOperation, memory: &mut Memory<'_>) -> Result<SequenceAnswer, Stop> {
    let (pushed, popped) = (memory.load(PUSHED)?, memory.load(POPPED)?);
    let slots = memory.capacity() as u64;
    let slot = |number: u64| SLOTS + (number % slots) as usize;
    let length = pushed.checked_sub(popped).filter(|length| *length <= slots).ok_or(Stop::Broken)?;
    match operation {
        SequenceOperation::PushBack(_) if length == slots => Ok(SequenceAnswer::Refused),
        SequenceOperation::PushBack(value) => {
            memory.store(slot(pushed), value)?;
            memory.store(PUSHED, pushed + 1)?;
            Ok(SequenceAnswer::Done)
        }
        SequenceOperation::PopFront if length == 0 => Ok(SequenceAnswer::Element(None)),
        SequenceOperation::PopFront => {
            let value = memory.load(slot(popped))?;
            memory.store(POPPED, popped + 1)?;
            Ok(SequenceAnswer::Element(Some(value)))
        }
        SequenceOperation::Length => Ok(SequenceAnswer::Length(length as usize)),
        SequenceOperation::Elements => {
            let values: Result<Vec<u64>, Stop> =
                (popped..pushed).map(|number| memory.load(slot(number))).collect();
            Ok(SequenceAnswer::Elements(values?))
        }
        SequenceOperation::PushFront(_)
        | SequenceOperation::PopBack
        | SequenceOperation::Insert(..)
        | SequenceOperation::Remove(_)
        | SequenceOperation::Rotate => Err(Stop::Broken),
    }
}

/// Cells of the list. A link is zero, or one more than the number of a node.
const FIRST: usize = 0;
const NODES: usize = 1;
const NODE_CELLS: usize = 2;

fn value_cell(node: usize) -> usize {
    NODES + NODE_CELLS * node
}

fn next_cell(node: usize) -> usize {
    value_cell(node) + 1
}

fn list(operation: SequenceOperation, memory: &mut Memory<'_>) -> Result<SequenceAnswer, Stop> {
    let order = walk(memory)?;
    match operation {
        SequenceOperation::PushBack(value) => insert(memory, &order, order.len(), value),
        SequenceOperation::PushFront(value) => insert(memory, &order, 0, value),
        SequenceOperation::Insert(index, value) => insert(memory, &order, index, value),
        SequenceOperation::PopFront => remove(memory, &order, 0).map(SequenceAnswer::Element),
        SequenceOperation::PopBack => {
            remove(memory, &order, order.len().wrapping_sub(1)).map(SequenceAnswer::Element)
        }
        SequenceOperation::Remove(index) => remove(memory, &order, index).map(SequenceAnswer::Element),
        SequenceOperation::Rotate => {
            let first = remove(memory, &order, 0)?;
            if let Some(value) = first {
                insert(memory, &order[1..], order.len() - 1, value)?;
            }
            Ok(SequenceAnswer::Element(first))
        }
        SequenceOperation::Length => Ok(SequenceAnswer::Length(order.len())),
        SequenceOperation::Elements => {
            let values: Result<Vec<u64>, Stop> =
                order.iter().map(|node| memory.load(value_cell(*node))).collect();
            Ok(SequenceAnswer::Elements(values?))
        }
    }
}

/// The nodes of the list, in its order.
fn walk(memory: &mut Memory<'_>) -> Result<Vec<usize>, Stop> {
    let nodes = memory.capacity();
    let mut order = Vec::new();
    let mut link = memory.load(FIRST)?;
    while link != 0 {
        let node = usize::try_from(link - 1).ok().filter(|node| *node < nodes && !order.contains(node));
        let node = node.ok_or(Stop::Broken)?;
        order.push(node);
        link = memory.load(next_cell(node))?;
    }
    Ok(order)
}

/// The cell of the link to what stands at `index`.
fn link_cell(order: &[usize], index: usize) -> usize {
    index.checked_sub(1).map_or(FIRST, |before| next_cell(order[before]))
}

fn insert(
    memory: &mut Memory<'_>,
    order: &[usize],
    index: usize,
    value: u64,
) -> Result<SequenceAnswer, Stop> {
    if index > order.len() || order.len() == memory.capacity() {
        return Ok(SequenceAnswer::Refused);
    }
    let mut node = 0;
    while memory.load(value_cell(node))? != 0 {
        node += 1;
        if node == memory.capacity() {
            return Err(Stop::Broken);
        }
    }
    memory.store(value_cell(node), value)?;
    memory.store(next_cell(node), order.get(index).map_or(0, |next| *next as u64 + 1))?;
    memory.store(link_cell(order, index), node as u64 + 1)?;
    Ok(SequenceAnswer::Done)
}

fn remove(memory: &mut Memory<'_>, order: &[usize], index: usize) -> Result<Option<u64>, Stop> {
    let Some(&node) = order.get(index) else { return Ok(None) };
    let value = memory.load(value_cell(node))?;
    let next = memory.load(next_cell(node))?;
    memory.store(link_cell(order, index), next)?;
    memory.store(value_cell(node), 0)?;
    Ok(Some(value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::plan::WORDS;
    use crate::sim::rng::Rng;
    use stateright::semantics::SequentialSpec;
    use std::collections::BTreeMap;

    /// Runs a section to its end, with nobody to interfere.
    fn run(
        plan: &Plan,
        structure: Structure,
        operation: SequenceOperation,
        memory: &mut BTreeMap<Cell, u64>,
    ) -> SequenceAnswer {
        let mut record = Vec::new();
        loop {
            let given = match next(plan, structure, operation, &record) {
                Next::Load(cell) => memory.get(&cell).copied().unwrap_or(0),
                Next::Store(cell, value) => {
                    assert!(cell.word < WORDS && plan.hot.contains(&cell.page), "{cell:?}");
                    memory.insert(cell, value);
                    0
                }
                Next::Answer(answer) => return answer,
            };
            record.push(given);
        }
    }

    #[test]
    fn alone_both_do_what_a_sequence_does() {
        for seed in 0..100 {
            let mut rng = Rng::new(seed);
            let plan = Plan::draw(&mut rng, false);
            let mut value = 1000;
            // One memory for both: they must not share a cell.
            let mut memory = BTreeMap::new();
            let mut models = Structure::ALL.map(|structure| structure.empty(&plan));
            for _ in 0..100 {
                for (structure, model) in Structure::ALL.into_iter().zip(&mut models) {
                    let operation = crate::sim::program::draw_request(structure, &mut rng, &mut value);
                    let answer = run(&plan, structure, operation, &mut memory);
                    assert_eq!(answer, model.invoke(&operation), "seed {seed}: {operation:?} on {model:?}");
                }
            }
        }
    }

    #[test]
    fn a_list_that_runs_in_a_circle_is_broken() {
        let plan = Plan::draw(&mut Rng::new(1), false);
        let mut memory = BTreeMap::new();
        run(&plan, Structure::List, SequenceOperation::PushBack(7), &mut memory);
        memory.insert(Structure::List.cell(&plan, next_cell(0)), 1);
        let answer = run(&plan, Structure::List, SequenceOperation::Length, &mut memory);
        assert_eq!(answer, SequenceAnswer::Broken);
        memory.insert(Structure::Queue.cell(&plan, POPPED), 1);
        let answer = run(&plan, Structure::Queue, SequenceOperation::Length, &mut memory);
        assert_eq!(answer, SequenceAnswer::Broken);
    }
}
