//! The virtual threads: one instruction per step. An instruction happens at one instant, if the page table allows all
//! that it needs; else it faults on the first page that is missing, and is tried again from the start.

use super::Check;
use super::histories::Window;
use super::mutant::Mutant;
use super::node::{State, Thread, ThreadId, slot};
use super::plan::Cell;
use super::program::Operation;
use super::queue::Happening;
use super::world::World;
use crate::history::{WordAnswer, WordOperation};
use dsm_core::{PageId, Want};
use std::time::Duration;

/// No instruction faults more often than this. With minimum residency a woken thread finds its page, unless its core
/// kept it waiting beyond the longest residency, or it needs a second page, lower than the first. The worst of the first
/// 100,000 seeds faults 17 times.
const FAULTS_OF_INSTRUCTION_MAX: u32 = 60;

/// A duplicate of a fault's report comes within this time.
const DUPLICATE_NS_MAX: u64 = 1_000_000;

impl World {
    pub(super) fn thread(&mut self, thread: ThreadId) -> &mut Thread {
        &mut self.nodes[thread.node.index()].threads[thread.index]
    }

    /// A thread that waited may run again, once a core is free for it.
    pub(super) fn resume(&mut self, thread: ThreadId) {
        self.thread(thread).state = State::Ready;
        let at = self.now + Duration::from_nanos(self.plan.wake.draw(&mut self.rng));
        self.queue.schedule(at, Happening::Step(thread));
    }

    /// A thread that did not wait goes on.
    pub(super) fn proceed(&mut self, thread: ThreadId) {
        let at = self.now + Duration::from_nanos(self.plan.think.draw(&mut self.rng));
        self.queue.schedule(at, Happening::Step(thread));
    }

    /// Runs a thread for one instruction or call.
    pub(super) fn step(&mut self, thread: ThreadId) -> Check {
        if self.node(thread.node).dead {
            return Ok(());
        }
        let Some(operation) = self.thread(thread).program.front().cloned() else {
            self.thread(thread).state = State::Done;
            self.running -= 1;
            return Ok(());
        };
        if let Operation::Ask(structure, operation) = operation {
            return self.step_section(thread, structure, operation);
        }
        let now = self.now;
        let invoked = *self.thread(thread).began.get_or_insert(now);
        let Some(needs) = self.needs(&operation) else {
            self.thread(thread).began = None;
            self.thread(thread).program.pop_front();
            self.counts.operations += 1;
            return self.call(thread, &operation);
        };
        for (page, want) in needs.into_iter().flatten() {
            if self.node(thread.node).access(page) < want.access() {
                return self.fault(thread, page, want);
            }
        }
        self.perform(Window { thread, invoked, ended: now }, &operation)?;
        self.instruction_retired(thread);
        self.thread(thread).program.pop_front();
        self.proceed(thread);
        Ok(())
    }

    /// The pages that an instruction touches; `None` for a call.
    fn needs(&self, operation: &Operation) -> Option<[Option<(PageId, Want)>; 2]> {
        let one = |cell: &Cell, want| Some([Some((cell.page, want)), None]);
        let guarded = |lock: usize| &self.plan.locks[lock].cell;
        match operation {
            Operation::Load(cell) => one(cell, Want::Read),
            Operation::Store(cell)
            | Operation::Swap(cell)
            | Operation::CompareExchange(cell)
            | Operation::Increment(cell)
            | Operation::FinishIncrement(cell) => one(cell, Want::Write),
            Operation::Straddle(first, second, want) => {
                Some([Some((first.page, *want)), Some((second.page, *want))])
            }
            Operation::LoadGuarded(lock) => one(guarded(*lock), Want::Read),
            Operation::StoreGuarded(lock) => one(guarded(*lock), Want::Write),
            Operation::Lock(..)
            | Operation::Ask(..)
            | Operation::Unlock(_)
            | Operation::Barrier
            | Operation::IntrudeBarrier
            | Operation::Claim(..)
            | Operation::Publish(_)
            | Operation::Abandon(_)
            | Operation::Lease(..)
            | Operation::Return
            | Operation::Find
            | Operation::Free
            | Operation::Leave => None,
        }
    }

    /// The instruction's effect, at this instant.
    fn perform(&mut self, window: Window, operation: &Operation) -> Check {
        let thread = window.thread;
        match *operation {
            Operation::Load(cell) => self.load_recorded(window, cell),
            Operation::Store(cell) => self.store_fresh(window, cell),
            Operation::Swap(cell) => {
                let was = self.load(thread, cell)?;
                let value = self.oracle.fresh();
                self.record(window, cell, WordOperation::Swap(value), WordAnswer::Was(was));
                self.store(thread, cell, value)
            }
            Operation::CompareExchange(cell) => self.compare_exchange(window, cell),
            Operation::Increment(cell) => self.increment(window, cell),
            Operation::FinishIncrement(cell) => {
                let value = self.thread(thread).register + 1;
                self.store(thread, cell, value)
            }
            Operation::Straddle(first, second, Want::Read) => {
                self.load_recorded(window, first)?;
                self.load_recorded(window, second)
            }
            Operation::Straddle(first, second, Want::Write) => {
                self.store_fresh(window, first)?;
                self.store_fresh(window, second)
            }
            Operation::LoadGuarded(lock) => {
                let value = self.load(thread, self.plan.locks[lock].cell)?;
                let this = self.thread(thread);
                this.register = value;
                this.adding = window.invoked;
                Ok(())
            }
            Operation::StoreGuarded(lock) => {
                let cell = self.plan.locks[lock].cell;
                let (value, invoked) = (self.thread(thread).register, self.thread(thread).adding);
                self.oracle.counted(cell);
                // The lock makes one addition of the load and the store.
                let window = Window { invoked, ..window };
                self.record(window, cell, WordOperation::Add(1), WordAnswer::Was(value));
                self.store(thread, cell, value + 1)
            }
            Operation::Lock(..)
            | Operation::Ask(..)
            | Operation::Unlock(_)
            | Operation::Barrier
            | Operation::IntrudeBarrier
            | Operation::Claim(..)
            | Operation::Publish(_)
            | Operation::Abandon(_)
            | Operation::Lease(..)
            | Operation::Return
            | Operation::Find
            | Operation::Free
            | Operation::Leave => Ok(()),
        }
    }

    fn increment(&mut self, window: Window, cell: Cell) -> Check {
        let thread = window.thread;
        let value = self.load(thread, cell)?;
        self.oracle.counted(cell);
        self.record(window, cell, WordOperation::Add(1), WordAnswer::Was(value));
        if self.mutant == Some(Mutant::TearsIncrements) {
            let this = self.thread(thread);
            this.register = value;
            // Behind the increment itself, which is at the front still.
            this.program.insert(1, Operation::FinishIncrement(cell));
            return Ok(());
        }
        self.store(thread, cell, value + 1)
    }

    fn compare_exchange(&mut self, window: Window, cell: Cell) -> Check {
        let expected = self.thread(window.thread).seen;
        let was = self.load(window.thread, cell)?;
        let new = self.oracle.fresh();
        let operation = WordOperation::CompareExchange { expected, new };
        if was != expected {
            self.record(window, cell, operation, WordAnswer::Differed(was));
            return Ok(());
        }
        self.record(window, cell, operation, WordAnswer::Was(was));
        self.store(window.thread, cell, new)
    }

    fn record(&mut self, window: Window, cell: Cell, operation: WordOperation, answer: WordAnswer) {
        self.histories.word(&self.plan, window, cell, operation, answer);
    }

    fn load_recorded(&mut self, window: Window, cell: Cell) -> Check {
        let value = self.load(window.thread, cell)?;
        self.thread(window.thread).seen = value;
        self.record(window, cell, WordOperation::Load, WordAnswer::Was(value));
        Ok(())
    }

    pub(super) fn load(&mut self, thread: ThreadId, cell: Cell) -> Check<u64> {
        let value = self.node(thread.node).frames[slot(cell.page)][cell.word];
        self.trace.note(self.now, thread.node, || {
            format!("thread {} loads {value:#x} from {cell:?}", thread.index)
        });
        self.judge(self.oracle.loaded(cell, value)).map(|()| value)
    }

    fn store_fresh(&mut self, window: Window, cell: Cell) -> Check {
        let value = self.oracle.fresh();
        self.record(window, cell, WordOperation::Store(value), WordAnswer::Done);
        self.store(window.thread, cell, value)
    }

    pub(super) fn store(&mut self, thread: ThreadId, cell: Cell, value: u64) -> Check {
        self.trace
            .note(self.now, thread.node, || format!("thread {} stores {value:#x} to {cell:?}", thread.index));
        self.node(thread.node).frames[slot(cell.page)][cell.word] = value;
        self.oracle.stored(cell, value);
        Ok(())
    }

    /// The instruction is done: no page needs to stay for it.
    pub(super) fn instruction_retired(&mut self, thread: ThreadId) {
        self.counts.operations += 1;
        let this = self.thread(thread);
        this.faults = 0;
        this.began = None;
        for index in 0..self.plan.hot.len() {
            let page = self.plan.hot[index];
            self.node(thread.node).unretired[slot(page)] &= !(1 << thread.index);
        }
    }

    pub(super) fn fault(&mut self, thread: ThreadId, page: PageId, want: Want) -> Check {
        let (node, now) = (thread.node, self.now);
        self.trace.note(now, node, || format!("thread {} faults on {page} ({want:?})", thread.index));
        let this = self.thread(thread);
        this.state = State::Faulted { page, want, since: now };
        this.faults += 1;
        let faults = this.faults;
        self.counts.faults += 1;
        self.counts.faults_of_instruction_max = self.counts.faults_of_instruction_max.max(faults);
        if faults > FAULTS_OF_INSTRUCTION_MAX {
            let operation = self.thread(thread).program.front().cloned();
            return Err(format!(
                "livelock: one instruction of {thread:?} faulted {faults} times: {operation:?}"
            ));
        }
        let report = Duration::from_nanos(self.plan.report.draw(&mut self.rng));
        self.queue.schedule(now + report, Happening::FaultReported { node, page, want });
        if self.rng.chance(self.plan.duplicates_permille) {
            let again = Duration::from_nanos(self.rng.below(DUPLICATE_NS_MAX));
            self.queue.schedule(now + report + again, Happening::FaultReported { node, page, want });
        }
        Ok(())
    }
}
