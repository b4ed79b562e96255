//! What is checked: nodes and their programs, and who may die when.

use dsm_core::{Copyset, Geometry, Host, Incarnation, NodeId, PageId, View, limits};

/// What a thread does, on pages by their index.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Task {
    /// Loads the page's word.
    Load(usize),
    /// Stores a new value.
    Store(usize),
    /// Acquires the lock of the domain of the first two pages, which lies on the first, and says what belongs to it.
    Lock,
    /// Loads both of its counters.
    Look,
    /// Counts one up in one of its pages.
    Count(usize),
    /// Releases the lock.
    Unlock,
    /// Waits until all that was stored is replicated.
    Sync,
}

/// When a further node may die.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Crashes {
    /// At any time.
    Anytime,
    /// The first at any time, a further one once all that is committed has all its holders again.
    Apart,
}

/// One cluster to be exhausted.
#[derive(Clone, Copy, Debug)]
pub struct Configuration {
    /// Its name.
    pub name: &'static str,
    /// What it is about.
    pub what: &'static str,
    /// The home of each page in the first view.
    pub homes: &'static [u16],
    /// The buddies of each node.
    pub replicas: u32,
    /// What each node's thread does.
    pub programs: &'static [&'static [Task]],
    /// What happened before, one after the other: node and instruction.
    pub prologue: &'static [(u16, Task)],
    /// Who may die. What is left out, and why, is with the configuration.
    pub victims: &'static [u16],
    /// How many may.
    pub crashes: u8,
    /// When.
    pub when: Crashes,
    /// Whether the first two pages are a domain.
    pub domain: bool,
    /// How many states there are.
    pub states: usize,
    /// Whether it takes minutes, and so is left to the command.
    pub long: bool,
}

impl Configuration {
    /// The region.
    pub fn geometry(&self) -> Geometry {
        const REGION: u64 = 1 << 30;
        Geometry::new(limits::REGION_BASE_DEFAULT, REGION, limits::PAGE_SIZE_DEFAULT)
            .expect("the defaults fit each other")
    }

    /// The first view: each node on a machine of its own.
    pub fn view(&self) -> View {
        let ranks = 0..u16::try_from(self.programs.len()).unwrap_or(u16::MAX);
        let named = ranks.map(|rank| (NodeId(rank), Incarnation(u64::from(rank)), Host(u64::from(rank))));
        View::first(named, self.replicas)
    }

    /// The pages: the first pages of segments that have the wanted homes, in ascending order.
    ///
    /// # Panics
    /// If there is no such segment: the configuration names a home that is no member.
    pub fn pages(&self) -> Vec<PageId> {
        let geometry = self.geometry();
        let members = Copyset::first(self.programs.len());
        let mut segments = (0..geometry.segments()).map(dsm_core::SegmentId);
        let page = |&home: &u16| {
            let segment =
                segments.find(|&segment| geometry.home_of_segment(segment, members) == NodeId(home));
            PageId(geometry.pages_of(segment.expect("each member is home to some of many segments")).start)
        };
        self.homes.iter().map(page).collect()
    }
}

const SECTION: &[Task] = &[Task::Lock, Task::Look, Task::Count(0), Task::Count(1), Task::Unlock];

/// What the configurations have in common.
const PLAIN: Configuration = Configuration {
    name: "",
    what: "",
    homes: &[2, 0],
    replicas: 1,
    programs: &[],
    prologue: &[],
    victims: &[0, 1, 2],
    crashes: 1,
    when: Crashes::Anytime,
    domain: false,
    states: 0,
    long: false,
};

/// What is exhausted: the short ones by `cargo test`, all of them by the command.
pub const RECOVERIES: [Configuration; 7] = [
    Configuration {
        name: "crash",
        what: "2 pages, 3 nodes, a writer and a reader; 1 crash at any point",
        programs: &[
            &[Task::Store(0), Task::Store(1), Task::Store(0)],
            &[Task::Load(1), Task::Load(0), Task::Store(1)],
            &[],
        ],
        states: 44_043,
        ..PLAIN
    },
    Configuration {
        name: "crash-again",
        what: "2 pages that were committed, 3 nodes, a writer, and a reader that writes; 1 crash at any point",
        programs: &[&[Task::Store(0), Task::Store(1)], &[Task::Load(1), Task::Store(0)], &[]],
        prologue: &[(0, Task::Store(0)), (1, Task::Load(0)), (0, Task::Store(1))],
        states: 18_753,
        ..PLAIN
    },
    Configuration {
        name: "crash-writers",
        what: "1 page that moves from writer to writer to reader; 1 crash at any point",
        homes: &[2],
        programs: &[&[Task::Store(0), Task::Store(0)], &[Task::Store(0)], &[Task::Load(0), Task::Store(0)]],
        states: 88_931,
        ..PLAIN
    },
    Configuration {
        name: "crash-section",
        what: "a domain of 2 pages, a section on each of 2 nodes; 1 crash at any point",
        homes: &[2, 2],
        programs: &[SECTION, SECTION, &[]],
        domain: true,
        states: 11_609,
        ..PLAIN
    },
    Configuration {
        name: "crash-section-twice",
        what: "a domain of 2 pages that was used, a section on 1 of 3 nodes; 2 crashes with re-replication between",
        homes: &[2, 2],
        programs: &[SECTION, &[], &[]],
        prologue: &[
            (0, Task::Lock),
            (0, Task::Look),
            (0, Task::Count(0)),
            (0, Task::Count(1)),
            (0, Task::Unlock),
            (0, Task::Sync),
        ],
        crashes: 2,
        when: Crashes::Apart,
        domain: true,
        states: 898,
        ..PLAIN
    },
    Configuration {
        name: "crash-twice",
        what: "1 page, 4 nodes, a writer and a reader; 2 crashes with re-replication between",
        homes: &[3],
        programs: &[&[Task::Store(0), Task::Store(0)], &[Task::Load(0)], &[], &[]],
        victims: &[0, 1, 2, 3],
        crashes: 2,
        when: Crashes::Apart,
        states: 406_866,
        ..PLAIN
    },
    Configuration {
        name: "crash-twice-long",
        what: "2 pages, 4 nodes, a writer and a reader; 2 crashes with re-replication between",
        homes: &[3, 0],
        programs: &[&[Task::Store(0), Task::Store(1)], &[Task::Load(1), Task::Load(0)], &[], &[]],
        victims: &[0, 1, 2, 3],
        crashes: 2,
        when: Crashes::Apart,
        states: 469_256,
        long: true,
        ..PLAIN
    },
];
