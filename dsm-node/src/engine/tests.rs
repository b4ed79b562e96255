//! An engine that nobody runs, in a cluster of two whose other node says nothing: who goes by which link when a process
//! comes, and when one comes back.

use super::members::Beginning;
use super::*;
use crate::log::Logger;
use crate::node::Caller;
use crate::region::testing::shape;
use crate::transport::testing::pair;
use crate::transport::{Delivered, Endpoint, Formation, Identity, Kind, Member, Terms, form};
use dsm_core::membership::Settings;
use dsm_core::{
    Access, Host, Incarnation, Landing, Lost, Message, PageId, Payload, TransactionId, View, ViewId, Want,
};
use join::{Parts, Standing};
use nix::sys::eventfd::EfdFlags;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

const PAGE: u64 = 4096;
const ME: NodeId = NodeId(0);
const OTHER: NodeId = NodeId(1);
const GUEST: NodeId = NodeId(2);

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// Each process of the tests is another.
fn life() -> Incarnation {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    Incarnation(u64::from(std::process::id()) << 32 | NEXT.fetch_add(1, Ordering::Relaxed))
}

fn habitat() -> Habitat {
    // No process of this machine can be told to be this one.
    Habitat { host: Host(1), name_space: life().0, process: 1 }
}

fn formation(rank: NodeId, geometry: Geometry, rendezvous: &Endpoint) -> Formation {
    let settings = Settings::default();
    Formation {
        rank,
        terms: Terms {
            nodes: 2,
            base: geometry.base().0,
            size: geometry.size(),
            page_size: geometry.page_size(),
            replicas: 0,
            lease: settings.lease(),
            heartbeat: settings.heartbeat(),
            identity: Identity { compiler: "rustc".to_owned(), types: Vec::new() },
        },
        incarnation: life(),
        habitat: habitat(),
        witness: false,
        rendezvous: rendezvous.clone(),
        rendezvous_listener: None,
        listen: None,
        kind: Kind::Unix,
        patience: PATIENCE,
        trust_network: false,
    }
}

fn engine() -> (Engine, Mesh) {
    engine_of(16)
}

/// The engine of rank 0, which has a lease, in a cluster with so many pages, and the mesh of rank 1.
fn engine_of(pages: u64) -> (Engine, Mesh) {
    let geometry = shape(pages, PAGE);
    let rendezvous = Endpoint::Unix { name: format!("dsm-engine-test-{}", life()) };
    let (ours, theirs) = (formation(ME, geometry, &rendezvous), formation(OTHER, geometry, &rendezvous));
    let (incarnation, habitat) = (ours.incarnation, ours.habitat);
    let theirs = std::thread::spawn(move || form(theirs));
    let mesh = form(ours).expect("the cluster forms");
    let other = theirs.join().expect("no panic").expect("the cluster forms");

    let view = View::first(mesh.peers.iter().map(|(node, it)| (*node, it.incarnation, it.habitat.host)), 0);
    let settings = Settings::default();
    let beginning = Beginning { me: ME, habitat, incarnation, settings, view: view.clone(), witness: None };
    let wake = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK).expect("an eventfd");
    let wake = Arc::new(wake);
    let (orders_in, orders) = crossbeam_channel::unbounded();
    let node = Node::new(ME, 2, geometry, Caller::new(orders_in, Arc::clone(&wake)));
    let parts = Parts {
        me: ME,
        geometry,
        habitat,
        view,
        standing: Standing::Founder(beginning),
        region: Region::new(geometry).expect("this machine can run nodes"),
        mesh,
        orders,
        wake,
        log: Logger::start(ME).expect("a thread can be started"),
    };
    // A node is never given back.
    let mut engine = Engine::new(Box::leak(Box::new(node)), parts).expect("this machine can run nodes");
    engine.members.frozen = false;
    (engine, other)
}

fn member(life: Incarnation) -> Member {
    Member {
        incarnation: life,
        endpoint: Endpoint::Unix { name: String::from("nowhere") },
        habitat: habitat(),
    }
}

/// The view that has the process `life` too, as `rank`, and whom else the present one has.
fn view_with(engine: &Engine, rank: NodeId, life: Incarnation) -> View {
    let gone = [rank].into_iter().collect();
    engine.machine.view().next(gone, [(rank, life, Host(1))])
}

/// The next message that comes at `link`.
fn next_message(link: &mut Link, engine: &Engine) -> Option<Message> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        match link.hear(&engine.region.frames(), |_| Landing::Nowhere).expect("the connection stands") {
            Some(Heard::Message { message, .. }) => return Some(message),
            Some(Heard::Packet(_)) => {}
            None => return None,
        }
    }
    None
}

/// As if all that the engine is to be reminded of had been done.
fn forget_reminders(engine: &mut Engine) {
    let later = engine.timers.now() + PATIENCE;
    while engine.timers.take_due(later).is_some() {}
}

/// That what was said to the process `life` since its view, comes at its end of `far`.
fn assert_told(engine: &mut Engine, far: Stream) {
    engine.flush_all();
    let mut end = Link::new(ME, usize::try_from(PAGE).expect("it fits"));
    end.attach(far, 0).expect("nothing was said");
    end.install(engine.machine.view().id());
    let told = next_message(&mut end, engine);
    assert!(matches!(told, Some(Message::Report(_))), "{told:?}");
}

#[test]
fn what_is_said_to_a_newcomer_before_it_is_connected_waits_for_it() {
    let (mut engine, _other) = engine();
    let guest = life();
    engine.install_view(view_with(&engine, GUEST, guest)).expect("it installs");
    let (near, far) = pair(None);
    engine.let_in(GUEST, near, &member(guest)).expect("it is let in");
    assert_told(&mut engine, far);
}

#[test]
fn who_takes_the_rank_of_a_founder_gets_a_link_of_its_own() {
    let (mut engine, _other) = engine();
    let successor = life();
    engine.install_view(view_with(&engine, OTHER, successor)).expect("it installs");
    let (near, far) = pair(None);
    engine.let_in(OTHER, near, &member(successor)).expect("it is let in");
    assert_told(&mut engine, far);
}

#[test]
fn a_predecessor_that_wakes_up_does_not_get_its_successors_link() {
    let (mut engine, _other) = engine();
    let predecessor = engine.life_of(OTHER).expect("the cluster is formed");
    let successor = life();
    engine.install_view(view_with(&engine, OTHER, successor)).expect("it installs");
    let (stale, _far) = pair(None);
    engine.attach(OTHER, predecessor, stale, 0).expect("it is dropped");
    assert!(engine.is_missing(OTHER), "the connection was another's");
    // Nor is the one suspected for the other.
    let (near, _far) = pair(None);
    engine.attach(OTHER, successor, near, 0).expect("it is attached");
    assert!(!engine.is_missing(OTHER));
    engine.hang_up(OTHER);
    forget_reminders(&mut engine);
    engine.suspect(OTHER, predecessor, "it was called for too long").expect("it is dropped");
    assert!(!engine.timers.is_set(Reminder::Call(OTHER)));
    engine.suspect(OTHER, successor, "it was called for too long").expect("it is noted");
    assert!(engine.timers.is_set(Reminder::Call(OTHER)));
}

#[test]
fn a_member_whose_link_was_down_when_it_came_is_called() {
    let (mut engine, _other) = engine();
    let guest = life();
    let (near, far) = pair(None);
    engine.let_in(GUEST, near, &member(guest)).expect("it is let in");
    drop(far);
    engine.receive(GUEST).expect("it is noticed");
    assert!(!engine.timers.is_set(Reminder::Call(GUEST)), "it is no member yet");
    engine.install_view(view_with(&engine, GUEST, guest)).expect("it installs");
    assert!(engine.timers.is_set(Reminder::Call(GUEST)));
}

#[test]
fn a_call_that_fails_at_once_is_not_begun_again_at_once() {
    let (mut engine, other) = engine();
    let peer = engine.life_of(OTHER).expect("the cluster is formed");
    drop(other);
    engine.receive(OTHER).expect("it is noticed");
    assert!(!engine.mesh.reconnect.is_idle(), "a connection that broke is made anew at once");
    engine.mesh.reconnect.end(OTHER);
    for _ in 0..3 {
        engine.suspect(OTHER, peer, "no thread can be started").expect("it is noted");
    }
    assert!(engine.mesh.reconnect.is_idle(), "nothing was begun that could have failed again");
    assert!(engine.timers.is_set(Reminder::Call(OTHER)));
}

#[test]
fn that_many_pages_are_lost_takes_no_time_for_each_of_them() {
    /// Nearly 4 GiB: to poison each by itself takes seconds.
    const PAGES: u64 = 1 << 20;
    /// What is noted of lost pages is one list for the process: other tests note those below.
    const FIRST: PageId = PageId(1 << 12);
    let (mut engine, _other) = engine_of(PAGES);
    let (run, mapped) = (PAGES - FIRST.0, PageId(PAGES / 2));
    engine.region.install(mapped, Access::Write, Payload::Zero).expect("installing works");
    let now = engine.timers.now();
    assert!(engine.faults.begin(PageId(FIRST.0 + 7), 1, Want::Read, now));
    let lost = |page| Lost { page, last_owner: Some(OTHER), view: ViewId::FIRST };
    let began = Instant::now();
    engine.poison(FIRST, run, lost(FIRST)).expect("it is noted");
    assert!(began.elapsed() < Duration::from_millis(300), "it took {:?}", began.elapsed());
    assert_eq!(engine.stats.lost_pages, run);
    assert_eq!(engine.region.scan(mapped.0..mapped.0 + 1).expect("it can be told"), [Access::None]);
    assert_eq!(engine.faults.awaited_in(PageId(0), PAGES), [], "who waited is awake, and faults again");
    // As the machine wants when somebody touches it.
    engine.poison(mapped, 1, lost(mapped)).expect("it is poisoned");
    assert_eq!(engine.stats.lost_pages, run);
}

#[test]
fn a_grant_that_is_refused_leaves_what_came_before_it() {
    let (mut engine, _other) = engine();
    let page = PageId(3);
    let grant = |number| Message::Grant {
        page,
        transaction: TransactionId { node: OTHER, number },
        access: Access::Read,
        payload: Payload::Bytes,
        awaiting: Copyset::EMPTY,
        contended: false,
        custody: None,
    };
    engine.copies.put_aside(OTHER, &grant(1), Box::from([7; 8]));
    engine.take_message(OTHER, ViewId::FIRST, grant(2), Delivered::Nothing).expect("it is dropped");
    assert_eq!(engine.copies.granted(page), Some(&[7; 8][..]));
    engine.take_message(OTHER, ViewId::FIRST, grant(3), Delivered::InFrame).expect("it is dropped");
    assert_eq!(engine.copies.granted(page), None);
}

#[test]
fn the_end_of_a_process_is_no_proof_that_its_successor_is_dead() {
    let (mut engine, _other) = engine();
    let sleep = || {
        let process = std::process::Command::new("sleep").arg("1000").spawn().expect("there is a sleep(1)");
        let habitat = Habitat { process: process.id(), ..engine.habitat };
        (process, Member { habitat, ..member(life()) })
    };
    let ((mut first, before), (mut second, after)) = (sleep(), sleep());
    engine.let_in(GUEST, pair(None).0, &before).expect("it is let in");
    first.kill().expect("it runs");
    first.wait().expect("it is ours");
    // One wait finds both: who reads of the second first, has the first one's end left.
    engine.let_in(GUEST, pair(None).0, &after).expect("it is let in");
    engine.turn_to(Source::Death(GUEST)).expect("it is out of date");
    assert_eq!(engine.watch_no_more(GUEST), Some(after.incarnation));
    engine.let_in(GUEST, pair(None).0, &after).expect("it is let in");
    second.kill().expect("it runs");
    second.wait().expect("it is ours");
    engine.turn_to(Source::Death(GUEST)).expect("it is noted");
    assert_eq!(engine.watch_no_more(GUEST), None);
}
