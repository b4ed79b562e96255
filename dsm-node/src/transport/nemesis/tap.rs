//! One end of a connection with a nemesis: every call on the socket goes through here.
//!
//! A call is cut where the next event is due, so that each event happens exactly at its byte. What waits is refused with
//! "would block", and the poller, which finds the socket ready, comes again.

use super::cursor::Cursor;
use super::late;
use super::plan::{BROKEN_CALL_ONE_IN, DELAY_MIN, REPLAY_FIRST_ONE_IN, Side, WHOLE_BYTES, WHOLE_ONE_IN};
use super::schedule::{Break, Dice, Event, Schedule};
use super::{Nemesis, Way};
use crate::transport::stream::USER_TIMEOUT;
use dsm_core::NodeId;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, send};
use socket2::Socket;
use std::collections::VecDeque;
use std::io;
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// A refused call comes back at once, since the socket is ready. It is slowed down, so that a delay does not take a core.
const NAP: Duration = Duration::from_micros(50);

/// A plan with an aim lets so many pages pass on each connection before it breaks it, so that the nodes get on.
const PAGES_BEFORE_AIM: u64 = 1;

/// One end of a connection.
#[derive(Debug)]
pub(crate) struct Tap {
    nemesis: Arc<Nemesis>,
    peer: NodeId,
    side: Side,
    number: u32,
    shaking_hands: bool,
    outgoing: Lane,
    incoming: Lane,
    /// Why every further call fails.
    broken: Option<Errno>,
    /// Bytes of frames that come again: they go out before anything else.
    injected: Vec<u8>,
    /// Frames are to come again at the next place where one begins. Chance begins with this.
    replay: Option<u64>,
    /// Pages sent on this connection.
    pages: u64,
    /// The offset at which a plan with an aim breaks it.
    target: Option<u64>,
}

/// One direction of a connection.
#[derive(Debug)]
struct Lane {
    schedule: Schedule,
    /// Bytes that have passed, those of replayed frames not counted.
    offset: u64,
    next: Option<(u64, Event)>,
    /// Nothing passes before.
    delayed_until: Option<Instant>,
    /// Since when a call found the route closed.
    closed_since: Option<Instant>,
    /// Where in which frame it is, once the nodes have shaken hands.
    cursor: Option<Cursor>,
}

impl Lane {
    fn new(mut schedule: Schedule) -> Lane {
        let next = schedule.next(0);
        Lane { schedule, offset: 0, next, delayed_until: None, closed_since: None, cursor: None }
    }

    /// The event that is due before the next byte.
    fn take_due(&mut self) -> Option<Event> {
        let (_, event) = self.next.take_if(|(at, _)| *at <= self.offset)?;
        self.next = self.schedule.next(self.offset);
        Some(event)
    }

    /// How many bytes may pass before the next event.
    fn room(&self) -> usize {
        let bytes = self.next.map_or(u64::MAX, |(at, _)| at - self.offset);
        usize::try_from(bytes).unwrap_or(usize::MAX)
    }

    fn is_delayed(&mut self) -> bool {
        let now = Instant::now();
        self.delayed_until = self.delayed_until.filter(|until| now < *until);
        self.delayed_until.is_some()
    }
}

impl Tap {
    pub fn new(nemesis: Arc<Nemesis>, me: NodeId, peer: NodeId, side: Side, number: u32) -> Tap {
        let lane = |direction: u64| {
            let key = [nemesis.plan.seed, u64::from(me.0), u64::from(peer.0), u64::from(number), direction];
            let whole_until = if number % WHOLE_ONE_IN == WHOLE_ONE_IN - 1 { WHOLE_BYTES } else { 0 };
            Lane::new(match nemesis.plan.temper {
                Some(temper) => Schedule::Seeded { dice: Dice::new(&key), temper, storm: 0, whole_until },
                None => Schedule::Script(VecDeque::new()),
            })
        };
        let (outgoing, incoming) = (lane(0), lane(1));
        let mut dice = Dice::new(&[nemesis.plan.seed, u64::from(me.0), u64::from(peer.0), u64::from(number)]);
        let replays = nemesis.plan.temper.is_some() && dice.below(REPLAY_FIRST_ONE_IN) == 0;
        let mut tap = Tap::between(nemesis, peer, side, number, outgoing, incoming);
        tap.replay = replays.then(|| dice.roll());
        tap
    }

    /// A tap whose events are written down.
    #[cfg(test)]
    pub(super) fn scripted(
        nemesis: &Arc<Nemesis>,
        peer: NodeId,
        outgoing: &[(u64, Event)],
        incoming: &[(u64, Event)],
    ) -> Tap {
        let lane = |events: &[(u64, Event)]| Lane::new(Schedule::Script(events.iter().copied().collect()));
        Tap::between(Arc::clone(nemesis), peer, Side::Caller, 0, lane(outgoing), lane(incoming))
    }

    fn between(
        nemesis: Arc<Nemesis>,
        peer: NodeId,
        side: Side,
        number: u32,
        outgoing: Lane,
        incoming: Lane,
    ) -> Tap {
        Tap {
            nemesis,
            peer,
            side,
            number,
            shaking_hands: true,
            outgoing,
            incoming,
            broken: None,
            injected: Vec::new(),
            replay: None,
            pages: 0,
            target: None,
        }
    }

    /// The handshake is over: frames follow, with pages of `page_size` bytes.
    pub fn begin_frames(&mut self, page_size: usize) {
        self.shaking_hands = false;
        for lane in [&mut self.outgoing, &mut self.incoming] {
            lane.cursor = Some(Cursor::new(page_size as u64));
        }
    }

    /// Sends `head`, and then `body` bytes of a page: `write` takes so much of the one, and so many of the other.
    pub fn send(
        &mut self,
        socket: &Socket,
        head: &[u8],
        body: usize,
        write: impl FnOnce(&[u8], usize) -> io::Result<usize>,
    ) -> io::Result<usize> {
        self.pass(Way::To)?;
        let one_frame = self.aim(head);
        if self.takes_loss() {
            return self.break_outgoing(socket, Break::Lost, head, body);
        }
        while let Some(event) = self.outgoing.take_due() {
            match event {
                Event::Split => {}
                Event::Delay(span) if self.may_break() => return Err(self.delay(Way::To, span)),
                Event::Delay(_) => {}
                Event::Partition { span, both_ways } => self.part(Way::To, span, both_ways)?,
                Event::Replay { salt } => self.replay = Some(salt),
                Event::Reset(how) => {
                    if self.may_break() {
                        return self.break_outgoing(socket, how, head, body);
                    }
                }
            }
        }
        self.inject(socket, head)?;
        let offered = head.len() + body;
        let room = self.outgoing.room().min(one_frame).min(offered);
        let of_head = room.min(head.len());
        let taken = write(&head[..of_head], room - of_head)?;
        self.note_sent(head, taken);
        if taken == room && room < offered {
            self.nemesis.tally.note(|deeds| deeds.splits += 1);
        }
        Ok(taken)
    }

    /// Receives into `bytes`.
    pub fn receive(
        &mut self,
        socket: &Socket,
        bytes: &mut [u8],
        read: impl FnOnce(&mut [u8]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let room = match self.expect(socket)? {
            Some(room) => room.min(bytes.len()),
            None => return Ok(0),
        };
        let came = read(&mut bytes[..room])?;
        self.note_received(&bytes[..came], 0, came == room && room < bytes.len());
        Ok(came)
    }

    /// Receives at most `asked` bytes of a page: `read` takes as many as it is told.
    pub fn receive_page(
        &mut self,
        socket: &Socket,
        asked: usize,
        read: impl FnOnce(usize) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let room = match self.expect(socket)? {
            Some(room) => room.min(asked),
            None => return Ok(0),
        };
        let came = read(room)?;
        self.note_received(&[], came, came == room && room < asked);
        Ok(came)
    }

    /// How much may be received now; `None` if the stream seems to have ended.
    fn expect(&mut self, socket: &Socket) -> io::Result<Option<usize>> {
        self.pass(Way::From)?;
        while let Some(event) = self.incoming.take_due() {
            match event {
                // What is to be replayed is known to the other side.
                Event::Split | Event::Replay { .. } => {}
                Event::Delay(span) if self.may_break() => return Err(self.delay(Way::From, span)),
                Event::Delay(_) => {}
                Event::Partition { span, both_ways } => self.part(Way::From, span, both_ways)?,
                Event::Reset(how) => {
                    if self.may_break() {
                        return self.break_incoming(socket, how);
                    }
                }
            }
        }
        Ok(Some(self.incoming.room()))
    }

    fn lane(&mut self, way: Way) -> &mut Lane {
        match way {
            Way::To | Way::Both => &mut self.outgoing,
            Way::From => &mut self.incoming,
        }
    }

    /// Whether anything passes at all.
    fn pass(&mut self, way: Way) -> io::Result<()> {
        if let Some(errno) = self.broken {
            return Err(errno.into());
        }
        if self.nemesis.is_closed(self.peer, way) {
            let since = *self.lane(way).closed_since.get_or_insert_with(Instant::now);
            // A kernel that hears nothing of what it sent gives up. One that only waits does not.
            if way == Way::To && since.elapsed() >= USER_TIMEOUT {
                self.broken = Some(Errno::ETIMEDOUT);
                return Err(Errno::ETIMEDOUT.into());
            }
            return Err(not_now());
        }
        self.lane(way).closed_since = None;
        if self.lane(way).is_delayed() { Err(not_now()) } else { Ok(()) }
    }

    fn delay(&mut self, way: Way, span: Duration) -> io::Error {
        self.lane(way).delayed_until = Some(Instant::now() + span);
        self.nemesis.tally.note(|deeds| deeds.delays += 1);
        not_now()
    }

    fn part(&mut self, way: Way, span: Duration, both_ways: bool) -> io::Result<()> {
        // A call that has to wait for the last one's partition is not made to wait for another.
        if self.shaking_hands {
            return Ok(());
        }
        self.nemesis.close_for(self.peer, if both_ways { Way::Both } else { way }, span);
        Err(not_now())
    }

    /// Whether what begins here is to be lost by a program's call.
    fn takes_loss(&self) -> bool {
        self.outgoing.cursor.as_ref().is_some_and(Cursor::at_boundary)
            && self.nemesis.peers[self.peer.index()].loses_next.swap(false, Ordering::AcqRel)
    }

    /// Of calls in a row, few fail, and few are held up.
    fn may_break(&self) -> bool {
        let turn = match self.side {
            Side::Caller => 1,
            Side::Answerer => 0,
        };
        !self.shaking_hands || self.number % BROKEN_CALL_ONE_IN == turn
    }

    fn break_outgoing(&mut self, socket: &Socket, how: Break, head: &[u8], body: usize) -> io::Result<usize> {
        self.note_reset(Way::To);
        let offered = head.len() + body;
        match how {
            Break::Lost => {
                self.break_off(socket);
                self.note_sent(head, offered);
                self.nemesis.tally.note(|deeds| deeds.bytes_lost += offered as u64);
                Ok(offered)
            }
            Break::Failed => {
                self.break_off(socket);
                Err(Errno::ECONNRESET.into())
            }
            Break::Silent(span) => {
                self.nemesis.tally.note(|deeds| deeds.bytes_late += head.len() as u64);
                self.fall_silent(socket, head.to_vec(), span);
                Err(Errno::ECONNRESET.into())
            }
        }
    }

    fn break_incoming(&mut self, socket: &Socket, how: Break) -> io::Result<Option<usize>> {
        self.note_reset(Way::From);
        match how {
            Break::Lost => {
                // What has arrived is thrown away with the socket.
                self.break_off(socket);
                Err(Errno::ECONNRESET.into())
            }
            Break::Failed => {
                self.break_off(socket);
                Ok(None)
            }
            Break::Silent(span) => {
                self.fall_silent(socket, Vec::new(), span);
                Err(Errno::ECONNRESET.into())
            }
        }
    }

    /// Both ends learn of it, this one because its socket becomes readable.
    fn break_off(&mut self, socket: &Socket) {
        self.broken = Some(Errno::ECONNRESET);
        // Closing then resets the connection instead of ending it in order. Neither fails but where it is over anyway.
        let _ = socket.set_linger(Some(Duration::ZERO));
        let _ = socket.shutdown(Shutdown::Both);
    }

    /// This end learns of it at once, the other when `span` is over.
    fn fall_silent(&mut self, socket: &Socket, rest: Vec<u8>, span: Duration) {
        self.broken = Some(Errno::ECONNRESET);
        match socket.try_clone() {
            Ok(other) => late::linger(other, rest, span),
            // Too many open files: then both learn of it now.
            Err(_) => self.break_off(socket),
        }
    }

    fn note_reset(&mut self, way: Way) {
        let shaking_hands = self.shaking_hands;
        let aimed = way == Way::To && self.target == Some(self.outgoing.offset);
        let lane = self.lane(way);
        let in_frame = lane.cursor.as_ref().is_some_and(|cursor| !cursor.at_boundary());
        let in_page = lane.cursor.as_ref().is_some_and(Cursor::in_page);
        self.nemesis.tally.note(|deeds| {
            deeds.resets += 1;
            deeds.resets_in_frame += u64::from(in_frame);
            deeds.resets_in_page += u64::from(in_page);
            deeds.resets_in_handshake += u64::from(shaking_hands);
            deeds.resets_as_aimed += u64::from(aimed);
        });
    }

    /// Sends frames again, if it is time and a frame begins here.
    fn inject(&mut self, socket: &Socket, head: &[u8]) -> io::Result<()> {
        if let Some(cursor) = &self.outgoing.cursor
            && cursor.at_boundary()
            && let Some((next, _)) = cursor.peek(head)
            && next.sequence > 0
            && let Some(salt) = self.replay.take()
        {
            let replay = self.nemesis.peers[self.peer.index()]
                .history
                .lock()
                .replay(next.sequence, &mut Dice::new(&[salt]));
            self.nemesis.tally.note(|deeds| {
                deeds.replays += replay.again;
                deeds.reordered += replay.reordered + replay.gaps;
                deeds.gaps += replay.gaps;
            });
            self.injected = replay.bytes;
        }
        while !self.injected.is_empty() {
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
            let taken = send(socket.as_raw_fd(), &self.injected, flags)?;
            self.injected.drain(..taken);
        }
        Ok(())
    }

    /// With an aim: at most one frame passes at a time, and the one that is aimed at gets its event. How many bytes may
    /// pass.
    fn aim(&mut self, head: &[u8]) -> usize {
        let (Some(aim), Some(cursor)) = (self.nemesis.plan.aim, &self.outgoing.cursor) else {
            return usize::MAX;
        };
        let Some((header, length)) = cursor.peek(head).filter(|_| cursor.at_boundary()) else {
            return usize::MAX;
        };
        let byte = aim.step * u64::from(self.number);
        if header.body_length != 0 && self.pages == PAGES_BEFORE_AIM && byte < length as u64 {
            let how = match self.number % 3 {
                0 => Break::Lost,
                1 => Break::Failed,
                _ => Break::Silent(DELAY_MIN),
            };
            let at = self.outgoing.offset + byte;
            self.target = Some(at);
            self.outgoing.next = Some((at, Event::Reset(how)));
        }
        length
    }

    fn note_sent(&mut self, head: &[u8], taken: usize) {
        let of_head = taken.min(head.len());
        self.outgoing.offset += taken as u64;
        let history = &self.nemesis.peers[self.peer.index()].history;
        if let Some(cursor) = &mut self.outgoing.cursor {
            let pages = &mut self.pages;
            cursor.advance(&head[..of_head], taken - of_head, |frame| {
                *pages += u64::from(frame.header.body_length != 0);
                history.lock().keep(frame);
            });
        }
    }

    fn note_received(&mut self, known: &[u8], unseen: usize, cut: bool) {
        self.incoming.offset += (known.len() + unseen) as u64;
        if let Some(cursor) = &mut self.incoming.cursor {
            cursor.advance(known, unseen, |_| {});
        }
        if cut {
            self.nemesis.tally.note(|deeds| deeds.splits += 1);
        }
    }
}

/// What waits is refused.
fn not_now() -> io::Error {
    std::thread::sleep(NAP);
    Errno::EAGAIN.into()
}
