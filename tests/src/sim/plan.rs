//! What one seed decides before the run begins: the cluster, the hot pages, the delays, and the mix of operations.

use super::rng::Rng;
use dsm_core::{Address, Copyset, Geometry, LockId, NodeId, PageId, Time, limits};

/// Words that a virtual page has. Several, so that threads share pages without sharing words.
pub const WORDS: usize = WORD_LIST + WORDS_OF_STRUCTURE;

/// The words of each page that are used one by one; the others belong to structures.
pub const WORDS_COUNTED_APART: usize = 4;

/// The first of the words of each page that hold the queue.
pub const WORD_QUEUE: usize = WORDS_COUNTED_APART;

/// The first of the words of each page that hold the list.
pub const WORD_LIST: usize = WORD_QUEUE + WORDS_OF_STRUCTURE;

/// Words of each page that belong to one structure: with a single page, a queue of one element and a list of one node.
pub const WORDS_OF_STRUCTURE: usize = 3;

/// The word of each page that takes plain stores of unique values.
pub const WORD_STORED: usize = 0;

/// The word of each page that takes atomic increments.
pub const WORD_COUNTED: usize = 1;

/// The first of the words that are incremented under a lock; lock `i` has the `i`th.
pub const WORD_GUARDED: usize = 2;

/// Locks of a run, at most: each has a word of its own on a page.
pub const LOCKS_MAX: usize = WORDS_COUNTED_APART - WORD_GUARDED;

/// Nodes of a run, at most.
pub const NODES_MAX: u64 = 8;

/// Threads of a node, at most.
pub const THREADS_MAX: u64 = 3;

/// One word of one page.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Cell {
    /// The page.
    pub page: PageId,
    /// Which of its words.
    pub word: usize,
}

/// How long something takes: mostly `floor` to `floor + spread`, now and then up to `spike` longer. In nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct Delay {
    floor: u64,
    spread: u64,
    spike_permille: u64,
    spike: u64,
}

impl Delay {
    /// One duration, in nanoseconds.
    pub fn draw(&self, rng: &mut Rng) -> u64 {
        let spike = if rng.chance(self.spike_permille) { rng.below(self.spike) } else { 0 };
        self.floor + rng.below(self.spread + 1) + spike
    }
}

/// A lock and the word that it guards.
#[derive(Clone, Copy, Debug)]
pub struct Guarded {
    /// The lock.
    pub lock: LockId,
    /// The word.
    pub cell: Cell,
}

/// How likely each kind of operation is, relative to the others.
#[derive(Clone, Copy, Debug)]
pub struct Mix {
    /// Plain loads.
    pub load: u64,
    /// Plain stores.
    pub store: u64,
    /// Atomic increments.
    pub increment: u64,
    /// Instructions that touch two pages.
    pub straddle: u64,
    /// Critical sections.
    pub section: u64,
    /// Claims of a root's name.
    pub claim: u64,
    /// Leases of spans, returns, look-ups and frees of blocks in them.
    pub span: u64,
}

impl Mix {
    /// The weights, in the order of the fields.
    #[must_use]
    pub fn weights(&self) -> [u64; 7] {
        [self.load, self.store, self.increment, self.straddle, self.section, self.claim, self.span]
    }
}

/// A node's death.
#[derive(Clone, Copy, Debug)]
pub struct Crash {
    /// Who dies.
    pub node: NodeId,
    /// When.
    pub at: Time,
}

/// What a seed decides.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The region.
    pub geometry: Geometry,
    /// The cluster.
    pub members: Copyset,
    /// How many threads each node runs.
    pub threads: Vec<usize>,
    /// The pages that threads touch.
    pub hot: Vec<PageId>,
    /// The locks.
    pub locks: Vec<Guarded>,
    /// How many root names there are.
    pub names: usize,
    /// Blocks of operations in each thread's program.
    pub blocks: usize,
    /// Barriers in the program of each node's first thread.
    pub barriers: usize,
    /// What the blocks are.
    pub mix: Mix,
    /// A message's way.
    pub network: Delay,
    /// Whether coherence messages of one ordered pair of nodes may overtake each other.
    pub reorders: bool,
    /// From a fault to the engine's hearing of it.
    pub report: Delay,
    /// From a wake to the woken thread's next instruction.
    pub wake: Delay,
    /// From one instruction to the next.
    pub think: Delay,
    /// How often a fault is reported twice.
    pub duplicates_permille: u64,
    /// Who dies, if anybody.
    pub crash: Option<Crash>,
}

/// How many runs in a thousand have a crash.
const CRASH_PERMILLE: u64 = 150;

const MICRO: u64 = 1000;
const MILLI: u64 = 1000 * MICRO;

impl Plan {
    /// The plan of a seed's stream; a crash only if `crashes`.
    ///
    /// # Panics
    /// Never: all shapes of the region that it draws are possible ones.
    pub fn draw(rng: &mut Rng, crashes: bool) -> Plan {
        let nodes = rng.between(1, NODES_MAX);
        let members = Copyset::first(usize::try_from(nodes).expect("at most NODES_MAX"));
        // From 64 segments on, larger regions have larger segments: 1, 2 and 4 pages each.
        let pages = *rng.pick(&[limits::SEGMENTS_MIN, 2 * limits::SEGMENTS_MIN, 4 * limits::SEGMENTS_MIN]);
        let page_size = limits::PAGE_SIZE_MIN;
        let geometry = Geometry::new(limits::REGION_BASE_DEFAULT, pages * page_size, page_size)
            .expect("the default base and a few hundred small pages fit");
        let hot = hot_pages(rng, &geometry);
        let threads_max = rng.between(1, THREADS_MAX);
        let threads = (0..nodes).map(|_| rng.between(1, threads_max) as usize).collect();
        let locks = locks(rng, &geometry, &hot);
        let crash = draw_crash(rng, nodes);
        Plan {
            geometry,
            members,
            threads,
            hot,
            locks,
            names: 1 + rng.index(2),
            blocks: rng.between(5, 40) as usize,
            barriers: rng.index(4),
            mix: mix(rng),
            network: network(rng),
            reorders: rng.chance(250),
            report: Delay { floor: 0, spread: rng.below(20 * MICRO), spike_permille: 0, spike: 0 },
            wake: wake(rng),
            think: think(rng),
            duplicates_permille: *rng.pick(&[0, 50, 300]),
            crash: crash.filter(|_| crashes && nodes > 1),
        }
    }

    /// Every member, by rank.
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> + use<> {
        self.members.iter()
    }

    /// The home of `lock`.
    #[must_use]
    pub fn home_of(&self, lock: LockId) -> Option<NodeId> {
        self.geometry.page_of(lock.0).map(|page| self.geometry.home_of(page, self.members))
    }

    /// Which of the run's locks `lock` is.
    #[must_use]
    pub fn index_of(&self, lock: LockId) -> Option<usize> {
        self.locks.iter().position(|guarded| guarded.lock == lock)
    }
}

/// Early, in the middle, or late in a long run; in most runs nobody dies.
fn draw_crash(rng: &mut Rng, nodes: u64) -> Option<Crash> {
    let horizon = *rng.pick(&[MILLI, 10 * MILLI, 100 * MILLI]);
    let node = NodeId(u16::try_from(rng.below(nodes)).unwrap_or(0));
    let at = Time::from_nanos(rng.below(horizon));
    rng.chance(CRASH_PERMILLE).then_some(Crash { node, at })
}

/// One to five pages, together or far apart.
fn hot_pages(rng: &mut Rng, geometry: &Geometry) -> Vec<PageId> {
    let count = rng.between(1, 5);
    let first = rng.below(geometry.pages() - count);
    let stride = if rng.chance(500) { 1 } else { (geometry.pages() - first) / count };
    (0..count).map(|index| PageId(first + index * stride)).collect()
}

fn locks(rng: &mut Rng, geometry: &Geometry, hot: &[PageId]) -> Vec<Guarded> {
    (0..1 + rng.index(LOCKS_MAX))
        .map(|index| {
            let page = PageId(rng.below(geometry.pages()));
            // Two locks in one page have one home and different names.
            let address = Address(geometry.address_of(page).0 + 64 * index as u64);
            Guarded { lock: LockId(address), cell: Cell { page: *rng.pick(hot), word: WORD_GUARDED + index } }
        })
        .collect()
}

/// Each kind of operation is absent, usual or dominant.
fn mix(rng: &mut Rng) -> Mix {
    const WEIGHTS: [u64; 4] = [0, 2, 5, 20];
    let mut weight = || *rng.pick(&WEIGHTS);
    Mix {
        load: weight(),
        store: weight(),
        increment: weight() + 1,
        straddle: weight(),
        section: weight(),
        claim: weight() / 2,
        span: weight() / 2,
    }
}

fn network(rng: &mut Rng) -> Delay {
    Delay {
        floor: rng.between(2, 50) * MICRO,
        spread: *rng.pick(&[0, 5, 100, 1000]) * MICRO,
        spike_permille: *rng.pick(&[0, 0, 20]),
        spike: 3 * MILLI,
    }
}

/// A core is idle, shared, or so busy that a woken thread waits for milliseconds each time.
fn wake(rng: &mut Rng) -> Delay {
    match rng.below(4) {
        0 => Delay { floor: MICRO, spread: 2 * MICRO, spike_permille: 0, spike: 0 },
        1 => Delay { floor: 5 * MICRO, spread: 100 * MICRO, spike_permille: 50, spike: 4 * MILLI },
        2 => Delay { floor: 2 * MILLI, spread: 2 * MILLI, spike_permille: 0, spike: 0 },
        _ => Delay { floor: 5 * MICRO, spread: 50 * MICRO, spike_permille: 10, spike: 30 * MILLI },
    }
}

fn think(rng: &mut Rng) -> Delay {
    Delay {
        floor: 1,
        spread: *rng.pick(&[10, MICRO, 100 * MICRO]),
        spike_permille: *rng.pick(&[0, 20]),
        spike: MILLI,
    }
}
