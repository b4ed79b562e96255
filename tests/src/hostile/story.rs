//! From bytes to a whole story: a small cluster works, one member turns hostile, the others go on working, and in the
//! end every page that the hostile member has no part in is loaded and stored to by everyone.

use super::Check;
use super::cluster::Cluster;
use super::forge::{self, Palette};
use crate::sim::panics::caught;
use arbitrary::Unstructured;
use dsm_core::limits::{PAGE_SIZE_MIN, REGION_BASE_DEFAULT, SEGMENTS_MIN};
use dsm_core::{Copyset, Event, Geometry, LockId, NodeId, PageId, Want};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::fmt;

/// Longer inputs say nothing that shorter ones do not.
pub const LENGTH_MAX: usize = 4096;

/// What a machine may allocate for one event. The largest single allocations are a tree's node, an action list that
/// grows, and a name; all of them together stay far below.
pub const EVENT_BYTES_MAX: u64 = 16 << 10;

/// What it may allocate besides for each call that may be waiting: one event answers all of them, when a root is
/// published or a peer is lost. An answer is an action of less than 100 bytes, in a list that doubles as it grows.
pub const ANSWER_BYTES_MAX: u64 = 512;

/// Runs what it is given, and says how many bytes that allocated.
pub type Measure = fn(&mut dyn FnMut()) -> u64;

/// Runs what it is given, and measures nothing.
pub fn unmeasured(work: &mut dyn FnMut()) -> u64 {
    work();
    0
}

/// What happened in one story, or in many.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Stories.
    pub stories: u64,
    /// Events that honest machines took.
    pub events: u64,
    /// Messages of the hostile member.
    pub hostile: u64,
    /// Of these, those that were refused.
    pub refused: u64,
    /// Messages that one honest node refused of another, about a page that the hostile member takes part in.
    pub bystanders: u64,
    /// Grants that the hostile member forged by guessing a fault's number.
    pub guessed: u64,
    /// Pages that the hostile member had no part in, at the end, and that every honest node then used.
    pub pages_used: u64,
}

impl Counts {
    /// Adds what happened in another story.
    pub fn add(&mut self, other: &Counts) {
        self.stories += other.stories;
        self.events += other.events;
        self.hostile += other.hostile;
        self.refused += other.refused;
        self.bystanders += other.bystanders;
        self.guessed += other.guessed;
        self.pages_used += other.pages_used;
    }
}

impl Counts {
    /// The counts as one JSON object, with the number of inputs and of frames.
    #[must_use]
    pub fn to_json(&self, inputs: usize, frames: usize) -> String {
        serde_json::json!({
            "inputs": inputs,
            "events": self.events,
            "hostile_messages": self.hostile,
            "refused": self.refused,
            "bystanders": self.bystanders,
            "guessed": self.guessed,
            "pages_used": self.pages_used,
            "frames": frames,
        })
        .to_string()
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} events, {} hostile messages ({} refused, {} grants guessed), {} refusals among the honest about pages \
             in which it has a part, {} pages used by all afterwards",
            self.events, self.hostile, self.refused, self.guessed, self.bystanders, self.pages_used
        )
    }
}

/// The bytes of `seed`: as many as it likes, up to [`LENGTH_MAX`].
#[must_use]
pub fn bytes_of_seed(seed: u64) -> Vec<u8> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let length = rng.random_range(0..=LENGTH_MAX);
    (0..length).map(|_| rng.random()).collect()
}

/// Segments have several pages, so that spans can be taken apart and joined.
const PAGES_OF_SEGMENT: u64 = 4;

/// Of each home, threads use so many pages: one more than a span has that is leased first.
const PAGES_OF_HOME: usize = 2;

/// What transactions are numbered by, in stories where they are keyed; any number will do.
const KEY: u64 = 0x5eed;

/// Things that happen before one member turns hostile, and after, at most.
const BEFORE_MAX: u32 = 96;
const AFTER_MAX: u32 = 512;

/// Runs the story that `bytes` tell. `measure` tells what each event allocated.
///
/// # Errors
/// The first thing that is not as it must be. A panic of a machine passes through.
pub fn run(bytes: &[u8], measure: Measure) -> Result<Counts, String> {
    tell(bytes, measure, false)
}

/// Runs the story that `bytes` tell and prints, as it goes, what each node is told and what it does.
///
/// # Errors
/// As for [`run`], and a panic of a machine is one of them.
pub fn replay(bytes: &[u8]) -> Result<(), String> {
    caught(|| tell(bytes, unmeasured, true).map(drop))
}

/// Runs the story that `bytes` tell, for those who want to know of every failure.
///
/// # Errors
/// As for [`run`], and a panic of a machine is one of them.
pub fn attempt(bytes: &[u8], measure: Measure) -> Result<Counts, String> {
    let mut counts = Counts::default();
    caught(|| tell(bytes, measure, false).map(|found| counts = found))?;
    Ok(counts)
}

fn tell(bytes: &[u8], measure: Measure, echo: bool) -> Result<Counts, String> {
    let mut u = Unstructured::new(&bytes[..bytes.len().min(LENGTH_MAX)]);
    let mut cluster = begin(&mut u, measure);
    cluster.echo = echo;
    for _ in 0..u.int_in_range(0..=BEFORE_MAX).unwrap_or(0) {
        cluster.honest_act(&mut u)?;
    }
    cluster.turn();
    for _ in 0..AFTER_MAX {
        if u.is_empty() {
            break;
        }
        if u.ratio(1_u8, 2_u8).unwrap_or(false) {
            let to = *u.choose(&cluster.honest()).map_err(|error| error.to_string())?;
            let message = forge::message(&mut u, &cluster.palette, to).map_err(|error| error.to_string())?;
            let word = u.arbitrary().unwrap_or(0);
            cluster.hostile_says(to, message, word)?;
        } else {
            cluster.honest_act(&mut u)?;
        }
    }
    // The last byte decides whether the hostile member is found dead.
    let dies = bytes.last().is_some_and(|byte| byte & 1 == 1);
    end(&mut cluster, dies)?;
    cluster.counts.stories = 1;
    Ok(cluster.counts)
}

fn begin(u: &mut Unstructured<'_>, measure: Measure) -> Cluster {
    let count = u.int_in_range(3..=5_u16).unwrap_or(3);
    let members = Copyset::first(usize::from(count));
    let hostile = NodeId(u.int_in_range(0..=count - 1).unwrap_or(0));
    let key = u.arbitrary().unwrap_or(false).then_some(KEY);
    let pages = SEGMENTS_MIN * PAGES_OF_SEGMENT;
    let geometry = Geometry::new(REGION_BASE_DEFAULT, pages * PAGE_SIZE_MIN, PAGE_SIZE_MIN)
        .expect("the default base and a few hundred small pages fit");
    let homed_at = |node| (0..pages).map(PageId).filter(move |page| geometry.home_of(*page, members) == node);
    let used = members.iter().flat_map(|node| homed_at(node).take(PAGES_OF_HOME)).collect();
    let locks = members.iter().filter_map(|node| homed_at(node).next_back());
    let locks = locks.map(|page| LockId(geometry.address_of(page))).collect();
    let palette = Palette {
        geometry,
        members,
        hostile,
        pages: used,
        locks,
        names: ["a", "b", "c"].map(String::from).to_vec(),
        transactions: Vec::new(),
        tickets: Vec::new(),
    };
    Cluster::new(palette, key, measure)
}

/// All comes to rest; then every honest node stores to every other page, and loads what the last one stored.
fn end(cluster: &mut Cluster, dies: bool) -> Check {
    cluster.settle()?;
    if dies {
        let node = cluster.palette.hostile;
        for survivor in cluster.honest() {
            cluster.feed(survivor, Event::PeerLost { node })?;
        }
        cluster.settle()?;
    }
    for page in cluster.palette.pages.clone() {
        if cluster.truth.is_involved(page) {
            continue;
        }
        for want in [Want::Write, Want::Read] {
            for node in cluster.honest() {
                cluster.touch(node, page, want)?;
                cluster.settle()?;
                if cluster.nodes[node.index()].waiting.contains_key(&page) {
                    return Err(format!("{node} waits for {page} for ever"));
                }
            }
        }
        cluster.counts.pages_used += 1;
    }
    Ok(())
}
