//! Address space: runs of it that this process mapped, advised, emptied and gave back.
//!
//! Nothing here reads or writes mapped bytes. Addresses are plain numbers, so that a mapping may be named on any
//! thread; whoever makes a pointer of one answers for the access.

use crate::error::{Error, Result};
use crate::signals;
use nix::errno::Errno;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

/// Where a mapping is to be.
#[derive(Clone, Copy)]
pub(crate) enum Place {
    /// At this address and nowhere else; refused if anything is there.
    Exactly(usize),
    /// Where the kernel likes.
    Anywhere,
}

/// A run of address space that this process mapped. Dropping it unmaps it, unless it was retired or kept.
pub(crate) struct Mapping {
    start: usize,
    length: usize,
    /// Whether the addresses stay taken when this is dropped.
    kept: bool,
}

/// What madvise(2) is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Advice {
    /// Map single kernel pages: access is a matter of each page.
    NoHugePages,
    /// A forked child does not have it: it would read and write pages without any fault.
    NotInChildren,
    /// A core dump leaves it out: reading absent pages would fault.
    NotInDumps,
    /// Unmap the pages; their bytes stay in the file.
    Empty,
    /// Give the memory of the file behind the pages back.
    Remove,
    /// Have memory behind every page, and map it.
    Populate,
}

impl Mapping {
    /// Maps `length` bytes of `file`, from its start, shared and readable and writable.
    pub fn of_file(place: Place, length: usize, file: BorrowedFd<'_>) -> Result<Mapping> {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        Mapping::new(place, length, access, libc::MAP_SHARED | libc::MAP_NORESERVE, file.as_raw_fd())
    }

    /// Takes `length` bytes of address space, of which no byte can be touched.
    pub fn reservation(place: Place, length: usize) -> Result<Mapping> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        Mapping::new(place, length, libc::PROT_NONE, flags, NO_FILE)
    }

    fn new(place: Place, length: usize, access: i32, flags: i32, file: i32) -> Result<Mapping> {
        let (at, fixed) = match place {
            Place::Exactly(at) => (at, libc::MAP_FIXED_NOREPLACE),
            Place::Anywhere => (0, 0),
        };
        // SAFETY: without MAP_FIXED, a mapping takes only addresses where nothing is, so it changes no memory that
        // anybody knows.
        let start =
            unsafe { libc::mmap(ptr::without_provenance_mut(at), length, access, flags | fixed, file, 0) };
        if start == libc::MAP_FAILED {
            return Err(refusal(place, length, Errno::last()));
        }
        Ok(Mapping { start: start.expose_provenance(), length, kept: false })
    }

    /// The first address.
    pub fn start(&self) -> usize {
        self.start
    }

    /// Advises the kernel on the whole mapping.
    pub fn advise(&self, advice: Advice) -> Result<()> {
        self.advise_part(0, self.length, advice)
    }

    /// Advises the kernel on `length` bytes from `offset` on.
    ///
    /// # Panics
    /// If they do not lie in the mapping.
    pub fn advise_part(&self, offset: usize, length: usize, advice: Advice) -> Result<()> {
        assert!(offset <= self.length && length <= self.length - offset, "advice beyond the mapping");
        let start = ptr::with_exposed_provenance_mut(self.start + offset);
        let mut patience = crate::uffd::Patience::default();
        loop {
            // SAFETY: the run lies in a mapping of ours. `Empty` is given to shared mappings of a file only, whose
            // bytes stay in the file; the others change no byte.
            let answer = unsafe { libc::madvise(start, length, advice.number()) };
            match Errno::result(answer) {
                Ok(_) => return Ok(()),
                Err(errno @ (Errno::EAGAIN | Errno::EINTR)) => {
                    let span =
                        crate::uffd::Span { start: (self.start + offset) as u64, length: length as u64 };
                    patience.lose(span, errno)?;
                }
                // Built without transparent huge pages: there is nothing to switch off.
                Err(Errno::EINVAL) if advice == Advice::NoHugePages => return Ok(()),
                Err(errno) => {
                    let what = format!("{} {length} bytes at {:#x}", advice.verb(), self.start + offset);
                    return Err(Error::io(what, errno));
                }
            }
        }
    }

    /// Replaces the mapping by a reservation that stays for the rest of the process: whoever touches it gets SIGSEGV,
    /// and nothing else will ever be mapped there, so that a stale pointer cannot hit another's memory.
    pub fn retire(&mut self) -> Result<()> {
        if self.kept {
            return Ok(());
        }
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED;
        let start = ptr::with_exposed_provenance_mut(self.start);
        // SAFETY: MAP_FIXED replaces exactly the run that this mapping owns.
        let answer = unsafe { libc::mmap(start, self.length, libc::PROT_NONE, flags, NO_FILE, 0) };
        if answer == libc::MAP_FAILED {
            let what = format!("taking {} bytes at {:#x} out of use", self.length, self.start);
            return Err(Error::io(what, Errno::last()));
        }
        self.kept = true;
        // A failure costs a line in a core dump's index, nothing more.
        let _ = self.advise(Advice::NotInDumps);
        Ok(())
    }
}

impl Mapping {
    /// Lets the mapping stay as it is for the rest of the process.
    pub fn keep(&mut self) {
        self.kept = true;
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        // SAFETY: the run is ours, and with the mapping goes the only name by which it was known.
        let answer = unsafe { libc::munmap(ptr::with_exposed_provenance_mut(self.start), self.length) };
        if answer != 0 {
            // To go on would be to close the userfaultfd of a mapped region: its readers would get zeros.
            let errno = Errno::last();
            signals::die(&format!("unmapping {} bytes at {:#x}: {errno}", self.length, self.start));
        }
    }
}

impl Advice {
    fn number(self) -> libc::c_int {
        match self {
            Advice::NoHugePages => libc::MADV_NOHUGEPAGE,
            Advice::NotInChildren => libc::MADV_DONTFORK,
            Advice::NotInDumps => libc::MADV_DONTDUMP,
            Advice::Empty => libc::MADV_DONTNEED,
            Advice::Remove => libc::MADV_REMOVE,
            Advice::Populate => libc::MADV_POPULATE_WRITE,
        }
    }

    fn verb(self) -> &'static str {
        match self {
            Advice::NoHugePages => "switching huge pages off for",
            Advice::NotInChildren => "keeping from forked children",
            Advice::NotInDumps => "keeping from core dumps",
            Advice::Empty => "unmapping the pages of",
            Advice::Remove => "giving back the memory of",
            Advice::Populate => {
                "finding memory (the machine, or this container's limit, may have none left) for"
            }
        }
    }
}

/// No descriptor: the memory is of no file.
const NO_FILE: i32 = -1;

/// Says why an address range cannot be had, who has it, and what to do.
fn refusal(place: Place, length: usize, errno: Errno) -> Error {
    match (place, errno) {
        (Place::Exactly(at), Errno::EEXIST) => {
            let end = at.saturating_add(length);
            let holder = fs::read_to_string("/proc/self/maps").ok().and_then(|maps| holder(&maps, at, end));
            let holder = holder.unwrap_or_else(|| "something else".to_owned());
            Error::Config(format!(
                "the region's addresses {at:#x}..{end:#x} are taken in this process by {holder}; \
                 choose another region_base, the same on all nodes"
            ))
        }
        (Place::Exactly(_) | Place::Anywhere, Errno::ENOMEM) => Error::Unsupported {
            what: format!("no {length} bytes of address space for the shared region"),
            fix: "raise the limit (`ulimit -v unlimited`), or join with a smaller region_size".to_owned(),
        },
        (Place::Exactly(at), errno) => {
            Error::io(format!("mapping {length} bytes at {at:#x} for the shared region"), errno)
        }
        (Place::Anywhere, errno) => {
            Error::io(format!("mapping {length} bytes for the shared region"), io::Error::from(errno))
        }
    }
}

/// The first line of `/proc/self/maps` that overlaps `start..end`, as "name at address".
fn holder(maps: &str, start: usize, end: usize) -> Option<String> {
    maps.lines().find_map(|line| {
        let mut fields = line.split_whitespace();
        let (low, high) = fields.next()?.split_once('-')?;
        let low = usize::from_str_radix(low, 16).ok()?;
        let high = usize::from_str_radix(high, 16).ok()?;
        // Behind the addresses: permissions, offset, device, inode, and then the name, if there is one.
        let name = fields.nth(4).unwrap_or("anonymous memory");
        (low < end && high > start).then(|| format!("{name} at {low:#x}..{high:#x}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_of_an_address_is_named() {
        let maps = "10000-20000 r-xp 00000000 fe:00 12 /usr/lib/x.so\n30000-40000 rw-p 00000000 00:00 0 \n";
        assert_eq!(holder(maps, 0x1f000, 0x21000).as_deref(), Some("/usr/lib/x.so at 0x10000..0x20000"));
        assert_eq!(holder(maps, 0x3f000, 0x50000).as_deref(), Some("anonymous memory at 0x30000..0x40000"));
        assert_eq!(holder(maps, 0x20000, 0x30000), None);
    }

    #[test]
    fn a_dropped_mapping_gives_its_addresses_back_and_a_retired_one_keeps_them() {
        let length = 1 << 16;
        let mut kept = Mapping::reservation(Place::Anywhere, length).expect("64 KiB are free");
        let at = Place::Exactly(kept.start());
        kept.retire().expect("the mapping is ours");
        drop(kept);
        let refused = Mapping::reservation(at, length).map(|_| ()).expect_err("the addresses are kept");
        assert!(refused.to_string().contains("region_base"), "{refused}");
    }
}
