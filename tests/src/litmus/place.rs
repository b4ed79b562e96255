//! Where variables lie, and where threads run.

use super::board::INSTANCES_MAX;
use super::shape::{THREADS_MAX, VARIABLES_MAX};
use dsm_node::Shared;
use serde::{Deserialize, Serialize};
use std::sync::atomic::AtomicU64;

/// Bytes of a page of the runs' regions.
pub const PAGE_SIZE: usize = 4096;

/// Where the variables of one instance lie.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "kebab-case")]
pub enum Layout {
    /// Each variable on another page.
    Separate,
    /// All variables on one page, each on a cache line of its own.
    SamePage,
    /// Each variable across the boundary of two pages; plain accesses only.
    Straddle,
}

/// Where the threads of a program run.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "kebab-case")]
pub enum Placement {
    /// Each thread on a node of its own.
    Nodes,
    /// Two nodes with two threads each.
    Mixed,
    /// All threads on one node.
    Threads,
}

/// Bytes of a cache line.
const LINE: usize = 64;

/// Instances whose `x` shares a page, and likewise `y` and `z`, where variables lie on separate pages.
const PER_SEPARATE_PAGE: usize = PAGE_SIZE / LINE;

/// Pages of each variable, where they lie on separate pages.
const SEPARATE_PAGES: usize = INSTANCES_MAX / PER_SEPARATE_PAGE;

/// Lines of one instance whose variables share a page: a power of two.
const INSTANCE_LINES: usize = 4;

/// Instances on one page whose variables share it.
const PER_SAME_PAGE: usize = PAGE_SIZE / (INSTANCE_LINES * LINE);

/// Instances whose variables straddle. Each variable takes a page boundary, and each access two faults, so there are
/// fewer: a round would take too long otherwise.
const STRADDLING: usize = 32;

/// Pages that all layouts find room on.
const PAGES: usize = STRADDLING * VARIABLES_MAX + 1;

const _: () = assert!(VARIABLES_MAX <= INSTANCE_LINES);
const _: () = assert!(SEPARATE_PAGES * VARIABLES_MAX <= PAGES);
const _: () = assert!(INSTANCES_MAX / PER_SAME_PAGE <= PAGES);
const _: () = assert!(STRADDLING <= INSTANCES_MAX);

/// The memory in the region that holds all variables.
#[derive(Shared)]
#[repr(C, align(4096))]
pub struct Arena {
    words: [AtomicU64; PAGES * PAGE_SIZE / size_of::<u64>()],
}

const _: () = assert!(align_of::<Arena>() == PAGE_SIZE);

impl Arena {
    /// All variables zero.
    #[must_use]
    pub fn zero() -> Arena {
        Arena { words: [const { AtomicU64::new(0) }; PAGES * PAGE_SIZE / size_of::<u64>()] }
    }

    /// Where a variable lies.
    #[must_use]
    pub fn address(&self, layout: Layout, instance: usize, variable: usize) -> *mut u64 {
        // The words are atomics, so that a pointer to them may be written through.
        let first = self.words.as_ptr().cast::<u8>().cast_mut();
        first.wrapping_add(layout.offset(instance, variable)).cast()
    }
}

impl Layout {
    /// All of them.
    pub const ALL: [Layout; 3] = [Layout::Separate, Layout::SamePage, Layout::Straddle];

    /// As it is called on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Layout::Separate => "separate",
            Layout::SamePage => "same-page",
            Layout::Straddle => "straddle",
        }
    }

    /// How many instances a round has.
    #[must_use]
    pub fn instances(self) -> usize {
        match self {
            Layout::Separate | Layout::SamePage => INSTANCES_MAX,
            Layout::Straddle => STRADDLING,
        }
    }

    fn offset(self, instance: usize, variable: usize) -> usize {
        match self {
            Layout::Separate => {
                let page = variable * SEPARATE_PAGES + instance / PER_SEPARATE_PAGE;
                page * PAGE_SIZE + instance % PER_SEPARATE_PAGE * LINE
            }
            Layout::SamePage => {
                let line = instance % PER_SAME_PAGE * INSTANCE_LINES + variable;
                instance / PER_SAME_PAGE * PAGE_SIZE + line * LINE
            }
            Layout::Straddle => {
                let boundary = instance * VARIABLES_MAX + variable + 1;
                boundary * PAGE_SIZE - size_of::<u64>() / 2
            }
        }
    }
}

impl Placement {
    /// All of them.
    pub const ALL: [Placement; 3] = [Placement::Nodes, Placement::Mixed, Placement::Threads];

    /// As it is called on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Placement::Nodes => "nodes",
            Placement::Mixed => "mixed",
            Placement::Threads => "threads",
        }
    }

    /// As it is put in a sentence.
    #[must_use]
    pub fn describe(self) -> &'static str {
        match self {
            Placement::Nodes => "nodes of one thread each",
            Placement::Mixed => "two nodes of two threads each",
            Placement::Threads => "threads of one node",
        }
    }

    /// How many nodes run a program of so many threads.
    #[must_use]
    pub fn nodes(self, threads: usize) -> usize {
        match self {
            Placement::Nodes => threads,
            Placement::Mixed => 2,
            Placement::Threads => 1,
        }
    }

    /// How many threads run in all, those of all nodes together.
    #[must_use]
    pub fn slots(self, threads: usize) -> usize {
        match self {
            Placement::Nodes | Placement::Threads => threads,
            Placement::Mixed => THREADS_MAX,
        }
    }

    /// How many of them run on each node.
    #[must_use]
    pub fn slots_per_node(self, threads: usize) -> usize {
        self.slots(threads) / self.nodes(threads)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn pages(layout: Layout, instance: usize, variable: usize) -> [usize; 2] {
        let first = layout.offset(instance, variable);
        [first / PAGE_SIZE, (first + size_of::<u64>() - 1) / PAGE_SIZE]
    }

    #[test]
    fn layouts_are_what_they_are_called() {
        for instance in 0..INSTANCES_MAX {
            let separate: HashSet<_> =
                (0..VARIABLES_MAX).map(|v| pages(Layout::Separate, instance, v)).collect();
            assert_eq!(separate.len(), VARIABLES_MAX);
            let same: HashSet<_> = (0..VARIABLES_MAX).map(|v| pages(Layout::SamePage, instance, v)).collect();
            assert_eq!(same.len(), 1);
        }
        for instance in 0..STRADDLING {
            for variable in 0..VARIABLES_MAX {
                let [first, last] = pages(Layout::Straddle, instance, variable);
                assert_eq!(last, first + 1);
                assert!(last < PAGES);
            }
        }
    }

    #[test]
    fn no_two_variables_overlap() {
        for layout in Layout::ALL {
            let mut bytes = HashSet::new();
            for instance in 0..layout.instances() {
                for variable in 0..VARIABLES_MAX {
                    let first = layout.offset(instance, variable);
                    assert!(first + size_of::<u64>() <= PAGES * PAGE_SIZE);
                    assert!((first..first + size_of::<u64>()).all(|byte| bytes.insert(byte)), "{layout:?}");
                }
            }
        }
    }

    #[test]
    fn two_nodes_have_two_threads_each() {
        for threads in 2..=THREADS_MAX {
            assert_eq!(Placement::Mixed.nodes(threads), 2);
            assert_eq!(Placement::Mixed.slots_per_node(threads), 2);
            assert_eq!(Placement::Nodes.slots_per_node(threads), 1);
            assert_eq!(Placement::Threads.slots_per_node(threads), threads);
        }
    }
}
