//! How messages look on a connection: a fixed header, a control message, and the bytes of a page where one travels.
//!
//! ```text
//!  0      4        6     7          8          12       16        24            32      40        44          48
//!  | magic | version | kind | reserved | control | body   | sequence | acknowledged | view  | body    | header    |
//!  |       |         |      | (zero)   | length  | length |          |              |       | crc     | crc       |
//!  +-- little endian; the header's crc covers the header with that field zero, and the control message ------------+
//!  | control message (postcard) | page |
//! ```
//! Pure: bytes in, values out, and nothing that a peer sends makes it panic, or allocate more than a control message
//! is long. Sequence numbers, resending and where a page's bytes go are the business of the transport. A body's
//! checksum is computed and compared by whoever holds the bytes.

use crate::ids::{PageId, ViewId};
use crate::limits::{CONTROL_LENGTH_MAX, PAGE_SIZE_MAX};
use crate::message::{Message, Payload};

/// The header's length in bytes.
pub const HEADER_LENGTH: usize = 48;

/// The longest thing that precedes a body.
pub const HEAD_LENGTH_MAX: usize = HEADER_LENGTH + CONTROL_LENGTH_MAX;

/// The version of this encoding and of the messages. Nodes of different versions do not talk.
pub const VERSION: u16 = 1;

/// The first bytes of every frame: "DSMf".
const MAGIC: u32 = u32::from_le_bytes(*b"DSMf");

/// Where the header's own checksum lies; it is the last field.
const HEADER_CRC_AT: usize = HEADER_LENGTH - 4;

const _: () = assert!(PAGE_SIZE_MAX <= u32::MAX as u64, "a body's length is 32 bits on the wire");
const _: () = assert!(CONTROL_LENGTH_MAX <= u32::MAX as usize);

/// Why bytes are not a frame, or a message cannot become one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// It does not begin as frames do.
    #[error("it begins with {0:#010x}, which is no frame of this protocol")]
    Magic(u32),
    /// It is of another version.
    #[error("it has version {0}, and this node speaks {VERSION}")]
    Version(u16),
    /// No such kind of frame.
    #[error("{0} is no kind of frame")]
    Kind(u8),
    /// A reserved byte is not zero.
    #[error("its reserved byte is {0}, not zero")]
    Reserved(u8),
    /// Its control message is longer than any.
    #[error("its control message has {0} bytes, and none has more than {CONTROL_LENGTH_MAX}")]
    ControlLength(u32),
    /// Its body is no page.
    #[error("its body has {length} bytes, and a page has {page_size}")]
    BodyLength {
        /// The length that it claims.
        length: u32,
        /// The length that a body has.
        page_size: u64,
    },
    /// Header or control message were damaged.
    #[error("the checksum of its header does not match: {stated:#010x} stated, {computed:#010x} computed")]
    HeaderCrc {
        /// What the header says.
        stated: u32,
        /// What it should say.
        computed: u32,
    },
    /// The control message is not one.
    #[error("its control message cannot be read")]
    Malformed,
    /// More follows the control message than belongs to it.
    #[error("{0} bytes follow its control message")]
    Trailing(usize),
    /// A body without a message that has one, or the other way round.
    #[error("its message and its body of {length} bytes do not belong together")]
    BodyMisplaced {
        /// The length of the body.
        length: u32,
    },
    /// A pure acknowledgement claims to be more.
    #[error("it is an acknowledgement and has a sequence number, a message or a body")]
    Acknowledgement,
    /// A message of ours is longer than the limit.
    #[error("the message has more than {CONTROL_LENGTH_MAX} bytes")]
    MessageTooLong,
}

/// What a frame is for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Kind {
    /// It carries a message, and has a sequence number.
    Data,
    /// It carries nothing but the number of the last frame received. It has no sequence number of its own.
    Acknowledgement,
}

impl Kind {
    const DATA: u8 = 1;
    const ACKNOWLEDGEMENT: u8 = 2;

    const fn byte(self) -> u8 {
        match self {
            Kind::Data => Self::DATA,
            Kind::Acknowledgement => Self::ACKNOWLEDGEMENT,
        }
    }

    const fn from_byte(byte: u8) -> Result<Kind, WireError> {
        match byte {
            Self::DATA => Ok(Kind::Data),
            Self::ACKNOWLEDGEMENT => Ok(Kind::Acknowledgement),
            other => Err(WireError::Kind(other)),
        }
    }
}

/// The header of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Header {
    /// What the frame is for.
    pub kind: Kind,
    /// The length of the control message, in bytes.
    pub control_length: u32,
    /// The length of the body, in bytes: a page, or nothing.
    pub body_length: u32,
    /// The frame's number on this link, from 1 on; 0 where it has none.
    pub sequence: u64,
    /// The number of the last frame that the sender received on this link.
    pub acknowledged: u64,
    /// The membership in which it was sent.
    pub view: ViewId,
    /// CRC32 of the body; 0 without one.
    pub body_crc: u32,
}

/// What stands at the beginning of received bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Head {
    /// Too little to tell. What there is, is in order so far.
    Partial,
    /// A header and, in a data frame, its message.
    Whole {
        /// The header, with all its lengths checked.
        header: Header,
        /// The message of a data frame.
        message: Option<Message>,
        /// How many bytes both took. The body begins behind them.
        length: usize,
    },
}

impl Header {
    /// The header's bytes, in front of `control`.
    #[must_use]
    pub fn encode(&self, control: &[u8]) -> [u8; HEADER_LENGTH] {
        let mut bytes = self.unsigned();
        let crc = crc_of(&bytes, control);
        bytes[HEADER_CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// The header in `bytes`, and the checksum that it states. Its lengths are within the limits of the protocol.
    fn decode(bytes: &[u8; HEADER_LENGTH]) -> Result<(Header, u32), WireError> {
        let magic = u32_at(bytes, 0);
        if magic != MAGIC {
            return Err(WireError::Magic(magic));
        }
        let version = u16::from_le_bytes([bytes[4], bytes[5]]);
        if version != VERSION {
            return Err(WireError::Version(version));
        }
        let kind = Kind::from_byte(bytes[6])?;
        if bytes[7] != 0 {
            return Err(WireError::Reserved(bytes[7]));
        }
        let control_length = u32_at(bytes, 8);
        if control_length as usize > CONTROL_LENGTH_MAX {
            return Err(WireError::ControlLength(control_length));
        }
        let header = Header {
            kind,
            control_length,
            body_length: u32_at(bytes, 12),
            sequence: u64_at(bytes, 16),
            acknowledged: u64_at(bytes, 24),
            view: ViewId(u64_at(bytes, 32)),
            body_crc: u32_at(bytes, 40),
        };
        Ok((header, u32_at(bytes, HEADER_CRC_AT)))
    }

    /// The header's bytes, with zero for its checksum.
    fn unsigned(&self) -> [u8; HEADER_LENGTH] {
        let mut bytes = [0; HEADER_LENGTH];
        bytes[0..4].copy_from_slice(&MAGIC.to_le_bytes());
        bytes[4..6].copy_from_slice(&VERSION.to_le_bytes());
        bytes[6] = self.kind.byte();
        bytes[8..12].copy_from_slice(&self.control_length.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.body_length.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.acknowledged.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.view.0.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.body_crc.to_le_bytes());
        bytes
    }

    fn check(&self, page_size: u64) -> Result<(), WireError> {
        let length = self.body_length;
        if length != 0 && u64::from(length) != page_size {
            return Err(WireError::BodyLength { length, page_size });
        }
        match self.kind {
            Kind::Data => Ok(()),
            Kind::Acknowledgement => {
                let bare =
                    self.control_length == 0 && length == 0 && self.sequence == 0 && self.body_crc == 0;
                if bare { Ok(()) } else { Err(WireError::Acknowledgement) }
            }
        }
    }
}

/// Reads the header and the control message at the beginning of `input`, on a link whose bodies have `page_size`
/// bytes. Nothing is allocated before the lengths and the checksum are found to be right.
///
/// # Errors
/// A [`WireError`] as soon as what there is cannot become a frame.
pub fn decode_head(input: &[u8], page_size: u64) -> Result<Head, WireError> {
    let Some(bytes) = input.first_chunk::<HEADER_LENGTH>() else {
        return Ok(Head::Partial);
    };
    let (header, stated) = Header::decode(bytes)?;
    header.check(page_size)?;
    let length = HEADER_LENGTH + header.control_length as usize;
    let Some(control) = input.get(HEADER_LENGTH..length) else {
        return Ok(Head::Partial);
    };
    let computed = crc_of(&header.unsigned(), control);
    if stated != computed {
        return Err(WireError::HeaderCrc { stated, computed });
    }
    let message = match header.kind {
        Kind::Acknowledgement => None,
        Kind::Data => Some(decode_message(control)?),
    };
    let has_body = header.body_length != 0;
    if message.as_ref().and_then(page_behind).is_some() != has_body {
        return Err(WireError::BodyMisplaced { length: header.body_length });
    }
    Ok(Head::Whole { header, message, length })
}

/// Appends the encoding of `message` to `bytes`; how many bytes it takes.
///
/// # Errors
/// [`WireError::MessageTooLong`]; `bytes` is then as it was.
pub fn encode_message(message: &Message, bytes: &mut Vec<u8>) -> Result<usize, WireError> {
    let start = bytes.len();
    bytes.resize(start + CONTROL_LENGTH_MAX, 0);
    // A message always serialises: the only thing that can be short is the room.
    let written = postcard::to_slice(message, &mut bytes[start..]).map(|used| used.len());
    bytes.truncate(start + written.as_ref().copied().unwrap_or(0));
    written.map_err(|_| WireError::MessageTooLong)
}

/// The message that `control` is, to its last byte.
///
/// # Errors
/// [`WireError::Malformed`] or [`WireError::Trailing`], and [`WireError::MessageTooLong`] for more than a message.
pub fn decode_message(control: &[u8]) -> Result<Message, WireError> {
    if control.len() > CONTROL_LENGTH_MAX {
        return Err(WireError::MessageTooLong);
    }
    match postcard::take_from_bytes::<Message>(control) {
        Ok((message, [])) => Ok(message),
        Ok((_, rest)) => Err(WireError::Trailing(rest.len())),
        Err(_) => Err(WireError::Malformed),
    }
}

/// The page whose bytes follow `message` on the wire, if any do.
#[must_use]
pub fn page_behind(message: &Message) -> Option<PageId> {
    if let Message::Grant { page, payload: Payload::Bytes, .. } = message { Some(*page) } else { None }
}

/// CRC32 of a header, whose own field is zero, and its control message.
fn crc_of(unsigned: &[u8; HEADER_LENGTH], control: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(unsigned);
    hasher.update(control);
    hasher.finalize()
}

fn u32_at(bytes: &[u8; HEADER_LENGTH], at: usize) -> u32 {
    let mut field = [0; 4];
    field.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(field)
}

fn u64_at(bytes: &[u8; HEADER_LENGTH], at: usize) -> u64 {
    let mut field = [0; 8];
    field.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(field)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::{Access, Want};
    use crate::copyset::Copyset;
    use crate::ids::{Address, CallId, LockId, NodeId, Ticket, TransactionId};
    use crate::limits::NAME_LENGTH_MAX;
    use crate::message::{RootAnswer, SpanOwner, SpanRange};
    use proptest::prelude::*;

    const PAGE: u64 = 4096;

    fn transaction() -> impl Strategy<Value = TransactionId> {
        (any::<u16>(), any::<u64>()).prop_map(|(node, number)| TransactionId { node: NodeId(node), number })
    }

    fn ticket() -> impl Strategy<Value = Ticket> {
        (any::<u16>(), any::<u64>())
            .prop_map(|(node, call)| Ticket { node: NodeId(node), call: CallId(call) })
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
            (page(), transaction(), want(), nodes()).prop_map(|(page, transaction, want, awaiting)| {
                Message::Forward { page, transaction, want, awaiting }
            }),
            (page(), transaction()).prop_map(|(page, transaction)| Message::Invalidate { page, transaction }),
            (page(), transaction()).prop_map(|(page, transaction)| Message::Ack { page, transaction }),
            (page(), transaction(), access, payload(), nodes()).prop_map(
                |(page, transaction, access, payload, awaiting)| Message::Grant {
                    page,
                    transaction,
                    access,
                    payload,
                    awaiting
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
            (lock(), ticket()).prop_map(|(lock, ticket)| Message::LockGrant { lock, ticket }),
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
            (any::<u64>(), owner(), ticket()).prop_map(|(pages, owner, ticket)| Message::SpanLease {
                pages,
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
        assert_eq!(
            decode_head(&sample(), 65536),
            Err(WireError::BodyLength { length: 4096, page_size: 65536 })
        );
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
}
