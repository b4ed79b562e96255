//! What must hold of all nodes together: while they serve, when they have recovered, and at rest.

use super::Check;
use super::node::{Frame, SimNode, State, slot};
use super::world::World;
use dsm_core::{Access, NodeId, PageId};

impl World {
    /// The pages that the plan uses.
    pub(super) fn pages(&self) -> Vec<PageId> {
        self.plan
            .plain
            .iter()
            .chain(self.plan.domains.iter().flat_map(|domain| &domain.pages))
            .copied()
            .collect()
    }

    /// Members that live.
    fn alive(&self) -> Vec<NodeId> {
        self.view.members().iter().filter(|node| !self.nodes[node.index()].dead).collect()
    }

    /// What must hold of a node between events, and of all nodes together.
    pub(super) fn check(&self, node: NodeId) -> Check {
        let subject = &self.nodes[node.index()];
        if subject.dead {
            return Ok(());
        }
        subject.machine.invariants().map_err(|violation| format!("{node}: {violation}"))?;
        for page in self.pages() {
            let (mapped, held) = (subject.access[slot(page)], subject.machine.access(page));
            if mapped != held && !(self.is_emptied(node) && mapped < held) {
                return Err(format!("{node} has {page} mapped {mapped:?}, but its machine holds {held:?}"));
            }
            let having = |access: Access| {
                let nodes = self.nodes.iter().zip(0..);
                let counts = |(node, rank): &(&SimNode, u16)| !node.dead && !self.is_out(NodeId(*rank));
                nodes.filter(counts).filter(|(node, _)| node.access[slot(page)] == access).count()
            };
            let (writers, readers) = (having(Access::Write), having(Access::Read));
            if writers > 1 || writers == 1 && readers > 0 {
                return Err(format!("{page} has {writers} writers and {readers} readers at once"));
            }
        }
        Ok(())
    }

    /// The one owner of `page` among `members`, none if nobody ever touched it, and what its frame holds.
    pub(super) fn owner_of(&self, page: PageId, members: &[NodeId]) -> Check<Option<(NodeId, Frame)>> {
        let owners: Vec<NodeId> =
            members.iter().copied().filter(|node| self.nodes[node.index()].machine.owns(page)).collect();
        match owners[..] {
            [] => Ok(None),
            [owner] => Ok(Some((owner, self.nodes[owner.index()].frames[slot(page)]))),
            [..] => Err(format!("{page} has {} owners: {owners:?}", owners.len())),
        }
    }

    /// All members have recovered, and nobody has been served anything since: the directory is right.
    pub(super) fn directory_is_right(&self, page: PageId, members: &[NodeId]) -> Check {
        let owner = self.owner_of(page, members)?.map(|(owner, _)| owner);
        for home in members {
            let Some((known, readers)) = self.nodes[home.index()].machine.holders(page) else { continue };
            let copies = |node: &&NodeId| {
                let node = &self.nodes[node.index()];
                node.machine.access(page) == Access::Read && !node.machine.owns(page)
            };
            let copies = members.iter().filter(copies).copied().collect();
            if known != owner || readers != copies {
                return Err(format!(
                    "{home} takes {known:?} for the owner and {readers:?} for the readers of {page}, which {owner:?} \
                     owns and {copies:?} can read"
                ));
            }
        }
        Ok(())
    }

    /// Everybody is done and nothing is under way: what is committed has all its holders, and nobody else has it.
    pub(super) fn at_rest(&mut self) -> Check {
        let alive = self.alive();
        for &node in &alive {
            let state = &self.nodes[node.index()];
            if state.installed != self.view.id() {
                return Err(format!("{node} has not installed {}", self.view.id()));
            }
            if !state.machine.is_fully_replicated() {
                return Err(format!("{node} does not know all to be replicated in {}", self.view.id()));
            }
        }
        for page in self.pages() {
            self.directory_is_right(page, &alive)?;
            self.holders_agree(page, &alive)?;
        }
        Ok(())
    }

    /// The last committed state of `page` is held by as many as it should be, all of whom have the same bytes, and
    /// nobody keeps an earlier one.
    fn holders_agree(&mut self, page: PageId, alive: &[NodeId]) -> Check {
        let Some((owner, frame)) = self.owner_of(page, alive)? else {
            let keeps = |node: &&NodeId| self.nodes[node.index()].machine.kept(page).is_some();
            return match alive.iter().find(keeps) {
                Some(keeper) => Err(format!("{keeper} keeps {page}, which nobody owns")),
                None => Ok(()),
            };
        };
        let machine = &self.nodes[owner.index()].machine;
        let custody = machine.custody(page);
        let others = custody.map_or(dsm_core::Copyset::EMPTY, |custody| custody.holders);
        let wanted = machine.view().buddies_of(owner).len();
        if custody.is_some() && others.len() < wanted {
            return Err(format!(
                "{page} of {owner} is kept by {others:?} at rest, and {wanted} should keep it"
            ));
        }
        let mut committed = (wanted > 0 && machine.is_committed(page)).then_some(frame);
        for &node in alive.iter().filter(|node| **node != owner) {
            let state = &self.nodes[node.index()];
            let keeps = state.machine.kept(page).is_some();
            if keeps != others.contains(node) {
                let word = if keeps { "keeps" } else { "does not keep" };
                return Err(format!("{node} {word} {page} at rest, but {owner} counts on {others:?}"));
            }
            if !keeps {
                continue;
            }
            self.counts.compared += 1;
            let frame = self.nodes[node.index()].frames[slot(page)];
            let committed = *committed.get_or_insert(frame);
            if frame != committed {
                return Err(format!("{node} keeps {frame:?} of {page} at rest, others have {committed:?}"));
            }
        }
        Ok(())
    }

    /// Who is not done, and why.
    pub(super) fn unfinished(&self) -> String {
        let mut found = Vec::new();
        for (rank, node) in self.nodes.iter().enumerate().filter(|(_, node)| !node.dead) {
            found.extend(unfinished_threads(rank, node));
        }
        found.join("; ")
    }
}

fn unfinished_threads(rank: usize, node: &SimNode) -> impl Iterator<Item = String> + '_ {
    let waiting = node.threads.iter().enumerate().filter(|(_, thread)| thread.state != State::Done);
    waiting.map(move |(index, thread)| {
        format!("thread {rank}.{index} {:?} at {:?}", thread.state, thread.program.front())
    })
}
