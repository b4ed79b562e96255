//! Threads that wait for pages, and whether the instruction for which a page came has retired.
//!
//! The kernel does not say when a woken thread has run. Its CPU clock does: it stands still while the thread waits for
//! a page, and has moved once the thread has run. Reading it costs a system call, so it is read only for pages that
//! nodes have contended for; for the others, the time since the page came is the guess. See
//! `docs/decisions/0005-residency-by-thread-clock.md`.

use dsm_core::{Access, PageId, Progress, Time, Want};
use nix::time::{ClockId, clock_gettime};
use std::collections::{HashSet, VecDeque};
use std::time::Duration;

/// A woken thread that has used this much CPU time has left the kernel's fault path and run its instruction: that
/// takes 3.4 µs at the median and 5.8 µs at the 99th percentile.
const RETIRED_AFTER: Duration = Duration::from_micros(8);

/// A thread that faults on another page before it has used this much CPU time since its last page came may still be
/// at the same instruction.
const STRADDLES_WITHIN: Duration = Duration::from_micros(20);

/// Without a CPU clock to look at, an instruction is taken to have retired after this time: longer than a wake takes
/// on an idle processor. If the guess is wrong the page is contended from then on, and clocks are read.
const GUESSED_RESIDENCY: Duration = Duration::from_micros(50);

/// How many recent wakes are remembered. Older ones have retired.
const WOKEN_MAX: usize = 256;

/// How many contended pages are remembered. Beyond it all are forgotten, and learned again.
const CONTENDED_MAX: usize = 4096;

/// A thread that waits for a page.
#[derive(Clone, Copy, Debug)]
struct Waiter {
    page: PageId,
    thread: u32,
    want: Want,
    since: Time,
    clock: Option<Duration>,
}

/// A thread for which a page came: when, since when the page had been there, and the thread's CPU clock when it began to
/// wait, and at the last look.
#[derive(Clone, Copy, Debug)]
struct Woken {
    page: PageId,
    thread: u32,
    at: Time,
    mapped: Time,
    clock: Option<Duration>,
    looked: Option<Duration>,
}

/// Why threads that wait for a page are woken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Mapped {
    /// The page is mapped now.
    Now,
    /// It had been mapped before their faults were read.
    Before,
}

/// A resolved fault, for the statistics.
pub(super) struct Resolved {
    pub want: Want,
    pub took: Duration,
}

/// All threads of this node that wait for pages, or for which pages came lately.
#[derive(Default)]
pub(super) struct Faults {
    waiting: Vec<Waiter>,
    woken: VecDeque<Woken>,
    contended: HashSet<PageId>,
    unclocked: bool,
}

impl Faults {
    /// A thread faulted. The kernel may report one fault several times. Whether it is the first report.
    pub fn begin(&mut self, page: PageId, thread: u32, want: Want, now: Time) -> bool {
        let known = |waiter: &&mut Waiter| waiter.page == page && waiter.thread == thread;
        if let Some(known) = self.waiting.iter_mut().find(known) {
            known.want = known.want.max(want);
            return false;
        }
        self.unclocked |= !self.contended.is_empty() && self.contended.contains(&page);
        self.waiting.push(Waiter { page, thread, want, since: now, clock: None });
        true
    }

    /// Since when the thread has waited that has waited longest.
    pub fn oldest(&self) -> Option<Time> {
        self.waiting.iter().map(|waiter| waiter.since).min()
    }

    /// Notes the CPU clocks of threads that began to wait for contended pages. To be called when nothing is more
    /// urgent, but before the threads are woken.
    pub fn note_clocks(&mut self) {
        if !std::mem::take(&mut self.unclocked) {
            return;
        }
        for waiter in &mut self.waiting {
            if waiter.clock.is_none() && self.contended.contains(&waiter.page) {
                waiter.clock = cpu_clock(waiter.thread);
            }
        }
    }

    /// `page` is about to be mapped with `access`, or was before, and its waiters are woken: those that it satisfies are
    /// noted, the others will fault again.
    pub fn resolve(
        &mut self,
        page: PageId,
        access: Access,
        mapped: Mapped,
        now: Time,
        mut count: impl FnMut(Resolved),
    ) {
        self.note_clocks();
        let woken = &mut self.woken;
        let mapped = match mapped {
            Mapped::Now => now,
            Mapped::Before => mapped_last(woken, page).unwrap_or(now),
        };
        self.waiting.retain(|waiter| {
            if waiter.page != page {
                return true;
            }
            if access >= waiter.want.access() {
                count(Resolved { want: waiter.want, took: now.since(waiter.since) });
                let (thread, clock) = (waiter.thread, waiter.clock);
                // A fault that was reported again after its thread had been woken says nothing new of the thread.
                if !woken.iter().any(|one| one.thread == thread && one.page == page && one.mapped == mapped) {
                    if woken.len() == WOKEN_MAX {
                        woken.pop_front();
                    }
                    woken.push_back(Woken { page, thread, at: now, mapped, clock, looked: None });
                }
            }
            false
        });
    }

    /// Those of `pages` pages from `first` on that threads wait for.
    pub fn awaited_in(&self, first: PageId, pages: u64) -> Vec<PageId> {
        let run = first.0..first.0 + pages;
        self.waiting.iter().map(|waiter| waiter.page).filter(|page| run.contains(&page.0)).collect()
    }

    /// How far the instructions are for which `page` was mapped last. That somebody asks makes the page contended.
    pub fn progress(&mut self, page: PageId, now: Time) -> Progress {
        if self.contended.len() >= CONTENDED_MAX && !self.contended.contains(&page) {
            self.contended.clear();
        }
        self.contended.insert(page);
        let Some(last) = mapped_last(&self.woken, page) else {
            return Progress::Retired;
        };
        let mut worst = Progress::Retired;
        for woken in self.woken.iter_mut().rev().take_while(|woken| woken.at >= last) {
            if woken.page != page || woken.mapped != last {
                continue;
            }
            worst = match (progress_of(woken, &self.waiting, now), worst) {
                // A thread that waits for a core may finish the moment it has one: it comes before all others.
                (Progress::Waiting, _) => return Progress::Waiting,
                (progress, worst) => worst.max(progress),
            };
        }
        worst
    }
}

/// When `page` was mapped last, if any of the threads for which it was is remembered.
fn mapped_last(woken: &VecDeque<Woken>, page: PageId) -> Option<Time> {
    woken.iter().rev().find(|woken| woken.page == page).map(|woken| woken.mapped)
}

fn progress_of(woken: &mut Woken, waiting: &[Waiter], now: Time) -> Progress {
    let elsewhere = waiting.iter().find(|waiter| waiter.thread == woken.thread);
    let Some(before) = woken.clock else {
        return match elsewhere {
            Some(waiter) if waiter.since.since(woken.at) < STRADDLES_WITHIN => {
                Progress::Straddling { awaits: waiter.page }
            }
            None if now.since(woken.at) < GUESSED_RESIDENCY => Progress::Waiting,
            Some(_) | None => Progress::Retired,
        };
    };
    let Some(clock) = cpu_clock(woken.thread) else { return Progress::Retired };
    let ran = clock.saturating_sub(before);
    let stands_still = woken.looked == Some(clock);
    woken.looked = Some(clock);
    match elsewhere {
        // It faulted on another page; here it may be at the same instruction still, or have gone on.
        Some(waiter) if ran < STRADDLES_WITHIN => Progress::Straddling { awaits: waiter.page },
        // A thread that ran a little and then stopped is not in the fault path either: it waits for something else.
        None if ran < RETIRED_AFTER && (ran.is_zero() || !stands_still) => Progress::Waiting,
        Some(_) | None => Progress::Retired,
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
    use std::sync::mpsc::{Sender, channel};
    use std::thread::JoinHandle;

    const PAGE: PageId = PageId(1);

    fn at(micros: u64) -> Time {
        Time::ZERO + Duration::from_micros(micros)
    }

    /// A thread that sleeps, as one does that waits for a page, until the other end is dropped.
    fn sleeper() -> (u32, Sender<()>, JoinHandle<()>) {
        let (wake, woken) = channel::<()>();
        let (name, named) = channel();
        let sleeper = std::thread::spawn(move || {
            let me = this_thread();
            name.send(me).expect("the test listens");
            assert!(woken.recv().is_err(), "it is only ever dropped");
        });
        (named.recv().expect("it starts"), wake, sleeper)
    }

    /// Uses as much of the calling thread's CPU time as it takes to retire an instruction.
    fn run_for_a_while(me: u32) {
        let start = cpu_clock(me).expect("this thread lives");
        while cpu_clock(me).expect("this thread lives") - start < RETIRED_AFTER {
            black_box(0);
        }
    }

    /// The kernel's name for the calling thread.
    fn this_thread() -> u32 {
        u32::try_from(nix::unistd::gettid().as_raw()).expect("thread ids are positive")
    }

    /// A page that is contended, for which `thread` waited until now.
    fn woken(thread: u32) -> Faults {
        let mut faults = Faults::default();
        faults.progress(PAGE, at(0));
        assert!(faults.begin(PAGE, thread, Want::Read, at(0)));
        assert!(!faults.begin(PAGE, thread, Want::Read, at(0)), "a report of the same fault");
        let mut took = Vec::new();
        faults.resolve(PAGE, Access::Read, Mapped::Now, at(5), |fault| took.push(fault.took));
        assert_eq!(took, [Duration::from_micros(5)]);
        faults
    }

    #[test]
    fn a_page_that_nobody_waits_for_holds_nothing_up() {
        assert_eq!(Faults::default().progress(PAGE, at(0)), Progress::Retired);
    }

    #[test]
    fn a_dead_thread_holds_nothing_up() {
        assert_eq!(cpu_clock(u32::MAX), None);
        let (thread, wake, sleeper) = sleeper();
        let mut faults = woken(thread);
        drop(wake);
        sleeper.join().expect("it ends");
        // The kernel may take a moment to forget a thread that has been joined; it has stopped all the same.
        faults.progress(PAGE, at(6));
        assert_eq!(faults.progress(PAGE, at(6)), Progress::Retired);
    }

    #[test]
    fn a_thread_that_ran_has_retired_its_instruction() {
        let me = this_thread();
        let mut faults = woken(me);
        run_for_a_while(me);
        assert_eq!(faults.progress(PAGE, at(6)), Progress::Retired);
    }

    #[test]
    fn a_thread_that_comes_to_a_page_later_does_not_hide_the_first() {
        let (first, wake, sleeper) = sleeper();
        let me = this_thread();
        let mut faults = woken(first);
        faults.begin(PAGE, me, Want::Read, at(6));
        faults.resolve(PAGE, Access::Read, Mapped::Before, at(7), |_| {});
        run_for_a_while(me);
        assert_eq!(faults.progress(PAGE, at(8)), Progress::Waiting);
        drop(wake);
        sleeper.join().expect("it ends");
    }

    #[test]
    fn a_late_second_report_does_not_bring_an_instruction_back() {
        let me = this_thread();
        let mut faults = woken(me);
        run_for_a_while(me);
        faults.begin(PAGE, me, Want::Read, at(6));
        faults.resolve(PAGE, Access::Read, Mapped::Before, at(7), |_| {});
        assert_eq!(faults.woken.len(), 1);
        assert_eq!(faults.progress(PAGE, at(8)), Progress::Retired);
    }

    #[test]
    fn without_a_clock_the_time_since_the_wake_is_the_guess() {
        let mut faults = Faults::default();
        faults.begin(PAGE, 1, Want::Read, at(0));
        faults.resolve(PAGE, Access::Read, Mapped::Now, at(0), |_| {});
        assert_eq!(faults.progress(PAGE, at(1)), Progress::Waiting);
        assert_eq!(faults.progress(PAGE, Time::ZERO + GUESSED_RESIDENCY), Progress::Retired);
    }

    #[test]
    fn a_thread_that_faults_on_straight_away_straddles() {
        let other = PageId(2);
        for (second_fault, progress) in
            [(1, Progress::Straddling { awaits: other }), (1000, Progress::Retired)]
        {
            let mut faults = Faults::default();
            faults.begin(PAGE, 1, Want::Read, at(0));
            faults.resolve(PAGE, Access::Read, Mapped::Now, at(0), |_| {});
            faults.begin(other, 1, Want::Read, at(second_fault));
            assert_eq!(faults.progress(PAGE, at(second_fault)), progress);
        }
    }

    #[test]
    fn a_read_grant_leaves_the_writer_to_fault_again() {
        let mut faults = Faults::default();
        faults.begin(PAGE, 1, Want::Write, at(0));
        faults.resolve(PAGE, Access::Read, Mapped::Now, at(0), |_| {
            panic!("a store is not satisfied by a read grant")
        });
        assert!(faults.begin(PAGE, 1, Want::Write, at(1)), "its next report is a new fault");
    }
}
