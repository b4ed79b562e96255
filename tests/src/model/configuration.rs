//! What is checked: how many nodes and pages, whose threads may begin how many instructions of which kinds, over which
//! network. A configuration is exhausted: every order of everything that may happen in it is tried.

use super::races::Race;
use dsm_core::{Copyset, Geometry, NodeId, PageId, limits};

/// One instruction of a thread, on pages by their index.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Instruction {
    /// Loads a word of the page.
    Load(usize),
    /// Stores to the page.
    Store(usize),
    /// Loads a word of the first page and stores it to the second: it needs both at once.
    Copy(usize, usize),
}

/// What the network may do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Network {
    /// Messages of one node to another keep their order; as the transport has it.
    Fifo,
    /// Any message may overtake any other; the protocol promises to bear it.
    Unordered,
}

/// When a message that was sent lazily leaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HoldBack {
    /// At any time: it is on its way at once, and may take as long as it likes.
    AnyTime,
    /// With the next message to the same node or when the machine says so, and never else: that it leaves after
    /// `HOLD_BACK_MAX` at the latest must not be needed for progress.
    UntilNeeded,
}

/// One cluster to be exhausted.
#[derive(Clone, Copy, Debug)]
pub struct Configuration {
    /// Its name.
    pub name: &'static str,
    /// What it is about.
    pub what: &'static str,
    /// The home of each page.
    pub homes: &'static [u16],
    /// Per node, per thread, how many instructions it may begin.
    pub threads: &'static [&'static [u8]],
    /// What happened before, one after the other: node and instruction.
    pub prologue: &'static [(usize, Instruction)],
    /// The instructions from which threads choose.
    pub instructions: &'static [Instruction],
    /// What the network may do.
    pub network: Network,
    /// When lazy messages leave.
    pub hold_back: HoldBack,
    /// How many probes may be answered before the instruction has retired: a driver may guess wrongly.
    pub hasty: u8,
    /// How many grants may come twice.
    pub strays: u8,
    /// The races that must be seen.
    pub races: &'static [Race],
    /// How many states there are: the check is worth nothing if a change of the model makes most of them unreachable.
    pub states: usize,
    /// Whether it takes minutes, and so is left to the command.
    pub long: bool,
}

impl Configuration {
    /// The region: the default shape, in a small size.
    pub fn geometry(&self) -> Geometry {
        const REGION: u64 = 1 << 30;
        Geometry::new(limits::REGION_BASE_DEFAULT, REGION, limits::PAGE_SIZE_DEFAULT)
            .expect("the defaults fit each other")
    }

    /// The pages: the first pages of segments that have the wanted homes, in ascending order.
    ///
    /// # Panics
    /// If there is no such segment: the configuration names a home that is no member.
    pub fn pages(&self) -> Vec<PageId> {
        let geometry = self.geometry();
        let members = Copyset::first(self.threads.len());
        let mut segments = (0..geometry.segments()).map(dsm_core::SegmentId);
        let page = |&home: &u16| {
            let segment =
                segments.find(|&segment| geometry.home_of_segment(segment, members) == NodeId(home));
            PageId(geometry.pages_of(segment.expect("each member is home to some of many segments")).start)
        };
        self.homes.iter().map(page).collect()
    }
}
