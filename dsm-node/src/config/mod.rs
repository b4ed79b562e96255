//! What a node needs to know before it joins: its place, where the others are, the region's shape.
//!
//! Three sources, the earlier winning: what the program says through [`Builder`], the `DSM_*` variables, and the
//! variables of a launcher (`launchers`). Who is told nothing is a cluster of one. Nothing is opened here but the
//! inherited rendezvous socket; whether addresses can be reached, and agree with the other nodes, shows at join.

mod environment;
mod inherited;
mod launchers;
mod values;

pub(crate) use inherited::{VARIABLE as RENDEZVOUS_FD, take as take_inherited};

use crate::dsm::Dsm;
use crate::error::{Error, Result};
use crate::node::Node;
use dsm_core::membership::Settings;
use dsm_core::{Geometry, GeometryError, NodeId, limits};
use environment::Environment;
use launchers::{Meeting, Place};
use std::fmt;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

/// Nodes in one cluster, as ranks count them.
const NODES_MAX: u32 = limits::NODES_MAX as u32;

/// How long a join waits for the other nodes unless told otherwise: a cluster manager starts its last process long
/// after its first.
const PATIENCE_DEFAULT: Duration = Duration::from_secs(30);

/// Unless the user says otherwise, one crash is survived, where there is a second node.
const REPLICAS_DEFAULT: u32 = 1;

/// Where a cluster of one meets itself: any free port of this machine.
const ALONE: &str = "127.0.0.1:0";

/// How nodes talk to each other.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[non_exhaustive]
pub enum TransportKind {
    /// TCP: between machines, and on one.
    #[default]
    Tcp,
    /// Unix sockets in the abstract namespace: on one machine only.
    Unix,
}

impl TransportKind {
    /// The name that `DSM_TRANSPORT` and `--transport` take.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            TransportKind::Tcp => "tcp",
            TransportKind::Unix => "unix",
        }
    }
}

impl fmt::Display for TransportKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for TransportKind {
    type Err = String;

    fn from_str(text: &str) -> Result<TransportKind, String> {
        match text {
            "tcp" => Ok(TransportKind::Tcp),
            "unix" => Ok(TransportKind::Unix),
            _ => Err(String::from("it must be tcp or unix")),
        }
    }
}

/// A join by hand: what is not said here is taken from the environment, as [`Dsm::join`] does.
#[derive(Clone, Default, Debug)]
#[must_use = "a builder does nothing until it joins"]
pub struct Builder {
    rank: Option<u32>,
    nodes: Option<u32>,
    rendezvous: Option<String>,
    listen: Option<String>,
    region_base: Option<u64>,
    region_size: Option<u64>,
    page_size: Option<u64>,
    replicas: Option<u32>,
    lease: Option<Duration>,
    heartbeat: Option<Duration>,
    join_timeout: Option<Duration>,
    credentials: Option<PathBuf>,
    transport: Option<TransportKind>,
    trust_network: Option<bool>,
}

/// Everything that a join needs, checked.
#[derive(Debug)]
pub(crate) struct Config {
    /// This node's rank.
    pub rank: NodeId,
    /// How many nodes there are.
    pub nodes: u16,
    /// Where rank 0 listens for the others, and the others find it.
    pub rendezvous: String,
    /// At rank 0, the socket that a launcher has bound to `rendezvous` already.
    pub rendezvous_fd: Option<OwnedFd>,
    /// Where this node listens for its peers, if the user says.
    pub listen: Option<String>,
    /// The region's shape.
    pub geometry: Geometry,
    /// How nodes talk to each other.
    pub transport: TransportKind,
    /// The crashes that the cluster is to survive.
    pub replicas: u32,
    /// The times of the membership.
    pub settings: Settings,
    /// What tells this node's machine from others, where the user says.
    pub host: Option<String>,
    /// How long a join waits for the other nodes.
    pub patience: Duration,
    /// Whether the user vouches for everybody who can reach this node's sockets.
    pub trust_network: bool,
}

impl Builder {
    /// A builder to which nothing was said yet.
    pub fn new() -> Builder {
        Builder::default()
    }

    /// A builder filled from the `DSM_*` variables of the environment.
    ///
    /// # Errors
    /// [`Error::Config`] that names the variable whose value makes no sense.
    pub fn from_env() -> Result<Builder> {
        Builder::new().filled(&Environment::of_process())
    }

    /// This node's rank, from 0. Goes with [`Builder::nodes`].
    pub fn rank(mut self, rank: u32) -> Builder {
        self.rank = Some(rank);
        self
    }

    /// How many nodes the cluster starts with.
    pub fn nodes(mut self, nodes: u32) -> Builder {
        self.nodes = Some(nodes);
        self
    }

    /// Where rank 0 listens and the others find it: `host:port`, or `unix:name` on one machine.
    pub fn rendezvous(mut self, address: impl Into<String>) -> Builder {
        self.rendezvous = Some(address.into());
        self
    }

    /// Where this node listens for its peers: `host:port`, or `unix:name`. Beyond loopback only with
    /// [`Builder::trust_network`].
    pub fn listen(mut self, address: impl Into<String>) -> Builder {
        self.listen = Some(address.into());
        self
    }

    /// The region's address, the same on all nodes.
    pub fn region_base(mut self, address: u64) -> Builder {
        self.region_base = Some(address);
        self
    }

    /// The region's length in bytes, the same on all nodes. Untouched memory costs nothing.
    pub fn region_size(mut self, bytes: u64) -> Builder {
        self.region_size = Some(bytes);
        self
    }

    /// The length in bytes of what one fault fetches, the same on all nodes: a power of two from 4 KiB to 2 MiB.
    pub fn page_size(mut self, bytes: u64) -> Builder {
        self.page_size = Some(bytes);
        self
    }

    /// How many further nodes keep a copy of what was committed, and so how many crashes the cluster survives without
    /// loss: 1 unless said otherwise, and none in a cluster of one node. With 0, nothing is replicated. While there are
    /// fewer other nodes than that, all of them do: those that join later make up for it.
    pub fn replicas(mut self, replicas: u32) -> Builder {
        self.replicas = Some(replicas);
        self
    }

    /// How long a node may go on without hearing from a majority of the others, and so how long a node that falls silent
    /// holds the others up: 1 s unless said otherwise. A death that a process of the same machine can see takes no lease.
    pub fn lease(mut self, lease: Duration) -> Builder {
        self.lease = Some(lease);
        self
    }

    /// How often nodes renew their leases: at least twice per lease; a fifth of it unless said otherwise.
    pub fn heartbeat(mut self, heartbeat: Duration) -> Builder {
        self.heartbeat = Some(heartbeat);
        self
    }

    /// How long the join waits for the other nodes.
    pub fn join_timeout(mut self, patience: Duration) -> Builder {
        self.join_timeout = Some(patience);
        self
    }

    /// The file with the cluster's key. Not available yet.
    pub fn credentials(mut self, file: impl AsRef<Path>) -> Builder {
        self.credentials = Some(file.as_ref().to_owned());
        self
    }

    /// How nodes talk to each other.
    pub fn transport(mut self, transport: TransportKind) -> Builder {
        self.transport = Some(transport);
        self
    }

    /// Vouches for everybody who can reach this node's sockets: without credentials nothing else keeps strangers
    /// from reading and writing the region, so a node listens beyond loopback only if this is set.
    pub fn trust_network(mut self, trust: bool) -> Builder {
        self.trust_network = Some(trust);
        self
    }

    /// Joins the cluster. Blocks until all nodes have come, or the join time-out.
    ///
    /// # Errors
    /// [`Error::Config`] for values that cannot work, [`Error::Rendezvous`] when the others cannot be reached, and
    /// whatever the kernel refuses.
    pub fn join(self) -> Result<Dsm> {
        Node::refuse_second_join()?;
        crate::engine::join(self.resolve()?)
    }

    /// Fills gaps from the environment, and checks the whole.
    pub(crate) fn resolve(self) -> Result<Config> {
        let env = Environment::of_process();
        let mut config = self.resolve_in(&env)?;
        if let Some(number) = inherited_number(&config, &env) {
            config.rendezvous_fd = inherited::listener(number, config.rank)?;
        }
        Ok(config)
    }

    /// As [`Builder::resolve`], but in a given environment, and without opening anything.
    fn resolve_in(self, env: &Environment) -> Result<Config> {
        let builder = self.filled(env)?;
        builder.refuse_what_is_not_there()?;
        let (rank, nodes, place) = builder.place(env)?;
        let transport = builder.transport.unwrap_or_default();
        let settings = builder.settings()?;
        Ok(Config {
            rank: NodeId(narrow(rank)),
            nodes: narrow(nodes),
            rendezvous: builder.meeting(nodes, place.as_ref(), transport)?,
            rendezvous_fd: None,
            geometry: builder.geometry()?,
            listen: builder.listen,
            transport,
            replicas: builder.replicas.unwrap_or(if nodes > 1 { REPLICAS_DEFAULT } else { 0 }),
            settings,
            host: env.get("DSM_HOST").map(str::to_owned),
            patience: builder.join_timeout.unwrap_or(PATIENCE_DEFAULT),
            trust_network: builder.trust_network.unwrap_or(false),
        })
    }

    /// Fills gaps from the `DSM_*` variables.
    fn filled(mut self, env: &Environment) -> Result<Builder> {
        let last = NODES_MAX - 1;
        fill(&mut self.rank, env, "DSM_RANK", |name, text| values::number(name, text, 0..=last))?;
        fill(&mut self.nodes, env, "DSM_NODES", |name, text| values::number(name, text, 1..=NODES_MAX))?;
        fill(&mut self.rendezvous, env, "DSM_RENDEZVOUS", values::address)?;
        fill(&mut self.listen, env, "DSM_LISTEN", values::address)?;
        fill(&mut self.region_base, env, "DSM_REGION_BASE", values::bytes)?;
        fill(&mut self.region_size, env, "DSM_REGION_SIZE", values::bytes)?;
        fill(&mut self.page_size, env, "DSM_PAGE_SIZE", values::bytes)?;
        fill(&mut self.replicas, env, "DSM_REPLICAS", |name, text| values::number(name, text, 0..=last))?;
        fill(&mut self.lease, env, "DSM_LEASE", values::duration)?;
        fill(&mut self.heartbeat, env, "DSM_HEARTBEAT", values::duration)?;
        fill(&mut self.join_timeout, env, "DSM_JOIN_TIMEOUT", values::duration)?;
        fill(&mut self.credentials, env, "DSM_CREDENTIALS", |_, text| Ok(PathBuf::from(text)))?;
        fill(&mut self.transport, env, "DSM_TRANSPORT", |name, text| {
            text.trim().parse().map_err(|_| values::refuse(name, text, "tcp or unix"))
        })?;
        fill(&mut self.trust_network, env, "DSM_TRUST_NETWORK", values::switch)?;
        Ok(self)
    }

    fn refuse_what_is_not_there(&self) -> Result<()> {
        if let Some(file) = &self.credentials {
            return Err(Error::Config(format!(
                "credentials (DSM_CREDENTIALS) is {}; this version has no encrypted transport yet: leave it unset, \
                 and set DSM_TRUST_NETWORK=1 only on a network where you trust everybody",
                file.display()
            )));
        }
        Ok(())
    }

    /// This node's rank, the count of nodes, and what a launcher says where it was asked.
    fn place(&self, env: &Environment) -> Result<(u32, u32, Option<Place>)> {
        if let (Some(rank), Some(nodes)) = (self.rank, self.nodes) {
            let (rank, nodes) = launchers::placed(
                "rank (DSM_RANK)",
                &rank.to_string(),
                "nodes (DSM_NODES)",
                &nodes.to_string(),
            )?;
            return Ok((rank, nodes, None));
        }
        let place = launchers::find(env, self.nodes)?;
        match (self.rank, self.nodes, &place) {
            (None, None, None) | (None, Some(1), None) => Ok((0, 1, None)),
            (None, None, Some(found)) => Ok((found.rank, found.nodes, place)),
            (None, Some(nodes), Some(found)) if nodes == found.nodes => Ok((found.rank, nodes, place)),
            (None, Some(nodes), Some(found)) => Err(Error::Config(format!(
                "nodes (DSM_NODES) is {nodes}, but {} started {}; leave DSM_NODES unset, or set DSM_RANK as well",
                found.launcher, found.nodes
            ))),
            (None, Some(nodes), None) => Err(Error::Config(format!(
                "nodes (DSM_NODES) is {nodes}, but nothing says which of them this is; set DSM_RANK to a number from \
                 0 to {}, or start the program with `dsm run -n {nodes} -- PROGRAM`",
                nodes.saturating_sub(1)
            ))),
            (Some(rank), _, _) => Err(Error::Config(format!(
                "rank (DSM_RANK) is {rank}, but the number of nodes is not set; set DSM_NODES to a number from 1 to \
                 {NODES_MAX}"
            ))),
        }
    }

    /// Where the nodes meet.
    fn meeting(&self, nodes: u32, place: Option<&Place>, transport: TransportKind) -> Result<String> {
        if let Some(address) = &self.rendezvous {
            return values::address("rendezvous (DSM_RENDEZVOUS)", address);
        }
        match place.map(|place| (place, &place.meeting)) {
            _ if nodes == 1 => Ok(match transport {
                TransportKind::Tcp => String::from(ALONE),
                TransportKind::Unix => format!("unix:dsm-alone-{}", std::process::id()),
            }),
            Some((_, Meeting::At(address))) => Ok(address.clone()),
            Some((_, Meeting::OneMachine(job))) => Ok(match transport {
                TransportKind::Tcp => format!("127.0.0.1:{}", launchers::port_of(*job)),
                TransportKind::Unix => format!("unix:dsm-{job:016x}"),
            }),
            Some((place, Meeting::Unknown)) => Err(place.nowhere_to_meet()),
            None => Err(Error::Config(format!(
                "there are {nodes} nodes, but no address where they meet; set DSM_RENDEZVOUS=host:port, the same on \
                 all nodes, or start them with `dsm run -n {nodes} -- PROGRAM`"
            ))),
        }
    }

    /// The times of the membership.
    fn settings(&self) -> Result<Settings> {
        let mut settings = Settings::default();
        if let Some(lease) = self.lease {
            let refuse = |error| Error::Config(format!("lease (DSM_LEASE): {error}"));
            settings = settings.with_lease(lease).map_err(refuse)?;
        }
        if let Some(heartbeat) = self.heartbeat {
            let refuse = |error| Error::Config(format!("heartbeat (DSM_HEARTBEAT): {error}"));
            settings = settings.with_heartbeat(heartbeat).map_err(refuse)?;
        }
        Ok(settings)
    }

    fn geometry(&self) -> Result<Geometry> {
        Geometry::new(
            self.region_base.unwrap_or(limits::REGION_BASE_DEFAULT),
            self.region_size.unwrap_or(limits::REGION_SIZE_DEFAULT),
            self.page_size.unwrap_or(limits::PAGE_SIZE_DEFAULT),
        )
        .map_err(|error| Error::Config(format!("{}: {error}", setting_of(&error))))
    }
}

/// The number of the launcher's socket, if the nodes meet where it is bound: a program that names another address does
/// not want it.
fn inherited_number<'e>(config: &Config, env: &'e Environment) -> Option<&'e str> {
    let bound = env.get("DSM_RENDEZVOUS").map(str::trim);
    env.get(RENDEZVOUS_FD).filter(|_| bound == Some(config.rendezvous.as_str()))
}

/// The setting that a shape's error is about.
fn setting_of(error: &GeometryError) -> &'static str {
    match error {
        GeometryError::PageSize(_) => "page_size (DSM_PAGE_SIZE)",
        GeometryError::Size { .. } => "region_size (DSM_REGION_SIZE)",
        GeometryError::BaseUnaligned { .. } => "region_base (DSM_REGION_BASE)",
        // The enum belongs to another crate and may grow; a region beyond the address space is one of the two.
        GeometryError::BeyondAddressSpace { .. } | _ => {
            "region_base (DSM_REGION_BASE) and region_size (DSM_REGION_SIZE)"
        }
    }
}

/// Fills a gap from a variable, if it is set.
fn fill<T>(
    gap: &mut Option<T>,
    env: &Environment,
    name: &str,
    read: impl FnOnce(&str, &str) -> Result<T>,
) -> Result<()> {
    if let (None, Some(text)) = (&gap, env.get(name)) {
        *gap = Some(read(name, text)?);
    }
    Ok(())
}

/// A rank or a count of nodes as the core counts them: all are at most [`NODES_MAX`], which fits.
fn narrow(count: u32) -> u16 {
    const _: () = assert!(NODES_MAX <= u16::MAX as u32);
    u16::try_from(count).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests;
