//! This process's node: what the interface's calls share, and how they reach the engine.
//!
//! A process joins once, so there is one node per process. It is never freed: references into the region, and
//! threads that outlive the `Dsm`, may ask for it at any time, and then learn that the node has left.

use crate::error::{Error, Result};
use crate::stats::Stats;
use crate::testing::Examination;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use dsm_core::{CallId, Command, Geometry, NodeId, Reply};
use nix::sys::eventfd::EventFd;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

static CURRENT: OnceLock<Node> = OnceLock::new();
static JOINING: AtomicBool = AtomicBool::new(false);

/// No peer is lost: the value of [`Node::lost_peer`] until one is. No rank is as large.
const NO_RANK: u32 = u32::MAX;

/// What an application thread hands to the engine.
pub(crate) enum Order {
    /// A command for the machine.
    Call(Call),
    /// Count what has happened so far.
    Count(Sender<Stats>),
    /// Hold what the protocol believes about the pages to what the page tables say.
    Examine(Sender<Result<Examination>>),
    /// Every node is done: say goodbye to the peers, give the region up, end.
    Stop,
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
pub(crate) struct Waiting {
    /// Its name, for commands that speak of it.
    pub id: CallId,
    answer: Receiver<Reply>,
}

/// The node of this process.
pub(crate) struct Node {
    /// This node's rank.
    pub rank: NodeId,
    /// The nodes at the start.
    pub size: u32,
    /// The region's shape.
    pub geometry: Geometry,
    /// The process that joined.
    process: u32,
    caller: Caller,
    left: AtomicBool,
    lost_peer: AtomicU32,
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
            geometry,
            process: std::process::id(),
            caller,
            left: AtomicBool::new(false),
            lost_peer: AtomicU32::new(NO_RANK),
        }
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
        if node.left.load(Ordering::Acquire) || node.process != std::process::id() {
            return Err(Error::NotJoined);
        }
        Ok(node)
    }

    /// Notes that this node has left: later calls say so.
    pub fn mark_left(&self) {
        self.left.store(true, Ordering::Release);
    }

    /// Notes that a peer is gone: later calls say so at once.
    pub fn mark_lost(&self, peer: NodeId) {
        // The first is the one that calls under way end with: what comes later is often a consequence of it.
        let _ = self.lost_peer.compare_exchange(NO_RANK, peer.rank(), Ordering::AcqRel, Ordering::Acquire);
    }

    /// Hands a command to the engine and waits for the answer. Blocks on whom the command's documentation names.
    pub fn call(&self, command: Command) -> Result<Reply> {
        self.start(command)?.wait()
    }

    /// Hands a command that has an answer to the engine, without waiting.
    pub fn start(&self, command: Command) -> Result<Waiting> {
        self.check()?;
        let (sender, answer) = bounded(1);
        let id = self.caller.submit(command, Some(sender))?;
        Ok(Waiting { id, answer })
    }

    /// Hands a command without an answer to the engine. Never blocks.
    pub fn post(&self, command: Command) -> Result<()> {
        self.caller.submit(command, None).map(|_| ())
    }

    /// What has been counted so far. Blocks on this node's engine alone.
    pub fn stats(&self) -> Result<Stats> {
        let (sender, answer) = bounded(1);
        self.caller.order(Order::Count(sender))?;
        answer.recv().map_err(|_| Error::NotJoined)
    }

    /// Asks the engine for what it believes about its pages.
    pub fn examine(&self, answer: Sender<Result<Examination>>) -> Result<()> {
        self.caller.order(Order::Examine(answer))
    }

    /// Tells the engine to end. It does so in bounded time.
    pub fn stop(&self) -> Result<()> {
        self.caller.order(Order::Stop)
    }

    fn check(&self) -> Result<()> {
        match self.lost_peer.load(Ordering::Acquire) {
            NO_RANK => Ok(()),
            rank => Err(Error::PeerLost { rank }),
        }
    }
}

impl Waiting {
    /// Waits for the answer.
    pub fn wait(self) -> Result<Reply> {
        settle(self.answer.recv().map_err(|_| Error::NotJoined)?)
    }

    /// Waits for the answer, for `patience` at most; `None` if it has not come.
    pub fn wait_timeout(&self, patience: Duration) -> Result<Option<Reply>> {
        match self.answer.recv_timeout(patience) {
            Ok(reply) => settle(reply).map(Some),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(Error::NotJoined),
        }
    }
}

fn settle(reply: Reply) -> Result<Reply> {
    match reply {
        Reply::PeerLost { node } => Err(Error::PeerLost { rank: node.rank() }),
        other @ (Reply::Locked { .. }
        | Reply::LockDenied { .. }
        | Reply::BarrierPassed { .. }
        | Reply::Busy
        | Reply::Left
        | Reply::Synced
        | Reply::Ensured
        | Reply::Lost(_)
        | Reply::Root(_)
        | Reply::Span(_)
        | Reply::SpanDenied { .. }
        | Reply::SpanFound(_)) => Ok(other),
    }
}
