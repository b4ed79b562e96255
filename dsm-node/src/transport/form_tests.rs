//! Clusters of one to four nodes in one process, over real sockets, with strangers about.

use super::acceptor::{CALLERS_MAX, HANDSHAKE_PATIENCE};
use super::form::{Formation, Mesh, form};
use super::gate::Incoming;
use super::handshake::{Habitat, Identity, Refusal, Terms};
use super::link::{LinkDown, Voice};
use super::stream::{Stream, transport};
use super::testing::VecFrames;
use super::{Endpoint, Frames, Kind, Link};
use crate::error::Error;
use dsm_core::{Geometry, Host, Incarnation, Message, NodeId};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// Each process of the tests is another.
static NEXT_INCARNATION: AtomicU64 = AtomicU64::new(1);

fn incarnation() -> Incarnation {
    Incarnation(u64::from(std::process::id()) << 32 | NEXT_INCARNATION.fetch_add(1, Ordering::Relaxed))
}

fn geometry(page_size: u64) -> Geometry {
    Geometry::new(0x2000_0000_0000, 1 << 30, page_size).expect("it fits")
}

fn terms(nodes: u16) -> Terms {
    let geometry = geometry(4096);
    Terms {
        nodes,
        base: geometry.base().0,
        size: geometry.size(),
        page_size: geometry.page_size(),
        replicas: 0,
        lease: Duration::from_secs(1),
        heartbeat: Duration::from_millis(200),
        identity: Identity { compiler: "rustc".to_owned(), types: vec![("T".to_owned(), 1)] },
    }
}

/// A listener as a launcher makes it, and the formations of all ranks.
fn formations(nodes: u16, kind: Kind) -> Vec<Formation> {
    let (listener, rendezvous): (OwnedFd, Endpoint) = match kind {
        Kind::Tcp => {
            let listener = TcpListener::bind("127.0.0.1:0").expect("the loopback listens");
            let address = listener.local_addr().expect("it is bound");
            (listener.into(), Endpoint::tcp(address))
        }
        Kind::Unix => {
            let name = format!("dsm-form-test-{}", incarnation());
            let address = SocketAddr::from_abstract_name(&name).expect("it is short");
            let listener = UnixListener::bind_addr(&address).expect("nobody has it");
            (listener.into(), Endpoint::Unix { name })
        }
    };
    let mut listener = Some(listener);
    (0..nodes).map(|rank| formation(rank, nodes, kind, &rendezvous, listener.take())).collect()
}

fn formation(
    rank: u16,
    nodes: u16,
    kind: Kind,
    rendezvous: &Endpoint,
    listener: Option<OwnedFd>,
) -> Formation {
    Formation {
        rank: NodeId(rank),
        terms: terms(nodes),
        incarnation: incarnation(),
        habitat: Habitat { host: Host(1), name_space: 1, process: u32::from(rank) },
        witness: false,
        rendezvous: rendezvous.clone(),
        rendezvous_listener: listener,
        listen: None,
        kind,
        patience: PATIENCE,
        trust_network: false,
    }
}

fn form_all(formations: Vec<Formation>) -> Vec<Result<Mesh, Error>> {
    let threads: Vec<_> =
        formations.into_iter().map(|formation| std::thread::spawn(|| form(formation))).collect();
    threads.into_iter().map(|thread| thread.join().expect("forming does not panic")).collect()
}

fn form_well(formations: Vec<Formation>) -> Vec<Mesh> {
    form_all(formations).into_iter().map(|outcome| outcome.expect("the cluster forms")).collect()
}

fn number(value: u64) -> Message {
    Message::BarrierArrive { generation: value }
}

fn frames() -> VecFrames {
    VecFrames::new(4096, 1)
}

fn receive(link: &mut Link, frames: &impl Frames) -> Result<Message, LinkDown> {
    loop {
        if let Some(message) = link.next(frames, |_| true)? {
            return Ok(message);
        }
        let descriptor = link.descriptor().expect("it is attached");
        poll(&mut [PollFd::new(descriptor, PollFlags::POLLIN)], PollTimeout::MAX).expect("poll");
    }
}

fn link(mesh: &mut Mesh, peer: u16) -> &mut Link {
    mesh.links[usize::from(peer)].as_mut().expect("it is a peer")
}

/// Each node tells each other who it is, and hears the same.
fn check_all_pairs(meshes: &mut [Mesh]) {
    let frames = frames();
    let nodes = meshes.len() as u16;
    for (rank, mesh) in meshes.iter_mut().enumerate() {
        assert!(mesh.links[rank].is_none());
        for link in mesh.links.iter_mut().flatten() {
            link.send(&number(rank as u64), None).expect("it fits");
            link.flush(&frames, Voice::Full).expect("it stands");
        }
    }
    for (rank, mesh) in meshes.iter_mut().enumerate() {
        for peer in (0..nodes).filter(|peer| usize::from(*peer) != rank) {
            assert_eq!(receive(link(mesh, peer), &frames).expect("it stands"), number(peer.into()));
        }
    }
}

#[test]
fn clusters_of_one_to_four_form_over_both_kinds() {
    for kind in [Kind::Tcp, Kind::Unix] {
        for nodes in 1..=4 {
            let mut meshes = form_well(formations(nodes, kind));
            check_all_pairs(&mut meshes);
        }
    }
}

#[test]
fn the_kind_of_the_links_may_differ_from_the_rendezvous() {
    for (rendezvous, links) in [(Kind::Tcp, Kind::Unix), (Kind::Unix, Kind::Tcp)] {
        let mut all = formations(3, rendezvous);
        all.iter_mut().for_each(|formation| formation.kind = links);
        check_all_pairs(&mut form_well(all));
    }
}

#[test]
fn one_alone_needs_no_rendezvous() {
    let nowhere = Endpoint::Tcp { host: "192.0.2.1".to_owned(), port: 1 };
    let mesh = form(formation(0, 1, Kind::Tcp, &nowhere, None)).expect("there is nobody to wait for");
    assert!(mesh._acceptor.is_none() && mesh.links.iter().all(Option::is_none));
}

#[test]
fn the_rendezvous_may_start_last() {
    let endpoint = Endpoint::Unix { name: format!("dsm-form-test-{}", incarnation()) };
    let rendezvous = endpoint.clone();
    let (started, starts) = std::sync::mpsc::channel();
    let early = std::thread::spawn(move || {
        started.send(()).expect("the test waits");
        form(formation(1, 2, Kind::Unix, &rendezvous, None))
    });
    starts.recv().expect("the thread runs");
    let late = form(formation(0, 2, Kind::Unix, &endpoint, None)).expect("it forms");
    let early = early.join().expect("no panic").expect("it forms");
    check_all_pairs(&mut [late, early]);
}

#[test]
fn a_rendezvous_that_is_not_there_is_named() {
    let endpoint = Endpoint::Unix { name: format!("dsm-form-test-{}", incarnation()) };
    let mut lonely = formation(1, 2, Kind::Unix, &endpoint, None);
    lonely.patience = Duration::from_millis(100);
    let began = Instant::now();
    let error = form(lonely).err().expect("nobody is there").to_string();
    assert!(error.contains(&endpoint.to_string()) && error.contains("refused"), "{error}");
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[test]
fn nodes_that_never_come_are_named_to_those_who_did() {
    let mut all = formations(3, Kind::Tcp);
    all.pop();
    all.iter_mut().for_each(|formation| formation.patience = Duration::from_secs(2));
    all[1].patience = PATIENCE;
    for outcome in form_all(all) {
        let error = outcome.err().expect("rank 2 is missing");
        assert!(error.to_string().contains("not come in time: 2"), "{error}");
    }
}

#[test]
fn a_mismatch_is_an_error_on_both_sides_with_both_values() {
    let mut all = formations(3, Kind::Tcp);
    all[2].terms.page_size = 65536;
    let outcomes: Vec<Error> =
        form_all(all).into_iter().map(|outcome| outcome.err().expect("no cluster")).collect();
    let sides = [(&outcomes[0], 0, "4096", 2, "65536"), (&outcomes[2], 2, "65536", 0, "4096")];
    for (error, our_rank, our_value, their_rank, their_value) in sides {
        assert!(
            matches!(error, Error::Mismatch { what: "page size", ours_rank, ours, theirs_rank, theirs }
                if (*ours_rank, *theirs_rank) == (our_rank, their_rank) && ours == our_value && theirs == their_value),
            "{error}"
        );
    }
    assert!(matches!(&outcomes[1], Error::Rendezvous { .. }), "{}", outcomes[1]);
}

#[test]
fn types_that_only_two_others_know_are_compared_too() {
    let mut all = formations(3, Kind::Unix);
    all[1].terms.identity.types.push(("Both".to_owned(), 1));
    all[2].terms.identity.types.push(("Both".to_owned(), 2));
    let outcomes = form_all(all);
    for rank in [1, 2] {
        let error = outcomes[rank].as_ref().err().expect("they disagree");
        assert!(matches!(error, Error::LayoutMismatch { name, .. } if name == "Both"), "{error}");
    }
}

#[test]
fn a_taken_rank_is_refused_and_the_others_form() {
    let mut all = formations(3, Kind::Tcp);
    let last = all.pop().expect("there are three");
    let rendezvous = last.rendezvous.clone();
    let first: Vec<_> = all.into_iter().map(|it| std::thread::spawn(|| form(it))).collect();
    // One of the two that claim rank 1 is refused, whichever comes second; a duplicate with other values does not
    // disturb the others either.
    let twin = formation(1, 3, Kind::Tcp, &rendezvous, None);
    let twin = std::thread::spawn(|| form(twin));
    let mut claims: Vec<Option<Result<Mesh, Error>>> = vec![None, None];
    let mut threads = first;
    let rank_one = threads.pop().expect("rank 1");
    let mut waiting = [Some(rank_one), Some(twin)];
    while waiting.iter().all(Option::is_some) {
        for (thread, claim) in waiting.iter_mut().zip(&mut claims) {
            if thread.as_ref().is_some_and(std::thread::JoinHandle::is_finished) {
                *claim = thread.take().map(|thread| thread.join().expect("no panic"));
            }
        }
        std::thread::yield_now();
    }
    let refused = claims.iter_mut().find_map(Option::take).expect("one is done");
    let error = refused.err().expect("it is the one that is refused");
    assert!(matches!(&error, Error::Refused { rank: 1, cause, .. } if cause.contains("taken")), "{error}");
    let last = form(last).expect("it forms");
    let zero = threads.pop().expect("rank 0").join().expect("no panic").expect("it forms");
    let one = waiting.into_iter().flatten().next().expect("one of them waits");
    let one = one.join().expect("no panic").expect("it forms");
    check_all_pairs(&mut [zero, one, last]);
}

fn call(endpoint: &Endpoint) -> Stream {
    transport(endpoint.kind()).connect(endpoint, PATIENCE).expect("it listens")
}

fn soon() -> Instant {
    Instant::now() + PATIENCE
}

/// The next report that is about a stranger.
fn stranger(mesh: &Mesh) -> Incoming {
    loop {
        let incoming = mesh.incoming.recv_timeout(PATIENCE).expect("a report comes");
        if matches!(incoming, Incoming::Refused { .. } | Incoming::Garbage { .. } | Incoming::Entered { .. })
        {
            return incoming;
        }
    }
}

#[test]
fn garbage_is_reported_and_forming_goes_on() {
    let mut all = formations(2, Kind::Tcp);
    let endpoint = all[0].rendezvous.clone();
    let one = all.pop().expect("two");
    let zero = all.pop().expect("one");
    let strangers = [
        call(&endpoint), // says nothing, slowly
        call(&endpoint),
        call(&endpoint),
        call(&endpoint),
    ];
    strangers[1].send_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", soon()).expect("it is short");
    strangers[2].send_all(b"DSMh\x01\0\0\0\xff\xff\xff\xff\0\0\0\0", soon()).expect("it is short");
    strangers[3].send_all(b"DSM", soon()).expect("it is short");
    let zero = std::thread::spawn(|| form(zero));
    let one = form(one).expect("it forms");
    let zero = zero.join().expect("no panic").expect("it forms");
    for _ in 0..strangers.len() {
        assert!(matches!(stranger(&zero), Incoming::Garbage { .. }));
    }
    assert!(strangers.iter().all(Stream::has_ended), "each was hung up on");
    check_all_pairs(&mut [zero, one]);
}

#[test]
fn silent_callers_give_way_to_nodes() {
    let all = formations(2, Kind::Tcp);
    let endpoint = all[0].rendezvous.clone();
    let mut meshes = form_well(all);
    let began = Instant::now();
    let silent: Vec<Stream> = (0..CALLERS_MAX + 10).map(|_| call(&endpoint)).collect();
    link(&mut meshes[0], 1).detach();
    link(&mut meshes[1], 0).detach();
    recover(&mut meshes[1], 0);
    recover(&mut meshes[0], 1);
    assert!(began.elapsed() < HANDSHAKE_PATIENCE, "the node waited for the others' silence to end");
    check_all_pairs(&mut meshes);
    drop(silent);
}

#[test]
fn late_and_mismatched_joiners_are_refused_and_nobody_notices() {
    let all = formations(2, Kind::Tcp);
    let rendezvous = all[0].rendezvous.clone();
    let mut meshes = form_well(all);

    let error = form(formation(1, 2, Kind::Tcp, &rendezvous, None)).err().expect("it is taken");
    assert!(matches!(&error, Error::Refused { rank: 1, .. }), "{error}");
    // It asked more than once: the rank might have become free.
    let taken =
        |incoming: &Incoming| matches!(incoming, Incoming::Refused { refusal: Refusal::Taken { .. }, .. });
    assert!(taken(&stranger(&meshes[0])));

    let mut other = formation(1, 2, Kind::Tcp, &rendezvous, None);
    other.terms.page_size = 65536;
    assert!(matches!(form(other).err(), Some(Error::Mismatch { what: "page size", .. })));
    let next = std::iter::repeat_with(|| stranger(&meshes[0])).find(|incoming| !taken(incoming));
    assert!(matches!(next, Some(Incoming::Refused { refusal: Refusal::Mismatch { .. }, .. })));

    // A rank that nobody has may become a member's: each of the members knows of it then.
    let more = form(formation(7, 8, Kind::Tcp, &rendezvous, None)).expect("the members listen");
    assert!(more.runs && more.nodes == 2 && more.links.iter().flatten().all(Link::is_attached));
    for mesh in &meshes {
        assert!(matches!(stranger(mesh), Incoming::Entered { peer: NodeId(7), .. }));
    }
    check_all_pairs(&mut meshes);
}

#[test]
fn who_comes_waits_until_a_dead_member_is_missed_and_names_one_that_is_not() {
    let all = formations(2, Kind::Unix);
    let rendezvous = all[0].rendezvous.clone();
    let mut meshes = form_well(all);
    drop(meshes.pop());
    let host = meshes.pop().expect("two");
    let mut hasty = formation(7, 8, Kind::Unix, &rendezvous, None);
    hasty.patience = Duration::from_millis(300);
    let error = form(hasty).err().expect("it would be a member without a link to another");
    let rank_one = |text: &str| text.contains("members cannot be reached: rank 1 at");
    assert!(matches!(&error, Error::Rendezvous { cause, .. } if rank_one(cause)), "{error}");

    let patient = formation(7, 8, Kind::Unix, &rendezvous, None);
    let patient = std::thread::spawn(|| form(patient));
    std::thread::sleep(Duration::from_millis(100));
    host.reconnect.install([(NodeId(0), life(&host, 0))].into_iter());
    let more = patient.join().expect("no panic").expect("all members listen");
    assert_eq!(more.links.iter().flatten().map(Link::peer).collect::<Vec<_>>(), [NodeId(0)]);
}

#[test]
fn two_that_come_at_a_time_know_each_other() {
    let all = formations(2, Kind::Unix);
    let rendezvous = all[0].rendezvous.clone();
    let _meshes = form_well(all);
    for rank in (10..40).step_by(2) {
        let both = [rank, rank + 1].map(|rank| formation(rank, 64, Kind::Unix, &rendezvous, None));
        let both = form_well(both.into());
        let knows = |at: usize, other: u16| {
            let mesh = &both[at];
            let has_link = mesh.links[usize::from(other)].as_ref().is_some_and(Link::is_attached);
            // It is told just after the caller has its answer.
            let told = || mesh.incoming.recv_timeout(PATIENCE).expect("a report comes");
            let entered =
                |it: Incoming| matches!(it, Incoming::Entered { peer, .. } if peer == NodeId(other));
            has_link || std::iter::repeat_with(told).any(entered)
        };
        assert!(knows(0, rank + 1) && knows(1, rank), "ranks {rank} and {}", rank + 1);
    }
}

/// The process that has the rank `peer`.
fn life(mesh: &Mesh, peer: u16) -> Incarnation {
    mesh.peers[&NodeId(peer)].incarnation
}

/// Lets the transport's threads bring the link to `peer` back.
fn recover(mesh: &mut Mesh, peer: u16) {
    mesh.reconnect.begin(NodeId(peer), life(mesh, peer));
    loop {
        match mesh.incoming.recv_timeout(PATIENCE).expect("an answer comes") {
            Incoming::Reconnected { peer: found, life: of, stream, received_through } => {
                assert_eq!((found, of), (NodeId(peer), life(mesh, peer)));
                return link(mesh, peer).attach(stream, received_through).expect("the peers agree");
            }
            Incoming::Garbage { .. } => {}
            other @ (Incoming::PeerUnreachable { .. }
            | Incoming::Entered { .. }
            | Incoming::Refused { .. }) => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_broken_connection_is_replaced_and_nothing_is_lost() {
    for kind in [Kind::Tcp, Kind::Unix] {
        let mut meshes = form_well(formations(2, kind));
        let frames = frames();
        for value in 0..200 {
            let [zero, one] = meshes.as_mut_slice() else { panic!("there are two") };
            link(one, 0).send(&number(value), None).expect("it fits");
            link(one, 0).flush(&frames, Voice::Full).expect("it stands");
            if value % 20 == 10 {
                // What is under way is lost with the connection.
                link(zero, 1).detach();
                link(one, 0).detach();
                recover(one, 0);
                recover(zero, 1);
                link(one, 0).flush(&frames, Voice::Full).expect("it stands");
            }
            while link(zero, 1).received_through() <= value {
                let due = link(zero, 1).received_through();
                assert_eq!(receive(link(zero, 1), &frames).expect("it stands"), number(due));
            }
        }
        assert_eq!(link(&mut meshes[1], 0).counters().reconnects, 10);
    }
}

#[test]
fn a_dead_peer_is_unreachable_from_both_sides_in_bounded_time() {
    let mut meshes = form_well(formations(3, Kind::Unix));
    // Rank 1 dies: rank 2 calls it in vain, rank 0 waits for its call in vain.
    drop(meshes.remove(1));
    let began = Instant::now();
    for mesh in &meshes {
        mesh.reconnect.begin(NodeId(1), life(mesh, 1));
    }
    for mesh in &meshes {
        let incoming = mesh.incoming.recv_timeout(PATIENCE).expect("an answer comes");
        assert!(matches!(incoming, Incoming::PeerUnreachable { peer: NodeId(1), .. }), "{incoming:?}");
    }
    // The rest of the 5 s is for noticing that a machine fell silent; the death of a process shows at once.
    assert!(began.elapsed() < Duration::from_millis(2500), "took {:?}", began.elapsed());
}

#[test]
fn a_node_does_not_listen_where_strangers_can_reach_it() {
    let open = Endpoint::Tcp { host: "0.0.0.0".to_owned(), port: 0 };
    let error = form(formation(0, 2, Kind::Tcp, &open, None)).err().expect("it has no credentials");
    assert!(matches!(&error, Error::Config(text) if text.contains("0.0.0.0")), "{error}");

    let inherited: OwnedFd = TcpListener::bind("0.0.0.0:0").expect("it listens").into();
    let error = form(formation(0, 2, Kind::Tcp, &open, Some(inherited))).err().expect("no credentials");
    assert!(matches!(&error, Error::Config(_)), "{error}");

    let mut all = formations(2, Kind::Tcp);
    for formation in &mut all {
        formation.listen = Some(open.clone());
        formation.trust_network = true;
    }
    check_all_pairs(&mut form_well(all));
}

#[test]
fn nonsense_in_the_formation_is_named() {
    let nowhere = Endpoint::Unix { name: "nowhere".to_owned() };
    for (rank, nodes) in [(0, 0), (2, 2), (0, 65)] {
        let error = form(formation(rank, nodes, Kind::Unix, &nowhere, None)).err().expect("it is nonsense");
        assert!(matches!(error, Error::Config(_)));
    }
}
