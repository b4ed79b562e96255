//! The receiving half of a link: bytes from the socket become headers, messages and pages.
//!
//! Small things go through a buffer, which one system call fills with all that has come. A page's bytes are copied
//! from there into its frame; if the rest of a page is long, it is received into the frame directly. After a read
//! that came up short, the socket is empty, and is not asked again before it has been polled.

use super::super::Frames;
use super::super::stream::{Stream, would_block};
use super::{BadFrame, Counters, LinkDown};
use dsm_core::wire::{self, Head, Header};
use dsm_core::{Message, PageId};
use std::io;

/// What one system call takes from the socket: a dozen small pages with their heads.
const BUFFER_LENGTH: usize = 64 << 10;

/// A rest of a page that is at least so long is received into its frame directly. For a shorter one, the copy costs
/// less than the system call that it saves.
const DIRECT_LENGTH_MIN: usize = 16 << 10;

const _: () = assert!(wire::HEAD_LENGTH_MAX <= BUFFER_LENGTH, "a head must fit the buffer");

/// Something that has come whole.
pub(super) enum Arrival {
    /// A frame's header and message; its body, if it has one, is next.
    Head {
        /// The header.
        header: Header,
        /// The message; an acknowledgement has none.
        message: Option<Message>,
    },
    /// The body of the frame whose head came last.
    Page {
        /// That frame's message.
        message: Message,
    },
}

/// A body that is on its way in.
struct Body {
    /// The message that it follows; a frame that had come before has none to hand out.
    message: Option<Message>,
    landing: Landing,
    crc: u32,
    at: usize,
}

/// Where the bytes of a body go.
enum Landing {
    /// Into the frame that waits for them.
    Frame(PageId),
    /// Nowhere; they are only checked.
    Discarded(crc32fast::Hasher),
    /// Nowhere, unchecked: the frame has come before, or its reservation was revoked after it began to come.
    Ignored,
}

/// The receiving half of a link.
pub(super) struct Inbox {
    page_size: usize,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    /// The last read left nothing in the socket.
    drained: bool,
    body: Option<Body>,
}

impl Inbox {
    pub fn new(page_size: usize) -> Inbox {
        Inbox {
            page_size,
            buffer: vec![0; BUFFER_LENGTH].into_boxed_slice(),
            start: 0,
            end: 0,
            drained: false,
            body: None,
        }
    }

    /// The length of a page.
    pub fn page_size(&self) -> usize {
        self.page_size
    }

    /// Forgets what has come: the connection is gone.
    pub fn clear(&mut self) {
        self.start = 0;
        self.end = 0;
        self.drained = false;
        self.body = None;
    }

    /// Asks again whether the frame of the body that is coming still waits for it.
    pub fn confirm_reservation(&mut self, reserves: &mut impl FnMut(&Message) -> bool) {
        if let Some(Body { message: Some(message), landing: landing @ Landing::Frame(_), .. }) =
            &mut self.body
            && !reserves(message)
        {
            *landing = Landing::Ignored;
        }
    }

    /// The frame whose head came last has a body, which is to land in `reserved`, if anywhere.
    pub fn expect_body(&mut self, header: &Header, message: Message, reserved: Option<PageId>) {
        let landing = match reserved {
            Some(page) => Landing::Frame(page),
            None => Landing::Discarded(crc32fast::Hasher::new()),
        };
        self.body = Some(Body { message: Some(message), landing, crc: header.body_crc, at: 0 });
    }

    /// The frame whose head came last had come before: its body, if it has one, is ignored. Its frame may have
    /// changed since it was sent first, so nothing can be said about its checksum.
    pub fn skip_body(&mut self, header: &Header) {
        if header.body_length != 0 {
            self.body = Some(Body { message: None, landing: Landing::Ignored, crc: header.body_crc, at: 0 });
        }
    }

    /// The next thing that has come whole, or `None` until the socket has been polled.
    pub fn advance(
        &mut self,
        stream: &Stream,
        frames: &impl Frames,
        counters: &mut Counters,
    ) -> Result<Option<Arrival>, LinkDown> {
        loop {
            if self.body.is_some() {
                self.take_buffered_body(frames);
                if let Some(body) = self.body.take_if(|body| body.at == self.page_size) {
                    let Some(message) = self.finish_body(body, frames, counters)? else { continue };
                    return Ok(Some(Arrival::Page { message }));
                }
            } else if let Some(arrival) = self.take_head(counters)? {
                return Ok(Some(arrival));
            }
            if self.drained {
                self.drained = false;
                return Ok(None);
            }
            let came = self.read(stream, frames);
            self.note_read(came, counters)?;
        }
    }

    fn take_head(&mut self, counters: &mut Counters) -> Result<Option<Arrival>, BadFrame> {
        match wire::decode_head(&self.buffer[self.start..self.end], self.page_size as u64)? {
            Head::Partial => Ok(None),
            Head::Whole { header, message, length } => {
                self.start += length;
                counters.frames_received += 1;
                Ok(Some(Arrival::Head { header, message }))
            }
        }
    }

    fn take_buffered_body(&mut self, frames: &impl Frames) {
        let Some(body) = &mut self.body else { return };
        let length = (self.end - self.start).min(self.page_size - body.at);
        let bytes = &self.buffer[self.start..self.start + length];
        match &mut body.landing {
            Landing::Frame(page) if length > 0 => frames.fill(*page, body.at, bytes),
            Landing::Frame(_) | Landing::Ignored => {}
            Landing::Discarded(hasher) => hasher.update(bytes),
        }
        body.at += length;
        self.start += length;
    }

    fn finish_body(
        &self,
        body: Body,
        frames: &impl Frames,
        counters: &mut Counters,
    ) -> Result<Option<Message>, BadFrame> {
        let computed = match body.landing {
            Landing::Frame(page) => frames.crc32(page),
            Landing::Discarded(hasher) => hasher.finalize(),
            Landing::Ignored => body.crc,
        };
        if computed != body.crc {
            return Err(BadFrame::BodyCrc { stated: body.crc, computed });
        }
        counters.pages_received += u64::from(body.message.is_some());
        Ok(body.message)
    }

    /// One read from the socket, into a frame if the rest of a page is long, else into the buffer. How many bytes
    /// were asked for, and what came.
    fn read(&mut self, stream: &Stream, frames: &impl Frames) -> (usize, io::Result<usize>) {
        if let Some(body) = &mut self.body
            && let Landing::Frame(page) = body.landing
            && self.page_size - body.at >= DIRECT_LENGTH_MIN
        {
            // The buffer is empty: what it held of the page was taken before.
            let came = stream.receive_page(frames, page, body.at);
            let asked = self.page_size - body.at;
            body.at += came.as_ref().copied().unwrap_or(0);
            return (asked, came);
        }
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        let asked = self.buffer.len() - self.end;
        let came = stream.receive(&mut self.buffer[self.end..]);
        self.end += came.as_ref().copied().unwrap_or(0);
        (asked, came)
    }

    fn note_read(
        &mut self,
        (asked, came): (usize, io::Result<usize>),
        counters: &mut Counters,
    ) -> Result<(), LinkDown> {
        match came {
            Ok(0) => Err(LinkDown::Closed),
            Ok(came) => {
                counters.bytes_received += came as u64;
                self.drained = came < asked;
                Ok(())
            }
            Err(error) if would_block(&error) => {
                self.drained = true;
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(LinkDown::Failed(error)),
        }
    }
}
