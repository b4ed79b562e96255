//! The region on this node: one memory file, mapped twice, and the access of each page.
//!
//! ```text
//!   application  --load, store-->  app view (at the region's base, userfaultfd)  --.
//!                                                                                   >--  memory file
//!   runtime  --send, receive-->  frame view (anywhere, no faults)  ----------------'
//! ```
//! The methods carry out single intentions of the protocol: protect, install, refresh. Which one is due is not decided
//! here, and nothing here remembers a page's state; the caller holds it, unchanged, for as long as a call lasts,
//! because the kernel has no request that compares before it maps.

mod frames;
mod mapping;
mod pagemap;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub(crate) use frames::FrameView;
pub(crate) use mapping::{Mapping, Place};
pub(crate) use pagemap::can_scan;

use crate::doctor;
use crate::error::{Error, Result};
use crate::signals;
use crate::uffd::{Patience, Protection, Resolved, Span, Uffd};
use dsm_core::{Access, Address, Geometry, PageId, Payload, limits};
use mapping::Advice;
use nix::errno::Errno;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::{SysconfVar, ftruncate, sysconf};
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// The pages in which the kernel maps. A page of the protocol has one or more of them.
pub(crate) const KERNEL_PAGE: u64 = limits::PAGE_SIZE_MIN;

/// So many bytes of a long run are unmapped by one system call: threads that fault elsewhere wait for it.
const EMPTIED_AT_ONCE: u64 = 256 << 20;

/// The region on this node.
///
/// One that is dropped before its faults were served, as when a join fails, gives its addresses back, so that the
/// process may join again. Later it is to be ended by [`Region::detach`]; one that is dropped without, as when its
/// server panics, stays as it is: threads wait on until the process ends, and nobody gets zeros or a signal.
pub(crate) struct Region {
    geometry: Geometry,
    app: Mapping,
    frames: Mapping,
    // Declared behind the views, so that it is closed after them: a thread that waits in the app view when its
    // userfaultfd is closed reads zeros.
    uffd: Uffd,
    /// Whether anybody serves its faults, so that there may be threads that wait.
    served: AtomicBool,
    // The views keep the memory alive; the descriptor is kept so that the memory has a name in /proc.
    _memory: OwnedFd,
}

impl Region {
    /// Maps a region of this shape, every page of it absent.
    ///
    /// # Errors
    /// Names what the kernel lacks or refuses, or who has the addresses, and what to do.
    pub fn new(geometry: Geometry) -> Result<Region> {
        check_kernel_page()?;
        let uffd = Uffd::open().map_err(|refusal| doctor::explain(&refusal))?;
        doctor::note(uffd.scope());
        let memory = memfd_create("dsm-region", MFdFlags::MFD_CLOEXEC)
            .map_err(|errno| Error::io("making the region's memory (memfd_create)", errno))?;
        let size = i64::try_from(geometry.size())
            .map_err(|_| Error::Config(format!("a region of {} bytes is too large", geometry.size())))?;
        ftruncate(&memory, size).map_err(|errno| {
            Error::io(format!("sizing the region's memory to {size} bytes (ftruncate)"), errno)
        })?;
        let base = usize_of(geometry.base().0);
        let app = view(Place::Exactly(base), geometry, &memory)?;
        let frames = view(Place::Anywhere, geometry, &memory)?;
        signals::set_frames(frames.start() as u64);
        uffd.register(Span { start: geometry.base().0, length: geometry.size() })?;
        Ok(Region { geometry, app, frames, uffd, served: AtomicBool::new(false), _memory: memory })
    }

    /// The region's shape.
    #[cfg(test)]
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// The descriptor on which faults are read.
    pub fn uffd(&self) -> &Uffd {
        self.served.store(true, Ordering::Relaxed);
        &self.uffd
    }

    /// Where the bytes of pages are.
    pub fn frames(&self) -> FrameView {
        FrameView::new(self.frames.start(), self.geometry)
    }

    /// Reduces the access to `page`. Once done, no store lands any more (`Read`), or no access at all (`None`): the
    /// frame may be read.
    ///
    /// # Panics
    /// If `access` is `Write`, which reduces nothing, or the page is not in the region.
    pub fn protect(&self, page: PageId, access: Access) -> Result<()> {
        match access {
            Access::None => self.unmap(page),
            Access::Read => self.uffd.protect(self.span(page), Protection::On),
            Access::Write => panic!("{page} cannot be protected to allow stores: that is an install"),
        }
    }

    /// Maps `page` with `access` and wakes every thread that waits for it. With `Bytes`, the caller has filled the
    /// frame; with `Zero`, the frame is made zero here; with `Held`, the page is mapped read-only already.
    ///
    /// # Panics
    /// If `access` is `None`, if a held page is to be made anything but writable, or if the page is not in the region.
    pub fn install(&self, page: PageId, access: Access, payload: Payload) -> Result<()> {
        match payload {
            Payload::Bytes => self.map(page, access),
            Payload::Zero => {
                self.populate(page)?;
                self.frames().clear(page);
                self.map(page, access)
            }
            Payload::Held => {
                assert!(access == Access::Write, "{page} is held already; it can only become writable");
                self.uffd.protect(self.span(page), Protection::Off)
            }
        }
    }

    /// Makes sure that `page`, whose bytes are in the frame, is mapped with exactly `access`, and wakes every thread
    /// that waits for it. May be done again and again.
    ///
    /// # Panics
    /// If `access` is `None`, or the page is not in the region.
    pub fn refresh(&self, page: PageId, access: Access) -> Result<()> {
        self.map(page, access)?;
        self.uffd.wake(self.span(page))
    }

    /// Takes all access to all pages away. Their bytes stay in the frames; pages that were poisoned are so no more.
    pub fn empty(&self) -> Result<()> {
        self.app.advise(Advice::Empty)
    }

    /// Takes all access to `pages` pages from `first` on away. Threads that wait for one of them are woken, and fault again.
    ///
    /// # Panics
    /// If they are not in the region.
    pub fn empty_run(&self, first: PageId, pages: u64) -> Result<()> {
        let length = pages * self.geometry.page_size();
        let start = self.span(first).start;
        let (mut offset, end) = (start - self.geometry.base().0, start - self.geometry.base().0 + length);
        while offset < end {
            let part = (end - offset).min(EMPTIED_AT_ONCE);
            self.app.advise_part(usize_of(offset), usize_of(part), Advice::Empty)?;
            offset += part;
        }
        self.uffd.wake(Span { start, length })
    }

    /// Gives the memory of the frames of `pages` pages from `first` on back, none of which is mapped. Their next use finds
    /// them zero.
    ///
    /// # Panics
    /// If a page is not in the region.
    pub fn discard(&self, first: PageId, pages: u64) -> Result<()> {
        let last = PageId(first.0 + pages.saturating_sub(1));
        assert!(self.geometry.contains(first) && self.geometry.contains(last), "{last} is not in the region");
        let offset = usize_of(self.geometry.offset_of(first));
        self.frames.advise_part(offset, usize_of(pages * self.geometry.page_size()), Advice::Remove)
    }

    /// Makes every access to `page` end in SIGBUS, also that of threads that wait for it now.
    ///
    /// # Panics
    /// If the page is not in the region.
    pub fn poison(&self, page: PageId) -> Result<()> {
        // Unmapping comes first, for a page whose protection is lifted first would take stores; but it leaves the
        // protection as a marker, which must be lifted before the poison goes in its place.
        self.unmap(page)?;
        let span = self.span(page);
        self.uffd.protect(span, Protection::OffWithoutWake)?;
        let mut rest = span;
        let mut patience = Patience::default();
        loop {
            match self.uffd.poison(rest)? {
                Resolved::Installed => return self.uffd.wake(span),
                Resolved::Retry { mapped: 0 } => patience.lose(rest, Errno::EAGAIN)?,
                Resolved::Retry { mapped } => rest = rest.behind(mapped),
                Resolved::AlreadyPresent | Resolved::Absent => {
                    return Err(Error::io(
                        format!("poisoning {page} at {rest}: it is mapped"),
                        Errno::EEXIST,
                    ));
                }
            }
        }
    }

    /// What the page table allows on each of `pages` now: a test's oracle.
    ///
    /// # Errors
    /// If the kernel cannot tell, or the kernel pages of one page do not agree.
    pub fn scan(&self, pages: Range<u64>) -> Result<Vec<Access>> {
        let start = self.geometry.address_of(PageId(pages.start)).0;
        let length = (pages.end - pages.start) * self.geometry.page_size();
        let found = pagemap::scan(Span { start, length }, KERNEL_PAGE)?;
        let per_page = usize_of(self.geometry.page_size() / KERNEL_PAGE);
        let one = |(page, parts): (u64, &[Access])| match parts.iter().find(|part| **part != parts[0]) {
            None => Ok(parts[0]),
            Some(other) => {
                let text = format!("{} is mapped in part: {:?} and {other:?}", PageId(page), parts[0]);
                Err(Error::io(text, Errno::EUCLEAN))
            }
        };
        pages.zip(found.chunks(per_page)).map(one).collect()
    }

    /// Takes the region out of use, for good. The addresses stay reserved: whoever touches them gets SIGSEGV. Threads
    /// that wait for a page get it too.
    pub fn detach(mut self) {
        let retired = self.app.retire().and_then(|()| self.frames.retire());
        if let Err(error) = retired {
            // To go on would be to close the userfaultfd of a mapped region: its readers would get zeros.
            signals::die(&format!("the shared region cannot be taken out of use: {error}"));
        }
        self.served.store(false, Ordering::Relaxed);
    }

    /// Maps every kernel page of `page` as `access` says, and wakes who waits for it.
    fn map(&self, page: PageId, access: Access) -> Result<()> {
        assert!(access != Access::None, "{page}: to map a page is to allow something");
        let writable = access == Access::Write;
        let whole = self.span(page);
        let mut rest = whole;
        let mut present = false;
        let mut patience = Patience::default();
        while rest.length > 0 {
            match self.uffd.resolve(rest, writable)? {
                Resolved::Installed => break,
                Resolved::AlreadyPresent => {
                    // How it is mapped is unknown. Setting it right once is enough: what is mapped behind this is
                    // mapped right.
                    if !present {
                        let protection = if writable { Protection::OffWithoutWake } else { Protection::On };
                        self.uffd.protect(whole, protection)?;
                        present = true;
                    }
                    rest = rest.behind(KERNEL_PAGE);
                    patience.gain();
                }
                Resolved::Absent => {
                    patience.lose(rest, Errno::EFAULT)?;
                    self.populate(page)?;
                }
                Resolved::Retry { mapped: 0 } => patience.lose(rest, Errno::EAGAIN)?,
                Resolved::Retry { mapped } => {
                    rest = rest.behind(mapped);
                    patience.gain();
                }
            }
        }
        // The kernel woke who waited for what was mapped now, but not who waited for what was there.
        if present { self.uffd.wake(whole) } else { Ok(()) }
    }

    /// Unmaps `page`. Its bytes stay in the frame.
    fn unmap(&self, page: PageId) -> Result<()> {
        let span = self.span(page);
        let offset = usize_of(span.start - self.geometry.base().0);
        self.app.advise_part(offset, usize_of(span.length), Advice::Empty)
    }

    /// Makes sure that there is memory for every byte of the frame of `page`.
    fn populate(&self, page: PageId) -> Result<()> {
        let offset = usize_of(self.geometry.offset_of(page));
        self.frames.advise_part(offset, usize_of(self.geometry.page_size()), Advice::Populate)
    }

    /// Where `page` is in the app view.
    fn span(&self, page: PageId) -> Span {
        assert!(self.geometry.contains(page), "{page} is not in the region");
        let Address(start) = self.geometry.address_of(page);
        Span { start, length: self.geometry.page_size() }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        if *self.served.get_mut() {
            self.uffd.keep_open();
            self.app.keep();
            self.frames.keep();
        }
    }
}

impl Span {
    /// What is left of the span behind its first `length` bytes.
    fn behind(self, length: u64) -> Span {
        let length = length.min(self.length);
        Span { start: self.start + length, length: self.length - length }
    }
}

/// Maps the whole of `memory` as one of the two views.
fn view(place: Place, geometry: Geometry, memory: &OwnedFd) -> Result<Mapping> {
    let view = Mapping::of_file(place, usize_of(geometry.size()), memory.as_fd())?;
    for advice in [Advice::NoHugePages, Advice::NotInChildren, Advice::NotInDumps] {
        view.advise(advice)?;
    }
    Ok(view)
}

/// Refuses kernels whose pages are not of the size that everything here counts in.
fn check_kernel_page() -> Result<()> {
    match sysconf(SysconfVar::PAGE_SIZE) {
        Ok(Some(size)) if u64::try_from(size) == Ok(KERNEL_PAGE) => Ok(()),
        other => Err(Error::Unsupported {
            what: format!("the kernel's page size is {other:?}, not {KERNEL_PAGE}"),
            fix: "run a kernel with 4 KiB pages".to_owned(),
        }),
    }
}

/// An address or a length, as the machine counts them.
fn usize_of(number: u64) -> usize {
    // Lossless on the 64-bit machines that userfaultfd's features need.
    number as usize
}

const _: () = assert!(usize::BITS >= u64::BITS);
