//! Stores that wait because too much of what was stored before is not replicated.

use super::cluster::Cluster;
use dsm_core::limits::WRITE_BEHIND_PAGES;
use dsm_core::{Access, Event, NodeId, PageId, Want};

/// Pages that may wait to be replicated here: two records' worth of those that are committed though nobody waits.
const BOUND: usize = 2 * WRITE_BEHIND_PAGES;

/// Nodes with one replica, of which the first is bound so.
fn bounded(nodes: u16) -> Cluster {
    let mut cluster = Cluster::new(nodes, 1);
    cluster.machines[0] = cluster.machines[0].clone().with_unreplicated_max(BOUND);
    cluster
}

/// Pages to which node 0 may store now, of those that it has faulted on.
fn writable(cluster: &Cluster, pages: impl Iterator<Item = PageId>) -> usize {
    pages.filter(|page| cluster.machines[0].access(*page) == Access::Write).count()
}

/// Node 0 faults on more pages than may wait to be replicated, and hears of no ack meanwhile.
fn flood(cluster: &mut Cluster) -> impl Iterator<Item = PageId> + Clone + use<> {
    let per_segment = cluster.geometry.segment_pages();
    let (geometry, members) = (cluster.geometry, cluster.view.members());
    let own = move |page: &PageId| geometry.home_of(*page, members) == NodeId(0);
    let most = BOUND + WRITE_BEHIND_PAGES;
    let pages = (0..64 * per_segment).map(PageId).filter(own).take(most);
    for page in pages.clone() {
        cluster.step(NodeId(0), Event::Fault { page, want: Want::Write });
    }
    pages
}

#[test]
fn stores_wait_for_acks_while_too_much_is_not_replicated_and_loads_do_not() {
    let mut cluster = bounded(3);
    let read = cluster.page_at(2);
    cluster.store(2, read, 7);
    let pages = flood(&mut cluster);
    let held: Vec<PageId> =
        pages.clone().filter(|page| cluster.machines[0].access(*page) == Access::None).collect();
    assert!(!held.is_empty() && held.len() < WRITE_BEHIND_PAGES, "{} are held", held.len());
    // A load of the last page does not wait, nor does what others load.
    let last = *held.last().expect("some are held");
    cluster.step(NodeId(0), Event::Fault { page: last, want: Want::Read });
    assert_eq!(cluster.machines[0].access(last), Access::Read);
    cluster.step(NodeId(0), Event::Fault { page: read, want: Want::Read });
    // With the acks, all are let go.
    cluster.settle();
    assert_eq!(cluster.machines[0].access(read), Access::Read);
    assert_eq!(writable(&cluster, held.iter().copied()), held.len());
    assert!(cluster.machines[0].pages_are_quiet());
}

#[test]
fn stores_that_wait_are_begun_anew_when_the_view_changes() {
    let mut cluster = bounded(3);
    let pages = flood(&mut cluster);
    let held = pages.clone().filter(|page| cluster.machines[0].access(*page) == Access::None).count();
    assert!(held > 0);
    // Its buddy dies, and no ack will ever come from it.
    cluster.kill(&[1]);
    assert!(cluster.machines[0].pages_are_quiet());
    assert!(pages.clone().all(|page| cluster.machines[0].access(page) > Access::None));
}

#[test]
fn a_section_may_store_to_more_than_may_wait_outside() {
    let mut cluster = bounded(2);
    let lock = dsm_core::LockId(cluster.geometry.address_of(cluster.page_at(0)));
    cluster.lock(0, lock);
    let owner = dsm_core::SpanOwner::Domain(lock.0);
    let all = dsm_core::SpanRange { first: PageId(0), pages: 64 * cluster.geometry.segment_pages(), owner };
    cluster.call(0, dsm_core::Command::Cover { lock, spans: vec![all] });
    let pages = flood(&mut cluster);
    assert_eq!(writable(&cluster, pages.clone()), pages.count());
}
