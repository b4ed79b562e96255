//! Who may come in: what this node knows of the cluster, and its verdict on a caller's [`Hello`].
//!
//! The gate is shared by the acceptor, which asks it, the reconnector, and the engine, which only ever sees what comes
//! out: [`Incoming`].

use super::endpoint::Endpoint;
use super::handshake::{Habitat, Hello, Purpose, Refusal, Running, Subject, Terms, VERSION};
use super::stream::{KEEPALIVE_IDLE, KEEPALIVE_INTERVAL, Stream, USER_TIMEOUT};
use crate::error::PATIENCE;
use crossbeam_channel::Sender;
use dsm_core::limits::NODES_MAX;
use dsm_core::{Incarnation, NodeId};
use nix::sys::eventfd::EventFd;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long a broken connection may stay so before its peer counts as unreachable.
pub(super) const RECONNECT_PATIENCE: Duration = Duration::from_millis(1500);

/// A machine that falls silent is at worst noticed so late: it does so when the connection idles, something is said
/// just before the probes end the connection, and that waits for its acknowledgement once more.
const SILENCE_MAX: u128 =
    KEEPALIVE_IDLE.as_millis() + KEEPALIVE_INTERVAL.as_millis() + USER_TIMEOUT.as_millis();

const _: () = assert!(
    SILENCE_MAX + RECONNECT_PATIENCE.as_millis() < PATIENCE.as_millis(),
    "calls that wait for a dead peer must end in time"
);

/// Strangers are reported one by one, but no further while so many reports wait to be read.
const REPORTS_MAX: usize = 1024;

/// What the threads of the transport tell the engine.
#[derive(Debug)]
pub(crate) enum Incoming {
    /// A peer is connected again: attach this to its link.
    Reconnected {
        /// Which peer.
        peer: NodeId,
        /// Which process: another may have taken its rank meanwhile, whose link is another.
        life: Incarnation,
        /// The connection, with the handshake done.
        stream: Stream,
        /// The last frame that the peer has.
        received_through: u64,
    },
    /// A process that wants to be a member is connected.
    Entered {
        /// The rank that it wants.
        peer: NodeId,
        /// The connection, with the handshake done.
        stream: Stream,
        /// The process.
        member: Member,
    },
    /// A peer could not be reached, or did not call again in time. Out of date, and to be ignored, if its link has
    /// been attached meanwhile.
    PeerUnreachable {
        /// Which peer.
        peer: NodeId,
        /// Which process.
        life: Incarnation,
        /// What was tried last.
        cause: String,
    },
    /// Somebody who speaks the protocol was refused.
    Refused {
        /// The rank that it claims.
        rank: NodeId,
        /// The incarnation that it claims; it is not known of a caller with another version.
        incarnation: Option<Incarnation>,
        /// Why, as it was told.
        refusal: Refusal,
    },
    /// Somebody called who does not speak the protocol.
    Garbage {
        /// What was wrong.
        cause: String,
    },
}

/// The way to the engine: a queue, and a descriptor that wakes it.
#[derive(Clone)]
pub(super) struct Notifier {
    sender: Sender<Incoming>,
    wake: Arc<EventFd>,
}

impl Notifier {
    pub fn new(sender: Sender<Incoming>, wake: Arc<EventFd>) -> Notifier {
        Notifier { sender, wake }
    }

    /// Hands `incoming` over. Reports about strangers are dropped while too many wait; a connection never is.
    pub fn tell(&self, incoming: Incoming) {
        let dispensable = match incoming {
            Incoming::Reconnected { .. } | Incoming::Entered { .. } | Incoming::PeerUnreachable { .. } => {
                false
            }
            Incoming::Refused { .. } | Incoming::Garbage { .. } => true,
        };
        if dispensable && self.sender.len() >= REPORTS_MAX {
            return;
        }
        // Both fail only where nobody is left to listen: the queue's other end is gone, or the counter that wakes is
        // so full that it wakes anyway.
        let _ = self.sender.send(incoming);
        let _ = self.wake.write(1);
    }
}

/// A member of the cluster, as its peers know it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Member {
    /// Its process.
    pub incarnation: Incarnation,
    /// Where it listens.
    pub endpoint: Endpoint,
    /// Where it runs.
    pub habitat: Habitat,
}

/// The cluster, once it is formed.
#[derive(Clone, Debug)]
pub(super) struct Cluster {
    pub id: u64,
    /// How many nodes it began with.
    pub nodes: u16,
    pub members: BTreeMap<NodeId, Member>,
    /// Whether a launcher votes on the membership.
    pub witness: bool,
}

/// Somebody at the rendezvous.
pub(super) enum Joiner {
    /// A node of this version; it waits for an answer.
    Caller { stream: Stream, hello: Box<Hello> },
    /// A node of another version; it has been told.
    OtherVersion { rank: NodeId, refusal: Refusal },
}

/// What to do with a caller.
pub(super) enum Verdict {
    /// It is for whoever forms the cluster to answer.
    Join(Sender<Joiner>),
    /// It is to be told of the cluster that runs.
    Inform(Running),
    /// It is not a peer yet, and may become one.
    Enter(Member),
    /// It is a peer.
    Welcome {
        /// The last frame that the peer has from us.
        peer_received_through: u64,
        /// The last frame that we have from the peer.
        received_through: u64,
    },
    /// It stays out.
    Refuse(Refusal),
}

/// What this node knows of the cluster.
pub(super) struct Gate {
    pub rank: NodeId,
    pub incarnation: Incarnation,
    pub habitat: Habitat,
    pub terms: Terms,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    joins: Option<Sender<Joiner>>,
    cluster: Option<Cluster>,
    /// Processes that want to be members, by the rank that they want.
    candidates: BTreeMap<NodeId, Member>,
    /// The last member of each rank that is none any more: it may call, and learns so.
    former: BTreeMap<NodeId, Member>,
    /// What the links have received, by rank.
    received: BTreeMap<NodeId, Arc<AtomicU64>>,
    /// Peers that are to call again, which process of each, and until when.
    awaited: Vec<(NodeId, Incarnation, Instant)>,
}

impl Gate {
    pub fn new(
        (rank, incarnation): (NodeId, Incarnation),
        habitat: Habitat,
        terms: Terms,
        received: BTreeMap<NodeId, Arc<AtomicU64>>,
        joins: Option<Sender<Joiner>>,
    ) -> Gate {
        let state = State { joins, received, ..State::default() };
        Gate { rank, incarnation, habitat, terms, state: Mutex::new(state) }
    }

    /// The cluster is formed: nobody joins any more, and peers are known.
    pub fn open(&self, cluster: Cluster) {
        let mut state = self.state.lock();
        state.joins = None;
        state.cluster = Some(cluster);
    }

    /// The cluster has these members now. Candidates that are among them are candidates no more.
    pub fn install(&self, members: impl Iterator<Item = (NodeId, Incarnation)>) {
        let mut state = self.state.lock();
        let State { cluster: Some(cluster), candidates, former, .. } = &mut *state else { return };
        let mut before = std::mem::take(&mut cluster.members);
        for (node, incarnation) in members {
            let known = before.remove(&node).filter(|it| it.incarnation == incarnation);
            let known = known.or_else(|| candidates.remove(&node).filter(|it| it.incarnation == incarnation));
            former.remove(&node);
            cluster.members.extend(known.map(|member| (node, member)));
        }
        former.append(&mut before);
    }

    /// The link to `peer` is a new one, which counts here.
    pub fn count_in(&self, peer: NodeId, received: Arc<AtomicU64>) {
        self.state.lock().received.insert(peer, received);
    }

    /// The cluster and the member of it that has `rank`.
    pub fn member(&self, rank: NodeId) -> Option<(u64, Member)> {
        let state = self.state.lock();
        let cluster = state.cluster.as_ref()?;
        let member = cluster.members.get(&rank).or_else(|| state.former.get(&rank))?;
        Some((cluster.id, member.clone()))
    }

    /// The last frame that this node has from `peer`.
    pub fn received_through(&self, peer: NodeId) -> u64 {
        self.state.lock().received_through(peer)
    }

    /// Whether, and how, the caller with this `hello` comes in.
    pub fn judge(&self, hello: &Hello) -> Verdict {
        let mut state = self.state.lock();
        match hello.purpose {
            Purpose::Join => match &state.joins {
                Some(joins) => Verdict::Join(joins.clone()),
                None => self.inform(&state, hello).map_or_else(Verdict::Refuse, Verdict::Inform),
            },
            Purpose::Enter { cluster } => match self.check_candidate(&state, cluster, hello) {
                Ok(member) => {
                    if state.knows(hello.rank, hello.incarnation) {
                        // Both come at a time, or the others were faster: its link counts already.
                        return Verdict::Enter(member);
                    }
                    state.candidates.insert(hello.rank, member.clone());
                    // What this node has of a predecessor, it does not have of this one.
                    state.received.remove(&hello.rank);
                    Verdict::Enter(member)
                }
                Err(refusal) => Verdict::Refuse(refusal),
            },
            Purpose::Link { cluster, received_through } => match self.check_peer(&state, cluster, hello) {
                Ok(()) => Verdict::Welcome {
                    peer_received_through: received_through,
                    received_through: state.received_through(hello.rank),
                },
                Err(refusal) => Verdict::Refuse(refusal),
            },
        }
    }

    /// What a process is told that wants to be a member of the cluster that runs.
    fn inform(&self, state: &State, hello: &Hello) -> Result<Running, Refusal> {
        let cluster = state.cluster.as_ref().ok_or(Refusal::NotRendezvous)?;
        self.terms.compare_late(self.rank, &hello.terms)?;
        self.check_free(cluster, hello)?;
        let entry =
            |(rank, it): (&NodeId, &Member)| (*rank, it.incarnation, it.endpoint.to_string(), it.habitat);
        let candidates = state.candidates.iter().filter(|(rank, _)| **rank != hello.rank);
        Ok(Running {
            cluster: cluster.id,
            nodes: cluster.nodes,
            witness: cluster.witness,
            members: cluster.members.iter().map(entry).collect(),
            candidates: candidates.map(entry).collect(),
        })
    }

    /// Whether the caller may become a member, as far as this node knows.
    fn check_candidate(&self, state: &State, id: u64, hello: &Hello) -> Result<Member, Refusal> {
        let cluster = state.cluster.as_ref().filter(|cluster| cluster.id == id);
        let cluster = cluster.ok_or(Refusal::OtherCluster)?;
        self.terms.compare_late(self.rank, &hello.terms)?;
        self.check_free(cluster, hello)?;
        let endpoint = hello.listen.parse().map_err(|_| Refusal::Address(hello.listen.clone()))?;
        Ok(Member { incarnation: hello.incarnation, endpoint, habitat: hello.habitat })
    }

    /// Whether nobody has the caller's rank. A process that was restarted waits until the members know that its
    /// predecessor is gone.
    fn check_free(&self, cluster: &Cluster, hello: &Hello) -> Result<(), Refusal> {
        let rank = hello.rank;
        if rank.index() >= NODES_MAX {
            return Err(Refusal::NoSuchRank { rank, nodes: NODES_MAX as u16 });
        }
        let member = cluster.members.get(&rank);
        let taken = rank == self.rank || member.is_some_and(|it| it.incarnation != hello.incarnation);
        if taken { Err(Refusal::Taken { rank }) } else { Ok(()) }
    }

    /// Whether there is such a rank.
    pub fn check_rank(&self, rank: NodeId) -> Result<(), Refusal> {
        let nodes = self.terms.nodes;
        if rank.0 < nodes { Ok(()) } else { Err(Refusal::NoSuchRank { rank, nodes }) }
    }

    fn check_peer(&self, state: &State, id: u64, hello: &Hello) -> Result<(), Refusal> {
        let cluster = state.cluster.as_ref().filter(|cluster| cluster.id == id);
        let cluster = cluster.ok_or(Refusal::OtherCluster)?;
        let rank = hello.rank;
        if rank == self.rank {
            return Err(Refusal::Taken { rank });
        }
        let known = [&cluster.members, &state.candidates, &state.former];
        let Some(member) = known.into_iter().find_map(|some| some.get(&rank)) else {
            self.check_rank(rank)?;
            return Err(Refusal::OtherCluster);
        };
        if member.incarnation != hello.incarnation {
            return Err(Refusal::Stale { rank, known: member.incarnation, found: hello.incarnation });
        }
        self.terms.compare_late(self.rank, &hello.terms)
    }

    /// The refusal of a caller that speaks `version`; it goes to the rendezvous too, while that goes on.
    pub fn refuse_version(&self, rank: NodeId, version: u16) -> (Refusal, Option<Sender<Joiner>>) {
        let refusal = Refusal::Mismatch {
            subject: Subject::Version,
            by: self.rank,
            caller: version.to_string(),
            answerer: VERSION.to_string(),
        };
        let unknown = self.check_rank(rank).is_err();
        (refusal, self.state.lock().joins.clone().filter(|_| !unknown))
    }

    /// Gives the process `life` of `peer` until then to call again.
    pub fn await_call(&self, peer: NodeId, life: Incarnation, until: Instant) {
        let mut state = self.state.lock();
        state.awaited.retain(|(awaited, ..)| *awaited != peer);
        state.awaited.push((peer, life, until));
    }

    /// `peer` has called.
    pub fn note_call(&self, peer: NodeId) {
        self.state.lock().awaited.retain(|(awaited, ..)| *awaited != peer);
    }

    /// When the first of the awaited peers is overdue.
    pub fn next_overdue(&self) -> Option<Instant> {
        self.state.lock().awaited.iter().map(|(.., until)| *until).min()
    }

    /// The peers that are overdue now. They are awaited no longer.
    pub fn take_overdue(&self, now: Instant) -> Vec<(NodeId, Incarnation)> {
        let mut state = self.state.lock();
        state
            .awaited
            .extract_if(.., |(.., until)| *until <= now)
            .map(|(peer, life, _)| (peer, life))
            .collect()
    }
}

impl State {
    /// Whether the process `life` is among the members, or, where this node is none yet, among those that it was told of.
    fn knows(&self, rank: NodeId, life: Incarnation) -> bool {
        let members = self.cluster.as_ref().map(|cluster| &cluster.members);
        members.and_then(|members| members.get(&rank)).is_some_and(|member| member.incarnation == life)
    }

    fn received_through(&self, peer: NodeId) -> u64 {
        self.received.get(&peer).map_or(0, |received| received.load(Ordering::Acquire))
    }
}
