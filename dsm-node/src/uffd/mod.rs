//! userfaultfd: which faults came, and the requests that resolve them, each with its outcomes named once.
//!
//! This module knows addresses and the kernel, nothing of pages of the protocol or of frames: [`crate::region`] does.
//! `docs/memory.md` lists what the kernel does in corner cases; the loops here and in the region follow it.

mod abi;
mod open;

pub(crate) use open::{DEVICE, FEATURES, Refusal, Way, agree, create, features_missing};

use crate::error::{Error, Result};
use crate::signals;
use dsm_core::{Address, Want};
use nix::errno::Errno;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// Faults that one read(2) takes. Threads that fault at the same time are few; the rest is read the next time.
const FAULTS_PER_READ: usize = 64;

/// How often a request that made no progress is made again before that is an error. The kernel asks for a retry while
/// the address space changes under it, which is over in microseconds.
const RETRIES_MAX: u32 = 100_000;

/// Which faults are served.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum FaultScope {
    /// All: a system call may be given pages that are not here.
    KernelAndUser,
    /// Those of instructions of the program: a system call that touches an absent page fails with `EFAULT`.
    UserOnly,
}

/// What a page was to its faulting thread.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum FaultKind {
    /// Neither mapped nor in the file's cache.
    Missing,
    /// In the file's cache, not mapped.
    Minor,
    /// Mapped, and protected against stores.
    Protected,
}

/// A fault, as the kernel reports it. The same fault may be reported more than once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Fault {
    /// The address that the thread touched, to the byte.
    pub address: Address,
    /// What it was about to do.
    pub want: Want,
    /// What the page was to it.
    #[cfg_attr(
        not(test),
        allow(dead_code, reason = "for traces and tests; the protocol is the same for all kinds")
    )]
    pub kind: FaultKind,
    /// The thread, by its id in this process's name space.
    pub thread: u32,
}

/// Room for the faults of one read.
pub(crate) struct FaultBuffer {
    messages: Box<[abi::Message; FAULTS_PER_READ]>,
}

/// A run of addresses, in whole kernel pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Span {
    /// The first address.
    pub start: u64,
    /// How many bytes.
    pub length: u64,
}

/// How a request to map or to poison a range ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Resolved {
    /// All of it is done, and the waiting threads are awake.
    Installed,
    /// The first page was mapped already; nothing was done, and nobody was woken.
    AlreadyPresent,
    /// The first page is not in the file's cache; nothing was done.
    Absent,
    /// The first `mapped` bytes are done, and their waiting threads are awake: go on behind them.
    Retry {
        /// How many bytes; may be none.
        mapped: u64,
    },
}

/// The protection of a range against stores.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Protection {
    /// Stores fault. Nobody is woken.
    On,
    /// Stores are allowed, and whoever waits is woken.
    Off,
    /// Stores are allowed, and whoever waits goes on waiting.
    OffWithoutWake,
}

/// An open userfaultfd.
pub(crate) struct Uffd {
    fd: OwnedFd,
    scope: FaultScope,
}

impl Uffd {
    /// Opens one by the best way that is open to this process.
    pub fn open() -> std::result::Result<Uffd, Refusal> {
        // An unknown feature makes the kernel refuse without saying which; and a descriptor agrees once. So one
        // descriptor is asked what there is, and a second is put to work.
        let (_, probe) = open::best()?;
        let offered = open::agree(&probe, 0).map_err(|errno| Refusal::Other { what: "UFFDIO_API", errno })?;
        let missing = open::features_missing(offered);
        if !missing.is_empty() {
            return Err(Refusal::Lacks(missing));
        }
        let (way, fd) = open::best()?;
        open::agree(&fd, open::features_needed())
            .map_err(|errno| Refusal::Other { what: "UFFDIO_API", errno })?;
        Ok(Uffd { fd, scope: way.scope() })
    }

    /// Which faults are served.
    pub fn scope(&self) -> FaultScope {
        self.scope
    }

    /// Keeps the userfaultfd open for the rest of the process, even when this is dropped.
    pub fn keep_open(&self) {
        match self.fd.try_clone() {
            Ok(kept) => std::mem::forget(kept),
            // Were it closed, the threads that wait would get zeros.
            Err(error) => signals::die(&format!("keeping the userfaultfd open: {error}")),
        }
    }

    /// Has faults on `span` reported: of absent pages, of cached but unmapped ones, and of stores to protected ones.
    ///
    /// The span must not be touched before somebody reads the faults, and must be unmapped before the descriptor is
    /// closed: the kernel would hand out zeros.
    pub fn register(&self, span: Span) -> Result<()> {
        let mut register = abi::Register {
            range: span.into(),
            mode: abi::UFFDIO_REGISTER_MODE_MISSING
                | abi::UFFDIO_REGISTER_MODE_WP
                | abi::UFFDIO_REGISTER_MODE_MINOR,
            ioctls: 0,
        };
        self.request(abi::UFFDIO_REGISTER, &mut register)
            .map_err(|errno| Error::io(format!("registering {span} with userfaultfd"), errno))?;
        if register.ioctls & abi::OFFERS_NEEDED == abi::OFFERS_NEEDED {
            return Ok(());
        }
        Err(Error::Unsupported {
            what: format!(
                "userfaultfd offers requests {:#x} of {:#x} on the region",
                register.ioctls,
                abi::OFFERS_NEEDED
            ),
            fix: "run Linux 6.6 or newer".to_owned(),
        })
    }

    /// Takes the faults that wait to be read, without blocking: as many as the buffer holds, possibly none.
    pub fn read_faults<'b>(
        &self,
        buffer: &'b mut FaultBuffer,
    ) -> Result<impl Iterator<Item = Fault> + use<'b>> {
        let bytes = size_of_val(&*buffer.messages);
        let length = loop {
            // SAFETY: the buffer is live, writable and `bytes` long; any bytes are a valid `Message`.
            let answer =
                unsafe { libc::read(self.fd.as_raw_fd(), buffer.messages.as_mut_ptr().cast(), bytes) };
            match Errno::result(answer) {
                Ok(length) => break length.unsigned_abs(),
                Err(Errno::EAGAIN) => break 0,
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(Error::io("reading faults from userfaultfd", errno)),
            }
        };
        let messages = &buffer.messages[..length / size_of::<abi::Message>()];
        if let Some(stray) = messages.iter().find(|message| message.event != abi::UFFD_EVENT_PAGEFAULT) {
            let text = format!("event {:#x}, which was not asked for", stray.event);
            return Err(Error::io("reading faults from userfaultfd", io::Error::other(text)));
        }
        Ok(messages.iter().map(Fault::from))
    }

    /// Maps the cached pages of `span`, for stores too or for loads only, over whatever marker is there, and wakes.
    pub fn resolve(&self, span: Span, writable: bool) -> Result<Resolved> {
        let mode = if writable { 0 } else { abi::UFFDIO_CONTINUE_MODE_WP };
        self.resolve_by(abi::UFFDIO_CONTINUE, "mapping", span, mode)
    }

    /// Makes every access to the unmapped pages of `span` a SIGBUS. A page that was protected when it was unmapped
    /// has a marker, and counts as mapped until its protection is off.
    pub fn poison(&self, span: Span) -> Result<Resolved> {
        self.resolve_by(abi::UFFDIO_POISON, "poisoning", span, 0)
    }

    /// Sets the protection of `span`. Pages of it that are not mapped take it on too, as a marker.
    pub fn protect(&self, span: Span, protection: Protection) -> Result<()> {
        let mode = match protection {
            Protection::On => abi::UFFDIO_WRITEPROTECT_MODE_WP,
            Protection::Off => 0,
            Protection::OffWithoutWake => abi::UFFDIO_WRITEPROTECT_MODE_DONTWAKE,
        };
        let mut patience = Patience::default();
        loop {
            let mut argument = abi::WriteProtect { range: span.into(), mode };
            match self.request(abi::UFFDIO_WRITEPROTECT, &mut argument) {
                Ok(()) => return Ok(()),
                Err(errno @ (Errno::EAGAIN | Errno::EINTR)) => patience.lose(span, errno)?,
                Err(errno) => return Err(Error::io(format!("setting the protection of {span}"), errno)),
            }
        }
    }

    /// Wakes every thread that waits on `span`; those whose page is still not as they need it fault again.
    pub fn wake(&self, span: Span) -> Result<()> {
        let mut range = abi::Range::from(span);
        self.request(abi::UFFDIO_WAKE, &mut range)
            .map_err(|errno| Error::io(format!("waking the threads that wait on {span}"), errno))
    }

    fn resolve_by(&self, request: u64, verb: &str, span: Span, mode: u64) -> Result<Resolved> {
        let mut argument = abi::Resolve { range: span.into(), mode, done: 0 };
        match self.request(request, &mut argument) {
            Ok(()) => Ok(Resolved::Installed),
            Err(Errno::EEXIST) => Ok(Resolved::AlreadyPresent),
            Err(Errno::EFAULT) => Ok(Resolved::Absent),
            // The count is an error number when nothing was done.
            Err(Errno::EAGAIN) => Ok(Resolved::Retry { mapped: u64::try_from(argument.done).unwrap_or(0) }),
            Err(errno) => Err(Error::io(format!("{verb} {span}"), errno)),
        }
    }

    /// Makes a request whose number encodes the size of `T`.
    fn request<T>(&self, request: u64, argument: &mut T) -> nix::Result<()> {
        debug_assert_eq!(
            (request >> 16) & 0x3FFF,
            size_of::<T>() as u64,
            "the number encodes its argument's size"
        );
        // SAFETY: `argument` is live and has the size that the request encodes; the kernel changes only it, and page
        // tables of a span that was mapped and registered by the caller for this purpose.
        let answer =
            unsafe { libc::ioctl(self.fd.as_raw_fd(), request as libc::Ioctl, std::ptr::from_mut(argument)) };
        Errno::result(answer).map(|_| ())
    }
}

impl AsFd for Uffd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// How long a request without progress is repeated.
#[derive(Default)]
pub(crate) struct Patience {
    lost: u32,
}

impl Patience {
    /// Notes an attempt without progress and lets others run; an error once there were too many in a row.
    pub fn lose(&mut self, span: Span, errno: Errno) -> Result<()> {
        self.lost += 1;
        if self.lost >= RETRIES_MAX {
            let what = format!("userfaultfd on {span}: no progress in {RETRIES_MAX} attempts");
            return Err(Error::io(what, errno));
        }
        std::thread::yield_now();
        Ok(())
    }

    /// Notes progress.
    pub fn gain(&mut self) {
        self.lost = 0;
    }
}

impl Default for FaultBuffer {
    fn default() -> FaultBuffer {
        FaultBuffer { messages: Box::new([abi::Message::default(); FAULTS_PER_READ]) }
    }
}

impl From<&abi::Message> for Fault {
    fn from(message: &abi::Message) -> Fault {
        let store = message.flags & (abi::UFFD_PAGEFAULT_FLAG_WRITE | abi::UFFD_PAGEFAULT_FLAG_WP) != 0;
        let kind = if message.flags & abi::UFFD_PAGEFAULT_FLAG_WP != 0 {
            FaultKind::Protected
        } else if message.flags & abi::UFFD_PAGEFAULT_FLAG_MINOR != 0 {
            FaultKind::Minor
        } else {
            FaultKind::Missing
        };
        Fault {
            address: Address(message.address),
            want: if store { Want::Write } else { Want::Read },
            kind,
            thread: message.thread,
        }
    }
}

impl From<Span> for abi::Range {
    fn from(span: Span) -> abi::Range {
        abi::Range { start: span.start, len: span.length }
    }
}

impl std::fmt::Display for Span {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#x}..{:#x}", self.start, self.start + self.length)
    }
}
