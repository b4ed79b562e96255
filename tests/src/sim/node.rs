//! One simulated node: its machine, its page table and frames, its threads and their calls. Data only; what happens
//! to it is in `executor`, `threads` and `calls`.

use super::plan::{Plan, WORDS};
use super::program::Operation;
use dsm_core::{Access, CallId, Copyset, Machine, NodeId, PageId, SpanRange, Time, Timer, Want};
use std::collections::{BTreeMap, VecDeque};

/// The bytes of one page, in few words.
pub type Frame = [u64; WORDS];

/// A page's bytes on their way.
#[derive(Clone, Copy, Debug)]
pub struct Body {
    /// Which page.
    pub page: PageId,
    /// Its bytes when they were sent.
    pub frame: Frame,
}

/// A virtual thread.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ThreadId {
    /// Whose.
    pub node: NodeId,
    /// Which of the node's.
    pub index: usize,
}

/// What a virtual thread is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// It runs, or waits for a core.
    Ready,
    /// It waits for a page.
    Faulted {
        /// Which.
        page: PageId,
        /// For what.
        want: Want,
        /// Since when.
        since: Time,
    },
    /// It waits for an answer.
    Calling(CallId),
    /// Its program has ended.
    Done,
}

/// A virtual thread's memory of itself.
#[derive(Clone, Debug)]
pub struct Thread {
    /// What it is still to do.
    pub program: VecDeque<Operation>,
    /// What it is doing.
    pub state: State,
    /// What it loaded last in a critical section.
    pub register: u64,
    /// What it loaded last from any word.
    pub seen: u64,
    /// When it tried the instruction at hand first.
    pub began: Option<Time>,
    /// When it asked for the lock that it has.
    pub entered: Time,
    /// When it began to add to a lock's word.
    pub adding: Time,
    /// What the instructions gave that a section on a structure has carried out.
    pub record: Vec<u64>,
    /// The call by which it holds a lock.
    pub acquired: Option<CallId>,
    /// The spans that it leased, the latest last.
    pub leases: Vec<SpanRange>,
    /// How often the instruction at hand has faulted.
    pub faults: u32,
}

/// What a call asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CallKind {
    /// A lock, by index.
    Lock(usize),
    /// The barrier.
    Barrier,
    /// The barrier, while another thread of the node is in it.
    Intrusion,
    /// The end.
    Leave,
    /// A root, by index, and the layout expected.
    Claim(usize, u64),
    /// So many pages; `true` for a domain of their own.
    Lease(u64, bool),
    /// The span that holds a page.
    Find(SpanRange),
}

/// A call that waits for its answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Call {
    /// Whose.
    pub thread: ThreadId,
    /// What for.
    pub kind: CallKind,
}

/// One node.
pub struct SimNode {
    /// The protocol under test.
    pub machine: Machine,
    /// The page table.
    pub access: Vec<Access>,
    /// The local memory.
    pub frames: Vec<Frame>,
    /// Per page, the threads (as bits) for which it was mapped and whose instruction has not retired.
    pub unretired: Vec<u8>,
    /// The threads.
    pub threads: Vec<Thread>,
    /// The calls that wait.
    pub calls: BTreeMap<CallId, Call>,
    /// How many calls there were.
    pub calls_made: u64,
    /// The latest timer of each name, by its number.
    pub timers: BTreeMap<Timer, u64>,
    /// How many timers there were.
    pub timers_set: u64,
    /// What this node sent last of each page.
    pub sent: BTreeMap<PageId, Frame>,
    /// Whether it was killed.
    pub dead: bool,
    /// Whose death it knows of.
    pub mourned: Copyset,
}

impl SimNode {
    /// A node at its start.
    #[must_use]
    pub fn new(plan: &Plan, me: NodeId, programs: Vec<VecDeque<Operation>>) -> SimNode {
        let pages = usize::try_from(plan.geometry.pages()).unwrap_or(0);
        let thread = |program| Thread {
            program,
            state: State::Ready,
            register: 0,
            seen: 0,
            began: None,
            entered: Time::ZERO,
            adding: Time::ZERO,
            record: Vec::new(),
            acquired: None,
            leases: Vec::new(),
            faults: 0,
        };
        SimNode {
            machine: Machine::new(me, plan.members, plan.geometry),
            access: vec![Access::None; pages],
            frames: vec![[0; WORDS]; pages],
            unretired: vec![0; pages],
            threads: programs.into_iter().map(thread).collect(),
            calls: BTreeMap::new(),
            calls_made: 0,
            timers: BTreeMap::new(),
            timers_set: 0,
            sent: BTreeMap::new(),
            dead: false,
            mourned: Copyset::EMPTY,
        }
    }

    /// What the page table allows.
    #[must_use]
    pub fn access(&self, page: PageId) -> Access {
        self.access[slot(page)]
    }

    /// Names a call.
    pub fn call(&mut self, thread: ThreadId, kind: CallKind) -> CallId {
        self.calls_made += 1;
        let call = CallId(self.calls_made);
        self.calls.insert(call, Call { thread, kind });
        call
    }
}

/// A page as an index; the plan's regions have a few hundred pages.
#[must_use]
pub fn slot(page: PageId) -> usize {
    usize::try_from(page.0).unwrap_or(usize::MAX)
}
