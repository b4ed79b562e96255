//! The simulation of membership and machine together, over a fixed range of seeds, and proof that its oracle can fail:
//! every deliberate fault is found for what it does.

use dsm_tests::survive::cluster::{self, Counts, Mutant, Options};
use dsm_tests::survive::sweep;
use std::process::{Command, Output};

/// Seeds of the plain test run; releases run more.
const SEEDS: u64 = 300;

/// Side by side, as many as a small machine has cores.
const JOBS: usize = 2;

#[test]
fn three_hundred_seeds_run_clean() {
    let run = |seed| cluster::run(seed, &Options::default());
    let (total, failures) = sweep(&(0..SEEDS), JOBS, false, run, Counts::add);
    if let Some(failure) = failures.first() {
        panic!("{failure}");
    }
    // The seeds must not come to be idle by some change of the plan.
    let Counts { nodes, members, tally } = total;
    assert_eq!(nodes.seeds, SEEDS);
    assert!(members.killed > 100 && members.evicted > 20 && members.without_quorum > 5, "{total}");
    assert!(nodes.recoveries > 100 && nodes.records > 50_000 && nodes.lost > 500, "{total}");
    assert!(nodes.inherited > 10 && nodes.compared > 500, "{total}");
    assert!(nodes.ensured > 5000 && nodes.refused > 20, "{total}");
    assert!(tally.stopped > 150 && tally.frozen > 100 && tally.postponed > 5000, "{total}");
    assert!(tally.stale > 10 && tally.stalled > 100, "{total}");
}

#[test]
fn a_seed_is_the_same_run_every_time() {
    for seed in 0..10 {
        let once = cluster::run(seed, &Options::default()).expect("the seed is one of those that run clean");
        let again = cluster::run(seed, &Options::default()).expect("it ran clean just now");
        assert_eq!(once, again);
    }
}

/// What the oracle says of a mutant, in one of these ways.
fn signs(mutant: Mutant) -> &'static [&'static str] {
    match mutant {
        Mutant::SendsWithoutLease | Mutant::IgnoresFreeze => &["said without a lease"],
        Mutant::AnswersWithoutLease => &["though it is not in view"],
        Mutant::KeepsMappings => &["though it may not act"],
        Mutant::DropsWhatComes | Mutant::DropsFaults | Mutant::DropsEarly | Mutant::MissesViews => {
            &["waits for page", "blocked for ever"]
        }
        Mutant::ForgetsQueue | Mutant::IgnoresEviction | Mutant::IgnoresNoQuorum => {
            &["waits for page", "blocked for ever"]
        }
        Mutant::DropsAnswers => &["blocked for ever"],
        Mutant::HearsPutOffOfOldViews | Mutant::HearsOldViews | Mutant::StampsAtSending => {
            &["this state does not allow"]
        }
        Mutant::TakesSuspicionForProof => &["without it is installed"],
    }
}

/// Seeds within which every mutant is found: some three times what the rarest took.
const SEEDS_OF_MUTANT: u64 = 1000;

#[test]
fn every_mutant_is_found_for_what_it_does() {
    for mutant in Mutant::ALL {
        let options = Options { mutant: Some(mutant), ..Options::default() };
        let fits = |what: &str| signs(mutant).iter().any(|sign| what.contains(sign));
        let found = (0..SEEDS_OF_MUTANT)
            .filter_map(|seed| cluster::run(seed, &options).err())
            .find(|failure| fits(&failure.what));
        let found = found.unwrap_or_else(|| panic!("{mutant:?} was not found in {SEEDS_OF_MUTANT} seeds"));
        assert!(!found.trace.is_empty(), "a failure comes with what happened before: {found}");
    }
}

fn cluster_command(arguments: &[&str]) -> Output {
    let command = Command::new(env!("CARGO_BIN_EXE_cluster")).args(arguments).output();
    command.expect("the simulation was built for this test")
}

#[test]
fn the_command_ends_with_its_counts_and_a_failure_names_its_seed_first() {
    let output = cluster_command(&["--seeds", "0..10"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.starts_with("10 seeds") && text.lines().count() == 3, "{text}");

    let output = cluster_command(&["--seeds", "0..50", "--mutant", "DropsEarly"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{text}");
    let words: Vec<&str> = text.split([' ', ':']).take(2).collect();
    assert_eq!(words[0], "seed", "{text}");
    let replay = cluster_command(&["--seed", words[1], "--mutant", "DropsEarly", "--trace"]);
    assert_eq!(replay.status.code(), Some(1), "the seed replays the failure");
    assert!(String::from_utf8_lossy(&replay.stdout).contains("=> Resume"), "the trace shows intents");

    for arguments in [&["--seeds", "5..5"][..], &["--mutant", "None"], &["--trace"]] {
        let output = cluster_command(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{arguments:?}");
    }
}
