//! When a node may act, and what it puts off while it may not.

use super::mutant::Mutant;
use super::state::Postponed;
use crate::survive::Check;
use crate::survive::network::Said;
use crate::survive::world::{Happening, World};
use dsm_core::membership::Fact;
use dsm_core::{Access, CallId, Event, NodeId, PageId, Reply, Want};

impl World {
    /// Whether nothing may leave this node, and nobody may touch its pages.
    pub(in crate::survive) fn is_held(&self, node: NodeId) -> bool {
        let driver = |cluster: &super::Cluster| {
            cluster.drivers[node.index()].held && !cluster.has(Mutant::IgnoresFreeze)
        };
        self.cluster.as_deref().is_some_and(driver)
    }

    /// Whether pages of this node may be mapped with less than its machine allows.
    pub(in crate::survive) fn is_emptied(&self, node: NodeId) -> bool {
        self.cluster.as_deref().is_some_and(|cluster| cluster.drivers[node.index()].emptied)
    }

    /// Whether somebody has installed a view without this node.
    pub(in crate::survive) fn is_out(&self, node: NodeId) -> bool {
        self.cluster.as_deref().is_some_and(|cluster| cluster.drivers[node.index()].out)
    }

    /// Whether the node's driver would let something leave now.
    pub(super) fn holds_lease(&self, node: NodeId) -> bool {
        let Some(cluster) = &self.cluster else { return true };
        let process = &cluster.processes[node.index()];
        process.membership.holds_lease(process.clock.shows(self.now.as_nanos()))
    }

    /// The event, if the node is to deal with it now.
    pub(in crate::survive) fn put_off(&mut self, node: NodeId, event: Event) -> Option<Event> {
        if self.nodes[node.index()].dead {
            return None;
        }
        if !self.is_held(node) {
            return Some(event);
        }
        let is_fault = matches!(event, Event::Fault { .. });
        if !is_fault || !self.is_mutant(Mutant::DropsFaults) {
            self.put_aside(node, Postponed::Wanted(event));
        }
        None
    }

    /// A message waits for its view, or for a lease.
    pub(in crate::survive) fn postpone(&mut self, said: Said) {
        let early = said.view > self.nodes[said.to.index()].installed;
        let lost = self.is_mutant(Mutant::DropsWhatComes) && self.is_held(said.to)
            || self.is_mutant(Mutant::DropsEarly) && early;
        if !lost {
            self.put_aside(said.to, Postponed::Heard(said));
        }
    }

    /// A page was to be mapped while nobody may touch it: who waits for it asks again.
    pub(in crate::survive) fn map_later(&mut self, node: NodeId, page: PageId, access: Access) {
        let want = if access == Access::Write { Want::Write } else { Want::Read };
        self.put_aside(node, Postponed::Wanted(Event::Fault { page, want }));
    }

    fn put_aside(&mut self, node: NodeId, what: Postponed) {
        if let Some(cluster) = &mut self.cluster {
            cluster.tally.postponed += 1;
            cluster.drivers[node.index()].postponed.push_back(what);
        }
    }

    /// Whether the answer to a call has to wait: on the strength of it a thread would go on.
    pub(in crate::survive) fn keeps_back(&mut self, node: NodeId, call: CallId, reply: Reply) -> Check<bool> {
        if self.cluster.is_none() {
            return Ok(false);
        }
        if !self.is_held(node) {
            if self.holds_lease(node) || self.is_mutant(Mutant::AnswersWithoutLease) {
                if self.is_out(node) {
                    let newest = self.view.id();
                    return Err(format!(
                        "{node} answers {call:?} with {reply:?} though it is not in {newest}"
                    ));
                }
                return Ok(false);
            }
            self.hold(node);
        }
        if !self.is_mutant(Mutant::DropsAnswers) {
            self.put_aside(node, Postponed::Answered(call, reply));
        }
        Ok(true)
    }

    /// The lease is over, which nobody has noticed before: from now on nothing leaves. The membership is told at once.
    pub(super) fn hold(&mut self, node: NodeId) {
        if let Some(cluster) = &mut self.cluster {
            cluster.tally.caught += 1;
        }
        self.freeze(node);
        let tick = super::Happening::Told(node.index(), Fact::Tick);
        self.schedule(self.now, Happening::Cluster(tick));
    }

    /// Nothing leaves this node any more, and its page table is emptied.
    pub(super) fn freeze(&mut self, node: NodeId) {
        let keeps = self.is_mutant(Mutant::KeepsMappings) || self.is_mutant(Mutant::IgnoresFreeze);
        let Some(cluster) = &mut self.cluster else { return };
        let driver = &mut cluster.drivers[node.index()];
        if driver.held {
            return;
        }
        driver.held = true;
        cluster.tally.frozen += 1;
        if !keeps {
            cluster.drivers[node.index()].emptied = true;
            self.node(node).access.fill(Access::None);
        }
    }

    /// Does what had been put off and can be done now; what cannot is put off again.
    pub(in crate::survive) fn catch_up(&mut self, node: NodeId) -> Check {
        let Some(cluster) = &mut self.cluster else { return Ok(()) };
        for postponed in core::mem::take(&mut cluster.drivers[node.index()].postponed) {
            match postponed {
                Postponed::Heard(mut said) => {
                    if self.is_mutant(Mutant::HearsPutOffOfOldViews) {
                        said.view = said.view.max(self.nodes[node.index()].installed);
                    }
                    if !self.nodes[node.index()].dead {
                        self.hear(said)?;
                    }
                }
                Postponed::Wanted(event) => self.feed(node, event)?,
                Postponed::Answered(call, reply) => self.answered(node, call, reply)?,
            }
        }
        Ok(())
    }

    /// What a node said when it had no lease reaches no member.
    pub(in crate::survive) fn is_fenced(&self, said: &Said) -> Check {
        if said.leased || self.is_out(said.to) {
            return Ok(());
        }
        let Said { from, to, view, message, .. } = said;
        Err(format!("{to} hears in {view} what {from} said without a lease: {message:?}"))
    }

    /// Whether what was sent in an earlier view is heard.
    pub(in crate::survive) fn hears_old_views(&self) -> bool {
        self.mutant == Some(crate::survive::Mutant::HearsOldViews) || self.is_mutant(Mutant::HearsOldViews)
    }

    /// Whether this run has that fault.
    pub(super) fn is_mutant(&self, mutant: Mutant) -> bool {
        self.cluster.as_deref().is_some_and(|cluster| cluster.has(mutant))
    }
}
