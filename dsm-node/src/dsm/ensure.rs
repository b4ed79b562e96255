//! Bringing pages here before they are touched: to learn of a loss in time, or to save the wait.
//!
//! Unlike `prefault`, which touches the pages itself, these ask the engine, which can say that a page is lost.

use super::Dsm;
use crate::error::{Error, Result};
use crate::refs::DsmRef;
use crate::shared::Shared;
use dsm_core::{Address, Command, Geometry, PageId, Reply};
use std::ptr;

/// Pages that one call asks for at once: enough to hide each answer's way behind the others', and far fewer than a
/// node's peers keep room for.
const ASKED_AT_ONCE: usize = 64;

/// Pages that one hint brings: what the program comes to later than that, is better hinted at later.
const HINTED_MAX: usize = 256;

impl Dsm {
    /// Brings every page of the object here, to be read, and lends it. Blocks on the pages' owners; if one dies, until
    /// it is known what became of its pages.
    ///
    /// A page may be lost later, or given away again: a touch then waits for it, or ends the process where it is lost.
    /// (It takes a [`DsmRef`], not a `&T`: the compiler may load through a `&T` before any check.)
    ///
    /// # Errors
    /// [`Error::Lost`] with the first page of the object that is lost; [`Error::Evicted`], [`Error::NoQuorum`].
    pub fn ensure<T: Shared>(&self, what: DsmRef<T>) -> Result<&T> {
        let pages: Vec<PageId> = pages_of(&self.node.geometry, what.address(), size_of::<T>()).collect();
        for some in pages.chunks(ASKED_AT_ONCE) {
            let ask = |page: &PageId| self.node.start(Command::Ensure { page: *page });
            let waiting = some.iter().map(ask).collect::<Result<Vec<_>>>()?;
            for page in waiting {
                match page.wait()? {
                    Reply::Ensured => {}
                    other => return Err(Error::unexpected("bringing a page here", other)),
                }
            }
        }
        // SAFETY: what a `DsmRef` points to is valid, is never freed, and changes only through shared references. The
        // result cannot outlive the membership.
        Ok(unsafe { what.target().as_ref() })
    }

    /// Says that `what` will be read soon: its pages, up to 256 of them, are brought here meanwhile. Never blocks, and
    /// fails in silence: it is a hint.
    pub fn prefetch<T: ?Sized>(&self, what: &T) {
        let start = ptr::from_ref(what).addr();
        for page in pages_of(&self.node.geometry, start, size_of_val(what)).take(HINTED_MAX) {
            if self.node.post(Command::Ensure { page }).is_err() {
                return;
            }
        }
    }
}

/// The pages of the region that an object of `length` bytes at `start` has a part of.
fn pages_of(geometry: &Geometry, start: usize, length: usize) -> impl Iterator<Item = PageId> + use<> {
    let page = |offset: usize| geometry.page_of(Address((start + offset) as u64)).map(|page| page.0);
    let pages = match length.checked_sub(1) {
        Some(last) => page(0).zip(page(last)),
        None => None,
    };
    pages.map_or(0..0, |(first, last)| first..last + 1).map(PageId)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DsmBox;
    use crate::dsm::fake::{self, dsm};
    use crate::error::Lost;

    #[test]
    fn the_pages_of_an_object_are_those_that_it_has_a_part_of() {
        let geometry = dsm().node().geometry;
        let (base, size) = (geometry.base().0 as usize, geometry.page_size() as usize);
        let pages =
            |at, length| pages_of(&geometry, base + at, length).map(|page| page.0).collect::<Vec<_>>();
        assert_eq!(pages(5, 0), [0; 0]);
        assert_eq!(pages(5, 1), [0]);
        assert_eq!(pages(0, size), [0]);
        assert_eq!(pages(size - 1, 2), [0, 1]);
        assert_eq!(pages(5, 2 * size), [0, 1, 2]);
        assert!(pages_of(&geometry, 64, 8).next().is_none(), "outside the region");
    }

    #[test]
    fn what_is_here_is_lent_and_what_is_lost_is_said_with_its_page() {
        // Two pages, so that the second is the object's whole, and no other test's.
        const WORDS: usize = 1024;
        let object = DsmBox::leak(dsm().alloc([7_u64; WORDS]).unwrap());
        assert_eq!(dsm().ensure(object).unwrap()[3], 7);
        dsm().prefetch(&*object);
        let geometry = dsm().node().geometry;
        let page = geometry.page_of(Address(object.address() as u64)).unwrap();
        fake::lose(dsm_core::Lost { page, last_owner: Some(dsm_core::NodeId(2)), view: dsm_core::ViewId(9) });
        let address = geometry.address_of(page).0;
        let expected = Lost { page: page.0, address, last_owner: Some(2), view: 9 };
        match dsm().ensure(object) {
            Err(Error::Lost(lost)) => assert_eq!(lost, expected),
            other => panic!("expected Lost, not {other:?}"),
        }
        let said = Error::Lost(expected).to_string();
        for words in
            [format!("page {:#x}", page.0), format!("{address:#x}"), "rank 2".into(), "view 9".into()]
        {
            assert!(said.contains(&words), "{said}");
        }
    }
}
