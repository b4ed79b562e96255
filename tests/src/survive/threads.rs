//! The virtual threads: one instruction or call at a time, each tried again after its fault is resolved.

use super::Check;
use super::mutant::Mutant;
use super::node::{State, slot};
use super::plan::{Domain, Step, Trigger};
use super::world::{Happening, World};
use dsm_core::{Access, CallId, Command, Event, NodeId, PageId, Reply, SpanOwner, SpanRange, Want};

/// The word of a domain's pages that its sections count in.
pub(super) const COUNTER: usize = 0;

/// From a fault to the engine's hearing of it.
const REPORT_NS_MAX: u64 = 5_000;

impl World {
    pub(super) fn resume(&mut self, node: NodeId, index: usize) {
        self.node(node).threads[index].state = State::Ready;
        let at = self.after(self.plan.think);
        self.schedule(at, Happening::Step(node, index));
    }

    pub(super) fn step(&mut self, node: NodeId, index: usize) -> Check {
        if self.node(node).dead || self.node(node).threads[index].state != State::Ready {
            return Ok(());
        }
        let Some(&step) = self.node(node).threads[index].program.front() else {
            self.node(node).threads[index].state = State::Done;
            return Ok(());
        };
        if self.is_out(node) {
            return self.step_outside(node, index, step);
        }
        match step {
            Step::Load(page, word) => {
                if self.can(node, index, page, Want::Read)? {
                    let value = self.node(node).frames[slot(page)][word];
                    self.oracle.loaded(self.life(node), page, word, value)?;
                    self.retire(node, index);
                }
                Ok(())
            }
            Step::Store(page, word) => {
                if self.can(node, index, page, Want::Write)? {
                    let value = self.oracle.store(self.life(node), page, word);
                    self.counts.stores += 1;
                    self.trace.note(self.now, node, || format!("stores {value} to word {word} of {page}"));
                    self.node(node).frames[slot(page)][word] = value;
                    self.retire(node, index);
                }
                Ok(())
            }
            Step::Look(domain) => self.look(node, index, domain),
            Step::Count(domain, which) => self.count(node, index, domain, which),
            Step::Lock(domain) => {
                let lock = self.plan.domains[domain].lock;
                self.ask(node, index, Command::Lock { lock, wait: true })
            }
            Step::Cover(domain) => {
                let Domain { lock, pages } = self.plan.domains[domain];
                let spans = vec![SpanRange { first: pages[1], pages: 1, owner: SpanOwner::Domain(lock.0) }];
                if self.mutant == Some(Mutant::CommitsOpenSections) {
                    self.retire(node, index);
                    return Ok(());
                }
                self.ask(node, index, Command::Cover { lock, spans })
            }
            Step::Unlock(domain) => self.unlock(node, index, domain),
            Step::Ensure(page) => self.ask(node, index, Command::Ensure { page }),
            Step::Sync => self.ask(node, index, Command::Sync),
            Step::Barrier => {
                self.oracle.arrived(self.life(node));
                self.arrive_early(node, self.oracle.passed(self.life(node)));
                self.ask(node, index, Command::Barrier)
            }
        }
    }

    fn look(&mut self, node: NodeId, index: usize, domain: usize) -> Check {
        let pages = self.plan.domains[domain].pages;
        for page in pages {
            if !self.can(node, index, page, Want::Read)? {
                return Ok(());
            }
        }
        let counts = pages.map(|page| self.nodes[node.index()].frames[slot(page)][COUNTER]);
        self.trace.note(self.now, node, || format!("finds {counts:?} in domain {domain}"));
        self.oracle.looked(domain, self.life(node), counts)?;
        self.node(node).threads[index].found = counts[0];
        self.retire(node, index);
        Ok(())
    }

    fn count(&mut self, node: NodeId, index: usize, domain: usize, which: usize) -> Check {
        let page = self.plan.domains[domain].pages[which];
        if self.can(node, index, page, Want::Write)? {
            let value = self.node(node).threads[index].found + 1;
            self.trace.note(self.now, node, || format!("counts {value} in {page} of domain {domain}"));
            self.node(node).frames[slot(page)][COUNTER] = value;
            self.does(node, Trigger::Counts);
            self.retire(node, index);
        }
        Ok(())
    }

    fn unlock(&mut self, node: NodeId, index: usize, domain: usize) -> Check {
        let thread = &mut self.node(node).threads[index];
        let count = thread.found + 1;
        let Some(acquired) = thread.acquired.take() else {
            return Err(format!("{node} releases domain {domain} without holding it"));
        };
        self.oracle.unlocked(domain, self.life(node), count);
        self.counts.sections += 1;
        let lock = self.plan.domains[domain].lock;
        let call = self.name(node);
        self.retire(node, index);
        self.unlock_early(node, lock, acquired);
        self.feed(node, Event::Command { call, command: Command::Unlock { lock, acquired } })
    }

    /// Whether the instruction at hand may touch the page; if not, its thread faults. A page that is lost ends the
    /// thread's program.
    pub(super) fn can(&mut self, node: NodeId, index: usize, page: PageId, want: Want) -> Check<bool> {
        if self.node(node).poisoned[slot(page)] {
            return self.give_up(node, index).map(|()| false);
        }
        let has = self.node(node).access[slot(page)];
        let enough = match want {
            Want::Read => has >= Access::Read,
            Want::Write => has == Access::Write,
        };
        if !enough {
            let now = self.now;
            let thread = &mut self.node(node).threads[index];
            (thread.state, thread.since) = (State::Faulted(page, want), now);
            self.trace.note(self.now, node, || format!("thread {index} faults on {page} ({want:?})"));
            let at = self.after(REPORT_NS_MAX);
            self.schedule(at, Happening::Fault(node, page, want));
        } else if self.is_held(node) {
            return Err(format!("{node} touches {page} ({want:?}) though it may not act"));
        }
        Ok(enough)
    }

    /// What the thread needs is lost. In a section, the process ends, as a real one does: what it has changed so far is
    /// undone. Else the thread only comes to the barriers from now on.
    fn give_up(&mut self, node: NodeId, index: usize) -> Check {
        let thread = &mut self.node(node).threads[index];
        if thread.acquired.is_some() {
            self.kill(node);
            return Ok(());
        }
        thread.program.retain(|step| *step == Step::Barrier);
        self.resume(node, index);
        Ok(())
    }

    pub(super) fn wake(&mut self, node: NodeId, page: PageId) {
        for index in 0..self.node(node).threads.len() {
            if matches!(self.node(node).threads[index].state, State::Faulted(awaited, _) if awaited == page) {
                self.resume(node, index);
            }
        }
    }

    pub(super) fn wake_lost(&mut self, node: NodeId, page: PageId) {
        self.wake(node, page);
    }

    pub(super) fn retire(&mut self, node: NodeId, index: usize) {
        self.counts.retired += 1;
        self.node(node).threads[index].program.pop_front();
        self.resume(node, index);
    }

    pub(super) fn name(&mut self, node: NodeId) -> CallId {
        let state = self.node(node);
        state.calls_made += 1;
        CallId(state.calls_made)
    }

    pub(super) fn ask(&mut self, node: NodeId, index: usize, command: Command) -> Check {
        let call = self.name(node);
        let state = self.node(node);
        state.calls.insert(call, index);
        state.threads[index].state = State::Calling(call);
        if command == Command::Sync {
            let (stores, sections) =
                (self.oracle.stores_of(self.life(node)), self.oracle.sections_of(self.life(node)));
            self.node(node).promises.insert(call, (stores, sections));
            if self.mutant == Some(Mutant::SyncsAtOnce) {
                return self.answered(node, call, Reply::Synced);
            }
        }
        self.feed(node, Event::Command { call, command })
    }

    pub(super) fn answered(&mut self, node: NodeId, call: CallId, reply: Reply) -> Check {
        if matches!(reply, Reply::Span(_)) {
            return Ok(());
        }
        if self.keeps_back(node, call, reply)? {
            return Ok(());
        }
        let Some(index) = self.node(node).calls.remove(&call) else {
            return Err(format!("{node} answers {call:?}, which waits for nothing: {reply:?}"));
        };
        let step = self.node(node).threads[index].program.front().copied();
        match (step, reply) {
            (Some(Step::Lock(domain)), Reply::Locked { recovered }) => {
                let home = self.life(self.home_of_domain(node, domain));
                let recovered = recovered.map(|rank| self.last_dead(rank));
                self.oracle.locked(domain, self.life(node), home, recovered)?;
                self.counts.inherited += u64::from(recovered.is_some());
                self.node(node).threads[index].acquired = Some(call);
                self.retire(node, index);
                self.node(node).threads[index].program.push_front(Step::Cover(domain));
                return Ok(());
            }
            (Some(Step::Cover(_)), Reply::Covered) => {}
            (Some(Step::Sync), Reply::Synced) => {
                if let Some((stores, sections)) = self.node(node).promises.remove(&call)
                    && self.plan.view.replicas() > 0
                {
                    self.oracle.synced(self.life(node), stores);
                    self.oracle.sections_synced(&sections);
                }
            }
            (Some(Step::Barrier), Reply::BarrierPassed { .. }) => {
                self.counts.barriers += 1;
                self.oracle.met(self.life(node));
            }
            (Some(Step::Lock(_) | Step::Ensure(_)), Reply::Lost(lost)) => {
                self.oracle.is_lost(lost.page)?;
                self.counts.refused += 1;
                return self.give_up(node, index);
            }
            (Some(Step::Ensure(page)), Reply::Ensured) => {
                if self.node(node).access[slot(page)] == Access::None && !self.is_emptied(node) {
                    return Err(format!("{node} has no {page}, which it is told to have"));
                }
                self.counts.ensured += 1;
            }
            (step, reply) => return Err(format!("{node} answers {step:?} with {reply:?}")),
        }
        self.retire(node, index);
        Ok(())
    }

    /// The home of a domain's lock, as `node` sees it.
    fn home_of_domain(&self, node: NodeId, domain: usize) -> NodeId {
        let members = self.nodes[node.index()].machine.view().members();
        self.plan.geometry.home_of(self.plan.domains[domain].pages[0], members)
    }
}
