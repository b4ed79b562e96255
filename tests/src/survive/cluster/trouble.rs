//! What a seed decides besides programs and deaths: the cluster's times, who sees whose death, and what goes wrong when.

use crate::membership_sim::{Nemesis, nanos};
use crate::sim::rng::Rng;
use crate::survive::plan::{Plan, When};
use dsm_core::membership::{Settings, VoterId};
use dsm_core::{Host, Incarnation, NodeId, View};
use std::time::Duration;

/// Leases of the simulation are short, so that programs go on for several.
const LEASE: Duration = Duration::from_millis(50);

/// Trouble begins when all have a lease and know what is leased.
pub const START: Duration = Duration::from_millis(10);

/// Trouble takes so long, in leases.
const TROUBLE_LEASES: u64 = 5;

/// Things done in one run at most.
const TROUBLES_MAX: u64 = 4;

/// Times that a flapping link breaks at most.
const FLAPS_MAX: u64 = 6;

/// From one instruction to the next, at most: programs last for a part of a lease, or for some leases.
const THINK: [u64; 3] = [500_000, 2_000_000, 5_000_000];

/// Programs are repeated until the shortest would take so long, in nanoseconds, if nobody waited for anything.
const PROGRAM: [u64; 3] = [0, 150_000_000, 300_000_000];

/// What goes wrong.
#[derive(Clone, Debug)]
pub struct Trouble {
    /// What is done, and when, in nanoseconds. What undoes it is added as it is done.
    pub list: Vec<(u64, Nemesis)>,
    /// When all of it ends.
    pub rest: u64,
    /// Whether nodes on one host see each other's deaths, as pidfds let them.
    pub pidfds: bool,
    /// How many in a thousand deaths the launcher sees.
    pub launcher_permille: u64,
    /// How many in a thousand wake-up calls come late.
    pub busy_permille: u64,
    /// How many in a thousand broken links are taken for deaths, since connections are refused.
    pub refused_permille: u64,
    /// How many in a thousand deaths others take for one, since connections are refused.
    pub suspect_permille: u64,
}

impl Trouble {
    /// The cluster's times, and whether its launcher votes.
    pub fn settings(rng: &mut Rng) -> Settings {
        let settings = Settings::default().with_lease(LEASE).expect("within the limits");
        settings.with_witness(rng.chance(700))
    }

    /// What goes wrong in a cluster with this plan, whose hosts are decided here.
    pub fn draw(rng: &mut Rng, plan: &mut Plan, settings: Settings) -> Trouble {
        let hosts = rng.between(1, 3);
        let members = plan.view.members().iter();
        let named =
            members.map(|node| (node, Incarnation(u64::from(node.0) + 1), Host(u64::from(node.0) % hosts)));
        plan.view = View::first(named, plan.view.replicas());
        plan.think = *rng.pick(&THINK);
        let length = *rng.pick(&PROGRAM);
        lengthen(plan, length);
        // Deaths at an instant are among the troubles.
        plan.deaths.retain(|(_, when)| matches!(when, When::Nth(..)));
        if rng.chance(500) {
            plan.deaths.clear();
        }
        let lease = nanos(settings.lease());
        let mut ids: Vec<VoterId> = plan.view.members().iter().map(VoterId::Node).collect();
        if settings.witness() {
            ids.push(VoterId::Witness);
        }
        let mut list = Vec::new();
        let begin = nanos(START);
        let burst = rng.chance(400).then(|| rng.below(TROUBLE_LEASES * lease));
        for _ in 0..rng.below(TROUBLES_MAX + 1) {
            let at = begin
                + match burst {
                    Some(at) => at + rng.below(lease / 4),
                    None => rng.below(TROUBLE_LEASES * lease),
                };
            let what = one(rng, &ids, lease);
            if let Nemesis::OneWay(from, to, span) = what
                && rng.chance(DEAF_PERMILLE)
            {
                // One that hears nobody, or that nobody hears.
                let deaf = rng.chance(500);
                for other in ids.iter().filter(|other| **other != to) {
                    let (from, to) = if deaf { (*other, to) } else { (to, *other) };
                    list.push((at, Nemesis::OneWay(from, to, span)));
                }
                list.push((at, Nemesis::OneWay(from, to, span)));
            } else if let Nemesis::Flap(a, b, period, times) = what {
                for flap in 0..times {
                    list.push((at + 2 * flap * period, Nemesis::Link(a, b, true)));
                    list.push((at + (2 * flap + 1) * period, Nemesis::Link(a, b, false)));
                }
            } else {
                list.push((at, what));
            }
        }
        let latest = list.iter().map(|(at, _)| *at).max().unwrap_or(begin + TROUBLE_LEASES * lease);
        let rest = latest + rng.below(2 * lease);
        list.push((rest, Nemesis::Rest));
        Trouble {
            list,
            rest,
            pidfds: rng.chance(500),
            busy_permille: *rng.pick(&[0, 30, 300]),
            refused_permille: *rng.pick(&[0, 0, 300]),
            launcher_permille: *rng.pick(&[0, 500, 1000]),
            suspect_permille: *rng.pick(&[0, 500, 1000]),
        }
    }
}

/// Of a thousand links that are cut in one direction, as many take all links of the node along.
const DEAF_PERMILLE: u64 = 600;

/// Repeats all programs, equally often, since barriers are as many on each node.
fn lengthen(plan: &mut Plan, length: u64) {
    let shortest = plan.programs.iter().flatten().map(Vec::len).min().unwrap_or(1).max(1);
    let one = u64::try_from(shortest).unwrap_or(1) * (plan.think / 2);
    let times = usize::try_from(length.div_ceil(one)).unwrap_or(1).clamp(1, TIMES_MAX);
    for program in plan.programs.iter_mut().flatten() {
        *program = program.repeat(times);
    }
}

/// So often at most: beyond, a run would take seconds.
const TIMES_MAX: usize = 12;

fn one(rng: &mut Rng, ids: &[VoterId], lease: u64) -> Nemesis {
    let rank = |rng: &mut Rng| match *rng.pick(ids) {
        VoterId::Node(NodeId(rank)) => rank,
        VoterId::Witness => 0,
    };
    // Some are over well before a lease has run out, some long after.
    let span = |rng: &mut Rng| match rng.weighted(&[4, 3, 3]) {
        0 => rng.between(lease / 10, lease),
        1 => rng.between(lease, lease + lease / 5),
        _ => rng.between(lease, 4 * lease),
    };
    match rng.weighted(&[5, 1, 6, 2, 4, 4, 2, 2]) {
        0 => Nemesis::Crash(rank(rng)),
        1 => Nemesis::CrashWitness,
        2 => Nemesis::Stop(*rng.pick(ids), span(rng)),
        3 => Nemesis::StopAll(span(rng)),
        4 => Nemesis::Split(ids.iter().copied().filter(|_| rng.chance(500)).collect(), span(rng)),
        5 => Nemesis::OneWay(*rng.pick(ids), *rng.pick(ids), span(rng)),
        6 => Nemesis::Flap(
            *rng.pick(ids),
            *rng.pick(ids),
            rng.between(lease / 20, 2 * lease),
            rng.between(1, FLAPS_MAX),
        ),
        _ => Nemesis::Slow(rank(rng), rng.between(lease / 100, lease / 10)),
    }
}
