//! The model checks: every short configuration exhausted, with its number of states; and proof that the checker can
//! fail: every mutant is found, by the rule that it breaks, in so many steps.

use dsm_tests::model::{self, CONFIGURATIONS, Configuration, Mutant, Race, Rule};
use std::process::{Command, Output};

fn named(name: &str) -> Configuration {
    let found = CONFIGURATIONS.into_iter().find(|configuration| configuration.name == name);
    found.unwrap_or_else(|| panic!("there is no configuration {name}"))
}

/// Every order of everything that may happen in the configuration is as it must be, its races were seen, and it has as
/// many states as it had when it was looked at last.
fn exhausts(name: &str) {
    let configuration = named(name);
    match model::exhaust(&configuration) {
        Ok(exhausted) => assert_eq!(exhausted.states, configuration.states, "states of {name}"),
        Err(failure) => panic!("{name}: {failure}"),
    }
}

/// One test for each short configuration, so that they run side by side and a failure says which.
macro_rules! configurations {
    ($($test:ident = $name:literal;)*) => {
        $(
            #[test]
            fn $test() {
                exhausts($name);
            }
        )*

        const TESTED: &[&str] = &[$($name),*];
    };
}

configurations! {
    two_nodes = "two-nodes";
    three_nodes = "three-nodes";
    upgrades = "upgrades";
    four_nodes = "four-nodes";
    four_readers = "four-readers";
    two_pages = "two-pages";
    held = "held";
    held_two_pages = "held-two-pages";
    migratory = "migratory";
    threads = "threads";
    straddle = "straddle";
    hasty = "hasty";
    strays = "strays";
}

#[test]
fn every_short_configuration_has_a_test() {
    let short: Vec<&str> =
        CONFIGURATIONS.iter().filter(|configuration| !configuration.long).map(|short| short.name).collect();
    assert_eq!(short, TESTED);
}

#[test]
fn every_race_is_seen_in_a_short_configuration() {
    for race in Race::ALL {
        let seen = CONFIGURATIONS.iter().any(|short| !short.long && short.races.contains(&race));
        assert!(seen, "{race:?}");
    }
}

/// A mutant, where it is looked for, the rule by which it is found, and the steps of the shortest run that does.
type Found = (Mutant, &'static str, Rule, usize);

const FOUND: &[Found] = &[
    (Mutant::KeepsReadMapping, "two-nodes", Rule::OneWriterOrReaders, 6),
    (Mutant::KeepsWriteMapping, "two-nodes", Rule::OneWriterOrReaders, 6),
    (Mutant::MapsReadsWritable, "two-nodes", Rule::OneWriterOrReaders, 5),
    (Mutant::NoInvalidation, "two-nodes", Rule::OneWriterOrReaders, 5),
    (Mutant::SparesOwner, "upgrades", Rule::OneWriterOrReaders, 6),
    (Mutant::NoWaitForConfirm, "two-nodes", Rule::NothingRefused, 4),
    (Mutant::ConfirmsBeforeAcks, "upgrades", Rule::NothingRefused, 7),
    (Mutant::NoWaitForAcks, "upgrades", Rule::OneWriterOrReaders, 3),
    (Mutant::AcksBeforeUnmapping, "upgrades", Rule::OneWriterOrReaders, 5),
    (Mutant::LosesAcks, "upgrades", Rule::EveryFaultEnds, 5),
    (Mutant::AcceptsAnyBody, "strays", Rule::OwnerIsCurrent, 9),
    (Mutant::DiscardsBody, "held", Rule::LatestStore, 8),
    (Mutant::SendsStaleBody, "held", Rule::LatestStore, 8),
    (Mutant::SendsBeforeProtecting, "held", Rule::BodyIsFrame, 7),
    (Mutant::ClearsPages, "two-nodes", Rule::OwnerIsCurrent, 8),
    (Mutant::ReusesSentFrame, "two-nodes", Rule::BodyIsFrame, 7),
    (Mutant::GrantsReadsAsWrites, "two-nodes", Rule::OneWriterOrReaders, 4),
    (Mutant::NeverHurries, "held", Rule::EveryFaultEnds, 5),
    (Mutant::HidesContention, "held", Rule::EveryFaultEnds, 11),
    (Mutant::IgnoresFlush, "held", Rule::EveryFaultEnds, 6),
    (Mutant::LosesWakes, "two-nodes", Rule::EveryFaultEnds, 1),
    (Mutant::WakesOneThread, "threads", Rule::EveryFaultEnds, 6),
    (Mutant::LosesTimer, "two-nodes", Rule::EveryFaultEnds, 5),
    (Mutant::KeepsStraddled, "straddle", Rule::EveryFaultEnds, 10),
    (Mutant::DoublesRequests, "two-nodes", Rule::NothingRefused, 4),
    (Mutant::AcceptsAnyGrant, "strays", Rule::StraysChangeNothing, 14),
    (Mutant::ForgetsProtecting, "two-nodes", Rule::TableIsBelief, 5),
    (Mutant::GivesUpForReads, "two-nodes", Rule::NothingRefused, 10),
];

#[test]
fn every_mutant_is_found_for_what_it_does() {
    let mutants: Vec<Mutant> = FOUND.iter().map(|&(mutant, ..)| mutant).collect();
    assert_eq!(mutants, Mutant::ALL);
    for &(mutant, name, rule, steps) in FOUND {
        let found = model::counterexample(&named(name), Some(mutant));
        let found = found.unwrap_or_else(|| panic!("{mutant:?} survives in {name}"));
        assert!(found.breaks(rule), "{mutant:?} was to break {rule:?}, but {found}");
        assert_eq!(found.steps.len(), steps, "steps until {mutant:?} is found: {found}");
    }
}

/// The same mutant is found at rest, too, where the home's own node has no part in the page.
#[test]
fn a_wrong_directory_is_found_at_rest() {
    let bystander = Configuration { threads: &[&[], &[1], &[1]], races: &[], ..named("two-nodes") };
    let found =
        model::counterexample(&bystander, Some(Mutant::GivesUpForReads)).expect("the mutant is found");
    assert!(found.breaks(Rule::DirectoryIsRight), "{found}");
}

fn model_command(arguments: &[&str]) -> Output {
    let command = Command::new(env!("CARGO_BIN_EXE_model")).args(arguments).output();
    command.expect("the model's command was built for this test")
}

#[test]
fn the_command_counts_states() {
    let output = model_command(&["--config", "upgrades"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains(&format!("{} states", named("upgrades").states)), "{text}");
    assert!(text.ends_with("1 configurations exhausted, 0 failed\n"), "{text}");
}

#[test]
fn the_command_shows_how_a_mutant_is_found() {
    let output = model_command(&["--config", "upgrades", "--mutant", "NoWaitForAcks"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("found after 3 steps") && text.contains("hears from"), "{text}");
}

#[test]
fn a_usage_error_exits_with_2() {
    for arguments in
        [&["--config", "none"][..], &["--mutant", "LosesAcks"], &["--config", "held", "--mutant", "None"]]
    {
        let output = model_command(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{arguments:?}");
    }
}
