//! In the simulator, what threads were told is enough to find bugs of coherence and of locks: all other checks are off.

use dsm_tests::sim::{self, Checks, Counts, Mutant, Options};
use std::process::Command;

/// Seeds within which every mutant is found that threads can notice.
const SEEDS: u64 = 200;

const HISTORY: Options =
    Options { mutant: None, crashes: true, checks: Checks::History, hostile: None, echo: false };

/// Which histories are not linearizable, by the first lines of what the failures of all seeds say.
fn refused(options: &Options) -> impl Iterator<Item = String> {
    let failures = (0..SEEDS).filter_map(|seed| sim::run(seed, options).err());
    failures.map(|failure| failure.what.lines().next().unwrap_or_default().to_owned())
}

#[test]
fn histories_of_the_machine_are_linearizable() {
    let mut total = Counts::default();
    for seed in 0..SEEDS {
        match sim::run(seed, &HISTORY) {
            Ok(counts) => total.add(&counts),
            Err(failure) => panic!("{failure}"),
        }
    }
    println!("{total}");
    let counted = total.histories;
    assert!(counted.histories >= 5 * SEEDS && counted.operations >= 100 * SEEDS, "{total}");
    assert!(counted.longest >= 200, "{total}");
}

#[test]
fn the_same_is_seen_whatever_else_is_checked() {
    let all = sim::run(7, &Options::default()).expect("the seed runs clean");
    let history = sim::run(7, &HISTORY).expect("the seed runs clean");
    assert_eq!(all, history);
    let oracle = sim::run(7, &Options { checks: Checks::Oracle, ..HISTORY }).expect("the seed runs clean");
    assert_eq!(oracle.histories.histories, 0);
}

/// What breaks what threads are told. The others break what they are not told: that a run ends, barriers, roots, spans.
const NOTICED: [Mutant; 12] = [
    Mutant::KeepsReadMapping,
    Mutant::KeepsWriteMapping,
    Mutant::MapsReadsWritable,
    Mutant::AcksEarly,
    Mutant::ConfirmsEarly,
    Mutant::StaleBody,
    Mutant::DiscardsBody,
    Mutant::GrantsDeniedLocks,
    Mutant::ReleasesEarly,
    Mutant::ForgetsProtect,
    Mutant::ReusesSentFrame,
    Mutant::TearsIncrements,
];

#[test]
fn mutants_are_found_by_histories_alone() {
    for mutant in NOTICED {
        let found = refused(&Options { mutant: Some(mutant), ..HISTORY }).next();
        let found = found.unwrap_or_else(|| panic!("{mutant:?} was not found"));
        assert!(found.starts_with("the history of"), "{mutant:?}: {found}");
        println!("{mutant:?}: {found}");
    }
}

#[test]
fn locks_that_are_granted_twice_spoil_words_queues_and_lists() {
    let options = Options { mutant: Some(Mutant::ReleasesEarly), ..HISTORY };
    let found: Vec<String> = refused(&options).collect();
    for object in ["the history of word", "the history of the Queue", "the history of the List"] {
        assert!(found.iter().any(|what| what.starts_with(object)), "nothing about {object}: {found:#?}");
    }
}

#[test]
fn a_failure_shows_the_history_and_what_happened_up_to_it() {
    let options = Options { mutant: Some(Mutant::StaleBody), ..HISTORY };
    let failure = (0..SEEDS).find_map(|seed| sim::run(seed, &options).err()).expect("it is found");
    assert!(failure.what.lines().any(|line| line.starts_with('>')), "{failure}");
    // The trace ends with the answer that cannot be explained.
    let last = failure.trace.last().expect("a failure comes with what happened before");
    assert!(last.contains("loads"), "{failure}");
    let replay = format!("--seed {} --trace --checks history --mutant StaleBody", failure.seed);
    assert!(failure.to_string().ends_with(&replay), "{failure}");
    let seed = failure.seed.to_string();
    let arguments = ["--seed", &seed, "--checks", "history", "--mutant", "StaleBody"];
    let output = Command::new(env!("CARGO_BIN_EXE_sim")).args(arguments).output();
    let output = output.expect("the simulator was built for this test");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stdout).contains("is not linearizable"));
}
