//! The machine's timers, on one kernel timer. Idle, it is disarmed: nothing wakes an idle node.

use crate::error::{Error, Result};
use dsm_core::{Time, Timer};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

/// The clock of one engine, and what it is to be reminded of.
pub(super) struct Timers {
    origin: Instant,
    kernel: TimerFd,
    armed: Option<Time>,
    due: BTreeMap<Timer, Time>,
    /// When what was held back is to be sent at the latest.
    flush: Option<Time>,
}

impl Timers {
    pub fn new() -> Result<Timers> {
        let flags = TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK;
        let kernel = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)
            .map_err(|errno| Error::io("creating the engine's timer", errno))?;
        Ok(Timers { origin: Instant::now(), kernel, armed: None, due: BTreeMap::new(), flush: None })
    }

    /// The present instant.
    pub fn now(&self) -> Time {
        Time::ZERO + self.origin.elapsed()
    }

    /// Reminds of `timer` at `at`; an earlier reminder of the same name is replaced.
    pub fn set(&mut self, timer: Timer, at: Time) {
        self.due.insert(timer, at);
    }

    /// Reminds of what is held back, `span` after the first was.
    pub fn flush_within(&mut self, span: Duration) {
        if self.flush.is_none() {
            self.flush = Some(self.now() + span);
        }
    }

    /// Whether what is held back has waited for as long as it may.
    pub fn take_flush(&mut self, now: Time) -> bool {
        self.flush.take_if(|at| *at <= now).is_some()
    }

    /// The next timer that has run out.
    pub fn take_due(&mut self, now: Time) -> Option<Timer> {
        let timer = self.due.iter().find(|&(_, at)| *at <= now).map(|(timer, _)| *timer)?;
        self.due.remove(&timer);
        Some(timer)
    }

    /// Sets the kernel's timer to the earliest reminder. To be called before the engine waits.
    pub fn arm(&mut self) -> Result<()> {
        let next = self.due.values().chain(&self.flush).min().copied();
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

impl AsFd for Timers {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.kernel.as_fd()
    }
}
