//! The receiving half of a link: bytes from the socket become headers, messages and pages.
//!
//! Small things go through a buffer, which one system call fills with all that has come. A page's bytes are copied
//! from there into its frame; if the rest of a page is long, it is received into the frame directly. After a read
//! that came up short, the socket is empty, and is not asked again before it has been polled.

use super::super::Frames;
use super::super::stream::{Stream, would_block};
use super::{BadFrame, Counters, Delivered, LinkDown};
use dsm_core::wire::{self, Head, Header, Kind};
use dsm_core::{Landing, Message, PageId, ViewId};
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
    /// A word about membership, encoded.
    Packet {
        /// It.
        control: Vec<u8>,
    },
    /// The body of the frame whose head came last.
    Page {
        /// The view in which that frame was sent.
        view: ViewId,
        /// That frame's message.
        message: Message,
        /// Where the bytes are.
        body: Delivered,
    },
}

/// A body that is on its way in.
struct Body {
    /// The message that it follows; a frame that had come before has none to hand out.
    message: Option<Message>,
    view: ViewId,
    target: Target,
    crc: u32,
    at: usize,
}

/// Where the bytes of a body go.
enum Target {
    /// Into the frame that waits for them.
    Frame(PageId),
    /// To memory of their own.
    Aside(Vec<u8>),
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
    pub fn confirm_reservation(&mut self, landing: &mut impl FnMut(&Message) -> Landing) {
        if let Some(Body { message: Some(message), target: target @ Target::Frame(_), .. }) = &mut self.body
            && landing(message) != Landing::Frame
        {
            *target = Target::Ignored;
        }
    }

    /// The frame whose head came last has a body: the bytes of `page`, which are to land as `landing` says.
    pub fn expect_body(&mut self, header: &Header, message: Message, page: PageId, landing: Landing) {
        let target = match landing {
            Landing::Frame => Target::Frame(page),
            Landing::Aside | Landing::Record(_) => Target::Aside(Vec::with_capacity(self.page_size)),
            Landing::Nowhere => Target::Discarded(crc32fast::Hasher::new()),
        };
        self.body =
            Some(Body { message: Some(message), view: header.view, target, crc: header.body_crc, at: 0 });
    }

    /// The body that is coming is not even checked.
    pub fn ignore_body(&mut self) {
        if let Some(body) = &mut self.body {
            body.target = Target::Ignored;
        }
    }

    /// The frame whose head came last had come before: its body, if it has one, is ignored. Its frame may have
    /// changed since it was sent first, so nothing can be said about its checksum.
    pub fn skip_body(&mut self, header: &Header) {
        if header.body_length != 0 {
            self.body = Some(Body {
                message: None,
                view: header.view,
                target: Target::Ignored,
                crc: header.body_crc,
                at: 0,
            });
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
                    let Some(arrival) = self.finish_body(body, frames, counters)? else { continue };
                    return Ok(Some(arrival));
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
                let control = self.start + wire::HEADER_LENGTH..self.start + length;
                self.start += length;
                counters.frames_received += 1;
                Ok(Some(match header.kind {
                    Kind::Membership => Arrival::Packet { control: self.buffer[control].to_vec() },
                    Kind::Data | Kind::Acknowledgement => Arrival::Head { header, message },
                }))
            }
        }
    }

    fn take_buffered_body(&mut self, frames: &impl Frames) {
        let Some(body) = &mut self.body else { return };
        let length = (self.end - self.start).min(self.page_size - body.at);
        let bytes = &self.buffer[self.start..self.start + length];
        match &mut body.target {
            Target::Frame(page) if length > 0 => frames.fill(*page, body.at, bytes),
            Target::Frame(_) | Target::Ignored => {}
            Target::Aside(aside) => aside.extend_from_slice(bytes),
            Target::Discarded(hasher) => hasher.update(bytes),
        }
        body.at += length;
        self.start += length;
    }

    fn finish_body(
        &self,
        body: Body,
        frames: &impl Frames,
        counters: &mut Counters,
    ) -> Result<Option<Arrival>, BadFrame> {
        let (computed, delivered) = match body.target {
            Target::Frame(page) => (frames.crc32(page), Delivered::InFrame),
            Target::Aside(bytes) => (crc32fast::hash(&bytes), Delivered::Aside(bytes.into_boxed_slice())),
            Target::Discarded(hasher) => (hasher.finalize(), Delivered::Nothing),
            Target::Ignored => (body.crc, Delivered::Nothing),
        };
        if computed != body.crc {
            return Err(BadFrame::BodyCrc { stated: body.crc, computed });
        }
        let Some(message) = body.message else { return Ok(None) };
        counters.pages_received += 1;
        Ok(Some(Arrival::Page { view: body.view, message, body: delivered }))
    }

    /// One read from the socket, into a frame if the rest of a page is long, else into the buffer. How many bytes
    /// were asked for, and what came.
    fn read(&mut self, stream: &Stream, frames: &impl Frames) -> (usize, io::Result<usize>) {
        if let Some(body) = &mut self.body
            && let Target::Frame(page) = body.target
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
