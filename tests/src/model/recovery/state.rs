//! One state: machines, page tables, one-word frames, what was set aside, and messages under way. Data only.

use super::super::state::{Shared, Slot, hash_of};
use super::configuration::{Configuration, Task};
use super::rules::Rule;
use super::truth::Truth;
use dsm_core::{Access, CallId, Machine, Message, NodeId, PageId, RecordId, Version, View, ViewId, Want};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};

/// What a page holds.
pub type Word = u8;

/// What a thread waits for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Waiting {
    /// Nothing.
    Not,
    /// A page.
    Page(Slot, Want),
    /// The answer to a call.
    Call(CallId),
}

/// One node: the machine under test, and what its driver keeps.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Node {
    pub machine: Machine,
    pub table: Vec<Access>,
    pub frames: Vec<Word>,
    pub twins: BTreeMap<Slot, Word>,
    pub aside: BTreeMap<Slot, Word>,
    pub records: BTreeMap<(NodeId, RecordId), BTreeMap<Slot, Word>>,
    /// What the thread is still to do.
    pub program: Vec<Task>,
    pub waiting: Waiting,
    /// The call by which it holds the lock.
    pub acquired: Option<CallId>,
    pub found: Word,
    pub calls: u64,
    /// The view that is installed.
    pub installed: ViewId,
    pub dead: bool,
    /// What a mutant remembers: records of which a page was let through, the last record that was sent to each buddy,
    /// and acks and readiness that came before they were due.
    pub begun: BTreeSet<(NodeId, RecordId)>,
    pub sent: BTreeMap<NodeId, RecordId>,
    /// And which pages its records have.
    pub pages: BTreeSet<(RecordId, PageId)>,
}

/// A message under way.
#[derive(Clone, PartialEq, Debug)]
pub struct Said {
    pub from: NodeId,
    pub to: NodeId,
    pub view: ViewId,
    pub message: Message,
    pub body: Option<Word>,
    key: u64,
}

impl Hash for Said {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.key);
    }
}

impl Said {
    pub fn new(from: NodeId, to: NodeId, view: ViewId, message: Message, body: Option<Word>) -> Said {
        let key = hash_of(&(from, to, view, &message, body));
        Said { from, to, view, message, body, key }
    }
}

/// One thing that may happen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// A thread does what is next.
    Run(NodeId),
    /// A message arrives.
    Deliver(usize),
    /// A part of the bytes behind a dead node's message arrives, and nothing more of it.
    Tear(usize),
    /// A node dies.
    Crash(NodeId),
    /// A member installs the next view.
    Install(NodeId),
}

impl Step {
    /// Whose step it is.
    pub fn node(self, state: &State) -> NodeId {
        match self {
            Step::Run(node) | Step::Crash(node) | Step::Install(node) => node,
            Step::Deliver(index) | Step::Tear(index) => state.network[index].to,
        }
    }
}

/// A state of the cluster.
#[derive(Clone, PartialEq, Hash, Debug)]
pub struct State {
    pub nodes: Vec<Shared<Node>>,
    /// Messages under way, those of one node to another in order.
    pub network: Vec<Said>,
    /// All views so far.
    pub views: Vec<View>,
    /// The last view in which somebody went on.
    pub seen: ViewId,
    pub truth: Truth,
    /// The latest committed state of each page that any owner knew of.
    pub committed: Vec<Option<Version>>,
    pub crashes: u8,
    /// The first rule that was broken on the way here, and how. Nothing happens after that.
    pub broken: Option<(Rule, String)>,
}

impl State {
    /// The cluster at its start.
    pub fn new(configuration: &Configuration) -> State {
        let view = configuration.view();
        let pages = configuration.homes.len();
        let node = |me: NodeId| {
            Shared::new(Node {
                machine: Machine::in_view(me, view.clone(), configuration.geometry()),
                table: vec![Access::None; pages],
                frames: vec![0; pages],
                twins: BTreeMap::new(),
                aside: BTreeMap::new(),
                records: BTreeMap::new(),
                program: configuration.programs[me.index()].to_vec(),
                waiting: Waiting::Not,
                acquired: None,
                found: 0,
                calls: 0,
                installed: view.id(),
                dead: false,
                begun: BTreeSet::new(),
                sent: BTreeMap::new(),
                pages: BTreeSet::new(),
            })
        };
        State {
            nodes: view.members().iter().map(node).collect(),
            network: Vec::new(),
            seen: view.id(),
            truth: Truth::new(pages),
            committed: vec![None; pages],
            crashes: configuration.crashes,
            broken: None,
            views: vec![view],
        }
    }

    /// Changes a node.
    pub fn with_node(&mut self, node: NodeId, change: impl FnOnce(&mut Node)) {
        let mut changed = (*self.nodes[node.index()]).clone();
        change(&mut changed);
        self.nodes[node.index()] = Shared::new(changed);
    }

    /// Nodes that live.
    pub fn alive(&self) -> impl Iterator<Item = (NodeId, &Node)> {
        (0..).map(NodeId).zip(self.nodes.iter().map(|node| &**node)).filter(|(_, node)| !node.dead)
    }

    /// Puts a message on its way, unless it can only be dropped.
    pub fn transmit(&mut self, said: Said, installed: ViewId) {
        let receiver = &self.nodes[said.to.index()];
        if receiver.dead || installed > said.view {
            return;
        }
        let pair = (said.from, said.to);
        let place = self.network.partition_point(|other| (other.from, other.to) <= pair);
        self.network.insert(place, said);
    }

    /// Whether the message at `index` is the next of its sender to its receiver.
    pub fn is_first(&self, index: usize) -> bool {
        let said = &self.network[index];
        let before = index.checked_sub(1).map(|before| &self.network[before]);
        before.is_none_or(|before| (before.from, before.to) != (said.from, said.to))
    }

    /// The view after the last.
    pub fn latest(&self) -> &View {
        self.views.last().expect("the first view is there from the beginning")
    }
}
