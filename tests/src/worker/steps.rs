//! Runs code one machine instruction at a time, and ends the process behind a store of one's choice: what was stored
//! before it is there, and nothing of what would have come after.
//!
//! With the trap flag set, the processor raises SIGTRAP behind every instruction. The handler compares the memory that is
//! watched with what it was one instruction before.

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, kill, sigaction};
use nix::unistd::Pid;
use std::arch::asm;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};

/// Areas that can be watched at once.
const AREAS_MAX: usize = 2;

/// Each begins here, ...
static AREAS: [AtomicPtr<u8>; AREAS_MAX] = [const { AtomicPtr::new(ptr::null_mut()) }; AREAS_MAX];
/// ... and was like this when it was looked at last.
static SNAPSHOTS: [AtomicPtr<u8>; AREAS_MAX] = [const { AtomicPtr::new(ptr::null_mut()) }; AREAS_MAX];
/// Bytes of each.
static LENGTH: AtomicUsize = AtomicUsize::new(0);
/// Stores so far.
static STORES: AtomicU64 = AtomicU64::new(0);
/// The store behind which the process ends.
static LAST: AtomicU64 = AtomicU64::new(u64::MAX);

/// Runs `work`, and ends the process by SIGKILL behind its store number `last`, as seen in `length` bytes from each of
/// `areas` on; before its first instruction if `last` is zero. How many stores there were, if it comes to its end.
///
/// # Safety
/// The areas can be read for as long as this runs, and nobody but this thread stores to them. No other thread of this
/// process does the same at the same time.
pub(super) unsafe fn run_to_store(
    areas: [*const u8; AREAS_MAX],
    length: usize,
    last: u64,
    work: impl FnOnce(),
) -> u64 {
    LENGTH.store(length, Ordering::SeqCst);
    LAST.store(last, Ordering::SeqCst);
    STORES.store(0, Ordering::SeqCst);
    for (index, area) in areas.into_iter().enumerate() {
        let mut snapshot = vec![0_u8; length].into_boxed_slice();
        // SAFETY: the area can be read, and the snapshot is as long and new.
        unsafe { ptr::copy_nonoverlapping(area, snapshot.as_mut_ptr(), length) };
        AREAS[index].store(area.cast_mut(), Ordering::SeqCst);
        // Kept for good: the process ends soon.
        SNAPSHOTS[index].store(Box::leak(snapshot).as_mut_ptr(), Ordering::SeqCst);
    }
    if last == 0 {
        die();
    }
    let action = SigAction::new(SigHandler::Handler(step), SaFlags::empty(), SigSet::empty());
    // SAFETY: the handler calls nothing but what is allowed in handlers.
    unsafe { sigaction(Signal::SIGTRAP, &action) }.expect("a handler can be set");
    // SAFETY: this sets the trap flag, and the one below clears it; no other flag changes, but for those of arithmetic,
    // which an assembly block may change. The stack is used as a block without `nostack` may.
    unsafe { asm!("pushfq", "or qword ptr [rsp], 0x100", "popfq") };
    work();
    // SAFETY: as above.
    unsafe { asm!("pushfq", "and qword ptr [rsp], ~0x100", "popfq") };
    STORES.load(Ordering::SeqCst)
}

/// One instruction is done.
extern "C" fn step(_: libc::c_int) {
    let length = LENGTH.load(Ordering::Relaxed);
    for (area, snapshot) in AREAS.iter().zip(&SNAPSHOTS) {
        let (area, snapshot) = (area.load(Ordering::Relaxed), snapshot.load(Ordering::Relaxed));
        // SAFETY: both are `length` bytes long; the area can be read, and the snapshot is this module's own.
        let is_changed = unsafe { libc::memcmp(area.cast(), snapshot.cast(), length) } != 0;
        if !is_changed {
            continue;
        }
        // SAFETY: as above.
        unsafe { ptr::copy_nonoverlapping(area, snapshot, length) };
        if STORES.fetch_add(1, Ordering::Relaxed) + 1 == LAST.load(Ordering::Relaxed) {
            die();
        }
    }
}

fn die() {
    // A signal to oneself cannot fail, and this one leaves nothing to go on.
    let _ = kill(Pid::this(), Signal::SIGKILL);
}
