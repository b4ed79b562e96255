//! Critical sections of virtual threads that work on a structure: one instruction per step, as `structures` says.

use super::Check;
use super::histories::Window;
use super::node::{State, ThreadId};
use super::program::Operation;
use super::structures::{self, Next, Structure};
use super::world::World;
use crate::history::SequenceOperation;
use dsm_core::{NodeId, Want};

impl World {
    /// Runs a section for one instruction.
    pub(super) fn step_section(
        &mut self,
        thread: ThreadId,
        structure: Structure,
        operation: SequenceOperation,
    ) -> Check {
        let next = self.next_of_section(thread, structure, operation);
        let (page, want) = match &next {
            Next::Load(cell) => (cell.page, Want::Read),
            Next::Store(cell, _) => (cell.page, Want::Write),
            Next::Answer(answer) => {
                return Err(format!("{operation:?} answered {answer:?} without an instruction"));
            }
        };
        if self.node(thread.node).access(page) < want.access() {
            return self.fault(thread, page, want);
        }
        let given = match next {
            Next::Load(cell) => self.load(thread, cell)?,
            Next::Store(cell, value) => {
                self.store(thread, cell, value)?;
                value
            }
            Next::Answer(_) => 0,
        };
        self.thread(thread).record.push(given);
        self.instruction_retired(thread);
        if let Next::Answer(answer) = self.next_of_section(thread, structure, operation) {
            let (invoked, ended) = (self.thread(thread).entered, self.now);
            self.trace.note(ended, thread.node, || {
                format!("thread {} is told {answer} by {structure:?}: {operation}", thread.index)
            });
            let window = Window { thread, invoked, ended };
            self.histories.sequence(window, structure, operation, answer);
            let this = self.thread(thread);
            this.record.clear();
            this.program.pop_front();
        }
        self.proceed(thread);
        Ok(())
    }

    fn next_of_section(
        &mut self,
        thread: ThreadId,
        structure: Structure,
        operation: SequenceOperation,
    ) -> Next {
        let record = &self.nodes[thread.node.index()].threads[thread.index].record;
        structures::next(&self.plan, structure, operation, record)
    }

    /// A node is no more: sections that its threads were in will never be answered. Single instructions that they had
    /// not carried out have had no effect, and nobody was told anything of them.
    pub(super) fn abandon_sections(&mut self, node: NodeId) {
        for (index, thread) in self.nodes[node.index()].threads.iter().enumerate() {
            let begun = thread.state != State::Done && !thread.record.is_empty();
            if let (true, Some(Operation::Ask(structure, operation))) = (begun, thread.program.front()) {
                self.histories.open(ThreadId { node, index }, thread.entered, *structure, *operation);
            }
        }
    }
}
