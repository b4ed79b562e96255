//! Real nodes that die in the middle of everything: which of them, when, and what must be there afterwards.
//!
//! A [`Case`] says who dies at what, a seed says which of the ranks that is and at which occurrence. The nodes run the
//! worker's scenario `crash`; what each can see itself is asserted there. Here the survivors' answers are held against
//! each other and against what the dead had said.

mod cases;
mod judge;

pub use cases::CASES;
pub use judge::Tally;

use crate::harness::{Report, Running, Scenario};
use dsm_node::launch::TransportKind;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::ops::Range;
use std::time::Duration;

/// What a run may take: many times what it takes on two busy cores.
const BUDGET: Duration = Duration::from_secs(40);

/// A node that says nothing for so long hangs. No wait of a survivor takes longer than a recovery.
const SILENCE_MAX: Duration = Duration::from_secs(5);

/// A region of test size: the examination looks at each page.
const REGION_SIZE: u64 = 64 << 20;

/// Items that each node appends; with a rest, before and after it.
const TURNS: u64 = 16;

/// A kill at an item comes up to so much later: what the node is at then is left to chance.
const LATER_MAX: Duration = Duration::from_millis(3);

/// Clusters of random plans have no more nodes than this, unless the case has.
const NODES_MAX: u32 = 5;

/// Deaths that come at any time, by how many replicas there are, from one on.
const ANYTIME: [&[Death]; 2] = [&[ANY], &[ANY, ANY]];

const ANY: Death = Death { who: Who::Any, when: When::AtWork };

/// One thing to try.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// Its name.
    pub name: &'static str,
    /// How many nodes there are.
    pub nodes: u32,
    /// How many crashes they are to survive.
    pub replicas: u32,
    /// Who dies, in order.
    pub deaths: &'static [Death],
    /// Whether pages may be lost.
    pub may_lose: bool,
}

/// One death.
#[derive(Clone, Copy, Debug)]
pub struct Death {
    /// Who.
    pub who: Who,
    /// When.
    pub when: When,
}

/// Whose death it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Who {
    /// Any that has not died.
    Any,
    /// This rank.
    Rank(u32),
    /// The one that keeps what the first to die commits: where all are on one machine, the next rank.
    Buddy,
}

/// When a node dies.
#[derive(Clone, Copy, Debug)]
pub enum When {
    /// At a failpoint, at one of these occurrences.
    At(&'static str, Range1),
    /// As [`When::At`], but its own thread fails there, so that the process ends itself.
    Fails(&'static str, Range1),
    /// Some moment after one of its items was acknowledged.
    AtWork,
    /// While nobody does anything.
    Idle,
    /// Together with the one before it.
    AtOnce,
    /// Some moment after the one before it, while the others agree on a view.
    Soon,
}

/// The occurrences from the first to the second. (A range is not `Copy`.)
#[derive(Clone, Copy, Debug)]
pub struct Range1(pub u64, pub u64);

impl Range1 {
    fn range(self) -> Range<u64> {
        self.0..self.1 + 1
    }
}

/// What a seed makes of a case.
#[derive(Clone, Debug)]
pub struct Plan {
    case: Case,
    seed: u64,
    transport: TransportKind,
    victims: Vec<u32>,
    /// For each victim: its failpoint, or how many items it has when it is killed, and how much later.
    failpoints: Vec<Option<String>>,
    items: Vec<u64>,
    later: Vec<Duration>,
}

impl Plan {
    /// What `seed` makes of `case`.
    #[must_use]
    pub fn new(case: Case, seed: u64) -> Plan {
        let name = case.name.bytes().fold(seed, |hash, byte| hash.wrapping_mul(31) ^ u64::from(byte));
        let mut rng = ChaCha8Rng::seed_from_u64(name);
        let transport = if rng.random() { TransportKind::Tcp } else { TransportKind::Unix };
        let mut plan = Plan {
            case,
            seed,
            transport,
            victims: Vec::new(),
            failpoints: Vec::new(),
            items: Vec::new(),
            later: Vec::new(),
        };
        for death in case.deaths {
            let left: Vec<u32> = (0..case.nodes).filter(|rank| !plan.victims.contains(rank)).collect();
            let victim = match (death.who, plan.victims.first()) {
                (Who::Rank(rank), _) => rank,
                (Who::Buddy, Some(first)) => (first + 1) % case.nodes,
                (Who::Any | Who::Buddy, _) => left[rng.random_range(0..left.len())],
            };
            plan.victims.push(victim);
            plan.failpoints.push(match death.when {
                When::At(point, occurrences) => {
                    Some(format!("{point}@{}=kill", rng.random_range(occurrences.range())))
                }
                When::Fails(point, occurrences) => {
                    Some(format!("{point}@{}=panic", rng.random_range(occurrences.range())))
                }
                When::AtWork | When::Idle | When::AtOnce | When::Soon => None,
            });
            plan.items.push(rng.random_range(1..TURNS));
            plan.later.push(LATER_MAX.mul_f64(rng.random()));
        }
        plan
    }

    /// A plan in which everything is left to `seed`: how many nodes and replicas there are, and who dies at what. As many
    /// die as there are replicas, so that nothing may be lost.
    #[must_use]
    pub fn random(seed: u64) -> Plan {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let crowds: Vec<&Case> = CASES.iter().filter(|case| !case.may_lose).collect();
        let case = *crowds[rng.random_range(0..crowds.len())];
        // Half of all kills come whenever they come.
        let deaths = if rng.random() { ANYTIME[case.replicas as usize - 1] } else { case.deaths };
        let nodes = rng.random_range(case.nodes..=NODES_MAX.max(case.nodes));
        Plan::new(Case { nodes, deaths, ..case }, seed)
    }

    /// Runs it on real nodes, each a copy of `program`, which must do as `worker` does.
    ///
    /// # Panics
    /// If anything is wrong; it says what, and where each node was.
    #[must_use]
    pub fn run(&self, program: &str) -> Tally {
        println!("{self}");
        let rests = self.case.deaths.iter().filter(|death| matches!(death.when, When::Idle)).count();
        let fails = self.case.deaths.iter().any(|death| matches!(death.when, When::Fails(..)));
        let scenario = Scenario::new(program, "crash").nodes(self.case.nodes).transport(self.transport);
        let mut scenario = scenario
            .region_size(REGION_SIZE)
            .budget(BUDGET)
            .silence(SILENCE_MAX)
            .env("DSM_REPLICAS", self.case.replicas.to_string())
            .arg("turns", TURNS)
            .arg("rests", rests)
            .arg("panics", u32::from(fails))
            .arg("may_lose", u32::from(self.case.may_lose));
        for (victim, failpoint) in self.victims.iter().zip(&self.failpoints) {
            if let Some(failpoint) = failpoint {
                scenario = scenario.env_of(*victim, "DSM_FAILPOINTS", failpoint);
            }
        }
        let mut running = scenario.start();
        self.kill(&mut running);
        let report = running.finish();
        self.judge(&report)
    }

    /// Kills those that do not die by themselves.
    fn kill(&self, running: &mut Running) {
        let mut rests = 0;
        for (index, death) in self.case.deaths.iter().enumerate() {
            let victim = self.victims[index];
            match death.when {
                When::At(..) | When::Fails(..) => {}
                When::AtOnce => running.kill(victim),
                When::Soon => {
                    std::thread::sleep(self.later[index]);
                    running.kill(victim);
                }
                When::AtWork => {
                    if running.await_count(victim, "acked", self.items[index]) {
                        std::thread::sleep(self.later[index]);
                        running.kill(victim);
                    }
                }
                When::Idle => {
                    let before = &self.victims[..index];
                    let left: Vec<u32> = (0..self.case.nodes).filter(|rank| !before.contains(rank)).collect();
                    left.iter().for_each(|rank| running.await_at(*rank, &format!("idle {rests}")));
                    rests += 1;
                    running.kill(victim);
                    left.into_iter().filter(|rank| *rank != victim).for_each(|rank| running.go(rank));
                }
            }
        }
    }

    fn judge(&self, report: &Report) -> Tally {
        judge::judge(self, report)
    }
}

impl std::fmt::Display for Plan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Plan { case, seed, transport, .. } = self;
        write!(
            f,
            "{:?}, seed {seed}: {} nodes, {} replicas, {transport}",
            case.name, case.nodes, case.replicas
        )?;
        for (index, victim) in self.victims.iter().enumerate() {
            match (&self.failpoints[index], case.deaths[index].when) {
                (Some(failpoint), _) => write!(f, "; rank {victim} at {failpoint}")?,
                (None, When::AtWork) => {
                    write!(f, "; rank {victim} {:?} after its item {}", self.later[index], self.items[index])?
                }
                (None, when) => write!(f, "; rank {victim} {when:?}")?,
            }
        }
        Ok(())
    }
}
