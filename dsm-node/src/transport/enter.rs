//! Going to the rendezvous, and, where the cluster runs already, becoming known to it: a connection to each of its
//! members, over which they may let this node in.
//!
//! ```text
//!  candidate              any member            the other members
//!    |------ Join --------->|                        |
//!    |<-- Welcome, Runs ----|                        |      who is a member
//!    |------ Enter -------->|                        |      to each of them: a link, and where the candidate listens
//!    |--------------------------- Enter ------------>|
//!    |------ Join --------->|                        |
//!    |<-- Welcome, Runs ----|                        |      whether anybody is new; to those, too
//! ```
//! Who becomes a member when is agreed on over these links, by the membership.

use super::acceptor::{Acceptor, HANDSHAKE_PATIENCE};
use super::endpoint::Endpoint;
use super::form::{Former, Joined, LEASES_UNTIL_FREE, OUTCOME_PATIENCE, endpoint_of};
use super::gate::{Cluster, Gate, Member};
use super::handshake::{Answer, Hello, Outcome, Purpose, Refusal, Running, encode, hear};
use super::link::Link;
use super::reconnect::{CallError, back_off, call, hello};
use super::stream::Stream;
use crate::error::Error;
use dsm_core::limits::NODES_MAX;
use dsm_core::{Copyset, NodeId};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

impl Former {
    /// At the other ranks: goes to the rendezvous, and comes back with the peer table.
    pub(super) fn join(&mut self) -> Result<Joined, Error> {
        let host = self.reach_rendezvous()?;
        let here = host.local_endpoint().unwrap_or_else(|_| self.formation.rendezvous.clone());
        let listener = self.listen(&self.own_endpoint(&here))?;
        let own = endpoint_of(&listener)?;
        let advertised = if own.is_unspecified() { own.at_host_of(&here) } else { own }.to_string();
        let gate = self.gate(None);
        let (host, outcome) = self.ask_to_join(&gate, host, &advertised)?;
        match outcome {
            Outcome::Formed { cluster, witness, peers } => {
                let cluster = self.read_table((cluster, witness), peers, &host)?;
                // All have come. What remains takes little, but may begin late.
                self.deadline = self.deadline.max(Instant::now() + HANDSHAKE_PATIENCE);
                gate.open(cluster.clone());
                let acceptor = Acceptor::start(Arc::clone(&gate), self.notifier.clone(), vec![listener])?;
                Ok(Joined::Formed(gate, acceptor, cluster))
            }
            Outcome::Runs(running) => {
                let (cluster, _) = self.read_running(running.clone(), &host)?;
                gate.open(cluster);
                let acceptor = Acceptor::start(Arc::clone(&gate), self.notifier.clone(), vec![listener])?;
                let cluster = self.enter(&gate, running, host, &advertised)?;
                Ok(Joined::Entered(gate, acceptor, cluster))
            }
            Outcome::Abandoned(cause) => Err(self.fail(format!("it was given up: {cause}"))),
        }
    }

    /// Asks over `host`, and, where this node's rank is not free yet, over further connections.
    fn ask_to_join(
        &self,
        gate: &Gate,
        mut host: Stream,
        advertised: &str,
    ) -> Result<(Stream, Outcome), Error> {
        let hello = hello(gate, Purpose::Join, advertised.to_owned());
        let bytes = encode(gate.rank, &hello)
            .map_err(|error| Error::Config(format!("the types of this program: {error}")))?;
        // A predecessor that died is a member until the others have agreed that it is none.
        let freed_by = self.deadline.min(Instant::now() + gate.terms.lease * LEASES_UNTIL_FREE);
        let mut pauses = back_off();
        loop {
            let pause = pauses.next().unwrap_or_default();
            host.send_all(&bytes, self.deadline).map_err(|error| self.fail(error.to_string()))?;
            match hear::<Answer>(&host, self.deadline).map_err(|error| self.failed_handshake(error))? {
                Answer::Welcome { .. } => {
                    let outcome = hear(&host, self.deadline + OUTCOME_PATIENCE);
                    return Ok((host, outcome.map_err(|error| self.failed_handshake(error))?));
                }
                // As long as it can ask once more in time: the reason is told then, and not that time ran out.
                Answer::Refused(Refusal::Taken { .. }) if Instant::now() + 2 * pause < freed_by => {
                    std::thread::sleep(pause);
                    host = self.reach_rendezvous()?;
                }
                Answer::Refused(refusal) => {
                    return Err(refusal.at_caller(gate.rank, &self.formation.rendezvous.to_string()));
                }
            }
        }
    }

    /// Connects to all members: each has to say to each other member what it has, whenever the view changes. One that
    /// cannot be reached may be about to be missed by the others, too, and is asked for again until it is no member.
    ///
    /// Two that come at a time may each have been told of the members before the other was known to any. So this asks once
    /// more when it is known to all.
    fn enter(
        &mut self,
        gate: &Gate,
        running: Running,
        host: Stream,
        advertised: &str,
    ) -> Result<Cluster, Error> {
        let until = self.deadline.min(Instant::now() + gate.terms.lease * LEASES_UNTIL_FREE);
        let mut pauses = back_off();
        let mut tried = BTreeMap::new();
        let (mut running, mut host) = (running, host);
        loop {
            let (cluster, candidates) = self.read_running(running, &host)?;
            gate.open(cluster.clone());
            let is_new = |rank: &NodeId, it: &Member| tried.get(rank) != Some(&it.incarnation);
            let new: Vec<_> = cluster.members.iter().filter(|(rank, it)| is_new(rank, it)).collect();
            if new.is_empty() {
                self.forget_others(&cluster);
                return Ok(cluster);
            }
            let mut failures = Vec::new();
            for (peer, member) in new {
                match self.enter_at(gate, (cluster.id, *peer), member, advertised, until) {
                    Ok(()) => {}
                    // It may be gone: nobody misses one that is no member.
                    Err(_) if candidates.contains(*peer) => {}
                    Err(cause) => {
                        failures.push(format!("{peer} at {}: {cause}", member.endpoint));
                        continue;
                    }
                }
                tried.insert(*peer, member.incarnation);
            }
            if !failures.is_empty() {
                let pause = pauses.next().unwrap_or_default();
                if Instant::now() + pause >= until {
                    return Err(self.fail(format!("members cannot be reached: {}", failures.join("; "))));
                }
                std::thread::sleep(pause);
            }
            (host, running) = self.ask_again(gate, &cluster)?;
        }
    }

    /// Becomes known to one member, or to one that wants to be.
    fn enter_at(
        &mut self,
        gate: &Gate,
        (cluster, peer): (u64, NodeId),
        member: &Member,
        advertised: &str,
        until: Instant,
    ) -> Result<(), String> {
        let hello = hello(gate, Purpose::Enter { cluster }, advertised.to_owned());
        // A page fits into memory, so its size fits.
        let mut link = Link::new(peer, self.formation.terms.page_size as usize);
        gate.count_in(peer, link.received_handle());
        let connected = self
            .call_until_free(&hello, peer, member, until)
            .map_err(|error| error.to_string())
            .and_then(|stream| link.attach(stream, 0).map_err(|error| error.to_string()));
        if let Some(place) = self.links.get_mut(peer.index()) {
            *place = Some(link);
        }
        connected
    }

    /// Forgets ranks of the beginning that are no members any more.
    fn forget_others(&mut self, cluster: &Cluster) {
        for rank in (0..NODES_MAX).filter_map(|rank| u16::try_from(rank).ok()).map(NodeId) {
            if !cluster.members.contains_key(&rank) {
                self.links[rank.index()] = None;
            }
        }
    }

    /// Who is a member now, of whichever of the members says so first.
    fn ask_again(&self, gate: &Gate, cluster: &Cluster) -> Result<(Stream, Running), Error> {
        let hello = hello(gate, Purpose::Join, String::new());
        let mut failures = Vec::new();
        for (peer, member) in &cluster.members {
            let left = self.deadline.saturating_duration_since(Instant::now()).min(HANDSHAKE_PATIENCE);
            let answer = call(&hello, *peer, member, left).map_err(|error| error.to_string());
            let answer = answer.and_then(|(stream, _)| {
                let outcome = hear(&stream, Instant::now() + OUTCOME_PATIENCE);
                outcome.map(|outcome| (stream, outcome)).map_err(|error| error.to_string())
            });
            match answer {
                Ok((stream, Outcome::Runs(running))) => return Ok((stream, running)),
                Ok((_, Outcome::Formed { .. } | Outcome::Abandoned(_))) => {
                    failures.push(format!("{peer} has only now formed its cluster"));
                }
                Err(cause) => failures.push(format!("{peer} at {}: {cause}", member.endpoint)),
            }
        }
        Err(self.fail(format!("no member can be reached: {}", failures.join("; "))))
    }

    /// The cluster that `host` tells of, and who of it is no member yet.
    fn read_running(&self, running: Running, host: &Stream) -> Result<(Cluster, Copyset), Error> {
        let Running { cluster, nodes, witness, members: told, candidates } = running;
        let mut members = BTreeMap::new();
        let waiting = candidates.iter().map(|(rank, ..)| *rank).filter(|rank| rank.index() < NODES_MAX);
        let waiting = waiting.collect();
        for (rank, incarnation, text, habitat) in told.into_iter().chain(candidates) {
            let endpoint: Endpoint =
                text.parse().map_err(|error| self.fail(format!("its table: {error}")))?;
            let endpoint = if endpoint.is_unspecified() {
                endpoint.at_host_of(host.peer_endpoint().as_ref().unwrap_or(&self.formation.rendezvous))
            } else {
                endpoint
            };
            if rank.index() >= NODES_MAX || rank == self.formation.rank {
                return Err(self.fail(format!("its table has {rank}")));
            }
            members.insert(rank, Member { incarnation, endpoint, habitat });
        }
        Ok((Cluster { id: cluster, nodes, witness, members }, waiting))
    }

    /// Calls a member. One that has not heard yet that this node's predecessor is gone, will in a moment.
    fn call_until_free(
        &self,
        hello: &Hello,
        peer: NodeId,
        member: &Member,
        until: Instant,
    ) -> Result<Stream, CallError> {
        let mut pauses = back_off();
        loop {
            let left = self.deadline.saturating_duration_since(Instant::now());
            match call(hello, peer, member, left.min(HANDSHAKE_PATIENCE)) {
                Ok((stream, _)) => return Ok(stream),
                Err(CallError::Refused(Refusal::Taken { .. })) if Instant::now() < until => {
                    std::thread::sleep(pauses.next().unwrap_or_default());
                }
                Err(error) => return Err(error),
            }
        }
    }
}
