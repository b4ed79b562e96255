//! The memory that one lock owns: a header, the lock's value, and the arena of the value's collections.
//!
//! The header's fixed part is written once. Its arena is used only by a thread that the lock lets in; because such a
//! thread may lend parts of the value to others of its process (scoped threads), each use of an arena also takes a
//! lock of this process. References to header, arena and value never overlap: each is made from the raw address of
//! its own part.

use super::arena::Arena;
use crate::error::{Error, Result};
use crate::heap::spans::{Spans, asked_for};
use dsm_core::{Address, LockId, SpanOwner, SpanRange};
use parking_lot::Mutex;
use std::alloc::Layout;
use std::ptr::{self, NonNull};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::SystemTime;

/// The first bytes of every domain, to tell one from other memory.
const MAGIC: u64 = u64::from_le_bytes(*b"dsm-lock");

/// Serial numbers of one rank lie this many bits apart from the next rank's.
const SERIAL_BITS: u32 = 48;

/// A process begins to count where a clock of so many ticks per second stands, and makes fewer domains in a second than
/// that: so it repeats no number of an earlier process of its rank.
const SERIALS_PER_SECOND: u64 = 1 << 16;

/// Counts the domains that this process made.
static MADE: AtomicU64 = AtomicU64::new(0);

/// Where this process began to count.
static BEGIN: LazyLock<u64> = LazyLock::new(|| {
    let since = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    since.as_secs().wrapping_mul(SERIALS_PER_SECOND)
});

/// How many locks of this process guard the arenas: enough that threads in different domains seldom meet.
const STRIPES: usize = 64;

/// See [`Domain::with_arena`].
static STRIPE: [Mutex<()>; STRIPES] = [const { Mutex::new(()) }; STRIPES];

const CLEAN: u32 = 0;
const POISONED: u32 = 1;

/// What a domain begins with.
#[repr(C)]
struct Header {
    magic: u64,
    /// No two domains of a cluster's life have the same, even at one address.
    serial: u64,
    /// Where the first span ends.
    first_end: u64,
    poisoned: AtomicU32,
    /// From the header's start to the value.
    value_offset: u32,
    arena: Arena,
}

/// A domain, by the address of its header, and where its spans come from.
#[derive(Clone, Copy)]
pub(crate) struct Domain {
    header: NonNull<Header>,
    spans: &'static dyn Spans,
}

// SAFETY: an address and a source of pages that any thread may ask; who may use what lies there is each method's
// condition.
unsafe impl Send for Domain {}
// SAFETY: as above.
unsafe impl Sync for Domain {}

impl Domain {
    /// Leases a domain of its own for `value`, which is moved there.
    pub(crate) fn create<T>(spans: &'static dyn Spans, rank: u32, value: T) -> Result<Domain> {
        let geometry = spans.geometry();
        let layout = Layout::new::<T>();
        if layout.align() as u64 > geometry.page_size() {
            return Err(Error::Argument(format!(
                "a DsmMutex cannot hold a value that is aligned to {} bytes: that is more than a page, which has {}",
                layout.align(),
                geometry.page_size()
            )));
        }
        let value_offset = value_offset(layout);
        let bytes = value_offset as u64 + layout.size() as u64;
        let span = spans
            .lease(geometry.pages_for(bytes), SpanOwner::NewDomain)
            .map_err(|error| asked_for(error, layout.size()))?;
        let base = geometry.address_of(span.first).0;
        let header = Header {
            magic: MAGIC,
            serial: next_serial(rank),
            first_end: base + span.pages * geometry.page_size(),
            poisoned: AtomicU32::new(CLEAN),
            value_offset: value_offset as u32,
            arena: Arena::new(geometry, span, base + bytes),
        };
        let domain = Domain::at(Address(base), spans)?;
        // SAFETY: the span was leased to this call alone and begins at a page, which aligns the header; header and
        // value fit in it without overlap, and `value_offset` is a multiple of the value's alignment.
        unsafe {
            domain.header.write(header);
            domain.header.cast::<u8>().add(value_offset).cast::<T>().write(value);
        }
        Ok(domain)
    }

    /// The domain that begins at `base`.
    pub(crate) fn at(base: Address, spans: &'static dyn Spans) -> Result<Domain> {
        let header = NonNull::new(ptr::with_exposed_provenance_mut(base.0 as usize));
        header
            .map(|header| Domain { header, spans })
            .ok_or_else(|| Error::Argument(String::from("no domain begins at address zero")))
    }

    /// Where it begins.
    pub(crate) fn base(self) -> Address {
        Address(self.header.as_ptr().addr() as u64)
    }

    /// The lock that owns it.
    pub(crate) fn lock_id(self) -> LockId {
        LockId(self.base())
    }

    /// What tells it from every other domain, even from one that stood at the same address.
    ///
    /// # Safety
    /// The domain stands: it was created and not dissolved.
    pub(crate) unsafe fn serial(self) -> u64 {
        // SAFETY: the header was written by `create` before anybody learned of the domain, and this field never since.
        unsafe { (&raw const (*self.header.as_ptr()).serial).read() }
    }

    /// Where its value is.
    ///
    /// # Safety
    /// The domain stands, and its value is a `T`.
    pub(crate) unsafe fn value<T>(self) -> NonNull<T> {
        debug_assert_eq!(
            // SAFETY: as below.
            unsafe { (&raw const (*self.header.as_ptr()).magic).read() },
            MAGIC,
            "no domain begins at {}",
            self.base()
        );
        // SAFETY: the header was written by `create`, and this field never since; the value lies so far behind it, in
        // the same span.
        unsafe {
            let offset = (&raw const (*self.header.as_ptr()).value_offset).read();
            self.header.cast::<u8>().add(offset as usize).cast::<T>()
        }
    }

    /// Whether a thread panicked while it held the lock.
    ///
    /// # Safety
    /// The domain stands.
    pub(crate) unsafe fn is_poisoned(self) -> bool {
        // SAFETY: this function's caller promises what `poison_flag` asks for.
        unsafe { self.poison_flag() }.load(Ordering::Acquire) == POISONED
    }

    /// Notes whether a thread panicked while it held the lock.
    ///
    /// # Safety
    /// The domain stands.
    pub(crate) unsafe fn set_poisoned(self, poisoned: bool) {
        // SAFETY: this function's caller promises what `poison_flag` asks for.
        unsafe { self.poison_flag() }.store(if poisoned { POISONED } else { CLEAN }, Ordering::Release);
    }

    /// # Safety
    /// The domain stands for as long as `'a`.
    unsafe fn poison_flag<'a>(self) -> &'a AtomicU32 {
        // SAFETY: the header was written by `create`, and this field is only ever reached as an atomic, which any
        // node may change.
        unsafe { &(*self.header.as_ptr()).poisoned }
    }

    /// Whether `address` lies in it.
    ///
    /// # Safety
    /// The domain stands, and its lock lets this thread, or the one that lent to it, in.
    pub(crate) unsafe fn contains(self, address: usize) -> bool {
        let address = address as u64;
        // SAFETY: the header was written by `create`, and this field never since.
        let first_end = unsafe { (&raw const (*self.header.as_ptr()).first_end).read() };
        if (self.base().0..first_end).contains(&address) {
            return true;
        }
        // SAFETY: this function's caller promises what `with_arena` asks for.
        unsafe { self.with_arena(|arena, _| arena.contains(address)) }
    }

    /// Takes a block from its arena. Waits for the engine when the arena must grow.
    ///
    /// # Safety
    /// As for [`Domain::contains`].
    pub(crate) unsafe fn allocate(self, layout: Layout) -> Result<NonNull<u8>> {
        // SAFETY: this function's caller promises what `with_arena` asks for.
        let address = unsafe { self.with_arena(|arena, spans| arena.allocate(spans, self.base(), layout)) }?;
        NonNull::new(ptr::with_exposed_provenance_mut(address as usize))
            .ok_or_else(|| Error::Argument(String::from("the arena's bookkeeping is damaged")))
    }

    /// Frees a block of its arena.
    ///
    /// # Safety
    /// As for [`Domain::contains`]; and `block` came from [`Domain::allocate`] of this domain with the same layout,
    /// was not freed since, and nobody uses it.
    pub(crate) unsafe fn release(self, block: NonNull<u8>, layout: Layout) {
        let address = block.as_ptr().expose_provenance() as u64;
        // SAFETY: this function's caller promises what `with_arena` and `Arena::release` ask for.
        unsafe { self.with_arena(|arena, spans| arena.release(spans, address, layout)) }
    }

    /// Gives all its memory back.
    ///
    /// # Safety
    /// The domain stands, its value was dropped, and nobody uses the domain after this.
    pub(crate) unsafe fn dissolve(self) {
        // SAFETY: nobody else uses the domain, as this function's caller promises.
        let spans = unsafe { self.spans() };
        // SAFETY: as above; the header is still this domain's.
        unsafe { (&raw mut (*self.header.as_ptr()).magic).write(0) };
        // The first span last: the domain's name is its address.
        for span in spans.into_iter().rev() {
            self.spans.give_back(span.first);
        }
    }

    /// The spans that it has, its first one first. Stores to nothing.
    ///
    /// # Safety
    /// As for [`Domain::contains`].
    pub(crate) unsafe fn spans(self) -> Vec<SpanRange> {
        // SAFETY: this function's caller promises what `with_arena` asks for.
        unsafe { self.with_arena(|arena, spans| arena.spans(spans.geometry(), self.base())) }
    }

    /// Runs `work` with the arena, alone in this process.
    ///
    /// `work` may wait for the engine and touch the region: the engine never takes these locks. It must not come back
    /// here.
    ///
    /// # Safety
    /// As for [`Domain::contains`].
    unsafe fn with_arena<R>(self, work: impl FnOnce(&mut Arena, &dyn Spans) -> R) -> R {
        let page = self.base().0 / self.spans.geometry().page_size();
        let _alone = STRIPE[page as usize % STRIPES].lock();
        // SAFETY: the domain stands and its lock keeps other nodes out, as this function's caller promises; the stripe
        // keeps the other threads of this process out. The reference covers the arena alone, which neither the value
        // nor the atomic flag nor any block overlaps.
        let arena = unsafe { &mut (*self.header.as_ptr()).arena };
        work(arena, self.spans)
    }
}

/// Where a value of `layout` lies, counted from the start of its domain.
fn value_offset(layout: Layout) -> usize {
    size_of::<Header>().next_multiple_of(layout.align())
}

fn next_serial(rank: u32) -> u64 {
    // Ranks count from one here, so that small numbers stay free for what is no domain.
    let count = BEGIN.wrapping_add(MADE.fetch_add(1, Ordering::Relaxed));
    (u64::from(rank) + 1) << SERIAL_BITS | count & ((1 << SERIAL_BITS) - 1)
}

#[cfg(test)]
#[path = "domain_tests.rs"]
mod tests;
