//! The launcher as a witness: it knows first when one of its nodes has died, ends one that the others cannot reach, and
//! has a vote where that helps. The rules are those of `dsm_core::membership`; this file drives them over the channels of
//! the nodes that it started. What a node says is taken from its own channel only, checked, and never waited for.
//!
//! A node that was started by hand, or that joins later, has no channel: nothing reaches it from here, and it does
//! without. It has its vote and its lease like all others.
//!
//! ```text
//!   node r --channel r--> from = r, packet ---> Membership ---Send---> channels
//!   pidfd r readable, and channel r at its end -> ProvenDead   ---Kill---> SIGKILL to the group of child r
//! ```

use super::cluster::Shared;
use super::{Ending, meeting};
use crate::error::{Error, Result};
use crate::witness::{self, Closed, LauncherEnd, Store, ToLauncher, ToNode, WitnessPacket};
use dsm_core::limits::NODES_MAX;
use dsm_core::membership::{ConfigStore, Fact, Identity, Intent, Membership, Settings, VoterId};
use dsm_core::{Copyset, Incarnation, Member, NodeId, View, ViewId};
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;
use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// Datagrams that are taken from one channel before the others have their turn.
const DATAGRAMS_PER_TURN: usize = 64;

/// What the voters of the consensus say to each other.
type Message = <Store as ConfigStore>::Message;

/// A new channel: the launcher's end, and the socket for the node, at a number that its standard streams leave free.
pub(super) fn channel() -> Result<(LauncherEnd, OwnedFd)> {
    let made = witness::channel().and_then(|(end, socket)| Ok((end, meeting::out_of_the_way(socket)?)));
    made.map_err(|cause| Error::io("making a channel between the launcher and a node", cause))
}

/// Starts the witness of the nodes of `shared`, whose channels are `ends`, by rank. Its thread ends when all of them have
/// ended. Should it fail, the cluster has one vote less, as if its launcher had died.
pub(super) fn start(shared: Arc<Shared>, ends: Vec<LauncherEnd>) -> Result<()> {
    let mut witness = Witness::new(shared, ends);
    thread::Builder::new()
        .name(String::from("dsm-witness"))
        .spawn(move || while witness.turn() {})
        .map(|_| ())
        .map_err(|cause| Error::io("starting the thread that witnesses for the nodes", cause))
}

/// The witness of one cluster.
pub(super) struct Witness {
    shared: Arc<Shared>,
    /// By rank.
    children: Vec<Child>,
    /// Since a node has said that the cluster has formed.
    membership: Option<Membership<Store>>,
}

/// One node that the launcher started.
struct Child {
    /// Its channel, until every process that held the other end is gone, or the node has closed it because it left.
    end: Option<LauncherEnd>,
    /// Which life of its rank it is, as it said itself: a process that was started by hand may have the rank now.
    incarnation: Option<Incarnation>,
    /// Whether its process has ended.
    ended: bool,
    /// Whether its death was told.
    proven: bool,
    /// Which life of its rank the others cannot reach.
    unreachable: Option<Incarnation>,
}

/// What a wait was ended by.
enum Ready {
    Channel(usize),
    Ended(usize),
}

impl Witness {
    pub fn new(shared: Arc<Shared>, ends: Vec<LauncherEnd>) -> Witness {
        let child =
            |end| Child { end: Some(end), incarnation: None, ended: false, proven: false, unreachable: None };
        Witness { shared, children: ends.into_iter().map(child).collect(), membership: None }
    }

    /// Waits for something to happen, and does what follows from it. False when all nodes have ended.
    pub fn turn(&mut self) -> bool {
        for ready in self.wait() {
            match ready {
                Ready::Channel(index) => self.hear(index),
                Ready::Ended(index) => {
                    // Its last words, and that the channel is at its end, are there by now.
                    self.hear(index);
                    self.children[index].ended = true;
                }
            }
        }
        self.prove_deaths();
        if self
            .membership
            .as_ref()
            .and_then(Membership::deadline)
            .is_some_and(|deadline| witness::now() >= deadline)
        {
            self.tell(Fact::Tick);
        }
        self.end_unreachable();
        self.children.iter().any(|child| !child.ended)
    }

    fn wait(&self) -> Vec<Ready> {
        let mut what = Vec::new();
        let mut polled = Vec::new();
        for (index, (child, process)) in self.children.iter().zip(self.shared.processes()).enumerate() {
            if let Some(end) = &child.end {
                what.push(Ready::Channel(index));
                polled.push(PollFd::new(end.as_fd(), PollFlags::POLLIN));
            }
            if !child.ended {
                what.push(Ready::Ended(index));
                polled.push(PollFd::new(process.pidfd(), PollFlags::POLLIN));
            }
        }
        let deadline = self.membership.as_ref().and_then(Membership::deadline);
        let timeout = deadline.map(|deadline| TimeSpec::from_duration(deadline.since(witness::now())));
        // Interrupted, or refused for want of kernel memory: the next turn waits again.
        if ppoll(&mut polled, timeout, None).is_err() {
            return Vec::new();
        }
        let is_ready = polled.iter().map(|entry| entry.any().unwrap_or(false));
        what.into_iter().zip(is_ready).filter_map(|(what, is_ready)| is_ready.then_some(what)).collect()
    }

    /// Takes what one node has said.
    fn hear(&mut self, index: usize) {
        for _ in 0..DATAGRAMS_PER_TURN {
            let Some(received) = self.children[index].end.as_ref().and_then(LauncherEnd::receive) else {
                return;
            };
            match received {
                Ok(ToLauncher::Formed { replicas, lease, heartbeat, members, view }) => {
                    self.formed(index, replicas, (lease, heartbeat), members, view);
                }
                Ok(ToLauncher::Packet(packet)) => self.packet(index, packet),
                Err(Closed) => self.children[index].end = None,
            }
        }
    }

    /// A node says that the cluster has formed. The first one starts the witness's part; each says by it who it is.
    fn formed(
        &mut self,
        index: usize,
        replicas: u32,
        (lease, heartbeat): (Duration, Duration),
        members: Vec<(NodeId, Member)>,
        view: ViewId,
    ) {
        let times = Settings::default().with_lease(lease).and_then(|times| times.with_heartbeat(heartbeat));
        let (Ok(times), Some(view)) = (times, checked_view(view, replicas, members)) else { return };
        let Some(member) = view.member(node_of(index)) else { return };
        let child = &mut self.children[index];
        child.incarnation.get_or_insert(member.incarnation);
        if self.membership.is_none() {
            if view.replicas() > 0 && view.members().len() > 1 {
                self.shared.let_survivors_go_on();
            }
            let settings = times.with_witness(true);
            self.membership = Some(Membership::new(witness::now(), Identity::WITNESS, settings, view));
            self.tell(Fact::Tick);
        }
    }

    /// A packet, which is of whoever has the channel, whatever it says itself.
    fn packet(&mut self, index: usize, packet: WitnessPacket) {
        let child = &mut self.children[index];
        if *child.incarnation.get_or_insert(packet.incarnation) == packet.incarnation {
            self.tell(Fact::Received { from: VoterId::Node(node_of(index)), packet });
        }
    }

    /// Tells the deaths that are certain: the process that the launcher started has ended, and so has every process that
    /// it left its channel to, as when a shell was started that started the node.
    fn prove_deaths(&mut self) {
        if self.membership.is_none() {
            return;
        }
        for index in 0..self.children.len() {
            let child = &mut self.children[index];
            if let (true, None, false, Some(incarnation)) =
                (child.ended, &child.end, child.proven, child.incarnation)
            {
                child.proven = true;
                self.tell(Fact::ProvenDead { node: node_of(index), incarnation });
            }
        }
    }

    /// Tells the membership what happened, and does what it wants done.
    fn tell(&mut self, fact: Fact<Message>) {
        let Some(membership) = &mut self.membership else { return };
        let mut intents = Vec::new();
        membership.handle(witness::now(), fact, &mut intents);
        intents.into_iter().for_each(|intent| self.carry_out(intent));
    }

    fn carry_out(&mut self, intent: Intent<Message>) {
        match intent {
            Intent::Send { to: VoterId::Node(node), packet } => {
                if let Some(end) = self.child(node).and_then(|child| child.end.as_ref()) {
                    end.send(&ToNode::Packet(packet));
                }
            }
            Intent::Kill { node, incarnation } => {
                if let Some(child) = self.children.get_mut(node.index()) {
                    child.unreachable = Some(incarnation);
                }
            }
            // It says nothing to itself, and holds nothing that a view or a lease would decide about.
            Intent::Send { to: VoterId::Witness, .. }
            | Intent::Install(_)
            | Intent::Freeze
            | Intent::Resume
            | Intent::Evicted { .. }
            | Intent::Left
            | Intent::NoQuorum => {}
        }
    }

    /// Ends nodes that the others cannot reach, if they are those that were started here. One that has said nothing yet
    /// may still turn out to be: it is asked for once only. One that has closed its channel takes no part any more: its
    /// connections are closed because it has left, and it may go on with something else.
    fn end_unreachable(&mut self) {
        for (child, process) in self.children.iter_mut().zip(self.shared.processes()) {
            if child.end.is_some() && child.incarnation.is_some() {
                let unreachable = child.unreachable.take();
                if unreachable.is_some() && unreachable == child.incarnation {
                    process.kill(Ending::Unreachable);
                }
            }
        }
    }

    fn child(&self, node: NodeId) -> Option<&Child> {
        self.children.get(node.index())
    }
}

/// The node of a channel. There are as many as a cluster may have nodes at most.
fn node_of(index: usize) -> NodeId {
    NodeId(u16::try_from(index).unwrap_or(u16::MAX))
}

/// The view that a node tells, if there can be such a view.
fn checked_view(id: ViewId, replicas: u32, members: Vec<(NodeId, Member)>) -> Option<View> {
    let count = members.len();
    let members: BTreeMap<NodeId, Member> = members.into_iter().collect();
    let all: Copyset = members.keys().copied().filter(|node| node.index() < NODES_MAX).collect();
    let is_sound = id >= ViewId::FIRST
        && !members.is_empty()
        && count == members.len()
        && all.len() == count
        && members.values().all(|member| member.buddies.minus(all).is_empty());
    is_sound.then(|| View::told(id, replicas, members))
}

#[cfg(test)]
mod tests;
