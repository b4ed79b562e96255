//! What threads do on a node without which the others have gone on. Until its engine has noticed, they touch what it has
//! mapped: they may see stale pages, and what they store is seen by nobody.

use crate::survive::Check;
use crate::survive::node::slot;
use crate::survive::plan::Step;
use crate::survive::threads::COUNTER;
use crate::survive::world::World;
use dsm_core::{Command, Event, NodeId, PageId, SpanOwner, SpanRange, Want};

/// What such threads store: no member may ever see it.
const UNSEEN: u64 = 1 << 60;

impl World {
    /// One instruction or call of such a thread.
    pub(in crate::survive) fn step_outside(&mut self, node: NodeId, index: usize, step: Step) -> Check {
        if !self.is_held(node) && self.holds_lease(node) {
            let installed = self.nodes[node.index()].installed;
            return Err(format!(
                "{node} does {step:?} in {installed}, though somebody has installed {} without it",
                self.view.id()
            ));
        }
        match step {
            Step::Load(page, _) => self.touch_outside(node, index, page, None),
            Step::Store(page, word) => self.touch_outside(node, index, page, Some(word)),
            Step::Look(domain) => {
                let page = self.plan.domains[domain].pages[0];
                self.touch_outside(node, index, page, None)
            }
            Step::Count(domain, which) => {
                let page = self.plan.domains[domain].pages[which];
                self.touch_outside(node, index, page, Some(COUNTER))
            }
            Step::Lock(domain) => {
                let lock = self.plan.domains[domain].lock;
                self.ask(node, index, Command::Lock { lock, wait: true })
            }
            Step::Cover(domain) => {
                let (lock, pages) = (self.plan.domains[domain].lock, self.plan.domains[domain].pages);
                let owner = SpanOwner::Domain(lock.0);
                let spans = vec![SpanRange { first: pages[1], pages: 1, owner }];
                self.ask(node, index, Command::Cover { lock, spans })
            }
            Step::Unlock(domain) => {
                let lock = self.plan.domains[domain].lock;
                let Some(acquired) = self.node(node).threads[index].acquired.take() else {
                    return Err(format!("{node} releases domain {domain} without holding it"));
                };
                let call = self.name(node);
                self.retire(node, index);
                self.feed(node, Event::Command { call, command: Command::Unlock { lock, acquired } })
            }
            Step::Ensure(page) => self.ask(node, index, Command::Ensure { page }),
            Step::Sync => self.ask(node, index, Command::Sync),
            Step::Barrier => self.ask(node, index, Command::Barrier),
        }
    }

    fn touch_outside(&mut self, node: NodeId, index: usize, page: PageId, word: Option<usize>) -> Check {
        let want = if word.is_some() { Want::Write } else { Want::Read };
        if self.can(node, index, page, want)? {
            if let Some(cluster) = &mut self.cluster {
                cluster.tally.outside += 1;
            }
            if let Some(word) = word {
                self.node(node).frames[slot(page)][word] = UNSEEN;
            }
            self.retire(node, index);
        }
        Ok(())
    }
}
