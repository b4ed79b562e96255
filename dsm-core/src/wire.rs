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
use crate::membership::{ConfigStore, OmniStore, Packet};
use crate::message::{Commit, Message, Payload};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The header's length in bytes.
pub const HEADER_LENGTH: usize = 48;

/// The longest thing that precedes a body.
pub const HEAD_LENGTH_MAX: usize = HEADER_LENGTH + CONTROL_LENGTH_MAX;

/// The version of this encoding and of the messages. Nodes of different versions do not talk.
pub const VERSION: u16 = 3;

/// What processes say to each other about membership, as it travels between nodes.
pub type MembershipPacket = Packet<<OmniStore as ConfigStore>::Message>;

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
    /// A frame about membership claims to be more.
    #[error("it is about membership and has a sequence number or a body")]
    Membership,
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
    /// It carries a [`MembershipPacket`], which is of no view and may be lost: it has no sequence number and is not sent
    /// again.
    Membership,
}

impl Kind {
    const DATA: u8 = 1;
    const ACKNOWLEDGEMENT: u8 = 2;
    const MEMBERSHIP: u8 = 3;

    const fn byte(self) -> u8 {
        match self {
            Kind::Data => Self::DATA,
            Kind::Acknowledgement => Self::ACKNOWLEDGEMENT,
            Kind::Membership => Self::MEMBERSHIP,
        }
    }

    const fn from_byte(byte: u8) -> Result<Kind, WireError> {
        match byte {
            Self::DATA => Ok(Kind::Data),
            Self::ACKNOWLEDGEMENT => Ok(Kind::Acknowledgement),
            Self::MEMBERSHIP => Ok(Kind::Membership),
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
        /// The message of a data frame. (What a frame about membership says, [`decode_packet`] reads from the bytes
        /// between the header and `length`.)
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
            Kind::Membership => {
                let single = length == 0 && self.sequence == 0 && self.body_crc == 0;
                if single { Ok(()) } else { Err(WireError::Membership) }
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
        Kind::Acknowledgement | Kind::Membership => None,
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
    encode(message, bytes)
}

/// Appends the encoding of `packet` to `bytes`; how many bytes it takes.
///
/// # Errors
/// As [`encode_message`].
pub fn encode_packet(packet: &MembershipPacket, bytes: &mut Vec<u8>) -> Result<usize, WireError> {
    encode(packet, bytes)
}

fn encode(said: &impl Serialize, bytes: &mut Vec<u8>) -> Result<usize, WireError> {
    let start = bytes.len();
    bytes.resize(start + CONTROL_LENGTH_MAX, 0);
    // A message always serialises: the only thing that can be short is the room.
    let written = postcard::to_slice(said, &mut bytes[start..]).map(|used| used.len());
    bytes.truncate(start + written.as_ref().copied().unwrap_or(0));
    written.map_err(|_| WireError::MessageTooLong)
}

/// The message that `control` is, to its last byte.
///
/// # Errors
/// [`WireError::Malformed`] or [`WireError::Trailing`], and [`WireError::MessageTooLong`] for more than a message.
pub fn decode_message(control: &[u8]) -> Result<Message, WireError> {
    decode(control)
}

/// The packet that `control` is, to its last byte.
///
/// # Errors
/// As [`decode_message`].
pub fn decode_packet(control: &[u8]) -> Result<MembershipPacket, WireError> {
    decode(control)
}

fn decode<T: DeserializeOwned>(control: &[u8]) -> Result<T, WireError> {
    if control.len() > CONTROL_LENGTH_MAX {
        return Err(WireError::MessageTooLong);
    }
    match postcard::take_from_bytes::<T>(control) {
        Ok((said, [])) => Ok(said),
        Ok((_, rest)) => Err(WireError::Trailing(rest.len())),
        Err(_) => Err(WireError::Malformed),
    }
}

/// The page whose bytes follow `message` on the wire, if any do.
#[must_use]
pub fn page_behind(message: &Message) -> Option<PageId> {
    if let Message::Grant { page, payload: Payload::Bytes, .. } | Message::Commit(Commit::Page { page, .. }) =
        message
    {
        Some(*page)
    } else {
        None
    }
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
mod tests;
