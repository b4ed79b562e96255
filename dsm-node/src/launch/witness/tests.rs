//! The witness over processes that only sleep, with their parts in the membership played here.

use super::super::process::Process;
use super::*;
use crate::launch::process::Group;
use crate::witness::Channel;
use dsm_core::Host;
use nix::poll::{PollTimeout, poll};
use std::collections::VecDeque;
use std::process::Command;
use std::time::Instant;

/// What any wait in these tests may take, on a busy machine.
const BUDGET: Duration = Duration::from_secs(30);

/// A lease that does not run out within the budget: what happens, happens by proof.
const LONG_LEASE: Duration = Duration::from_secs(300);

/// How long a round waits for words of the witness.
const ROUND: Duration = Duration::from_millis(5);

type Node = Membership<Store>;

/// Nodes that reach each other and the witness.
struct Nodes {
    nodes: Vec<Option<(Node, Channel)>>,
    /// On their way between nodes: from, to, what.
    packets: VecDeque<(NodeId, NodeId, WitnessPacket)>,
}

/// So many sleeping processes, and the ends of their channels.
fn sleepers(count: usize) -> (Arc<Shared>, Witness, Vec<Channel>) {
    let mut group = Group::default();
    for _ in 0..count {
        let mut command = Command::new("sleep");
        command.arg("1000");
        group.push(Process::start(command, &[]).expect("sleep starts").0);
    }
    let (ends, channels) = (0..count)
        .map(|_| channel().map(|(end, socket)| (end, Channel::new(socket))).expect("sockets"))
        .unzip();
    let shared = Arc::new(Shared::new(group));
    (Arc::clone(&shared), Witness::new(shared, ends), channels)
}

fn first_view(count: usize, replicas: u32) -> View {
    View::first((0..count).map(|rank| (node_of(rank), incarnation(rank), Host(1))), replicas)
}

fn incarnation(rank: usize) -> Incarnation {
    Incarnation(100 + rank as u64)
}

fn formed(view: &View, lease: Duration) -> ToLauncher {
    ToLauncher::Formed {
        replicas: view.replicas(),
        lease,
        heartbeat: Duration::from_millis(20),
        members: view.iter().map(|(node, member)| (node, *member)).collect(),
        view: view.id(),
    }
}

impl Nodes {
    fn form(channels: Vec<Channel>) -> Nodes {
        let view = first_view(channels.len(), 1);
        let settings = Settings::default().with_lease(LONG_LEASE).expect("within the limits");
        let settings = settings.with_heartbeat(Duration::from_millis(20)).expect("short enough");
        let node = |(rank, channel): (usize, Channel)| {
            let me =
                Identity { id: VoterId::Node(node_of(rank)), incarnation: incarnation(rank), host: Host(1) };
            channel.send(&formed(&view, LONG_LEASE));
            let settings = settings.with_witness(true);
            Some((Membership::new(witness::now(), me, settings, view.clone()), channel))
        };
        Nodes { nodes: channels.into_iter().enumerate().map(node).collect(), packets: VecDeque::new() }
    }

    fn tell(&mut self, rank: usize, fact: Fact<Message>) {
        let Some((membership, channel)) = &mut self.nodes[rank] else { return };
        let mut intents = Vec::new();
        membership.handle(witness::now(), fact, &mut intents);
        for intent in intents {
            match intent {
                Intent::Send { to: VoterId::Witness, packet } => channel.send(&ToLauncher::Packet(packet)),
                Intent::Send { to: VoterId::Node(to), packet } => {
                    self.packets.push_back((node_of(rank), to, packet));
                }
                Intent::Evicted { .. } | Intent::NoQuorum | Intent::Left => panic!("rank {rank}: {intent:?}"),
                Intent::Install(_) | Intent::Freeze | Intent::Resume | Intent::Kill { .. } => {}
            }
        }
    }

    /// Lets everybody speak, until `done`.
    fn run(&mut self, mut done: impl FnMut(&mut Nodes) -> bool) {
        let end = Instant::now() + BUDGET;
        while !done(self) {
            assert!(Instant::now() < end, "views: {:?}", self.views());
            self.round();
        }
    }

    fn round(&mut self) {
        for rank in 0..self.nodes.len() {
            while let Some(Ok(ToNode::Packet(packet))) =
                self.nodes[rank].as_ref().and_then(|(_, channel)| channel.receive())
            {
                self.tell(rank, Fact::Received { from: VoterId::Witness, packet });
            }
            self.tell(rank, Fact::Tick);
        }
        while let Some((from, to, packet)) = self.packets.pop_front() {
            self.tell(to.index(), Fact::Received { from: VoterId::Node(from), packet });
        }
        let mut polled: Vec<PollFd<'_>> = self
            .nodes
            .iter()
            .flatten()
            .map(|(_, channel)| PollFd::new(channel.as_fd(), PollFlags::POLLIN))
            .collect();
        poll(&mut polled, PollTimeout::try_from(ROUND).expect("short")).expect("descriptors are open");
    }

    fn views(&self) -> Vec<Option<&View>> {
        self.nodes.iter().map(|node| node.as_ref().and_then(|(membership, _)| membership.view())).collect()
    }

    fn all_hold_a_lease(&self) -> bool {
        self.nodes.iter().flatten().all(|(membership, _)| membership.holds_lease(witness::now()))
    }

    /// Whether all are in a view of just these.
    fn all_see(&self, ranks: &[u16]) -> bool {
        let expected: Copyset = ranks.iter().copied().map(NodeId).collect();
        self.views().into_iter().flatten().all(|view| view.members() == expected)
    }
}

fn has_ended(shared: &Shared, rank: u32) -> bool {
    let process = shared.process(rank).expect("it was started");
    let mut polled = [PollFd::new(process.pidfd(), PollFlags::POLLIN)];
    poll(&mut polled, PollTimeout::ZERO) == Ok(1)
}

#[test]
fn a_death_is_proven_long_before_a_lease_runs_out() {
    let (shared, mut witness, channels) = sleepers(2);
    let thread = thread::spawn(move || while witness.turn() {});
    let mut nodes = Nodes::form(channels);
    nodes.run(|nodes| nodes.all_hold_a_lease());
    shared.process(1).expect("started").kill(Ending::Killed);
    nodes.nodes[1] = None;
    // One of two nodes is no majority: that this comes to be shows the witness's vote as well.
    nodes.run(|nodes| nodes.all_see(&[0]));
    assert!(nodes.all_hold_a_lease());
    shared.process(0).expect("started").kill(Ending::Killed);
    thread.join().expect("the witness ends with the last node");
}

#[test]
fn a_node_that_others_cannot_reach_is_ended() {
    let (shared, mut witness, channels) = sleepers(3);
    let thread = thread::spawn(move || while witness.turn() {});
    let mut nodes = Nodes::form(channels);
    nodes.run(|nodes| nodes.all_hold_a_lease());
    // Deaf and dumb, but alive, as far as the witness can see.
    let (_, stuck) = nodes.nodes[2].take().expect("it is there");
    nodes.tell(0, Fact::Suspected { node: NodeId(2) });
    nodes.run(|_| has_ended(&shared, 2));
    assert_eq!(shared.process(2).and_then(Process::reap).expect("ended").ending, Ending::Unreachable);
    drop(stuck);
    nodes.run(|nodes| nodes.all_see(&[0, 1]));
    shared.kill_all(Ending::Killed);
    thread.join().expect("the witness ends with the last node");
}

/// A witness that has heard that its cluster has formed.
fn witness_of(count: usize, replicas: u32) -> (Arc<Shared>, Witness, Vec<Channel>) {
    let (shared, mut witness, channels) = sleepers(count);
    for channel in &channels {
        channel.send(&formed(&first_view(count, replicas), LONG_LEASE));
    }
    assert!(witness.turn());
    assert!(witness.membership.is_some());
    (shared, witness, channels)
}

#[test]
fn nobody_is_called_dead_while_somebody_holds_its_channel() {
    let (shared, mut witness, mut channels) = witness_of(2, 1);
    shared.process(1).expect("started").kill(Ending::Killed);
    while !witness.children[1].ended {
        assert!(witness.turn());
    }
    // As if the process were a shell, and the node that it had started had survived it.
    assert!(!witness.children[1].proven);
    channels.truncate(1);
    while !witness.children[1].proven {
        assert!(witness.turn());
    }
}

#[test]
fn a_node_that_has_left_and_one_of_another_life_are_not_ended() {
    let (shared, mut witness, mut channels) = witness_of(2, 1);
    let ask = |witness: &mut Witness, node, incarnation| {
        witness.carry_out(Intent::Kill { node: NodeId(node), incarnation });
        witness.end_unreachable();
    };
    let is_told = |rank| shared.process(rank).expect("started").was_told();
    ask(&mut witness, 0, Incarnation(7));
    channels.truncate(1);
    while witness.children[1].end.is_some() {
        assert!(witness.turn());
    }
    ask(&mut witness, 1, incarnation(1));
    ask(&mut witness, 9, incarnation(9));
    assert!(!is_told(0) && !is_told(1));
    ask(&mut witness, 0, incarnation(0));
    assert!(is_told(0));
}

#[test]
fn whoever_has_not_said_who_it_is_is_ended_once_it_does() {
    let (shared, mut witness, channels) = sleepers(2);
    let view = first_view(2, 1);
    channels[0].send(&formed(&view, LONG_LEASE));
    assert!(witness.turn());
    witness.carry_out(Intent::Kill { node: NodeId(1), incarnation: incarnation(1) });
    witness.end_unreachable();
    let is_told = || shared.process(1).expect("started").was_told();
    assert!(!is_told(), "it may be another life of the rank");
    channels[1].send(&formed(&view, LONG_LEASE));
    while !is_told() {
        assert!(witness.turn());
    }
}

#[test]
fn survivors_go_on_where_there_are_replicas() {
    for (count, replicas, expected) in [(2, 1, true), (2, 0, false), (1, 1, false)] {
        let (shared, ..) = witness_of(count, replicas);
        assert_eq!(shared.can_survivors_go_on(), expected, "{count} nodes, {replicas} replicas");
    }
}

#[test]
fn what_cannot_be_is_not_believed() {
    let (_shared, mut witness, channels) = sleepers(2);
    let view = first_view(2, 1);
    let member = |node: u16| *view.member(NodeId(node)).expect("it is there");
    let strange_buddy = Member { buddies: Copyset::EMPTY.with(NodeId(5)), ..member(1) };
    let said = |members: &[(u16, Member)], view, lease| ToLauncher::Formed {
        replicas: 1,
        lease,
        heartbeat: Duration::from_millis(20),
        members: members.iter().map(|(rank, member)| (NodeId(*rank), *member)).collect(),
        view: ViewId(view),
    };
    let whole = [(0, member(0)), (1, member(1))];
    let short = Duration::from_nanos(1);
    for wrong in [
        said(&[], 1, LONG_LEASE),
        said(&whole, 0, LONG_LEASE),
        said(&whole, 1, short),
        said(&whole[1..], 1, LONG_LEASE),
        said(&[(0, member(0)), (1, strange_buddy)], 1, LONG_LEASE),
        said(&[whole[0], (1, member(1)), (1, member(1))], 1, LONG_LEASE),
        said(&[(0, member(0)), (64, member(1))], 1, LONG_LEASE),
        said(&[(0, member(0)), (u16::MAX, member(1))], 1, LONG_LEASE),
    ] {
        // Rank 0 is in most of them, so that it is the rest that is refused.
        channels[0].send(&wrong);
        assert!(witness.turn());
        assert!(witness.membership.is_none(), "{wrong:?}");
    }
    channels[0].send(&said(&whole, 1, LONG_LEASE));
    assert!(witness.turn());
    assert!(witness.membership.is_some());
    // Of another life than it said to be: not taken for its own.
    let fetch = |incarnation| {
        let body = dsm_core::membership::Body::Fetch;
        ToLauncher::Packet(WitnessPacket { view: ViewId::FIRST, incarnation, body })
    };
    let answers = || std::iter::from_fn(|| channels[1].receive()).count();
    channels[1].send(&fetch(incarnation(1)));
    assert!(witness.turn());
    answers();
    channels[1].send(&fetch(incarnation(0)));
    assert!(witness.turn());
    assert_eq!(answers(), 0, "it is not even told that it is no member");
}
