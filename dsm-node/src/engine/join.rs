//! Joining: from a configuration to a running node.

use super::Engine;
use super::faults::Faults;
use super::poller::{Poller, Source};
use super::timers::Timers;
use crate::config::{Config, TransportKind};
use crate::dsm::Dsm;
use crate::error::{Error, Result};
use crate::layout;
use crate::log::Logger;
use crate::node::{Caller, Node, Order};
use crate::region::Region;
use crate::signals;
use crate::stats::Stats;
use crate::transport::{self, Endpoint, Formation, Identity, Kind, Mesh};
use crossbeam_channel::{Receiver, unbounded};
use dsm_core::{Copyset, Geometry, Incarnation, Machine, NodeId};
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The name of the engine's thread, as debuggers show it.
const THREAD_NAME: &str = "dsm-engine";

/// How long a node that ends waits for its last log lines to be written.
const LOG_PATIENCE: Duration = Duration::from_secs(1);

/// Makes this process a node of the cluster that `config` describes. Blocks on the other nodes until all have come, or
/// the patience of the configuration is over.
pub(crate) fn join(config: Config) -> Result<Dsm> {
    Node::begin_join()?;
    try_join(config).inspect_err(|_| Node::abandon_join())
}

fn try_join(config: Config) -> Result<Dsm> {
    let geometry = config.geometry;
    let me = config.rank;
    let nodes = config.nodes;
    let region = Region::new(geometry)?;
    let log = Logger::start(me).map_err(|error| Error::io("starting the log's thread", error))?;
    let mesh = transport::form(formation(config)?)?;
    signals::install(geometry)?;

    let (orders_in, orders) = unbounded();
    let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
    let wake =
        EventFd::from_flags(flags).map_err(|errno| Error::io("creating the engine's wake-up", errno))?;
    let wake = Arc::new(wake);
    let caller = Caller::new(orders_in, Arc::clone(&wake));
    let node = Node::install(Node::new(me, u32::from(nodes), geometry, caller))?;
    let parts = Parts { me, nodes, geometry, region, mesh, orders, wake, log: log.clone() };
    let thread = start(Engine::new(node, parts)?)?;
    Ok(Dsm::new(node, move || end(node, thread, &log)))
}

/// What an engine is made of.
pub(super) struct Parts {
    me: NodeId,
    nodes: u16,
    geometry: Geometry,
    region: Region,
    mesh: Mesh,
    orders: Receiver<Order>,
    wake: Arc<EventFd>,
    log: Logger,
}

impl Engine {
    fn new(node: &'static Node, parts: Parts) -> Result<Engine> {
        let Parts { me, nodes, geometry, region, mut mesh, orders, wake, log } = parts;
        let poller = Poller::new()?;
        let timers = Timers::new()?;
        poller.watch(Source::Faults, region.uffd())?;
        poller.watch(Source::Orders, &*wake)?;
        poller.watch(Source::Timer, &timers)?;
        poller.watch(Source::Incoming, &*mesh.incoming_wake)?;
        let links = std::mem::take(&mut mesh.links);
        for link in links.iter().flatten() {
            if let Some(descriptor) = link.descriptor() {
                poller.watch_peer(link.peer(), descriptor)?;
            }
        }
        let machine = Machine::new(me, Copyset::first(usize::from(nodes)), geometry);
        // The one source of chance in the standard library.
        let machine = machine.with_transaction_key(RandomState::new().build_hasher().finish());
        Ok(Engine {
            node,
            me,
            geometry,
            machine,
            region,
            links,
            mesh,
            poller,
            timers,
            faults: Faults::default(),
            fault_buffer: None,
            orders,
            wake,
            answers: HashMap::new(),
            upcoming: VecDeque::new(),
            leftover: Vec::new(),
            actions: Vec::new(),
            unflushed: Vec::new(),
            held_back: Copyset::EMPTY,
            timer_ran_out: false,
            blocked: Copyset::EMPTY,
            stats: Stats::default(),
            log,
            departing: false,
            stopping: false,
            lost: Copyset::EMPTY,
            lost_at: None,
        })
    }
}

/// Starts the engine's thread. If it ends in any way but as told, the process ends with it: the threads that wait for
/// pages could neither go on nor be told.
fn start(engine: Engine) -> Result<JoinHandle<()>> {
    let rank = engine.me.rank();
    let run = move || match catch_unwind(AssertUnwindSafe(|| engine.run())) {
        Ok(Ok(())) => {}
        Ok(Err(error)) => signals::die(&format!("rank {rank}: the engine failed: {error}")),
        // The panic's own message is out already.
        Err(_) => signals::die(&format!("rank {rank}: the engine panicked; the process ends")),
    };
    thread::Builder::new()
        .name(String::from(THREAD_NAME))
        .spawn(run)
        .map_err(|error| Error::io("starting the engine's thread", error))
}

/// The end of a node: tells the engine, and waits until it has given up the region, and what it said is out.
fn end(node: &'static Node, thread: JoinHandle<()>, log: &Logger) -> Result<()> {
    node.mark_left();
    node.stop()?;
    // A panic of the engine ends the process: there is no other way to come back without a result.
    let _ = thread.join();
    // A log that is stuck, behind the lock of a program's thread perhaps, does not keep the node from ending.
    log.flush(LOG_PATIENCE);
    Ok(())
}

fn formation(config: Config) -> Result<Formation> {
    let parse = |text: &str| {
        text.parse::<Endpoint>().map_err(|error| Error::Config(format!("address {text:?}: {error}")))
    };
    Ok(Formation {
        rank: config.rank,
        nodes: config.nodes,
        geometry: config.geometry,
        identity: Identity { compiler: layout::compiler().to_owned(), types: layout::registered() },
        incarnation: incarnation(),
        rendezvous: parse(&config.rendezvous)?,
        rendezvous_listener: config.rendezvous_fd,
        listen: config.listen.as_deref().map(parse).transpose()?,
        kind: match config.transport {
            TransportKind::Tcp => Kind::Tcp,
            TransportKind::Unix => Kind::Unix,
        },
        patience: config.patience,
        trust_network: config.trust_network,
    })
}

/// A number that no other life of this rank has: the time, and the process.
fn incarnation() -> Incarnation {
    /// Process ids have at most 22 bits; the time's nanoseconds move far above them.
    const PROCESS_BITS: u32 = 22;
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let nanos = u64::try_from(since.as_nanos() & u128::from(u64::MAX)).unwrap_or(0);
    Incarnation((nanos << PROCESS_BITS) ^ u64::from(std::process::id()))
}
