//! The allocator of a domain. Its bookkeeping lies in the domain itself, because whoever has the lock, on whichever
//! node, continues where the last holder stopped.
//!
//! Blocks are cut from the front of a span; freed ones form a list per class, linked through their own first bytes.
//! Large blocks get spans of their own. Who may call is not decided here: the caller holds the domain's lock, and
//! the process's stripe for it (`domain`).

use crate::error::Result;
use crate::heap::classes::{Class, SMALL_CLASSES};
use crate::heap::spans::{Spans, asked_for, lease_up_to};
use dsm_core::{Address, Geometry, SpanOwner, SpanRange};
use std::alloc::Layout;
use std::ptr;

/// Spans in one table, so that a table fills a block of half a kibibyte.
const TABLE_SPANS: usize = 30;

/// A span doubles the one before it, so that an arena has few.
const GROWTH: u64 = 2;

/// The end of a list: no block begins there.
const NULL: u64 = 0;

/// A span of the domain. A length of zero marks an unused record.
#[derive(Clone, Copy)]
#[repr(C)]
struct Record {
    start: u64,
    bytes: u64,
}

/// Some spans of the domain, and the address of the next table.
#[repr(C)]
struct Table {
    next: u64,
    records: [Record; TABLE_SPANS],
}

/// The bookkeeping of one domain. Holds addresses, no pointers: all nodes read it.
#[repr(C)]
pub(crate) struct Arena {
    /// Where the next fresh block may begin, and where the fresh room ends.
    fresh: u64,
    end: u64,
    /// The length of the last span, for the next one's.
    last_pages: u64,
    free: [u64; SMALL_CLASSES],
    table: Table,
}

impl Arena {
    /// An arena whose first span is `span`, of which all before `fresh` is in use.
    pub(crate) fn new(geometry: &Geometry, span: SpanRange, fresh: u64) -> Arena {
        let record = Record::of(geometry, span);
        let mut arena = Arena {
            fresh,
            end: record.start + record.bytes,
            last_pages: span.pages,
            free: [NULL; SMALL_CLASSES],
            table: Table::empty(),
        };
        arena.table.records[0] = record;
        arena
    }

    /// Takes a block for `layout`, of the domain that begins at `base`. Waits for the engine when it must grow.
    pub(crate) fn allocate(&mut self, spans: &dyn Spans, base: Address, layout: Layout) -> Result<u64> {
        match Class::of(layout) {
            Some(class) => self.allocate_small(spans, base, class),
            None => self.allocate_large(spans, base, layout),
        }
        .map_err(|error| asked_for(error, layout.size()))
    }

    /// Frees the block at `address`.
    ///
    /// # Safety
    /// `address` came from this arena's `allocate` with the same layout, was not freed since, and nobody uses it.
    pub(crate) unsafe fn release(&mut self, spans: &dyn Spans, address: u64, layout: Layout) {
        if let Some(class) = Class::of(layout) {
            let head = &mut self.free[class.index()];
            // SAFETY: the block is this arena's and unused, as this function's caller promises; every class is long
            // enough for one word and aligned for it.
            unsafe { pointer::<u64>(address).write(*head) };
            *head = address;
            return;
        }
        if let Some(record) = self.records().find(|record| record.holds(address)) {
            let first = spans.geometry().page_of(Address(record.start));
            *record = Record::UNUSED;
            if let Some(first) = first {
                spans.give_back(first);
            }
        }
    }

    /// Whether `address` lies in one of the domain's spans.
    pub(crate) fn contains(&mut self, address: u64) -> bool {
        self.records().any(|record| record.holds(address))
    }

    /// All spans of the domain that begins at `base`, its first span first. Reads only.
    pub(crate) fn spans(&mut self, geometry: &Geometry, base: Address) -> Vec<SpanRange> {
        let owner = SpanOwner::Domain(base);
        let span = |record: &mut Record| {
            let first = geometry.page_of(Address(record.start)).filter(|_| record.bytes > 0)?;
            Some(SpanRange { first, pages: record.bytes / geometry.page_size(), owner })
        };
        self.records().filter_map(span).collect()
    }

    fn allocate_small(&mut self, spans: &dyn Spans, base: Address, class: Class) -> Result<u64> {
        let head = self.free[class.index()];
        if head != NULL {
            // SAFETY: a block on the list is unused and begins with the address of the next, which `release` wrote.
            self.free[class.index()] = unsafe { pointer::<u64>(head).read() };
            return Ok(head);
        }
        if let Some(address) = self.cut(class) {
            return Ok(address);
        }
        self.grow(spans, base, class)?;
        // A span begins at a page and is long enough for the block behind a new table, so that this is never an error.
        self.cut(class).ok_or_else(|| crate::Error::Argument(String::from("an arena grew by too little")))
    }

    /// Cuts a block from the fresh room.
    fn cut(&mut self, class: Class) -> Option<u64> {
        let address = self.fresh.next_multiple_of(class.align() as u64);
        let after = address + class.size() as u64;
        (after <= self.end).then(|| {
            self.fresh = after;
            address
        })
    }

    /// Leases a span in which a block of `class` fits.
    fn grow(&mut self, spans: &dyn Spans, base: Address, class: Class) -> Result<()> {
        let geometry = spans.geometry();
        // Room for a table too, if this span's record needs a new one; aligning the block behind it costs up to the
        // block's own alignment.
        let bytes = (class.size() + class.align() + size_of::<Table>()) as u64;
        let needed = geometry.pages_for(bytes);
        let wanted = (self.last_pages * GROWTH).min(geometry.segment_pages()).max(needed);
        let span = lease_up_to(spans, wanted, needed, SpanOwner::Domain(base))?;
        let record = Record::of(geometry, span);
        if record.start != self.end {
            self.fresh = record.start;
        }
        self.end = record.start + record.bytes;
        self.last_pages = span.pages;
        if self.unused_record().is_none() {
            let address = self.fresh.next_multiple_of(align_of::<Table>() as u64);
            self.fresh = address + size_of::<Table>() as u64;
            self.link(address);
        }
        self.note(record);
        Ok(())
    }

    fn allocate_large(&mut self, spans: &dyn Spans, base: Address, layout: Layout) -> Result<u64> {
        let geometry = spans.geometry();
        if self.unused_record().is_none()
            && let Some(class) = Class::of(Layout::new::<Table>())
        {
            let address = self.allocate_small(spans, base, class)?;
            self.link(address);
        }
        let align = layout.align() as u64;
        let room = align.saturating_sub(geometry.page_size());
        // Even a block of no bytes has an address in the span.
        let bytes = (layout.size() as u64).max(1);
        let pages = geometry.pages_for(bytes.saturating_add(room));
        let record = Record::of(geometry, spans.lease(pages, SpanOwner::Domain(base))?);
        self.note(record);
        Ok(record.start.next_multiple_of(align))
    }

    /// Makes the unused block at `address` the first of the tables behind the arena's own.
    fn link(&mut self, address: u64) {
        let table = Table { next: self.table.next, ..Table::empty() };
        // SAFETY: the caller has just cut the block for a table, so that it is aligned, long enough and unused.
        unsafe { pointer::<Table>(address).write(table) };
        self.table.next = address;
    }

    fn note(&mut self, record: Record) {
        if let Some(unused) = self.unused_record() {
            *unused = record;
        }
    }

    fn unused_record(&mut self) -> Option<&mut Record> {
        self.records().find(|record| record.bytes == 0)
    }

    fn records(&mut self) -> impl Iterator<Item = &mut Record> {
        let mut next = Some(&raw mut self.table);
        std::iter::from_fn(move || {
            // SAFETY: it is the arena's own table, or one that `link` wrote; all are borrowed with `self`, no table
            // is visited twice, and the reference ends when the iterator does.
            let table = unsafe { &mut *next? };
            next = (table.next != NULL).then(|| pointer(table.next));
            Some(table.records.iter_mut())
        })
        .flatten()
    }
}

impl Table {
    fn empty() -> Table {
        Table { next: NULL, records: [Record::UNUSED; TABLE_SPANS] }
    }
}

impl Record {
    const UNUSED: Record = Record { start: NULL, bytes: 0 };

    fn of(geometry: &Geometry, span: SpanRange) -> Record {
        Record { start: geometry.address_of(span.first).0, bytes: span.pages * geometry.page_size() }
    }

    fn holds(&self, address: u64) -> bool {
        address >= self.start && address - self.start < self.bytes
    }
}

fn pointer<T>(address: u64) -> *mut T {
    ptr::with_exposed_provenance_mut(address as usize)
}
