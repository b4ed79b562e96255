//! Members that join, leave, and come back.

use super::cluster::{Cluster, Said};
use dsm_core::{
    Command, Event, LockId, Message, NodeId, PageId, Reply, RootAnswer, SpanOwner, SpanRange, ViewId, Want,
};

/// Stores a word of each page's own to some pages of each rank's home, from another rank.
fn filled(cluster: &mut Cluster, nodes: u16) -> Vec<PageId> {
    let mut pages = Vec::new();
    for rank in 0..nodes {
        for page in 0..3 {
            let page = PageId(cluster.page_at(rank).0 + page);
            let from = (rank + u16::try_from(pages.len() % 2).unwrap_or(0)) % nodes;
            cluster.store(from, page, page.0 + 1);
            pages.push(page);
        }
    }
    pages
}

#[test]
fn who_joins_becomes_home_and_buddy_and_is_served() {
    let mut cluster = Cluster::new(3, 1);
    let pages = filled(&mut cluster, 3);
    cluster.change(&[], &[3]);
    assert_eq!(cluster.machines[3].view().id(), ViewId(2));
    assert!(cluster.machines.iter().all(|machine| machine.is_fully_replicated()));
    let homed: Vec<PageId> = cluster.machines[3].homed_pages().collect();
    let moved = pages.iter().filter(|page| homed.contains(page)).count();
    let meant = |page: &&PageId| cluster.geometry.home_of(**page, cluster.view.members()) == NodeId(3);
    assert_eq!(moved, pages.iter().filter(meant).count());
    for machine in &cluster.machines[..3] {
        let foreign = machine
            .homed_pages()
            .filter(|page| cluster.geometry.home_of(*page, cluster.view.members()) == NodeId(3));
        assert_eq!(foreign.count(), 0, "who is home no longer has forgotten");
    }
    for page in &pages {
        assert_eq!(cluster.load(3, *page), Some(page.0 + 1));
    }
    // What it stores is kept for it, and it keeps for others.
    let page = cluster.page_at(1);
    cluster.store(3, page, 99);
    cluster.call(3, Command::Sync);
    cluster.kill(&[3]);
    assert_eq!(cluster.load(0, page), Some(99));
}

#[test]
fn what_a_home_knows_moves_to_who_joins() {
    let mut cluster = Cluster::new(2, 1);
    let names: Vec<String> = (0..16).map(|name| format!("root {name}")).collect();
    let mut spans: Vec<SpanRange> = Vec::new();
    for name in &names {
        let claim = Command::RootClaim { name: name.clone(), layout: 7 };
        assert_eq!(cluster.ask(1, claim), Some(Reply::Root(RootAnswer::Create)));
        // A segment each, so that the homes of some move.
        let span = cluster.lease(1, cluster.geometry.segment_pages(), SpanOwner::NewDomain);
        let address = cluster.geometry.address_of(span.first);
        cluster.call(1, Command::RootPublish { name: name.clone(), address });
        spans.push(span);
    }
    let long = cluster.geometry.segment_pages() + 1;
    spans.push(cluster.lease(1, long, SpanOwner::Node(NodeId(1))));
    // Locks that are held, and locks whose holder dies as others join.
    let locks: Vec<LockId> =
        spans.iter().take(8).map(|span| LockId(cluster.geometry.address_of(span.first))).collect();
    for lock in &locks {
        cluster.lock(1, *lock);
    }
    cluster.change(&[], &[2, 3]);
    for (name, span) in names.iter().zip(&spans) {
        let claim = Command::RootClaim { name: name.clone(), layout: 7 };
        let found = RootAnswer::Found(cluster.geometry.address_of(span.first));
        assert_eq!(cluster.ask(3, claim), Some(Reply::Root(found)), "{name}");
        assert_eq!(
            cluster.ask(2, Command::SpanFind { page: span.first }),
            Some(Reply::SpanFound(Some(*span)))
        );
    }
    // Of those that are homed at their holder, nobody else knows.
    let home = |span: &SpanRange| cluster.geometry.home_of(span.first, cluster.view.members());
    let known: Vec<bool> = spans.iter().take(locks.len()).map(|span| home(span) != NodeId(1)).collect();
    assert!(known.contains(&true), "some homes have moved");
    let waiting: Vec<_> = locks.iter().map(|lock| cluster.lock(3, *lock)).collect();
    assert!(waiting.iter().all(|(_, replies)| replies.is_empty()), "they are held");
    cluster.change(&[1], &[4]);
    for ((call, _), known) in waiting.into_iter().zip(known) {
        let recovered = known.then_some(NodeId(1));
        assert_eq!(cluster.replies(call), [Reply::Locked { recovered }]);
    }
    // Whoever is home now leases nothing twice.
    for rank in [0, 2, 3, 4] {
        for pages in [300, 300, long] {
            let span = cluster.lease(rank, pages, SpanOwner::Node(NodeId(rank)));
            let apart = |one: &SpanRange| {
                one.first.0 + one.pages <= span.first.0 || span.first.0 + span.pages <= one.first.0
            };
            assert!(spans.iter().all(apart), "{span:?} was leased before: {spans:?}");
            spans.push(span);
        }
    }
}

#[test]
fn a_lock_that_the_dead_left_is_told_of_by_whoever_becomes_its_home() {
    let mut cluster = Cluster::new(3, 1);
    let after = cluster.view.next(
        dsm_core::Copyset::EMPTY.with(NodeId(0)),
        [(NodeId(3), dsm_core::Incarnation(3), dsm_core::Host(3))],
    );
    let moves = |page: &PageId| {
        cluster.geometry.home_of(*page, cluster.view.members()) == NodeId(1)
            && cluster.geometry.home_of(*page, after.members()) == NodeId(3)
    };
    let page = (0..).map(|segment| PageId(segment * cluster.geometry.segment_pages())).find(moves);
    let lock = LockId(cluster.geometry.address_of(page.expect("some segment moves")));
    cluster.lock(0, lock);
    // Nobody asks for it before its home changes.
    cluster.kill(&[0]);
    cluster.change(&[], &[3]);
    assert_eq!(cluster.lock(2, lock).1, [Reply::Locked { recovered: Some(NodeId(0)) }]);
}

#[test]
fn without_replicas_nobody_leases_what_the_dead_may_have_leased() {
    let mut cluster = Cluster::new(3, 0);
    let members = cluster.view.members();
    // Those that could have told died with it, as far as its homes know.
    cluster.change(&[2], &[]);
    cluster.change(&[], &[2]);
    let geometry = cluster.geometry;
    for rank in 0..3 {
        for _ in 0..40 {
            let span = cluster.lease(rank, geometry.segment_pages(), SpanOwner::Node(NodeId(rank)));
            let in_small = geometry.small_zone().contains(&geometry.segment_of(span.first).0);
            let homed = geometry.home_of(span.first, members);
            assert!(!in_small || homed != NodeId(2), "{span:?} was the dead home's to lease");
        }
    }
}

#[test]
fn who_comes_back_with_the_lowest_rank_coordinates() {
    let mut cluster = Cluster::new(3, 1);
    for rank in 0..3 {
        cluster.call(rank, Command::Barrier);
    }
    cluster.change(&[0], &[0]);
    // It counts barriers from where the others are.
    let first = cluster.call(1, Command::Barrier);
    cluster.call(2, Command::Barrier);
    assert_eq!(cluster.replies(first), []);
    assert_eq!(cluster.ask(0, Command::Barrier), Some(Reply::BarrierPassed { view: ViewId(2) }));
    assert_eq!(cluster.replies(first), [Reply::BarrierPassed { view: ViewId(2) }]);
    let long = cluster.geometry.segment_pages() + 1;
    cluster.lease(1, long, SpanOwner::Node(NodeId(1)));
}

#[test]
fn a_rolling_restart_loses_nothing() {
    let mut cluster = Cluster::new(3, 1);
    let pages = filled(&mut cluster, 3);
    for round in 0..2 {
        for rank in 0..3 {
            assert_eq!(cluster.ask(rank, Command::Sync), Some(Reply::Synced));
            assert!(cluster.machines[usize::from(rank)].is_fully_replicated());
            cluster.kill(&[rank]);
            cluster.change(&[], &[rank]);
            for page in &pages {
                let (by, word) = ((rank + 1) % 3, page.0 + 1 + round);
                assert_eq!(cluster.load(by, *page), Some(word), "{page} after {rank} was restarted");
            }
        }
        for page in &pages {
            cluster.store(0, *page, page.0 + 2 + round);
        }
    }
    assert!(pages.iter().all(|page| (0..3).all(|rank| !cluster.is_poisoned(rank, *page))));
}

#[test]
fn a_process_that_takes_the_rank_of_one_that_died_has_nothing_of_it() {
    let mut cluster = Cluster::new(4, 1);
    let page = cluster.page_at(3);
    cluster.store(0, page, 7);
    cluster.call(0, Command::Sync);
    // The buddy that kept the page comes back without it, in the same view in which the loss of the first is noticed.
    cluster.change(&[1], &[1]);
    assert!(cluster.machines[1].kept(page).is_some(), "it was sent the page anew");
    cluster.kill(&[0]);
    assert_eq!(cluster.load(2, page), Some(7));
}

#[test]
fn all_may_leave_whoever_dies_meanwhile() {
    let mut cluster = Cluster::new(4, 1);
    let leaving: Vec<_> = [0, 1, 3].map(|rank| cluster.call(rank, Command::Leave)).to_vec();
    // The coordinator dies, which has left as well.
    cluster.kill(&[0]);
    assert!(leaving.iter().all(|call| cluster.replies(*call).is_empty()), "rank 2 is at work");
    // Nobody waits in a barrier for those that have left.
    assert_eq!(cluster.ask(2, Command::Barrier), Some(Reply::BarrierPassed { view: ViewId(2) }));
    // The only one that has not, dies.
    cluster.kill(&[2]);
    assert_eq!(cluster.replies(leaving[1]), [Reply::Left]);
    assert_eq!(cluster.replies(leaving[2]), [Reply::Left]);
    // One of them ends, and the other is not troubled by that.
    cluster.kill(&[1]);
    assert!(cluster.machines[3].is_quiet());
}

#[test]
fn what_is_leased_over_a_span_that_was_given_back_is_what_counts_after_a_change() {
    for lost in [false, true] {
        let mut cluster = Cluster::new(4, 1);
        let home = NodeId(0);
        let spans = [0; 2].map(|_| cluster.lease(0, 2, SpanOwner::NewDomain));
        assert_eq!(spans[0].first.0 + 2, spans[1].first.0, "they are neighbours");
        cluster.change(&[3], &[]);
        assert_eq!(cluster.geometry.home_of(spans[0].first, cluster.view.members()), home);
        // Others dissolve the domains, and some do not hear of it, nor of what is leased in their place.
        let unheard = |said: &Said| lost && said.0 == home && matches!(said.2, Message::Note(_));
        for span in spans {
            cluster.call_at_once(1, Command::SpanReturn { first: span.first });
        }
        cluster.settle_but(unheard);
        let lease = Command::SpanLease { pages: 4, owner: SpanOwner::NewDomain };
        let call = cluster.call_at_once(0, lease);
        let [Reply::Span(long)] = cluster.replies(call)[..] else { panic!("there is room") };
        assert_eq!(long.first, spans[0].first);
        cluster.change(&[], &[3]);
        for rank in 0..4 {
            let find = Command::SpanFind { page: spans[1].first };
            assert_eq!(cluster.ask(rank, find), Some(Reply::SpanFound(Some(long))));
        }
        // And if the home dies as well, nobody remembers the two.
        cluster.kill(&[0]);
        let find = Command::SpanFind { page: spans[1].first };
        assert_eq!(cluster.ask(2, find), Some(Reply::SpanFound(Some(long))));
    }
}

#[test]
fn who_joins_lets_nothing_go_before_all_is_replicated() {
    let mut cluster = Cluster::new(3, 1);
    let page = cluster.page_at(0);
    cluster.store(0, page, 7);
    cluster.call(0, Command::Sync);
    let replicated =
        |said: &Said| said.0 == NodeId(2) && matches!(said.2, Message::Report(dsm_core::Report::Replicated));
    cluster.change_but(&[], &[3], replicated);
    assert!(!cluster.machines[3].is_fully_replicated());
    assert!(!cluster.view.buddies_of(NodeId(3)).contains(NodeId(1)));
    // It takes the page over, and commits what it has stored.
    cluster.step(NodeId(3), Event::Fault { page, want: Want::Write });
    cluster.settle_but(replicated);
    let sync = cluster.call_at_once(3, Command::Sync);
    cluster.settle_but(replicated);
    assert_eq!(cluster.replies(sync), [Reply::Synced]);
    assert!(cluster.machines[1].kept(page).is_some(), "the state before is needed until all is replicated");
    cluster.settle();
    assert!(cluster.machines[3].is_fully_replicated());
    assert_eq!(cluster.machines[1].kept(page), None);
}

#[test]
fn what_waits_for_full_replication_does_not_grow_with_every_commit() {
    let mut cluster = Cluster::new(3, 1);
    let page = cluster.page_at(1);
    let replicated =
        |said: &Said| said.0 == NodeId(1) && matches!(said.2, Message::Report(dsm_core::Report::Replicated));
    cluster.change_but(&[], &[3], replicated);
    for _ in 0..5 {
        for rank in [0, 2] {
            cluster.step(NodeId(rank), Event::Fault { page, want: Want::Write });
            cluster.settle_but(replicated);
        }
    }
    let releases = |said: &Said| matches!(said.2, Message::Commit(dsm_core::Commit::Release { .. }));
    cluster.settle_but(releases);
    let of_first = cluster.wire.iter().filter(|said| said.0 == NodeId(0) && said.1 == NodeId(2)).count();
    assert_eq!(of_first, 1, "the last says it all: {:?}", cluster.wire);
    cluster.settle();
}

#[test]
fn what_is_given_back_to_a_home_that_did_not_grant_it_is_leased_once() {
    let mut cluster = Cluster::new(3, 1);
    let [before, span] = [0; 2].map(|_| cluster.lease(1, 2, SpanOwner::NewDomain));
    cluster.call(0, Command::SpanReturn { first: before.first });
    cluster.kill(&[1]);
    let home = cluster.geometry.home_of(span.first, cluster.view.members()).0;
    cluster.call(0, Command::SpanReturn { first: span.first });
    let mut leased: Vec<SpanRange> = Vec::new();
    // All that this home has, and then what it might have twice.
    let segments = (0..64).map(|_| cluster.geometry.segment_pages()).collect::<Vec<_>>();
    for pages in segments.into_iter().chain([2, 2]) {
        let owner = SpanOwner::Node(NodeId(home));
        let Some(Reply::Span(span)) = cluster.ask(home, Command::SpanLease { pages, owner }) else {
            continue;
        };
        let apart = |one: &SpanRange| {
            one.first.0 + one.pages <= span.first.0 || span.first.0 + span.pages <= one.first.0
        };
        assert!(leased.iter().all(apart), "{span:?} was leased before: {leased:?}");
        leased.push(span);
    }
}
