//! How things are named to people, and the small arithmetic of instants and of the region.

use dsm_core::limits::REGION_BASE_DEFAULT;
use dsm_core::{
    Address, Cause, Copyset, Geometry, Incarnation, LockId, NodeId, PageId, SegmentId, Time, TransactionId,
    ViewId,
};
use std::time::Duration;

#[test]
fn things_are_named_as_users_know_them() {
    let address = Address(0x2000_0000_0040);
    let named = [
        (NodeId(3).to_string(), "rank 3"),
        (Incarnation(0xab).to_string(), "00000000000000ab"),
        (ViewId::FIRST.to_string(), "view 1"),
        (PageId(0x1f).to_string(), "page 0x1f"),
        (address.to_string(), "0x200000000040"),
        (LockId(address).to_string(), "lock 0x200000000040"),
        (TransactionId { node: NodeId(2), number: 7 }.to_string(), "transaction 2.7"),
        (format!("{:?}", Copyset::first(3)), "{0, 1, 2}"),
        (Cause::NotHome.to_string(), "a message for another home"),
    ];
    for (found, expected) in named {
        assert_eq!(found, expected);
    }
    assert_eq!((NodeId(3).rank(), NodeId(3).index()), (3, 3));
}

#[test]
fn time_neither_goes_back_nor_overflows() {
    let later = Time::from_nanos(1500);
    assert_eq!(later.since(Time::from_nanos(500)), Duration::from_micros(1));
    assert_eq!(Time::ZERO.since(later), Duration::ZERO);
    assert_eq!((Time::ZERO + Duration::from_nanos(9)).as_nanos(), 9);
    assert_eq!((later + Duration::MAX).as_nanos(), u64::MAX);
}

#[test]
fn the_region_is_measured_in_pages() {
    let geometry = Geometry::new(REGION_BASE_DEFAULT, 1 << 20, 4096).expect("it fits");
    assert_eq!((geometry.base(), geometry.size()), (Address(REGION_BASE_DEFAULT), 1 << 20));
    assert_eq!((geometry.page_size(), geometry.pages()), (4096, 256));
    assert_eq!((geometry.pages_for(1), geometry.pages_for(4096), geometry.pages_for(4097)), (1, 1, 2));
    assert_eq!(geometry.offset_of(PageId(3)), 3 * 4096);
    let last = SegmentId(geometry.segments() - 1);
    assert_eq!(geometry.pages_of(last).end, geometry.pages());
}
