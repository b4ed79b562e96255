//! Forming the cluster: the rendezvous at rank 0, and then a connection between each two nodes.
//!
//! ```text
//!  rank 0               rank 1               rank 2
//!    |<------ Join ------- |                    |        each hears Welcome, or why not, at once
//!    |<------------------------- Join --------- |
//!    |------ Formed -----> |                    |        the peer table, once all are there
//!    |------------------------- Formed -------> |
//!    |<------ Link ------- |<------ Link ------ |        the higher rank calls the lower
//!    |<------------------------- Link --------- |
//! ```
//! All of it happens in the thread that joins, and ends within the patience that the user chose, or a few seconds later
//! where the nodes began at different times.

use super::acceptor::{Acceptor, HANDSHAKE_PATIENCE};
use super::endpoint::{Endpoint, Kind};
use super::gate::{Cluster, Gate, Incoming, Joiner, Member, Notifier};
use super::handshake::{
    Answer, Habitat, HandshakeError, Outcome, Purpose, Refusal, Subject, Terms, VERSION, tell,
};
use super::link::Link;
use super::reconnect::{CallError, Reconnector, back_off, call, hello};
use super::stream::{Listener, Stream, transport};
use crate::error::Error;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use dsm_core::limits::NODES_MAX;
use dsm_core::{Incarnation, NodeId};
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The rendezvous, which mostly has the same time-out as its guests, knows why the forming failed: they wait so much
/// longer for its word.
pub(super) const OUTCOME_PATIENCE: Duration = Duration::from_secs(1);

/// A process whose rank another has asks again for so many leases: one for the other to be missed, one for the members to
/// agree, and one to spare.
pub(super) const LEASES_UNTIL_FREE: u32 = 3;

/// What a node brings to the forming of its cluster.
pub(crate) struct Formation {
    /// This node's rank.
    pub rank: NodeId,
    /// What all nodes must agree on.
    pub terms: Terms,
    /// This process.
    pub incarnation: Incarnation,
    /// Where it runs.
    pub habitat: Habitat,
    /// Whether this node was started by a launcher that votes. Rank 0's word counts for all.
    pub witness: bool,
    /// Where rank 0 hosts the rendezvous.
    pub rendezvous: Endpoint,
    /// At rank 0: a socket that listens there already, from the launcher.
    pub rendezvous_listener: Option<OwnedFd>,
    /// Where this node listens for its peers, if it matters to the user.
    pub listen: Option<Endpoint>,
    /// The kind of socket between the nodes.
    pub kind: Kind,
    /// How long all of it may take.
    pub patience: Duration,
    /// The user's word that nobody but nodes can reach this network.
    pub trust_network: bool,
}

/// A formed cluster, as one node sees it.
pub(crate) struct Mesh {
    /// The links to all peers, attached, by rank; none at this node's own.
    pub links: Vec<Option<Link>>,
    /// The nodes, this one included: those of the first view, or, where the cluster ran already, those that may let this
    /// one in.
    pub peers: BTreeMap<NodeId, Peer>,
    /// Whether the cluster ran already: then this node is none of its members yet.
    pub runs: bool,
    /// How many nodes the cluster began with.
    pub nodes: u16,
    /// Whether a launcher votes on the membership.
    pub witness: bool,
    /// What the transport's threads found.
    pub incoming: Receiver<Incoming>,
    /// Readable when `incoming` has something. It is to be read before `incoming` is emptied.
    pub incoming_wake: Arc<EventFd>,
    /// Calls peers whose links went down.
    pub reconnect: Reconnector,
    /// Answers callers; none in a cluster of one that nobody knows. Nobody asks it for anything, but dropping it stops
    /// and closes it.
    pub _acceptor: Option<Acceptor>,
}

/// A node of a formed cluster, as far as its membership is concerned.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer {
    /// Its process.
    pub incarnation: Incarnation,
    /// Where that runs.
    pub habitat: Habitat,
}

/// Forms a cluster, as `formation` says.
pub(crate) fn form(formation: Formation) -> Result<Mesh, Error> {
    Former::new(formation)?.form()
}

/// One forming under way.
pub(super) struct Former {
    pub(super) formation: Formation,
    pub(super) deadline: Instant,
    pub(super) links: Vec<Option<Link>>,
    pub(super) notifier: Notifier,
    incoming: Receiver<Incoming>,
    wake: Arc<EventFd>,
}

/// How a forming ended, for whoever goes on.
struct Formed {
    peers: BTreeMap<NodeId, Peer>,
    witness: bool,
    runs: bool,
    nodes: u16,
}

impl Formed {
    fn of(cluster: &Cluster, runs: bool) -> Formed {
        let peer = |member: &Member| Peer { incarnation: member.incarnation, habitat: member.habitat };
        let peers = cluster.members.iter().map(|(rank, member)| (*rank, peer(member))).collect();
        Formed { peers, witness: cluster.witness, runs, nodes: cluster.nodes }
    }
}

/// What a node that went to the rendezvous came back with.
pub(super) enum Joined {
    /// A cluster that was formed with it.
    Formed(Arc<Gate>, Acceptor, Cluster),
    /// A cluster that ran already; its members know this node now.
    Entered(Arc<Gate>, Acceptor, Cluster),
}

/// A node that has come to the rendezvous.
struct Guest {
    stream: Stream,
    member: Member,
}

impl Former {
    fn new(formation: Formation) -> Result<Former, Error> {
        let (rank, nodes) = (formation.rank, formation.terms.nodes);
        if nodes == 0 || usize::from(nodes) > NODES_MAX {
            return Err(Error::Config(format!("{nodes} nodes; a cluster has 1 to {NODES_MAX}")));
        }
        if rank.0 >= nodes {
            return Err(Error::Config(format!("{rank} of {nodes} nodes; ranks go from 0 to {}", nodes - 1)));
        }
        // A page fits into memory, so its size fits.
        let page_size = formation.terms.page_size as usize;
        let link = |peer| (peer != rank).then(|| Link::new(peer, page_size));
        let mut links: Vec<_> = (0..nodes).map(|peer| link(NodeId(peer))).collect();
        // Others may come later, under any rank.
        links.resize_with(NODES_MAX, || None);
        let wake = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
            .map_err(|errno| Error::io("creating the transport's eventfd", errno))?;
        let wake = Arc::new(wake);
        let (sender, incoming) = unbounded();
        let notifier = Notifier::new(sender, Arc::clone(&wake));
        let deadline = Instant::now() + formation.patience;
        Ok(Former { formation, deadline, links, notifier, incoming, wake })
    }

    fn form(mut self) -> Result<Mesh, Error> {
        let rank = self.formation.rank;
        let Formation { incarnation, habitat, witness, .. } = self.formation;
        if self.formation.terms.nodes == 1 && self.formation.rendezvous_listener.is_none() {
            let peers = BTreeMap::from([(rank, Peer { incarnation, habitat })]);
            return Ok(self.into_mesh(
                Reconnector::idle(),
                None,
                Formed { peers, witness, runs: false, nodes: 1 },
            ));
        }
        let (gate, acceptor, cluster) = if rank == NodeId::COORDINATOR {
            self.host()?
        } else {
            match self.join()? {
                Joined::Formed(gate, acceptor, cluster) => (gate, acceptor, cluster),
                Joined::Entered(gate, acceptor, cluster) => {
                    let mut formed = Formed::of(&cluster, true);
                    formed.peers.insert(rank, Peer { incarnation, habitat });
                    let reconnect = Reconnector::new(gate, self.notifier.clone(), acceptor.bell());
                    return Ok(self.into_mesh(reconnect, Some(acceptor), formed));
                }
            }
        };
        self.call_lower(&gate, &cluster)?;
        self.await_higher(&cluster)?;
        let reconnect = Reconnector::new(gate, self.notifier.clone(), acceptor.bell());
        Ok(self.into_mesh(reconnect, Some(acceptor), Formed::of(&cluster, false)))
    }

    fn into_mesh(self, reconnect: Reconnector, acceptor: Option<Acceptor>, formed: Formed) -> Mesh {
        let Formed { peers, witness, runs, nodes } = formed;
        let known = |link: Link| match peers.get(&link.peer()) {
            Some(peer) => link.of(peer.incarnation),
            None => link,
        };
        Mesh {
            links: self.links.into_iter().map(|link| link.map(known)).collect(),
            peers,
            runs,
            nodes,
            witness,
            incoming: self.incoming,
            incoming_wake: self.wake,
            reconnect,
            _acceptor: acceptor,
        }
    }

    pub(super) fn gate(&self, joins: Option<Sender<Joiner>>) -> Arc<Gate> {
        let formation = &self.formation;
        let terms = formation.terms.clone();
        let received = self.links.iter().flatten().map(|link| (link.peer(), link.received_handle()));
        let me = (formation.rank, formation.incarnation);
        Arc::new(Gate::new(me, formation.habitat, terms, received.collect(), joins))
    }

    pub(super) fn fail(&self, cause: impl Into<String>) -> Error {
        Error::Rendezvous { address: self.formation.rendezvous.to_string(), cause: cause.into() }
    }

    pub(super) fn failed_handshake(&self, error: HandshakeError) -> Error {
        match error {
            HandshakeError::Version { rank, version } => Refusal::Mismatch {
                subject: Subject::Version,
                by: rank,
                caller: VERSION.to_string(),
                answerer: version.to_string(),
            }
            .at_caller(self.formation.rank, &self.formation.rendezvous.to_string()),
            other @ (HandshakeError::Garbage(_) | HandshakeError::Io(_)) => self.fail(other.to_string()),
        }
    }

    /// A listener at `endpoint`, unless strangers could reach it.
    pub(super) fn listen(&self, endpoint: &Endpoint) -> Result<Listener, Error> {
        self.check_trust(endpoint)?;
        transport(endpoint.kind())
            .listen(endpoint)
            .map_err(|error| Error::io(format!("listening at {endpoint}"), error))
    }

    fn check_trust(&self, endpoint: &Endpoint) -> Result<(), Error> {
        if self.formation.trust_network || endpoint.is_local() {
            return Ok(());
        }
        Err(Error::Config(format!(
            "{endpoint} can be reached from other machines, and this node has no credentials; listen on a loopback \
             address, or set trust_network if only nodes can reach this network"
        )))
    }

    /// At rank 0: lets all others in, and tells them of each other.
    fn host(&mut self) -> Result<(Arc<Gate>, Acceptor, Cluster), Error> {
        let rendezvous = match self.formation.rendezvous_listener.take() {
            Some(descriptor) => Listener::inherit(descriptor)
                .map_err(|error| Error::io("taking over the rendezvous's socket", error))?,
            None => self.listen(&self.formation.rendezvous)?,
        };
        let at = endpoint_of(&rendezvous)?;
        self.check_trust(&at)?;
        let mut listeners = vec![rendezvous];
        let mut own = at.clone();
        if self.formation.listen.is_some() || at.kind() != self.formation.kind {
            let listener = self.listen(&self.own_endpoint(&at))?;
            own = endpoint_of(&listener)?;
            listeners.push(listener);
        }
        let (sender, joins) = unbounded();
        let gate = self.gate(Some(sender));
        let acceptor = Acceptor::start(Arc::clone(&gate), self.notifier.clone(), listeners)?;
        let guests = match self.receive_guests(&gate, &joins) {
            Ok(guests) => guests,
            Err((error, guests)) => {
                self.dismiss(&guests, &error.to_string());
                return Err(error);
            }
        };
        let (incarnation, habitat) = (self.formation.incarnation, self.formation.habitat);
        let host = Member { incarnation, endpoint: own, habitat };
        let others = guests.iter().flatten().map(|guest| guest.member.clone());
        let members = (0..).map(NodeId).zip(std::iter::once(host).chain(others)).collect();
        // The host's incarnation is drawn afresh in each process, so it names the cluster too.
        let (nodes, witness) = (self.formation.terms.nodes, self.formation.witness);
        let cluster = Cluster { id: incarnation.0, nodes, members, witness };
        gate.open(cluster.clone());
        self.publish(&guests, &cluster)?;
        Ok((gate, acceptor, cluster))
    }

    /// Waits until all ranks are there. On failure, those who came are still waiting for news.
    #[expect(clippy::type_complexity, reason = "the guests who came must hear of the failure")]
    fn receive_guests(
        &self,
        gate: &Gate,
        joins: &Receiver<Joiner>,
    ) -> Result<Vec<Option<Guest>>, (Error, Vec<Option<Guest>>)> {
        let mut guests: Vec<Option<Guest>> = (0..self.formation.terms.nodes).map(|_| None).collect();
        loop {
            if guests.iter().skip(1).all(Option::is_some) {
                // Whoever went away again leaves its place to its successor.
                for guest in &mut guests {
                    guest.take_if(|guest| guest.stream.has_ended());
                }
                if guests.iter().skip(1).all(Option::is_some) {
                    return Ok(guests);
                }
            }
            let joiner = match joins.recv_deadline(self.deadline) {
                Ok(joiner) => joiner,
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    return Err((self.fail(missing(&guests)), guests));
                }
            };
            if let Err(error) = self.receive(gate, joiner, &mut guests) {
                return Err((error, guests));
            }
        }
    }

    /// One guest. An error means that there can be no cluster.
    fn receive(&self, gate: &Gate, joiner: Joiner, guests: &mut [Option<Guest>]) -> Result<(), Error> {
        let address = self.formation.rendezvous.to_string();
        let is_taken = |rank: NodeId, guests: &mut [Option<Guest>]| match guests.get_mut(rank.index()) {
            Some(place) => {
                place.take_if(|guest| guest.stream.has_ended());
                rank == gate.rank || place.is_some()
            }
            None => true,
        };
        let (stream, hello) = match joiner {
            Joiner::Caller { stream, hello } => (stream, hello),
            Joiner::OtherVersion { rank, .. } if is_taken(rank, guests) => return Ok(()),
            Joiner::OtherVersion { rank, refusal } => return Err(refusal.at_answerer(rank, &address)),
        };
        let rank = hello.rank;
        let taken = is_taken(rank, guests);
        let mismatch = gate.terms.compare(gate.rank, &hello.terms);
        let verdict = match &mismatch {
            Err(refusal) => Err(refusal.clone()),
            Ok(()) => gate.check_rank(rank).and_then(|()| {
                if taken {
                    return Err(Refusal::Taken { rank });
                }
                hello.listen.parse::<Endpoint>().map_err(|_| Refusal::Address(hello.listen.clone()))
            }),
        };
        let answer = match &verdict {
            Ok(_) => Answer::Welcome { incarnation: gate.incarnation, received_through: 0 },
            Err(refusal) => Answer::Refused(refusal.clone()),
        };
        let told = tell(&stream, gate.rank, &answer, Instant::now() + HANDSHAKE_PATIENCE);
        match verdict {
            Ok(endpoint) => {
                // One that has gone away in the meantime has not come.
                if told.is_ok() {
                    let (incarnation, habitat) = (hello.incarnation, hello.habitat);
                    let member = Member { incarnation, endpoint, habitat };
                    guests[rank.index()] = Some(Guest { stream, member });
                }
                Ok(())
            }
            // A disagreement with a process whose rank is taken is that process's own affair.
            Err(refusal) if mismatch.is_err() && !taken => Err(refusal.at_answerer(rank, &address)),
            Err(refusal) => {
                self.notifier.tell(Incoming::Refused { rank, incarnation: Some(hello.incarnation), refusal });
                Ok(())
            }
        }
    }

    fn publish(&self, guests: &[Option<Guest>], cluster: &Cluster) -> Result<(), Error> {
        let entry = |it: &Member| (it.incarnation, it.endpoint.to_string(), it.habitat);
        let peers = cluster.members.values().map(entry).collect();
        let outcome = Outcome::Formed { cluster: cluster.id, witness: cluster.witness, peers };
        for guest in guests.iter().flatten() {
            if let Err(error) = tell(&guest.stream, self.formation.rank, &outcome, self.deadline) {
                let cause = format!("telling {} of its peers: {error}", guest.member.endpoint);
                self.dismiss(guests, &cause);
                return Err(self.fail(cause));
            }
        }
        Ok(())
    }

    fn dismiss(&self, guests: &[Option<Guest>], cause: &str) {
        let outcome = Outcome::Abandoned(cause.to_owned());
        for guest in guests.iter().flatten() {
            // One that does not take the news sees the connection close.
            let _ = tell(&guest.stream, self.formation.rank, &outcome, Instant::now() + HANDSHAKE_PATIENCE);
        }
    }

    pub(super) fn reach_rendezvous(&self) -> Result<Stream, Error> {
        let endpoint = &self.formation.rendezvous;
        let mut pauses = back_off();
        loop {
            let left = self.deadline.saturating_duration_since(Instant::now());
            let error = match transport(endpoint.kind()).connect(endpoint, left.min(HANDSHAKE_PATIENCE)) {
                Ok(stream) => return Ok(stream),
                Err(error) => error,
            };
            let pause = pauses.next().unwrap_or_default();
            if left <= pause {
                let patience = self.formation.patience.as_secs_f32();
                return Err(self.fail(format!("not reached within {patience} s: {error}")));
            }
            std::thread::sleep(pause);
        }
    }

    pub(super) fn read_table(
        &self,
        (id, witness): (u64, bool),
        peers: Vec<(Incarnation, String, Habitat)>,
        host: &Stream,
    ) -> Result<Cluster, Error> {
        if peers.len() != usize::from(self.formation.terms.nodes) {
            return Err(self.fail(format!("its table has {} nodes", peers.len())));
        }
        let read = |(incarnation, text, habitat): (Incarnation, String, Habitat)| {
            let endpoint: Endpoint =
                text.parse().map_err(|error| self.fail(format!("its table: {error}")))?;
            // Only rank 0 may not know by what address others reach it: but they have reached it. What they reached is
            // taken, not the name, so that no later call has to wait for a name server.
            let endpoint = if endpoint.is_unspecified() {
                endpoint.at_host_of(host.peer_endpoint().as_ref().unwrap_or(&self.formation.rendezvous))
            } else {
                endpoint
            };
            Ok(Member { incarnation, endpoint, habitat })
        };
        let nodes = self.formation.terms.nodes;
        let members = peers.into_iter().map(read).collect::<Result<Vec<_>, Error>>()?;
        Ok(Cluster { id, nodes, witness, members: (0..).map(NodeId).zip(members).collect() })
    }

    /// Where this node listens: as the user says, or where `near` is.
    pub(super) fn own_endpoint(&self, near: &Endpoint) -> Endpoint {
        if let Some(endpoint) = &self.formation.listen {
            return endpoint.clone();
        }
        match self.formation.kind {
            Kind::Tcp => {
                let any_port = Endpoint::Tcp { host: "127.0.0.1".to_owned(), port: 0 };
                any_port.at_host_of(near)
            }
            Kind::Unix => {
                let (rank, incarnation) = (self.formation.rank.0, self.formation.incarnation);
                Endpoint::Unix { name: format!("dsm-{incarnation}-{rank}") }
            }
        }
    }

    /// Connects to all lower ranks.
    fn call_lower(&mut self, gate: &Gate, cluster: &Cluster) -> Result<(), Error> {
        for rank in 0..self.formation.rank.0 {
            let peer = NodeId(rank);
            let (stream, received_through) = self.call_one(gate, peer, cluster)?;
            self.attach(peer, stream, received_through)?;
        }
        Ok(())
    }

    fn call_one(&self, gate: &Gate, peer: NodeId, cluster: &Cluster) -> Result<(Stream, u64), Error> {
        let Some(member) = cluster.members.get(&peer) else {
            return Err(self.fail(format!("its table lacks {peer}")));
        };
        let mut pauses = back_off();
        loop {
            let left = self.deadline.saturating_duration_since(Instant::now());
            let purpose =
                Purpose::Link { cluster: cluster.id, received_through: gate.received_through(peer) };
            let hello = hello(gate, purpose, String::new());
            let cause = match call(&hello, peer, member, left.min(HANDSHAKE_PATIENCE)) {
                Ok(connected) => return Ok(connected),
                Err(CallError::Refused(refusal)) => {
                    return Err(refusal.at_caller(gate.rank, &member.endpoint.to_string()));
                }
                Err(cause @ (CallError::NobodyThere | CallError::Failed(_))) => cause,
            };
            let pause = pauses.next().unwrap_or_default();
            if left <= pause {
                return Err(self.fail(format!("connecting to {peer} at {}: {cause}", member.endpoint)));
            }
            std::thread::sleep(pause);
        }
    }

    /// Waits for the calls of all higher ranks.
    fn await_higher(&mut self, cluster: &Cluster) -> Result<(), Error> {
        let mut aside = Vec::new();
        while self.links.iter().flatten().any(|link| !link.is_attached()) {
            match self.incoming.recv_deadline(self.deadline) {
                Ok(Incoming::Reconnected { peer, life: _, stream, received_through }) => {
                    self.attach(peer, stream, received_through)?;
                }
                Ok(Incoming::Refused { rank, incarnation, refusal })
                    if cluster
                        .members
                        .get(&rank)
                        .is_some_and(|member| Some(member.incarnation) == incarnation) =>
                {
                    return Err(refusal.at_answerer(rank, &self.formation.rendezvous.to_string()));
                }
                Ok(
                    other @ (Incoming::Refused { .. }
                    | Incoming::Garbage { .. }
                    | Incoming::Entered { .. }
                    | Incoming::PeerUnreachable { .. }),
                ) => aside.push(other),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    let absent = self.links.iter().flatten().filter(|link| !link.is_attached());
                    let absent = absent.map(|link| link.peer().to_string()).collect::<Vec<_>>().join(", ");
                    return Err(self.fail(format!("all nodes have come, but no connection from {absent}")));
                }
            }
        }
        // What has nothing to do with the forming is for the engine to count and log.
        aside.into_iter().for_each(|incoming| self.notifier.tell(incoming));
        Ok(())
    }

    fn attach(&mut self, peer: NodeId, stream: Stream, received_through: u64) -> Result<(), Error> {
        match self.links.get_mut(peer.index()) {
            Some(Some(link)) => {
                link.attach(stream, received_through).map_err(|down| self.fail(format!("{peer}: {down}")))
            }
            Some(None) | None => Err(self.fail(format!("a connection from {peer}, which is no peer"))),
        }
    }
}

pub(super) fn endpoint_of(listener: &Listener) -> Result<Endpoint, Error> {
    listener.endpoint().map_err(|error: io::Error| Error::io("asking where a socket listens", error))
}

fn missing(guests: &[Option<Guest>]) -> String {
    let absent = guests.iter().enumerate().skip(1).filter(|(_, guest)| guest.is_none());
    let absent = absent.map(|(rank, _)| rank.to_string()).collect::<Vec<_>>().join(", ");
    format!("these ranks have not come in time: {absent}")
}
