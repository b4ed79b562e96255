//! The membership in scenarios whose end is known, over a fixed range of seeds, and with every deliberate bug.

use dsm_core::membership::{Fact, OmniStore, Settings, VoterId};
use dsm_core::{NodeId, ViewId};
use dsm_tests::membership_sim::{
    self, Counts, End, HIDES_ACCEPTANCE, Mutant, Nemesis, Options, Rigged, SOUND, Tracing, World, carry_out,
    nanos,
};
use std::time::Duration;

type Cluster = World<OmniStore>;

const LEASE: Duration = Duration::from_secs(1);

/// Longer than any process takes for its first word.
const SETTLING: Duration = Duration::from_secs(5);

fn node(rank: u16) -> VoterId {
    VoterId::Node(NodeId(rank))
}

/// A quiet cluster that has run for a while.
fn cluster(nodes: u16, witness: bool) -> Cluster {
    let mut cluster = World::new(1, nodes, Settings::default().with_witness(witness), None, Tracing::Keep);
    run(&mut cluster, SETTLING);
    assert_eq!(ranks(&cluster), (0..nodes).collect::<Vec<_>>(), "at rest");
    cluster
}

fn run(cluster: &mut Cluster, span: Duration) {
    if let Err(what) = cluster.run_for(span) {
        panic!("{what}\n{}", cluster.trace().join("\n"));
    }
}

fn does(cluster: &mut Cluster, what: &Nemesis) {
    carry_out(cluster, what).expect("the rules hold");
}

/// The members of the newest view, which all that live have installed, with a lease.
fn ranks(cluster: &Cluster) -> Vec<u16> {
    if let Err(what) = cluster.checks.settled(&cluster.processes) {
        panic!("{what}\n{}", cluster.trace().join("\n"));
    }
    cluster.checks.newest().members().iter().map(|node| node.0).collect()
}

/// How long the newest view took from `since`.
fn took(cluster: &Cluster, since: u64) -> Duration {
    Duration::from_nanos(cluster.checks.newest_since - since)
}

#[test]
fn a_proven_death_leads_to_a_view_in_milliseconds() {
    let mut cluster = cluster(4, true);
    cluster.proof_permille = 1000;
    let since = cluster.now;
    does(&mut cluster, &Nemesis::Crash(2));
    run(&mut cluster, LEASE);
    assert_eq!(ranks(&cluster), [0, 1, 3]);
    // The launcher sees the death within 5 ms in this simulation; three trips of 0.2 ms follow.
    assert!(took(&cluster, since) < Duration::from_millis(8), "{:?}", took(&cluster, since));
}

#[test]
fn an_unproven_death_takes_a_lease_and_little_more() {
    for (nodes, witness) in [(2, true), (3, false), (4, true), (5, false), (16, true)] {
        let mut cluster = cluster(nodes, witness);
        let since = cluster.now;
        does(&mut cluster, &Nemesis::Crash(1));
        run(&mut cluster, 2 * LEASE);
        assert_eq!(ranks(&cluster).len(), usize::from(nodes) - 1);
        let limit = LEASE + Duration::from_millis(100);
        assert!(took(&cluster, since) <= limit, "{nodes} nodes: {:?}", took(&cluster, since));
    }
}

#[test]
fn two_deaths_at_once_go_into_one_view() {
    let mut cluster = cluster(5, false);
    does(&mut cluster, &Nemesis::Crash(0));
    does(&mut cluster, &Nemesis::Crash(3));
    run(&mut cluster, 4 * LEASE);
    assert_eq!(ranks(&cluster), [1, 2, 4]);
    assert!(cluster.checks.newest().id() <= ViewId(3), "at most one view per death");
    cluster.proof_permille = 1000;
    let before = cluster.checks.newest().id();
    let proof = |rank: u16| Fact::ProvenDead {
        node: NodeId(rank),
        incarnation: dsm_core::Incarnation(u64::from(rank) + 1),
    };
    does(&mut cluster, &Nemesis::Crash(4));
    let told = cluster.process_of(node(1)).expect("rank 1 lives");
    cluster.tell(told, proof(4)).expect("the rules hold");
    run(&mut cluster, LEASE);
    assert_eq!(cluster.checks.newest().id(), ViewId(before.0 + 1));
}

#[test]
fn all_but_one_may_die_one_by_one() {
    for proof_permille in [0, 1000] {
        let mut cluster = cluster(6, true);
        cluster.proof_permille = proof_permille;
        for rank in [3, 0, 5, 1, 2] {
            does(&mut cluster, &Nemesis::Crash(rank));
            run(&mut cluster, 3 * LEASE);
        }
        assert_eq!(ranks(&cluster), [4]);
        assert_eq!(cluster.checks.newest().id(), ViewId(6), "one view per death");
    }
}

#[test]
fn all_but_one_at_once_is_no_quorum_in_bounded_time() {
    for proof_permille in [0, 1000] {
        let mut cluster = cluster(4, true);
        cluster.proof_permille = proof_permille;
        for rank in 1..4 {
            does(&mut cluster, &Nemesis::Crash(rank));
        }
        // A lease, the time-out of three leases, and what the clocks differ by.
        run(&mut cluster, 4 * LEASE + LEASE / 20);
        assert_eq!(cluster.processes[0].end, Some(End::NoQuorum));
        assert_eq!(cluster.checks.newest().id(), ViewId::FIRST);
    }
}

#[test]
fn a_minority_freezes_and_the_majority_goes_on() {
    let mut cluster = cluster(5, false);
    does(&mut cluster, &Nemesis::Split(vec![node(0), node(1)], 0));
    run(&mut cluster, LEASE + LEASE / 20);
    assert!(cluster.processes[..2].iter().all(|it| it.frozen.is_some()), "the minority has no lease");
    assert!(cluster.processes[2..].iter().all(|it| it.frozen.is_none()), "the majority has");
    run(&mut cluster, LEASE);
    assert_eq!(cluster.checks.newest().members().len(), 3);
    does(&mut cluster, &Nemesis::Mend(vec![node(0), node(1)]));
    run(&mut cluster, LEASE);
    let ends: Vec<_> = cluster.processes.iter().map(|it| it.end).collect();
    assert_eq!(ends, [Some(End::Evicted), Some(End::Evicted), None, None, None]);
    assert_eq!(ranks(&cluster), [2, 3, 4]);
}

#[test]
fn a_minority_that_stays_alone_finds_no_quorum() {
    let mut cluster = cluster(5, false);
    does(&mut cluster, &Nemesis::Split(vec![node(0), node(1)], 0));
    run(&mut cluster, 4 * LEASE + LEASE / 20);
    assert!(cluster.processes[..2].iter().all(|it| it.end == Some(End::NoQuorum)));
    assert_eq!(ranks(&cluster), [2, 3, 4]);
}

#[test]
fn a_partition_that_mends_in_time_changes_nothing() {
    let mut cluster = cluster(4, false);
    does(&mut cluster, &Nemesis::Split(vec![node(0), node(1)], 0));
    run(&mut cluster, LEASE * 2);
    assert!(cluster.processes.iter().all(|it| it.frozen.is_some()), "two halves: nobody has a majority");
    does(&mut cluster, &Nemesis::Mend(vec![node(0), node(1)]));
    run(&mut cluster, LEASE);
    assert_eq!(ranks(&cluster), [0, 1, 2, 3]);
    assert_eq!(cluster.checks.newest().id(), ViewId::FIRST, "the same view still stands");
}

#[test]
fn a_slow_node_within_its_lease_is_not_evicted() {
    let mut cluster = cluster(3, false);
    // Ten times a busy machine's 10 ms, for every packet and every timer.
    does(&mut cluster, &Nemesis::Slow(1, nanos(LEASE) / 10));
    run(&mut cluster, LEASE * 30);
    assert_eq!(ranks(&cluster), [0, 1, 2]);
    assert_eq!(cluster.checks.newest().id(), ViewId::FIRST);
}

#[test]
fn a_stop_beyond_the_lease_ends_in_eviction_and_a_shorter_one_does_not() {
    let mut cluster = cluster(3, false);
    does(&mut cluster, &Nemesis::Stop(node(2), nanos(LEASE) * 7 / 10));
    run(&mut cluster, LEASE * 3);
    assert_eq!(ranks(&cluster), [0, 1, 2]);
    does(&mut cluster, &Nemesis::Stop(node(2), nanos(LEASE) * 3));
    run(&mut cluster, LEASE * 4);
    assert_eq!(cluster.processes[2].end, Some(End::Evicted));
    assert_eq!(ranks(&cluster), [0, 1]);
}

#[test]
fn a_machine_that_sleeps_evicts_nobody() {
    let mut cluster = cluster(5, true);
    does(&mut cluster, &Nemesis::StopAll(nanos(LEASE) * 3));
    run(&mut cluster, LEASE * 6);
    assert_eq!(ranks(&cluster), [0, 1, 2, 3, 4]);
    assert_eq!(cluster.checks.newest().id(), ViewId::FIRST);
}

#[test]
fn suspicion_evicts_nobody_but_has_the_launcher_look() {
    let mut cluster = cluster(3, true);
    let told = cluster.process_of(node(0)).expect("rank 0 lives");
    cluster.tell(told, Fact::Suspected { node: NodeId(1) }).expect("the rules hold");
    run(&mut cluster, LEASE * 5);
    assert_eq!(ranks(&cluster), [0, 1, 2], "the launcher has no child of that name");
    cluster.proof_permille = 1000;
    run(&mut cluster, LEASE);
    let since = cluster.now;
    cluster.tell(told, Fact::Suspected { node: NodeId(2) }).expect("the rules hold");
    run(&mut cluster, LEASE);
    assert_eq!(cluster.processes[2].end, Some(End::Killed), "it ends its child, and proves the death");
    assert!(took(&cluster, since) < Duration::from_millis(8), "{:?}", took(&cluster, since));
    assert_eq!(ranks(&cluster), [0, 1]);
}

#[test]
fn nodes_go_on_without_their_launcher_while_they_are_a_majority() {
    for nodes in [1, 2, 3, 4] {
        let mut cluster = cluster(nodes, true);
        does(&mut cluster, &Nemesis::CrashWitness);
        run(&mut cluster, LEASE * 6);
        assert_eq!(ranks(&cluster).len(), usize::from(nodes));
    }
    let mut cluster = cluster(2, true);
    does(&mut cluster, &Nemesis::CrashWitness);
    does(&mut cluster, &Nemesis::Crash(1));
    run(&mut cluster, 4 * LEASE + LEASE / 20);
    assert_eq!(cluster.processes[0].end, Some(End::NoQuorum), "one of three voters decides nothing");
}

#[test]
fn a_rank_that_is_restarted_gets_in_after_its_old_process_is_evicted() {
    let mut cluster = cluster(3, false);
    does(&mut cluster, &Nemesis::Restart(1));
    run(&mut cluster, LEASE * 4);
    assert_eq!(ranks(&cluster), [0, 1, 2]);
    let members: Vec<usize> = cluster.checks.views.values().map(|view| view.members().len()).collect();
    assert_eq!(members, [3, 2, 3], "first the old one goes, then the new one comes");
}

#[test]
fn nodes_come_and_go() {
    let mut cluster = cluster(1, true);
    for rank in [1, 2, 3, 4, 5] {
        does(&mut cluster, &Nemesis::Join(rank));
    }
    run(&mut cluster, LEASE * 2);
    assert_eq!(ranks(&cluster), [0, 1, 2, 3, 4, 5]);
    does(&mut cluster, &Nemesis::Leave(0));
    does(&mut cluster, &Nemesis::Leave(4));
    run(&mut cluster, LEASE);
    assert_eq!(ranks(&cluster), [1, 2, 3, 5]);
    for rank in [1, 2, 3, 5] {
        does(&mut cluster, &Nemesis::Leave(rank));
    }
    run(&mut cluster, LEASE * 2);
    assert_eq!(ranks_left(&cluster), 6);
    let mut cluster = self::cluster(3, false);
    for rank in [2, 0, 1] {
        does(&mut cluster, &Nemesis::Leave(rank));
        run(&mut cluster, LEASE);
    }
    assert_eq!(ranks_left(&cluster), 3, "one after the other as well");
}

fn ranks_left(cluster: &Cluster) -> usize {
    cluster.processes.iter().filter(|it| it.end == Some(End::Left)).count()
}

/// Ranks 1 and 2 alone come to know that rank 3 is out, the launcher having agreed, and lose touch with the others; these
/// hear each other, but for words of consensus. With rank 3's votes and the launcher's, rank 0 has a majority of the old
/// view, and ranks 1 and 2 have one of the new.
fn old_majority_beside_the_new_one<const BUG: u8>() -> Result<ViewId, String> {
    let settings = Settings::default().with_witness(true);
    let mut world: World<Rigged<BUG>> = World::new(1, 4, settings, None, Tracing::Off);
    world.run_for(SETTLING)?;
    world.network.set_one_way(node(3), node(0), true);
    carry_out(&mut world, &Nemesis::Leave(3))?;
    let end = world.now + nanos(LEASE);
    while world.checks.newest().id() == ViewId::FIRST && world.now < end {
        world.step(end)?;
    }
    world.network.cut.clear();
    carry_out(&mut world, &Nemesis::Split(vec![node(1), node(2)], 0))?;
    world.network.mute.extend([node(0), node(3), VoterId::Witness]);
    world.run_for(LEASE + LEASE / 2)?;
    Ok(world.checks.newest().id())
}

#[test]
fn a_voter_that_accepted_grants_no_more() {
    assert_eq!(
        old_majority_beside_the_new_one::<SOUND>(),
        Ok(ViewId(3)),
        "rank 0 is out, and was fenced before"
    );
    let unsound = old_majority_beside_the_new_one::<HIDES_ACCEPTANCE>();
    assert!(unsound.as_ref().is_err_and(|what| what.contains("rank 0 acts in")), "{unsound:?}");
}

#[test]
fn a_candidate_for_a_rank_that_is_taken_gives_up() {
    let mut cluster = cluster(3, false);
    does(&mut cluster, &Nemesis::Join(1));
    run(&mut cluster, LEASE * 8);
    assert_eq!(cluster.processes[3].end, Some(End::NoQuorum));
    assert_eq!(ranks(&cluster), [0, 1, 2]);
    assert_eq!(cluster.checks.newest().id(), ViewId::FIRST);
}

#[test]
fn of_two_members_that_do_not_reach_each_other_one_goes() {
    let mut cluster = cluster(4, true);
    does(&mut cluster, &Nemesis::Link(node(1), node(2), true));
    let since = cluster.now;
    run(&mut cluster, LEASE * 5);
    assert_eq!(ranks(&cluster), [0, 1, 3]);
    assert_eq!(cluster.processes[2].end, Some(End::Evicted));
    // A lease until it is noticed, one of patience, one for the leases of the one that goes to run out.
    assert!(took(&cluster, since) < LEASE * 3 + LEASE / 4, "{:?}", took(&cluster, since));
}

#[test]
fn whoever_hears_nothing_goes_though_everybody_hears_it() {
    let mut cluster = cluster(3, false);
    does(&mut cluster, &Nemesis::OneWay(node(0), node(2), 0));
    does(&mut cluster, &Nemesis::OneWay(node(1), node(2), 0));
    run(&mut cluster, LEASE * 5);
    assert!(cluster.processes[2].end.is_some());
    assert_eq!(ranks(&cluster), [0, 1]);
}

#[test]
fn leaders_may_die_at_any_word_of_a_change() {
    for word in 1..12 {
        let mut cluster = cluster(5, false);
        does(&mut cluster, &Nemesis::CrashAtConsensus(0, word));
        does(&mut cluster, &Nemesis::Crash(4));
        run(&mut cluster, LEASE * 5);
        assert_eq!(ranks(&cluster)[..2], [1, 2][..ranks(&cluster).len().min(2)], "word {word}");
    }
}

/// Seeds of the plain test run; the command runs more.
const SEEDS: u64 = 2000;

#[test]
fn two_thousand_seeds_run_clean() {
    let mut total = Counts::default();
    for seed in 0..SEEDS {
        match membership_sim::run(seed, &Options::default()) {
            Ok(counts) => total.add(&counts),
            Err(failure) => panic!("{failure}"),
        }
    }
    // The seeds must not come to be idle by some change of the plan.
    assert!(total.views > 2000 && total.evicted > 200 && total.joined > 300, "{total}");
    assert!(total.killed > 1000 && total.left > 300 && total.without_quorum > 300, "{total}");
}

#[test]
fn a_seed_is_the_same_run_every_time() {
    for seed in 0..20 {
        let once = membership_sim::run(seed, &Options::default()).expect("it is one of those that run clean");
        assert_eq!(membership_sim::run(seed, &Options::default()).expect("it ran clean just now"), once);
    }
}

/// What the checker says of a mutant, in one of these ways at least.
fn signs(mutant: Mutant) -> &'static [&'static str] {
    match mutant {
        Mutant::CountsFromReceipt
        | Mutant::RenewsRefused
        | Mutant::FastClocks
        | Mutant::GrantsAfterAccepting
        | Mutant::IgnoresFreeze => &["acts in"],
        Mutant::EvictsOnSuspicion => &["nothing was done to it", "acts in"],
        Mutant::DecidesAlone => &["two views have one number", "acts in"],
        Mutant::ForgetsAccepted => &["is dead, and a member", "two views have one number"],
        Mutant::IgnoresViews => &["rejects", "nothing was done to it"],
        Mutant::LosesClaims => &["is dead, and a member", "waits for a lease"],
        Mutant::LosesTicks => &["is past", "acts in", "is dead, and a member"],
        Mutant::TellsNobody | Mutant::LosesRemovals | Mutant::LosesWelcomes => &[
            "nothing was done to it",
            "others are in",
            "goes on in",
            "waits for a lease",
            "never comes to it",
        ],
    }
}

/// Seeds within which every mutant is found.
const SEEDS_OF_MUTANT: u64 = 6000;

#[test]
fn every_mutant_is_found_for_what_it_does() {
    for mutant in Mutant::ALL {
        // It has a scenario of its own: chance takes long to find it.
        if mutant == Mutant::GrantsAfterAccepting {
            continue;
        }
        let options = Options { mutant: Some(mutant), ..Options::default() };
        let found = (0..SEEDS_OF_MUTANT)
            .filter_map(|seed| membership_sim::run(seed, &options).err())
            .find(|failure| signs(mutant).iter().any(|sign| failure.what.contains(sign)));
        let found = found.unwrap_or_else(|| panic!("{mutant:?} was not found in {SEEDS_OF_MUTANT} seeds"));
        assert!(!found.trace.is_empty(), "a failure comes with what happened before: {found}");
    }
}
