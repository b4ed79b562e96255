//! What one member says cannot take away what is between the others: most of these were found by fuzzing.
#![allow(clippy::wildcard_enum_match_arm, reason = "a test looks for the one action that it is about")]

use dsm_core::limits::{CALLS_MAX, NAMES_MAX, RECORDS_MAX, REGION_BASE_DEFAULT};
use dsm_core::wire::{self, Header, Kind, WireError};
use dsm_core::{
    Access, Action, Address, CallId, Cause, Command, Commit, Copyset, Custody, Event, Geometry, Holding,
    Host, Incarnation, LockId, Machine, Message, NodeId, Note, PageId, PageRun, Payload, RecordId, Reply,
    Report, RootAnswer, SpanOwner, SpanRange, Ticket, Time, TransactionId, Version, View, ViewId, Want, Zone,
};

/// Pages enough for large spans and for every node's segments.
const REGION_BYTES: u64 = 1 << 30;

/// Three members: rank 2 is the one that says what it should not.
const MEMBERS: u16 = 3;
const HOSTILE: NodeId = NodeId(2);

fn geometry() -> Geometry {
    Geometry::new(REGION_BASE_DEFAULT, REGION_BYTES, 4096).expect("it fits")
}

fn members() -> Copyset {
    Copyset::first(usize::from(MEMBERS))
}

fn machine(rank: u16) -> Machine {
    Machine::new(NodeId(rank), members(), geometry())
}

/// The first page of the small zone that is homed at `rank`.
fn page_at(rank: u16) -> PageId {
    let pages = (0..geometry().pages()).map(PageId);
    pages
        .into_iter()
        .find(|page| geometry().home_of(*page, members()) == NodeId(rank))
        .expect("each has some")
}

fn step(machine: &mut Machine, event: Event) -> Vec<Action> {
    let mut actions = Vec::new();
    machine.handle(Time::ZERO, event, &mut actions);
    machine.invariants().expect("invariants hold after each event");
    actions
}

/// What the machine does about a message, but for what it notes for whoever may succeed it.
fn tell(machine: &mut Machine, from: NodeId, message: Message) -> Vec<Action> {
    let mut actions = step(machine, Event::Received { from, message });
    actions.retain(|action| !matches!(action, Action::Send { message: Message::Note(_), .. }));
    actions
}

fn refused(from: NodeId, cause: Cause) -> Vec<Action> {
    vec![Action::Reject { from, cause }]
}

fn ticket(node: NodeId, call: u64) -> Ticket {
    Ticket { node, call: CallId(call) }
}

#[test]
fn a_heaps_span_is_taken_back_from_its_own_node_only() {
    let mut home = machine(0);
    let owner = SpanOwner::Node(NodeId(1));
    let lease = Message::SpanLease { pages: 2, zone: Zone::Small, owner, ticket: ticket(NodeId(1), 1) };
    let actions = tell(&mut home, NodeId(1), lease);
    let [Action::Send { message: Message::SpanLeased { span, .. }, .. }] = actions[..] else {
        panic!("{actions:?}")
    };
    let back = Message::SpanReturn { first: span.first };
    assert_eq!(tell(&mut home, HOSTILE, back.clone()), refused(HOSTILE, Cause::Impersonation));
    assert_eq!(tell(&mut home, NodeId(1), back.clone()), []);
    assert_eq!(tell(&mut home, NodeId(1), back), refused(NodeId(1), Cause::OutOfTurn));
}

#[test]
fn a_domains_span_is_taken_back_from_whoever_dissolved_it() {
    let mut home = machine(0);
    let lease = Message::SpanLease {
        pages: 1,
        zone: Zone::Small,
        owner: SpanOwner::NewDomain,
        ticket: ticket(NodeId(1), 1),
    };
    let actions = tell(&mut home, NodeId(1), lease);
    let [Action::Send { message: Message::SpanLeased { span, .. }, .. }] = actions[..] else {
        panic!("{actions:?}")
    };
    assert_eq!(tell(&mut home, HOSTILE, Message::SpanReturn { first: span.first }), []);
}

/// The span that `home` leases to `owner`, who asks for it.
fn leased(home: &mut Machine, asker: NodeId, owner: SpanOwner) -> SpanRange {
    let lease = Message::SpanLease { pages: 2, zone: Zone::Small, owner, ticket: ticket(asker, 1) };
    let actions = tell(home, asker, lease);
    let [Action::Send { message: Message::SpanLeased { span, .. }, .. }] = actions[..] else {
        panic!("{actions:?}")
    };
    span
}

#[test]
fn a_node_outlives_that_a_peer_gave_back_what_its_own_program_drops() {
    let mut home = machine(0);
    let command = |command| Event::Command { call: CallId(9), command };
    let domain = leased(&mut home, NodeId(1), SpanOwner::NewDomain);
    assert_eq!(tell(&mut home, HOSTILE, Message::SpanReturn { first: domain.first }), []);
    assert_eq!(step(&mut home, command(Command::SpanReturn { first: domain.first })), []);
    // A block that lies in a peer's heap, of which the peer says that it is empty.
    let heap = leased(&mut home, HOSTILE, SpanOwner::Node(HOSTILE));
    assert_eq!(tell(&mut home, HOSTILE, Message::SpanReturn { first: heap.first }), []);
    let address = geometry().address_of(heap.first);
    assert_eq!(step(&mut home, command(Command::Free { address })), []);
}

/// A machine of rank 1 that has asked its own home, then rank 0, for a span that none of its own segments can hold.
fn waiting_for_a_span(owner: SpanOwner) -> (Machine, u64) {
    let mut asker = machine(1);
    let pages = geometry().segment_pages() + 1;
    let actions =
        step(&mut asker, Event::Command { call: CallId(7), command: Command::SpanLease { pages, owner } });
    assert!(matches!(actions[..], [Action::Send { to: NodeId::COORDINATOR, .. }]), "{actions:?}");
    (asker, pages)
}

#[test]
fn a_lease_is_taken_from_whom_it_was_asked_of_and_as_it_was_asked_for() {
    let owner = SpanOwner::Node(NodeId(1));
    let (asker, pages) = waiting_for_a_span(owner);
    let first = PageId(geometry().large_zone().start);
    let good = SpanRange { first, pages, owner };
    let cases = [
        (HOSTILE, good),
        (NodeId(0), SpanRange { pages: pages + 1, ..good }),
        (NodeId(0), SpanRange { owner: SpanOwner::Node(HOSTILE), ..good }),
        (NodeId(0), SpanRange { first: page_at(0), ..good }),
    ];
    for (from, span) in cases {
        let leased = Message::SpanLeased { ticket: ticket(NodeId(1), 7), span };
        assert_eq!(tell(&mut asker.clone(), from, leased), refused(from, Cause::OutOfTurn), "{span:?}");
    }
    let leased = Message::SpanLeased { ticket: ticket(NodeId(1), 7), span: good };
    let reply = Reply::Span(good);
    let mut asker = asker;
    assert_eq!(tell(&mut asker, NodeId(0), leased), [Action::Complete { call: CallId(7), reply }]);
}

#[test]
fn a_new_domain_begins_where_its_span_does() {
    let (mut asker, pages) = waiting_for_a_span(SpanOwner::NewDomain);
    let first = PageId(geometry().large_zone().start);
    let at = |page| SpanRange { first, pages, owner: SpanOwner::Domain(geometry().address_of(page)) };
    let leased = |span| Message::SpanLeased { ticket: ticket(NodeId(1), 7), span };
    let wrong = tell(&mut asker, NodeId(0), leased(at(PageId(first.0 + 1))));
    assert_eq!(wrong, refused(NodeId(0), Cause::OutOfTurn));
    assert!(matches!(tell(&mut asker, NodeId(0), leased(at(first)))[..], [Action::Complete { .. }]));
}

#[test]
fn a_span_is_found_where_it_was_looked_for() {
    let mut asker = machine(1);
    let page = page_at(0);
    let find = Event::Command { call: CallId(1), command: Command::SpanFind { page } };
    assert!(matches!(step(&mut asker, find)[..], [Action::Send { to: NodeId(0), .. }]));
    let owner = SpanOwner::Domain(geometry().base());
    let found = |first, pages| Message::SpanFound {
        ticket: ticket(NodeId(1), 1),
        span: Some(SpanRange { first, pages, owner }),
    };
    let segment = geometry().segment_pages();
    let cases = [
        (HOSTILE, found(page, 1)),
        (NodeId(0), found(PageId(page.0 + 1), 1)),
        (NodeId(0), found(page, segment + 1)),
    ];
    for (from, message) in cases {
        assert_eq!(tell(&mut asker.clone(), from, message), refused(from, Cause::OutOfTurn));
    }
    assert!(matches!(tell(&mut asker, NodeId(0), found(page, segment))[..], [Action::Complete { .. }]));
}

#[test]
fn a_name_is_answered_by_its_home_only() {
    let mut asker = machine(1);
    // Of these names, some have their home at rank 0.
    let claim = |name: &str| Command::RootClaim { name: name.to_owned(), layout: 0 };
    let asked = ('a'..='z').find_map(|name| {
        let mut asker = asker.clone();
        let command = claim(&name.to_string());
        let actions = step(&mut asker, Event::Command { call: CallId(1), command });
        matches!(actions[..], [Action::Send { to: NodeId(0), .. }]).then_some(asker)
    });
    asker = asked.expect("some letter is homed at rank 0");
    let answer = RootAnswer::Found(geometry().base());
    let answered = Message::RootAnswered { ticket: ticket(NodeId(1), 1), answer };
    assert_eq!(tell(&mut asker, HOSTILE, answered.clone()), refused(HOSTILE, Cause::OutOfTurn));
    assert!(matches!(tell(&mut asker, NodeId(0), answered)[..], [Action::Complete { .. }]));
}

fn grant(page: PageId, transaction: TransactionId, access: Access) -> Message {
    let payload = Payload::Bytes;
    Message::Grant {
        page,
        transaction,
        access,
        payload,
        awaiting: Copyset::EMPTY,
        contended: false,
        custody: None,
    }
}

#[test]
fn a_homes_own_fault_is_granted_by_the_owner_and_as_the_home_decided() {
    let mut home = machine(0);
    let page = page_at(0);
    let first = TransactionId { node: NodeId(1), number: 1 };
    tell(&mut home, NodeId(1), Message::Request { page, transaction: first, want: Want::Write });
    tell(&mut home, NodeId(1), Message::Confirm { page, transaction: first });
    let actions = step(&mut home, Event::Fault { page, want: Want::Read });
    assert!(matches!(actions[..], [Action::Send { to: NodeId(1), message: Message::Forward { .. } }]));
    let own = TransactionId { node: NodeId(0), number: 1 };
    for (from, access) in [(HOSTILE, Access::Read), (NodeId(1), Access::Write)] {
        let forged = grant(page, own, access);
        assert!(!home.reserves(from, &forged));
        assert_eq!(tell(&mut home, from, forged), refused(from, Cause::OutOfTurn));
    }
    let good = grant(page, own, Access::Read);
    assert!(home.reserves(NodeId(1), &good));
    assert!(matches!(tell(&mut home, NodeId(1), good)[..], [Action::Install { .. }]));
}

/// The number of the machine's next transaction, on a page that is homed elsewhere.
fn next_number(machine: &mut Machine, page: PageId) -> u64 {
    match step(machine, Event::Fault { page, want: Want::Read })[..] {
        [Action::Send { message: Message::Request { transaction, .. }, .. }] => transaction.number,
        ref other => panic!("{other:?}"),
    }
}

#[test]
fn keyed_numbers_grow_and_cannot_be_guessed_from_one_another() {
    let page = page_at(0);
    let at = |key| machine(1).with_transaction_key(key);
    let (mut one, mut other) = (at(1), at(2));
    let numbers: Vec<u64> = (0..8).map(|index| next_number(&mut one, PageId(page.0 + index))).collect();
    assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "{numbers:?}");
    assert_ne!(numbers[0], next_number(&mut other, page));
    let guess = TransactionId { node: NodeId(1), number: numbers[0] ^ 1 };
    let forged = grant(page, guess, Access::Read);
    assert!(!one.reserves(HOSTILE, &forged));
    assert_eq!(tell(&mut one, HOSTILE, forged), refused(HOSTILE, Cause::OutOfTurn));
}

#[test]
fn a_node_that_holds_as_many_locks_as_it_may_is_denied_one_more() {
    let mut home = machine(0);
    let page = geometry().address_of(page_at(0)).0;
    let lock = |number: u64| LockId(Address(page + number));
    let request = |node, number: u64| Message::LockRequest {
        lock: lock(number),
        ticket: ticket(node, number),
        wait: true,
    };
    for number in 0..CALLS_MAX as u64 {
        let answer = tell(&mut home, HOSTILE, request(HOSTILE, number));
        assert!(matches!(answer[..], [Action::Send { message: Message::LockGrant { .. }, .. }]));
    }
    let one_more = CALLS_MAX as u64;
    let answer = tell(&mut home, HOSTILE, request(HOSTILE, one_more));
    let denied =
        Message::LockDenied { lock: lock(one_more), ticket: ticket(HOSTILE, one_more), holder: HOSTILE };
    assert_eq!(answer, [Action::Send { to: HOSTILE, message: denied }]);
    let answer = tell(&mut home, NodeId(1), request(NodeId(1), one_more));
    assert!(matches!(answer[..], [Action::Send { message: Message::LockGrant { .. }, .. }]), "{answer:?}");
    let release = Message::LockRelease { lock: lock(0), ticket: ticket(HOSTILE, 0) };
    assert_eq!(tell(&mut home, HOSTILE, release), []);
    let answer = tell(&mut home, HOSTILE, request(HOSTILE, 0));
    assert!(matches!(answer[..], [Action::Send { message: Message::LockGrant { .. }, .. }]), "{answer:?}");
}

/// A name that is homed at rank 0, as the `number`th of them.
fn claim(home: &mut Machine, name: String, call: u64) -> Vec<Action> {
    tell(home, HOSTILE, Message::RootClaim { name, layout: 0, ticket: ticket(HOSTILE, call) })
}

#[test]
fn a_home_keeps_so_many_names_and_says_so() {
    let mut home = machine(0);
    let mut kept = 0;
    for number in 0.. {
        match claim(&mut home, number.to_string(), number)[..] {
            [Action::Reject { .. }] => {}
            [Action::Send { message: Message::RootAnswered { answer: RootAnswer::Create, .. }, .. }] => {
                kept += 1;
            }
            [Action::Send { message: Message::RootAnswered { answer: RootAnswer::TooMany, .. }, .. }] => {
                break;
            }
            ref other => panic!("{other:?}"),
        }
    }
    assert_eq!(kept, NAMES_MAX);
}

#[test]
fn a_node_waits_for_so_many_names_at_one_home_and_then_is_told() {
    let mut home = machine(0);
    let homed = |home: &mut Machine, name: &str| {
        !matches!(claim(home, name.to_owned(), 0)[..], [Action::Reject { .. }])
    };
    let name = ('a'..='z').map(String::from).find(|name| homed(&mut home, name)).expect("some letter is");
    for call in 1..=CALLS_MAX as u64 {
        assert_eq!(claim(&mut home, name.clone(), call), []);
    }
    let answer = claim(&mut home, name.clone(), 0);
    let too_many = |action: &Action| {
        matches!(
            action,
            Action::Send { message: Message::RootAnswered { answer: RootAnswer::TooMany, .. }, .. }
        )
    };
    assert!(too_many(&answer[0]), "{answer:?}");
    // The claims are answered, and then there is room again.
    let address = geometry().base();
    let answers = tell(&mut home, HOSTILE, Message::RootPublish { name: name.clone(), address });
    assert_eq!(answers.len(), CALLS_MAX);
    assert!(!too_many(&claim(&mut home, name, 0)[0]));
}

#[test]
fn what_is_said_twice_counts_once() {
    let mut home = machine(0);
    let page = page_at(0);
    let request = |number| Message::Request {
        page,
        transaction: TransactionId { node: HOSTILE, number },
        want: Want::Write,
    };
    assert!(matches!(tell(&mut home, HOSTILE, request(1))[..], [Action::Send { .. }]));
    assert_eq!(tell(&mut home, HOSTILE, request(1)), refused(HOSTILE, Cause::OutOfTurn));
    let hurry = tell(&mut home, HOSTILE, request(2));
    assert!(matches!(hurry[..], [Action::Send { message: Message::Hurry { .. }, .. }]), "{hurry:?}");
    assert_eq!(tell(&mut home, HOSTILE, request(3)), refused(HOSTILE, Cause::OutOfTurn));

    let lock = LockId(geometry().address_of(page));
    let wait = |call| Message::LockRequest { lock, ticket: ticket(HOSTILE, call), wait: true };
    assert!(matches!(tell(&mut home, HOSTILE, wait(1))[..], [Action::Send { .. }]));
    assert_eq!(tell(&mut home, HOSTILE, wait(1)), refused(HOSTILE, Cause::OutOfTurn));
    assert_eq!(tell(&mut home, HOSTILE, wait(2)), []);
    assert_eq!(tell(&mut home, HOSTILE, wait(2)), refused(HOSTILE, Cause::OutOfTurn));
    let release = Message::LockRelease { lock, ticket: ticket(HOSTILE, 2) };
    assert_eq!(tell(&mut home, HOSTILE, release), refused(HOSTILE, Cause::OutOfTurn));

    assert_eq!(tell(&mut home, HOSTILE, Message::BarrierArrive { generation: 0 }), []);
    let again = Message::BarrierArrive { generation: 0 };
    assert_eq!(tell(&mut home, HOSTILE, again), refused(HOSTILE, Cause::OutOfTurn));
    assert_eq!(tell(&mut home, HOSTILE, Message::LeaveArrive), refused(HOSTILE, Cause::OutOfTurn));
}

#[test]
fn who_holds_a_copy_has_no_reason_to_ask_for_one() {
    let mut home = machine(0);
    let page = page_at(0);
    let transaction = |number| TransactionId { node: HOSTILE, number };
    let request = |number| Message::Request { page, transaction: transaction(number), want: Want::Read };
    tell(&mut home, HOSTILE, request(1));
    tell(&mut home, HOSTILE, Message::Confirm { page, transaction: transaction(1) });
    assert_eq!(tell(&mut home, HOSTILE, request(2)), refused(HOSTILE, Cause::OutOfTurn));
    // The next that asks is served.
    let other = TransactionId { node: NodeId(1), number: 1 };
    let served = tell(&mut home, NodeId(1), Message::Request { page, transaction: other, want: Want::Read });
    assert!(matches!(served[..], [Action::Send { to: NodeId(1), .. }]), "{served:?}");
}

#[test]
fn a_root_is_published_once_and_by_its_creator() {
    let mut home = machine(0);
    let address = geometry().base();
    let here =
        |name: &String| !matches!(claim(&mut machine(0), name.clone(), 0)[..], [Action::Reject { .. }]);
    let name = ('a'..='z').map(String::from).find(here).expect("some letter is homed at rank 0");
    let publish = || Message::RootPublish { name: name.clone(), address };
    let abandon = || Message::RootAbandon { name: name.clone() };
    assert_eq!(tell(&mut home, HOSTILE, publish()), refused(HOSTILE, Cause::OutOfTurn));
    let ticket = ticket(NodeId(1), 1);
    tell(&mut home, NodeId(1), Message::RootClaim { name: name.clone(), layout: 0, ticket });
    for message in [publish(), abandon()] {
        assert_eq!(tell(&mut home, HOSTILE, message), refused(HOSTILE, Cause::OutOfTurn));
    }
    assert!(!home.is_quiet());
    assert_eq!(tell(&mut home, NodeId(1), publish()), []);
    assert!(home.is_quiet());
    for message in [publish(), abandon()] {
        assert_eq!(tell(&mut home, NodeId(1), message), refused(NodeId(1), Cause::OutOfTurn));
    }
}

#[test]
fn a_stranger_and_oneself_have_no_say() {
    let mut home = machine(0);
    let page = page_at(0);
    for from in [NodeId(0), NodeId(MEMBERS), NodeId(u16::MAX)] {
        let transaction = TransactionId { node: from, number: 1 };
        let request = Message::Request { page, transaction, want: Want::Read };
        assert_eq!(tell(&mut home, from, request), refused(from, Cause::NotMember));
    }
}

#[test]
fn a_body_belongs_to_a_message_that_has_one() {
    let mut control = Vec::new();
    let control_length = wire::encode_message(&Message::LeaveArrive, &mut control).expect("it fits");
    let length = 4096;
    let header = Header {
        kind: Kind::Data,
        control_length: u32::try_from(control_length).expect("it is short"),
        body_length: length,
        sequence: 1,
        acknowledged: 0,
        view: ViewId::FIRST,
        body_crc: 0,
    };
    let bytes = [header.encode(&control).as_slice(), &control].concat();
    assert_eq!(wire::decode_head(&bytes, 4096), Err(WireError::BodyMisplaced { length }));
}

#[test]
fn of_two_threads_that_leave_one_is_told_that_the_other_does() {
    let mut leaver = machine(1);
    let leave = |call| Event::Command { call: CallId(call), command: Command::Leave };
    assert!(matches!(step(&mut leaver, leave(1))[..], [Action::Send { .. }]));
    let busy = Action::Complete { call: CallId(2), reply: Reply::Busy };
    assert_eq!(step(&mut leaver, leave(2)), [busy]);
    let left = Action::Complete { call: CallId(1), reply: Reply::Left };
    assert_eq!(tell(&mut leaver, NodeId(0), Message::LeaveComplete), [left]);
    let again = tell(&mut leaver, NodeId(0), Message::LeaveComplete);
    assert_eq!(again, refused(NodeId(0), Cause::OutOfTurn));
}

#[test]
fn answers_that_come_after_a_peer_was_lost_are_late_and_not_wrong() {
    let mut asker = machine(1);
    step(&mut asker, Event::Command { call: CallId(1), command: Command::Barrier });
    step(&mut asker, Event::Command { call: CallId(2), command: Command::Leave });
    step(&mut asker, Event::PeerLost { node: HOSTILE });
    let ticket = ticket(NodeId(1), 3);
    let late = [
        Message::BarrierComplete { generation: 0, view: ViewId::FIRST },
        Message::LeaveComplete,
        Message::SpanDenied { ticket, free: 0, largest: 0 },
        Message::SpanFound { ticket, span: None },
    ];
    for message in late {
        assert_eq!(tell(&mut asker, NodeId(0), message), []);
    }
    // What the lost peer itself had said is late, too.
    assert_eq!(tell(&mut asker, HOSTILE, Message::LeaveArrive), []);
}

#[test]
fn names_are_noted_for_those_alone_whose_buddy_one_is() {
    let mut node = machine(0);
    for name in 0..64 {
        let note =
            Note::Root { name: format!("root {name}"), layout: 1, address: Address(REGION_BASE_DEFAULT) };
        let actions = step(&mut node, Event::Received { from: HOSTILE, message: Message::Note(note) });
        assert!(matches!(actions[..], [Action::Reject { from: HOSTILE, .. }]), "{actions:?}");
    }
}

#[test]
fn a_record_may_have_as_many_pages_as_a_section_stores_to() {
    const PAGES: u64 = (1 << 16) + 1;
    let view = View::first((0..2).map(|rank| (NodeId(rank), Incarnation(1), Host(0))), 1);
    let mut buddy = Machine::in_view(NodeId(1), view, geometry());
    let record = RecordId(1);
    let mut actions = Vec::new();
    let mut tell = |commit| {
        let event = Event::Received { from: NodeId(0), message: Message::Commit(commit) };
        buddy.handle(Time::ZERO, event, &mut actions);
    };
    (0..PAGES).for_each(|page| tell(Commit::Page { record, page: PageId(page) }));
    tell(Commit::End { record, previous: RecordId::NONE, pages: u32::try_from(PAGES).expect("it is few") });
    let acks = Action::Send { to: NodeId(0), message: Message::Commit(Commit::Ack { record }) };
    assert_eq!(actions.last(), Some(&acks));
    assert_eq!(actions.len(), 2, "they are applied, and acked");
}

#[test]
fn nobody_speaks_of_states_that_cannot_have_been_committed() {
    let view = View::first((0..2).map(|rank| (NodeId(rank), Incarnation(1), Host(0))), 1);
    let (peer, me) = (NodeId(0), NodeId(1));
    let pages = (0..geometry().pages()).map(PageId);
    let page = pages.into_iter().find(|page| geometry().home_of(*page, view.members()) == peer);
    let page = page.expect("each has some");
    let mut machine = Machine::in_view(me, view, geometry());
    step(&mut machine, Event::Fault { page, want: Want::Write });
    let transaction = TransactionId { node: me, number: 1 };
    let version = |view, record| Version { view: ViewId(view), record: RecordId(record) };
    for version in [version(1, u64::MAX), version(1, RECORDS_MAX + 1), version(2, 1)] {
        let custody = Some(Custody { version, holders: Copyset::EMPTY });
        let (access, payload, awaiting) = (Access::Write, Payload::Bytes, Copyset::EMPTY);
        let runs = vec![PageRun { first: page, pages: 1, holding: Holding::Kept(version) }];
        let forged = [
            Message::Grant { page, transaction, access, payload, awaiting, contended: false, custody },
            Message::Ack { page, transaction, custody },
            Message::Commit(Commit::Release { page, before: version }),
            Message::Report(Report::Pages { runs }),
        ];
        for message in forged {
            assert_eq!(tell(&mut machine, peer, message), refused(peer, Cause::BeyondLimit));
        }
    }
    // What a node keeps it reports: a record that nobody could speak of is none.
    let (record, previous) = (RecordId(RECORDS_MAX + 1), RecordId::NONE);
    for commit in [Commit::Page { record, page }, Commit::End { record, previous, pages: 1 }] {
        assert_eq!(tell(&mut machine, peer, Message::Commit(commit)), refused(peer, Cause::BeyondLimit));
    }
}
