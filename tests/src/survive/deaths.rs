//! Crashes, and the views that follow from them: agreed on at once here, and installed by each member when it hears.

use super::Check;
use super::mutant::Mutant;
use super::node::{SimNode, slot};
use super::plan::{Trigger, WORDS, When};
use super::threads::COUNTER;
use super::world::{Happening, World};
use crate::membership_sim::End;
use dsm_core::{Commit, Copyset, Event, Message, NodeId, PageId, RecordId, View};
use std::collections::{BTreeMap, BTreeSet};

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
        for (index, domain) in self.plan.domains.iter().enumerate() {
            if self.oracle.holder(index) == Some(node) {
                self.lies.bequeathed.insert(domain.lock);
            }
        }
        self.oracle.died(node);
        for other in self.plan.view.members().iter() {
            let at = if self.rng.chance(500) { self.now } else { self.after(ECHO_NS_MAX) };
            self.network.cut(node, other, at);
        }
        if self.cluster.is_some() {
            self.ended(node.index(), End::Killed);
        } else {
            let at = self.after(self.plan.notice);
            self.schedule(at, Happening::Agreed);
        }
    }

    /// A node does something at which it may be meant to die.
    pub(super) fn does(&mut self, node: NodeId, what: Trigger) {
        let times = self.node(node).did.entry(what).or_default();
        *times += 1;
        let now = When::Nth(what, *times);
        if self.plan.deaths.contains(&(node, now)) {
            self.trace.note(self.now, node, || format!("is to die: {what:?}"));
            self.schedule(self.now, Happening::Killed(node));
        }
    }

    /// The members agree on a view without those that are dead by now.
    pub(super) fn agree(&mut self) {
        let dead: Copyset = self.view.members().iter().filter(|node| self.nodes[node.index()].dead).collect();
        if dead.is_empty() || dead == self.view.members() {
            return;
        }
        self.view = self.view.next(dead, []);
        self.views.push(self.view.clone());
        self.counts.views += 1;
        for node in self.view.members().iter() {
            let at = self.after(SPREAD_NS_MAX);
            // A member hears of views in their order.
            let at = self.network.in_order(node, node, at);
            let view = self.view.clone();
            self.schedule(at, Happening::Installed(node, view));
        }
    }

    pub(super) fn install_view(&mut self, node: NodeId, view: View) -> Check {
        let id = view.id();
        if self.mutant == Some(Mutant::CountsHalfRecords) {
            self.count_halves(node)?;
        }
        let view = if self.mutant == Some(Mutant::ReusesVersions) {
            let member = |node| view.member(node).map(|member| (node, member.incarnation, member.host));
            View::first(view.members().iter().filter_map(member), view.replicas())
        } else {
            view
        };
        self.node(node).installed = id;
        self.handle(node, Event::ViewInstalled(view))?;
        if self.cluster.is_some() {
            return self.catch_up(node);
        }
        let early = std::mem::take(&mut self.node(node).early);
        for said in early {
            if said.view > id {
                self.node(node).early.push(said);
            } else if said.view == id {
                self.feed(node, Event::Received { from: said.from, message: said.message })?;
            }
        }
        Ok(())
    }

    /// What has come of records of the dead is taken for whole.
    fn count_halves(&mut self, node: NodeId) -> Check {
        let state = &self.nodes[node.index()];
        let dead = state.records.iter().filter(|((from, _), _)| self.nodes[from.index()].dead);
        let begun: Vec<_> = dead.map(|(&(from, record), pages)| (from, record, pages.len())).collect();
        for (from, record, pages) in begun {
            let previous = self.node(node).through.get(&from).copied().unwrap_or(RecordId::NONE);
            let pages = u32::try_from(pages).unwrap_or(u32::MAX);
            let message = Message::Commit(Commit::End { record, previous, pages });
            self.feed(node, Event::Received { from, message })?;
        }
        Ok(())
    }

    /// A node goes on in a view: all members have concluded, and nobody has stored anything since.
    pub(super) fn resumed(&mut self, node: NodeId) -> Check {
        let view = self.nodes[node.index()].installed;
        self.node(node).serving = view;
        self.does(node, Trigger::Resumes);
        if view <= self.seen {
            return Ok(());
        }
        self.seen = view;
        self.counts.recoveries += 1;
        let members: Vec<NodeId> = self.nodes[node.index()].machine.view().members().iter().collect();
        let mut frames = BTreeMap::new();
        // Who dies between the conclusions and now is a member still, and what it left is the next view's business.
        let mut doomed = BTreeSet::new();
        let mut hidden = BTreeSet::new();
        for page in self.pages() {
            self.directory_is_right(page, &members)?;
            if let Some((owner, frame)) = self.owner_of(page, &members)? {
                frames.insert(page, frame);
                if self.nodes[owner.index()].dead || self.is_out(owner) {
                    doomed.insert(page);
                }
                if self.is_out(owner) {
                    hidden.insert(page);
                }
            }
        }
        let frame = |page: PageId| frames.get(&page).copied().unwrap_or([0; WORDS]);
        // One that lives and is out already may store what nobody will see.
        let plain: Vec<PageId> =
            self.plan.plain.iter().filter(|page| !hidden.contains(*page)).copied().collect();
        self.oracle.recovered(&plain, frame)?;
        for (index, domain) in self.plan.domains.iter().enumerate() {
            if domain.pages.iter().any(|page| doomed.contains(page)) {
                continue;
            }
            let counts = domain.pages.map(|page| frame(page)[COUNTER]);
            self.oracle.domain_recovered(index, domain.pages, counts)?;
        }
        Ok(())
    }

    /// A page is lost. That may be only where some node died together with all of its buddies, and nobody has it.
    pub(super) fn poison(&mut self, node: NodeId, first: PageId, pages: u64) -> Check {
        for page in (first.0..first.0 + pages).map(PageId) {
            self.node(node).poisoned[slot(page)] = true;
            let holds = |(other, rank): (&SimNode, u16)| {
                !other.dead && other.machine.owns(page) && !self.is_out(NodeId(rank))
            };
            if self.nodes.iter().zip(0..).any(holds) {
                return Err(format!("{node} takes {page} for lost, which has a live owner"));
            }
            let survives = self.plan.view.replicas() as usize;
            let is_gone = |(node, rank): &(&SimNode, u16)| node.dead || self.is_out(NodeId(*rank));
            let dead = self.nodes.iter().zip(0..).filter(is_gone).count();
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
