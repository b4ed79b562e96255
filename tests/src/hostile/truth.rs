//! What is true of the cluster, known from outside: the latest word of every page, who holds which lock, whose each span
//! is. What the honest nodes get to see is held against it, where the hostile member has no part.

use super::Check;
use super::cluster::Word;
use super::forge::Palette;
use dsm_core::{
    Address, CallId, LockId, Message, NodeId, PageId, Reply, RootAnswer, SpanOwner, SpanRange, Ticket, Want,
};
use std::collections::{BTreeMap, BTreeSet};

/// What a call asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Call {
    Lock(LockId),
    Barrier,
    Leave,
    Root(String),
    Lease(u64, SpanOwner),
    Find,
}

/// The truth.
pub(super) struct Truth {
    hostile: NodeId,
    coordinator_is_honest: bool,
    /// Pages that the hostile member has a part in.
    involved: BTreeSet<PageId>,
    latest: BTreeMap<PageId, Word>,
    stores: Word,
    pub calls: BTreeMap<(NodeId, CallId), Call>,
    pub holders: BTreeMap<LockId, (NodeId, CallId)>,
    /// How often each node's threads have entered the barrier.
    entered: BTreeMap<NodeId, u64>,
    passed: BTreeMap<NodeId, u64>,
    pub leaving: BTreeSet<NodeId>,
    /// Spans of heaps of honest nodes, by their first page.
    pub spans: BTreeMap<PageId, (SpanRange, NodeId)>,
    /// Leases that crossed the wire.
    granted: BTreeSet<(Ticket, PageId)>,
    /// Names that the hostile member has a part in: it claimed them, or is their home.
    names: BTreeSet<String>,
    published: BTreeSet<(String, Address)>,
    /// Nodes that are to create a root.
    pub creating: Vec<(NodeId, String)>,
}

impl Truth {
    pub fn new(palette: &Palette) -> Truth {
        let (geometry, members) = (palette.geometry, palette.members);
        let homed = |page: &PageId| geometry.home_of(*page, members) == palette.hostile;
        Truth {
            hostile: palette.hostile,
            coordinator_is_honest: palette.hostile != NodeId::COORDINATOR,
            involved: (0..geometry.pages()).map(PageId).filter(homed).collect(),
            latest: BTreeMap::new(),
            stores: 0,
            calls: BTreeMap::new(),
            holders: BTreeMap::new(),
            entered: BTreeMap::new(),
            passed: BTreeMap::new(),
            leaving: BTreeSet::new(),
            spans: BTreeMap::new(),
            granted: BTreeSet::new(),
            names: BTreeSet::new(),
            published: BTreeSet::new(),
            creating: Vec::new(),
        }
    }

    /// The hostile member takes part in `page` from now on.
    pub fn involve(&mut self, page: PageId) {
        self.involved.insert(page);
    }

    /// Whether `page` is not one of the *other* pages.
    pub fn is_involved(&self, page: PageId) -> bool {
        self.involved.contains(&page)
    }

    /// A member becomes hostile: what it holds is its own affair.
    pub fn turned(&mut self, hostile: NodeId) {
        self.holders.retain(|_, (node, _)| *node != hostile);
        self.spans.retain(|_, (_, node)| *node != hostile);
        self.creating.retain(|(node, _)| *node != hostile);
    }

    /// A message of the hostile member was taken for good.
    pub fn taken(&mut self, message: &Message) -> Check {
        if let Message::SpanReturn { first } = message
            && let Some((span, node)) = self.spans.get(first)
        {
            return Err(format!("the hostile member gave back {span:?}, which is {node}'s"));
        }
        if let Message::RootClaim { name, .. } = message {
            self.names.insert(name.clone());
        }
        Ok(())
    }

    /// One node says something to another.
    pub fn sent(&mut self, to: NodeId, message: &Message) {
        if let Message::SpanLeased { ticket, span } = message {
            self.granted.insert((*ticket, span.first));
        }
        if let Message::RootClaim { name, .. } = message
            && to == self.hostile
        {
            self.names.insert(name.clone());
        }
    }

    /// An instruction of `node` happened; `word` is what its frame holds.
    pub fn accessed(&mut self, node: NodeId, page: PageId, want: Want, word: &mut Word) -> Check {
        let latest = self.latest.get(&page).copied().unwrap_or(0);
        if *word != latest && !self.is_involved(page) {
            return Err(format!("{node} finds {word:#x} in {page}, but the latest store was {latest:#x}"));
        }
        if want == Want::Write {
            self.stores += 1;
            *word = self.stores;
            self.latest.insert(page, *word);
        }
        Ok(())
    }

    /// A fault of `node` can never be resolved.
    pub fn doomed(&self, node: NodeId, page: PageId, lost: NodeId) -> Check {
        if self.is_involved(page) {
            return Ok(());
        }
        Err(format!("{node} ends for {page}, lost with {lost}, though the hostile member has no part in it"))
    }

    /// A thread of `node` calls.
    pub fn called(&mut self, node: NodeId, id: CallId, call: Call) {
        match &call {
            Call::Leave => {
                self.leaving.insert(node);
            }
            Call::Barrier => *self.entered.entry(node).or_default() += 1,
            Call::Root(name) if node == self.hostile => {
                self.names.insert(name.clone());
            }
            Call::Lock(_) | Call::Root(_) | Call::Lease(..) | Call::Find => {}
        }
        self.calls.insert((node, id), call);
    }

    /// A call was answered.
    pub fn answered(&mut self, palette: &Palette, node: NodeId, id: CallId, reply: Reply) -> Check {
        let Some(call) = self.calls.remove(&(node, id)) else {
            return Err(format!("{node} answers {id:?}, which waits for nothing: {reply:?}"));
        };
        match (call, reply) {
            (_, Reply::PeerLost { node: lost }) if lost == self.hostile => Ok(()),
            (Call::Lock(lock), Reply::Locked { .. }) => self.locked(palette, node, id, lock),
            (Call::Lock(_), Reply::LockDenied { .. }) | (Call::Find, Reply::SpanFound(_)) => Ok(()),
            (Call::Barrier, Reply::BarrierPassed { .. }) => self.barrier_passed(palette, node),
            (Call::Barrier, Reply::Busy) => {
                *self.entered.entry(node).or_default() -= 1;
                Ok(())
            }
            (Call::Leave, Reply::Busy) => Ok(()),
            (Call::Leave, Reply::Left) => self.left(palette, node),
            (Call::Root(name), Reply::Root(answer)) => self.root(node, name, answer),
            (Call::Lease(pages, owner), Reply::Span(span)) => {
                self.leased(palette, Ticket { node, call: id }, (pages, owner), span)
            }
            (Call::Lease(..), Reply::SpanDenied { .. }) => Ok(()),
            (call, reply) => Err(format!("{node} answers {call:?} with {reply:?}")),
        }
    }

    fn locked(&mut self, palette: &Palette, node: NodeId, id: CallId, lock: LockId) -> Check {
        let home =
            palette.geometry.page_of(lock.0).map(|page| palette.geometry.home_of(page, palette.members));
        if let Some(holder) = self.holders.insert(lock, (node, id))
            && home != Some(self.hostile)
        {
            return Err(format!("{lock} was granted to {node} while {holder:?} holds it"));
        }
        Ok(())
    }

    fn barrier_passed(&mut self, palette: &Palette, node: NodeId) -> Check {
        let passed = self.passed.entry(node).or_default();
        *passed += 1;
        let generation = *passed;
        let late = |other: &NodeId| {
            let entered = self.entered.get(other).copied().unwrap_or(0);
            entered < generation && *other != self.hostile && !self.leaving.contains(other)
        };
        match palette.members.iter().find(late).filter(|_| self.coordinator_is_honest) {
            Some(other) => Err(format!("{node} passed barrier {generation} before {other} came to it")),
            None => Ok(()),
        }
    }

    fn left(&self, palette: &Palette, node: NodeId) -> Check {
        let stays = |other: &NodeId| *other != self.hostile && !self.leaving.contains(other);
        match palette.members.iter().find(stays).filter(|_| self.coordinator_is_honest) {
            Some(other) => Err(format!("{node} left while {other} still ran")),
            None => Ok(()),
        }
    }

    fn root(&mut self, node: NodeId, name: String, answer: RootAnswer) -> Check {
        let other = !self.names.contains(&name);
        match answer {
            RootAnswer::Create => {
                if let Some(creator) = self.creating.iter().find(|(_, creating)| *creating == name && other) {
                    return Err(format!("{node} is to create {name}, which {creator:?} creates"));
                }
                self.creating.push((node, name));
                Ok(())
            }
            RootAnswer::Found(address) if other && !self.published.contains(&(name.clone(), address)) => {
                Err(format!("{node} finds {name} at {address}, where nobody put it"))
            }
            RootAnswer::Found(_) | RootAnswer::OtherLayout(_) | RootAnswer::TooMany => Ok(()),
        }
    }

    /// A root was created.
    pub fn published(&mut self, name: String, address: Address) {
        self.published.insert((name, address));
    }

    fn leased(
        &mut self,
        palette: &Palette,
        ticket: Ticket,
        asked: (u64, SpanOwner),
        span: SpanRange,
    ) -> Check {
        let geometry = &palette.geometry;
        let node = ticket.node;
        let granter = if geometry.large_zone().contains(&span.first.0) {
            NodeId::COORDINATOR
        } else {
            geometry.home_of(span.first, palette.members)
        };
        if granter == self.hostile {
            return Ok(());
        }
        if span.pages != asked.0 || span.first.0 + span.pages > geometry.pages() {
            return Err(format!("{node} asked for {asked:?}, and got {span:?}"));
        }
        if granter != node && !self.granted.contains(&(ticket, span.first)) {
            return Err(format!("{node} got {span:?}, which {granter} never leased to it"));
        }
        let SpanOwner::Node(_) = asked.1 else { return Ok(()) };
        let end = |range: &SpanRange| range.first.0 + range.pages;
        let overlaps =
            |(other, _): &&(SpanRange, NodeId)| span.first.0 < end(other) && other.first.0 < end(&span);
        if let Some(other) = self.spans.values().find(overlaps) {
            return Err(format!("{span:?} was leased to {node} while {other:?} stands"));
        }
        self.spans.insert(span.first, (span, node));
        Ok(())
    }
}
