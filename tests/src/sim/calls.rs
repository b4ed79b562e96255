//! The calls of virtual threads: locks, barriers, roots, spans, and the answers to them.

use super::Check;
use super::mutant::Mutant;
use super::node::{Call, CallKind, State, ThreadId};
use super::program::{Leaseholder, Operation, Patience};
use super::queue::Happening;
use super::world::World;
use dsm_core::{
    Address, CallId, Command, Event, LockId, Message, NodeId, PageId, Reply, RootAnswer, SpanOwner,
    SpanRange, Ticket,
};
use std::time::Duration;

/// How often creating a root fails, in a thousand.
const ABANDON_PERMILLE: u64 = 300;

/// Blocks in spans begin at multiples of this.
const BLOCK_ALIGN: u64 = 64;

pub(super) fn name_of(root: usize) -> String {
    format!("root-{root}")
}

impl World {
    /// Makes one call, or sends one notice that nobody answers.
    pub(super) fn call(&mut self, thread: ThreadId, operation: &Operation) -> Check {
        match *operation {
            Operation::Lock(lock, patience) => self.lock(thread, lock, patience),
            Operation::Unlock(lock) => self.unlock(thread, lock),
            Operation::Barrier => {
                self.oracle.barrier_entered(thread.node);
                self.ask(thread, CallKind::Barrier, Command::Barrier)
            }
            Operation::IntrudeBarrier => {
                let inside = |call: &Call| call.kind == CallKind::Barrier;
                if self.node(thread.node).calls.values().any(inside) {
                    return self.ask(thread, CallKind::Intrusion, Command::Barrier);
                }
                self.proceed(thread);
                Ok(())
            }
            Operation::Leave => {
                self.oracle.leave_called(thread.node);
                self.ask(thread, CallKind::Leave, Command::Leave)
            }
            Operation::Claim(root, layout) => {
                let claim = Command::RootClaim { name: name_of(root), layout };
                self.ask(thread, CallKind::Claim(root, layout), claim)
            }
            Operation::Publish(root) => {
                let address = Address(self.plan.geometry.base().0 + BLOCK_ALIGN * (1 + root as u64));
                self.oracle.root_created(root, Some(address));
                self.tell(thread, Command::RootPublish { name: name_of(root), address })
            }
            Operation::Abandon(root) => {
                self.oracle.root_created(root, None);
                self.tell(thread, Command::RootAbandon { name: name_of(root) })
            }
            Operation::Lease(pages, holder) => {
                let (owner, domain) = match holder {
                    Leaseholder::Heap => (SpanOwner::Node(thread.node), false),
                    Leaseholder::Domain => (SpanOwner::NewDomain, true),
                };
                self.ask(thread, CallKind::Lease(pages, domain), Command::SpanLease { pages, owner })
            }
            Operation::Return => self.give_back(thread),
            Operation::Find => self.find(thread),
            Operation::Free => self.free(thread),
            Operation::Load(_)
            | Operation::Store(_)
            | Operation::Swap(_)
            | Operation::CompareExchange(_)
            | Operation::Ask(..)
            | Operation::Increment(_)
            | Operation::FinishIncrement(_)
            | Operation::Straddle(..)
            | Operation::LoadGuarded(_)
            | Operation::StoreGuarded(_) => Err(format!("{operation:?} is no call")),
        }
    }

    /// Makes a call that is answered.
    fn ask(&mut self, thread: ThreadId, kind: CallKind, command: Command) -> Check {
        let call = self.node(thread.node).call(thread, kind);
        self.thread(thread).state = State::Calling(call);
        self.feed(thread.node, Event::Command { call, command })
    }

    /// Sends a notice that is not answered, and goes on.
    fn tell(&mut self, thread: ThreadId, command: Command) -> Check {
        let node = self.node(thread.node);
        node.calls_made += 1;
        let call = CallId(node.calls_made);
        self.proceed(thread);
        self.feed(thread.node, Event::Command { call, command })
    }

    fn lock(&mut self, thread: ThreadId, index: usize, patience: Patience) -> Check {
        let lock = self.plan.locks[index].lock;
        let node = thread.node;
        let call = self.node(node).call(thread, CallKind::Lock(index));
        let now = self.now;
        let this = self.thread(thread);
        this.state = State::Calling(call);
        this.entered = now;
        let wait = patience != Patience::None;
        if wait && self.plan.home_of(lock) == Some(node) {
            self.oracle.lock_queued(index, Ticket { node, call });
        }
        if let Patience::Until(nanos) = patience {
            let at = self.now + Duration::from_nanos(nanos);
            self.queue.schedule(at, Happening::Impatient { node, lock, waiting: call });
        }
        self.feed(node, Event::Command { call, command: Command::Lock { lock, wait } })
    }

    /// A call waited for its lock long enough: it withdraws, unless it was answered meanwhile.
    pub(super) fn lose_patience(&mut self, node: NodeId, lock: LockId, waiting: CallId) -> Check {
        if self.node(node).dead || !self.node(node).calls.contains_key(&waiting) {
            return Ok(());
        }
        let ticket = Ticket { node, call: waiting };
        if let (Some(index), true) = (self.plan.index_of(lock), self.plan.home_of(lock) == Some(node)) {
            self.oracle.lock_withdrawn(index, ticket);
        }
        let state = self.node(node);
        state.calls_made += 1;
        let call = CallId(state.calls_made);
        self.feed(node, Event::Command { call, command: Command::LockWithdraw { lock, waiting } })
    }

    /// What the oracle learns from a message that is about to reach a lock's home.
    pub(super) fn observe(&mut self, at: NodeId, message: &Message) {
        let (Message::LockRequest { lock, ticket, wait: true } | Message::LockWithdraw { lock, ticket }) =
            *message
        else {
            return;
        };
        let Some(index) = self.plan.index_of(lock).filter(|_| self.plan.home_of(lock) == Some(at)) else {
            return;
        };
        if matches!(message, Message::LockWithdraw { .. }) {
            self.oracle.lock_withdrawn(index, ticket);
        } else {
            self.oracle.lock_queued(index, ticket);
        }
    }

    fn unlock(&mut self, thread: ThreadId, index: usize) -> Check {
        let lock = self.plan.locks[index].lock;
        let Some(acquired) = self.thread(thread).acquired.take() else {
            return Err(format!("{thread:?} releases lock {index} without holding it"));
        };
        self.oracle.lock_released(index);
        self.tell(thread, Command::Unlock { lock, acquired })
    }

    fn give_back(&mut self, thread: ThreadId) -> Check {
        let busy = |span: &SpanRange| self.oracle.span_is_busy(&self.plan, span);
        let span = self.nodes[thread.node.index()].threads[thread.index].leases.last().copied();
        match span.filter(|span| !busy(span)) {
            Some(span) => {
                self.thread(thread).leases.pop();
                self.oracle.span_returned(span.first);
                self.tell(thread, Command::SpanReturn { first: span.first })
            }
            None => {
                self.proceed(thread);
                Ok(())
            }
        }
    }

    fn find(&mut self, thread: ThreadId) -> Check {
        let Some(&span) = self.thread(thread).leases.last() else {
            self.proceed(thread);
            return Ok(());
        };
        let page = PageId(span.first.0 + self.rng.below(span.pages));
        self.ask(thread, CallKind::Find(span), Command::SpanFind { page })
    }

    fn free(&mut self, thread: ThreadId) -> Check {
        let heaps = self.oracle.heaps_of_others(thread.node);
        if heaps.is_empty() {
            self.proceed(thread);
            return Ok(());
        }
        let leased = *self.rng.pick(&heaps);
        let blocks = leased.span.pages * self.plan.geometry.page_size() / BLOCK_ALIGN;
        let first = self.plan.geometry.address_of(leased.span.first);
        let address = Address(first.0 + BLOCK_ALIGN * self.rng.below(blocks));
        if !self.oracle.free_sent(address, leased.lessee) {
            self.proceed(thread);
            return Ok(());
        }
        self.tell(thread, Command::Free { address })
    }

    /// A call was answered.
    pub(super) fn answered(&mut self, node: NodeId, id: CallId, reply: Reply) -> Check {
        let Some(call) = self.node(node).calls.remove(&id) else {
            return Err(format!("{node} answers {id:?}, which waits for nothing: {reply:?}"));
        };
        let thread = call.thread;
        let ticket = Ticket { node, call: id };
        match (call.kind, reply) {
            (_, Reply::PeerLost { node: lost }) if !self.nodes[lost.index()].dead => {
                return Err(format!("{node} answers {call:?} with the loss of {lost}, which lives"));
            }
            (CallKind::Lock(lock), Reply::PeerLost { .. }) => self.denied(thread, lock, ticket),
            (_, Reply::PeerLost { .. }) => {}
            (CallKind::Lock(lock), Reply::Locked { .. }) => {
                let granted = self.oracle.lock_granted(lock, ticket, thread);
                self.judge(granted)?;
                self.thread(thread).acquired = Some(id);
            }
            (CallKind::Lock(lock), Reply::LockDenied { .. }) => {
                if self.mutant == Some(Mutant::GrantsDeniedLocks) {
                    let granted = self.oracle.lock_granted(lock, ticket, thread);
                    self.judge(granted)?;
                    self.thread(thread).acquired = Some(id);
                } else {
                    self.denied(thread, lock, ticket);
                }
            }
            (CallKind::Barrier, Reply::BarrierPassed { .. }) => self.oracle.barrier_passed(node)?,
            (CallKind::Intrusion, Reply::Busy) => {}
            (CallKind::Leave, Reply::Left) => self.oracle.left(node)?,
            (CallKind::Claim(root, layout), Reply::Root(answer)) => {
                self.root_answered(thread, root, layout, answer)?;
            }
            (CallKind::Lease(pages, domain), Reply::Span(span)) => {
                self.span_leased(thread, pages, domain, span)?;
            }
            (CallKind::Lease(pages, _), Reply::SpanDenied { free, largest }) => {
                if largest >= pages || largest > free {
                    return Err(format!("{pages} pages were denied with {free} free, {largest} in a row"));
                }
            }
            (CallKind::Find(expected), Reply::SpanFound(Some(found))) if found == expected => {}
            (kind, reply) => return Err(format!("{node} answers {kind:?} with {reply:?}")),
        }
        self.resume(thread);
        Ok(())
    }

    /// The lock is not to be had: everything that needs it is skipped.
    fn denied(&mut self, thread: ThreadId, lock: usize, ticket: Ticket) {
        self.oracle.lock_denied(lock, ticket);
        let program = &mut self.thread(thread).program;
        while let Some(skipped) = program.pop_front() {
            if skipped == Operation::Unlock(lock) {
                break;
            }
        }
    }

    fn root_answered(&mut self, thread: ThreadId, root: usize, layout: u64, answer: RootAnswer) -> Check {
        if self.oracle.root_answered(root, layout, answer, thread)? {
            let fails = self.rng.chance(ABANDON_PERMILLE);
            let next = if fails { Operation::Abandon(root) } else { Operation::Publish(root) };
            self.thread(thread).program.push_front(next);
        }
        Ok(())
    }

    fn span_leased(&mut self, thread: ThreadId, pages: u64, domain: bool, span: SpanRange) -> Check {
        let geometry = &self.plan.geometry;
        let owner = if domain {
            SpanOwner::Domain(geometry.address_of(span.first))
        } else {
            SpanOwner::Node(thread.node)
        };
        let inside = span.first.0 + span.pages <= geometry.pages();
        if span.pages != pages || span.owner != owner || !inside {
            return Err(format!("{thread:?} asked for {pages} pages of {owner:?}, and got {span:?}"));
        }
        self.oracle.span_leased(span, thread.node)?;
        self.thread(thread).leases.push(span);
        Ok(())
    }
}
