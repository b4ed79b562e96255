//! Threads that wait for pages, and whether the instruction for which a page came has retired.
//!
//! The kernel does not say when a woken thread has run. Its CPU clock does: it stands still while the thread waits for
//! a page, and has moved once the thread has run. See `docs/decisions/0005-residency-by-thread-clock.md`.

use dsm_core::{Access, PageId, Progress, Time, Want};
use nix::time::{ClockId, clock_gettime};
use std::collections::HashMap;
use std::time::Duration;

/// A woken thread that has used this much CPU time has left the kernel's fault path, which takes 1–2 µs, and has run
/// its instruction.
const RETIRED_AFTER: Duration = Duration::from_micros(3);

/// A thread that faults on another page before it has used this much CPU time since its last page came may still be
/// at the same instruction.
const STRADDLES_WITHIN: Duration = Duration::from_micros(20);

/// A thread that waits for a page.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiter {
    thread: u32,
    want: Want,
    since: Time,
    clock: Option<Duration>,
}

/// A thread for which a page came: its CPU clock when it began to wait, and at the last look.
#[derive(Clone, Copy, Debug)]
struct Resident {
    thread: u32,
    clock: Duration,
    looked: Option<Duration>,
}

/// A resolved fault, for the statistics.
pub(super) struct Resolved {
    pub want: Want,
    pub took: Duration,
}

/// All threads of this node that wait for pages, or for which pages came lately.
#[derive(Default)]
pub(super) struct Faults {
    waiting: HashMap<PageId, Vec<Waiter>>,
    resident: HashMap<PageId, Vec<Resident>>,
    unclocked: Vec<PageId>,
}

impl Faults {
    /// A thread faulted. The kernel may report one fault several times. Whether it is the first report.
    pub fn begin(&mut self, page: PageId, thread: u32, want: Want, now: Time) -> bool {
        let waiters = self.waiting.entry(page).or_default();
        if let Some(known) = waiters.iter_mut().find(|waiter| waiter.thread == thread) {
            known.want = known.want.max(want);
            return false;
        }
        waiters.push(Waiter { thread, want, since: now, clock: None });
        self.unclocked.push(page);
        true
    }

    /// Notes the CPU clocks of threads that began to wait. To be called when nothing is more urgent, but before the
    /// threads are woken.
    pub fn note_clocks(&mut self) {
        for page in self.unclocked.drain(..) {
            for waiter in self.waiting.get_mut(&page).into_iter().flatten() {
                waiter.clock = waiter.clock.or_else(|| cpu_clock(waiter.thread));
            }
        }
    }

    /// `page` is about to be mapped with `access`, which wakes its waiters: those that it satisfies become its
    /// residents, the others will fault again.
    pub fn resolve(&mut self, page: PageId, access: Access, now: Time, mut count: impl FnMut(Resolved)) {
        self.note_clocks();
        let Some(waiters) = self.waiting.remove(&page) else { return };
        let residents = waiters.into_iter().filter(|waiter| access >= waiter.want.access());
        let residents: Vec<Resident> = residents
            .inspect(|waiter| count(Resolved { want: waiter.want, took: now.since(waiter.since) }))
            .filter_map(|waiter| {
                waiter.clock.map(|clock| Resident { thread: waiter.thread, clock, looked: None })
            })
            .collect();
        self.resident.insert(page, residents);
    }

    /// The threads that were woken for `page` need it no more: it is gone.
    pub fn revoked(&mut self, page: PageId) {
        self.resident.remove(&page);
    }

    /// How far the instructions are for which `page` was mapped last.
    pub fn progress(&mut self, page: PageId) -> Progress {
        let Some(mut residents) = self.resident.remove(&page) else { return Progress::Retired };
        let mut worst = Progress::Retired;
        residents.retain_mut(|resident| {
            let progress = self.progress_of(resident);
            worst = worst.max(progress);
            progress != Progress::Retired
        });
        if !residents.is_empty() {
            self.resident.insert(page, residents);
        }
        worst
    }

    /// The pages for which threads wait.
    pub fn waiting_pages(&self) -> impl Iterator<Item = PageId> + '_ {
        self.waiting.keys().copied()
    }

    fn progress_of(&self, resident: &mut Resident) -> Progress {
        let Some(clock) = cpu_clock(resident.thread) else { return Progress::Retired };
        let ran = clock.saturating_sub(resident.clock);
        let stands_still = resident.looked == Some(clock);
        resident.looked = Some(clock);
        if let Some(awaits) = self.waits_for(resident.thread) {
            // It faulted on another page; here it may be at the same instruction still, or have gone on.
            return if ran < STRADDLES_WITHIN { Progress::Straddling { awaits } } else { Progress::Retired };
        }
        // A thread that ran a little and then stopped is not in the fault path either: it waits for something else.
        if ran >= RETIRED_AFTER || (!ran.is_zero() && stands_still) {
            Progress::Retired
        } else {
            Progress::Waiting
        }
    }

    fn waits_for(&self, thread: u32) -> Option<PageId> {
        let waits = |waiters: &Vec<Waiter>| waiters.iter().any(|waiter| waiter.thread == thread);
        self.waiting.iter().find(|(_, waiters)| waits(waiters)).map(|(page, _)| *page)
    }
}

/// The CPU time that a thread of this process has used, or `None` if there is no such thread any more.
fn cpu_clock(thread: u32) -> Option<Duration> {
    /// The kernel's encoding of a thread's scheduling clock: the complement of the thread's id, then these bits (per
    /// thread, scheduler's precision); see clock_getcpuclockid(3).
    const PER_THREAD_SCHED: i32 = 0b110;
    let thread = i32::try_from(thread).ok().filter(|thread| *thread > 0)?;
    let clock = ClockId::from_raw((!thread << 3) | PER_THREAD_SCHED);
    clock_gettime(clock).ok().map(Duration::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::hint::black_box;

    fn this_thread() -> u32 {
        u32::try_from(nix::unistd::gettid().as_raw()).expect("thread ids are positive")
    }

    fn burn(cpu: Duration) {
        let start = cpu_clock(this_thread()).expect("this thread lives");
        while cpu_clock(this_thread()).expect("this thread lives") - start < cpu {
            black_box(0);
        }
    }

    #[test]
    fn a_thread_that_ran_has_retired_its_instruction() {
        let mut faults = Faults::default();
        assert!(faults.begin(PageId(1), this_thread(), Want::Read, Time::ZERO));
        assert!(!faults.begin(PageId(1), this_thread(), Want::Read, Time::ZERO));
        let mut resolved = 0;
        faults.resolve(PageId(1), Access::Read, Time::from_nanos(500), |fault| {
            assert_eq!(fault.took, Duration::from_nanos(500));
            resolved += 1;
        });
        assert_eq!(resolved, 1);
        burn(RETIRED_AFTER);
        assert_eq!(faults.progress(PageId(1)), Progress::Retired);
    }

    #[test]
    fn a_thread_that_faults_on_straight_away_straddles() {
        let mut faults = Faults::default();
        faults.begin(PageId(1), this_thread(), Want::Read, Time::ZERO);
        faults.resolve(PageId(1), Access::Read, Time::ZERO, |_| {});
        faults.begin(PageId(2), this_thread(), Want::Read, Time::ZERO);
        // The test's own thread runs on, as a blocked one would not: only the first look comes early enough.
        assert_ne!(faults.progress(PageId(1)), Progress::Waiting);
        burn(STRADDLES_WITHIN);
        assert_eq!(faults.progress(PageId(1)), Progress::Retired);
    }

    #[test]
    fn a_read_grant_leaves_the_writer_waiting() {
        let mut faults = Faults::default();
        faults.begin(PageId(1), 1, Want::Write, Time::ZERO);
        let mut resolved = 0;
        faults.resolve(PageId(1), Access::Read, Time::ZERO, |_| resolved += 1);
        assert_eq!(resolved, 0);
    }

    #[test]
    fn a_dead_thread_holds_nothing_up() {
        assert_eq!(cpu_clock(u32::MAX), None);
        let dead = std::thread::spawn(this_thread).join().expect("it only asks for its id");
        let mut faults = Faults::default();
        faults.begin(PageId(1), dead, Want::Read, Time::ZERO);
        faults.resolve(PageId(1), Access::Read, Time::ZERO, |_| {});
        assert_eq!(faults.progress(PageId(1)), Progress::Retired);
    }
}
