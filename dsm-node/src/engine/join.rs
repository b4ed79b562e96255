//! Joining: from a configuration to a running node.

use super::Engine;
use super::admission::{Admission, be_admitted};
use super::copies::Copies;
use super::failpoints;
use super::faults::Faults;
use super::members::{Beginning, Members};
use super::poller::{Poller, Source};
use super::replicate::Discards;
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
use crate::transport::{self, Endpoint, Formation, Habitat, Identity, Kind, Link, Mesh, Terms};
use crate::witness::Channel;
use crossbeam_channel::{Receiver, unbounded};
use dsm_core::membership::Candidate;
use dsm_core::{Copyset, Event, Geometry, Host, Incarnation, Machine, NodeId, View};
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::collections::{HashMap, VecDeque};
use std::fs;
use std::hash::{BuildHasher, Hasher, RandomState};
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
    let region = Region::new(geometry)?;
    let log = Logger::start(me).map_err(|error| Error::io("starting the log's thread", error))?;
    let (replicas, settings) = (config.replicas, config.settings);
    let habitat = habitat(config.host.as_deref());
    let witness = Channel::inherit();
    let formation = formation(config, habitat, witness.is_some())?;
    let incarnation = formation.incarnation;
    let mut mesh = transport::form(formation)?;
    let settings = settings.with_witness(mesh.witness);
    let (view, standing) = if mesh.runs {
        let candidate = Candidate { node: me, incarnation, host: habitat.host };
        let admission = be_admitted(&mut mesh, &region, candidate, settings)?;
        (admission.view.clone(), Standing::Admitted(admission))
    } else {
        let members = mesh.peers.iter().map(|(node, it)| (*node, it.incarnation, it.habitat.host));
        let view = View::first(members, replicas);
        let beginning = Beginning { me, habitat, incarnation, settings, view: view.clone(), witness };
        (view, Standing::Founder(beginning))
    };
    signals::install(geometry)?;

    let (orders_in, orders) = unbounded();
    let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
    let wake =
        EventFd::from_flags(flags).map_err(|errno| Error::io("creating the engine's wake-up", errno))?;
    let wake = Arc::new(wake);
    let caller = Caller::new(orders_in, Arc::clone(&wake));
    let node = Node::new(me, u32::from(mesh.nodes), geometry, caller).with_replicas(replicas);
    let node = Node::install(node)?;
    node.publish_view(&view);
    let parts = Parts { me, geometry, habitat, view, standing, region, mesh, orders, wake, log: log.clone() };
    let thread = start(Engine::new(node, parts)?)?;
    Ok(Dsm::new(node, move |patience| end(node, thread, &log, patience)))
}

/// How a node came to be a member.
pub(super) enum Standing {
    /// The cluster was formed with it.
    Founder(Beginning),
    /// It was let in later.
    Admitted(Admission),
}

/// What an engine is made of.
pub(super) struct Parts {
    pub me: NodeId,
    pub geometry: Geometry,
    pub habitat: Habitat,
    pub view: View,
    pub standing: Standing,
    pub region: Region,
    pub mesh: Mesh,
    pub orders: Receiver<Order>,
    pub wake: Arc<EventFd>,
    pub log: Logger,
}

impl Engine {
    pub(super) fn new(node: &'static Node, parts: Parts) -> Result<Engine> {
        let Parts { me, geometry, habitat, view, standing, region, mut mesh, orders, wake, log } = parts;
        let poller = Poller::new()?;
        let timers = Timers::new()?;
        poller.watch(Source::Faults, region.uffd())?;
        poller.watch(Source::Orders, &*wake)?;
        poller.watch(Source::Timer, &timers)?;
        poller.watch(Source::Incoming, &*mesh.incoming_wake)?;
        let links = std::mem::take(&mut mesh.links);
        watch_attached(&poller, &links)?;
        let peers = std::mem::take(&mut mesh.peers);
        let mut upcoming = VecDeque::new();
        let (machine, members) = match standing {
            Standing::Founder(beginning) => {
                (Machine::in_view(me, view, geometry), Members::new(timers.now(), beginning))
            }
            Standing::Admitted(admission) => {
                mesh.reconnect.install(view.iter().map(|(node, member)| (node, member.incarnation)));
                upcoming.push_back(Event::Joined);
                (Machine::joining(me, view, geometry), Members::admitted(timers.now(), admission))
            }
        };
        if let Some(witness) = members.witness() {
            poller.watch(Source::Witness, witness)?;
        }
        // The one source of chance in the standard library.
        let machine = machine.with_transaction_key(RandomState::new().build_hasher().finish());
        let mut engine = Engine {
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
            upcoming,
            leftover: Vec::new(),
            actions: Vec::new(),
            unflushed: Vec::new(),
            held_back: Copyset::EMPTY,
            timer_ran_out: false,
            blocked: Copyset::EMPTY,
            stats: Stats::default(),
            log,
            habitat,
            members,
            copies: Copies::default(),
            discards: Discards::default(),
            recovering: None,
            failpoints: failpoints::from_environment()?,
            departing: false,
            departure: None,
            stopping: false,
        };
        // Who was let in may not know all that were, before or after it.
        engine.meet_members(&engine.machine.view().clone());
        engine.install_at_links();
        engine.watch_peers(&peers)?;
        Ok(engine)
    }

    /// Links begin in the view in which this node is.
    fn install_at_links(&mut self) {
        let view = self.machine.view().id();
        self.links.iter_mut().flatten().for_each(|link| link.install(view));
    }
}

/// Waits on the connections that were made before there was an engine.
fn watch_attached(poller: &Poller, links: &[Option<Link>]) -> Result<()> {
    let mut attached = links.iter().flatten().filter_map(|link| Some((link.peer(), link.descriptor()?)));
    attached.try_for_each(|(peer, descriptor)| poller.watch_peer(peer, descriptor))
}

/// Starts the engine's thread. If it ends in any way but as told, the process ends with it: the threads that wait for
/// pages could neither go on nor be told.
fn start(engine: Engine) -> Result<JoinHandle<()>> {
    let rank = engine.me.rank();
    let run = move || {
        if let Err(error) = engine.run() {
            signals::die(&format!("rank {rank}: the engine failed: {error}"));
        }
    };
    thread::Builder::new()
        .name(String::from(THREAD_NAME))
        .spawn(run)
        .map_err(|error| Error::io("starting the engine's thread", error))
}

/// The end of a node: tells the engine, and waits until it has given up the region, and what it said is out.
fn end(node: &'static Node, thread: JoinHandle<()>, log: &Logger, patience: Option<Duration>) -> Result<()> {
    node.mark_left();
    node.stop(patience)?;
    // A panic of the engine ends the process: there is no other way to come back without a result.
    let _ = thread.join();
    // A log that is stuck, behind the lock of a program's thread perhaps, does not keep the node from ending.
    log.flush(LOG_PATIENCE);
    node.check()
}

fn formation(config: Config, habitat: Habitat, witness: bool) -> Result<Formation> {
    let parse = |text: &str| {
        text.parse::<Endpoint>().map_err(|error| Error::Config(format!("address {text:?}: {error}")))
    };
    Ok(Formation {
        rank: config.rank,
        terms: Terms {
            nodes: config.nodes,
            base: config.geometry.base().0,
            size: config.geometry.size(),
            page_size: config.geometry.page_size(),
            replicas: config.replicas,
            lease: config.settings.lease(),
            heartbeat: config.settings.heartbeat(),
            identity: Identity { compiler: layout::compiler().to_owned(), types: layout::registered() },
        },
        incarnation: incarnation(),
        habitat,
        witness,
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

/// Where this process runs: on which machine, by the name of its boot or by what the user calls it, and under which number.
fn habitat(host: Option<&str>) -> Habitat {
    /// Where the kernel tells which boot of which machine this is.
    const BOOT: &str = "/proc/sys/kernel/random/boot_id";
    /// The name space in which process numbers mean something, as a number in brackets.
    const NAME_SPACE: &str = "/proc/self/ns/pid";
    let machine = host.map(str::to_owned).or_else(|| fs::read_to_string(BOOT).ok()).unwrap_or_default();
    let name_space = fs::read_link(NAME_SPACE).unwrap_or_default();
    let boot = fs::read_to_string(BOOT).unwrap_or_default();
    Habitat {
        host: Host(fingerprint(&machine)),
        // Of another boot, the same number is another name space.
        name_space: fingerprint(&format!("{boot}{}", name_space.display())),
        process: std::process::id(),
    }
}

/// The same number for the same text in every process: FNV-1a.
fn fingerprint(text: &str) -> u64 {
    const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0100_0000_01b3;
    text.bytes().fold(BASIS, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME))
}

/// A number that no other life of this rank has: the time, and the process.
fn incarnation() -> Incarnation {
    /// Process ids have at most 22 bits; the time's nanoseconds move far above them.
    const PROCESS_BITS: u32 = 22;
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let nanos = u64::try_from(since.as_nanos() & u128::from(u64::MAX)).unwrap_or(0);
    Incarnation((nanos << PROCESS_BITS) ^ u64::from(std::process::id()))
}
