//! Frames that a link sent to one peer, to be sent again when nobody expects them.

use super::cursor::Passed;
use super::schedule::Dice;
use dsm_core::wire::Kind;
use std::collections::VecDeque;

/// So many frames are kept. More than a reconnect makes a link send again, as a rule.
const FRAMES_MAX: usize = 96;

/// So many frames come again at one place.
const REPLAYS_MAX: u64 = 6;

/// One in so many replays brings a frame before its turn, if there is one.
const GAP_ONE_IN: u64 = 2;

/// What fills the pages of frames that come again: no test writes it, so that a page that takes it is found.
const POISON: u8 = 0xdb;

/// The last frames that a link sent, whether or not they arrived.
#[derive(Debug, Default)]
pub(super) struct History {
    frames: VecDeque<Passed>,
}

/// What is to be put into the stream.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Replay {
    pub bytes: Vec<u8>,
    /// Frames that the peer has.
    pub again: u64,
    /// Of these, those that come before one that was sent earlier.
    pub reordered: u64,
    /// Frames whose turn it is not: 0 or 1.
    pub gaps: u64,
}

impl History {
    /// Keeps a frame. One that was sent twice is kept as it was last.
    pub fn keep(&mut self, frame: Passed) {
        match frame.header.kind {
            // It has no number by which the peer could tell that it is old: no connection brings one back.
            Kind::Acknowledgement | Kind::Membership => return,
            Kind::Data => {}
        }
        self.frames.retain(|kept| kept.header.sequence != frame.header.sequence);
        if self.frames.len() == FRAMES_MAX {
            self.frames.pop_front();
        }
        self.frames.push_back(frame);
    }

    /// Some of the frames that the peer has, in any order, where the frame with the number `next` is due. Sometimes
    /// one follows that the peer has not, and whose turn it is not.
    pub fn replay(&self, next: u64, dice: &mut Dice) -> Replay {
        let mut replay = Replay::default();
        let had: Vec<&Passed> = self.frames.iter().filter(|frame| frame.header.sequence < next).collect();
        let mut last = 0;
        for _ in 0..=dice.below(REPLAYS_MAX) {
            let Some(frame) = dice.pick(&had) else { break };
            replay.again += 1;
            replay.reordered += u64::from(frame.header.sequence < last);
            last = frame.header.sequence;
            replay.put(frame);
        }
        let early: Vec<&Passed> = self.frames.iter().filter(|frame| frame.header.sequence > next).collect();
        if dice.below(GAP_ONE_IN) == 0
            && let Some(frame) = dice.pick(&early)
        {
            replay.gaps += 1;
            replay.put(frame);
        }
        replay
    }
}

impl Replay {
    fn put(&mut self, frame: &Passed) {
        self.bytes.extend_from_slice(&frame.head);
        // The page may have changed since, so that its checksum need not match; the peer must not even look.
        self.bytes.resize(self.bytes.len() + frame.header.body_length as usize, POISON);
    }
}
