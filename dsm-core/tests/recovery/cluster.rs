//! Machines on a network that delivers at once and in order, and their pages of one word each.

use dsm_core::limits::REGION_BASE_DEFAULT;
use dsm_core::{
    Access, Action, CallId, Command, Event, Geometry, Host, Incarnation, Landing, LockId, Lost, Machine,
    Message, NodeId, PageId, Payload, Progress, RecordId, Replication, Reply, Source, SpanOwner, SpanRange,
    Time, View, Want, wire,
};
use std::collections::{BTreeMap, VecDeque};

const GIB: u64 = 1 << 30;

/// A message, its way, and the one word behind it that stands for a page's bytes.
pub type Said = (NodeId, NodeId, Message, Option<u64>);

/// Machines, their pages of one word each, and what they have done.
pub struct Cluster {
    pub geometry: Geometry,
    pub view: View,
    pub machines: Vec<Machine>,
    frames: BTreeMap<(NodeId, PageId), u64>,
    twins: BTreeMap<(NodeId, PageId), u64>,
    aside: BTreeMap<(NodeId, PageId), u64>,
    records: BTreeMap<(NodeId, NodeId, RecordId, PageId), u64>,
    pub wire: VecDeque<Said>,
    pub done: Vec<(NodeId, Action)>,
    calls: u64,
}

impl Cluster {
    pub fn new(nodes: u16, replicas: u32) -> Cluster {
        let geometry = Geometry::new(REGION_BASE_DEFAULT, GIB, 4096).expect("it fits");
        let named = (0..nodes).map(|rank| (NodeId(rank), Incarnation(1), Host(u64::from(rank))));
        let view = View::first(named, replicas);
        let machines =
            (0..nodes).map(|rank| Machine::in_view(NodeId(rank), view.clone(), geometry)).collect();
        Cluster {
            geometry,
            view,
            machines,
            frames: BTreeMap::new(),
            twins: BTreeMap::new(),
            aside: BTreeMap::new(),
            records: BTreeMap::new(),
            wire: VecDeque::new(),
            done: Vec::new(),
            calls: 0,
        }
    }

    /// A page that is homed at `rank`.
    pub fn page_at(&self, rank: u16) -> PageId {
        (0..)
            .map(|segment| PageId(segment * self.geometry.segment_pages()))
            .find(|page| self.geometry.home_of(*page, self.view.members()) == NodeId(rank))
            .expect("every node is home to something")
    }

    pub fn step(&mut self, node: NodeId, event: Event) {
        let mut actions = Vec::new();
        self.machines[node.index()].handle(Time::ZERO, event, &mut actions);
        for action in actions {
            self.carry_out(node, action);
        }
        self.machines[node.index()].invariants().expect("invariants hold after each event");
    }

    pub fn carry_out(&mut self, node: NodeId, action: Action) {
        let frame = |frames: &BTreeMap<_, u64>, page| frames.get(&(node, page)).copied().unwrap_or(0);
        match action {
            Action::Send { to, message } | Action::SendLazily { to, message } => {
                self.wire.push_back((node, to, message, None));
            }
            Action::SendPage { to, page, message } => {
                let word = frame(&self.frames, page);
                self.wire.push_back((node, to, message, Some(word)));
            }
            Action::Replicate(Replication::SendCopy { to, page, source, message }) => {
                let word = match source {
                    Source::Frame => frame(&self.frames, page),
                    Source::Twin => self.twins[&(node, page)],
                };
                let copies = to.iter().map(|buddy| (node, buddy, message.clone(), Some(word)));
                self.wire.extend(copies);
            }
            Action::Replicate(Replication::KeepTwin { page }) => {
                self.twins.insert((node, page), frame(&self.frames, page));
            }
            Action::Replicate(Replication::ApplyRecord { from, record, pages }) => {
                for page in pages {
                    let word = self.records[&(node, from, record, page)];
                    self.frames.insert((node, page), word);
                }
            }
            Action::Replicate(Replication::DropTwin { page }) => {
                assert!(self.twins.remove(&(node, page)).is_some(), "{node} has no twin of {page}");
            }
            Action::Install { page, payload: Payload::Zero, .. } => {
                self.frames.insert((node, page), 0);
            }
            Action::Install { page, payload: Payload::Bytes, .. } => {
                if let Some(word) = self.aside.remove(&(node, page)) {
                    self.frames.insert((node, page), word);
                }
            }
            Action::ProbeResidency { page } => {
                self.step(node, Event::Probed { page, progress: Progress::Retired });
            }
            Action::Reject { from, cause } => panic!("{node} rejects what {from} said: {cause}"),
            other => self.done.push((node, other)),
        }
    }

    /// Delivers all that is said, and all that follows from it.
    pub fn settle(&mut self) {
        self.deliver(usize::MAX);
    }

    /// The same, but for what stays on its way.
    pub fn settle_but(&mut self, stays: impl Fn(&Said) -> bool) {
        let mut staying = VecDeque::new();
        while let Some(said) = self.wire.front() {
            if stays(said) {
                staying.extend(self.wire.pop_front());
            } else {
                self.deliver(1);
            }
        }
        self.wire = staying;
    }

    /// Delivers so many messages.
    pub fn deliver(&mut self, messages: usize) {
        for _ in 0..messages {
            let Some((from, to, message, body)) = self.wire.pop_front() else { return };
            if let Some((word, page)) = body.zip(wire::page_behind(&message)) {
                match self.machines[to.index()].landing(from, &message) {
                    Landing::Frame => drop(self.frames.insert((to, page), word)),
                    Landing::Aside => drop(self.aside.insert((to, page), word)),
                    Landing::Record(record) => drop(self.records.insert((to, from, record, page), word)),
                    Landing::Nowhere => {}
                }
            }
            self.step(to, Event::Received { from, message });
        }
    }

    /// Nothing more of these nodes arrives, and the others go on without them.
    pub fn kill(&mut self, ranks: &[u16]) {
        self.change(ranks, &[]);
    }

    /// The same, but some of what the others say then stays on its way.
    pub fn kill_but(&mut self, ranks: &[u16], stays: impl Fn(&Said) -> bool) {
        self.change_but(ranks, &[], stays);
    }

    /// The same, with nodes that join.
    pub fn change_but(&mut self, gone: &[u16], new: &[u16], stays: impl Fn(&Said) -> bool) {
        self.install(gone, new);
        self.settle_but(stays);
    }

    /// A view without these nodes, which say nothing more, and with those, which hold nothing. What is under way is lost.
    pub fn change(&mut self, gone: &[u16], new: &[u16]) {
        self.install(gone, new);
        self.settle();
    }

    fn install(&mut self, gone: &[u16], new: &[u16]) {
        let id = self.view.id().0 + 1;
        let named = new.iter().map(|rank| (NodeId(*rank), Incarnation(id), Host(u64::from(*rank))));
        self.view = self.view.next(gone.iter().map(|rank| NodeId(*rank)).collect(), named);
        self.wire.clear();
        for rank in new {
            let node = NodeId(*rank);
            let machine = Machine::joining(node, self.view.clone(), self.geometry);
            match self.machines.get_mut(node.index()) {
                Some(before) => *before = machine,
                None => self.machines.push(machine),
            }
            self.frames.retain(|(of, _), _| *of != node);
            self.aside.retain(|(of, _), _| *of != node);
        }
        for node in self.view.members().iter() {
            let joins = new.contains(&node.0);
            let event = if joins { Event::Joined } else { Event::ViewInstalled(self.view.clone()) };
            self.step(node, event);
        }
    }

    pub fn store(&mut self, rank: u16, page: PageId, word: u64) {
        let node = NodeId(rank);
        self.step(node, Event::Fault { page, want: Want::Write });
        self.settle();
        assert_eq!(self.machines[node.index()].access(page), Access::Write, "{page} came");
        self.frames.insert((node, page), word);
    }

    /// Stores to a page of this node's own: what is said of it is on its way.
    pub fn store_at_once(&mut self, rank: u16, page: PageId, word: u64) {
        let node = NodeId(rank);
        self.step(node, Event::Fault { page, want: Want::Write });
        assert_eq!(self.machines[node.index()].access(page), Access::Write, "{page} is its own");
        self.frames.insert((node, page), word);
    }

    pub fn load(&mut self, rank: u16, page: PageId) -> Option<u64> {
        let node = NodeId(rank);
        self.step(node, Event::Fault { page, want: Want::Read });
        self.settle();
        let readable = self.machines[node.index()].access(page) >= Access::Read;
        readable.then(|| self.frames.get(&(node, page)).copied().unwrap_or(0))
    }

    pub fn call(&mut self, rank: u16, command: Command) -> CallId {
        let call = self.call_at_once(rank, command);
        self.settle();
        call
    }

    /// Makes a call: what is said of it is on its way.
    pub fn call_at_once(&mut self, rank: u16, command: Command) -> CallId {
        self.calls += 1;
        let call = CallId(self.calls);
        self.step(NodeId(rank), Event::Command { call, command });
        call
    }

    pub fn replies(&self, call: CallId) -> Vec<Reply> {
        let reply = |action: &Action| match action {
            Action::Complete { call: answered, reply } if *answered == call => Some(*reply),
            _ => None,
        };
        self.done.iter().filter_map(|(_, action)| reply(action)).collect()
    }

    /// Makes a call; its answer, if it has come.
    pub fn ask(&mut self, rank: u16, command: Command) -> Option<Reply> {
        let call = self.call(rank, command);
        self.replies(call).first().copied()
    }

    pub fn lock(&mut self, rank: u16, lock: LockId) -> (CallId, Vec<Reply>) {
        let call = self.call(rank, Command::Lock { lock, wait: true });
        (call, self.replies(call))
    }

    /// How many pages of a node have their committed state set aside.
    pub fn twins(&self, rank: u16) -> usize {
        self.twins.keys().filter(|(node, _)| *node == NodeId(rank)).count()
    }

    /// What a node was told of the loss of `page`, each time that it was.
    pub fn losses(&self, rank: u16, page: PageId) -> Vec<Lost> {
        let of = |action: &Action| match action {
            Action::Replicate(Replication::Poison { first, pages, lost })
                if (first.0..first.0 + pages).contains(&page.0) =>
            {
                Some(*lost)
            }
            _ => None,
        };
        self.done
            .iter()
            .filter(|(node, _)| *node == NodeId(rank))
            .filter_map(|(_, action)| of(action))
            .collect()
    }

    pub fn is_poisoned(&self, rank: u16, page: PageId) -> bool {
        !self.losses(rank, page).is_empty()
    }

    /// Leases a span, for which there is room.
    pub fn lease(&mut self, rank: u16, pages: u64, owner: SpanOwner) -> SpanRange {
        match self.ask(rank, Command::SpanLease { pages, owner }) {
            Some(Reply::Span(span)) => span,
            other => panic!("there is room: {other:?}"),
        }
    }
}
