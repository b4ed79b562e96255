//! Sections that are open while the view changes: what was stored before them survives, and nothing of them is seen.

use super::cluster::{Cluster, Said};
use dsm_core::limits::WRITE_BEHIND_PAGES;
use dsm_core::{CallId, Command, Commit, LockId, Message, PageId, Reply, SpanOwner};

/// Takes the lock of the domain that begins with `page`, whose home is `rank`: the section is open at once.
fn open(cluster: &mut Cluster, rank: u16, page: PageId) -> (LockId, CallId) {
    let lock = LockId(cluster.geometry.address_of(page));
    let call = cluster.call_at_once(rank, Command::Lock { lock, wait: true });
    assert_eq!(cluster.replies(call), [Reply::Locked { recovered: None }]);
    (lock, call)
}

/// A whole section of `rank`, which stores `word`.
fn section(cluster: &mut Cluster, rank: u16, page: PageId, word: u64) {
    let (lock, acquired) = open(cluster, rank, page);
    cluster.store(rank, page, word);
    cluster.call(rank, Command::Unlock { lock, acquired });
}

/// Of two pages that rank 0 stored to, a record is on its way when a section begins that has the first, and an answer
/// waits for it.
fn before_a_section(cluster: &mut Cluster) -> (PageId, CallId) {
    let page = cluster.page_at(0);
    cluster.store(0, page, 7);
    cluster.store(0, PageId(page.0 + 1), 8);
    let sync = cluster.call_at_once(0, Command::Sync);
    open(cluster, 0, page);
    (page, sync)
}

#[test]
fn what_was_stored_before_a_section_is_replicated_though_the_view_changes_in_it() {
    for stores in [false, true] {
        let mut cluster = Cluster::new(4, 1);
        let (page, sync) = before_a_section(&mut cluster);
        if stores {
            cluster.store_at_once(0, page, 100);
        }
        cluster.kill(&[3]);
        assert_eq!(cluster.replies(sync), [Reply::Synced]);
        assert!(cluster.machines[0].is_fully_replicated());
        // A store after the change does not make it less.
        cluster.store(0, page, 101);
        cluster.kill(&[0]);
        assert_eq!((cluster.load(1, page), cluster.load(1, PageId(page.0 + 1))), (Some(7), Some(8)));
    }
}

#[test]
fn what_waited_for_a_record_waits_after_a_change_of_the_view_for_all_that_it_had() {
    for stores in [false, true] {
        let mut cluster = Cluster::new(4, 1);
        let (page, sync) = before_a_section(&mut cluster);
        if stores {
            cluster.store_at_once(0, page, 100);
        }
        let withheld = |said: &Said| matches!(said.2, Message::Commit(Commit::Page { page: other, .. }) if other == page);
        cluster.kill_but(&[3], withheld);
        assert_eq!(cluster.replies(sync), [], "nobody has the first page");
        // Of one record, nobody has a part: what the second was stored after is not missing.
        cluster.kill(&[0]);
        assert_eq!(cluster.load(1, PageId(page.0 + 1)), Some(0));
        assert_eq!(cluster.load(1, page), Some(0));
    }
}

#[test]
fn nobody_keeps_what_a_section_has_stored_that_was_open_when_the_first_buddy_came() {
    for other in [false, true] {
        let mut cluster = Cluster::new(1, 1);
        let page = cluster.lease(0, 2, SpanOwner::NewDomain).first;
        section(&mut cluster, 0, page, 1);
        let (lock, acquired) = open(&mut cluster, 0, page);
        if other {
            // The page is mapped since the last section: no store to it is noticed any more.
            cluster.store(0, PageId(page.0 + 1), 5);
        }
        cluster.store(0, page, 2);
        cluster.change(&[], &[1]);
        cluster.store(0, page, 3);
        assert!(!cluster.machines[0].is_fully_replicated(), "the state before is in no frame");
        if other {
            cluster.call(0, Command::Unlock { lock, acquired });
            assert!(cluster.machines[0].is_fully_replicated());
            cluster.kill(&[0]);
            assert_eq!((cluster.load(1, page), cluster.load(1, PageId(page.0 + 1))), (Some(3), Some(5)));
        } else {
            cluster.kill(&[0]);
            assert_eq!(cluster.load(1, page), None);
            assert!(cluster.is_poisoned(1, page), "it is lost, and said to be");
        }
    }
}

#[test]
fn a_section_after_the_first_buddy_came_is_noticed_though_its_pages_were_mapped_before() {
    let mut cluster = Cluster::new(1, 1);
    let span = cluster.lease(0, 2 * WRITE_BEHIND_PAGES as u64 + 1, SpanOwner::NewDomain);
    let page = PageId(span.first.0 + span.pages - 1);
    for page in span.first.0..=page.0 {
        cluster.store(0, PageId(page), 1);
    }
    let acks = |said: &Said| matches!(said.2, Message::Commit(Commit::Ack { .. }));
    cluster.change_but(&[], &[1], acks);
    // Its turn to be replicated has not come when a section begins.
    open(&mut cluster, 0, page);
    cluster.store_at_once(0, page, 2);
    cluster.settle();
    assert!(cluster.machines[0].is_fully_replicated());
    cluster.kill(&[0]);
    assert_eq!(cluster.load(1, page), Some(1));
}

#[test]
fn a_state_that_was_set_aside_when_the_last_buddy_died_is_none_of_later_sections() {
    let mut cluster = Cluster::new(2, 1);
    let page = cluster.page_at(0);
    section(&mut cluster, 0, page, 1);
    let (lock, acquired) = open(&mut cluster, 0, page);
    cluster.store(0, page, 2);
    assert_eq!(cluster.twins(0), 1);
    cluster.kill(&[1]);
    assert_eq!(cluster.twins(0), 1, "the section goes on");
    cluster.call(0, Command::Unlock { lock, acquired });
    assert_eq!(cluster.twins(0), 0);
    section(&mut cluster, 0, page, 3);
    let (lock, acquired) = open(&mut cluster, 0, page);
    cluster.store(0, page, 4);
    cluster.change(&[], &[1]);
    assert!(!cluster.machines[0].is_fully_replicated());
    cluster.call(0, Command::Unlock { lock, acquired });
    assert!(cluster.machines[0].is_fully_replicated());
    cluster.kill(&[0]);
    assert_eq!(cluster.load(1, page), Some(4));
}

#[test]
fn a_section_that_outlives_its_buddy_is_undone_to_where_it_began() {
    let mut cluster = Cluster::new(2, 1);
    let page = cluster.page_at(0);
    section(&mut cluster, 0, page, 1);
    open(&mut cluster, 0, page);
    cluster.store(0, page, 2);
    cluster.kill(&[1]);
    // The state before it is still set aside when somebody comes: it is replicated from there.
    cluster.change(&[], &[1]);
    assert!(cluster.machines[0].is_fully_replicated());
    cluster.kill(&[0]);
    assert_eq!(cluster.load(1, page), Some(1));
}

#[test]
fn of_a_domain_that_is_lost_in_a_section_nothing_stays_set_aside() {
    let mut cluster = Cluster::new(4, 1);
    let page = cluster.lease(2, 2, SpanOwner::NewDomain).first;
    cluster.store(0, PageId(page.0 + 1), 5);
    cluster.call(0, Command::Sync);
    section(&mut cluster, 2, page, 1);
    let (lock, acquired) = open(&mut cluster, 2, page);
    cluster.store(2, page, 2);
    assert_eq!(cluster.twins(2), 1);
    cluster.kill(&[0, 1]);
    assert!(cluster.is_poisoned(2, page) && cluster.is_poisoned(2, PageId(page.0 + 1)));
    assert_eq!(cluster.twins(2), 0);
    cluster.call(2, Command::Unlock { lock, acquired });
}
