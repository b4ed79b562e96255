//! The frame view: where the bytes of pages are read and written without any fault.
//!
//! Other threads, and the application through the app view, may change the same bytes at any time. So no reference
//! to them is ever made here: bytes are copied through raw pointers, or by the kernel.

use crate::signals;
use crate::transport::Frames;
use dsm_core::{Geometry, PageId};
use nix::errno::Errno;
use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

/// A handle to the frame view of a region. The addresses stay taken for the rest of the process, even when the region
/// is gone: a handle that outlives it gets `EFAULT` or SIGSEGV, never another's memory.
#[derive(Clone, Copy)]
pub(crate) struct FrameView {
    start: usize,
    geometry: Geometry,
}

/// How many bytes are looked at in one go when a page is summed up: a kernel page, which the first-level cache holds.
const CHUNK: usize = 4096;

impl FrameView {
    /// A handle to `geometry.size()` bytes that are mapped at `start`, readable and writable, and are never unmapped
    /// but to be replaced by a reservation.
    pub(super) fn new(start: usize, geometry: Geometry) -> FrameView {
        FrameView { start, geometry }
    }

    /// Makes the bytes of `page` zero.
    pub fn clear(&self, page: PageId) {
        let length = self.page_size();
        let start = self.pointer(page, 0, length);
        // SAFETY: `pointer` checked that `length` bytes from `start` on are in the frame view, which is mapped
        // writable. No reference to them exists.
        unsafe { ptr::write_bytes(start, 0, length) };
    }

    /// Copies the bytes of `page` from offset `at` on.
    pub fn copy(&self, page: PageId, at: usize, bytes: &mut [u8]) {
        let start = self.pointer(page, at, bytes.len());
        // SAFETY: `pointer` checked that the source is in the frame view, which is mapped; the target is ours alone,
        // so they do not overlap.
        unsafe { ptr::copy_nonoverlapping(start, bytes.as_mut_ptr(), bytes.len()) };
    }

    /// Where `length` bytes of `page` from offset `at` on are.
    fn pointer(&self, page: PageId, at: usize, length: usize) -> *mut u8 {
        assert!(self.geometry.contains(page), "{page} is not in the region");
        let size = self.page_size();
        assert!(at <= size && length <= size - at, "{length} bytes at {at} leave a page of {size}");
        // The geometry fits the address space, which is what `usize` counts.
        ptr::with_exposed_provenance_mut(self.start + self.geometry.offset_of(page) as usize + at)
    }
}

impl Frames for FrameView {
    fn send(
        &self,
        socket: BorrowedFd<'_>,
        head: &[u8],
        page: PageId,
        range: Range<usize>,
    ) -> io::Result<usize> {
        let mut parts = [
            libc::iovec { iov_base: head.as_ptr().cast_mut().cast(), iov_len: head.len() },
            libc::iovec {
                iov_base: self.pointer(page, range.start, range.len()).cast(),
                iov_len: range.len(),
            },
        ];
        // SAFETY: all of `msghdr` is integers and pointers, for which zero is a value.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_iov = parts.as_mut_ptr();
        message.msg_iovlen = parts.len();
        unbroken(|| {
            // SAFETY: `message` and its two parts are live; the kernel only reads what they point to: `head`, and
            // bytes that `pointer` checked to be in the frame view. Bytes that change meanwhile harm nobody here.
            unsafe {
                libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT)
            }
        })
    }

    fn receive(&self, socket: BorrowedFd<'_>, page: PageId, range: Range<usize>) -> io::Result<usize> {
        let length = range.len();
        assert!(length > 0, "{page}: nothing can be received at {}", range.start);
        let start = self.pointer(page, range.start, length);
        unbroken(|| {
            // SAFETY: `pointer` checked that `length` bytes from `start` on are in the frame view, which is mapped
            // writable. No reference to them exists.
            unsafe { libc::recv(socket.as_raw_fd(), start.cast(), length, libc::MSG_DONTWAIT) }
        })
    }

    fn fill(&self, page: PageId, at: usize, bytes: &[u8]) {
        let start = self.pointer(page, at, bytes.len());
        // SAFETY: `pointer` checked that the target is in the frame view, which is mapped writable and to which no
        // reference exists; so it does not overlap with `bytes` either.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), start, bytes.len()) };
    }

    fn crc32(&self, page: PageId) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        let mut chunk = [0; CHUNK];
        for at in (0..self.page_size()).step_by(CHUNK) {
            self.copy(page, at, &mut chunk);
            hasher.update(&chunk);
        }
        hasher.finalize()
    }

    fn page_size(&self) -> usize {
        // At most 2 MiB.
        self.geometry.page_size() as usize
    }
}

const _: () = assert!((dsm_core::limits::PAGE_SIZE_MIN as usize).is_multiple_of(CHUNK));

/// Makes a call on a frame again for as long as a signal cuts it short. Where the frame cannot be had, the process ends:
/// the call would only fail again.
fn unbroken(mut call: impl FnMut() -> isize) -> io::Result<usize> {
    loop {
        match Errno::result(call()) {
            Ok(count) => return Ok(count.unsigned_abs()),
            Err(Errno::EINTR) => {}
            Err(Errno::EFAULT) => signals::die(signals::NO_FRAME),
            Err(errno) => return Err(errno.into()),
        }
    }
}
