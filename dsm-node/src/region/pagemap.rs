//! What the page tables of this process say, by `PAGEMAP_SCAN`: the oracle that tests hold the protocol's belief to.
//!
//! Nothing that a node does depends on it; a kernel without it runs nodes all the same.

use crate::error::{Error, Result};
use crate::uffd::Span;
use dsm_core::Access;
use nix::errno::Errno;
use std::fs::File;
use std::os::fd::AsRawFd;

/// `struct pm_scan_arg` of `linux/fs.h`.
#[repr(C)]
struct Scan {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    regions: u64,
    regions_length: u64,
    pages_max: u64,
    category_inverted: u64,
    category_mask: u64,
    category_any: u64,
    report_mask: u64,
}

/// `struct page_region`: a run of pages that are alike.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Run {
    start: u64,
    end: u64,
    categories: u64,
}

/// `_IOWR('f', 16, struct pm_scan_arg)`.
const PAGEMAP_SCAN: u64 = 3 << 30 | (size_of::<Scan>() as u64) << 16 | (b'f' as u64) << 8 | 16;

const _: () = assert!(size_of::<Scan>() == 96);
const _: () = assert!(size_of::<Run>() == 24);
const _: () = assert!(PAGEMAP_SCAN == 0xC060_6610);

/// Not protected against stores by userfaultfd.
const PAGE_IS_WRITTEN: u64 = 1 << 1;
/// Mapped.
const PAGE_IS_PRESENT: u64 = 1 << 3;

/// Runs that one request reports.
const RUNS_PER_REQUEST: usize = 256;

/// What the page table allows on each kernel page of `span`, which has pages of `page` bytes.
pub(super) fn scan(span: Span, page: u64) -> Result<Vec<Access>> {
    let failed = |errno: Errno| Error::io(format!("scanning the page tables of {span}"), errno);
    let pagemap =
        File::open("/proc/self/pagemap").map_err(|error| Error::io("opening /proc/self/pagemap", error))?;
    // A test asks for runs that fit its memory many times over.
    let mut found = vec![Access::None; (span.length / page) as usize];
    let mut runs = [Run::default(); RUNS_PER_REQUEST];
    let end = span.start + span.length;
    let mut at = span.start;
    while at < end {
        let mut request = Scan {
            size: size_of::<Scan>() as u64,
            flags: 0,
            start: at,
            end,
            walk_end: 0,
            regions: runs.as_mut_ptr().expose_provenance() as u64,
            regions_length: RUNS_PER_REQUEST as u64,
            pages_max: 0,
            category_inverted: 0,
            category_mask: PAGE_IS_PRESENT,
            category_any: 0,
            report_mask: PAGE_IS_PRESENT | PAGE_IS_WRITTEN,
        };
        // SAFETY: `request` is live and has the size that the request encodes; `runs` is live and has room for as
        // many runs as `regions_length` says.
        let answer = unsafe {
            libc::ioctl(pagemap.as_raw_fd(), PAGEMAP_SCAN as libc::Ioctl, std::ptr::from_mut(&mut request))
        };
        let count = Errno::result(answer).map_err(failed)?.unsigned_abs() as usize;
        for run in &runs[..count] {
            let access = if run.categories & PAGE_IS_WRITTEN == 0 { Access::Read } else { Access::Write };
            let pages = (run.start - span.start) / page..(run.end - span.start) / page;
            found[pages.start as usize..pages.end as usize].fill(access);
        }
        if request.walk_end <= at {
            return Err(failed(Errno::EIO));
        }
        at = request.walk_end;
    }
    Ok(found)
}

/// Whether this kernel can tell what the page tables say.
pub(crate) fn can_scan() -> bool {
    let here = 0_u8;
    let page = super::KERNEL_PAGE;
    let start = (&raw const here).addr() as u64 & !(page - 1);
    // The page of a live local variable is mapped.
    scan(Span { start, length: page }, page).is_ok_and(|found| found[0] != Access::None)
}
