//! What joins this node to its peers: forming the cluster, connections, and messages that survive them.
//!
//! ```text
//!  form ──▶ Mesh ── links ────▶ the engine polls them, sends, flushes, and takes messages
//!    │        ├──── incoming ─▶ what other threads found: a peer is connected again, or cannot be; a stranger called
//!    │        ├──── acceptor    a thread that answers whoever calls, for as long as the node lives
//!    │        └──── reconnect   calls peers whose link went down
//!    ▼
//!  handshake (who are you?)   stream (TCP, Unix)   endpoint (addresses)   nemesis (tests only: breaks streams)
//! ```
//! The engine thread never waits in here: it polls descriptors and is woken by one. Waiting is left to `form`, before
//! there is an engine, and to the threads of acceptor and reconnector. What the messages mean is the machine's
//! business; where the bytes of pages are, that of whoever implements [`Frames`].

mod acceptor;
mod endpoint;
mod enter;
mod form;
#[cfg(test)]
mod form_tests;
mod gate;
mod handshake;
mod link;
pub(crate) mod nemesis;
mod reconnect;
mod stream;
#[cfg(test)]
pub(crate) mod testing;

pub(crate) use endpoint::{Endpoint, Kind};
pub(crate) use form::{Formation, Mesh, Peer, form};
pub(crate) use gate::{Incoming, Member};
pub(crate) use handshake::{Habitat, Identity, Terms};
pub(crate) use link::{Delivered, Flushed, Heard, Link, Voice};
pub(crate) use stream::{Stream, poll_timeout};

use dsm_core::PageId;
use std::io;
use std::ops::Range;
use std::os::fd::BorrowedFd;

/// Where the bytes of pages come from and go to: the frame view, or ordinary memory in tests.
pub(crate) trait Frames {
    /// Sends `head` and then the bytes of `page` in `range`, as far as the socket takes them without blocking; how many
    /// bytes in all it took.
    fn send(
        &self,
        socket: BorrowedFd<'_>,
        head: &[u8],
        page: PageId,
        range: Range<usize>,
    ) -> io::Result<usize>;
    /// Receives into `page` what comes for `range`, which is not empty, without blocking; how many bytes came. 0 = end
    /// of stream.
    fn receive(&self, socket: BorrowedFd<'_>, page: PageId, range: Range<usize>) -> io::Result<usize>;
    /// Copies `bytes` into `page` at offset `at`.
    fn fill(&self, page: PageId, at: usize, bytes: &[u8]);
    /// CRC32 of the page's bytes.
    fn crc32(&self, page: PageId) -> u32;
    /// The page's length.
    fn page_size(&self) -> usize;
}
