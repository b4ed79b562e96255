//! What is going to happen, by virtual time. Equal times are told apart by the order of scheduling, so a run has no
//! chance in it but its seed's.

use super::node::{Body, ThreadId};
use dsm_core::{CallId, LockId, Message, NodeId, PageId, Progress, Time, Timer, Want};
use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// Something that happens at an instant.
#[derive(Clone, Debug)]
pub enum Happening {
    /// A virtual thread runs for one instruction.
    Step(ThreadId),
    /// A node's engine learns of a fault.
    FaultReported {
        /// Whose engine.
        node: NodeId,
        /// The page.
        page: PageId,
        /// What the instruction wants.
        want: Want,
    },
    /// A message arrives.
    Delivered {
        /// Who sent it.
        from: NodeId,
        /// Where it arrives.
        to: NodeId,
        /// What it says.
        message: Message,
        /// The page's bytes behind it.
        body: Option<Body>,
    },
    /// What a node holds back for another has waited for as long as it may.
    HeldLongEnough {
        /// Who holds it back.
        from: NodeId,
        /// For whom.
        to: NodeId,
    },
    /// A timer runs out, unless it was replaced since.
    TimerDue {
        /// Whose timer.
        node: NodeId,
        /// Which.
        timer: Timer,
        /// How many timers the node had set when it set this one.
        generation: u64,
    },
    /// A residency probe's answer reaches the machine.
    Probed {
        /// Whose probe.
        node: NodeId,
        /// Of which page.
        page: PageId,
        /// How far the instruction was when the driver looked.
        progress: Progress,
    },
    /// A waiting lock call loses patience.
    Impatient {
        /// Whose call.
        node: NodeId,
        /// The lock.
        lock: LockId,
        /// The call.
        waiting: CallId,
    },
    /// The hostile member says something.
    Babbles,
    /// A node is killed.
    Killed(NodeId),
    /// A node learns that another is gone.
    LossKnown {
        /// Who learns it.
        node: NodeId,
        /// Who is gone.
        lost: NodeId,
    },
}

struct Entry {
    at: Time,
    number: u64,
    what: Happening,
}

impl Entry {
    fn key(&self) -> (Time, u64) {
        (self.at, self.number)
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Entry) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Entry) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    /// The heap yields its greatest entry first, which is to be the earliest.
    fn cmp(&self, other: &Entry) -> Ordering {
        other.key().cmp(&self.key())
    }
}

/// What is going to happen.
#[derive(Default)]
pub struct Queue {
    heap: BinaryHeap<Entry>,
    scheduled: u64,
}

impl Queue {
    /// Lets `what` happen at `at`.
    pub fn schedule(&mut self, at: Time, what: Happening) {
        self.scheduled += 1;
        self.heap.push(Entry { at, number: self.scheduled, what });
    }

    /// What happens next, and when.
    pub fn next(&mut self) -> Option<(Time, Happening)> {
        self.heap.pop().map(|entry| (entry.at, entry.what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_comes_first_and_equals_in_order() {
        let mut queue = Queue::default();
        let killed = |rank| Happening::Killed(NodeId(rank));
        queue.schedule(Time::from_nanos(2), killed(0));
        queue.schedule(Time::from_nanos(1), killed(1));
        queue.schedule(Time::from_nanos(1), killed(2));
        let mut order = Vec::new();
        while let Some((_, what)) = queue.next() {
            if let Happening::Killed(node) = what {
                order.push(node.0);
            }
        }
        assert_eq!(order, [1, 2, 0]);
    }
}
