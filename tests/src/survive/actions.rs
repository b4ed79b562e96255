//! Carries out the actions of a machine, as the engine of a real node does; and checks that each is possible.

use super::Check;
use super::mutant::Mutant;
use super::node::{Frame, State, slot};
use super::plan::WORDS;
use super::world::{Happening, World};
use dsm_core::failpoint::{Moment, change};
use dsm_core::{Access, Action, Message, NodeId, PageId, Payload, Progress, Replication, Source};

/// What is in a frame that was used for something else.
const RUBBISH: Frame = [u64::MAX; WORDS];

/// How long the answer to a residency probe may take.
const PROBE_NS_MAX: u64 = 2_000;

impl World {
    pub(super) fn carry_out(&mut self, node: NodeId, action: Action) -> Check {
        if let Some(name) = change(&action) {
            self.come_to(node, Moment::Change, name);
        }
        match action {
            Action::Protect { page, access } => {
                let emptied = self.is_emptied(node);
                let mapped = &mut self.node(node).access[slot(page)];
                if emptied {
                    *mapped = access.min(*mapped);
                    return Ok(());
                }
                if *mapped <= access {
                    return Err(format!("{node} protects {page} to {access:?}, but it is mapped {mapped:?}"));
                }
                *mapped = access;
            }
            Action::Install { page, access, payload } => self.map(node, page, access, payload)?,
            Action::Refresh { page, access } if self.is_emptied(node) => {
                self.node(node).access[slot(page)] = access;
                self.wake(node, page);
            }
            Action::Refresh { page, access } => {
                if self.node(node).access[slot(page)] != access {
                    return Err(format!("{node} refreshes {page} as {access:?}, which it is not"));
                }
                self.wake(node, page);
            }
            Action::Send { to, message } | Action::SendLazily { to, message } => {
                self.send(node, to, message, None)
            }
            Action::Flush { .. } => {}
            Action::SendPage { to, page, message } => {
                let frame = self.node(node).frames[slot(page)];
                let frozen = matches!(message, Message::Grant { custody: Some(_), .. });
                self.send(node, to, message, Some(frame));
                if frozen && self.mutant == Some(Mutant::ReusesFrozenFrames) {
                    self.node(node).frames[slot(page)] = RUBBISH;
                }
            }
            Action::Replicate(what) => self.replicate(node, what)?,
            Action::SetTimer { timer, at } => {
                let state = self.node(node);
                state.timers_set += 1;
                let generation = state.timers_set;
                state.timers.insert(timer, generation);
                self.schedule(at, Happening::Timer(node, timer, generation));
            }
            Action::ProbeResidency { page } => {
                let at = self.after(PROBE_NS_MAX);
                let waits = self.node(node).threads.iter().any(|thread| thread.state == State::Ready);
                let progress =
                    if waits && self.rng.chance(300) { Progress::Waiting } else { Progress::Retired };
                self.schedule(at, Happening::Probed(node, page, progress));
            }
            Action::Complete { call, reply } => self.answered(node, call, reply)?,
            Action::Doom { page, .. } => return Err(format!("{node} gives up {page}")),
            Action::Freed { .. } => return Err(format!("{node} frees what nobody dropped")),
            Action::Reject { from, cause } => {
                return Err(format!("{node} rejects what {from} said: {cause}"));
            }
        }
        Ok(())
    }

    fn replicate(&mut self, node: NodeId, what: Replication) -> Check {
        match what {
            Replication::SendCopy { to, page, source, message } => {
                self.copy_is_possible(node, page, source)?;
                let frame = match source {
                    Source::Twin if self.mutant == Some(Mutant::KeepsNoTwins) => {
                        self.node(node).frames[slot(page)]
                    }
                    Source::Frame => self.node(node).frames[slot(page)],
                    Source::Twin => self.node(node).twins[&page],
                };
                for buddy in to.iter() {
                    self.send(node, buddy, message.clone(), Some(frame));
                }
            }
            Replication::KeepTwin { page } => {
                let frame = self.node(node).frames[slot(page)];
                if self.node(node).access[slot(page)] == Access::Write {
                    return Err(format!("{node} sets {page} aside while threads may store to it"));
                }
                let frame = self.node(node).aside.get(&page).copied().unwrap_or(frame);
                self.node(node).twins.insert(page, frame);
            }
            Replication::DropTwin { page } => {
                self.node(node).twins.remove(&page);
            }
            Replication::ApplyRecord { from, record, pages } => self.apply(node, (from, record), &pages)?,
            Replication::DropRecords => {
                self.node(node).records.clear();
                self.node(node).aside.clear();
                self.node(node).through.clear();
            }
            Replication::Discard { page } => {
                if self.node(node).access[slot(page)] != Access::None {
                    return Err(format!("{node} discards {page}, which is mapped"));
                }
                self.node(node).frames[slot(page)] = RUBBISH;
            }
            Replication::Poison { first, pages, lost } => {
                for page in (first.0..first.0 + pages).map(PageId) {
                    self.node(node).access[slot(page)] = Access::None;
                }
                self.poison(node, (first, pages), lost)?;
            }
            Replication::Resumed { .. } => self.resumed(node)?,
        }
        Ok(())
    }

    fn copy_is_possible(&mut self, node: NodeId, page: PageId, source: Source) -> Check {
        match source {
            Source::Frame if self.node(node).access[slot(page)] == Access::Write => {
                Err(format!("{node} copies {page} while threads may store to it"))
            }
            Source::Twin if !self.node(node).twins.contains_key(&page) => {
                Err(format!("{node} has no twin of {page}"))
            }
            Source::Frame | Source::Twin => Ok(()),
        }
    }

    fn map(&mut self, node: NodeId, page: PageId, access: Access, payload: Payload) -> Check {
        let (emptied, held) = (self.is_emptied(node), self.is_held(node));
        let state = self.node(node);
        let mapped = state.access[slot(page)];
        let fits = match payload {
            Payload::Bytes | Payload::Zero => mapped == Access::None && access != Access::None,
            Payload::Held => (mapped == Access::Read || emptied) && access == Access::Write,
        };
        if !fits || state.poisoned[slot(page)] {
            return Err(format!("{node} installs {page} as {access:?} with {payload:?} over {mapped:?}"));
        }
        match payload {
            Payload::Zero => state.frames[slot(page)] = [0; WORDS],
            Payload::Bytes => {
                if let Some(frame) = state.aside.remove(&page) {
                    state.frames[slot(page)] = frame;
                }
            }
            Payload::Held => {}
        }
        if held {
            // Nobody may touch it now; who waits for it asks again.
            self.map_later(node, page, access);
            return Ok(());
        }
        state.access[slot(page)] = access;
        self.wake(node, page);
        Ok(())
    }

    fn apply(&mut self, node: NodeId, of: (NodeId, dsm_core::RecordId), pages: &[PageId]) -> Check {
        self.counts.records += 1;
        let state = self.node(node);
        let bytes = state.records.remove(&of).unwrap_or_default();
        for page in pages {
            let Some(frame) = bytes.get(page) else {
                return Err(format!("{node} applies {page} of {of:?}, whose bytes never came"));
            };
            if state.access[slot(*page)] != Access::None {
                return Err(format!("{node} applies {page} of {of:?}, which it has mapped"));
            }
            state.frames[slot(*page)] = *frame;
        }
        state.through.insert(of.0, of.1);
        Ok(())
    }
}
