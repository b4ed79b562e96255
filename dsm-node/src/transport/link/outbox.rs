//! The sending half of a link: what the peer has not acknowledged, and what of it is on its way to the socket.
//!
//! ```text
//!  acknowledged      unstaged begins here
//!       |                 |
//!       v                 v
//!  ...  | frame frame ... | frame frame ...      frames, by sequence number
//!         written or in the stage
//! ```
//! The *stage* holds the heads of the frames that are being written: as many as come before the next page, and that
//! page's own. So a run of small frames is one system call, and a page with its head is one too.

use super::super::Frames;
use super::super::stream::{Stream, would_block};
use super::{BadFrame, Counters, Flushed};
use dsm_core::wire::{self, Header, Kind, WireError};
use dsm_core::{Message, PageId, ViewId};
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

/// The stage takes no further frame once it holds so many bytes: about what a socket takes at once.
const STAGE_LENGTH: usize = 64 << 10;

/// Buffers kept for reuse: enough for what is under way between two acknowledgements.
const SPARES_MAX: usize = 256;

/// Words about membership that wait to be written. Each says all that its sender knows, so that older ones are of no use.
const PACKETS_MAX: usize = 32;

/// What follows a message.
pub(super) enum Body {
    /// Nothing.
    None,
    /// The bytes of a page's frame, as they are when they are written.
    Frame(PageId),
    /// These bytes.
    Copy(Arc<[u8]>),
}

/// A message that the peer has not acknowledged.
struct Frame {
    /// The view in which it was said.
    view: ViewId,
    control: Vec<u8>,
    body: Body,
}

/// What is being written.
#[derive(Default)]
struct Stage {
    heads: Vec<u8>,
    frames: u64,
    /// Copies of pages among the heads.
    copies: u64,
    page: Option<PageId>,
    written: usize,
}

/// The sending half of a link.
pub(super) struct Outbox {
    page_size: usize,
    frames: VecDeque<Frame>,
    /// The peer has all frames up to this number; the first of `frames` has the next.
    acknowledged: u64,
    /// So many of `frames` have been staged for this connection.
    staged: usize,
    /// The number of the last frame that was staged for any connection: the peer may have all up to it.
    staged_ever: u64,
    stage: Stage,
    /// What is to be said about membership. It is lost with the connection.
    packets: VecDeque<Vec<u8>>,
    spares: Vec<Vec<u8>>,
    attached: bool,
}

impl Outbox {
    pub fn new(page_size: usize) -> Outbox {
        Outbox {
            page_size,
            frames: VecDeque::new(),
            acknowledged: 0,
            staged: 0,
            staged_ever: 0,
            stage: Stage::default(),
            packets: VecDeque::new(),
            spares: Vec::new(),
            attached: false,
        }
    }

    pub fn push(&mut self, view: ViewId, message: &Message, body: Body) -> Result<(), WireError> {
        let mut control = self.spares.pop().unwrap_or_default();
        wire::encode_message(message, &mut control)?;
        self.frames.push_back(Frame { view, control, body });
        Ok(())
    }

    /// Says `control`, a word about membership, before all messages that wait. Of too many, the oldest is lost.
    pub fn push_packet(&mut self, control: Vec<u8>) {
        if self.packets.len() >= PACKETS_MAX {
            self.packets.pop_front();
        }
        self.packets.push_back(control);
    }

    /// Forgets what no connection has carried any part of: it is of a view that is over.
    pub fn forget_unsent(&mut self) {
        let begun = usize::try_from(self.staged_ever.saturating_sub(self.acknowledged)).unwrap_or(usize::MAX);
        for frame in self.frames.drain(begun.min(self.frames.len())..).collect::<Vec<_>>() {
            self.recycle(frame.control);
        }
    }

    #[cfg(test)]
    pub fn has_unsent(&self) -> bool {
        self.is_staged() || self.staged < self.frames.len()
    }

    pub fn is_staged(&self) -> bool {
        !self.stage.heads.is_empty()
    }

    pub fn has_been_attached(&self) -> bool {
        self.attached
    }

    pub fn note_attached(&mut self) {
        self.attached = true;
    }

    /// The number of the last frame that the peer has said that it has.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// The number of the last frame that was queued.
    pub fn last_pushed(&self) -> u64 {
        self.acknowledged + self.frames.len() as u64
    }

    /// The peer has all frames up to `through`. It may have them by an earlier connection, and say so before they went
    /// out again on this one.
    pub fn acknowledge(&mut self, through: u64) -> Result<(), BadFrame> {
        let last = self.staged_ever;
        if through < self.acknowledged || through > last {
            return Err(BadFrame::Acknowledged { acknowledged: through, first: self.acknowledged, last });
        }
        while self.acknowledged < through {
            // There are at least as many frames as `last` exceeds `acknowledged`, so this never runs dry.
            let Some(frame) = self.frames.pop_front() else { break };
            self.acknowledged += 1;
            self.staged = self.staged.saturating_sub(1);
            self.recycle(frame.control);
        }
        Ok(())
    }

    /// A new connection to a peer that has all frames up to `through`: everything after goes out again.
    pub fn rewind(&mut self, through: u64) -> Result<(), BadFrame> {
        self.acknowledge(through)?;
        self.staged = 0;
        self.stage.clear();
        self.packets.clear();
        Ok(())
    }

    /// Moves the words about membership to the stage, if it is empty and there are any; whether it did.
    pub fn stage_packets(&mut self, header: impl Fn(u64) -> Header) -> bool {
        if self.is_staged() || self.packets.is_empty() {
            return false;
        }
        for control in self.packets.drain(..) {
            // Its length is bounded by a limit that fits (`dsm_core::wire` asserts so at compile time).
            let control_length = control.len() as u32;
            let header = Header { kind: Kind::Membership, control_length, ..header(0) };
            self.stage.heads.extend_from_slice(&header.encode(&control));
            self.stage.heads.extend_from_slice(&control);
            self.stage.frames += 1;
        }
        true
    }

    /// Moves the next frames to the stage, if it is empty and there are any; whether it did. `header` gives the
    /// header for a sequence number, without lengths and checksum.
    pub fn stage(
        &mut self,
        frames: &impl Frames,
        header: impl Fn(u64) -> Header,
        counters: &mut Counters,
    ) -> bool {
        if self.is_staged() || self.staged == self.frames.len() {
            return false;
        }
        while let Some(frame) = self.frames.get(self.staged) {
            self.staged += 1;
            let number = self.acknowledged + self.staged as u64;
            counters.resent += u64::from(number <= self.staged_ever);
            self.staged_ever = self.staged_ever.max(number);
            let mut header = Header { view: frame.view, ..header(number) };
            // Both lengths are bounded by limits that fit (`dsm_core::wire` asserts so at compile time).
            header.control_length = frame.control.len() as u32;
            match &frame.body {
                Body::None => {}
                Body::Frame(page) => {
                    header.body_length = self.page_size as u32;
                    header.body_crc = frames.crc32(*page);
                    self.stage.page = Some(*page);
                }
                Body::Copy(bytes) => {
                    header.body_length = self.page_size as u32;
                    header.body_crc = crc32fast::hash(bytes);
                }
            }
            self.stage.heads.extend_from_slice(&header.encode(&frame.control));
            self.stage.heads.extend_from_slice(&frame.control);
            if let Body::Copy(bytes) = &frame.body {
                self.stage.heads.extend_from_slice(bytes);
                self.stage.copies += 1;
            }
            self.stage.frames += 1;
            if self.stage.page.is_some() || self.stage.heads.len() >= STAGE_LENGTH {
                break;
            }
        }
        true
    }

    /// Stages a frame that carries nothing but `header`'s acknowledgement.
    pub fn stage_acknowledgement(&mut self, header: Header) {
        let header = Header { kind: Kind::Acknowledgement, ..header };
        self.stage.heads.extend_from_slice(&header.encode(&[]));
        self.stage.frames += 1;
    }

    /// Writes the stage, as far as the socket takes it.
    pub fn write(
        &mut self,
        stream: &Stream,
        frames: &impl Frames,
        counters: &mut Counters,
    ) -> io::Result<Flushed> {
        let total = self.stage.heads.len() + self.stage.page.map_or(0, |_| self.page_size);
        let taken = match self.stage.write(stream, frames) {
            Ok(taken) => taken,
            Err(error) if would_block(&error) => return Ok(Flushed::Blocked),
            // The caller sees bytes left, and comes again.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(Flushed::Done),
            Err(error) => return Err(error),
        };
        self.stage.written += taken;
        counters.bytes_sent += taken as u64;
        if self.stage.written < total {
            return Ok(Flushed::Blocked);
        }
        counters.frames_sent += self.stage.frames;
        counters.pages_sent += self.stage.copies + u64::from(self.stage.page.is_some());
        self.stage.clear();
        Ok(Flushed::Done)
    }

    fn recycle(&mut self, mut control: Vec<u8>) {
        if self.spares.len() < SPARES_MAX {
            control.clear();
            self.spares.push(control);
        }
    }
}

impl Stage {
    fn write(&self, stream: &Stream, frames: &impl Frames) -> io::Result<usize> {
        let head = self.heads.get(self.written..).unwrap_or_default();
        match self.page {
            None => stream.send(head),
            Some(page) => {
                let from = self.written.saturating_sub(self.heads.len());
                stream.send_page(frames, head, page, from)
            }
        }
    }

    fn clear(&mut self) {
        self.heads.clear();
        self.frames = 0;
        self.copies = 0;
        self.page = None;
        self.written = 0;
    }
}
