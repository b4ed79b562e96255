//! Carries out the actions of a machine on its node's page table, frames, connections and threads, as the engine of a
//! real node does; and checks that the machine wants nothing impossible.

use super::mutant::Mutant;
use super::node::{Body, State, ThreadId, slot};
use super::plan::WORDS;
use super::queue::Happening;
use super::world::World;
use super::{Check, Checks};
use dsm_core::{Access, Action, Message, NodeId, PageId, Payload, Progress, Time, Timer};
use std::time::Duration;

/// No fault takes longer than this: on one page, every other node may be ahead in the queue, and each may keep the page
/// for the longest residency there is. The longest of the first 100,000 seeds takes 0.18 s.
const FAULT_NS_MAX: u64 = 1_000_000_000;

/// A timer fires late by up to this.
const TIMER_LATE_NS_MAX: u64 = 50_000;

/// How long the answer to a residency probe may take.
const PROBE_NS_MAX: u64 = 2_000;

/// How often a mutant that loses wakes does so, in a thousand.
const LOST_WAKES_PERMILLE: u64 = 20;

impl World {
    /// Carries out one action of `node`.
    pub(super) fn carry_out(&mut self, node: NodeId, action: Action) -> Check {
        if self.is_hostile(node) {
            return self.carry_out_hostile(node, action);
        }
        match action {
            Action::Protect { page, access } => self.protect(node, page, access),
            Action::Install { page, access, payload } => self.install(node, page, access, payload),
            Action::Refresh { page, access } => {
                if self.believes_page_tables() && self.node(node).access(page) != access {
                    let mapped = self.node(node).access(page);
                    return Err(format!(
                        "{node} refreshes {page} as {access:?}, but it is mapped {mapped:?}"
                    ));
                }
                self.wake(node, page)
            }
            Action::Send { to, message } => {
                let carries = matches!(message, Message::Grant { payload: Payload::Bytes, .. });
                if to == node || !self.plan.members.contains(to) || carries {
                    return Err(format!("{node} cannot send this to {to}: {message:?}"));
                }
                self.transmit(node, to, message, None);
                Ok(())
            }
            Action::SendLazily { to, message } => {
                let confirms = matches!(message, Message::Confirm { .. });
                if to == node || !self.plan.members.contains(to) || !confirms {
                    return Err(format!("{node} cannot hold this back for {to}: {message:?}"));
                }
                self.hold_back(node, to, message);
                Ok(())
            }
            Action::Flush { to } => {
                self.release(node, to);
                Ok(())
            }
            Action::SendPage { to, page, message } => self.send_page(node, to, page, message),
            Action::SetTimer { timer, at } => {
                self.set_timer(node, timer, at);
                Ok(())
            }
            Action::ProbeResidency { page } => {
                let progress = self.progress(node, page);
                let at = self.now + Duration::from_nanos(self.rng.below(PROBE_NS_MAX));
                self.queue.schedule(at, Happening::Probed { node, page, progress });
                Ok(())
            }
            Action::Complete { call, reply } => self.answered(node, call, reply),
            Action::Doom { page, node: lost } => {
                if !self.nodes[lost.index()].dead {
                    return Err(format!("{node} ends for {page}, lost with {lost}, which lives"));
                }
                self.kill(node);
                Ok(())
            }
            Action::Freed { address } => self.oracle.freed(address, node),
            Action::Reject { from, .. } if self.is_hostile(from) => {
                self.counts.refused += 1;
                Ok(())
            }
            Action::Reject { from, cause } => Err(format!("{node} rejects what {from} said: {cause}")),
            Action::Replicate(_) => {
                Err(format!("{node} replicates, though nobody is to keep anything: {action:?}"))
            }
        }
    }

    /// Whether page tables are held against what the machine believes: not where a mutant lies about just them.
    pub(super) fn believes_page_tables(&self) -> bool {
        self.checks != Checks::History && !self.mutant.is_some_and(Mutant::is_about_page_tables)
    }

    fn protect(&mut self, node: NodeId, page: PageId, access: Access) -> Check {
        let remains = match (self.mutant, access) {
            (Some(Mutant::ForgetsProtect), _) => return Ok(()),
            (Some(Mutant::KeepsReadMapping), Access::None) => Access::Read,
            (Some(Mutant::KeepsWriteMapping), Access::Read) => Access::Write,
            (_, access) => access,
        };
        let honest = self.believes_page_tables();
        let mapped = &mut self.node(node).access[slot(page)];
        if *mapped <= access && honest {
            return Err(format!("{node} protects {page} to {access:?}, but it is mapped {mapped:?}"));
        }
        *mapped = remains;
        Ok(())
    }

    fn install(&mut self, node: NodeId, page: PageId, access: Access, payload: Payload) -> Check {
        let lies = self.mutant == Some(Mutant::MapsReadsWritable);
        let honest = self.believes_page_tables();
        let state = self.node(node);
        let mapped = state.access(page);
        let fits = match payload {
            Payload::Bytes | Payload::Zero => mapped == Access::None && access != Access::None,
            Payload::Held => mapped == Access::Read && access == Access::Write,
        };
        if honest && !fits {
            return Err(format!("{node} installs {page} as {access:?} with {payload:?} over {mapped:?}"));
        }
        match payload {
            Payload::Zero => state.frames[slot(page)] = [0; WORDS],
            Payload::Bytes | Payload::Held => {}
        }
        state.access[slot(page)] = if lies { Access::Write } else { access };
        self.counts.hand_offs += u64::from(access == Access::Write);
        self.wake(node, page)
    }

    fn send_page(&mut self, node: NodeId, to: NodeId, page: PageId, message: Message) -> Check {
        let carries =
            matches!(message, Message::Grant { page: named, payload: Payload::Bytes, .. } if named == page);
        if to == node || !self.plan.members.contains(to) || !carries {
            return Err(format!("{node} cannot send {page} to {to}: {message:?}"));
        }
        let state = self.node(node);
        let held = state.frames[slot(page)];
        let before = state.sent.insert(page, held).unwrap_or_default();
        let frame = if self.mutant == Some(Mutant::StaleBody) { before } else { held };
        if self.mutant == Some(Mutant::ReusesSentFrame) {
            self.node(node).frames[slot(page)] = [u64::MAX; WORDS];
        }
        self.transmit(node, to, message, Some(Body { page, frame }));
        Ok(())
    }

    /// How far the instructions are for which the page was mapped: what a real engine learns from its threads' states.
    fn progress(&self, node: NodeId, page: PageId) -> Progress {
        if self.mutant == Some(Mutant::NoResidency) {
            return Progress::Retired;
        }
        let node = &self.nodes[node.index()];
        let unretired = node.unretired[slot(page)];
        let mut progress = Progress::Retired;
        for (_, thread) in node.threads.iter().enumerate().filter(|(index, _)| unretired & (1 << index) != 0)
        {
            progress = match (thread.state, progress) {
                // A thread that waits for a core may finish the moment it has one: it comes before all others.
                (State::Ready, _) => return Progress::Waiting,
                (State::Faulted { page: awaits, .. }, Progress::Straddling { awaits: highest }) => {
                    Progress::Straddling { awaits: highest.max(awaits) }
                }
                (State::Faulted { page: awaits, .. }, _) => Progress::Straddling { awaits },
                (State::Calling(_) | State::Done, so_far) => so_far,
            };
        }
        progress
    }

    fn set_timer(&mut self, node: NodeId, timer: Timer, at: Time) {
        let state = self.node(node);
        state.timers_set += 1;
        let generation = state.timers_set;
        state.timers.insert(timer, generation);
        let late = Duration::from_nanos(self.rng.below(TIMER_LATE_NS_MAX));
        let at = at.max(self.now) + late;
        self.queue.schedule(at, Happening::TimerDue { node, timer, generation });
    }

    /// Wakes every thread of the node that waits for the page. Each tries its instruction again.
    fn wake(&mut self, node: NodeId, page: PageId) -> Check {
        for index in 0..self.node(node).threads.len() {
            let State::Faulted { page: awaited, want, since } = self.node(node).threads[index].state else {
                continue;
            };
            if awaited != page {
                continue;
            }
            if self.mutant == Some(Mutant::LosesWake) && self.rng.chance(LOST_WAKES_PERMILLE) {
                continue;
            }
            let waited = u64::try_from(self.now.since(since).as_nanos()).unwrap_or(u64::MAX);
            self.counts.fault_ns_max = self.counts.fault_ns_max.max(waited);
            if waited > FAULT_NS_MAX {
                return Err(format!("thread {node}.{index} waited {waited} ns for {page} ({want:?})"));
            }
            self.node(node).unretired[slot(page)] |= 1 << index;
            self.resume(ThreadId { node, index });
        }
        Ok(())
    }
}
