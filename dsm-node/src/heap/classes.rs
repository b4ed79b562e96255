//! Sizes of blocks: every request is rounded up to one of a few sizes, so that a freed block fits the next request.

use std::alloc::Layout;

/// Requests beyond this get a span of their own where pages are small: rounding them up would waste more than a page.
pub(crate) const SMALL_MAX: usize = 32 << 10;

/// Requests beyond this get a span of their own whatever the pages. Of the largest pages it is a half: two blocks that
/// large share one, where each in a span of its own would waste half of it.
const LARGEST: usize = dsm_core::limits::PAGE_SIZE_MAX as usize / 2;

/// The smallest block, and the step of the smallest classes: what the largest primitive type aligns to.
const STEP: usize = 16;

/// Classes that grow by `STEP`; behind them, each doubling is cut in four.
const LINEAR: usize = 8;

/// Classes per doubling: at most a fifth of a block is wasted.
const PER_DOUBLING: usize = 4;

/// Where the linear classes end.
const LINEAR_MAX: usize = STEP * LINEAR;

/// How many classes there are up to [`SMALL_MAX`].
pub(crate) const SMALL_CLASSES: usize = classes_up_to(SMALL_MAX);

/// How many classes there are.
pub(crate) const CLASSES: usize = classes_up_to(LARGEST);

/// Spans begin at a page, and no page is smaller than this: no block can be sure of a larger alignment.
const ALIGN_MAX: usize = dsm_core::limits::PAGE_SIZE_MIN as usize;

/// One size of block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Class(usize);

impl Class {
    /// The smallest class that holds `layout`, or `None` if that needs a span of its own.
    pub(crate) fn of(layout: Layout) -> Option<Class> {
        Class::up_to(SMALL_MAX, layout)
    }

    /// The smallest class that holds `layout`, where pages have `page_size` bytes, or `None` if that needs a span of
    /// its own: large pages have room for several blocks that are large elsewhere.
    pub(crate) fn in_pages_of(page_size: u64, layout: Layout) -> Option<Class> {
        let half = usize::try_from(page_size / 2).unwrap_or(LARGEST);
        Class::up_to(half.clamp(SMALL_MAX, LARGEST), layout)
    }

    fn up_to(size_max: usize, layout: Layout) -> Option<Class> {
        if layout.size() > size_max || layout.align() > ALIGN_MAX {
            return None;
        }
        (Class::first_for(layout.size())..CLASSES)
            .map(Class)
            .find(|class| class.size() >= layout.size() && class.align() >= layout.align())
    }

    /// The class as an index below [`CLASSES`].
    pub(crate) fn index(self) -> usize {
        self.0
    }

    /// The length of its blocks.
    pub(crate) fn size(self) -> usize {
        match self.0.checked_sub(LINEAR) {
            None => STEP * (self.0 + 1),
            Some(beyond) => {
                let doubling = LINEAR_MAX << (beyond / PER_DOUBLING);
                doubling + doubling / PER_DOUBLING * (beyond % PER_DOUBLING + 1)
            }
        }
    }

    /// What its blocks are aligned to, where they lie one behind the other from the start of a page on.
    pub(crate) fn align(self) -> usize {
        (1 << self.size().trailing_zeros()).min(ALIGN_MAX)
    }

    /// A class that is not above the first that holds `size`: where to begin to look.
    fn first_for(size: usize) -> usize {
        if size <= LINEAR_MAX {
            size.saturating_sub(1) / STEP
        } else {
            LINEAR + PER_DOUBLING * ((size - 1) / LINEAR_MAX).ilog2() as usize
        }
    }
}

const fn classes_up_to(size: usize) -> usize {
    LINEAR + PER_DOUBLING * (size / LINEAR_MAX).ilog2() as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_grow_and_the_last_is_the_largest_small_block() {
        let sizes: Vec<usize> = (0..CLASSES).map(|index| Class(index).size()).collect();
        assert!(sizes.is_sorted_by(|a, b| a < b), "{sizes:?}");
        assert_eq!((sizes[0], sizes[SMALL_CLASSES - 1], sizes[CLASSES - 1]), (STEP, SMALL_MAX, LARGEST));
    }

    #[test]
    fn every_small_layout_has_the_smallest_class_that_fits() {
        for size in 0..=SMALL_MAX {
            for align in [1, 8, 16, 64, 4096] {
                let layout = Layout::from_size_align(size, align).unwrap();
                let class = Class::of(layout).expect("every small layout has a class");
                assert!(
                    class.size() >= size && class.size().is_multiple_of(align),
                    "{layout:?} in {class:?}"
                );
                let smaller = (0..class.index()).map(Class).find(|c| c.size() >= size && c.align() >= align);
                assert_eq!(smaller, None, "{layout:?}");
            }
        }
    }

    #[test]
    fn large_pages_are_shared_by_blocks_that_are_large_elsewhere() {
        let layout = Layout::from_size_align(64 << 10, 4096).unwrap();
        assert_eq!(Class::in_pages_of(4 << 10, layout), None);
        assert_eq!(Class::in_pages_of(2 << 20, layout).map(Class::size), Some(64 << 10));
        let whole = Layout::from_size_align(2 << 20, 8).unwrap();
        assert_eq!(Class::in_pages_of(2 << 20, whole), None);
    }

    #[test]
    fn large_and_widely_aligned_blocks_have_no_class() {
        assert_eq!(Class::of(Layout::from_size_align(SMALL_MAX + 1, 1).unwrap()), None);
        assert_eq!(Class::of(Layout::from_size_align(1, 2 * ALIGN_MAX).unwrap()), None);
    }
}
