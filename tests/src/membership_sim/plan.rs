//! What is done to a cluster: drawn from the seed, some seconds of trouble, and then rest.

use super::process::End;
use super::world::{Happening, World, nanos};
use crate::sim::Rng;
use dsm_core::NodeId;
use dsm_core::membership::{ConfigStore, Fact, Settings, VoterId};

/// One thing that is done.
#[derive(Clone, Debug)]
pub enum Nemesis {
    /// A node is killed.
    Crash(u16),
    /// A node is killed as it sends its so-manyth word of consensus.
    CrashAtConsensus(u16, u64),
    /// A node is killed, and a new process asks for its rank at once.
    Restart(u16),
    /// The launcher is killed.
    CrashWitness,
    /// A process is stopped for so long.
    Stop(VoterId, u64),
    /// All are.
    StopAll(u64),
    /// Nothing passes between these and the others, for so long.
    Split(Vec<VoterId>, u64),
    /// Nothing passes from one to the other, for so long.
    OneWay(VoterId, VoterId, u64),
    /// The link between two breaks and mends so many times, each for so long.
    Flap(VoterId, VoterId, u64, u64),
    /// A process asks to be let in.
    Join(u16),
    /// A node has handed over all it had.
    Leave(u16),
    /// A node takes so much longer for everything.
    Slow(u16, u64),
    /// A mended or broken link.
    Link(VoterId, VoterId, bool),
    /// A mended split.
    Mend(Vec<VoterId>),
    /// All trouble ends.
    Rest,
}

/// Trouble takes so long, in leases.
const TROUBLE_LEASES: u64 = 8;

/// Things done in one run at most.
const TROUBLES_MAX: u64 = 6;

/// Times that a flapping link breaks at most.
const FLAPS_MAX: u64 = 6;

/// Nodes of the first view, at most.
pub const NODES_MAX: u64 = 6;

/// Ranks that candidates ask for are below this.
const RANKS: u64 = 8;

/// A plan: what, and when.
#[derive(Clone, Debug)]
pub struct Plan {
    /// In the order of their times.
    pub troubles: Vec<(u64, Nemesis)>,
    /// When all trouble ends.
    pub rest: u64,
}

impl Plan {
    /// A plan for a cluster of `nodes` nodes.
    pub fn draw(rng: &mut Rng, nodes: u16, settings: Settings) -> Plan {
        let lease = nanos(settings.lease());
        let span = TROUBLE_LEASES * lease;
        let mut ids: Vec<VoterId> = (0..nodes).map(|rank| VoterId::Node(NodeId(rank))).collect();
        if settings.witness() {
            ids.push(VoterId::Witness);
        }
        let count = rng.between(1, TROUBLES_MAX);
        // Some troubles come on top of each other.
        let burst = rng.chance(400).then(|| rng.below(span));
        let mut troubles = Vec::new();
        for _ in 0..count {
            let at = match burst {
                Some(at) => at + rng.below(lease / 4),
                None => rng.below(span),
            };
            let what = Self::one(rng, nodes, &ids, lease);
            if let Nemesis::Flap(a, b, period, times) = what {
                for flap in 0..times {
                    troubles.push((at + 2 * flap * period, Nemesis::Link(a, b, true)));
                    troubles.push((at + (2 * flap + 1) * period, Nemesis::Link(a, b, false)));
                }
            } else {
                troubles.push((at, what));
            }
        }
        let rest = troubles.iter().map(|(at, _)| *at).max().unwrap_or(0) + rng.below(2 * lease);
        troubles.push((rest, Nemesis::Rest));
        troubles.sort_by_key(|(at, _)| *at);
        Plan { troubles, rest }
    }

    fn one(rng: &mut Rng, nodes: u16, ids: &[VoterId], lease: u64) -> Nemesis {
        let rank = |rng: &mut Rng| u16::try_from(rng.below(u64::from(nodes))).unwrap_or(0);
        let stop = |rng: &mut Rng| rng.between(lease / 10, 4 * lease);
        match rng.weighted(&[6, 4, 3, 1, 4, 1, 4, 3, 2, 4, 3, 2]) {
            0 => Nemesis::Crash(rank(rng)),
            1 => Nemesis::CrashAtConsensus(rank(rng), rng.between(1, 12)),
            2 => Nemesis::Restart(rank(rng)),
            3 => Nemesis::CrashWitness,
            4 => Nemesis::Stop(*rng.pick(ids), stop(rng)),
            5 => Nemesis::StopAll(stop(rng)),
            6 => Nemesis::Split(ids.iter().copied().filter(|_| rng.chance(500)).collect(), stop(rng)),
            7 => Nemesis::OneWay(*rng.pick(ids), *rng.pick(ids), stop(rng)),
            8 => Nemesis::Flap(
                *rng.pick(ids),
                *rng.pick(ids),
                rng.between(lease / 20, 2 * lease),
                rng.between(1, FLAPS_MAX),
            ),
            9 => Nemesis::Join(u16::try_from(rng.below(RANKS)).unwrap_or(0)),
            10 => Nemesis::Leave(rank(rng)),
            _ => Nemesis::Slow(rank(rng), rng.between(lease / 100, lease / 10)),
        }
    }
}

/// Does one thing.
pub fn carry_out<S: ConfigStore>(world: &mut World<S>, what: &Nemesis) -> Result<(), String> {
    world.note(format_args!("-- {what:?}"));
    let node = |rank: u16| VoterId::Node(NodeId(rank));
    match what {
        Nemesis::Crash(rank) => kill(world, node(*rank)),
        Nemesis::CrashAtConsensus(rank, word) => {
            if let Some(process) = world.process_of(node(*rank)) {
                let sent = world.processes[process].consensus_sent;
                world.processes[process].dies_at_consensus = Some(sent + word);
            }
        }
        Nemesis::Restart(rank) => {
            kill(world, node(*rank));
            world.join(NodeId(*rank));
        }
        Nemesis::CrashWitness => kill(world, VoterId::Witness),
        Nemesis::Stop(id, span) => {
            if let Some(process) = world.process_of(*id) {
                world.stop(process, *span);
            }
        }
        Nemesis::StopAll(span) => (0..world.processes.len()).for_each(|process| world.stop(process, *span)),
        Nemesis::Split(some, _) => {
            let others = others(world, some);
            world.network.set_between(some, &others, true);
            disturb(world, |_| true);
        }
        Nemesis::OneWay(from, to, _) => {
            world.network.set_one_way(*from, *to, true);
            disturb(world, |id| id == *from || id == *to);
        }
        Nemesis::Link(a, b, cut) => {
            world.network.set_between(&[*a], &[*b], *cut);
            disturb(world, |id| id == *a || id == *b);
        }
        Nemesis::Join(rank) => world.join(NodeId(*rank)),
        Nemesis::Leave(rank) => {
            if let Some(process) = world.process_of(node(*rank)) {
                world.processes[process].leaving = true;
                world.tell(process, Fact::Leave)?;
            }
        }
        Nemesis::Slow(rank, delay) => {
            if let Some(process) = world.process_of(node(*rank)) {
                world.processes[process].sluggish = *delay;
            }
        }
        Nemesis::Mend(some) => {
            let others = others(world, some);
            world.network.set_between(some, &others, false);
        }
        Nemesis::Rest => rest(world)?,
        Nemesis::Flap(..) => {}
    }
    Ok(())
}

/// Mends what a trouble broke, after its time.
#[must_use]
pub fn undo(what: &Nemesis) -> Option<(u64, Nemesis)> {
    match what {
        Nemesis::Split(some, span) => Some((*span, Nemesis::Mend(some.clone()))),
        Nemesis::OneWay(from, to, span) => Some((*span, Nemesis::Link(*from, *to, false))),
        Nemesis::Crash(_)
        | Nemesis::CrashAtConsensus(..)
        | Nemesis::Restart(_)
        | Nemesis::CrashWitness
        | Nemesis::Stop(..)
        | Nemesis::StopAll(_)
        | Nemesis::Flap(..)
        | Nemesis::Join(_)
        | Nemesis::Leave(_)
        | Nemesis::Slow(..)
        | Nemesis::Link(..)
        | Nemesis::Mend(_)
        | Nemesis::Rest => None,
    }
}

fn kill<S: ConfigStore>(world: &mut World<S>, id: VoterId) {
    if let Some(process) = world.process_of(id) {
        world.end(process, End::Killed);
    }
}

fn others<S: ConfigStore>(world: &World<S>, some: &[VoterId]) -> Vec<VoterId> {
    world.processes.iter().map(|it| it.identity.id).filter(|id| !some.contains(id)).collect()
}

fn disturb<S: ConfigStore>(world: &mut World<S>, who: impl Fn(VoterId) -> bool) {
    world.processes.iter_mut().filter(|it| who(it.identity.id)).for_each(|it| it.disturbed = true);
}

fn rest<S: ConfigStore>(world: &mut World<S>) -> Result<(), String> {
    world.network.cut.clear();
    world.network.loss_permille = 0;
    world.network.double_permille = 0;
    for process in 0..world.processes.len() {
        world.processes[process].dies_at_consensus = None;
        world.processes[process].sluggish = 0;
        if world.processes[process].stopped.is_some() {
            world.schedule(0, Happening::Continue(process));
        }
    }
    Ok(())
}
