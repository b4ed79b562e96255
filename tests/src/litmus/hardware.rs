//! Which outcomes x86 allows: total store order, by its machine (Sewell and others, "x86-TSO", 2010).
//!
//! Each thread has a queue of stores that memory has not seen yet; its own loads see the newest of them. All states of
//! the machine are visited. Orderings count as they compile: a `SeqCst` store is an `xchg`, a `SeqCst` fence an `mfence`,
//! both of which wait for the queue to be empty; all other accesses are a `mov`, and an `AcqRel` fence is nothing.
//!
//! An access to a value that straddles two pages is two accesses, one to each half, in any order: no more is promised,
//! as between threads. The same machine without queues gives what interleavings can give, which tells weak outcomes.

use super::outcome::{Outcome, Seen};
use super::program::{Op, Order, Program};
use super::shape::{REGISTERS_MAX, THREADS_MAX, VARIABLES_MAX};
use std::collections::{BTreeSet, HashSet, VecDeque};

/// Whether stores wait in queues.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Memory {
    /// They do: x86.
    StoreBuffers,
    /// They do not: sequential consistency.
    Sequential,
}

/// Halves of a value.
const HALVES: usize = 2;

/// Both halves of an access are done.
const ALL_DONE: u8 = (1 << HALVES) - 1;

#[derive(Clone, PartialEq, Eq, Hash, Default)]
struct Thread {
    /// How many of its steps are over.
    step: usize,
    /// Which halves of the present access are done, as bits.
    done: u8,
    /// Stores that memory has not seen: half of a variable, and its value.
    queue: VecDeque<(usize, u8)>,
}

#[derive(Clone, PartialEq, Eq, Hash, Default)]
struct State {
    threads: [Thread; THREADS_MAX],
    memory: [u8; VARIABLES_MAX * HALVES],
    registers: [u8; REGISTERS_MAX * HALVES],
}

/// All outcomes that the machine has for `program`; with torn values if its variables are `straddling`.
#[must_use]
pub fn allowed(program: &Program, straddling: bool, memory: Memory) -> BTreeSet<Outcome> {
    // Accesses that are not split do both halves at once.
    let portions: &[u8] = if straddling { &[0b01, 0b10] } else { &[ALL_DONE] };
    let mut outcomes = BTreeSet::new();
    let mut known = HashSet::from([State::default()]);
    let mut open = vec![State::default()];
    while let Some(state) = open.pop() {
        let mut is_end = true;
        for next in state.successors(program, portions, memory) {
            is_end = false;
            if known.insert(next.clone()) {
                open.push(next);
            }
        }
        if is_end {
            outcomes.insert(state.outcome(program));
        }
    }
    outcomes
}

impl State {
    fn successors(&self, program: &Program, portions: &[u8], memory: Memory) -> Vec<State> {
        let mut all = Vec::new();
        for (index, ops) in program.threads.iter().enumerate() {
            all.extend(self.drain(index, portions));
            let Some(&op) = ops.get(self.threads[index].step) else { continue };
            match op {
                Op::Fence(order) => all.extend(self.fence(index, order)),
                Op::Load { .. } | Op::Store { .. } => {
                    let open = portions.iter().filter(|&&portion| self.threads[index].done & portion == 0);
                    all.extend(open.filter_map(|&portion| self.access(index, op, portion, memory)));
                }
            }
        }
        all
    }

    /// Memory sees the oldest store of a thread: both halves at once, if they lie together.
    fn drain(&self, index: usize, portions: &[u8]) -> Option<State> {
        let mut next = self.clone();
        for _ in 0..HALVES / portions.len() {
            let (half, value) = next.threads[index].queue.pop_front()?;
            next.memory[half] = value;
        }
        Some(next)
    }

    fn fence(&self, index: usize, order: Order) -> Option<State> {
        if order == Order::SeqCst && !self.threads[index].queue.is_empty() {
            return None;
        }
        let mut next = self.clone();
        next.threads[index].step += 1;
        Some(next)
    }

    /// A thread does a portion of an access, if it can.
    fn access(&self, index: usize, op: Op, portion: u8, memory: Memory) -> Option<State> {
        let mut next = self.clone();
        for half in (0..HALVES).filter(|half| portion & (1 << half) != 0) {
            match op {
                Op::Fence(_) => return None,
                Op::Load { variable, register, .. } => {
                    let at = variable.index() * HALVES + half;
                    next.registers[register * HALVES + half] = self.load(index, at);
                }
                Op::Store { variable, value, order } => {
                    let at = variable.index() * HALVES + half;
                    match (memory, order) {
                        (Memory::Sequential, _) => next.memory[at] = value,
                        (Memory::StoreBuffers, Order::SeqCst) => {
                            if !self.threads[index].queue.is_empty() {
                                return None;
                            }
                            next.memory[at] = value;
                        }
                        (Memory::StoreBuffers, Order::Plain | Order::Relaxed | Order::AcqRel) => {
                            next.threads[index].queue.push_back((at, value));
                        }
                    }
                }
            }
        }
        let thread = &mut next.threads[index];
        thread.done |= portion;
        if thread.done == ALL_DONE {
            thread.done = 0;
            thread.step += 1;
        }
        Some(next)
    }

    fn load(&self, index: usize, at: usize) -> u8 {
        let own = self.threads[index].queue.iter().rev().find(|(half, _)| *half == at);
        own.map_or(self.memory[at], |&(_, value)| value)
    }

    fn outcome(&self, program: &Program) -> Outcome {
        let pair = |halves: &[u8]| Seen { low: halves[0], high: halves[1] };
        let registers = self.registers.chunks(HALVES).take(program.shape.registers()).map(pair);
        let finals = program.shape.finals.iter().map(|variable| {
            let first = variable.index() * HALVES;
            pair(&self.memory[first..first + HALVES])
        });
        Outcome::of(registers.chain(finals))
    }
}
