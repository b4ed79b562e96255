//! What may happen next: which steps a state allows.

use super::Cluster;
use super::configuration::Instruction;
use super::mutant::Mutant;
use super::state::{Node, Slot, State};
use dsm_core::{Access, Message, NodeId, PageId, Progress, Want};

/// One thing that happens.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Step {
    /// An idle thread begins an instruction: it retires, or faults.
    Begin {
        /// Whose.
        node: NodeId,
        /// Which thread.
        thread: usize,
        /// What.
        instruction: Instruction,
    },
    /// A thread that was woken tries its instruction again.
    Retry {
        /// Whose.
        node: NodeId,
        /// Which thread.
        thread: usize,
    },
    /// A message arrives.
    Deliver {
        /// Its index among those under way.
        index: usize,
        /// Whether it will come once more.
        twice: bool,
    },
    /// The driver answers a probe.
    Look {
        /// Whose.
        node: NodeId,
        /// The page.
        page: Slot,
        /// The answer.
        progress: Progress,
        /// Whether it is one that the truth does not allow.
        hasty: bool,
    },
    /// A timer runs out.
    Timer {
        /// Whose.
        node: NodeId,
        /// The page.
        page: Slot,
    },
    /// A protection that a mutant had put off is done.
    Protect {
        /// Whose.
        node: NodeId,
    },
}

/// The accesses of an instruction, in the order in which a processor makes them.
pub fn accesses(instruction: Instruction) -> impl Iterator<Item = (Slot, Want)> {
    let (first, second) = match instruction {
        Instruction::Load(page) => ((page, Want::Read), None),
        Instruction::Store(page) => ((page, Want::Write), None),
        Instruction::Copy(from, to) => ((from, Want::Read), Some((to, Want::Write))),
    };
    std::iter::once(first).chain(second)
}

/// The first access of an instruction that the page table does not allow.
pub fn fault_of(node: &Node, instruction: Instruction) -> Option<(Slot, Want)> {
    accesses(instruction).find(|&(page, want)| node.table[page] < want.access())
}

impl Cluster {
    /// Everything that may happen without a new instruction.
    pub(super) fn moves(&self, state: &State, out: &mut Vec<Step>) {
        if state.broken.is_some() {
            return;
        }
        for index in 0..state.network.len() {
            if !state.is_deliverable(index, self.configuration.network) {
                continue;
            }
            out.push(Step::Deliver { index, twice: false });
            let envelope = &state.network[index];
            if state.strays > 0 && !envelope.stray && matches!(envelope.message, Message::Grant { .. }) {
                out.push(Step::Deliver { index, twice: true });
            }
        }
        for (node, name) in state.nodes.iter().zip((0..).map(NodeId)) {
            let awake = |thread: &usize| {
                let thread = &node.threads[*thread];
                thread.doing.is_some() && thread.faulted.is_none()
            };
            out.extend(
                (0..node.threads.len()).filter(awake).map(|thread| Step::Retry { node: name, thread }),
            );
            for &page in &node.probes {
                let progress = self.progress(node, page);
                out.push(Step::Look { node: name, page, progress, hasty: false });
                if state.hasty > 0 && progress != Progress::Retired {
                    out.push(Step::Look { node: name, page, progress: Progress::Retired, hasty: true });
                }
            }
            // A look that sees what the last one saw changes nothing, so it is left out: what remains ends.
            let due = |&(page, seen): &(&Slot, &Progress)| {
                self.mutant != Some(Mutant::LosesTimer) && self.progress(node, *page) != *seen
            };
            out.extend(node.timers.iter().filter(due).map(|(&page, _)| Step::Timer { node: name, page }));
            if !node.overdue.is_empty() {
                out.push(Step::Protect { node: name });
            }
        }
    }

    /// Every instruction that an idle thread may begin.
    pub(super) fn beginnings(&self, state: &State, out: &mut Vec<Step>) {
        if state.broken.is_some() {
            return;
        }
        for (node, name) in state.nodes.iter().zip((0..).map(NodeId)) {
            for (index, thread) in node.threads.iter().enumerate() {
                if thread.left > 0 && thread.doing.is_none() {
                    let begin = |&instruction| Step::Begin { node: name, thread: index, instruction };
                    out.extend(self.configuration.instructions.iter().map(begin));
                }
            }
        }
    }

    /// How far the instructions are for which a page was mapped: what a driver would learn at its best.
    pub(super) fn progress(&self, node: &Node, page: Slot) -> Progress {
        let mut progress = Progress::Retired;
        for (index, thread) in node.threads.iter().enumerate() {
            if node.unretired[page] & (1 << index) == 0 {
                continue;
            }
            progress = match (thread.faulted, progress) {
                (None, _) => return Progress::Waiting,
                (Some(_), _) if self.mutant == Some(Mutant::KeepsStraddled) => {
                    Progress::Straddling { awaits: PageId(u64::MAX) }
                }
                (Some((awaits, _)), Progress::Straddling { awaits: highest }) => {
                    Progress::Straddling { awaits: highest.max(self.pages[awaits]) }
                }
                (Some((awaits, _)), Progress::Retired | Progress::Waiting) => {
                    Progress::Straddling { awaits: self.pages[awaits] }
                }
            };
        }
        progress
    }

    /// Whose step it is.
    pub(super) fn node_of(&self, state: &State, step: Step) -> NodeId {
        match step {
            Step::Begin { node, .. }
            | Step::Retry { node, .. }
            | Step::Look { node, .. }
            | Step::Timer { node, .. }
            | Step::Protect { node } => node,
            Step::Deliver { index, .. } => state.network[index].to,
        }
    }

    /// Whether nothing is under way, and nobody waits. A confirmation that is still held back keeps its page busy at
    /// its home, which nobody minds.
    pub(super) fn is_at_rest(&self, state: &State) -> bool {
        let idle = state.nodes.iter().all(|node| node.threads.iter().all(|thread| thread.doing.is_none()));
        let held = state.nodes.iter().any(|node| !node.held.is_empty());
        idle && (held || state.nodes.iter().all(|node| node.machine.pages_are_quiet()))
    }

    /// The page that a message speaks of, by index.
    pub(super) fn slot(&self, page: PageId) -> Option<Slot> {
        self.pages.iter().position(|&known| known == page)
    }

    /// Which nodes may read a page.
    pub(super) fn readers(state: &State, page: Slot) -> impl Iterator<Item = usize> {
        (0..state.nodes.len()).filter(move |&node| state.nodes[node].table[page] >= Access::Read)
    }
}
