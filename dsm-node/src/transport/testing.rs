//! Pages in ordinary memory, and pairs of connected sockets, for the tests of the transport.

use super::Frames;
use super::endpoint::{Endpoint, Kind};
use super::stream::{Stream, transport};
use dsm_core::PageId;
use nix::sys::socket::{MsgFlags, recv, sendmsg};
use parking_lot::Mutex;
use socket2::{Domain, Socket, Type};
use std::io::{self, IoSlice};
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// A few pages in ordinary memory, and how often anything was written to them.
pub(super) struct VecFrames {
    page_size: usize,
    bytes: Mutex<Vec<u8>>,
    pub writes: AtomicUsize,
}

impl VecFrames {
    pub fn new(page_size: usize, pages: usize) -> VecFrames {
        VecFrames { page_size, bytes: Mutex::new(vec![0; page_size * pages]), writes: AtomicUsize::new(0) }
    }

    /// Writes a pattern that only `seed` yields.
    pub fn paint(&self, page: PageId, seed: u8) {
        let start = self.start(page);
        let pattern = (0..self.page_size).map(|at| (at % 251) as u8 ^ seed);
        self.bytes.lock().splice(start..start + self.page_size, pattern);
    }

    pub fn page(&self, page: PageId) -> Vec<u8> {
        let start = self.start(page);
        self.bytes.lock()[start..start + self.page_size].to_vec()
    }

    fn start(&self, page: PageId) -> usize {
        usize::try_from(page.0).expect("a test's page number is small") * self.page_size
    }
}

impl Frames for VecFrames {
    fn send(
        &self,
        socket: BorrowedFd<'_>,
        head: &[u8],
        page: PageId,
        range: Range<usize>,
    ) -> io::Result<usize> {
        let start = self.start(page);
        let bytes = self.bytes.lock();
        let parts = [IoSlice::new(head), IoSlice::new(&bytes[start + range.start..start + range.end])];
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        Ok(sendmsg::<()>(socket.as_raw_fd(), &parts, &[], flags, None)?)
    }

    fn receive(&self, socket: BorrowedFd<'_>, page: PageId, range: Range<usize>) -> io::Result<usize> {
        self.writes.fetch_add(1, Ordering::Relaxed);
        let start = self.start(page);
        let mut bytes = self.bytes.lock();
        let rest = &mut bytes[start + range.start..start + range.end];
        Ok(recv(socket.as_raw_fd(), rest, MsgFlags::MSG_DONTWAIT)?)
    }

    fn fill(&self, page: PageId, at: usize, bytes: &[u8]) {
        self.writes.fetch_add(1, Ordering::Relaxed);
        let start = self.start(page) + at;
        self.bytes.lock()[start..start + bytes.len()].copy_from_slice(bytes);
    }

    fn crc32(&self, page: PageId) -> u32 {
        let start = self.start(page);
        crc32fast::hash(&self.bytes.lock()[start..start + self.page_size])
    }

    fn page_size(&self) -> usize {
        self.page_size
    }
}

/// Two connected Unix sockets, whose buffers are as small as `buffer` asks for and the kernel allows.
pub(crate) fn pair(buffer: Option<usize>) -> (Stream, Stream) {
    let (near, far) = Socket::pair(Domain::UNIX, Type::STREAM, None).expect("a pair of sockets");
    for socket in [&near, &far] {
        socket.set_nonblocking(true).expect("a flag");
        if let Some(length) = buffer {
            socket.set_send_buffer_size(length).expect("a size");
            socket.set_recv_buffer_size(length).expect("a size");
        }
    }
    (Stream::from_socket(near), Stream::from_socket(far))
}

/// Two sockets connected over TCP on the loopback.
pub(super) fn tcp_pair() -> (Stream, Stream) {
    let tcp = transport(Kind::Tcp);
    let listener =
        tcp.listen(&Endpoint::Tcp { host: "127.0.0.1".to_owned(), port: 0 }).expect("the loopback listens");
    let near = tcp
        .connect(&listener.endpoint().expect("it is bound"), Duration::from_secs(5))
        .expect("the loopback connects");
    loop {
        if let Some(far) = listener.accept().expect("accept") {
            return (near, far);
        }
        std::thread::yield_now();
    }
}
