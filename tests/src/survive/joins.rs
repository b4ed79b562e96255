//! Processes that join: with a rank of their own, or that of one that died, perhaps before that was noticed.

use super::Check;
use super::deaths::SPREAD_NS_MAX;
use super::node::SimNode;
use super::plan::Step;
use super::world::{Happening, World};
use dsm_core::{Event, Member, NodeId};
use std::collections::BTreeMap;
use std::time::Duration;

impl World {
    /// A process wants to join: it is let in with the next view.
    pub(super) fn knock(&mut self, index: usize) {
        self.knocking.push(index);
        let at = self.after(self.plan.notice);
        self.schedule(at, Happening::Agreed);
    }

    /// The rank that a process is let in with, besides those that are let in at the same time.
    pub(super) fn rank_for(&self, index: usize, taken: &BTreeMap<NodeId, usize>) -> NodeId {
        let mut dead = self.nodes.iter().filter(|node| node.dead).map(|node| node.me);
        let again = dead.rfind(|rank| !taken.contains_key(rank));
        let ranks = self.nodes.len() + taken.keys().filter(|rank| rank.index() >= self.nodes.len()).count();
        let fresh = NodeId(u16::try_from(ranks).unwrap_or(u16::MAX));
        again.filter(|_| self.plan.joins[index].again).unwrap_or(fresh)
    }

    /// A process becomes a member, and will hear of it.
    pub(super) fn let_in(&mut self, rank: NodeId, index: usize) {
        let join = self.plan.joins[index].clone();
        let life = NodeId(self.lives);
        self.lives += 1;
        self.counts.joins += 1;
        let view = self.told(self.view.clone());
        let mut node = SimNode::joining(&self.plan, rank, life, view, &join.programs);
        node.joined = self.view.id();
        self.trace.note(self.now, rank, || format!("is let in as process {}", life.0));
        if rank.index() < self.nodes.len() {
            self.forget_plans_of(rank);
            let before = std::mem::replace(&mut self.nodes[rank.index()], node);
            self.graves.push(before);
        } else {
            self.nodes.push(node);
        }
        let at = self.after(SPREAD_NS_MAX);
        let at = self.network.in_order(rank, rank, at);
        self.schedule(at, Happening::Joined(rank));
        if let Some(dies) = join.dies {
            self.schedule(self.now + Duration::from_nanos(dies), Happening::Killed(rank));
        }
    }

    /// A process hears that it is a member.
    pub(super) fn join(&mut self, node: NodeId) -> Check {
        if self.node(node).dead {
            return Ok(());
        }
        let id = self.nodes[node.index()].joined;
        self.node(node).installed = id;
        self.feed(node, Event::Joined)?;
        self.hear_early(node, id)
    }

    /// The first time that a process that joined serves, its threads begin. They come to the barriers that the others
    /// have not passed yet.
    pub(super) fn begin_to_serve(&mut self, node: NodeId) {
        if std::mem::replace(&mut self.node(node).begun, true) {
            return;
        }
        let view = self.nodes[node.index()].machine.view().clone();
        let members = view.iter().filter_map(|(rank, member)| self.process_of(rank, member));
        let passed = members.map(|member| self.oracle.passed(member.life)).max().unwrap_or(0);
        let life = self.life(node);
        self.oracle.joined(life, usize::try_from(passed).unwrap_or(usize::MAX));
        for index in 0..self.node(node).threads.len() {
            let mut left = passed;
            let is_to_come = |step: &Step| {
                let before = *step == Step::Barrier && left > 0;
                left -= u64::from(before);
                !before
            };
            self.node(node).threads[index].program.retain(is_to_come);
            self.resume(node, index);
        }
    }

    /// The process that was this member, if it is one of this run.
    pub(super) fn process_of(&self, rank: NodeId, member: &Member) -> Option<&SimNode> {
        let is_it = |node: &&SimNode| node.me == rank && node.incarnation == Some(member.incarnation);
        self.nodes.iter().chain(&self.graves).find(is_it)
    }

    /// The process of this rank that died last; if none did, the one that lives.
    pub(super) fn last_dead(&self, rank: NodeId) -> NodeId {
        let is_it = |node: &&SimNode| node.me == rank && node.dead;
        let dead = self.graves.iter().chain(&self.nodes).rfind(is_it);
        dead.map_or(self.life(rank), |node| node.life)
    }
}
