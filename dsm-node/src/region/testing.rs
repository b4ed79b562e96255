//! What tests of the region share: regions at addresses of their own, touches of them, and a pager that stands in for
//! the protocol.

use super::Region;
use crate::uffd::{Fault, FaultBuffer};
use dsm_core::{Access, Address, Geometry, PageId, Payload, Want};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::EventFd;
use std::collections::HashMap;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::os::fd::AsFd;
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// How long a test waits for what must come.
pub(crate) const BUDGET: Duration = Duration::from_secs(20);

/// Tests run side by side in one process, so each region is somewhere else, this far from the one before.
const STRIDE: u64 = 1 << 32;
static NEXT_BASE: AtomicU64 = AtomicU64::new(0x3000_0000_0000);

/// A shape at addresses that no other test has.
pub(crate) fn shape(pages: u64, page_size: u64) -> Geometry {
    let base = NEXT_BASE.fetch_add(STRIDE, Ordering::Relaxed);
    Geometry::new(base, pages * page_size, page_size).expect("a test's shape is a valid one")
}

/// A test's region. When the test fails, the region stays: a thread that still touches it would otherwise end the
/// process with SIGSEGV before the failure is told.
pub(crate) struct TestRegion(ManuallyDrop<Region>);

impl Deref for TestRegion {
    type Target = Region;

    fn deref(&self) -> &Region {
        &self.0
    }
}

impl Drop for TestRegion {
    fn drop(&mut self) {
        if !thread::panicking() {
            // SAFETY: the region is not used after this, for its only holder is being dropped.
            unsafe { ManuallyDrop::take(&mut self.0) }.detach();
        }
    }
}

/// A region at addresses that no other test has.
pub(crate) fn region(pages: u64, page_size: u64) -> TestRegion {
    let region = Region::new(shape(pages, page_size)).expect("this machine can run nodes");
    TestRegion(ManuallyDrop::new(region))
}

impl TestRegion {
    /// Drops the region as an engine that fails does, without an orderly end.
    pub fn fail(self) {
        let mut this = ManuallyDrop::new(self);
        // SAFETY: the test's region is not dropped again, for `this` never is.
        unsafe { ManuallyDrop::drop(&mut this.0) };
    }

    /// Takes the memory away behind the frames, as a machine without memory does: whoever touches one gets SIGBUS.
    pub fn starve(&self) {
        nix::unistd::ftruncate(&self._memory, 0).expect("the memory file can be cut");
    }
}

/// Loads the word at an address of a region, waiting for its page if it must.
pub(crate) fn load(address: Address) -> u64 {
    // SAFETY: the address is in a region that the test keeps mapped, and is a multiple of 8. Any bytes are a `u64`.
    unsafe { pointer(address).read_volatile() }
}

/// Stores to the word at an address of a region, waiting for its page if it must.
pub(crate) fn store(address: Address, value: u64) {
    // SAFETY: as in `load`.
    unsafe { pointer(address).write_volatile(value) }
}

fn pointer(address: Address) -> *mut u64 {
    assert!(address.0.is_multiple_of(8), "{address} holds no word");
    ptr::with_exposed_provenance_mut(usize::try_from(address.0).expect("addresses are of 64 bits"))
}

/// Runs `touch` on another thread; its result comes when its faults are resolved.
pub(crate) fn aside<T: Send + 'static>(touch: impl FnOnce() -> T + Send + 'static) -> Receiver<T> {
    let (sender, receiver) = channel();
    // Whoever does not wait for the result does not want it.
    thread::spawn(move || drop(sender.send(touch())));
    receiver
}

/// The next faults of a region without a pager; there is at least one.
pub(crate) fn next_faults(region: &Region) -> Vec<Fault> {
    let timeout = PollTimeout::try_from(BUDGET).expect("the budget fits");
    let mut ready = [PollFd::new(region.uffd().as_fd(), PollFlags::POLLIN)];
    assert_eq!(poll(&mut ready, timeout), Ok(1), "a fault was to come");
    region.uffd().read_faults(&mut FaultBuffer::default()).expect("faults can be read").collect()
}

/// The only fault of a region without a pager.
pub(crate) fn next_fault(region: &Region) -> Fault {
    let faults = next_faults(region);
    assert_eq!(faults.len(), 1, "{faults:?}");
    faults[0]
}

/// What the pager believes, and what it saw.
#[derive(Default)]
pub(crate) struct Belief {
    /// The access of each page; none where nothing is said.
    pub access: HashMap<PageId, Access>,
    /// Every fault.
    pub faults: Vec<Fault>,
}

/// A thread that resolves faults as the protocol would if this node were alone: a miss finds the bytes in the frame.
pub(crate) struct Pager {
    region: Arc<TestRegion>,
    belief: Arc<Mutex<Belief>>,
    stop: Arc<EventFd>,
    thread: Option<JoinHandle<()>>,
}

impl Pager {
    /// Serves a region of this shape.
    pub fn new(pages: u64, page_size: u64) -> Pager {
        let region = Arc::new(region(pages, page_size));
        let belief = Arc::new(Mutex::new(Belief::default()));
        let stop = Arc::new(EventFd::new().expect("a descriptor is left"));
        let thread = thread::spawn({
            let (region, belief, stop) = (region.clone(), belief.clone(), stop.clone());
            move || serve(&region, &belief, &stop)
        });
        Pager { region, belief, stop, thread: Some(thread) }
    }

    /// The region.
    pub fn region(&self) -> &Region {
        &self.region
    }

    /// What it believes. Faults wait for as long as this is held: the holder must not touch the region.
    pub fn belief(&self) -> MutexGuard<'_, Belief> {
        self.belief.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where a page begins.
    pub fn address(&self, page: u64) -> Address {
        self.region.geometry.address_of(PageId(page))
    }

    /// Reduces the access to a page.
    pub fn protect(&self, page: u64, access: Access) {
        let mut belief = self.belief();
        self.region.protect(PageId(page), access).expect("protecting works");
        belief.access.insert(PageId(page), access);
    }

    /// The faults since the last call.
    pub fn faults(&self) -> Vec<Fault> {
        std::mem::take(&mut self.belief().faults)
    }

    /// Asserts that the page tables are as believed, and the first pages as `expected`.
    pub fn assert_access(&self, expected: &[Access]) {
        let belief = self.belief();
        let pages = self.region.geometry.pages();
        let found = self.region.scan(0..pages).expect("scanning works");
        let believed = |page| belief.access.get(&PageId(page)).copied().unwrap_or(Access::None);
        assert_eq!(found, (0..pages).map(believed).collect::<Vec<_>>());
        assert_eq!(&found[..expected.len()], expected);
    }
}

impl Drop for Pager {
    fn drop(&mut self) {
        self.stop.write(1).expect("the counter does not overflow");
        let ended = self.thread.take().map(JoinHandle::join);
        if !thread::panicking() {
            assert!(matches!(ended, Some(Ok(()))), "the pager panicked");
        }
    }
}

fn serve(region: &Region, belief: &Mutex<Belief>, stop: &EventFd) {
    let mut buffer = FaultBuffer::default();
    loop {
        let mut ready = [
            PollFd::new(region.uffd().as_fd(), PollFlags::POLLIN),
            PollFd::new(stop.as_fd(), PollFlags::POLLIN),
        ];
        poll(&mut ready, PollTimeout::NONE).expect("polling works");
        if ready[1].any().unwrap_or(true) {
            return;
        }
        let mut belief = belief.lock().unwrap_or_else(PoisonError::into_inner);
        for fault in region.uffd().read_faults(&mut buffer).expect("faults can be read") {
            belief.faults.push(fault);
            let page = region.geometry.page_of(fault.address).expect("only the region is registered");
            let before = belief.access.get(&page).copied().unwrap_or(Access::None);
            let after = before.max(fault.want.access());
            match (before, fault.want) {
                (Access::None, _) => region.install(page, after, Payload::Bytes),
                (Access::Read, Want::Write) => region.install(page, after, Payload::Held),
                (Access::Read, Want::Read) | (Access::Write, _) => region.refresh(page, after),
            }
            .expect("installing works");
            belief.access.insert(page, after);
        }
    }
}
