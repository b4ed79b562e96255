//! The engine's timers, on one kernel timer, and its clock, which counts the time that the machine sleeps too: a lease
//! runs out meanwhile.

use crate::error::{Error, Result};
use dsm_core::{NodeId, Time, Timer};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::time::{ClockId as Clock, clock_gettime};
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

/// What an engine is reminded of.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Reminder {
    /// A timer of the machine's.
    Machine(Timer),
    /// The membership wants to be told the time.
    Membership,
    /// Peers are to be looked at: one of them may have been killed.
    Doubt,
    /// What was held back is to be sent.
    Flush,
    /// Frames that nobody needs are to be given back.
    Discard,
    /// A peer whose link is down is to be called.
    Call(NodeId),
    /// This node has served others for long enough after it was told to stop.
    Stop,
}

/// The clock of one engine, and what it is to be reminded of.
pub(super) struct Timers {
    kernel: TimerFd,
    armed: Option<Time>,
    due: BTreeMap<Reminder, Time>,
    /// The same by time: a node may keep back as many pages as its threads touched lately.
    by_time: BTreeSet<(Time, Reminder)>,
}

impl Timers {
    pub fn new() -> Result<Timers> {
        let flags = TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK;
        let kernel = TimerFd::new(ClockId::CLOCK_BOOTTIME, flags)
            .map_err(|errno| Error::io("creating the engine's timer", errno))?;
        Ok(Timers { kernel, armed: None, due: BTreeMap::new(), by_time: BTreeSet::new() })
    }

    /// The present instant, counted from the machine's start: all processes of a machine agree on it.
    pub fn now(&self) -> Time {
        now()
    }

    /// Reminds of `reminder` at `at`, whatever was set for it before.
    pub fn set(&mut self, reminder: Reminder, at: Time) {
        if let Some(before) = self.due.insert(reminder, at) {
            self.by_time.remove(&(before, reminder));
        }
        self.by_time.insert((at, reminder));
    }

    /// Reminds of `reminder` within `span`, unless it will be reminded of anyway.
    pub fn set_within(&mut self, reminder: Reminder, span: Duration) {
        if !self.due.contains_key(&reminder) {
            self.set(reminder, self.now() + span);
        }
    }

    /// Whether anything is to remind of `reminder`.
    #[cfg(test)]
    pub fn is_set(&self, reminder: Reminder) -> bool {
        self.due.contains_key(&reminder)
    }

    /// Reminds of `reminder` within `span`, even if it was to be reminded of later.
    pub fn set_by(&mut self, reminder: Reminder, span: Duration) {
        let at = self.now() + span;
        if self.due.get(&reminder).is_none_or(|due| *due > at) {
            self.set(reminder, at);
        }
    }

    /// The next reminder whose time has come.
    pub fn take_due(&mut self, now: Time) -> Option<Reminder> {
        let (at, reminder) = *self.by_time.first().filter(|(at, _)| *at <= now)?;
        self.by_time.remove(&(at, reminder));
        self.due.remove(&reminder);
        Some(reminder)
    }

    /// Sets the kernel's timer to the earliest reminder. To be called before the engine waits.
    pub fn arm(&mut self) -> Result<()> {
        let next = self.by_time.first().map(|(at, _)| *at);
        if next == self.armed {
            return Ok(());
        }
        let armed = match next {
            // The kernel takes a span of zero for "never".
            Some(at) => {
                let span = at.since(self.now()).max(Duration::from_nanos(1));
                self.kernel
                    .set(Expiration::OneShot(TimeSpec::from_duration(span)), TimerSetTimeFlags::empty())
            }
            None => self.kernel.unset(),
        };
        armed.map_err(|errno| Error::io("setting the engine's timer", errno))?;
        self.armed = next;
        Ok(())
    }

    /// Takes note that the kernel's timer ran out.
    pub fn ran_out(&mut self) {
        self.armed = None;
        // Reading it only resets its readiness; that there is nothing to read is as good.
        let _ = self.kernel.wait();
    }
}

/// The present instant, counted from the machine's start.
pub(crate) fn now() -> Time {
    // The kernel has this clock since 2.6.39; with a valid clock the call cannot fail.
    let since = clock_gettime(Clock::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default();
    Time::ZERO + since
}

impl AsFd for Timers {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.kernel.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dsm_core::PageId;

    #[test]
    fn reminders_come_by_time_and_each_once() {
        let mut timers = Timers::new().expect("the kernel has timers");
        let at = |micros| Time::ZERO + Duration::from_micros(micros);
        let page = |number| Reminder::Machine(Timer::Residency(PageId(number)));
        timers.set(page(1), at(30));
        timers.set(page(2), at(10));
        timers.set(page(3), at(20));
        timers.set(page(1), at(5));
        timers.set(page(2), at(40));
        let due: Vec<_> = std::iter::from_fn(|| timers.take_due(at(30))).collect();
        assert_eq!(due, [page(1), page(3)]);
        assert_eq!(timers.take_due(at(40)), Some(page(2)));
        assert_eq!(timers.take_due(at(1000)), None);
    }
}
