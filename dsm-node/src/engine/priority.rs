//! The engine's place on a busy processor.
//!
//! Other nodes wait for this node's engine, whatever its application does. An engine works for microseconds and then
//! sleeps, so it asks the scheduler for a short slice: a thread with a shorter slice than the running one's is let in
//! when it wakes (Linux 6.12 and newer; no privilege is needed). Where negative nice values are permitted it takes one
//! as well, which does the same on older kernels.

use nix::errno::Errno;

/// The shortest slice that the kernel grants.
const SLICE_NANOS: u64 = 100_000;

/// Well before any ordinary thread, and behind what system services use.
const NICE: i32 = -15;

/// `struct sched_attr` of the kernel, in its first published size.
#[repr(C)]
#[derive(Default)]
struct SchedulingAttributes {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

const _: () = assert!(size_of::<SchedulingAttributes>() == 48);

/// Lets the calling thread in early when it wakes, as far as the kernel permits. Without it everything works, but
/// a node whose processors are all computing answers others late.
pub(super) fn wake_early() {
    if set(SLICE_NANOS, NICE).is_err() {
        // Nice values below zero are a privilege; a short slice is not. An older kernel ignores the slice.
        let _ = set(SLICE_NANOS, 0);
    }
}

fn set(slice_nanos: u64, nice: i32) -> Result<(), Errno> {
    let attributes = SchedulingAttributes {
        size: size_of::<SchedulingAttributes>() as u32,
        policy: libc::SCHED_OTHER as u32,
        nice,
        runtime: slice_nanos,
        ..SchedulingAttributes::default()
    };
    // SAFETY: `attributes` is live, laid out as the kernel's structure, and as long as its first field says; thread 0 is
    // the calling one; there are no flags.
    let answer = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    Errno::result(answer).map(drop)
}
