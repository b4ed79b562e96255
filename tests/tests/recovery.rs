//! The model checks of recovery: every short configuration exhausted, with its number of states; and proof that the
//! checker can fail: every mutant is found, by the rule that it breaks, in so many steps.

use dsm_tests::model::recovery::{self, Configuration, Mutant, RECOVERIES, Rule};

fn named(name: &str) -> Configuration {
    let found = RECOVERIES.into_iter().find(|configuration| configuration.name == name);
    found.unwrap_or_else(|| panic!("there is no configuration {name}"))
}

/// Every order of everything that may happen in the configuration is as it must be, members went on after deaths in it,
/// and it has as many states as it had when it was looked at last.
fn exhausts(name: &str) {
    let configuration = named(name);
    match recovery::exhaust(&configuration) {
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
    crash = "crash";
    crash_again = "crash-again";
    crash_writers = "crash-writers";
    crash_section = "crash-section";
    crash_section_twice = "crash-section-twice";
    crash_twice = "crash-twice";
}

#[test]
fn every_short_configuration_has_a_test() {
    let short: Vec<&str> =
        RECOVERIES.iter().filter(|configuration| !configuration.long).map(|short| short.name).collect();
    assert_eq!(short, TESTED);
}

/// A mutant, where it is looked for, the rule that its counterexample breaks, and how many steps that has.
type Found = (Mutant, &'static str, Rule, usize);

const FOUND: &[Found] = &[
    (Mutant::AcksBeforeKept, "crash-writers", Rule::CustodyIsKept, 6),
    (Mutant::CommitsOnePage, "crash", Rule::CustodyIsKept, 10),
    (Mutant::ReusesFrozenFrames, "crash-writers", Rule::SeenSurvives, 15),
    (Mutant::CountsHalfRecords, "crash", Rule::SeenSurvives, 16),
    (Mutant::AcksAnyNumber, "crash-writers", Rule::CustodyIsKept, 19),
    (Mutant::ReusesVersions, "crash-writers", Rule::EnoughHolders, 14),
    (Mutant::ResumesAlone, "crash", Rule::OneOwner, 8),
    (Mutant::SkipsNewBuddies, "crash-writers", Rule::CustodyIsKept, 9),
    (Mutant::KeepsNoTwins, "crash-section-twice", Rule::SectionsAreWhole, 22),
    (Mutant::PlacesBodiesOverKept, "crash-writers", Rule::SeenSurvives, 16),
];

#[test]
fn every_mutant_is_found_for_what_it_does() {
    let mut others = Vec::new();
    for &(mutant, name, rule, steps) in FOUND {
        let found = recovery::counterexample(&named(name), Some(mutant));
        let found = found.unwrap_or_else(|| panic!("{mutant:?} survives in {name}"));
        let last = found.steps.last().map_or("", String::as_str);
        let is_right = last.contains(&format!(": {rule:?}: "));
        if !is_right || found.steps.len() != steps {
            others.push(format!(
                "{mutant:?}, in {} steps instead of {steps}: {} ({last})",
                found.steps.len(),
                found.property
            ));
        }
    }
    assert!(others.is_empty(), "found for something else, or in other steps: {others:#?}");
}

/// `ReleasesAtOnce` makes no difference to anybody: `docs/testing.md` says why.
#[test]
fn every_mutant_is_looked_for_and_one_makes_no_difference() {
    let mut looked: Vec<Mutant> = FOUND.iter().map(|&(mutant, ..)| mutant).collect();
    looked.push(Mutant::ReleasesAtOnce);
    looked.sort();
    assert_eq!(looked, Mutant::ALL);
    for name in ["crash", "crash-writers"] {
        if let Some(found) = recovery::counterexample(&named(name), Some(Mutant::ReleasesAtOnce)) {
            panic!("{name} shows what it is needed for that custodians wait: {found}");
        }
    }
}
