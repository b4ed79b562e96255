//! What a seed decides: the cluster, its pages and sections, and who dies when.

use crate::sim::rng::Rng;
use dsm_core::{Address, Geometry, Host, Incarnation, LockId, NodeId, PageId, SegmentId, Time, View, limits};

/// Words of a virtual page.
pub const WORDS: usize = 3;

/// A domain: a lock, and two pages of which each has a counter that its sections keep equal.
#[derive(Clone, Copy, Debug)]
pub struct Domain {
    /// The lock; its page is the first of the two.
    pub lock: LockId,
    /// The two pages.
    pub pages: [PageId; 2],
}

/// What a thread does next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Loads a word of a plain page.
    Load(PageId, usize),
    /// Stores a new value into a word of a plain page.
    Store(PageId, usize),
    /// Acquires the lock of a domain.
    Lock(usize),
    /// Says which pages belong to the domain.
    Cover(usize),
    /// Loads both counters of the domain; they must be equal.
    Look(usize),
    /// Stores one more into a counter of the domain.
    Count(usize, usize),
    /// Releases the lock of a domain.
    Unlock(usize),
    /// Waits until a plain page is here.
    Ensure(PageId),
    /// Waits until all stores outside sections are replicated.
    Sync,
    /// Waits for all members.
    Barrier,
}

/// What a node is at when it dies.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Trigger {
    /// It has sent a page.
    Serves,
    /// It has sent a record.
    Replicates,
    /// It has heard an ack.
    IsAcked,
    /// It has counted in one page of a domain, or in both.
    Counts,
    /// It goes on after a change of the view.
    Resumes,
}

/// When a node dies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum When {
    /// At an instant.
    At(Time),
    /// When it does something for the so-many-th time.
    Nth(Trigger, u64),
}

/// A process that joins.
#[derive(Clone, Debug)]
pub struct Join {
    /// When it wants to.
    pub at: Time,
    /// Whether it takes the rank of one that died, where there is one.
    pub again: bool,
    /// How long after that it dies, if it does.
    pub dies: Option<u64>,
    /// The programs of its threads.
    pub programs: Vec<Vec<Step>>,
}

/// What a seed decides.
#[derive(Clone, Debug)]
pub struct Plan {
    pub geometry: Geometry,
    pub view: View,
    pub plain: Vec<PageId>,
    pub domains: Vec<Domain>,
    /// The programs of each node's threads.
    pub programs: Vec<Vec<Vec<Step>>>,
    /// Who dies, and when.
    pub deaths: Vec<(NodeId, When)>,
    /// Who joins.
    pub joins: Vec<Join>,
    /// How many pages may be stored to and not replicated before stores to others wait.
    pub unreplicated_max: usize,
    /// A message's way, in nanoseconds, at least and at most.
    pub way: (u64, u64),
    /// From one instruction to the next, at most.
    pub think: u64,
    /// From a death to the view without the dead, at most.
    pub notice: u64,
}

const MICRO: u64 = 1000;
const MILLI: u64 = 1000 * MICRO;

impl Plan {
    /// The plan of a seed's stream.
    pub fn draw(rng: &mut Rng) -> Plan {
        let nodes = rng.between(2, 6);
        let replicas = *rng.pick(&[0, 1, 1, 1, 2]);
        let size = limits::SEGMENTS_MIN * limits::PAGE_SIZE_MIN;
        let geometry = Geometry::new(limits::REGION_BASE_DEFAULT, size, limits::PAGE_SIZE_MIN)
            .expect("a few small pages at the default base fit");
        let ranks = 0..u16::try_from(nodes).expect("at most six");
        let named = ranks.map(|rank| (NodeId(rank), Incarnation(u64::from(rank)), Host(u64::from(rank))));
        let view = View::first(named, replicas);
        let mut pages: Vec<PageId> = geometry
            .small_zone()
            .map(|segment| PageId(geometry.pages_of(SegmentId(segment)).start))
            .collect();
        let mut take = |rng: &mut Rng| pages.swap_remove(rng.index(pages.len()));
        let plain: Vec<PageId> = (0..rng.between(1, 4)).map(|_| take(rng)).collect();
        let domains: Vec<Domain> = (0..rng.between(0, 2))
            .map(|_| {
                let pages = [take(rng), take(rng)];
                Domain { lock: LockId(Address(geometry.address_of(pages[0]).0)), pages }
            })
            .collect();
        let blocks = rng.between(3, 25);
        let barriers = rng.below(3);
        let programs = (0..nodes)
            .map(|_| {
                let threads = rng.between(1, 2);
                (0..threads)
                    .map(|index| {
                        program(rng, &plain, domains.len(), blocks, if index == 0 { barriers } else { 0 })
                    })
                    .collect()
            })
            .collect();
        let deaths = deaths(rng, nodes);
        let joins = (0..*rng.pick(&[0, 0, 1, 1, 2]))
            .map(|_| {
                let horizon = *rng.pick(&[MILLI, 5 * MILLI, 20 * MILLI]);
                Join {
                    at: Time::from_nanos(2 * MILLI + rng.below(horizon)),
                    again: rng.chance(500),
                    dies: rng.chance(200).then(|| rng.below(5 * MILLI)),
                    programs: vec![program(rng, &plain, domains.len(), blocks, barriers)],
                }
            })
            .collect();
        let most = limits::UNREPLICATED_PAGES_MAX;
        let unreplicated_max = *rng.pick(&[0, 2, most, most, most, most, most, most]);
        Plan {
            geometry,
            view,
            plain,
            domains,
            programs,
            deaths,
            joins,
            unreplicated_max,
            way: (rng.between(2, 50) * MICRO, *rng.pick(&[5, 100, 1000]) * MICRO),
            think: *rng.pick(&[MICRO, 20 * MICRO, 200 * MICRO]),
            notice: *rng.pick(&[10 * MICRO, MILLI, 5 * MILLI]),
        }
    }
}

/// None, one, two at once, or one after the other; never all.
fn deaths(rng: &mut Rng, nodes: u64) -> Vec<(NodeId, When)> {
    let count = (*rng.pick(&[0, 1, 1, 1, 2, 2, 3])).min(nodes - 1);
    let horizon = *rng.pick(&[MILLI, 5 * MILLI, 20 * MILLI]);
    let mut ranks: Vec<u16> = (0..u16::try_from(nodes).unwrap_or(0)).collect();
    let together = rng.chance(300);
    let first = rng.below(horizon);
    (0..count)
        .map(|_| {
            let node = NodeId(ranks.swap_remove(rng.index(ranks.len())));
            let at = if together { first + rng.below(100 * MICRO) } else { rng.below(horizon) };
            let at = When::At(Time::from_nanos(2 * MILLI + at));
            let triggers = [Trigger::Serves, Trigger::Replicates, Trigger::IsAcked, Trigger::Counts];
            let when = match rng.weighted(&[5, 4, 1]) {
                0 => at,
                1 => When::Nth(*rng.pick(&triggers), rng.between(1, 20)),
                _ => When::Nth(Trigger::Resumes, 1),
            };
            (node, when)
        })
        .collect()
}

fn program(rng: &mut Rng, plain: &[PageId], domains: usize, blocks: u64, barriers: u64) -> Vec<Step> {
    let mut steps = Vec::new();
    for _ in 0..blocks {
        match rng.weighted(&[4, 5, if domains > 0 { 4 } else { 0 }, 1, 1]) {
            0 => steps.push(Step::Load(*rng.pick(plain), rng.index(WORDS))),
            1 => steps.push(Step::Store(*rng.pick(plain), rng.index(WORDS))),
            2 => section(rng, plain, domains, &mut steps),
            3 => steps.push(Step::Ensure(*rng.pick(plain))),
            _ => steps.push(Step::Sync),
        }
    }
    // Barriers must be as many on each node, wherever they stand: none inside a section.
    let mut outside: Vec<usize> = vec![0];
    let mut depth = 0;
    for (index, step) in steps.iter().enumerate() {
        match step {
            Step::Lock(_) => depth += 1,
            Step::Unlock(_) => depth -= 1,
            Step::Load(..)
            | Step::Store(..)
            | Step::Cover(_)
            | Step::Look(_)
            | Step::Count(..)
            | Step::Ensure(_)
            | Step::Sync
            | Step::Barrier => {}
        }
        if depth == 0 {
            outside.push(index + 1);
        }
    }
    let mut places: Vec<usize> = (0..barriers).map(|_| *rng.pick(&outside)).collect();
    places.sort_unstable();
    for place in places.into_iter().rev() {
        steps.insert(place, Step::Barrier);
    }
    steps
}

fn section(rng: &mut Rng, plain: &[PageId], domains: usize, steps: &mut Vec<Step>) {
    let domain = rng.index(domains);
    let first = rng.index(2);
    steps.extend([Step::Lock(domain), Step::Look(domain), Step::Count(domain, first)]);
    if rng.chance(200) {
        steps.push(Step::Store(*rng.pick(plain), rng.index(WORDS)));
    }
    // Some take so long that buddies die, and others take their place, while they last.
    let loads = if rng.chance(100) { rng.between(1, 40) } else { 0 };
    let (page, word) = (*rng.pick(plain), rng.index(WORDS));
    steps.extend((0..loads).map(|_| Step::Load(page, word)));
    steps.extend([Step::Count(domain, 1 - first), Step::Unlock(domain)]);
}
