//! The kernel's interface to userfaultfd, as numbers and structures, each proved at compile time.
//!
//! Neither libc nor the headers of current distributions have all of it. The names follow `linux/userfaultfd.h`.
//! What the numbers are used for is the business of the modules above.

use std::mem::size_of;

/// The version of the interface.
pub(crate) const UFFD_API: u64 = 0xAA;

/// The flag of userfaultfd(2) by which it serves faults of user mode only, for which no privilege is needed.
pub(crate) const UFFD_USER_MODE_ONLY: libc::c_int = 1;

/// A fault, in [`Message::event`].
pub(crate) const UFFD_EVENT_PAGEFAULT: u8 = 0x12;

/// The access was a store.
pub(crate) const UFFD_PAGEFAULT_FLAG_WRITE: u64 = 1 << 0;
/// The page is mapped, and protected against stores.
pub(crate) const UFFD_PAGEFAULT_FLAG_WP: u64 = 1 << 1;
/// The page is in the file's cache, and not mapped.
pub(crate) const UFFD_PAGEFAULT_FLAG_MINOR: u64 = 1 << 2;

/// Faults on protected pages are reported.
pub(crate) const UFFD_FEATURE_PAGEFAULT_FLAG_WP: u64 = 1 << 0;
/// Faults on absent pages of shared memory are reported.
pub(crate) const UFFD_FEATURE_MISSING_SHMEM: u64 = 1 << 5;
/// A fault's message names the thread.
pub(crate) const UFFD_FEATURE_THREAD_ID: u64 = 1 << 8;
/// Faults on unmapped but cached pages of shared memory are reported.
pub(crate) const UFFD_FEATURE_MINOR_SHMEM: u64 = 1 << 10;
/// A fault's address is exact, not rounded down to the page.
pub(crate) const UFFD_FEATURE_EXACT_ADDRESS: u64 = 1 << 11;
/// Pages of shared memory can be protected.
pub(crate) const UFFD_FEATURE_WP_HUGETLBFS_SHMEM: u64 = 1 << 12;
/// Pages can be poisoned.
pub(crate) const UFFD_FEATURE_POISON: u64 = 1 << 14;

/// Register for faults on absent pages.
pub(crate) const UFFDIO_REGISTER_MODE_MISSING: u64 = 1 << 0;
/// Register for faults on protected pages.
pub(crate) const UFFDIO_REGISTER_MODE_WP: u64 = 1 << 1;
/// Register for faults on unmapped but cached pages.
pub(crate) const UFFDIO_REGISTER_MODE_MINOR: u64 = 1 << 2;

/// Map the page protected against stores.
pub(crate) const UFFDIO_CONTINUE_MODE_WP: u64 = 1 << 1;
/// Protect; without it, lift the protection.
pub(crate) const UFFDIO_WRITEPROTECT_MODE_WP: u64 = 1 << 0;
/// Lift the protection, and wake nobody.
pub(crate) const UFFDIO_WRITEPROTECT_MODE_DONTWAKE: u64 = 1 << 1;

/// A run of addresses.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Range {
    pub start: u64,
    pub len: u64,
}

/// `struct uffdio_api`.
#[repr(C)]
pub(crate) struct Api {
    pub api: u64,
    pub features: u64,
    pub ioctls: u64,
}

/// `struct uffdio_register`.
#[repr(C)]
pub(crate) struct Register {
    pub range: Range,
    pub mode: u64,
    pub ioctls: u64,
}

/// `struct uffdio_writeprotect`.
#[repr(C)]
pub(crate) struct WriteProtect {
    pub range: Range,
    pub mode: u64,
}

/// `struct uffdio_continue` and `struct uffdio_poison`, which are alike: `done` counts the bytes that were mapped or
/// poisoned, or is a negative error number.
#[repr(C)]
pub(crate) struct Resolve {
    pub range: Range,
    pub mode: u64,
    pub done: i64,
}

/// `struct uffd_msg`, of whose variants only the page fault is ever asked for.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct Message {
    pub event: u8,
    reserved: [u8; 7],
    pub flags: u64,
    pub address: u64,
    pub thread: u32,
    reserved_tail: u32,
}

const _: () = assert!(size_of::<Range>() == 16);
const _: () = assert!(size_of::<Api>() == 24);
const _: () = assert!(size_of::<Register>() == 32);
const _: () = assert!(size_of::<WriteProtect>() == 24);
const _: () = assert!(size_of::<Resolve>() == 32);
const _: () = assert!(size_of::<Message>() == 32);

/// The letter of all userfaultfd requests.
const LETTER: u64 = 0xAA;
/// The kernel reads the argument and writes to it.
const READ_WRITE: u64 = 3 << 30;
/// By its letters the kernel only writes to the argument; in fact it reads it, which the header's authors missed.
const READ: u64 = 2 << 30;

const fn request(direction: u64, number: u64, size: usize) -> u64 {
    direction | (size as u64) << 16 | LETTER << 8 | number
}

/// Makes a descriptor, on `/dev/userfaultfd`; its argument is the flags, by value.
pub(crate) const USERFAULTFD_IOC_NEW: u64 = request(0, 0x00, 0);
/// Agrees on version and features.
pub(crate) const UFFDIO_API: u64 = request(READ_WRITE, 0x3F, size_of::<Api>());
/// Registers a range.
pub(crate) const UFFDIO_REGISTER: u64 = request(READ_WRITE, 0x00, size_of::<Register>());
/// Wakes the threads that wait on a range.
pub(crate) const UFFDIO_WAKE: u64 = request(READ, 0x02, size_of::<Range>());
/// Protects a range, or lifts its protection.
pub(crate) const UFFDIO_WRITEPROTECT: u64 = request(READ_WRITE, 0x06, size_of::<WriteProtect>());
/// Maps the cached pages of a range.
pub(crate) const UFFDIO_CONTINUE: u64 = request(READ_WRITE, 0x07, size_of::<Resolve>());
/// Poisons the pages of a range.
pub(crate) const UFFDIO_POISON: u64 = request(READ_WRITE, 0x08, size_of::<Resolve>());

const _: () = assert!(USERFAULTFD_IOC_NEW == 0xAA00);
const _: () = assert!(UFFDIO_API == 0xC018_AA3F);
const _: () = assert!(UFFDIO_REGISTER == 0xC020_AA00);
const _: () = assert!(UFFDIO_WAKE == 0x8010_AA02);
const _: () = assert!(UFFDIO_WRITEPROTECT == 0xC018_AA06);
const _: () = assert!(UFFDIO_CONTINUE == 0xC020_AA07);
const _: () = assert!(UFFDIO_POISON == 0xC020_AA08);

/// The bit by which `UFFDIO_REGISTER` says that a request is offered on the range.
const fn offer(request: u64) -> u64 {
    1 << (request & 0x3F)
}

/// The requests that a registered range must offer.
pub(crate) const OFFERS_NEEDED: u64 =
    offer(UFFDIO_WAKE) | offer(UFFDIO_WRITEPROTECT) | offer(UFFDIO_CONTINUE) | offer(UFFDIO_POISON);
