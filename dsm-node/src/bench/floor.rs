//! The floors: what the kernel takes for the parts of a remote fault, with nothing of ours in between.
//!
//! A remote read miss cannot be cheaper than one local userfaultfd fault plus one blocking round trip of a small request
//! and a page. Both are measured in the run that they are held against, since machines drift, and between the same two
//! processes on the same two processors, since a wake that crosses processors costs several times one that does not.

use crate::error::{Error, Result};
use crate::region::Region;
use crate::stats::Latency;
use crate::transport::Frames as _;
use crate::uffd::FaultBuffer;
use dsm_core::{Access, Geometry, PageId, Payload, limits};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

/// A request as small as ours.
pub(super) const REQUEST_LENGTH: usize = 64;

/// One page of the default size.
pub(super) const PAGE_LENGTH: usize = limits::PAGE_SIZE_DEFAULT as usize;

/// Where the floor's own regions lie, one behind the other, since a region's addresses stay reserved: behind the largest
/// region that starts at the default base.
static NEXT_BASE: AtomicU64 = AtomicU64::new(0x3000_0000_0000);

/// Round trips before the measured ones: connections and caches warm up.
const WARM_UP: usize = 200;

/// Times `samples` local faults: a load of an absent page, whose bytes are in its frame, is resolved by a handler
/// thread that sits in a blocking read.
pub(super) fn local_fault(samples: usize) -> Result<Latency> {
    let size = (samples * PAGE_LENGTH) as u64;
    let base = NEXT_BASE.fetch_add(size, Ordering::Relaxed);
    let geometry = Geometry::new(base, size, limits::PAGE_SIZE_DEFAULT)?;
    let region = Region::new(geometry)?;
    fcntl(region.uffd().as_fd(), FcntlArg::F_SETFL(OFlag::empty()))
        .map_err(|errno| Error::io("making the floor's userfaultfd block", errno))?;
    let page = [1u8; PAGE_LENGTH];
    for id in 0..samples as u64 {
        region.frames().fill(PageId(id), 0, &page);
    }
    let mut latency = Latency::new();
    thread::scope(|scope| {
        let handler = scope.spawn(|| resolve(&region, geometry, samples));
        for id in 0..samples as u64 {
            let address = geometry.address_of(PageId(id)).0 as *const AtomicU8;
            // SAFETY: `address` is the start of a page of the region, which stays mapped until after this scope; the
            // byte is valid as an atomic, and nobody writes it.
            let byte = unsafe { &*address };
            let start = Instant::now();
            std::hint::black_box(byte.load(Ordering::Relaxed));
            latency.record(nanos_since(start));
        }
        handler.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })?;
    region.detach();
    Ok(latency)
}

fn resolve(region: &Region, geometry: Geometry, samples: usize) -> Result<()> {
    let mut buffer = FaultBuffer::default();
    let mut resolved = 0;
    while resolved < samples {
        for fault in region.uffd().read_faults(&mut buffer)? {
            if let Some(page) = geometry.page_of(fault.address) {
                region.install(page, Access::Read, Payload::Bytes)?;
                resolved += 1;
            }
        }
    }
    Ok(())
}

/// The other end of [`round_trip`], on the node that is its peer: answers each request of `there` bytes with `back` bytes,
/// until the caller hangs up. `tell` is told the port.
pub(super) fn answer_round_trips(there: usize, back: usize, tell: impl FnOnce(u16)) -> Result<()> {
    let serve = || -> io::Result<()> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        tell(listener.local_addr()?.port());
        let (mut stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        let (mut request, answer) = (vec![0; there], vec![1; back]);
        loop {
            match stream.read_exact(&mut request) {
                Ok(()) => stream.write_all(&answer)?,
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    };
    serve().map_err(|error| Error::io("answering TCP round trips", error))
}

/// Times `samples` blocking round trips over TCP loopback to another process: `there` bytes there, `back` bytes back.
pub(super) fn round_trip(port: u16, there: usize, back: usize, samples: usize) -> Result<Latency> {
    let measure = || -> io::Result<Latency> {
        let mut latency = Latency::new();
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        let (request, mut answer) = (vec![1; there], vec![0; back]);
        for round in 0..samples + WARM_UP {
            let start = Instant::now();
            stream.write_all(&request)?;
            stream.read_exact(&mut answer)?;
            if round >= WARM_UP {
                latency.record(nanos_since(start));
            }
        }
        Ok(latency)
    };
    measure().map_err(|error| Error::io("measuring TCP round trips", error))
}

/// Nanoseconds since `start`.
pub(super) fn nanos_since(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX)
}
