//! What is true of the whole cluster, known from outside: the latest value of every word, who holds which lock, which
//! spans are leased. Every answer that a thread gets is held against it.
//!
//! Instructions of virtual threads are atomic and happen one after the other, so sequential consistency is simply that
//! every load returns the latest store.

use super::Check;
use super::node::{Frame, ThreadId, slot};
use super::plan::{Cell, Plan, WORDS};
use dsm_core::{Address, NodeId, PageId, RootAnswer, SpanOwner, SpanRange, Ticket};
use std::collections::{BTreeMap, VecDeque};

struct Lock {
    holder: Option<ThreadId>,
    /// The waiting calls, in the order in which the lock's home heard of them; `true` once withdrawn.
    waiting: VecDeque<(Ticket, bool)>,
}

#[derive(Default)]
struct Root {
    layout: u64,
    creator: Option<ThreadId>,
    address: Option<Address>,
}

/// A leased span.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Leased {
    /// Its pages.
    pub span: SpanRange,
    /// Who leased it.
    pub lessee: NodeId,
}

/// The truth.
pub struct Oracle {
    latest: Vec<Frame>,
    stored: u64,
    counts: BTreeMap<Cell, u64>,
    locks: Vec<Lock>,
    arrived: Vec<u64>,
    passed: Vec<u64>,
    leaving: Vec<bool>,
    roots: Vec<Root>,
    spans: Vec<Leased>,
    frees: BTreeMap<Address, NodeId>,
    dead: Vec<NodeId>,
}

/// Stored values are told from counters at a glance.
const STORED_BASE: u64 = 1 << 32;

impl Oracle {
    /// The truth at the start: all memory is zero.
    #[must_use]
    pub fn new(plan: &Plan) -> Oracle {
        let nodes = plan.members.len();
        Oracle {
            latest: vec![[0; WORDS]; usize::try_from(plan.geometry.pages()).unwrap_or(0)],
            stored: STORED_BASE,
            counts: BTreeMap::new(),
            locks: plan.locks.iter().map(|_| Lock { holder: None, waiting: VecDeque::new() }).collect(),
            arrived: vec![0; nodes],
            passed: vec![0; nodes],
            leaving: vec![false; nodes],
            roots: (0..plan.names).map(|_| Root::default()).collect(),
            spans: Vec::new(),
            frees: BTreeMap::new(),
            dead: Vec::new(),
        }
    }

    /// A load returned `value`.
    pub fn loaded(&self, cell: Cell, value: u64) -> Check {
        let latest = self.latest[slot(cell.page)][cell.word];
        if value == latest {
            return Ok(());
        }
        Err(format!("a load of {cell:?} returned {value:#x}, but the latest store was {latest:#x}"))
    }

    /// A store of `value` happened.
    pub fn stored(&mut self, cell: Cell, value: u64) {
        self.latest[slot(cell.page)][cell.word] = value;
    }

    /// A value that was never stored before.
    pub fn fresh(&mut self) -> u64 {
        self.stored += 1;
        self.stored
    }

    /// One more increment of a word, atomic or under its lock.
    pub fn counted(&mut self, cell: Cell) {
        *self.counts.entry(cell).or_default() += 1;
    }

    /// Every word that is only ever incremented holds the number of its increments.
    pub fn totals(&self) -> Check {
        for (cell, &count) in &self.counts {
            let latest = self.latest[slot(cell.page)][cell.word];
            if latest != count {
                return Err(format!("{cell:?} was incremented {count} times, but holds {latest}"));
            }
        }
        Ok(())
    }

    /// What `page` holds.
    #[must_use]
    pub fn frame(&self, page: PageId) -> &Frame {
        &self.latest[slot(page)]
    }

    /// A waiting call reached its lock's home.
    pub fn lock_queued(&mut self, lock: usize, ticket: Ticket) {
        self.locks[lock].waiting.push_back((ticket, false));
    }

    /// A withdrawal reached its lock's home.
    pub fn lock_withdrawn(&mut self, lock: usize, ticket: Ticket) {
        for entry in &mut self.locks[lock].waiting {
            entry.1 |= entry.0 == ticket;
        }
    }

    /// A call was told that it holds the lock.
    pub fn lock_granted(&mut self, lock: usize, ticket: Ticket, thread: ThreadId) -> Check {
        let dead = &self.dead;
        let lock_state = &mut self.locks[lock];
        if let Some(holder) = lock_state.holder {
            return Err(format!("lock {lock} was granted to {thread:?} while {holder:?} holds it"));
        }
        let mut ahead = lock_state.waiting.iter().take_while(|entry| entry.0 != ticket);
        if let Some(passed) = ahead.find(|entry| !entry.1 && !dead.contains(&entry.0.node)) {
            let waits = lock_state.waiting.iter().any(|entry| entry.0 == ticket);
            if waits {
                return Err(format!("lock {lock} was granted to {ticket:?} before {:?}", passed.0));
            }
        }
        lock_state.waiting.retain(|entry| entry.0 != ticket);
        lock_state.holder = Some(thread);
        Ok(())
    }

    /// A call was told that it does not get the lock.
    pub fn lock_denied(&mut self, lock: usize, ticket: Ticket) {
        self.locks[lock].waiting.retain(|entry| entry.0 != ticket);
    }

    /// A thread is about to release a lock.
    pub fn lock_released(&mut self, lock: usize) {
        self.locks[lock].holder = None;
    }

    /// A node's thread entered the barrier.
    pub fn barrier_entered(&mut self, node: NodeId) {
        self.arrived[node.index()] += 1;
    }

    /// A node runs no program: nobody waits for it.
    pub fn excuse(&mut self, node: NodeId) {
        self.arrived[node.index()] = u64::MAX;
        self.leaving[node.index()] = true;
    }

    /// A node's thread was let through the barrier.
    pub fn barrier_passed(&mut self, node: NodeId) -> Check {
        self.passed[node.index()] += 1;
        let generation = self.passed[node.index()];
        match self.arrived.iter().position(|&arrived| arrived < generation) {
            None => Ok(()),
            Some(rank) => Err(format!("{node} passed barrier {generation} before rank {rank} arrived")),
        }
    }

    /// A node's program is done.
    pub fn leave_called(&mut self, node: NodeId) {
        self.leaving[node.index()] = true;
    }

    /// A node was told that all are done.
    pub fn left(&self, node: NodeId) -> Check {
        let missing = self.leaving.iter().position(|leaving| !leaving);
        missing.map_or(Ok(()), |rank| Err(format!("{node} left while rank {rank} still ran")))
    }

    /// A claim of a root was answered; `true` if the claimant is to create it.
    pub fn root_answered(
        &mut self,
        name: usize,
        layout: u64,
        answer: RootAnswer,
        claimant: ThreadId,
    ) -> Check<bool> {
        let dead = &self.dead;
        let root = &mut self.roots[name];
        match answer {
            RootAnswer::Create => {
                let other = root.creator.filter(|creator| !dead.contains(&creator.node));
                if other.is_some() || root.address.is_some() {
                    return Err(format!(
                        "{claimant:?} is to create root {name}, which {other:?} creates or which is at {:?}",
                        root.address
                    ));
                }
                *root = Root { layout, creator: Some(claimant), address: None };
                Ok(true)
            }
            RootAnswer::Found(address) if root.address == Some(address) && root.layout == layout => Ok(false),
            RootAnswer::Found(address) => {
                Err(format!("root {name} was found at {address}, but is at {:?}", root.address))
            }
            // The answer may be older than an abandoned creation with the other layout, so only this much is sure.
            RootAnswer::OtherLayout(other) if other != layout => Ok(false),
            RootAnswer::OtherLayout(other) => {
                Err(format!("root {name} was refused for its own layout {other}"))
            }
            RootAnswer::TooMany => Err(format!("root {name} is one too many, though there are few")),
        }
    }

    /// A creator publishes its root, or gives up.
    pub fn root_created(&mut self, name: usize, address: Option<Address>) {
        let root = &mut self.roots[name];
        root.creator = None;
        root.address = address;
    }

    /// A lease was granted.
    pub fn span_leased(&mut self, span: SpanRange, lessee: NodeId) -> Check {
        let end = |range: &SpanRange| range.first.0 + range.pages;
        let overlaps = |other: &&Leased| span.first.0 < end(&other.span) && other.span.first.0 < end(&span);
        if let Some(other) = self.spans.iter().find(overlaps) {
            return Err(format!("{span:?} was leased to {lessee} while {other:?} stands"));
        }
        self.spans.push(Leased { span, lessee });
        Ok(())
    }

    /// Whether blocks of the span are on their way to its lessee.
    #[must_use]
    pub fn span_is_busy(&self, plan: &Plan, span: &SpanRange) -> bool {
        let holds = |address: &Address| {
            let page = plan.geometry.page_of(*address);
            page.is_some_and(|page| (span.first.0..span.first.0 + span.pages).contains(&page.0))
        };
        self.frees.keys().any(holds)
    }

    /// A lease is about to be given back.
    pub fn span_returned(&mut self, first: PageId) {
        self.spans.retain(|leased| leased.span.first != first);
    }

    /// The spans of heaps of living nodes other than `node`.
    #[must_use]
    pub fn heaps_of_others(&self, node: NodeId) -> Vec<Leased> {
        let heap = |leased: &&Leased| matches!(leased.span.owner, SpanOwner::Node(_));
        let other = |leased: &&Leased| leased.lessee != node && !self.dead.contains(&leased.lessee);
        self.spans.iter().filter(heap).filter(other).copied().collect()
    }

    /// A block is about to be dropped; `false` if the same block is on its way already.
    pub fn free_sent(&mut self, address: Address, lessee: NodeId) -> bool {
        self.frees.insert(address, lessee).is_none()
    }

    /// A dropped block reached a node.
    pub fn freed(&mut self, address: Address, node: NodeId) -> Check {
        match self.frees.remove(&address) {
            Some(lessee) if lessee == node => Ok(()),
            other => Err(format!("{node} was told that {address} is free, which is for {other:?} to hear")),
        }
    }

    /// A node died: what it held is nobody's.
    pub fn died(&mut self, node: NodeId) {
        self.dead.push(node);
        for lock in &mut self.locks {
            lock.holder = lock.holder.filter(|holder| holder.node != node);
        }
    }

    /// Nothing may be left under way once all is quiet.
    pub fn at_rest(&self) -> Check {
        if let Some((address, lessee)) = self.frees.first_key_value().filter(|_| self.dead.is_empty()) {
            return Err(format!("the block at {address} was dropped, but {lessee} never heard of it"));
        }
        for (index, lock) in self.locks.iter().enumerate() {
            if let Some(holder) = lock.holder {
                return Err(format!("lock {index} is still held by {holder:?}"));
            }
        }
        Ok(())
    }
}
