//! What must hold of all nodes together: while they serve, when they have recovered, and at rest.

use super::Check;
use super::node::{SimNode, State, slot};
use super::world::World;
use dsm_core::{Access, Copyset, NodeId, PageId};

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
    fn alive(&self) -> Vec<&SimNode> {
        let all = self.view.members().iter().map(|node| &self.nodes[node.index()]);
        all.filter(|node| !node.dead).collect()
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

    /// The one owner of `page` among `members`, if anybody ever touched it.
    pub(super) fn owner_of<'a>(page: PageId, members: &[&'a SimNode]) -> Check<Option<&'a SimNode>> {
        let owners: Vec<&SimNode> = members.iter().copied().filter(|node| node.machine.owns(page)).collect();
        match owners[..] {
            [] => Ok(None),
            [owner] => Ok(Some(owner)),
            [..] => Err(format!("{page} has {} owners, {} first", owners.len(), owners[0].me)),
        }
    }

    /// All members have recovered, and nobody has been served anything since: the directory is right.
    pub(super) fn directory_is_right(page: PageId, members: &[&SimNode]) -> Check {
        let owner = World::owner_of(page, members)?.map(|owner| owner.me);
        for home in members {
            let Some((known, readers)) = home.machine.holders(page) else { continue };
            let copies =
                |node: &&&SimNode| node.machine.access(page) == Access::Read && !node.machine.owns(page);
            let copies = members.iter().filter(copies).map(|node| node.me).collect();
            if known != owner || readers != copies {
                return Err(format!(
                    "{} takes {known:?} for the owner and {readers:?} for the readers of {page}, which {owner:?} \
                     owns and {copies:?} can read",
                    home.me
                ));
            }
        }
        Ok(())
    }

    /// Everybody is done and nothing is under way: what is committed has all its holders, and nobody else has it.
    pub(super) fn at_rest(&mut self) -> Check {
        let alive = self.alive();
        for state in &alive {
            if state.installed != self.view.id() {
                return Err(format!("{} has not installed {}", state.me, self.view.id()));
            }
            if !state.machine.is_fully_replicated() {
                return Err(format!("{} does not know all to be replicated in {}", state.me, self.view.id()));
            }
        }
        let mut compared = 0;
        for page in self.pages() {
            World::directory_is_right(page, &alive)?;
            compared += holders_agree(page, &alive)?;
        }
        self.counts.compared += compared;
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

/// The last committed state of `page` is held by as many as it should be, all of whom have the same bytes, and nobody
/// keeps an earlier one. How many were compared.
fn holders_agree(page: PageId, alive: &[&SimNode]) -> Check<u64> {
    let Some(owner) = World::owner_of(page, alive)? else {
        return match alive.iter().find(|node| node.machine.kept(page).is_some()) {
            Some(keeper) => Err(format!("{} keeps {page}, which nobody owns", keeper.me)),
            None => Ok(0),
        };
    };
    let (machine, frame) = (&owner.machine, owner.frames[slot(page)]);
    let custody = machine.custody(page);
    let others = custody.map_or(Copyset::EMPTY, |custody| custody.holders);
    let wanted = machine.view().buddies_of(owner.me).len();
    if custody.is_some() && others.len() < wanted {
        return Err(format!(
            "{page} of {} is kept by {others:?} at rest, and {wanted} should keep it",
            owner.me
        ));
    }
    let mut compared = 0;
    let mut committed = (wanted > 0 && machine.is_committed(page)).then_some(frame);
    for state in alive.iter().filter(|node| node.me != owner.me) {
        let keeps = state.machine.kept(page).is_some();
        if keeps != others.contains(state.me) {
            let word = if keeps { "keeps" } else { "does not keep" };
            let (node, owner) = (state.me, owner.me);
            return Err(format!("{node} {word} {page} at rest, but {owner} counts on {others:?}"));
        }
        if !keeps {
            continue;
        }
        compared += 1;
        let frame = state.frames[slot(page)];
        let committed = *committed.get_or_insert(frame);
        if frame != committed {
            let node = state.me;
            return Err(format!("{node} keeps {frame:?} of {page} at rest, others have {committed:?}"));
        }
    }
    Ok(compared)
}

fn unfinished_threads(rank: usize, node: &SimNode) -> impl Iterator<Item = String> + '_ {
    let waiting = node.threads.iter().enumerate().filter(|(_, thread)| thread.state != State::Done);
    waiting.map(move |(index, thread)| {
        format!("thread {rank}.{index} {:?} at {:?}", thread.state, thread.program.front())
    })
}
