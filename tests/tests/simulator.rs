//! The simulator over a fixed range of seeds, and proof that its checker can fail: every deliberate fault is found.

use dsm_tests::sim::{self, Counts, Mutant, Options};
use std::process::{Command, Output};

/// Seeds of the plain test run; `.ci/run` and releases run more.
const SEEDS: u64 = 200;

#[test]
fn two_hundred_seeds_run_clean() {
    let mut total = Counts::default();
    for seed in 0..SEEDS {
        match sim::run(seed, &Options::default()) {
            Ok(counts) => total.add(&counts),
            Err(failure) => panic!("{failure}"),
        }
    }
    assert_eq!(total.seeds, SEEDS);
    // The seeds must not come to be idle by some change of the plan.
    assert!(total.crashes >= 10, "{total}");
    assert!(total.faults > 10_000 && total.hand_offs > 5_000, "{total}");
    for kind in
        ["Invalidate", "Forward", "LockWithdraw", "BarrierComplete", "RootAbandon", "SpanFound", "Free"]
    {
        assert!(total.messages.contains_key(kind), "no {kind} in {:?}", total.messages);
    }
}

#[test]
fn a_seed_is_the_same_run_every_time() {
    for seed in 0..20 {
        let once = sim::run(seed, &Options::default()).expect("the seed is one of those that run clean");
        let again = sim::run(seed, &Options::default()).expect("it ran clean just now");
        assert_eq!(once, again);
    }
}

/// What the checker says of a mutant, in one of these ways at least.
fn signs(mutant: Mutant) -> &'static [&'static str] {
    match mutant {
        Mutant::KeepsReadMapping
        | Mutant::KeepsWriteMapping
        | Mutant::MapsReadsWritable
        | Mutant::AcksEarly => &["readers at once"],
        Mutant::DropsInvalidate | Mutant::LosesWake | Mutant::HidesDeaths => &["blocked for ever"],
        Mutant::ConfirmsEarly => &["this state does not allow", "readers at once", "over None"],
        Mutant::StaleBody | Mutant::DiscardsBody => &["but the latest store was"],
        Mutant::NoResidency => &["livelock"],
        Mutant::GrantsDeniedLocks | Mutant::ReleasesEarly => &["holds it"],
        Mutant::ForgetsProtect => &["but its machine holds"],
        Mutant::ReusesSentFrame => &["changed while its bytes were on their way"],
        Mutant::TearsIncrements => &["was incremented"],
        Mutant::PassesBarrierAlone => &["passed barrier"],
        Mutant::LeavesAlone => &["still ran"],
        Mutant::CreatesRootsTwice => &["is to create root"],
        Mutant::LeasesTwice => &["was leased to"],
        Mutant::LosesFrees => &["never heard of it"],
    }
}

/// Seeds within which every mutant is found.
const SEEDS_OF_MUTANT: u64 = 120;

#[test]
fn every_mutant_is_found_for_what_it_does() {
    for mutant in Mutant::ALL {
        let options = Options { mutant: Some(mutant), ..Options::default() };
        let failures: Vec<_> =
            (0..SEEDS_OF_MUTANT).filter_map(|seed| sim::run(seed, &options).err()).collect();
        let found =
            failures.iter().find(|failure| signs(mutant).iter().any(|sign| failure.what.contains(sign)));
        let found = found.unwrap_or_else(|| {
            let others: Vec<_> = failures.iter().map(|failure| &failure.what).collect();
            panic!("{mutant:?} was not found in {SEEDS_OF_MUTANT} seeds, only {others:#?}")
        });
        assert!(!found.trace.is_empty(), "a failure comes with what happened before: {found}");
    }
}

fn sim_command(arguments: &[&str]) -> Output {
    let command = Command::new(env!("CARGO_BIN_EXE_sim")).args(arguments).output();
    command.expect("the simulator was built for this test")
}

#[test]
fn the_command_ends_with_one_line_of_counts() {
    let output = sim_command(&["--seeds", "0..20"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.starts_with("20 seeds"), "{text}");
}

#[test]
fn a_failure_says_its_seed_first_and_exits_with_1() {
    let output = sim_command(&["--seeds", "0..20", "--mutant", "StaleBody"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{text}");
    let words: Vec<&str> = text.split([' ', ':']).take(2).collect();
    assert_eq!(words[0], "seed", "{text}");
    let replay = sim_command(&["--seed", words[1], "--mutant", "StaleBody", "--trace"]);
    assert_eq!(replay.status.code(), Some(1), "the seed replays the failure");
    assert!(String::from_utf8_lossy(&replay.stdout).contains("Install"), "the trace shows actions");
}

#[test]
fn a_usage_error_exits_with_2() {
    for arguments in [&["--seeds", "5..5"][..], &["--seeds", "many"], &["--mutant", "None"], &["--trace"]] {
        let output = sim_command(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{arguments:?}");
    }
}
