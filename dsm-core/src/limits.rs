//! Every limit of the protocol: its name, its value, and why.

use crate::copyset::Copyset;
use core::time::Duration;

/// Nodes in one cluster. A copyset is one machine word.
pub const NODES_MAX: usize = 64;

/// The smallest page: the kernel's own.
pub const PAGE_SIZE_MIN: u64 = 4 << 10;

/// The largest page: what one transfer moves at once, and the size of a segment.
pub const PAGE_SIZE_MAX: u64 = 2 << 20;

/// The page size unless the user says otherwise.
pub const PAGE_SIZE_DEFAULT: u64 = PAGE_SIZE_MIN;

/// Pages with one home come in runs of this many bytes, in regions that are large enough.
pub const SEGMENT_SIZE: u64 = 2 << 20;

/// A region has at least this many segments where its size allows, so that every node is home to some of it.
pub const SEGMENTS_MIN: u64 = 64;

/// The region's base unless the user says otherwise: far from where the kernel places anything by itself.
pub const REGION_BASE_DEFAULT: u64 = 0x2000_0000_0000;

/// The region's size unless the user says otherwise: sparse address space, which costs nothing until touched.
pub const REGION_SIZE_DEFAULT: u64 = 64 << 30;

/// User addresses end here on x86-64 with four-level page tables.
pub const ADDRESS_MAX: u64 = 0x7fff_ffff_f000;

/// One part in this many of the region, at its end, serves spans that are longer than a segment.
pub const LARGE_ZONE_SHARE: u64 = 2;

/// The longest name of a root, in bytes.
pub const NAME_LENGTH_MAX: usize = 256;

/// The longest encoded control message. The longest message carries one name and a few numbers.
pub const CONTROL_LENGTH_MAX: usize = 1024;

/// Faults, lock calls and the like that one page's or one lock's home keeps waiting. Each node has at most one request
/// per page outstanding; a lock may have as many waiting threads as the cluster has threads.
pub const LOCK_WAITERS_MAX: usize = 1 << 16;

/// Locks that one node holds or waits for at one home, and names that it waits for there: more than a node has threads,
/// with room for threads that hold many locks at once. A home's memory for one peer ends here, whatever the peer says.
pub const CALLS_MAX: usize = 1 << 16;

/// Names of roots that one home keeps. A root is where a program's data begins: programs have a few.
pub const NAMES_MAX: usize = 1 << 16;

/// A granted page stays until the instruction that faulted has retired, but no longer than this: a thread that a busy
/// core does not run for so long may lose its page unused.
pub const RESIDENCY_MAX: Duration = Duration::from_millis(10);

/// An instruction that needs two pages keeps the lower one while it waits for the higher one, and yields the higher one
/// while it waits for the lower one, so that no nodes wait for each other in a circle. The higher page comes once all
/// that are ahead in its queue had their residency; this bounds the wait where the guess, that one instruction needs
/// both, is wrong.
pub const STRADDLE_PATIENCE: Duration = Duration::from_millis(100);

/// A page that a node loads from and then stores to, after another node had done the same, will be stored to by the next
/// as well: its loads are granted like stores, which saves the upgrade. After so many such grants one load is granted
/// as such, to see whether a store still follows.
pub const MIGRATORY_GRANTS: u8 = 16;

/// A confirmation that nobody waits for may be held back for so long, to travel with the next request: a node that
/// walks through pages sends and receives one message less per fault.
pub const HOLD_BACK_MAX: Duration = Duration::from_micros(200);

/// So many dirty pages are committed though nobody waits for them: the record that a fault then waits for stays small.
/// A mebibyte of the smallest pages takes a millisecond or so on its way.
pub const WRITE_BEHIND_PAGES: usize = 256;

/// Pages that a node may have stored to and that are not replicated yet: while there are more, and acks are to come, its
/// further stores wait for those. So much is what a buddy must have room for, and what a sender can fall behind. With
/// the smallest pages it is 16 MiB: sixteen records' worth of [`WRITE_BEHIND_PAGES`] under way at once, more than a link
/// of a gigabyte per second holds in ten milliseconds, so that no store waits while its buddies keep up.
pub const UNREPLICATED_PAGES_MAX: usize = 1 << 12;

/// Records that a node begins in one view: at 100,000 a second, in ninety years. A member that names a later one would take
/// the rest of the numbers from all that hear of it.
pub const RECORDS_MAX: u64 = 1 << 48;

/// The length of the runs, locks or spans in one message of a report, encoded, in bytes: what is left of a control
/// message once it says what it is.
pub const REPORT_LENGTH_MAX: usize = CONTROL_LENGTH_MAX - 16;

/// The low bits of a transaction's number that only its node can tell beforehand, where numbers are keyed. A peer that
/// names a transaction that it was never told of, by mistake or by damage, is wrong 65,535 times in 65,536, and has
/// then lost its connection. What is left counts 2^48 transactions: eighty years at 100,000 a second.
pub const TOKEN_BITS: u32 = 16;

/// How soon a page whose instruction had not retired is looked at again.
pub const RESIDENCY_POLL: Duration = Duration::from_micros(20);

const _: () = assert!(NODES_MAX <= Copyset::BITS);
const _: () = assert!(PAGE_SIZE_MAX <= SEGMENT_SIZE);
const _: () = assert!(PAGE_SIZE_MIN.is_power_of_two() && PAGE_SIZE_MAX.is_power_of_two());
const _: () = assert!(WRITE_BEHIND_PAGES < UNREPLICATED_PAGES_MAX);
const _: () = assert!(NAME_LENGTH_MAX * 2 < CONTROL_LENGTH_MAX);
const _: () = assert!(STRADDLE_PATIENCE.as_nanos() > RESIDENCY_MAX.as_nanos());
