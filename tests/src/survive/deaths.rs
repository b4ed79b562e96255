//! Crashes, and the views that follow from them: agreed on at once here, and installed by each member when it hears.

use super::Check;
use super::node::{SimNode, slot};
use super::world::{Happening, World};
use dsm_core::{Copyset, Event, NodeId, PageId, View};

/// What was said last by a node that dies may still arrive for so long.
const ECHO_NS_MAX: u64 = 2_000_000;

/// Members hear of a view within this time of each other.
const SPREAD_NS_MAX: u64 = 500_000;

impl World {
    /// A node is no more: its threads, its memory, and any part of what it has said.
    pub(super) fn kill(&mut self, node: NodeId) {
        if std::mem::replace(&mut self.node(node).dead, true) {
            return;
        }
        self.trace.note(self.now, node, || "killed".to_owned());
        self.counts.deaths += 1;
        self.oracle.died(node);
        for other in self.plan.view.members().iter() {
            let at = if self.rng.chance(500) { self.now } else { self.after(ECHO_NS_MAX) };
            self.cut.insert((node, other), at);
        }
        let at = self.after(self.plan.notice);
        self.schedule(at, Happening::Agreed);
    }

    /// The members agree on a view without those that are dead by now.
    pub(super) fn agree(&mut self) {
        let dead: Copyset = self.view.members().iter().filter(|node| self.nodes[node.index()].dead).collect();
        if dead.is_empty() || dead == self.view.members() {
            return;
        }
        self.view = self.view.next(dead, []);
        self.counts.views += 1;
        for node in self.view.members().iter() {
            let mut at = self.after(SPREAD_NS_MAX);
            // A member hears of views in their order.
            let latest = self.latest.entry((node, node)).or_insert(at);
            at = at.max(*latest + std::time::Duration::from_nanos(1));
            *latest = at;
            let view = self.view.clone();
            self.schedule(at, Happening::Installed(node, view));
        }
    }

    pub(super) fn install_view(&mut self, node: NodeId, view: View) -> Check {
        let id = view.id();
        self.feed(node, Event::ViewInstalled(view))?;
        let early = std::mem::take(&mut self.node(node).early);
        for (of, from, message) in early {
            if of == id {
                self.feed(node, Event::Received { from, message })?;
            } else if of > id {
                self.node(node).early.push((of, from, message));
            }
        }
        Ok(())
    }

    /// A node goes on in a view: all members have concluded, and nobody has stored anything since.
    pub(super) fn resumed(&mut self, node: NodeId) -> Check {
        let view = self.nodes[node.index()].machine.view().clone();
        if view.id() <= self.seen {
            return Ok(());
        }
        self.seen = view.id();
        self.counts.recoveries += 1;
        let members: Vec<NodeId> = view.members().iter().collect();
        let nodes = &self.nodes;
        let frame = |page: PageId| {
            let owns = |node: &&NodeId| nodes[node.index()].machine.owns(page);
            let mut owners = members.iter().filter(owns);
            let owner = owners.next()?;
            Some(nodes[owner.index()].frames[slot(page)])
        };
        for page in self.plan.plain.iter().chain(self.plan.domains.iter().flat_map(|domain| &domain.pages)) {
            let owners = members.iter().filter(|node| nodes[node.index()].machine.owns(*page)).count();
            if owners > 1 {
                return Err(format!("{page} has {owners} owners after {}", view.id()));
            }
        }
        self.oracle.recovered(&self.plan.plain, frame)
    }

    /// A page is lost. That may be only where some node died together with all of its buddies, and nobody has it.
    pub(super) fn poison(&mut self, node: NodeId, first: PageId, pages: u64) -> Check {
        for page in (first.0..first.0 + pages).map(PageId) {
            self.node(node).poisoned[slot(page)] = true;
            let holds = |other: &SimNode| !other.dead && other.machine.owns(page);
            if self.nodes.iter().any(holds) {
                return Err(format!("{node} takes {page} for lost, which has a live owner"));
            }
            let survives = self.plan.view.replicas() as usize;
            let dead = self.nodes.iter().filter(|node| node.dead).count();
            if dead <= survives {
                return Err(format!(
                    "{page} is lost with {dead} deaths, though {survives} are to be survived"
                ));
            }
            self.counts.lost += 1;
            self.oracle.lost(page);
            self.wake_lost(node, page);
        }
        Ok(())
    }
}
