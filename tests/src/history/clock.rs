//! The clock by which operations on real nodes are timed. A machine has one: all its processes may compare times.

use nix::time::{ClockId, clock_gettime};
use std::arch::x86_64::_mm_lfence;
use std::fs;
use std::sync::atomic::{Ordering, fence};

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// The time, in nanoseconds. What the program does before it has taken effect by then; what it does after it has not.
///
/// # Panics
/// If the machine has no monotonic clock.
#[must_use]
pub fn now() -> u64 {
    order();
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("every Linux has a monotonic clock");
    order();
    let part = |part: i64| u64::try_from(part).expect("the clock starts at zero");
    part(time.tv_sec()) * NANOS_PER_SECOND + part(time.tv_nsec())
}

/// Lets no access to memory, and no look at the clock, pass from one side to the other.
fn order() {
    // The fence drains the stores; the clock is no memory, and only the second instruction keeps it in its place.
    fence(Ordering::SeqCst);
    // SAFETY: the instruction belongs to SSE2, which every x86-64 processor has.
    unsafe { _mm_lfence() };
}

/// What two processes must have in common so that they may compare times: the machine's boot, and the offset of its
/// clock that they are shown.
///
/// # Panics
/// If the kernel does not tell.
#[must_use]
pub fn identity() -> String {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("the kernel names each boot");
    let namespace = fs::read_link("/proc/self/ns/time").expect("every process has a time namespace");
    format!("{} {}", boot.trim(), namespace.display())
}
