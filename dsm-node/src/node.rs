//! This process's node: what the interface's calls share, and how they reach the engine.
//!
//! A process joins once, so there is one node per process. It is never freed: references into the region, and
//! threads that outlive the `Dsm`, may ask for it at any time, and then learn that the node has left.

use crate::error::{Error, Lost, Result};
use crate::stats::Stats;
use crate::testing::{Examination, RecoveryTime};
use crate::views::{View, ViewLog};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use dsm_core::{CallId, Command, Geometry, NodeId, Reply, Time, ViewId};
use nix::sys::eventfd::EventFd;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

static CURRENT: OnceLock<Node> = OnceLock::new();
static JOINING: AtomicBool = AtomicBool::new(false);

/// Recoveries of which the times are kept: more than a test or a demonstration looks at.
const RECOVERIES_KEPT: usize = 1024;

/// What an application thread hands to the engine.
pub(crate) enum Order {
    /// A command for the machine.
    Call(Call),
    /// Count what has happened so far.
    Count(Sender<Stats>),
    /// Hold what the protocol believes about the pages to what the page tables say.
    Examine(Sender<Result<Examination>>),
    /// This node is done: say goodbye to the peers, give the region up, end; at once where every node is, and else when
    /// others keep all of its pages, but after this time at the latest.
    Stop(Option<Duration>),
}

/// A command, and who waits for its answer.
pub(crate) struct Call {
    /// The call's name; the machine's completions carry it.
    pub id: CallId,
    /// What is asked.
    pub command: Command,
    /// Where the answer goes, if one is expected.
    pub answer: Option<Sender<Reply>>,
}

/// The way from application threads to the engine: a queue, and a descriptor that wakes it.
pub(crate) struct Caller {
    orders: Sender<Order>,
    wake: Arc<EventFd>,
    next: AtomicU64,
}

/// A call that the engine has and has not answered yet.
pub(crate) struct Waiting<'a> {
    /// Its name, for commands that speak of it.
    pub id: CallId,
    answer: Receiver<Reply>,
    node: &'a Node,
}

/// How a membership ended that this node did not give up by itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ending {
    /// The others went on without this node, in this view.
    Evicted {
        /// The first view without it, or the last that it knew of.
        view: ViewId,
    },
    /// A majority could not be reached for too long.
    NoQuorum,
}

/// The node of this process.
pub(crate) struct Node {
    /// This node's rank.
    pub rank: NodeId,
    /// The nodes at the start.
    pub size: u32,
    /// The crashes that the cluster is to survive. With none, nothing is replicated, and nothing is to be done for it.
    pub replicas: u32,
    /// The region's shape.
    pub geometry: Geometry,
    /// The process that joined.
    process: u32,
    caller: Caller,
    left: AtomicBool,
    ending: OnceLock<Ending>,
    views: ViewLog,
    recoveries: Mutex<Vec<RecoveryTime>>,
}

impl Caller {
    /// A way to the engine that takes from the other end of `orders` when `wake` becomes readable.
    pub fn new(orders: Sender<Order>, wake: Arc<EventFd>) -> Caller {
        Caller { orders, wake, next: AtomicU64::new(0) }
    }

    fn submit(&self, command: Command, answer: Option<Sender<Reply>>) -> Result<CallId> {
        let id = CallId(self.next.fetch_add(1, Ordering::Relaxed));
        self.order(Order::Call(Call { id, command, answer }))?;
        Ok(id)
    }

    fn order(&self, order: Order) -> Result<()> {
        self.orders.send(order).map_err(|_| Error::NotJoined)?;
        self.wake.write(1).map_err(|errno| Error::io("waking the engine", errno))?;
        Ok(())
    }
}

impl Node {
    /// A node that has joined, of which nobody knows yet.
    pub fn new(rank: NodeId, size: u32, geometry: Geometry, caller: Caller) -> Node {
        Node {
            rank,
            size,
            replicas: 0,
            geometry,
            process: std::process::id(),
            caller,
            left: AtomicBool::new(false),
            ending: OnceLock::new(),
            views: ViewLog::new(size),
            recoveries: Mutex::new(Vec::new()),
        }
    }

    /// The same node, in a cluster that is to survive so many crashes.
    #[must_use]
    pub fn with_replicas(self, replicas: u32) -> Node {
        Node { replicas, ..self }
    }

    /// Reserves this process's one join. The reservation is given back with [`Node::abandon_join`] if joining fails
    /// before it has touched the address space.
    pub fn begin_join() -> Result<()> {
        if JOINING.swap(true, Ordering::AcqRel) { Err(Error::AlreadyJoined) } else { Ok(()) }
    }

    /// Says at once that this process has joined: before a join takes what a launcher passed to this process once.
    pub fn refuse_second_join() -> Result<()> {
        if CURRENT.get().is_some() { Err(Error::AlreadyJoined) } else { Ok(()) }
    }

    /// Gives the reservation of a join that failed back.
    pub fn abandon_join() {
        JOINING.store(false, Ordering::Release);
    }

    /// Makes `node` this process's.
    pub fn install(node: Node) -> Result<&'static Node> {
        CURRENT.set(node).map_err(|_| Error::AlreadyJoined)?;
        CURRENT.get().ok_or(Error::NotJoined)
    }

    /// This process's node, if it has joined and not left.
    pub fn current() -> Result<&'static Node> {
        let node = CURRENT.get().ok_or(Error::NotJoined)?;
        // A forked child has a copy of this, but neither an engine nor the region.
        if node.left.load(Ordering::Acquire) || !node.is_of_this_process() {
            return Err(Error::NotJoined);
        }
        // The region is gone, or about to go.
        node.ending.get().map_or(Ok(node), |ending| Err(ending.error()))
    }

    /// Notes how this node's membership ended: calls say so from now on, and so do those that the engine leaves without
    /// an answer. To be said before the region goes. The first word counts.
    pub fn end(&self, ending: Ending) {
        // A node that was evicted may find no quorum besides.
        let _ = self.ending.set(ending);
        self.views.end();
    }

    /// The view that is without this process's node, if it was evicted; else zero, which no view has.
    pub fn evicted_in() -> u64 {
        match CURRENT.get().and_then(|node| node.ending.get()) {
            Some(Ending::Evicted { view }) => view.0,
            Some(Ending::NoQuorum) | None => 0,
        }
    }

    /// Notes that this node has left: later calls say so.
    pub fn mark_left(&self) {
        self.left.store(true, Ordering::Release);
        self.views.end();
    }

    /// Whether this process joined, and is not a forked child of the one that did.
    pub fn is_of_this_process(&self) -> bool {
        self.process == std::process::id()
    }

    /// Notes that a view is installed. For the engine, before it completes any call in that view: takes a lock that
    /// nobody holds for longer than it takes to copy a view.
    pub fn publish_view(&self, view: &dsm_core::View) {
        self.views.publish(View::from(view));
    }

    /// The view of this number.
    pub fn view_of(&self, view: ViewId) -> View {
        self.views.of(view)
    }

    /// The views that were installed.
    pub fn views(&self) -> &ViewLog {
        &self.views
    }

    /// Notes that a recovery is over. Of many, the first are kept.
    pub fn note_recovery(&self, recovery: RecoveryTime) {
        let mut recoveries = self.recoveries.lock();
        if recoveries.len() < RECOVERIES_KEPT {
            recoveries.push(recovery);
        }
    }

    /// Notes when the first fault was resolved that had waited when `view` was installed.
    pub fn note_first_resolved(&self, view: ViewId, at: Time) {
        let mut recoveries = self.recoveries.lock();
        if let Some(recovery) = recoveries.iter_mut().find(|recovery| recovery.view == view.0) {
            recovery.first_resolved_at = Some(at.as_nanos());
        }
    }

    /// The recoveries so far.
    pub fn recoveries(&self) -> Vec<RecoveryTime> {
        self.recoveries.lock().clone()
    }

    /// Hands a command to the engine and waits for the answer. Blocks on whom the command's documentation names.
    pub fn call(&self, command: Command) -> Result<Reply> {
        self.start(command)?.wait()
    }

    /// Hands a command that has an answer to the engine, without waiting.
    pub fn start(&self, command: Command) -> Result<Waiting<'_>> {
        self.check()?;
        let (sender, answer) = bounded(1);
        let id = self.caller.submit(command, Some(sender)).map_err(|error| self.ended_or(error))?;
        Ok(Waiting { id, answer, node: self })
    }

    /// Hands a command without an answer to the engine. Never blocks.
    pub fn post(&self, command: Command) -> Result<()> {
        self.caller.submit(command, None).map(|_| ()).map_err(|error| self.ended_or(error))
    }

    /// Waits until what this node wrote outside open sections survives as many crashes as there are replicas. Blocks on
    /// the nodes that keep this node's commits.
    pub fn sync(&self) -> Result<()> {
        self.check()?;
        if self.replicas == 0 {
            return Ok(());
        }
        match self.call(Command::Sync)? {
            Reply::Synced => Ok(()),
            other => Err(Error::unexpected("a sync", other)),
        }
    }

    /// What has been counted so far. Blocks on this node's engine alone.
    pub fn stats(&self) -> Result<Stats> {
        let (sender, answer) = bounded(1);
        self.caller.order(Order::Count(sender))?;
        answer.recv().map_err(|_| self.ended_or(Error::NotJoined))
    }

    /// Asks the engine for what it believes about its pages.
    pub fn examine(&self, answer: Sender<Result<Examination>>) -> Result<()> {
        self.caller.order(Order::Examine(answer))
    }

    /// Tells the engine to end. It does so in bounded time, but for what [`Order::Stop`] waits for.
    pub fn stop(&self, patience: Option<Duration>) -> Result<()> {
        self.caller.order(Order::Stop(patience))
    }

    /// Whether this node is a member yet; else, how that ended.
    pub fn check(&self) -> Result<()> {
        self.ending.get().map_or(Ok(()), |ending| Err(ending.error()))
    }

    /// How the membership ended, if it has; else `error`.
    fn ended_or(&self, error: Error) -> Error {
        self.ending.get().map_or(error, |ending| ending.error())
    }

    fn settle(&self, reply: Reply) -> Result<Reply> {
        match reply {
            Reply::Lost(lost) => Err(Error::Lost(Lost::new(&self.geometry, lost))),
            other @ (Reply::Locked { .. }
            | Reply::LockDenied { .. }
            | Reply::BarrierPassed { .. }
            | Reply::Busy
            | Reply::Left
            | Reply::Synced
            | Reply::Covered
            | Reply::Ensured
            | Reply::Root(_)
            | Reply::Span(_)
            | Reply::SpanDenied { .. }
            | Reply::SpanFound(_)
            // Only machines without a membership answer so: whoever called says that it did not expect that.
            | Reply::PeerLost { .. }) => Ok(other),
        }
    }
}

impl Ending {
    /// What calls say after it.
    fn error(self) -> Error {
        match self {
            Ending::Evicted { view } => Error::Evicted { view: view.0 },
            Ending::NoQuorum => Error::NoQuorum,
        }
    }
}

impl Waiting<'_> {
    /// Waits for the answer.
    pub fn wait(self) -> Result<Reply> {
        match self.answer.recv() {
            Ok(reply) => self.node.settle(reply),
            Err(_) => Err(self.node.ended_or(Error::NotJoined)),
        }
    }

    /// Waits for the answer, for `patience` at most; `None` if it has not come.
    pub fn wait_timeout(&self, patience: Duration) -> Result<Option<Reply>> {
        match self.answer.recv_timeout(patience) {
            Ok(reply) => self.node.settle(reply).map(Some),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(self.node.ended_or(Error::NotJoined)),
        }
    }
}
