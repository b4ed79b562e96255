//! The session with one peer: numbered frames over a connection that may break and be replaced.
//!
//! Messages come out in the order in which they went in, each exactly once, whatever happens to the connections in
//! between. What was sent is kept until the peer says that it has it, and goes out again on the next connection;
//! what comes twice is dropped. Of a page's bytes nothing is kept: they are read from the frame again, which the
//! protocol does not let change before the peer has them.
//!
//! A link neither waits nor connects: the engine polls its descriptor, and hands it a new stream when there is one.
//! It trusts no byte that it receives: a bad frame takes the connection down, and no byte of it reaches memory other
//! than the frame that was reserved for it.

mod inbox;
mod outbox;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod view_tests;

use super::Frames;
use super::stream::Stream;
use dsm_core::wire::{self, Header, Kind, MembershipPacket, WireError};
use dsm_core::{Incarnation, Landing, Message, NodeId, PageId, ViewId};
use inbox::{Arrival, Inbox};
use outbox::{Body, Outbox};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// After so many frames without an answer, the peer is told that it may forget them. It bounds what a peer that only
/// sends has to keep.
const ACKNOWLEDGE_AFTER: u64 = 64;

/// The session with one peer.
pub(crate) struct Link {
    peer: NodeId,
    /// Which process has that rank; not known before the cluster is formed.
    life: Option<Incarnation>,
    /// The membership that this node speaks for. What the peer says of an earlier one is over, of a later one is ahead.
    view: ViewId,
    stream: Option<Stream>,
    inbox: Inbox,
    outbox: Outbox,
    /// The number of the last frame that was handed out. Shared with those who shake hands for this link.
    received: Arc<AtomicU64>,
    /// The number that the peer was told last.
    told: u64,
    /// It was told so on this connection: what it was told on one that broke, it may not have heard.
    told_here: bool,
    farewell: Farewell,
    /// The number of the last frame before the farewell.
    last_words: u64,
    counters: Counters,
}

/// What a link has carried.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Counters {
    /// Frames written whole, resent ones included.
    pub frames_sent: u64,
    /// Frames read whole and in order, acknowledgements included.
    pub frames_received: u64,
    /// Bytes that the sockets took.
    pub bytes_sent: u64,
    /// Bytes that the sockets gave.
    pub bytes_received: u64,
    /// Frames with a page that were written whole.
    pub pages_sent: u64,
    /// Pages that arrived whole.
    pub pages_received: u64,
    /// Connections after the first.
    pub reconnects: u64,
    /// Frames that took their connection down.
    pub bad_frames: u64,
    /// Frames that had come before.
    pub duplicates: u64,
    /// Frames that went out again, on a later connection.
    pub resent: u64,
    /// Messages of views that were over.
    pub stale: u64,
}

/// What came from a peer.
#[derive(Debug)]
pub(crate) enum Heard {
    /// A message.
    Message {
        /// The view in which it was said: this node's, or a later one.
        view: ViewId,
        /// What it says.
        message: Message,
        /// The bytes behind it.
        body: Delivered,
    },
    /// A word about membership.
    Packet(Box<MembershipPacket>),
}

/// Where the bytes behind a message have gone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Delivered {
    /// There are none, or they were thrown away: whatever their message says, nothing of it is here.
    Nothing,
    /// They are in the frame of their page.
    InFrame,
    /// They were not for that frame.
    Aside(Box<[u8]>),
}

/// What a flush may write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Voice {
    /// Everything.
    Full,
    /// Nothing but words about membership, and what has been written in part.
    Membership,
}

/// How a flush ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Flushed {
    /// Everything is with the kernel.
    Done,
    /// Something is left, until the socket takes more or, on a detached link, until there is one.
    Blocked,
}

/// Why a connection is over. The link itself lives on: it takes another connection, or waits to be dropped.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkDown {
    /// The peer has closed its end.
    #[error("the peer closed the connection")]
    Closed,
    /// The connection failed.
    #[error("the connection failed: {0}")]
    Failed(io::Error),
    /// The peer sent what no correct peer sends.
    #[error("a bad frame: {0}")]
    Bad(#[from] BadFrame),
}

/// What was wrong with a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum BadFrame {
    /// It is no frame at all.
    #[error("{0}")]
    Wire(#[from] WireError),
    /// Its body was damaged.
    #[error("the checksum of its body does not match: {stated:#010x} stated, {computed:#010x} computed")]
    BodyCrc {
        /// What the header says.
        stated: u32,
        /// What the bytes say.
        computed: u32,
    },
    /// A frame before it is missing.
    #[error("it has number {found}, and {expected} is next")]
    Gap {
        /// The number that was due.
        expected: u64,
        /// The number that came.
        found: u64,
    },
    /// It acknowledges what was never sent, or takes an acknowledgement back.
    #[error("it acknowledges frames up to {acknowledged}, and only {first} to {last} can be")]
    Acknowledged {
        /// What it acknowledges.
        acknowledged: u64,
        /// What the peer acknowledged before.
        first: u64,
        /// The last frame that was sent.
        last: u64,
    },
    /// It has a body and is of a membership that this node has not heard of.
    #[error("it carries a page and is of {found}, and this is {current}")]
    View {
        /// Its view.
        found: ViewId,
        /// This node's.
        current: ViewId,
    },
}

/// How far a graceful end has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Farewell {
    None,
    Wanted,
    Said,
}

impl Link {
    /// A link to `peer` for pages of `page_size` bytes, without a connection as yet.
    pub fn new(peer: NodeId, page_size: usize) -> Link {
        Link {
            peer,
            life: None,
            view: ViewId::FIRST,
            stream: None,
            inbox: Inbox::new(page_size),
            outbox: Outbox::new(page_size),
            received: Arc::new(AtomicU64::new(0)),
            told: 0,
            told_here: false,
            farewell: Farewell::None,
            last_words: 0,
            counters: Counters::default(),
        }
    }

    /// The link is to this process, and to none that has the same rank before or after it.
    pub fn of(self, life: Incarnation) -> Link {
        Link { life: Some(life), ..self }
    }

    /// The node at the other end.
    pub fn peer(&self) -> NodeId {
        self.peer
    }

    /// The process at the other end.
    pub fn life(&self) -> Option<Incarnation> {
        self.life
    }

    /// The descriptor to poll, while there is a connection.
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.stream.as_ref().map(AsFd::as_fd)
    }

    /// Whether there is a connection.
    pub fn is_attached(&self) -> bool {
        self.stream.is_some()
    }

    /// Whether a flush would have something to write, were the socket to take it.
    #[cfg(test)]
    fn has_unsent(&self) -> bool {
        self.outbox.has_unsent() || self.owes_acknowledgement() || self.farewell == Farewell::Wanted
    }

    /// What the link has carried so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// The number of the last frame that was handed out: what to say in a handshake for this link.
    #[cfg(test)]
    pub fn received_through(&self) -> u64 {
        self.received.load(Ordering::Acquire)
    }

    /// The number of the last frame that was handed out, for other threads, which shake hands.
    pub fn received_handle(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.received)
    }

    /// Whether a call in which the peer claims to have all frames up to `peer_received_through` is older than what it has
    /// acknowledged since. Such a call was held up on its way, and the peer has given it up: nothing must be attached.
    pub fn is_behind(&self, peer_received_through: u64) -> bool {
        peer_received_through < self.outbox.acknowledged()
    }

    /// Goes on over `stream`; the peer has received all frames up to `peer_received_through`. What it has not is sent
    /// again by the next flush. A connection that there was is closed.
    pub fn attach(&mut self, stream: Stream, peer_received_through: u64) -> Result<(), LinkDown> {
        self.detach();
        if let Err(bad) = self.outbox.rewind(peer_received_through) {
            self.counters.bad_frames += 1;
            return Err(bad.into());
        }
        if self.outbox.has_been_attached() {
            self.counters.reconnects += 1;
        }
        self.outbox.note_attached();
        if self.farewell == Farewell::Said {
            self.farewell = Farewell::Wanted;
        }
        // The handshake may have said less: it was read before the last frames of the old connection were.
        self.told_here = false;
        stream.begin_frames(self.inbox.page_size());
        self.stream = Some(stream);
        Ok(())
    }

    /// Closes the connection, if there is one. Messages are kept for the next.
    pub fn detach(&mut self) {
        self.stream = None;
        self.inbox.clear();
    }

    /// Speaks for `view` from now on. What was said before and has not gone out is forgotten.
    pub fn install(&mut self, view: ViewId) {
        self.view = view;
        self.outbox.forget_unsent();
    }

    /// Queues a message, and with `page` the bytes that its frame will have when it is written. Never blocks.
    pub fn send(&mut self, message: &Message, page: Option<PageId>) -> Result<(), WireError> {
        debug_assert_eq!(
            wire::page_behind(message),
            page,
            "a grant with bytes, and nothing else, has a body"
        );
        self.outbox.push(self.view, message, page.map_or(Body::None, Body::Frame))
    }

    /// Queues a message with `bytes` behind it. Never blocks.
    pub fn send_copy(&mut self, message: &Message, bytes: Arc<[u8]>) -> Result<(), WireError> {
        debug_assert!(wire::page_behind(message).is_some(), "{message:?} has no body");
        self.outbox.push(self.view, message, Body::Copy(bytes))
    }

    /// Queues a word about membership, which goes out before all messages. Without a connection it is lost.
    pub fn say(&mut self, packet: &MembershipPacket) -> Result<(), WireError> {
        if self.stream.is_some() {
            let mut control = Vec::new();
            wire::encode_packet(packet, &mut control)?;
            self.outbox.push_packet(control);
        }
        Ok(())
    }

    /// Writes as much as the socket takes of what it may.
    ///
    /// After an error, the connection is still there, so that whoever polls its descriptor can take it out of the set
    /// before it is closed: [`Link::detach`] is next.
    pub fn flush(&mut self, frames: &impl Frames, voice: Voice) -> Result<Flushed, LinkDown> {
        self.try_flush(frames, voice)
    }

    /// What comes next, or `None` until the descriptor is readable again: it is to be polled level-triggered.
    ///
    /// `landing` says where the bytes of a page that follows a message go. It is asked again whenever more of the page
    /// has arrived, so a reservation can be revoked. After an error, as with [`Link::flush`], [`Link::detach`] is next.
    pub fn hear(
        &mut self,
        frames: &impl Frames,
        mut landing: impl FnMut(&Message) -> Landing,
    ) -> Result<Option<Heard>, LinkDown> {
        let outcome = self.try_next(frames, &mut landing);
        if let Err(down) = &outcome {
            match down {
                LinkDown::Bad(_) => self.counters.bad_frames += 1,
                LinkDown::Closed | LinkDown::Failed(_) => {}
            }
        }
        outcome
    }

    /// Ends the session in order: the flush that finds everything written, and has acknowledged everything that came,
    /// closes this direction, and the peer reads to the end. What is said after that flush is not sent.
    pub fn shutdown(&mut self) {
        if self.farewell == Farewell::None {
            self.farewell = Farewell::Wanted;
            self.last_words = self.outbox.last_pushed();
        }
    }

    /// Whether the peer has everything that was said before [`Link::shutdown`].
    pub fn was_heard_out(&self) -> bool {
        self.outbox.acknowledged() >= self.last_words
    }

    /// Whether so much has arrived since the peer was told last that it must be told, even if nothing else is.
    pub fn owes_acknowledgement(&self) -> bool {
        self.received.load(Ordering::Acquire) - self.told >= ACKNOWLEDGE_AFTER
    }

    /// A peer that waits to be heard out must learn that it was.
    fn owes_last_acknowledgement(&self) -> bool {
        let told = if self.told_here { self.told } else { 0 };
        self.farewell == Farewell::Wanted && self.received.load(Ordering::Acquire) > told
    }

    fn try_flush(&mut self, frames: &impl Frames, voice: Voice) -> Result<Flushed, LinkDown> {
        let Some(stream) = &self.stream else {
            return Ok(Flushed::Blocked);
        };
        if self.farewell == Farewell::Said {
            // Writing would fail, and with it the reading of what the peer still has to say.
            return Ok(Flushed::Done);
        }
        let received = self.received.load(Ordering::Acquire);
        loop {
            let header = |sequence| Header {
                kind: Kind::Data,
                control_length: 0,
                body_length: 0,
                sequence,
                acknowledged: received,
                view: self.view,
                body_crc: 0,
            };
            if self.outbox.is_staged() {
                // A flush before this one was blocked in the middle of these bytes: they come first.
            } else if self.outbox.stage_packets(header) {
                // Whoever waits for these, waits with a lease.
            } else if voice == Voice::Membership {
                break;
            } else if self.outbox.stage(frames, header, &mut self.counters) {
                (self.told, self.told_here) = (received, true);
            } else if self.owes_acknowledgement() || self.owes_last_acknowledgement() {
                self.outbox.stage_acknowledgement(header(0));
                (self.told, self.told_here) = (received, true);
            } else {
                break;
            }
            if self.outbox.write(stream, frames, &mut self.counters).map_err(LinkDown::Failed)?
                == Flushed::Blocked
            {
                return Ok(Flushed::Blocked);
            }
        }
        if self.farewell == Farewell::Wanted && voice == Voice::Full {
            stream.finish().map_err(LinkDown::Failed)?;
            self.farewell = Farewell::Said;
        }
        Ok(Flushed::Done)
    }

    fn try_next(
        &mut self,
        frames: &impl Frames,
        landing: &mut impl FnMut(&Message) -> Landing,
    ) -> Result<Option<Heard>, LinkDown> {
        let Some(stream) = &self.stream else {
            return Ok(None);
        };
        self.inbox.confirm_reservation(landing);
        loop {
            let Some(arrival) = self.inbox.advance(stream, frames, &mut self.counters)? else {
                return Ok(None);
            };
            let (header, message) = match arrival {
                Arrival::Head { header, message } => (header, message),
                Arrival::Packet { control } => return packet_in(&control).map(Some),
                Arrival::Page { view, message, body } => {
                    // Its header was judged when it came; but the view may have changed since.
                    self.received.fetch_add(1, Ordering::Release);
                    if view < self.view {
                        self.counters.stale += 1;
                        continue;
                    }
                    return Ok(Some(Heard::Message { view, message, body }));
                }
            };
            let expected = self.received.load(Ordering::Acquire) + 1;
            if message.is_some() && header.sequence < expected {
                // It comes again. What it acknowledges may be as old as itself, and was heard with it the first time;
                // but if it was sent anew, it may say more than is known.
                self.counters.duplicates += 1;
                if header.acknowledged > self.outbox.acknowledged() {
                    self.outbox.acknowledge(header.acknowledged)?;
                }
                self.inbox.skip_body(&header);
                continue;
            }
            self.outbox.acknowledge(header.acknowledged)?;
            let Some(message) = message else { continue };
            if header.sequence > expected {
                return Err(BadFrame::Gap { expected, found: header.sequence }.into());
            }
            let view = header.view;
            match wire::page_behind(&message) {
                // Nobody serves pages in a view before all its members have installed it.
                Some(_) if view > self.view => {
                    return Err(BadFrame::View { found: view, current: self.view }.into());
                }
                Some(page) => {
                    // The bytes of a view that is over are not even checked: what sent them may have changed since.
                    let over = view < self.view;
                    let landing = if over { Landing::Nowhere } else { landing(&message) };
                    self.inbox.expect_body(&header, message, page, landing);
                    if over {
                        self.inbox.ignore_body();
                    }
                }
                None => {
                    self.received.fetch_add(1, Ordering::Release);
                    if view < self.view {
                        self.counters.stale += 1;
                        continue;
                    }
                    return Ok(Some(Heard::Message { view, message, body: Delivered::Nothing }));
                }
            }
        }
    }
}

/// What members say of membership, which is in no sequence.
fn packet_in(control: &[u8]) -> Result<Heard, LinkDown> {
    let packet = wire::decode_packet(control).map_err(BadFrame::Wire)?;
    Ok(Heard::Packet(Box::new(packet)))
}

#[cfg(test)]
impl Link {
    /// As [`Link::hear`], for messages whose bytes go to their frame or nowhere.
    pub fn next(
        &mut self,
        frames: &impl Frames,
        mut reserves: impl FnMut(&Message) -> bool,
    ) -> Result<Option<Message>, LinkDown> {
        let landing = |message: &Message| if reserves(message) { Landing::Frame } else { Landing::Nowhere };
        Ok(self.hear(frames, landing)?.map(|heard| match heard {
            Heard::Message { message, .. } => message,
            Heard::Packet(packet) => panic!("{packet:?} came, and a message was due"),
        }))
    }
}
