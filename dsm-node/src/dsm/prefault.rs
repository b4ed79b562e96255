//! Touching pages ahead of a system call that would fail on them.
//!
//! Where a node serves the faults of user mode only (`UFFD_USER_MODE_ONLY`), read(2) or write(2) on a page that is not
//! here is `EFAULT`. Whether that is so is not asked here: a touch of a page that is here costs a nanosecond.

use super::Dsm;
use std::mem::MaybeUninit;
use std::ptr;

/// A byte of an object, which may be padding.
type Byte = MaybeUninit<u8>;

impl Dsm {
    /// Brings every page of `what` here, to be read: the buffer of a write(2), say. Blocks on the pages' owners.
    ///
    /// Another node may take a page away again before the system call looks at it; a call that fails with `EFAULT` all
    /// the same is made again after another `prefault`. Where the kernel serves all faults (`dsm doctor` tells), none
    /// of this is needed.
    pub fn prefault<T: ?Sized>(&self, what: &T) {
        let page_size = self.node().geometry.page_size();
        let start = ptr::from_ref(what).cast::<Byte>();
        for offset in touches(start.addr(), size_of_val(what), page_size) {
            // SAFETY: the byte lies in the object that the caller borrows. A `Byte` may have any value or none, and it
            // is not looked at: should it be part of an atomic that another thread changes, nothing depends on it.
            let _ = unsafe { start.add(offset).read_volatile() };
        }
    }

    /// Brings every page of `what` here, to be written: the buffer of a read(2), say. Otherwise as [`Dsm::prefault`].
    pub fn prefault_mut<T: ?Sized>(&self, what: &mut T) {
        let page_size = self.node().geometry.page_size();
        let length = size_of_val(what);
        let start = ptr::from_mut(what).cast::<Byte>();
        for offset in touches(start.addr(), length, page_size) {
            // SAFETY: the byte lies in the object that the caller borrows mutably, so that nobody else uses it; it
            // gets the value that it has. (It is read first, which may cost a fault more; but an atomic step that does
            // both would be one on a byte that may be padding.)
            unsafe {
                let byte = start.add(offset);
                byte.write_volatile(byte.read_volatile());
            }
        }
    }
}

/// One offset for each page that an object of `length` bytes at `start` has a part of.
fn touches(start: usize, length: usize, page_size: u64) -> impl Iterator<Item = usize> {
    // A page has at most 2 MiB.
    let page_size = page_size as usize;
    let to_next_page = page_size - start % page_size;
    std::iter::once(0).chain((to_next_page..length).step_by(page_size)).take_while(move |at| *at < length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dsm::fake::dsm;
    use crate::region::KERNEL_PAGE;
    use crate::region::testing::Pager;
    use dsm_core::{Access, Want};

    const PAGE: usize = KERNEL_PAGE as usize;

    #[test]
    fn each_page_is_touched_once() {
        let offsets = |start, length| touches(start, length, KERNEL_PAGE).collect::<Vec<_>>();
        assert!(offsets(PAGE + 5, 0).is_empty());
        assert_eq!(offsets(PAGE + 5, 1), [0]);
        assert_eq!(offsets(PAGE, 2 * PAGE), [0, PAGE]);
        assert_eq!(offsets(2 * PAGE - 1, 2), [0, 1]);
        assert_eq!(offsets(PAGE + 5, 2 * PAGE), [0, PAGE - 5, 2 * PAGE - 5]);
    }

    #[test]
    fn what_was_prefaulted_is_here_and_unchanged() {
        use Access::{None as Nothing, Read, Write};
        let pager = Pager::new(5, KERNEL_PAGE);
        let start = ptr::with_exposed_provenance_mut::<u8>(pager.address(0).0 as usize);
        // SAFETY: the bytes lie in the pager's region, which stands until the test ends, and are nobody else's.
        let buffer = unsafe { std::slice::from_raw_parts_mut(start.add(PAGE / 2), 3 * PAGE) };
        dsm().prefault(&buffer[..PAGE]);
        pager.assert_access(&[Read, Read, Nothing, Nothing, Nothing]);
        assert!(pager.faults().iter().all(|fault| fault.want == Want::Read));
        buffer[2 * PAGE] = 7;
        pager.faults();
        dsm().prefault_mut(&mut buffer[PAGE..]);
        pager.assert_access(&[Read, Write, Write, Write, Nothing]);
        pager.faults();
        assert_eq!((buffer[2 * PAGE], buffer[PAGE]), (7, 0));
        assert!(pager.faults().is_empty());
    }
}
