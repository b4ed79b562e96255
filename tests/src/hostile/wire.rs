//! Frames: bytes that are none, and streams of good ones that arrive in pieces and with a byte damaged.

use super::Check;
use super::forge::{self, Palette};
use super::story::Measure;
use arbitrary::Unstructured;
use dsm_core::limits::{CONTROL_LENGTH_MAX, PAGE_SIZE_MIN, REGION_BASE_DEFAULT};
use dsm_core::wire::{self, HEADER_LENGTH, Head, Header, Kind, WireError};
use dsm_core::{Copyset, Geometry, Message, NodeId, PageId, ViewId};

/// A decoder may allocate the longest name, and nothing before it has checked the lengths.
const DECODE_BYTES_MAX: u64 = CONTROL_LENGTH_MAX as u64;

/// Frames of one stream, at most.
const FRAMES_MAX: usize = 8;

/// The region that frames speak of, in pages; any will do.
const PAGES: u64 = 256;

/// The body of every frame that has one. Short pages would do as well: the decoder never looks at a body.
const BODY: [u8; PAGE_SIZE_MIN as usize] = [0x5a; PAGE_SIZE_MIN as usize];

/// Decodes `bytes` as a header, as a frame's head, and as a message; what it accepts must come back from its encoding.
///
/// # Errors
/// What is not as it must be. A panic of the decoder passes through.
pub fn decode(bytes: &[u8], measure: Measure) -> Result<(), String> {
    let mut found = None;
    let allocated = measure(&mut || found = Some(wire::decode_head(bytes, PAGE_SIZE_MIN)));
    if allocated > DECODE_BYTES_MAX {
        return Err(format!("decoding {} bytes allocated {allocated}", bytes.len()));
    }
    match found {
        Some(Ok(Head::Whole { header, message, length })) => {
            if length > bytes.len() || length < HEADER_LENGTH {
                return Err(format!("a head of {length} bytes was found in {}", bytes.len()));
            }
            prefixes_are_partial(&bytes[..length])?;
            comes_back(header, message.as_ref())?;
        }
        Some(Ok(Head::Partial)) if bytes.len() >= HEADER_LENGTH + CONTROL_LENGTH_MAX => {
            return Err(String::from("the longest head there is was not enough to tell"));
        }
        Some(Ok(Head::Partial) | Err(_)) | None => {}
    }
    // The checksum keeps arbitrary bytes from the message's own decoder: they go there without it, too.
    let mut message = None;
    let allocated = measure(&mut || message = wire::decode_message(bytes).ok());
    if allocated > DECODE_BYTES_MAX {
        return Err(format!("decoding a message of {} bytes allocated {allocated}", bytes.len()));
    }
    message.map_or(Ok(()), |message| message_comes_back(&message).map(drop))
}

fn prefixes_are_partial(head: &[u8]) -> Check {
    for length in 0..head.len() {
        if wire::decode_head(&head[..length], PAGE_SIZE_MIN) != Ok(Head::Partial) {
            return Err(format!("{length} bytes of a good head are not called partial"));
        }
    }
    Ok(())
}

fn message_comes_back(message: &Message) -> Check<Vec<u8>> {
    let mut control = Vec::new();
    wire::encode_message(message, &mut control).map_err(|error| format!("{message:?}: {error}"))?;
    let again = wire::decode_message(&control);
    if again.as_ref() != Ok(message) {
        return Err(format!("{message:?} came back as {again:?}"));
    }
    Ok(control)
}

fn comes_back(header: Header, message: Option<&Message>) -> Check {
    let control = message.map_or(Ok(Vec::new()), message_comes_back)?;
    // A number may be written longer than it need be, so the length may differ from what came.
    let control_length = u32::try_from(control.len()).map_err(|error| error.to_string())?;
    let header = Header { control_length, ..header };
    let mut bytes = header.encode(&control).to_vec();
    bytes.extend_from_slice(&control);
    let length = bytes.len();
    let expected = Head::Whole { header, message: message.cloned(), length };
    match wire::decode_head(&bytes, PAGE_SIZE_MIN) {
        Ok(found) if found == expected => Ok(()),
        found => Err(format!("{expected:?} came back as {found:?}")),
    }
}

/// A stream of good frames, in pieces as the bytes say; then the same stream with one byte damaged, of which nothing
/// may come out that was not put in.
///
/// # Errors
/// What is not as it must be. A panic of the decoder passes through.
pub fn stream(bytes: &[u8]) -> Result<usize, String> {
    let mut u = Unstructured::new(bytes);
    let (sent, mut encoded) = frames(&mut u)?;
    let received = receive(&encoded, &mut u).map_err(|error| format!("a good stream is refused: {error}"))?;
    if received != sent {
        return Err(format!("{sent:?} arrived as {received:?}"));
    }
    if encoded.is_empty() {
        return Ok(0);
    }
    let at = u.choose_index(encoded.len()).unwrap_or(0);
    encoded[at] ^= u.int_in_range(1..=u8::MAX).unwrap_or(1);
    match receive(&encoded, &mut u) {
        // A longer control message merely waits for more.
        Ok(received) if received.len() < sent.len() && sent.starts_with(&received) => Ok(sent.len()),
        Ok(received) => Err(format!("byte {at} was damaged, and {sent:?} arrived as {received:?}")),
        Err(_) => Ok(sent.len()),
    }
}

/// The good stream that `bytes` tell, encoded: where a fuzzer of [`decode`] may begin.
///
/// # Errors
/// What is not as it must be.
pub fn encoded(bytes: &[u8]) -> Result<Vec<u8>, String> {
    frames(&mut Unstructured::new(bytes)).map(|(_, encoded)| encoded)
}

/// A message as it was sent, and whether bytes followed.
type Sent = (Message, bool);

fn frames(u: &mut Unstructured<'_>) -> Check<(Vec<Sent>, Vec<u8>)> {
    let palette = palette()?;
    let (mut sent, mut encoded) = (Vec::new(), Vec::new());
    for sequence in 1..=u.int_in_range(0..=FRAMES_MAX).unwrap_or(0) {
        let message = forge::message(u, &palette, NodeId(0)).map_err(|error| error.to_string())?;
        let mut control = Vec::new();
        wire::encode_message(&message, &mut control).map_err(|error| error.to_string())?;
        let body = wire::page_behind(&message).map(|_| BODY);
        let header = Header {
            kind: Kind::Data,
            control_length: u32::try_from(control.len()).map_err(|error| error.to_string())?,
            body_length: body.map_or(0, |body| body.len() as u32),
            sequence: sequence as u64,
            acknowledged: u.arbitrary().unwrap_or(0),
            view: ViewId::FIRST,
            body_crc: body.map_or(0, |body| crc32fast::hash(&body)),
        };
        encoded.extend_from_slice(&header.encode(&control));
        encoded.extend_from_slice(&control);
        encoded.extend_from_slice(body.as_ref().map_or(&[], |body| body.as_slice()));
        sent.push((message, body.is_some()));
    }
    Ok((sent, encoded))
}

fn palette() -> Check<Palette> {
    let geometry = Geometry::new(REGION_BASE_DEFAULT, PAGES * PAGE_SIZE_MIN, PAGE_SIZE_MIN)
        .map_err(|error| error.to_string())?;
    Ok(Palette {
        geometry,
        members: Copyset::first(4),
        hostile: NodeId(3),
        pages: vec![PageId(0), PageId(1)],
        locks: Vec::new(),
        names: vec![String::from("name")],
        transactions: Vec::new(),
        tickets: Vec::new(),
    })
}

/// Why a stream ends.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error(transparent)]
    Head(#[from] WireError),
    #[error("a body's checksum does not match")]
    Body,
}

/// Reads a stream as a connection would: pieces of any length come, and heads and bodies are taken off the front.
fn receive(encoded: &[u8], u: &mut Unstructured<'_>) -> Result<Vec<Sent>, Broken> {
    let (mut received, mut buffer, mut rest) = (Vec::new(), Vec::new(), encoded);
    while !rest.is_empty() {
        // Without bytes to say so, the pieces are as small as they can be.
        let longest = rest.len().min(usize::from(u.arbitrary::<u16>().unwrap_or(0)).max(1));
        let (piece, behind) = rest.split_at(u.int_in_range(1..=longest).unwrap_or(1));
        buffer.extend_from_slice(piece);
        rest = behind;
        while let Some((message, taken)) = next(&buffer)? {
            received.push(message);
            buffer.drain(..taken);
        }
    }
    Ok(received)
}

fn next(buffer: &[u8]) -> Result<Option<(Sent, usize)>, Broken> {
    let Head::Whole { header, message, length } = wire::decode_head(buffer, PAGE_SIZE_MIN)? else {
        return Ok(None);
    };
    let end = length + header.body_length as usize;
    let Some(body) = buffer.get(length..end) else { return Ok(None) };
    if !body.is_empty() && crc32fast::hash(body) != header.body_crc {
        return Err(Broken::Body);
    }
    Ok(message.map(|message| ((message, !body.is_empty()), end)))
}
