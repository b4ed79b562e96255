//! What the machine promises when nodes die, join and leave, one by one.
#![allow(clippy::wildcard_enum_match_arm, reason = "a test looks for the one action that it is about")]

mod cluster;
mod joins;
mod loss;
mod sections;
mod stores;

use cluster::{Cluster, Said};
use dsm_core::{
    Access, Action, CallId, Command, Commit, Copyset, Event, LockId, Message, NodeId, PageId, Reply,
    RootAnswer, SpanOwner, SpanRange, Want,
};
use std::collections::BTreeMap;

#[test]
fn a_killed_owners_committed_page_is_served_by_its_buddy() {
    let mut cluster = Cluster::new(3, 1);
    let page = cluster.page_at(2);
    cluster.store(0, page, 7);
    let sync = cluster.call(0, Command::Sync);
    assert_eq!(cluster.replies(sync), [Reply::Synced]);
    cluster.kill(&[0]);
    assert!(cluster.machines[1].owns(page), "its buddy has it");
    assert_eq!(cluster.load(2, page), Some(7));
    assert!(cluster.machines[1].is_fully_replicated() && cluster.machines[2].is_fully_replicated());
}

#[test]
fn a_lock_whose_release_waits_for_a_record_can_be_had_again_without_waiting() {
    let mut cluster = Cluster::new(3, 1);
    let page = cluster.page_at(2);
    let lock = LockId(cluster.geometry.address_of(page));
    let (acquired, _) = cluster.lock(0, lock);
    cluster.store(0, page, 1);
    // Nothing is delivered in between: the record of the section is on its way.
    let unlock = Event::Command { call: CallId(1000), command: Command::Unlock { lock, acquired } };
    cluster.step(NodeId(0), unlock);
    let again = CallId(1001);
    let command = Command::Lock { lock, wait: false };
    cluster.step(NodeId(0), Event::Command { call: again, command });
    cluster.settle();
    assert_eq!(cluster.replies(again), [Reply::Locked { recovered: None }]);
}

#[test]
fn a_section_in_progress_is_undone_and_one_that_was_acked_is_not() {
    let mut cluster = Cluster::new(3, 1);
    let page = cluster.page_at(2);
    let lock = LockId(cluster.geometry.address_of(page));
    let (acquired, _) = cluster.lock(0, lock);
    cluster.store(0, page, 1);
    cluster.call(0, Command::Unlock { lock, acquired });
    cluster.lock(0, lock);
    cluster.store(0, page, 2);
    // What is committed meanwhile is not what a section has written.
    cluster.call(0, Command::Sync);
    cluster.kill(&[0]);
    let (_, replies) = cluster.lock(1, lock);
    assert_eq!(replies, [Reply::Locked { recovered: Some(NodeId(0)) }]);
    assert_eq!(cluster.load(1, page), Some(1));
}

#[test]
fn without_replicas_a_dead_owners_page_is_poisoned_and_nothing_hangs() {
    let mut cluster = Cluster::new(3, 0);
    let (lost, other) = (cluster.page_at(1), cluster.page_at(2));
    cluster.store(0, lost, 7);
    cluster.store(2, other, 8);
    // This fault waits for the dead.
    cluster.step(NodeId(2), Event::Fault { page: lost, want: Want::Read });
    cluster.kill(&[0]);
    assert!(cluster.is_poisoned(1, lost) && cluster.is_poisoned(2, lost));
    assert_eq!(cluster.load(2, lost), None);
    assert!(!cluster.is_poisoned(1, other));
    assert_eq!(cluster.load(1, other), Some(8));
}

#[test]
fn owner_and_buddy_together_lose_just_what_nobody_else_can_read() {
    let mut cluster = Cluster::new(4, 1);
    let (lost, read, other) = (cluster.page_at(2), cluster.page_at(3), PageId(cluster.page_at(2).0 + 1));
    cluster.store(0, lost, 1);
    cluster.store(0, read, 2);
    cluster.store(2, other, 3);
    assert_eq!(cluster.load(3, read), Some(2));
    cluster.call(0, Command::Sync);
    cluster.kill(&[0, 1]);
    for rank in [2, 3] {
        assert!(cluster.is_poisoned(rank, lost), "{rank} is told");
        assert!(!cluster.is_poisoned(rank, read) && !cluster.is_poisoned(rank, other), "only that");
        assert_eq!(cluster.load(rank, lost), None);
        assert_eq!(cluster.load(rank, read), Some(2));
        assert_eq!(cluster.load(rank, other), Some(3));
    }
}

#[test]
fn what_a_reader_keeps_besides_is_released_when_another_reader_has_taken_over() {
    let mut cluster = Cluster::new(5, 1);
    let page = cluster.page_at(4);
    cluster.store(2, page, 7);
    cluster.call(2, Command::Sync);
    assert!(cluster.machines[3].kept(page).is_some(), "the buddy keeps it");
    assert_eq!((cluster.load(3, page), cluster.load(0, page)), (Some(7), Some(7)));
    cluster.kill(&[2]);
    assert!(cluster.machines[0].owns(page), "a reader has taken over");
    assert!(cluster.machines[1].kept(page).is_some(), "its buddy keeps it");
    assert_eq!(cluster.machines[3].kept(page), None, "and nobody else");
    assert_eq!(cluster.load(3, page), Some(7));
}

#[test]
fn names_and_spans_outlive_their_homes() {
    let mut cluster = Cluster::new(4, 1);
    let names: Vec<String> = (0..12).map(|name| format!("root {name}")).collect();
    let mut at = BTreeMap::new();
    for name in &names {
        let claim = Command::RootClaim { name: name.clone(), layout: 7 };
        assert_eq!(cluster.ask(1, claim), Some(Reply::Root(RootAnswer::Create)));
        let lease = Command::SpanLease { pages: 1, owner: SpanOwner::NewDomain };
        let Some(Reply::Span(span)) = cluster.ask(1, lease) else { panic!("there is room") };
        let address = cluster.geometry.address_of(span.first);
        cluster.ask(1, Command::RootPublish { name: name.clone(), address });
        at.insert(name.clone(), span);
    }
    let heap = SpanOwner::Node(NodeId(2));
    let large = Command::SpanLease { pages: cluster.geometry.segment_pages() + 1, owner: heap };
    let Some(Reply::Span(long)) = cluster.ask(2, large.clone()) else { panic!("there is room") };

    // The first also grants what is longer than a segment.
    cluster.kill(&[0]);
    for rank in [2, 3] {
        for name in &names {
            let span = at[name];
            let found = RootAnswer::Found(cluster.geometry.address_of(span.first));
            let claim = Command::RootClaim { name: name.clone(), layout: 7 };
            assert_eq!(cluster.ask(rank, claim), Some(Reply::Root(found)), "{name}");
            let find = Command::SpanFind { page: span.first };
            assert_eq!(cluster.ask(rank, find), Some(Reply::SpanFound(Some(span))), "{name}");
        }
    }
    let find = Command::SpanFind { page: long.first };
    assert_eq!(cluster.ask(3, find), Some(Reply::SpanFound(Some(long))));
    let Some(Reply::Span(other)) = cluster.ask(2, large) else { panic!("there is room") };
    assert!(other.first.0 >= long.first.0 + long.pages || other.first.0 + other.pages <= long.first.0);

    // What the dead had leased to itself from its own segments is leased to nobody else.
    cluster.kill(&[1]);
    let mut taken: Vec<SpanRange> = at.values().copied().collect();
    for _ in 0..40 {
        let lease = Command::SpanLease { pages: 300, owner: heap };
        let Some(Reply::Span(span)) = cluster.ask(2, lease) else { panic!("there is room") };
        let apart = |one: &SpanRange| {
            one.first.0 + one.pages <= span.first.0 || span.first.0 + span.pages <= one.first.0
        };
        assert!(taken.iter().all(apart), "{span:?} was leased before: {taken:?}");
        taken.push(span);
    }
}

#[test]
fn a_barrier_that_some_member_passed_is_passed_by_all_and_one_that_none_did_waits_for_those_who_live() {
    let mut cluster = Cluster::new(3, 1);
    for rank in 1..3 {
        assert_eq!(cluster.ask(rank, Command::Barrier), None, "rank 0 has not come");
    }
    cluster.kill(&[0]);
    let passed = |(_, action): &&(NodeId, Action)| {
        matches!(action, Action::Complete { reply: Reply::BarrierPassed { .. }, .. })
    };
    assert_eq!(cluster.done.iter().filter(passed).count(), 2);
}

#[test]
fn what_was_taken_over_is_replicated_only_once_it_is_kept_though_the_view_changes_meanwhile() {
    let mut cluster = Cluster::new(5, 1);
    let page = cluster.page_at(0);
    cluster.store(4, page, 1);
    cluster.store(1, page, 2);
    // The buddy of rank 1 reads it; that rank 4 need not keep the state before is on its way when rank 1 dies.
    cluster.step(NodeId(2), Event::Fault { page, want: Want::Read });
    cluster.settle_but(|said| matches!(said.2, Message::Commit(Commit::Release { .. })));
    assert_eq!(cluster.machines[2].access(page), Access::Read);
    assert!(cluster.machines[4].kept(page).is_some(), "rank 4 keeps the state before");

    // Rank 2 takes the page over, and what it commits of it does not come before the view changes again.
    let commits = |said: &Said| said.0 == NodeId(2) && matches!(said.2, Message::Commit(_));
    cluster.kill_but(&[1], commits);
    assert!(cluster.machines[2].owns(page));
    cluster.kill_but(&[3], commits);
    assert_eq!(
        cluster.view.buddies_of(NodeId(2)),
        Copyset::EMPTY.with(NodeId(4)),
        "who keeps an earlier state"
    );
    assert!(!cluster.machines[0].is_fully_replicated(), "nobody keeps what rank 2 has");

    // With it, the page is lost, which is said: what ranks 0 and 4 keep is not what others have seen.
    cluster.kill(&[2]);
    assert_eq!(cluster.load(0, page), None);
    assert!(cluster.is_poisoned(0, page));
}
