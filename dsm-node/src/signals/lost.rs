//! Which pages are lost, for the handler of the signal that a touch of one brings.
//!
//! A handler may wait for nothing, so the runs form a list that only grows: each is written before it is linked, and
//! never changed or freed after.

use crate::error::Lost;
use dsm_core::{Geometry, PageId};
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

/// The run that was noted last.
static LATEST: AtomicPtr<Run> = AtomicPtr::new(ptr::null_mut());

/// Pages that were lost together.
pub(super) struct Run {
    first: u64,
    pages: u64,
    /// The rank that owned them last, if any survivor knew.
    pub(super) last_owner: Option<u32>,
    /// The view in whose recovery they were found lost.
    pub(super) view: u64,
    /// The run that was noted before this one.
    before: *const Run,
}

/// Notes that `pages` pages from `first` on are lost, as `lost` says. For the engine's thread alone, before it poisons
/// them. False if that is known: a page is poisoned again whenever somebody touches it that was unmapped meanwhile.
pub(crate) fn note_lost(geometry: &Geometry, first: PageId, pages: u64, lost: dsm_core::Lost) -> bool {
    if find(first.0).is_some() {
        return false;
    }
    let Lost { last_owner, view, .. } = Lost::new(geometry, lost);
    let run = Box::leak(Box::new(Run { first: first.0, pages, last_owner, view, before: ptr::null() }));
    // Only the engine's one thread writes here.
    run.before = LATEST.load(Ordering::Acquire);
    LATEST.store(run, Ordering::Release);
    true
}

/// The run that has `page`. Async-signal-safe.
pub(super) fn find(page: u64) -> Option<&'static Run> {
    let mut next = LATEST.load(Ordering::Acquire).cast_const();
    loop {
        // SAFETY: the pointer is null, or that of a run that was written before it was linked with release order, and
        // is never changed or freed after.
        let run: &'static Run = unsafe { next.as_ref() }?;
        if page.checked_sub(run.first).is_some_and(|offset| offset < run.pages) {
            return Some(run);
        }
        next = run.before;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dsm_core::{NodeId, ViewId};

    #[test]
    fn a_page_is_found_in_the_run_that_has_it() {
        let geometry = Geometry::new(dsm_core::limits::REGION_BASE_DEFAULT, 1 << 30, 4096).unwrap();
        let lost = |rank: Option<u16>, view| dsm_core::Lost {
            page: PageId(1000),
            last_owner: rank.map(NodeId),
            view: ViewId(view),
        };
        assert!(note_lost(&geometry, PageId(1000), 10, lost(Some(3), 7)));
        assert!(note_lost(&geometry, PageId(1010), 1, lost(None, 8)));
        assert!(!note_lost(&geometry, PageId(1009), 1, lost(None, 9)), "that one is known to be lost");
        let told = |page| find(page).map(|run| (run.last_owner, run.view));
        assert_eq!(told(999), None);
        assert_eq!((told(1000), told(1009)), (Some((Some(3), 7)), Some((Some(3), 7))));
        assert_eq!((told(1010), told(1011)), (Some((None, 8)), None));
    }
}
