//! Crashes, and the views that follow from them: agreed on at once here, and installed by each member when it hears.

use super::Check;
use super::mutant::Mutant;
use super::node::{SimNode, slot};
use super::plan::{Trigger, WORDS, When};
use super::threads::COUNTER;
use super::world::{Happening, World};
use crate::membership_sim::End;
use dsm_core::{
    Commit, Copyset, Event, Host, Incarnation, Lost, Message, NodeId, PageId, RecordId, View, ViewId,
};
use std::collections::{BTreeMap, BTreeSet};

/// What was said last by a node that dies may still arrive for so long.
const ECHO_NS_MAX: u64 = 2_000_000;

/// Ranks that a run may have: six, and as many as join.
const RANKS_MAX: u16 = 8;

/// Members hear of a view within this time of each other.
pub(super) const SPREAD_NS_MAX: u64 = 500_000;

impl World {
    /// A node is no more: its threads, its memory, and any part of what it has said.
    pub(super) fn kill(&mut self, node: NodeId) {
        if std::mem::replace(&mut self.node(node).dead, true) {
            return;
        }
        self.trace.note(self.now, node, || "killed".to_owned());
        self.counts.deaths += 1;
        let life = self.life(node);
        for (index, domain) in self.plan.domains.iter().enumerate() {
            if self.oracle.holder(index) == Some(life) {
                self.lies.bequeathed.insert(domain.lock);
            }
        }
        self.oracle.died(life);
        for other in (0..RANKS_MAX).map(NodeId) {
            let at = if self.rng.chance(500) { self.now } else { self.after(ECHO_NS_MAX) };
            self.network.cut(life, other, at);
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

    /// The members agree on a view without those that are dead by now, and with those that want to join.
    pub(super) fn agree(&mut self) {
        let dead: Copyset = self.view.members().iter().filter(|node| self.nodes[node.index()].dead).collect();
        let knocking = std::mem::take(&mut self.knocking);
        if dead.is_empty() && knocking.is_empty() || dead == self.view.members() {
            return;
        }
        let before = self.view.members().minus(dead);
        let mut new: BTreeMap<NodeId, usize> = BTreeMap::new();
        for index in knocking {
            new.insert(self.rank_for(index, &new), index);
        }
        let member = |(place, (node, _)): (usize, (&NodeId, &usize))| {
            let life = u64::from(self.lives) + place as u64;
            (*node, Incarnation(life), Host(u64::from(node.0)))
        };
        self.view = self.view.next(dead, new.iter().enumerate().map(member));
        self.views.push(self.view.clone());
        self.counts.views += 1;
        for (rank, index) in new {
            self.let_in(rank, index);
        }
        for node in before.iter() {
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
        let view = self.told(view);
        self.node(node).installed = id;
        self.handle(node, Event::ViewInstalled(view))?;
        if self.cluster.is_some() {
            return self.catch_up(node);
        }
        self.hear_early(node, id)
    }

    /// A view, as a mutant may tell it.
    pub(super) fn told(&self, view: View) -> View {
        if self.mutant != Some(Mutant::ReusesVersions) {
            return view;
        }
        let member = |node| view.member(node).map(|member| (node, member.incarnation, member.host));
        View::first(view.members().iter().filter_map(member), view.replicas())
    }

    /// What came of a view before it was installed.
    pub(super) fn hear_early(&mut self, node: NodeId, id: ViewId) -> Check {
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
        self.begin_to_serve(node);
        if view <= self.seen {
            return Ok(());
        }
        self.seen = view;
        self.counts.recoveries += 1;
        let view = self.nodes[node.index()].machine.view();
        let members: Vec<&SimNode> =
            view.iter().filter_map(|(rank, member)| self.process_of(rank, member)).collect();
        let mut frames = BTreeMap::new();
        // Who dies between the conclusions and now is a member still, and what it left is the next view's business.
        let mut doomed = BTreeSet::new();
        let mut hidden = BTreeSet::new();
        for page in self.pages() {
            World::directory_is_right(page, &members)?;
            if let Some(owner) = World::owner_of(page, &members)? {
                frames.insert(page, owner.frames[slot(page)]);
                if owner.dead || self.is_out(owner.me) {
                    doomed.insert(page);
                }
                if self.is_out(owner.me) {
                    hidden.insert(page);
                }
            }
        }
        let homes: Vec<NodeId> = self
            .plan
            .domains
            .iter()
            .map(|it| self.plan.geometry.home_of(it.pages[0], view.members()))
            .collect();
        let homes =
            homes.into_iter().map(|home| members.iter().find(|node| node.me == home).map(|node| node.life));
        for (domain, home) in homes.collect::<Vec<_>>().into_iter().enumerate() {
            if let Some(home) = home {
                self.oracle.moved(domain, home);
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
    pub(super) fn poison(&mut self, node: NodeId, (first, pages): (PageId, u64), lost: Lost) -> Check {
        if lost.page != first || lost.view > self.nodes[node.index()].installed {
            return Err(format!("{node} is told of the loss of {first} as {lost:?}"));
        }
        for page in (first.0..first.0 + pages).map(PageId) {
            self.node(node).poisoned[slot(page)] = true;
            let holds = |other: &SimNode| !other.dead && other.machine.owns(page) && !self.is_out(other.me);
            if self.nodes.iter().any(holds) {
                return Err(format!("{node} takes {page} for lost, which has a live owner"));
            }
            let survives = self.plan.view.replicas() as usize;
            let is_gone = |node: &&SimNode| node.dead || self.is_out(node.me);
            let dead = self.nodes.iter().chain(&self.graves).filter(is_gone).count();
            if dead <= survives {
                return Err(format!(
                    "{page} is lost with {dead} deaths, though {survives} are to be survived"
                ));
            }
            self.counts.lost += 1;
            self.oracle.lost(self.life(node), page, lost)?;
            self.wake_lost(node, page);
        }
        Ok(())
    }
}
