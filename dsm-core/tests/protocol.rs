//! The machine's promises, one by one, on a network that delivers at once and in order.
#![allow(clippy::wildcard_enum_match_arm, reason = "a test looks for the one action that it is about")]

use dsm_core::limits::REGION_BASE_DEFAULT;
use dsm_core::{
    Access, Action, Address, CallId, Cause, Command, Copyset, Event, Geometry, LockId, Machine, Message,
    NodeId, PageId, Payload, Progress, Reply, RootAnswer, SpanOwner, SpanRange, Ticket, Time, TransactionId,
    Want, Zone,
};
use std::collections::VecDeque;

const GIB: u64 = 1 << 30;

/// Machines, and what they have done so far.
struct Cluster {
    geometry: Geometry,
    machines: Vec<Machine>,
    now: Time,
    wire: VecDeque<(NodeId, NodeId, Message)>,
    /// Every message that crossed the wire, and whether bytes followed.
    said: Vec<(Message, bool)>,
    /// All other actions, by node.
    done: Vec<(NodeId, Action)>,
    progress: Progress,
}

impl Cluster {
    fn new(nodes: u16) -> Cluster {
        let geometry = Geometry::new(REGION_BASE_DEFAULT, 64 * GIB, 4096).expect("it fits");
        let members = Copyset::first(usize::from(nodes));
        let machines = (0..nodes).map(|rank| Machine::new(NodeId(rank), members, geometry)).collect();
        Cluster {
            geometry,
            machines,
            now: Time::ZERO,
            wire: VecDeque::new(),
            said: Vec::new(),
            done: Vec::new(),
            progress: Progress::Retired,
        }
    }

    /// A page that is homed at `rank`.
    fn page_at(&self, rank: u16) -> PageId {
        let members = Copyset::first(self.machines.len());
        (0..)
            .map(|segment| PageId(segment * self.geometry.segment_pages()))
            .find(|page| self.geometry.home_of(*page, members) == NodeId(rank))
            .expect("every node is home to something")
    }

    fn step(&mut self, node: u16, event: Event) {
        let mut actions = Vec::new();
        self.machines[usize::from(node)].handle(self.now, event, &mut actions);
        for action in actions {
            match action {
                Action::Send { to, message } | Action::SendLazily { to, message } => {
                    self.post(node, to, message, false);
                }
                Action::SendPage { to, message, .. } => self.post(node, to, message, true),
                Action::ProbeResidency { page } => {
                    self.step(node, Event::Probed { page, progress: self.progress });
                }
                other => self.done.push((NodeId(node), other)),
            }
        }
        self.machines[usize::from(node)].invariants().expect("invariants hold after each event");
    }

    fn post(&mut self, from: u16, to: NodeId, message: Message, bytes: bool) {
        self.said.push((message.clone(), bytes));
        self.wire.push_back((NodeId(from), to, message));
    }

    fn deliver_one(&mut self) -> bool {
        let Some((from, to, message)) = self.wire.pop_front() else { return false };
        self.step(to.0, Event::Received { from, message });
        true
    }

    fn settle(&mut self) {
        while self.deliver_one() {}
    }

    fn fault(&mut self, node: u16, page: PageId, want: Want) {
        self.step(node, Event::Fault { page, want });
        self.settle();
    }

    fn call(&mut self, node: u16, id: u64, command: Command) {
        self.step(node, Event::Command { call: CallId(id), command });
        self.settle();
    }

    fn reply_to(&self, node: u16, id: u64) -> Option<Reply> {
        self.done.iter().find_map(|(at, action)| match action {
            Action::Complete { call, reply } if *at == NodeId(node) && *call == CallId(id) => Some(*reply),
            _ => None,
        })
    }

    fn access(&self, node: u16, page: PageId) -> Access {
        self.machines[usize::from(node)].access(page)
    }

    fn rejections(&self) -> Vec<Cause> {
        let causes = self.done.iter().filter_map(|(_, action)| match action {
            Action::Reject { cause, .. } => Some(*cause),
            _ => None,
        });
        causes.collect()
    }

    fn pages_moved(&self) -> usize {
        self.said.iter().filter(|(_, bytes)| *bytes).count()
    }
}

fn transaction(node: u16, number: u64) -> TransactionId {
    TransactionId { node: NodeId(node), number }
}

#[test]
fn the_first_touch_of_a_page_homed_here_needs_no_network() {
    let mut cluster = Cluster::new(4);
    let page = cluster.page_at(2);
    cluster.fault(2, page, Want::Write);
    assert!(cluster.said.is_empty());
    assert_eq!(cluster.access(2, page), Access::Write);
    assert!(matches!(cluster.done[..], [(NodeId(2), Action::Install { payload: Payload::Zero, .. })]));
}

#[test]
fn an_unwritten_page_travels_as_a_flag() {
    let mut cluster = Cluster::new(3);
    let page = cluster.page_at(0);
    cluster.fault(1, page, Want::Read);
    cluster.fault(2, page, Want::Read);
    assert_eq!((cluster.access(1, page), cluster.access(2, page)), (Access::Read, Access::Read));
    assert_eq!(cluster.pages_moved(), 0);
    assert_eq!(cluster.machines[0].holders(page), Some((None, [NodeId(1), NodeId(2)].into_iter().collect())));
}

#[test]
fn a_read_miss_leaves_the_owner_a_read_copy() {
    let mut cluster = Cluster::new(3);
    let page = cluster.page_at(0);
    cluster.fault(1, page, Want::Write);
    cluster.fault(2, page, Want::Read);
    assert_eq!((cluster.access(1, page), cluster.access(2, page)), (Access::Read, Access::Read));
    assert_eq!(cluster.pages_moved(), 1);
}

#[test]
fn a_write_miss_takes_every_copy() {
    let mut cluster = Cluster::new(5);
    let page = cluster.page_at(0);
    cluster.fault(1, page, Want::Write);
    cluster.fault(2, page, Want::Read);
    cluster.fault(3, page, Want::Read);
    cluster.fault(4, page, Want::Write);
    let access: Vec<Access> = (0..5).map(|node| cluster.access(node, page)).collect();
    assert_eq!(access, [Access::None, Access::None, Access::None, Access::None, Access::Write]);
    assert!(cluster.machines.iter().all(Machine::is_quiet));
}

#[test]
fn an_upgrade_moves_no_data() {
    let mut cluster = Cluster::new(3);
    let page = cluster.page_at(0);
    cluster.fault(1, page, Want::Write);
    cluster.fault(2, page, Want::Read);
    let before = cluster.pages_moved();
    cluster.fault(2, page, Want::Write);
    assert_eq!(cluster.pages_moved(), before);
    assert_eq!((cluster.access(1, page), cluster.access(2, page)), (Access::None, Access::Write));
}

#[test]
fn a_write_is_not_allowed_before_the_last_ack() {
    let mut cluster = Cluster::new(4);
    let page = cluster.page_at(0);
    cluster.fault(1, page, Want::Write);
    cluster.fault(2, page, Want::Read);
    cluster.step(3, Event::Fault { page, want: Want::Write });
    // The request, then the forward and the invalidation: now the grant and the ack are under way.
    (0..3).for_each(|_| assert!(cluster.deliver_one()));
    let ack = cluster.wire.iter().position(|(_, _, message)| matches!(message, Message::Ack { .. }));
    let ack = cluster.wire.remove(ack.expect("the reader acks")).expect("it is there");
    cluster.settle();
    assert_eq!(cluster.access(3, page), Access::None);
    cluster.wire.push_back(ack);
    cluster.settle();
    assert_eq!(cluster.access(3, page), Access::Write);
}

#[test]
fn racing_upgrades_are_served_one_after_the_other() {
    let mut cluster = Cluster::new(3);
    let page = cluster.page_at(0);
    cluster.fault(1, page, Want::Read);
    cluster.fault(2, page, Want::Read);
    cluster.step(1, Event::Fault { page, want: Want::Write });
    cluster.step(2, Event::Fault { page, want: Want::Write });
    cluster.settle();
    assert_eq!((cluster.access(1, page), cluster.access(2, page)), (Access::None, Access::Write));
    assert_eq!(cluster.pages_moved(), 1, "the second upgrade became a miss");
}

#[test]
fn a_confirmation_is_held_back_only_while_nobody_waits_for_the_page() {
    let mut cluster = Cluster::new(3);
    let page = cluster.page_at(0);
    let confirms = |node: u16, cluster: &mut Cluster, rival: Option<u16>| {
        cluster.step(node, Event::Fault { page, want: Want::Write });
        assert!(cluster.deliver_one(), "the home has the request");
        if let Some(rival) = rival {
            cluster.step(rival, Event::Fault { page, want: Want::Write });
        }
        let mut lazily = None;
        while let Some((from, to, message)) = cluster.wire.pop_front() {
            let mut actions = Vec::new();
            let granted = to == NodeId(node) && matches!(message, Message::Grant { .. });
            cluster.machines[to.index()].handle(cluster.now, Event::Received { from, message }, &mut actions);
            if granted {
                lazily = Some(actions.iter().any(|action| matches!(action, Action::SendLazily { .. })));
            }
            for action in actions {
                match action {
                    Action::Send { to: next, message } | Action::SendLazily { to: next, message } => {
                        cluster.post(to.0, next, message, false);
                    }
                    Action::SendPage { to: next, message, .. } => cluster.post(to.0, next, message, true),
                    Action::ProbeResidency { page } => {
                        cluster.step(to.0, Event::Probed { page, progress: Progress::Retired });
                    }
                    other => cluster.done.push((to, other)),
                }
            }
        }
        lazily.expect("the page was granted")
    };
    assert!(confirms(1, &mut cluster, None));
    assert!(!confirms(2, &mut cluster, Some(0)), "the home says that another waits");
    assert!(cluster.done.iter().all(|(_, action)| !matches!(action, Action::Reject { .. })));
}

#[test]
fn a_page_stays_until_its_instruction_has_retired_but_not_for_ever() {
    let mut cluster = Cluster::new(2);
    let page = cluster.page_at(0);
    cluster.fault(0, page, Want::Write);
    cluster.progress = Progress::Waiting;
    cluster.fault(1, page, Want::Write);
    assert_eq!(cluster.access(0, page), Access::Write);
    let at = cluster.done.iter().find_map(|(_, action)| match action {
        Action::SetTimer { timer, at } => Some((*timer, *at)),
        _ => None,
    });
    let (timer, at) = at.expect("it looks again later");
    assert!(at > cluster.now);
    cluster.now = cluster.now + dsm_core::limits::RESIDENCY_MAX;
    cluster.step(0, Event::TimerFired(timer));
    cluster.settle();
    assert_eq!((cluster.access(0, page), cluster.access(1, page)), (Access::None, Access::Write));
}

#[test]
fn a_reported_fault_on_a_present_page_only_refreshes_it() {
    let mut cluster = Cluster::new(1);
    let page = cluster.page_at(0);
    cluster.fault(0, page, Want::Write);
    cluster.fault(0, page, Want::Read);
    assert!(matches!(cluster.done.last(), Some((_, Action::Refresh { access: Access::Write, .. }))));
}

#[test]
fn a_huge_region_costs_nothing_until_it_is_used() {
    const TIB: u64 = 1 << 40;
    let geometry = Geometry::new(REGION_BASE_DEFAULT, TIB, 4096).expect("it fits");
    let mut machine = Machine::new(NodeId(0), Copyset::first(1), geometry);
    let before = format!("{machine:?}").len();
    assert!(before < 4096, "an untouched region of 1 TiB has state: {before} characters");
    let mut actions = Vec::new();
    let last = PageId(geometry.pages() - 1);
    machine.handle(Time::ZERO, Event::Fault { page: last, want: Want::Write }, &mut actions);
    assert!(format!("{machine:?}").len() < before + 1024);
}

#[test]
fn a_lock_goes_round_in_the_order_of_the_requests() {
    let mut cluster = Cluster::new(3);
    let lock = LockId(cluster.geometry.address_of(cluster.page_at(1)));
    for node in [2, 0, 1] {
        cluster.call(node, 1, Command::Lock { lock, wait: true });
    }
    for (node, next) in [(2, Some(0)), (0, Some(1)), (1, None)] {
        assert_eq!(cluster.reply_to(node, 1), Some(Reply::Locked { recovered: None }));
        assert!(next.is_none_or(|next| cluster.reply_to(next, 1).is_none()));
        cluster.call(node, 2, Command::Unlock { lock, acquired: CallId(1) });
    }
    assert!(cluster.machines.iter().all(Machine::is_quiet));
}

#[test]
fn a_call_that_does_not_wait_or_gives_up_learns_who_holds_the_lock() {
    let mut cluster = Cluster::new(2);
    let lock = LockId(cluster.geometry.address_of(cluster.page_at(0)));
    cluster.call(0, 1, Command::Lock { lock, wait: true });
    cluster.call(1, 1, Command::Lock { lock, wait: false });
    assert_eq!(cluster.reply_to(1, 1), Some(Reply::LockDenied { holder: NodeId(0) }));
    cluster.call(1, 2, Command::Lock { lock, wait: true });
    assert_eq!(cluster.reply_to(1, 2), None);
    cluster.call(1, 3, Command::LockWithdraw { lock, waiting: CallId(2) });
    assert_eq!(cluster.reply_to(1, 2), Some(Reply::LockDenied { holder: NodeId(0) }));
}

#[test]
fn a_barrier_lets_all_go_at_once_and_waits_for_no_leaver() {
    let mut cluster = Cluster::new(3);
    cluster.call(0, 1, Command::Barrier);
    cluster.call(1, 1, Command::Barrier);
    cluster.call(1, 2, Command::Barrier);
    assert_eq!(cluster.reply_to(1, 2), Some(Reply::Busy));
    assert_eq!(cluster.reply_to(0, 1), None);
    cluster.call(2, 1, Command::Leave);
    assert!(matches!(cluster.reply_to(0, 1), Some(Reply::BarrierPassed { .. })));
    assert!(matches!(cluster.reply_to(1, 1), Some(Reply::BarrierPassed { .. })));
    cluster.call(0, 2, Command::Leave);
    assert_eq!(cluster.reply_to(2, 1), None);
    cluster.call(1, 3, Command::Leave);
    for (node, call) in [(0, 2), (1, 3), (2, 1)] {
        assert_eq!(cluster.reply_to(node, call), Some(Reply::Left));
    }
}

#[test]
fn the_first_claim_of_a_name_creates_and_a_failed_creation_passes_on() {
    let mut cluster = Cluster::new(3);
    let claim = || Command::RootClaim { name: String::from("list"), layout: 7 };
    let address = cluster.geometry.base();
    for node in 0..3 {
        cluster.call(node, 1, claim());
    }
    assert_eq!(cluster.reply_to(0, 1), Some(Reply::Root(RootAnswer::Create)));
    assert_eq!(cluster.reply_to(1, 1), None);
    cluster.call(0, 2, Command::RootAbandon { name: String::from("list") });
    assert_eq!(cluster.reply_to(1, 1), Some(Reply::Root(RootAnswer::Create)));
    assert_eq!(cluster.reply_to(2, 1), None);
    cluster.call(1, 2, Command::RootPublish { name: String::from("list"), address });
    assert_eq!(cluster.reply_to(2, 1), Some(Reply::Root(RootAnswer::Found(address))));
    cluster.call(0, 3, Command::RootClaim { name: String::from("list"), layout: 8 });
    assert_eq!(cluster.reply_to(0, 3), Some(Reply::Root(RootAnswer::OtherLayout(7))));
}

#[test]
fn spans_are_leased_once_and_homed_where_they_are_asked_for() {
    let mut cluster = Cluster::new(4);
    let members = Copyset::first(4);
    let mut seen = Vec::new();
    for (id, node) in (0..40).map(|i| (u64::from(i), i % 4)) {
        cluster.call(node, id, Command::SpanLease { pages: 100, owner: SpanOwner::Node(NodeId(node)) });
        let Some(Reply::Span(span)) = cluster.reply_to(node, id) else { panic!("there is room") };
        assert_eq!(cluster.geometry.home_of(span.first, members), NodeId(node));
        seen.push((span.first.0, span.pages));
    }
    let notes = |(message, _): &(Message, bool)| matches!(message, Message::Note(_));
    assert!(cluster.said.iter().all(notes), "a lease at home waits for nobody");
    seen.sort_unstable();
    assert!(seen.windows(2).all(|pair| pair[0].0 + pair[0].1 <= pair[1].0), "{seen:?}");
}

#[test]
fn exhaustion_says_what_is_left_and_a_returned_span_is_leased_again() {
    let geometry = Geometry::new(REGION_BASE_DEFAULT, 1 << 20, 4096).expect("it fits");
    let mut cluster = Cluster::new(1);
    cluster.geometry = geometry;
    cluster.machines = vec![Machine::new(NodeId(0), Copyset::first(1), geometry)];
    let owner = SpanOwner::Node(NodeId(0));
    let mut leased = Vec::new();
    for id in 0.. {
        cluster.call(0, id, Command::SpanLease { pages: 1, owner });
        match cluster.reply_to(0, id) {
            Some(Reply::Span(span)) => leased.push(span.first),
            Some(Reply::SpanDenied { free, largest }) => {
                assert_eq!((free, largest), (0, 0));
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(leased.len() as u64, geometry.pages());
    cluster.call(0, 1000, Command::SpanReturn { first: leased[17] });
    cluster.call(0, 1001, Command::SpanFind { page: leased[17] });
    assert_eq!(cluster.reply_to(0, 1001), Some(Reply::SpanFound(None)));
    cluster.call(0, 1002, Command::SpanLease { pages: 1, owner });
    let again = SpanRange { first: leased[17], pages: 1, owner };
    assert_eq!(cluster.reply_to(0, 1002), Some(Reply::Span(again)));
}

#[test]
fn a_block_dropped_elsewhere_comes_home_to_its_lessee() {
    let mut cluster = Cluster::new(3);
    // A span of node 1 in the large zone, whose granter is the coordinator.
    let pages = cluster.geometry.segment_pages() + 1;
    cluster.call(1, 1, Command::SpanLease { pages, owner: SpanOwner::Node(NodeId(1)) });
    let Some(Reply::Span(span)) = cluster.reply_to(1, 1) else { panic!("there is room") };
    let address = cluster.geometry.address_of(span.first);
    cluster.call(2, 1, Command::Free { address });
    assert!(cluster.done.contains(&(NodeId(1), Action::Freed { address })));
    assert!(cluster.rejections().is_empty());
}

#[test]
fn what_no_correct_peer_says_is_refused_and_changes_nothing() {
    let cluster = Cluster::new(3);
    let (here, there) = (cluster.page_at(0), cluster.page_at(1));
    let outside = PageId(cluster.geometry.pages());
    let lock = LockId(cluster.geometry.address_of(here));
    let ticket = |node| Ticket { node: NodeId(node), call: CallId(1) };
    let request = |page, node| Message::Request { page, transaction: transaction(node, 1), want: Want::Read };
    let zero = |page| Message::Grant {
        page,
        transaction: transaction(0, 1),
        access: Access::Write,
        payload: Payload::Zero,
        awaiting: Copyset::EMPTY,
        contended: false,
        custody: None,
    };
    let lease = |pages| Message::SpanLease {
        pages,
        zone: Zone::Small,
        owner: SpanOwner::NewDomain,
        ticket: ticket(1),
    };
    let cases = [
        (request(outside, 1), Cause::PageOutside),
        (request(there, 1), Cause::NotHome),
        (request(here, 2), Cause::Impersonation),
        (zero(there), Cause::OutOfTurn),
        (zero(here), Cause::NotHome),
        (Message::Confirm { page: here, transaction: transaction(1, 1) }, Cause::OutOfTurn),
        (Message::Invalidate { page: there, transaction: transaction(9, 1) }, Cause::NotMember),
        (Message::Invalidate { page: there, transaction: transaction(2, 1) }, Cause::OutOfTurn),
        (Message::Ack { page: here, transaction: transaction(0, 1), custody: None }, Cause::OutOfTurn),
        (Message::Lost { page: there, transaction: transaction(0, 1), node: NodeId(99) }, Cause::NotMember),
        (Message::LockRelease { lock, ticket: ticket(1) }, Cause::OutOfTurn),
        (Message::LockRequest { lock, ticket: ticket(2), wait: true }, Cause::Impersonation),
        (
            Message::LockGrant { lock: LockId(Address(1)), ticket: ticket(0), recovered: None },
            Cause::AddressOutside,
        ),
        (Message::BarrierArrive { generation: 7 }, Cause::OutOfTurn),
        (Message::BarrierComplete { generation: 0, view: dsm_core::ViewId::FIRST }, Cause::NotHome),
        (Message::RootAbandon { name: "x".repeat(1000) }, Cause::BeyondLimit),
        (lease(0), Cause::BeyondLimit),
        (lease(u64::MAX), Cause::BeyondLimit),
        (Message::SpanReturn { first: here }, Cause::OutOfTurn),
        (Message::Free { address: Address(0) }, Cause::AddressOutside),
    ];
    for (message, cause) in cases {
        let mut machine = cluster.machines[0].clone();
        let mut actions = Vec::new();
        let event = Event::Received { from: NodeId(1), message: message.clone() };
        machine.handle(Time::ZERO, event, &mut actions);
        assert_eq!(actions, [Action::Reject { from: NodeId(1), cause }], "{message:?}");
        assert!(machine.is_quiet(), "{message:?} left something behind");
    }
}

#[test]
fn a_confirmation_of_what_was_not_granted_harms_only_its_sender() {
    let cluster = Cluster::new(2);
    let page = cluster.page_at(0);
    let mut home = cluster.machines[0].clone();
    let mut actions = Vec::new();
    home.handle(Time::ZERO, Event::Fault { page, want: Want::Write }, &mut actions);
    // The owner's copy stays for its residency; the peer does not wait for it. What the home believes then is ahead of
    // what its own node holds, and its node catches up: the copy goes.
    let said = [
        Message::Request { page, transaction: transaction(1, 1), want: Want::Read },
        Message::Confirm { page, transaction: transaction(1, 1) },
        Message::Request { page, transaction: transaction(1, 2), want: Want::Write },
        Message::Confirm { page, transaction: transaction(1, 2) },
    ];
    for message in said {
        home.handle(Time::ZERO, Event::Received { from: NodeId(1), message }, &mut actions);
        home.invariants().expect("the home's own node catches up");
    }
    assert!(!actions.iter().any(|action| matches!(action, Action::Reject { .. })), "{actions:?}");
    home.handle(Time::ZERO, Event::Fault { page, want: Want::Read }, &mut actions);
    let refused = Event::Received {
        from: NodeId(1),
        message: Message::Confirm { page, transaction: transaction(0, 1) },
    };
    home.handle(Time::ZERO, refused, &mut actions);
    let cause = Cause::Impersonation;
    assert_eq!(actions.last(), Some(&Action::Reject { from: NodeId(1), cause }));
}

#[test]
fn a_frame_is_reserved_only_for_the_bytes_that_were_asked_for() {
    let mut cluster = Cluster::new(3);
    let page = cluster.page_at(0);
    cluster.fault(0, page, Want::Write);
    cluster.step(1, Event::Fault { page, want: Want::Read });
    let grant = |number| Message::Grant {
        page,
        transaction: transaction(1, number),
        access: Access::Read,
        payload: Payload::Bytes,
        awaiting: Copyset::EMPTY,
        contended: false,
        custody: None,
    };
    assert!(cluster.machines[1].reserves(NodeId(0), &grant(1)));
    assert!(!cluster.machines[1].reserves(NodeId(0), &grant(2)));
    assert!(!cluster.machines[2].reserves(NodeId(0), &grant(1)));
    cluster.settle();
    assert!(!cluster.machines[1].reserves(NodeId(0), &grant(1)), "it is mapped now");
}

#[test]
fn when_a_peer_is_lost_calls_end_and_its_pages_doom_whoever_needs_them() {
    let mut cluster = Cluster::new(3);
    let (owned, homed) = (cluster.page_at(0), cluster.page_at(2));
    cluster.fault(2, owned, Want::Write);
    cluster.call(1, 1, Command::Barrier);
    for node in [0, 1] {
        cluster.step(node, Event::PeerLost { node: NodeId(2) });
    }
    cluster.settle();
    assert_eq!(cluster.reply_to(1, 1), Some(Reply::PeerLost { node: NodeId(2) }));
    cluster.call(1, 2, Command::Leave);
    assert_eq!(cluster.reply_to(1, 2), Some(Reply::PeerLost { node: NodeId(2) }));
    for page in [owned, homed] {
        cluster.fault(1, page, Want::Read);
        assert!(cluster.done.contains(&(NodeId(1), Action::Doom { page, node: NodeId(2) })), "{page}");
    }
}

#[test]
fn a_fault_that_waits_for_a_dying_owner_is_doomed_and_other_pages_go_on() {
    let mut cluster = Cluster::new(3);
    let page = cluster.page_at(0);
    cluster.fault(2, page, Want::Write);
    cluster.step(1, Event::Fault { page, want: Want::Read });
    assert!(cluster.deliver_one(), "the request reaches the home");
    cluster.wire.clear();
    cluster.step(0, Event::PeerLost { node: NodeId(2) });
    cluster.settle();
    assert!(cluster.done.contains(&(NodeId(1), Action::Doom { page, node: NodeId(2) })));
    let other = PageId(page.0 + 1);
    cluster.fault(1, other, Want::Write);
    assert_eq!(cluster.access(1, other), Access::Write);
}
