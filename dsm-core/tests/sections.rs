//! What a node withholds while its threads have sections open, seen from the node itself: one machine, whose buddy acks
//! when the test says so. Everything that the tests lock and lease is homed at the node, and so answered at once.
#![allow(clippy::wildcard_enum_match_arm, reason = "a test looks for the one action that it is about")]

use dsm_core::limits::REGION_BASE_DEFAULT;
use dsm_core::{
    Access, Action, Address, CallId, Command, Commit, Event, Geometry, Host, Incarnation, LockId, Machine,
    Message, NodeId, PageId, RecordId, Replication, Reply, SpanOwner, SpanRange, Time, View, Want,
};
use std::collections::{BTreeMap, BTreeSet};

const ME: NodeId = NodeId(0);
const BUDDY: NodeId = NodeId(1);

struct Node {
    geometry: Geometry,
    machine: Machine,
    /// The pages of each record.
    records: BTreeMap<RecordId, BTreeSet<PageId>>,
    twins: BTreeSet<PageId>,
    freed: Vec<Address>,
    replies: BTreeMap<CallId, Reply>,
    calls: u64,
}

impl Node {
    fn new() -> Node {
        let geometry = Geometry::new(REGION_BASE_DEFAULT, 1 << 30, 4096).expect("it fits");
        let named = [ME, BUDDY].map(|node| (node, Incarnation(1), Host(u64::from(node.0))));
        Node {
            geometry,
            machine: Machine::in_view(ME, View::first(named, 1), geometry),
            records: BTreeMap::new(),
            twins: BTreeSet::new(),
            freed: Vec::new(),
            replies: BTreeMap::new(),
            calls: 0,
        }
    }

    fn step(&mut self, event: Event) {
        let mut actions = Vec::new();
        self.machine.handle(Time::ZERO, event, &mut actions);
        for action in actions {
            match action {
                Action::Replicate(Replication::SendCopy { page, message, .. }) => match message {
                    Message::Commit(Commit::Page { record, .. }) => {
                        self.records.entry(record).or_default().insert(page);
                    }
                    other => panic!("{page} is copied for {other:?}"),
                },
                Action::Replicate(Replication::KeepTwin { page }) => drop(self.twins.insert(page)),
                Action::Freed { address } => self.freed.push(address),
                Action::Complete { call, reply } => drop(self.replies.insert(call, reply)),
                Action::Reject { from, cause } => panic!("what {from} said is rejected: {cause}"),
                _ => {}
            }
        }
        self.machine.invariants().expect("invariants hold after each event");
    }

    fn call(&mut self, command: Command) -> CallId {
        self.calls += 1;
        let call = CallId(self.calls);
        self.step(Event::Command { call, command });
        call
    }

    fn ask(&mut self, command: Command) -> Option<Reply> {
        let call = self.call(command);
        self.replies.get(&call).copied()
    }

    /// The buddy has all that was sent to it.
    fn ack(&mut self) {
        let record = *self.records.keys().next_back().expect("something was committed");
        self.step(Event::Received { from: BUDDY, message: Message::Commit(Commit::Ack { record }) });
    }

    fn store(&mut self, page: PageId) {
        if self.machine.access(page) < Access::Write {
            self.step(Event::Fault { page, want: Want::Write });
        }
        assert_eq!(self.machine.access(page), Access::Write, "{page} is homed here");
    }

    fn lease(&mut self, pages: u64, owner: SpanOwner) -> SpanRange {
        match self.ask(Command::SpanLease { pages, owner }) {
            Some(Reply::Span(span)) => span,
            other => panic!("there is room: {other:?}"),
        }
    }

    fn is_leased(&mut self, span: SpanRange) -> bool {
        match self.ask(Command::SpanFind { page: span.first }) {
            Some(Reply::SpanFound(found)) => found == Some(span),
            other => panic!("the home is here: {other:?}"),
        }
    }

    /// A new domain whose maker has stored to all of its pages, and whose lock nobody has had.
    fn domain(&mut self, pages: u64) -> (LockId, SpanRange) {
        let span = self.lease(pages, SpanOwner::NewDomain);
        (0..pages).for_each(|page| self.store(PageId(span.first.0 + page)));
        (LockId(self.geometry.address_of(span.first)), span)
    }

    fn lock(&mut self, lock: LockId) -> CallId {
        let call = self.call(Command::Lock { lock, wait: true });
        assert_eq!(self.replies.get(&call), Some(&Reply::Locked { recovered: None }));
        call
    }

    fn is_committed(&self, page: PageId) -> bool {
        self.records.values().any(|pages| pages.contains(&page))
    }
}

#[test]
fn what_the_maker_of_a_domain_wrote_is_committed_when_the_first_section_begins() {
    let mut node = Node::new();
    let (lock, span) = node.domain(1);
    node.lock(lock);
    assert!(node.is_committed(span.first));
    node.records.clear();
    node.store(span.first);
    assert!(node.twins.contains(&span.first), "what is to be known of it is set aside, though not acked");
    let sync = node.call(Command::Sync);
    assert!(!node.is_committed(span.first), "and what the section wrote is withheld");
    assert_eq!(node.replies.get(&sync), None, "the sync waits for what the maker wrote");
}

#[test]
fn a_covered_span_is_committed_as_it_stood_before_and_then_withheld() {
    let mut node = Node::new();
    let (lock, span) = node.domain(3);
    node.lock(lock);
    let last = PageId(span.first.0 + 2);
    node.records.clear();
    node.store(last);
    assert_eq!(node.ask(Command::Cover { lock, spans: vec![span] }), Some(Reply::Covered));
    assert!(node.is_committed(last));
    node.records.clear();
    node.store(last);
    assert!(node.twins.contains(&last));
    node.call(Command::Sync);
    assert!(!node.is_committed(last));
}

#[test]
fn a_span_that_a_section_leases_is_withheld_from_its_first_store() {
    let mut node = Node::new();
    let (lock, _) = node.domain(1);
    let acquired = node.lock(lock);
    node.ack();
    let grown = node.lease(2, SpanOwner::Domain(lock.0));
    let plain = node.lease(1, SpanOwner::Node(ME));
    node.store(PageId(grown.first.0 + 1));
    node.store(plain.first);
    node.call(Command::Sync);
    assert!(node.is_committed(plain.first) && !node.is_committed(PageId(grown.first.0 + 1)));
    node.call(Command::Unlock { lock, acquired });
    assert!(node.is_committed(PageId(grown.first.0 + 1)));
}

#[test]
fn sections_that_end_together_are_in_one_record_and_their_locks_wait_for_it() {
    let mut node = Node::new();
    let (outer, outer_span) = node.domain(1);
    let (inner, inner_span) = node.domain(1);
    let locks = vec![(outer, node.lock(outer)), (inner, node.lock(inner))];
    node.ack();
    node.records.clear();
    node.store(outer_span.first);
    node.store(inner_span.first);
    node.call(Command::UnlockTogether { locks });
    let pages = BTreeSet::from([outer_span.first, inner_span.first]);
    assert_eq!(node.records.values().collect::<Vec<_>>(), [&pages]);
    let asked = [outer, inner].map(|lock| node.call(Command::Lock { lock, wait: false }));
    assert!(asked.iter().all(|call| !node.replies.contains_key(call)), "nobody gets them before the ack");
    node.ack();
    assert!(asked.iter().all(|call| matches!(node.replies.get(call), Some(Reply::Locked { .. }))));
}

#[test]
fn what_is_given_up_in_a_section_is_somebody_elses_only_when_that_is_replicated() {
    let mut node = Node::new();
    let (lock, span) = node.domain(1);
    let plain = node.lease(1, SpanOwner::Node(ME));
    let block = node.geometry.address_of(plain.first);
    let acquired = node.lock(lock);
    let grown = node.lease(1, SpanOwner::Domain(lock.0));
    node.ack();
    node.store(span.first);
    node.call(Command::SpanReturn { first: grown.first });
    node.call(Command::Free { address: block });
    assert!(node.is_leased(grown) && node.freed.is_empty(), "while the section is open");
    node.call(Command::Unlock { lock, acquired });
    assert!(node.is_leased(grown) && node.freed.is_empty(), "while its record is not acked");
    node.ack();
    assert!(!node.is_leased(grown));
    assert_eq!(node.freed, [block]);
}

#[test]
fn what_is_given_up_waits_for_all_sections_that_were_open_and_for_none_that_begins_later() {
    let mut node = Node::new();
    let (first, second, later) = (node.domain(1).0, node.domain(1).0, node.domain(1).0);
    let (first_call, second_call) = (node.lock(first), node.lock(second));
    let grown = node.lease(1, SpanOwner::Domain(first.0));
    node.ack();
    node.call(Command::SpanReturn { first: grown.first });
    node.lock(later);
    node.call(Command::Unlock { lock: first, acquired: first_call });
    assert!(node.is_leased(grown), "the second was open");
    node.call(Command::Unlock { lock: second, acquired: second_call });
    assert!(!node.is_leased(grown), "nothing was stored that would have to be acked");
}
