//! The encoding, from both sides: what goes out comes back, and nothing else is accepted.

use super::*;
use crate::access::{Access, Want};
use crate::copyset::Copyset;
use crate::ids::{Address, CallId, LockId, NodeId, Ticket, TransactionId};
use crate::limits::NAME_LENGTH_MAX;
use crate::message::{RootAnswer, SpanOwner, SpanRange, Zone};
use proptest::prelude::*;

const PAGE: u64 = 4096;

fn transaction() -> impl Strategy<Value = TransactionId> {
    (any::<u16>(), any::<u64>()).prop_map(|(node, number)| TransactionId { node: NodeId(node), number })
}

fn ticket() -> impl Strategy<Value = Ticket> {
    (any::<u16>(), any::<u64>()).prop_map(|(node, call)| Ticket { node: NodeId(node), call: CallId(call) })
}

fn page() -> impl Strategy<Value = PageId> {
    any::<u64>().prop_map(PageId)
}

fn lock() -> impl Strategy<Value = LockId> {
    any::<u64>().prop_map(|address| LockId(Address(address)))
}

fn want() -> impl Strategy<Value = Want> {
    prop_oneof![Just(Want::Read), Just(Want::Write)]
}

fn payload() -> impl Strategy<Value = Payload> {
    prop_oneof![Just(Payload::Bytes), Just(Payload::Zero), Just(Payload::Held)]
}

fn nodes() -> impl Strategy<Value = Copyset> {
    proptest::collection::vec(0..64_u16, 0..8)
        .prop_map(|ranks| ranks.into_iter().fold(Copyset::EMPTY, |set, rank| set.with(NodeId(rank))))
}

fn owner() -> impl Strategy<Value = SpanOwner> {
    prop_oneof![
        any::<u16>().prop_map(|rank| SpanOwner::Node(NodeId(rank))),
        any::<u64>().prop_map(|address| SpanOwner::Domain(Address(address))),
        Just(SpanOwner::NewDomain),
    ]
}

fn span() -> impl Strategy<Value = SpanRange> {
    (page(), any::<u64>(), owner()).prop_map(|(first, pages, owner)| SpanRange { first, pages, owner })
}

fn name() -> impl Strategy<Value = String> {
    proptest::string::string_regex("[a-zé/]{0,64}").expect("the expression is one")
}

fn answer() -> impl Strategy<Value = RootAnswer> {
    prop_oneof![
        Just(RootAnswer::Create),
        Just(RootAnswer::TooMany),
        any::<u64>().prop_map(|address| RootAnswer::Found(Address(address))),
        any::<u64>().prop_map(RootAnswer::OtherLayout),
    ]
}

/// Messages about pages.
fn page_message() -> impl Strategy<Value = Message> {
    let access = prop_oneof![Just(Access::None), Just(Access::Read), Just(Access::Write)];
    prop_oneof![
        (page(), transaction(), want()).prop_map(|(page, transaction, want)| Message::Request {
            page,
            transaction,
            want
        }),
        (page(), transaction(), want(), nodes(), any::<bool>()).prop_map(
            |(page, transaction, want, awaiting, contended)| {
                Message::Forward { page, transaction, want, awaiting, contended }
            }
        ),
        (page(), transaction()).prop_map(|(page, transaction)| Message::Hurry { page, transaction }),
        (page(), transaction()).prop_map(|(page, transaction)| Message::Invalidate { page, transaction }),
        (page(), transaction()).prop_map(|(page, transaction)| Message::Ack {
            page,
            transaction,
            custody: None
        }),
        (page(), transaction(), access, payload(), nodes(), any::<bool>()).prop_map(
            |(page, transaction, access, payload, awaiting, contended)| Message::Grant {
                page,
                transaction,
                access,
                payload,
                awaiting,
                contended,
                custody: None,
            }
        ),
        (page(), transaction()).prop_map(|(page, transaction)| Message::Confirm { page, transaction }),
        (page(), transaction(), any::<u16>()).prop_map(|(page, transaction, node)| Message::Lost {
            page,
            transaction,
            node: NodeId(node)
        }),
    ]
}

/// Messages of the services.
fn service_message() -> impl Strategy<Value = Message> {
    prop_oneof![
        (lock(), ticket(), any::<bool>()).prop_map(|(lock, ticket, wait)| Message::LockRequest {
            lock,
            ticket,
            wait
        }),
        (lock(), ticket()).prop_map(|(lock, ticket)| Message::LockGrant { lock, ticket, recovered: None }),
        (lock(), ticket(), any::<u16>()).prop_map(|(lock, ticket, rank)| Message::LockDenied {
            lock,
            ticket,
            holder: NodeId(rank)
        }),
        (lock(), ticket()).prop_map(|(lock, ticket)| Message::LockWithdraw { lock, ticket }),
        (lock(), ticket()).prop_map(|(lock, ticket)| Message::LockRelease { lock, ticket }),
        any::<u64>().prop_map(|generation| Message::BarrierArrive { generation }),
        (any::<u64>(), any::<u64>())
            .prop_map(|(generation, view)| Message::BarrierComplete { generation, view: ViewId(view) }),
        Just(Message::LeaveArrive),
        Just(Message::LeaveComplete),
    ]
}

/// Messages about names and memory.
fn memory_message() -> impl Strategy<Value = Message> {
    let zone = prop_oneof![Just(Zone::Small), Just(Zone::Large)];
    prop_oneof![
        (name(), any::<u64>(), ticket()).prop_map(|(name, layout, ticket)| Message::RootClaim {
            name,
            layout,
            ticket
        }),
        (ticket(), answer()).prop_map(|(ticket, answer)| Message::RootAnswered { ticket, answer }),
        (name(), any::<u64>())
            .prop_map(|(name, address)| Message::RootPublish { name, address: Address(address) }),
        name().prop_map(|name| Message::RootAbandon { name }),
        (any::<u64>(), zone, owner(), ticket()).prop_map(|(pages, zone, owner, ticket)| Message::SpanLease {
            pages,
            zone,
            owner,
            ticket
        }),
        (ticket(), span()).prop_map(|(ticket, span)| Message::SpanLeased { ticket, span }),
        (ticket(), any::<u64>(), any::<u64>()).prop_map(|(ticket, free, largest)| Message::SpanDenied {
            ticket,
            free,
            largest
        }),
        page().prop_map(|first| Message::SpanReturn { first }),
        (page(), ticket()).prop_map(|(page, ticket)| Message::SpanFind { page, ticket }),
        (ticket(), proptest::option::of(span()))
            .prop_map(|(ticket, span)| Message::SpanFound { ticket, span }),
        any::<u64>().prop_map(|address| Message::Free { address: Address(address) }),
    ]
}

fn any_message() -> impl Strategy<Value = Message> {
    prop_oneof![page_message(), service_message(), memory_message()]
}

fn frame(message: &Message, sequence: u64, acknowledged: u64) -> Vec<u8> {
    let mut control = Vec::new();
    let control_length = encode_message(message, &mut control).expect("it fits");
    let body = page_behind(message).is_some();
    let header = Header {
        kind: Kind::Data,
        control_length: u32::try_from(control_length).expect("it is short"),
        body_length: if body { 4096 } else { 0 },
        sequence,
        acknowledged,
        view: ViewId::FIRST,
        body_crc: if body { 7 } else { 0 },
    };
    let mut bytes = header.encode(&control).to_vec();
    bytes.extend_from_slice(&control);
    bytes
}

fn sample() -> Vec<u8> {
    let transaction = TransactionId { node: NodeId(3), number: 77 };
    let message = Message::Grant {
        page: PageId(300),
        transaction,
        access: Access::Write,
        payload: Payload::Bytes,
        awaiting: Copyset::first(3),
        contended: true,
        custody: None,
    };
    frame(&message, 9, 8)
}

proptest! {
    #[test]
    fn every_message_comes_back(message in any_message(), sequence: u64, acknowledged: u64) {
        let bytes = frame(&message, sequence, acknowledged);
        let Head::Whole { header, message: found, length } = decode_head(&bytes, PAGE).expect("it is a frame")
        else { panic!("the frame is whole") };
        prop_assert_eq!(found.as_ref(), Some(&message));
        prop_assert_eq!(length, bytes.len());
        prop_assert_eq!((header.sequence, header.acknowledged), (sequence, acknowledged));
    }

    #[test]
    fn a_flipped_bit_is_never_a_frame(message in any_message(), at: prop::sample::Index, bit in 0..8_u8) {
        let mut bytes = frame(&message, 1, 0);
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        // A longer control length merely asks for more bytes, and then fails on its checksum.
        bytes.resize(HEAD_LENGTH_MAX, 0);
        prop_assert!(decode_head(&bytes, PAGE).is_err());
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2 * HEAD_LENGTH_MAX)) {
        let _ = decode_head(&bytes, PAGE);
        let _ = decode_message(&bytes);
    }

    #[test]
    fn arbitrary_control_behind_a_good_header_never_panics(
        control in proptest::collection::vec(any::<u8>(), 0..=CONTROL_LENGTH_MAX), body in any::<bool>()
    ) {
        let header = Header {
            kind: Kind::Data,
            control_length: u32::try_from(control.len()).expect("it is short"),
            body_length: if body { 4096 } else { 0 },
            sequence: 1,
            acknowledged: 0,
            view: ViewId::FIRST,
            body_crc: 0,
        };
        let mut bytes = header.encode(&control).to_vec();
        bytes.extend_from_slice(&control);
        if let Ok(Head::Whole { message: Some(message), .. }) = decode_head(&bytes, PAGE) {
            prop_assert_eq!(page_behind(&message).is_some(), body);
        }
    }
}

#[test]
fn a_truncated_frame_is_partial_at_each_byte() {
    let bytes = sample();
    for length in 0..bytes.len() {
        assert_eq!(decode_head(&bytes[..length], PAGE), Ok(Head::Partial), "at {length}");
    }
    assert!(matches!(decode_head(&bytes, PAGE), Ok(Head::Whole { .. })));
}

#[test]
fn lengths_are_checked_before_anything_else_arrives() {
    let mut bytes = sample();
    bytes[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
    let length = u32::MAX;
    assert_eq!(decode_head(&bytes[..HEADER_LENGTH], PAGE), Err(WireError::ControlLength(length)));
    let mut bytes = sample();
    bytes[12..16].copy_from_slice(&length.to_le_bytes());
    assert_eq!(
        decode_head(&bytes[..HEADER_LENGTH], PAGE),
        Err(WireError::BodyLength { length, page_size: PAGE })
    );
}

#[test]
fn a_body_of_another_page_size_is_refused() {
    assert_eq!(decode_head(&sample(), 65536), Err(WireError::BodyLength { length: 4096, page_size: 65536 }));
}

#[test]
fn trailing_bytes_in_the_control_message_are_refused() {
    let mut control = Vec::new();
    encode_message(&Message::LeaveArrive, &mut control).expect("it fits");
    control.push(0);
    assert_eq!(decode_message(&control), Err(WireError::Trailing(1)));
}

#[test]
fn the_longest_name_fits_and_a_longer_message_is_refused() {
    let claim = |length: usize| Message::RootClaim {
        name: "n".repeat(length),
        layout: u64::MAX,
        ticket: Ticket { node: NodeId(u16::MAX), call: CallId(u64::MAX) },
    };
    let mut bytes = vec![1, 2];
    assert!(encode_message(&claim(NAME_LENGTH_MAX), &mut bytes).is_ok());
    let mut bytes = vec![1, 2];
    assert_eq!(encode_message(&claim(CONTROL_LENGTH_MAX), &mut bytes), Err(WireError::MessageTooLong));
    assert_eq!(bytes, [1, 2]);
}

#[test]
fn an_acknowledgement_is_bare() {
    let bare = Header {
        kind: Kind::Acknowledgement,
        control_length: 0,
        body_length: 0,
        sequence: 0,
        acknowledged: 5,
        view: ViewId::FIRST,
        body_crc: 0,
    };
    assert_eq!(
        decode_head(&bare.encode(&[]), PAGE),
        Ok(Head::Whole { header: bare, message: None, length: HEADER_LENGTH })
    );
    let loaded = Header { sequence: 1, ..bare };
    assert_eq!(decode_head(&loaded.encode(&[]), PAGE), Err(WireError::Acknowledgement));
}
