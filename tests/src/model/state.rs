//! One state of the modelled cluster: machines, page tables, one-word frames, threads, and messages under way. Data
//! only. A state is cloned and hashed for every step of every run, so nodes are shared until changed, and each keeps
//! its hash.

use super::configuration::{Configuration, Instruction, Network};
use dsm_core::{Access, Copyset, Machine, Message, NodeId, Progress, TransactionId, Want};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;

/// What a page holds: how many stores to it there have been.
pub type Version = u8;

/// A page, by its index in the configuration.
pub type Slot = usize;

/// A value that is shared between states until one changes it, with its hash.
#[derive(Clone, Debug)]
pub struct Shared<T> {
    hash: u64,
    value: Arc<T>,
}

impl<T: Hash> Shared<T> {
    /// Shares `value`.
    pub fn new(value: T) -> Shared<T> {
        Shared { hash: hash_of(&value), value: Arc::new(value) }
    }
}

impl<T> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> Hash for Shared<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl<T: PartialEq> PartialEq for Shared<T> {
    fn eq(&self, other: &Shared<T>) -> bool {
        self.hash == other.hash && (Arc::ptr_eq(&self.value, &other.value) || self.value == other.value)
    }
}

/// The same for equal values, in every run.
pub(super) fn hash_of(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// A thread of a node.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Thread {
    /// How many more instructions it may begin.
    pub left: u8,
    /// The instruction at hand.
    pub doing: Option<Instruction>,
    /// What it waits for.
    pub faulted: Option<(Slot, Want)>,
}

/// One node: the machine under test, and what its driver keeps.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Node {
    /// The protocol.
    pub machine: Machine,
    /// The page table.
    pub table: Vec<Access>,
    /// The local memory.
    pub frames: Vec<Version>,
    /// The threads.
    pub threads: Vec<Thread>,
    /// Per page, the threads (as bits) for which it was mapped and whose instruction has not retired.
    pub unretired: Vec<u8>,
    /// Pages at whose instruction the machine wants the driver to look.
    pub probes: BTreeSet<Slot>,
    /// Pages at which it is to look again, and what it saw when it looked last.
    pub timers: BTreeMap<Slot, Progress>,
    /// Messages that were held back, the oldest first.
    pub held: Vec<(NodeId, Message)>,
    /// Protections that a mutant has put off.
    pub overdue: Vec<(Slot, Access)>,
    /// Transactions of which a mutant has sent the ack or the confirmation too early.
    pub said: BTreeSet<TransactionId>,
}

/// A message under way.
#[derive(Clone, PartialEq, Debug)]
pub struct Envelope {
    /// Who sent it.
    pub from: NodeId,
    /// To whom.
    pub to: NodeId,
    /// What it says.
    pub message: Message,
    /// The page's bytes behind it.
    pub body: Option<Version>,
    /// Whether it is a copy of one that has been delivered: no transport delivers it, and it must change nothing.
    pub stray: bool,
    key: u64,
}

impl Hash for Envelope {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.key);
    }
}

impl Envelope {
    /// A message on its way.
    pub fn new(from: NodeId, to: NodeId, message: Message, body: Option<Version>) -> Envelope {
        let key = hash_of(&(from, to, &message, body, false));
        Envelope { from, to, message, body, stray: false, key }
    }

    /// The same message, come a second time.
    pub fn again(&self) -> Envelope {
        let key = hash_of(&(self.from, self.to, &self.message, self.body, true));
        Envelope { stray: true, key, ..self.clone() }
    }
}

/// A rule of which a state says that it was broken.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Rule {
    /// One node may write a page, or any number may read it (I1).
    OneWriterOrReaders,
    /// Every access finds what was stored last.
    LatestStore,
    /// The page table is what the machine believes.
    TableIsBelief,
    /// `Machine::invariants` hold.
    Invariants,
    /// No node refuses what another node's machine said, nor gives a page up for lost.
    NothingRefused,
    /// The machine wants only what its driver can do.
    ActionsFit,
    /// A frame does not change while its bytes are on their way.
    BodyIsFrame,
    /// A message for which nobody waits changes nothing.
    StraysChangeNothing,
    /// The machine does not panic.
    NoPanic,
    /// When nothing more is under way, nobody waits.
    EveryFaultEnds,
    /// At rest, the directory says who holds what.
    DirectoryIsRight,
    /// At rest, the owner's frame holds what was stored last.
    OwnerIsCurrent,
}

/// A state of the cluster.
#[derive(Clone, PartialEq, Hash, Debug)]
pub struct State {
    /// The nodes, by rank.
    pub nodes: Vec<Shared<Node>>,
    /// The messages under way, in an order that is the same for equal sets of them.
    pub network: Vec<Envelope>,
    /// What each page holds, for whoever may access it.
    pub latest: Vec<Version>,
    /// How many more probes may be answered before their instruction has retired.
    pub hasty: u8,
    /// How many more grants may come twice.
    pub strays: u8,
    /// The first rule that was broken on the way here, and how. Nothing happens after that.
    pub broken: Option<(Rule, String)>,
}

impl State {
    /// The cluster at its start.
    pub fn new(configuration: &Configuration) -> State {
        let members = Copyset::first(configuration.threads.len());
        let pages = configuration.homes.len();
        let node = |me| {
            let threads = configuration.threads[NodeId::index(me)].iter();
            Shared::new(Node {
                machine: Machine::new(me, members, configuration.geometry()),
                table: vec![Access::None; pages],
                frames: vec![0; pages],
                threads: threads.map(|&left| Thread { left, doing: None, faulted: None }).collect(),
                unretired: vec![0; pages],
                probes: BTreeSet::new(),
                timers: BTreeMap::new(),
                held: Vec::new(),
                overdue: Vec::new(),
                said: BTreeSet::new(),
            })
        };
        State {
            nodes: members.iter().map(node).collect(),
            network: Vec::new(),
            latest: vec![0; pages],
            hasty: configuration.hasty,
            strays: configuration.strays,
            broken: None,
        }
    }

    /// Puts a message on its way.
    pub fn transmit(&mut self, envelope: Envelope, network: Network) {
        let pair = (envelope.from, envelope.to);
        let place = match network {
            Network::Fifo => self.network.partition_point(|other| (other.from, other.to) <= pair),
            Network::Unordered => {
                let order = |envelope: &Envelope| (envelope.from, envelope.to, envelope.key);
                self.network.partition_point(|other| order(other) < order(&envelope))
            }
        };
        self.network.insert(place, envelope);
    }

    /// Whether the message at `index` can come next.
    pub fn is_deliverable(&self, index: usize, network: Network) -> bool {
        let Some(before) = index.checked_sub(1).map(|before| &self.network[before]) else { return true };
        let this = &self.network[index];
        match network {
            Network::Fifo => (before.from, before.to) != (this.from, this.to),
            // Of two that are the same it does not matter which comes.
            Network::Unordered => before.key != this.key,
        }
    }
}
