//! The engine's part in the membership: who is in the view, whether this node may act, and what waits until it may.
//!
//! ```text
//!   peers' packets, pidfds, the launcher, time ─▶ membership ─┬─▶ Install: links and machine speak for the next view
//!                                                            ├─▶ Freeze: nothing leaves, the app view is emptied
//!                                                            ├─▶ Resume: what was put off happens
//!                                                            └─▶ Evicted, NoQuorum, Left: the end
//! ```
//! What is agreed on, and when a lease ends, is the membership's business (`dsm_core::membership`); what a view means for
//! pages, the machine's. While a node is frozen its machine hears nothing but views: what peers, threads and the program
//! want is put off, in order, and replies are kept back.

use super::Engine;
use super::admission::Admission;
use super::poller::Source;
use super::timers::Reminder;
use crate::error::Result;
use crate::node::{Call, Ending};
use crate::pidfd;
use crate::signals;
use crate::transport::{Delivered, Habitat, Member, Peer, Stream};
use crate::witness::{Channel, ToLauncher, ToNode, WitnessPacket};
use dsm_core::failpoint::Moment;
use dsm_core::membership::{Fact, Identity, Intent, Membership, OmniStore, Settings, VoterId};
use dsm_core::{
    CallId, Event, Incarnation, Message, NodeId, PageId, Reply, Time, View, ViewId, Want,
    wire::MembershipPacket,
};
use std::collections::{BTreeMap, VecDeque};
use std::os::fd::OwnedFd;
use std::time::Duration;

/// A thread that has waited so long for a page gives reason to look whether peers live: some ten times as long as a fault
/// takes whose page comes.
const DOUBT_AFTER: Duration = Duration::from_millis(2);

/// The time between two looks doubles so often while one thread waits: a page may rightly stay away for long.
const DOUBLINGS_MAX: u32 = 5;

/// Something that happened while it could not be dealt with.
pub(super) enum Postponed {
    /// A peer said something: in a view that is not installed, or while this node was frozen.
    Heard { from: NodeId, view: ViewId, message: Message, body: Delivered },
    /// A thread faulted.
    Fault { page: PageId, want: Want },
    /// The program wants something.
    Wanted(Call),
    /// A call has its answer.
    Answered { call: CallId, reply: Reply },
}

/// What the membership wants.
pub(super) type MembershipIntent = Intent<<OmniStore as dsm_core::membership::ConfigStore>::Message>;

/// What an engine knows of the membership.
pub(super) struct Members {
    membership: Membership<OmniStore>,
    intents: Vec<MembershipIntent>,
    /// When the membership wants to be told the time; no later than the end of the lease.
    deadline: Time,
    /// The line to the launcher that votes, if there is one and it lives.
    witness: Option<Channel>,
    /// Those peers whose processes run in reach.
    watched: BTreeMap<NodeId, Watched>,
    /// How often in a row the peers were looked at while one thread waited for a page.
    looks: u32,
    /// Whether they are to be looked at though no thread has waited for long.
    doubts: bool,
    /// Whether nothing may leave this node, and nothing may be touched.
    pub frozen: bool,
    pub postponed: VecDeque<Postponed>,
    /// How the membership ended.
    pub ended: Option<Ending>,
}

/// A peer's process.
struct Watched {
    incarnation: Incarnation,
    process: u32,
    /// Becomes readable when it has ended.
    pidfd: OwnedFd,
}

/// What a membership begins with.
pub(super) struct Beginning {
    pub me: NodeId,
    pub habitat: Habitat,
    pub incarnation: Incarnation,
    pub settings: Settings,
    pub view: View,
    pub witness: Option<Channel>,
}

impl Members {
    /// The membership of a node in the first view of its cluster.
    pub fn new(now: Time, beginning: Beginning) -> Members {
        let Beginning { me, habitat, incarnation, settings, view, witness } = beginning;
        if let Some(witness) = &witness {
            witness.send(&ToLauncher::Formed {
                replicas: view.replicas(),
                lease: settings.lease(),
                heartbeat: settings.heartbeat(),
                members: view.iter().map(|(node, member)| (node, *member)).collect(),
                view: view.id(),
            });
        }
        let identity = Identity { id: VoterId::Node(me), incarnation, host: habitat.host };
        Members {
            membership: Membership::new(now, identity, settings, view),
            intents: Vec::new(),
            deadline: now,
            witness,
            watched: BTreeMap::new(),
            looks: 0,
            doubts: false,
            // Until the first lease.
            frozen: true,
            postponed: VecDeque::new(),
            ended: None,
        }
    }

    /// The membership of a node that was let into a cluster that ran.
    pub fn admitted(now: Time, admission: Admission) -> Members {
        let Admission { membership, view: _, intents, said } = admission;
        Members {
            membership,
            intents,
            deadline: now,
            witness: None,
            watched: BTreeMap::new(),
            looks: 0,
            doubts: false,
            frozen: true,
            postponed: said.into(),
            ended: None,
        }
    }

    /// The line to the launcher, to be waited on.
    pub fn witness(&self) -> Option<&Channel> {
        self.witness.as_ref()
    }

    /// Whether the membership is to be told the time.
    pub fn is_due(&self, now: Time) -> bool {
        now >= self.deadline
    }
}

impl Engine {
    /// Has the deaths of those peers noticed at once that run where this process can see them.
    pub(super) fn watch_peers(&mut self, peers: &BTreeMap<NodeId, Peer>) -> Result<()> {
        peers.iter().try_for_each(|(node, peer)| self.watch_peer(*node, *peer))
    }

    fn watch_peer(&mut self, node: NodeId, peer: Peer) -> Result<()> {
        self.watch_no_more(node);
        if node == self.me || peer.habitat.name_space != self.habitat.name_space {
            return Ok(());
        }
        // One that cannot be watched, having ended already perhaps, is missed by its lease.
        let process = peer.habitat.process;
        if let Ok(pidfd) = pidfd::open(process) {
            self.poller.watch(Source::Death(node), &pidfd)?;
            self.members.watched.insert(node, Watched { incarnation: peer.incarnation, process, pidfd });
        }
        Ok(())
    }

    pub(super) fn watch_no_more(&mut self, node: NodeId) -> Option<Incarnation> {
        let watched = self.members.watched.remove(&node)?;
        self.poller.forget(&watched.pidfd);
        Some(watched.incarnation)
    }

    /// Threads wait for pages. If one waits for long, that may be because of a peer that was killed: then the peers are to be
    /// looked at. One cannot run any more long before its descriptor tells that it has ended.
    pub(super) fn doubt_if_it_takes_long(&mut self) {
        if !self.members.watched.is_empty() {
            self.timers.set_by(Reminder::Doubt, DOUBT_AFTER);
        }
    }

    /// A connection broke: the peer at its other end may have been killed.
    pub(super) fn doubt_at_once(&mut self) {
        if !self.members.watched.is_empty() {
            self.members.doubts = true;
            self.timers.set_by(Reminder::Doubt, Duration::ZERO);
        }
    }

    /// Looks whether peers were killed, if there is reason to; and again later, ever more rarely, while a thread waits.
    pub(super) fn look_at_peers(&mut self, now: Time) -> Result<()> {
        let oldest = self.faults.oldest();
        let waited = oldest.is_some_and(|oldest| now.since(oldest) >= DOUBT_AFTER);
        if std::mem::take(&mut self.members.doubts) || waited {
            let dead =
                |(node, it): (&NodeId, &Watched)| pidfd::cannot_run(it.process, &it.pidfd).then_some(*node);
            for node in self.members.watched.iter().filter_map(dead).collect::<Vec<_>>() {
                self.take_death(node)?;
            }
        }
        self.members.looks = if waited { (self.members.looks + 1).min(DOUBLINGS_MAX) } else { 0 };
        if oldest.is_some() && !self.members.watched.is_empty() {
            self.timers.set_by(Reminder::Doubt, DOUBT_AFTER * (1 << self.members.looks));
        }
        Ok(())
    }

    /// A process is connected that wants to be a member. Until it is, nothing but words about membership is exchanged.
    pub(super) fn let_in(&mut self, peer: NodeId, stream: Stream, member: &Member) -> Result<()> {
        if peer == self.me {
            return Ok(());
        }
        let known = self.machine.view().member(peer).map(|it| it.incarnation);
        if known.is_some_and(|life| life != member.incarnation) {
            // The rank was taken meanwhile.
            return Ok(());
        }
        // The members may have agreed on it before this was read: then its link waits for the connection.
        if self.life_of(peer) != Some(member.incarnation) {
            self.meet(peer, member.incarnation);
        }
        let Some(link) = self.links.get_mut(peer.index()).and_then(Option::as_mut) else { return Ok(()) };
        // Of two that come at a time and have called each other, both take the call of the higher rank.
        if link.is_attached() && (known.is_some() || peer < self.me) {
            return Ok(());
        }
        self.hang_up(peer);
        let Some(link) = self.links.get_mut(peer.index()).and_then(Option::as_mut) else { return Ok(()) };
        if link.attach(stream, 0).is_err() {
            // Nothing was said on it that could be missing.
            return Ok(());
        }
        if let Some(descriptor) = link.descriptor() {
            self.poller.watch_peer(peer, descriptor)?;
        }
        self.mesh.reconnect.end(peer);
        self.mark_unflushed(peer);
        self.watch_peer(peer, Peer { incarnation: member.incarnation, habitat: member.habitat })
    }

    /// Does what was wanted before there was an engine.
    pub(super) fn begin_membership(&mut self) -> Result<()> {
        self.settle_upcoming()?;
        for intent in std::mem::take(&mut self.members.intents) {
            self.follow(intent)?;
        }
        self.call_missing();
        self.tell_membership(Fact::Tick)
    }

    /// The descriptor of a peer's process was readable; or that of one which had the rank before, and the process that has it
    /// now was let in since the wait that found it.
    pub(super) fn take_end(&mut self, node: NodeId) -> Result<()> {
        let watched = self.members.watched.get(&node);
        if watched.is_some_and(|it| pidfd::has_ended(&it.pidfd)) { self.take_death(node) } else { Ok(()) }
    }

    /// A peer's process has ended.
    fn take_death(&mut self, node: NodeId) -> Result<()> {
        let Some(incarnation) = self.watch_no_more(node) else { return Ok(()) };
        self.tell_membership(Fact::ProvenDead { node, incarnation })
    }

    /// The launcher said something, or is gone.
    pub(super) fn take_witness(&mut self) -> Result<()> {
        loop {
            let Some(said) = self.members.witness.as_ref().and_then(Channel::receive) else { return Ok(()) };
            match said {
                Ok(ToNode::Packet(packet)) => {
                    self.tell_membership(Fact::Received { from: VoterId::Witness, packet })?;
                }
                Err(_) => {
                    if let Some(witness) = self.members.witness.take() {
                        self.poller.forget(&witness);
                    }
                    return Ok(());
                }
            }
        }
    }

    /// A peer said something about membership.
    pub(super) fn take_packet(&mut self, from: NodeId, packet: MembershipPacket) -> Result<()> {
        self.tell_membership(Fact::Received { from: VoterId::Node(from), packet })
    }

    /// Looks at the lease, if it is time to. To be done before anything that is done on the strength of it.
    pub(super) fn mind_the_time(&mut self) -> Result<()> {
        if self.members.is_due(self.timers.now()) { self.tell_membership(Fact::Tick) } else { Ok(()) }
    }

    /// Tells the membership one fact, and does what follows from it.
    pub(super) fn tell_membership(
        &mut self,
        fact: Fact<<OmniStore as dsm_core::membership::ConfigStore>::Message>,
    ) -> Result<()> {
        if self.departing || self.members.ended.is_some() {
            // Every program is done, or nothing more comes.
            return Ok(());
        }
        let mut intents = std::mem::take(&mut self.members.intents);
        self.members.membership.handle(self.timers.now(), fact, &mut intents);
        for intent in intents.drain(..) {
            self.follow(intent)?;
        }
        self.members.intents = intents;
        if let Some(deadline) = self.members.membership.deadline() {
            self.members.deadline = deadline;
            self.timers.set(Reminder::Membership, deadline);
        }
        Ok(())
    }

    fn follow(&mut self, intent: MembershipIntent) -> Result<()> {
        match intent {
            Intent::Send { to: VoterId::Node(node), packet } => self.say(node, &packet),
            Intent::Send { to: VoterId::Witness, packet } => {
                if let Some(witness) = &self.members.witness {
                    witness.send(&ToLauncher::Packet(packet));
                }
            }
            Intent::Install(view) => self.install_view(view)?,
            Intent::Freeze => self.freeze()?,
            Intent::Resume => self.thaw()?,
            Intent::Evicted { view } => self.end(Ending::Evicted { view }),
            Intent::NoQuorum => self.end(Ending::NoQuorum),
            Intent::Left => {
                self.stopping = true;
            }
            // For the launcher, which this is not.
            Intent::Kill { .. } => {}
        }
        Ok(())
    }

    fn say(&mut self, to: NodeId, packet: &WitnessPacket) {
        let Some(link) = self.links.get_mut(to.index()).and_then(Option::as_mut) else { return };
        if let Err(error) = link.say(packet) {
            // Only a packet beyond the wire's limits cannot be encoded, and its parts are bounded where they are made.
            signals::die(&format!("{}: cannot encode {packet:?} to {to}: {error}", self.me));
        }
        self.mark_unflushed(to);
    }

    /// The members have agreed on another view, and this node is in it.
    pub(super) fn install_view(&mut self, view: View) -> Result<()> {
        let id = view.id();
        let (before, members) = (self.machine.view().members(), view.members());
        self.log.info(format!("{id} with {members:?}, after {before:?}"));
        // Who is new may not be connected yet: what is said to it waits at its link.
        self.meet_members(&view);
        for link in self.links.iter_mut().flatten() {
            link.install(id);
        }
        self.mesh.reconnect.install(view.iter().map(|(node, member)| (node, member.incarnation)));
        for node in before.minus(members).iter() {
            self.mesh.reconnect.end(node);
            self.watch_no_more(node);
        }
        // Before anything completes in it.
        self.node.publish_view(&view);
        self.recovery_begins(id);
        self.handle(Event::ViewInstalled(view))?;
        self.call_missing();
        self.catch_up()
    }

    /// Nothing may leave this node, and nobody may touch what others may be changing.
    fn freeze(&mut self) -> Result<()> {
        self.members.frozen = true;
        self.log.warn(format!("{} has no lease: it waits for a majority of the members", self.me));
        self.region.empty()
    }

    /// This node may act again.
    fn thaw(&mut self) -> Result<()> {
        self.members.frozen = false;
        for link in self.links.iter().flatten() {
            self.unflushed.push(link.peer());
        }
        self.catch_up()
    }

    /// Does what had been put off and can be done now.
    fn catch_up(&mut self) -> Result<()> {
        for postponed in std::mem::take(&mut self.members.postponed) {
            match postponed {
                Postponed::Heard { from, view, message, body } => {
                    self.take_message(from, view, message, body)?
                }
                Postponed::Fault { page, want } => self.take_fault(page, want)?,
                Postponed::Wanted(call) => self.take_call(call)?,
                Postponed::Answered { call, reply } => self.answer(call, reply),
            }
        }
        Ok(())
    }

    /// A message of a peer: to be dealt with now, or later, or never.
    pub(super) fn take_message(
        &mut self,
        from: NodeId,
        view: ViewId,
        message: Message,
        body: Delivered,
    ) -> Result<()> {
        let current = self.machine.view().id();
        if view < current {
            return Ok(());
        }
        if view > current || self.members.frozen {
            self.members.postponed.push_back(Postponed::Heard { from, view, message, body });
            return Ok(());
        }
        let name = message.name();
        if self.pass(Moment::Receive, name) {
            return Ok(());
        }
        let (message, body) = self.unpatch(from, message, body);
        match body {
            Delivered::Aside(bytes) => self.copies.put_aside(from, &message, bytes),
            Delivered::InFrame => self.copies.supersede(&message),
            // The machine refuses it, or does not need it: what came before it is as it was.
            Delivered::Nothing => {}
        }
        self.handle(Event::Received { from, message })?;
        if !self.failpoints.is_empty() {
            self.flush_all();
            self.pass(Moment::Received, name);
        }
        Ok(())
    }

    /// A thread faulted.
    pub(super) fn take_fault(&mut self, page: PageId, want: Want) -> Result<()> {
        if self.members.frozen {
            self.members.postponed.push_back(Postponed::Fault { page, want });
            return Ok(());
        }
        self.handle(Event::Fault { page, want })
    }

    /// The program wants something.
    pub(super) fn take_call(&mut self, call: Call) -> Result<()> {
        if self.members.frozen {
            self.members.postponed.push_back(Postponed::Wanted(call));
            return Ok(());
        }
        let Call { id, command, answer } = call;
        if let Some(answer) = answer {
            self.answers.insert(id, answer);
        }
        self.handle(Event::Command { call: id, command })
    }

    /// A call has its answer.
    pub(super) fn answer(&mut self, call: CallId, reply: Reply) {
        if self.members.frozen {
            self.members.postponed.push_back(Postponed::Answered { call, reply });
            return;
        }
        self.departing |= reply == Reply::Left;
        self.note_departure(call);
        if let Some(answer) = self.answers.remove(&call) {
            // Who asked may have given up.
            let _ = answer.send(reply);
        }
    }

    /// Waits no longer on what the membership is about: this node is done.
    pub(super) fn forget_membership(&mut self) {
        for watched in std::mem::take(&mut self.members.watched).into_values() {
            self.poller.forget(&watched.pidfd);
        }
        if let Some(witness) = self.members.witness.take() {
            self.poller.forget(&witness);
        }
    }

    /// The membership is over for this node, and not because it wanted to leave.
    fn end(&mut self, ending: Ending) {
        if self.has_said_that_it_leaves() {
            // That the others agreed has not come to it: they can do without it, and may all be done.
            self.stopping = true;
            return;
        }
        let (reason, words) = match ending {
            Ending::Evicted { view } => (
                signals::Reason::Evicted,
                format!("was evicted: the others took it for dead and went on without it in {view}"),
            ),
            Ending::NoQuorum => (
                signals::Reason::NoQuorum,
                String::from(
                    "did not reach a majority of the members for too long: it may have been cut off, or they died",
                ),
            ),
        };
        self.log.error(format!("{} {words}; this process is no node any more", self.me));
        signals::set_reason(reason);
        self.node.end(ending);
        self.members.ended = Some(ending);
        self.stopping = true;
    }
}
