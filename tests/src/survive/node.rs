//! One node: its machine, page table, frames, and what it has set aside. Data only.

use super::network::Said;
use super::plan::{Plan, Step, Trigger, WORDS};
use dsm_core::{
    Access, CallId, Incarnation, Machine, NodeId, PageId, RecordId, Time, Timer, View, ViewId, Want,
};
use std::collections::{BTreeMap, VecDeque};

/// The bytes of one page, in few words.
pub type Frame = [u64; WORDS];

/// What a thread is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    Ready,
    Faulted(PageId, Want),
    Calling(CallId),
    Done,
}

/// A virtual thread.
#[derive(Clone, Debug)]
pub struct Thread {
    pub program: VecDeque<Step>,
    pub state: State,
    /// The call by which it holds a lock.
    pub acquired: Option<CallId>,
    /// What its section found in the counters.
    pub found: u64,
    /// Since when it has been in its state.
    pub since: Time,
}

/// One node.
pub struct SimNode {
    pub me: NodeId,
    /// Which process of the run this is.
    pub life: NodeId,
    /// What views call this process.
    pub incarnation: Option<Incarnation>,
    pub machine: Machine,
    pub access: Vec<Access>,
    pub frames: Vec<Frame>,
    pub twins: BTreeMap<PageId, Frame>,
    /// Bytes that came for frames that keep something.
    pub aside: BTreeMap<PageId, Frame>,
    /// Bytes of records that do not count yet.
    pub records: BTreeMap<(NodeId, RecordId), BTreeMap<PageId, Frame>>,
    pub poisoned: Vec<bool>,
    pub threads: Vec<Thread>,
    /// The threads that wait for calls.
    pub calls: BTreeMap<CallId, usize>,
    pub calls_made: u64,
    /// What `sync` calls promise once they are answered: stores, and sections of each domain.
    pub promises: BTreeMap<CallId, (u64, Vec<u64>)>,
    pub timers: BTreeMap<Timer, u64>,
    pub timers_set: u64,
    /// The last record of each node that counted here.
    pub through: BTreeMap<NodeId, RecordId>,
    /// The view that this process was let into.
    pub joined: ViewId,
    /// The view that is installed, and the last in which the node served.
    pub installed: ViewId,
    pub serving: ViewId,
    /// Messages of views that are not installed here yet.
    pub early: Vec<Said>,
    /// How often it has done what it may die of.
    pub did: BTreeMap<Trigger, u64>,
    pub dead: bool,
    /// Whether its threads have begun.
    pub begun: bool,
}

impl SimNode {
    /// A member from the beginning.
    pub fn new(plan: &Plan, me: NodeId) -> SimNode {
        let machine = Machine::in_view(me, plan.view.clone(), plan.geometry);
        SimNode::with(plan, me, me, machine, &plan.programs[me.index()])
    }

    /// The run's process number `life`, which is let into `view`.
    pub fn joining(plan: &Plan, me: NodeId, life: NodeId, view: View, programs: &[Vec<Step>]) -> SimNode {
        let machine = Machine::joining(me, view, plan.geometry);
        let (installed, serving) = (ViewId::NONE, ViewId::NONE);
        SimNode { installed, serving, begun: false, ..SimNode::with(plan, me, life, machine, programs) }
    }

    fn with(plan: &Plan, me: NodeId, life: NodeId, machine: Machine, programs: &[Vec<Step>]) -> SimNode {
        let pages = usize::try_from(plan.geometry.pages()).unwrap_or(0);
        let thread = |program: &Vec<Step>| Thread {
            program: program.iter().copied().collect(),
            state: State::Ready,
            acquired: None,
            found: 0,
            since: Time::ZERO,
        };
        let incarnation = machine.view().member(me).map(|member| member.incarnation);
        let machine = machine.with_unreplicated_max(plan.unreplicated_max);
        SimNode {
            me,
            life,
            incarnation,
            machine,
            access: vec![Access::None; pages],
            frames: vec![[0; WORDS]; pages],
            twins: BTreeMap::new(),
            aside: BTreeMap::new(),
            records: BTreeMap::new(),
            poisoned: vec![false; pages],
            threads: programs.iter().map(thread).collect(),
            calls: BTreeMap::new(),
            calls_made: 0,
            promises: BTreeMap::new(),
            timers: BTreeMap::new(),
            timers_set: 0,
            through: BTreeMap::new(),
            joined: plan.view.id(),
            installed: plan.view.id(),
            serving: plan.view.id(),
            early: Vec::new(),
            did: BTreeMap::new(),
            dead: false,
            begun: true,
        }
    }

    /// Whether the node has recovered from all changes of the view that it knows of.
    pub fn serves(&self) -> bool {
        self.serving == self.installed && self.installed > ViewId::NONE
    }
}

/// A page as an index.
pub fn slot(page: PageId) -> usize {
    usize::try_from(page.0).unwrap_or(usize::MAX)
}
