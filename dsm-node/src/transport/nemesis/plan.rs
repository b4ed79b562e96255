//! What a nemesis is to do, and how much of it a cluster can bear.
//!
//! A peer that stays out of reach is given up, and rightly so. So there are bounds, and all of them are here: what a
//! nemesis does by itself keeps a peer out of reach for less than the patience of [`RECONNECT_PATIENCE`].

use super::super::gate::RECONNECT_PATIENCE;
use super::schedule::Dice;
use dsm_core::limits::PAGE_SIZE_MIN;
use std::time::Duration;

/// No byte is held up for longer.
pub(super) const DELAY_MAX: Duration = Duration::from_millis(4);

/// A byte is held up for so long at least: less could not be told from a busy processor.
pub(super) const DELAY_MIN: Duration = Duration::from_micros(10);

/// Nothing passes for so long at most.
pub(super) const PARTITION_MAX: Duration = Duration::from_millis(250);

/// A peer believes in a connection that has broken for so long at most.
pub(super) const LINGER_MAX: Duration = Duration::from_millis(60);

/// Of so many calls in a row, as each side counts them, that side breaks one.
pub(super) const BROKEN_CALL_ONE_IN: u32 = 3;

/// What failed calls cost at worst: both sides break one each before one gets through, with pauses of 10 and 20 ms, and
/// each holds up a few bytes.
const BROKEN_CALLS_MAX: Duration = Duration::from_millis(150);

const _: () = assert!(
    2 * (PARTITION_MAX.as_millis() + LINGER_MAX.as_millis() + BROKEN_CALLS_MAX.as_millis())
        < RECONNECT_PATIENCE.as_millis(),
    "a nemesis must not make a node give up another; half of the patience is left to a busy machine"
);

/// One connection in so many is left whole for [`WHOLE_BYTES`], so that long frames get through.
pub(super) const WHOLE_ONE_IN: u32 = 4;

/// One connection in so many begins with frames of earlier ones, if chance does not bring them later.
pub(super) const REPLAY_FIRST_ONE_IN: u64 = 4;

/// What gets through on a connection that is left whole at first.
pub(super) const WHOLE_BYTES: u64 = 256 << 10;

/// What a nemesis is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    pub(super) seed: u64,
    pub(super) temper: Option<Temper>,
    pub(super) aim: Option<Aim>,
}

/// How often it does what: each kind as likely as its weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Temper {
    /// Something happens after 2 to the power of 0 to this many bytes.
    pub gap_bits: u64,
    pub split: u64,
    pub storm: u64,
    pub delay: u64,
    pub reset: u64,
    pub replay: u64,
    pub partition: u64,
}

/// Calls are cut into pieces, down to bytes.
const CHOPS: Temper =
    Temper { gap_bits: 12, split: 600, storm: 40, delay: 30, reset: 20, replay: 40, partition: 0 };

/// Bytes wait.
const STALLS: Temper =
    Temper { gap_bits: 14, split: 200, storm: 10, delay: 300, reset: 40, replay: 40, partition: 4 };

/// Connections break, and old frames come again.
const BREAKS: Temper =
    Temper { gap_bits: 14, split: 300, storm: 10, delay: 60, reset: 300, replay: 200, partition: 2 };

/// Everything at once.
const ALL: Temper =
    Temper { gap_bits: 13, split: 500, storm: 30, delay: 120, reset: 120, replay: 120, partition: 2 };

/// Which byte of which frame each connection breaks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Aim {
    /// The first at its first byte, each further one so many bytes further on.
    pub step: u64,
}

/// Which side of a connection this process is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Side {
    /// It called.
    Caller,
    /// It answered.
    Answerer,
}

impl Plan {
    /// What `seed` decides, for pages of `page_size` bytes: the longer they are, the less often something happens, so
    /// that they get through.
    #[must_use]
    pub fn seeded(seed: u64, page_size: u64) -> Plan {
        let tempers = [CHOPS, STALLS, BREAKS, ALL];
        let temper = Dice::new(&[seed]).pick(&tempers).copied();
        let further = u64::from((page_size / PAGE_SIZE_MIN).max(1).ilog2());
        let temper = temper.map(|temper| Temper { gap_bits: temper.gap_bits + further, ..temper });
        Plan { seed, temper, aim: None }
    }

    /// Nothing, until routes are closed by a call.
    #[must_use]
    pub fn quiet() -> Plan {
        Plan { seed: 0, temper: None, aim: None }
    }

    /// Each connection breaks in the second frame with a page that this process sends on it: the first connection before
    /// its first byte, each further one `step` bytes further on, until that is beyond the frame.
    #[must_use]
    pub fn aimed(step: u64) -> Plan {
        Plan { seed: 0, temper: None, aim: Some(Aim { step }) }
    }
}
