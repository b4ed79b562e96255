//! What is lost, who is told, and what is not lost though its owner or its home died.

use super::cluster::Cluster;
use dsm_core::{Access, Command, Event, LockId, Lost, NodeId, PageId, Reply, SpanOwner, ViewId, Want};

const SECOND: ViewId = ViewId(2);

fn lock_of(cluster: &Cluster, page: PageId) -> LockId {
    LockId(cluster.geometry.address_of(page))
}

#[test]
fn whoever_wants_the_lock_of_a_lost_domain_is_told_so() {
    let mut cluster = Cluster::new(3, 0);
    let page = cluster.page_at(1);
    let lock = lock_of(&cluster, page);
    cluster.lock(0, lock);
    cluster.store(0, page, 7);
    let (waiting, replies) = cluster.lock(2, lock);
    assert_eq!(replies, []);
    cluster.kill(&[0]);
    let lost = Reply::Lost(Lost { page, last_owner: Some(NodeId(0)), view: SECOND });
    assert_eq!(cluster.replies(waiting), [lost]);
    assert_eq!(cluster.lock(1, lock).1, [lost]);
    // A thread that gives up waiting has its answer already.
    cluster.call(2, Command::LockWithdraw { lock, waiting });
    assert_eq!(cluster.replies(waiting), [lost]);
}

#[test]
fn the_holder_of_a_lock_whose_domain_is_lost_just_lets_go() {
    let mut cluster = Cluster::new(3, 0);
    let page = cluster.page_at(1);
    let lock = lock_of(&cluster, page);
    cluster.store(0, page, 7);
    let (acquired, replies) = cluster.lock(2, lock);
    assert_eq!(replies, [Reply::Locked { recovered: None }]);
    cluster.kill(&[0]);
    cluster.call(2, Command::Unlock { lock, acquired });
    let lost = Lost { page, last_owner: Some(NodeId(0)), view: SECOND };
    assert_eq!(cluster.lock(2, lock).1, [Reply::Lost(lost)]);
    assert!(cluster.machines.iter().skip(1).all(|machine| machine.is_quiet()));
}

#[test]
fn a_page_is_ensured_where_it_is_fetched_and_whatever_the_view_does_meanwhile() {
    let mut cluster = Cluster::new(4, 1);
    let page = cluster.page_at(3);
    cluster.store(2, page, 7);
    assert_eq!(cluster.ask(2, Command::Ensure { page }), Some(Reply::Ensured), "it is here");
    assert_eq!(cluster.ask(1, Command::Ensure { page }), Some(Reply::Ensured), "it is fetched");
    assert_eq!(cluster.machines[1].access(page), Access::Read);
    // Another is asked for, and the answer is lost with the view.
    let far = PageId(page.0 + 1);
    cluster.store(2, far, 8);
    let call = dsm_core::CallId(1000);
    cluster.step(NodeId(1), Event::Command { call, command: Command::Ensure { page: far } });
    assert_eq!(cluster.replies(call), []);
    cluster.kill(&[0]);
    assert_eq!(cluster.replies(call), [Reply::Ensured]);
    assert_eq!(cluster.load(1, far), Some(8));
}

#[test]
fn a_page_that_is_lost_while_it_is_waited_for_is_said_to_be() {
    let mut cluster = Cluster::new(3, 0);
    let page = cluster.page_at(1);
    cluster.store(0, page, 7);
    let call = dsm_core::CallId(1000);
    cluster.step(NodeId(2), Event::Command { call, command: Command::Ensure { page } });
    cluster.kill(&[0]);
    let lost = Reply::Lost(Lost { page, last_owner: Some(NodeId(0)), view: SECOND });
    assert_eq!(cluster.replies(call), [lost]);
    assert_eq!(cluster.ask(1, Command::Ensure { page }), Some(lost));
    assert!(cluster.machines[2].is_quiet());
}

#[test]
fn of_a_lost_page_every_node_is_told_once_and_whenever_it_is_touched() {
    let mut cluster = Cluster::new(5, 0);
    let page = cluster.page_at(1);
    cluster.store(0, page, 7);
    cluster.kill(&[0]);
    cluster.kill(&[4]);
    cluster.change(&[], &[4]);
    let lost = Lost { page, last_owner: Some(NodeId(0)), view: SECOND };
    for rank in 1..4 {
        assert_eq!(cluster.losses(rank, page), [lost], "{rank} is told once, with whom and when");
    }
    // Who joins later hears the same.
    assert_eq!(cluster.losses(4, page), [lost, lost], "it was told in each of its lives");
    assert_eq!(cluster.load(2, page), None);
    assert_eq!(cluster.losses(2, page), [lost, lost]);
}

#[test]
fn without_replicas_only_what_the_dead_owned_is_lost() {
    let mut cluster = Cluster::new(4, 0);
    let heap = cluster.lease(0, 3, SpanOwner::Node(NodeId(0)));
    let [own, given, unused] = [0, 1, 2].map(|page| PageId(heap.first.0 + page));
    assert_eq!(cluster.geometry.home_of(own, cluster.view.members()), NodeId(0));
    let untouched = cluster.page_at(1);
    let far = PageId(untouched.0 + 1);
    cluster.store(0, own, 1);
    cluster.store(0, given, 2);
    cluster.store(2, given, 3);
    cluster.store(0, far, 4);
    assert_eq!(cluster.load(3, far), Some(4));
    cluster.kill(&[0]);
    // Its home died as well: the one that is gone must have been its owner.
    let lost = |page, owner| Lost { page, last_owner: owner, view: SECOND };
    assert_eq!(cluster.losses(1, own).first().map(|lost| lost.last_owner), Some(Some(NodeId(0))));
    assert_eq!(cluster.ask(2, Command::Ensure { page: own }), Some(Reply::Lost(lost(own, Some(NodeId(0))))));
    // Of what was leased and homed at the dead, nobody can say that nobody stored to it.
    assert!(cluster.is_poisoned(1, unused));
    assert_eq!(cluster.load(1, given), Some(3), "it had gone to another");
    assert_eq!(cluster.load(2, far), Some(4), "a reader has it");
    assert_eq!(cluster.load(2, untouched), Some(0), "nobody ever wrote it");
}

#[test]
fn without_replicas_a_page_on_its_way_between_two_that_live_is_not_lost() {
    let mut cluster = Cluster::new(4, 0);
    let (page, other) = (cluster.page_at(1), PageId(cluster.page_at(1).0 + 1));
    for (page, gone, new) in [(page, &[3][..], &[][..]), (other, &[], &[3])] {
        cluster.store(0, page, 7);
        cluster.step(NodeId(2), Event::Fault { page, want: Want::Write });
        // The request and the forward arrive, the page does not.
        cluster.deliver(2);
        assert_eq!(cluster.machines[0].access(page), Access::None, "it has been sent");
        cluster.change(gone, new);
        assert_eq!(cluster.machines[2].access(page), Access::Write, "the fault was begun anew");
        assert_eq!(cluster.load(2, page), Some(7));
        assert!(!cluster.is_poisoned(2, page));
    }
}

#[test]
fn without_replicas_locks_of_the_dead_are_free_and_barriers_go_on() {
    let mut cluster = Cluster::new(3, 0);
    let page = cluster.page_at(1);
    let lock = lock_of(&cluster, page);
    cluster.lock(0, lock);
    let (waiting, _) = cluster.lock(2, lock);
    let barrier = cluster.call(1, Command::Barrier);
    cluster.kill(&[0]);
    assert_eq!(cluster.replies(waiting), [Reply::Locked { recovered: Some(NodeId(0)) }]);
    assert_eq!(cluster.replies(barrier), []);
    assert_eq!(cluster.ask(2, Command::Barrier), Some(Reply::BarrierPassed { view: SECOND }));
    assert_eq!(cluster.replies(barrier), [Reply::BarrierPassed { view: SECOND }]);
}
