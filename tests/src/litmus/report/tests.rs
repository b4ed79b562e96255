//! Reports of made-up counts: what is forbidden must be counted, shown and failed.

use super::*;
use crate::litmus::outcome::Seen;
use crate::litmus::program::{Access, Fence};

fn row(name: &str, access: Access, layout: Layout, counts: &[(Outcome, u64)], sequential: bool) -> Row {
    let family = Family::named(name)[0];
    let configuration = Configuration { flavour: Flavour { access, fence: Fence::None }, layout, rounds: 1 };
    let counts = counts.iter().copied().collect();
    Row::new(family, configuration, Placement::Threads, &counts, 1.0, sequential)
}

fn report(rows: Vec<Row>) -> Report {
    let mut report = Report { rows: Vec::new(), seed: 7, elapsed: Duration::ZERO };
    report.add(rows, Duration::from_secs(2));
    report
}

const STALE_DATA: [u8; 2] = [1, 0];

#[test]
fn what_the_model_forbids_fails() {
    let counts = [(Outcome::whole([1, 1]), 5), (Outcome::whole(STALE_DATA), 1)];
    for access in [Access::AcqRel, Access::SeqCst] {
        let report = report(vec![row("MP", access, Layout::Separate, &counts, false)]);
        assert_eq!((report.forbidden(), report.iterations()), (1, 6));
        assert_eq!(report.to_json(None)["ok"], false);
        let text = report.to_string();
        assert!(text.contains("r0=1 r1=0, 1 times (forbidden)"), "{text}");
        assert!(text.contains("1 forbidden outcomes, 0 weak outcomes seen"), "{text}");
    }
}

#[test]
fn what_only_the_hardware_forbids_fails_too() {
    let counts = [(Outcome::whole(STALE_DATA), 1)];
    for (access, word) in [(Access::Relaxed, "not-on-x86"), (Access::Plain, "race:never")] {
        let report = report(vec![row("MP", access, Layout::SamePage, &counts, false)]);
        assert_eq!(report.forbidden(), 1, "{access:?}");
        assert!(report.to_string().contains(word), "{report}");
    }
}

#[test]
fn weak_outcomes_are_counted_and_no_failure() {
    let counts = [(Outcome::whole([0, 0]), 3), (Outcome::whole([1, 0]), 4)];
    let seen = report(vec![row("SB", Access::Relaxed, Layout::Separate, &counts, false)]);
    assert_eq!((seen.forbidden(), seen.weak()), (0, 3));
    assert_eq!(seen.to_json(None)["ok"], true);
    assert_eq!(seen.missing_weakness(), None);
    let pretended = report(vec![row("SB", Access::Relaxed, Layout::Separate, &counts, true)]);
    assert_eq!((pretended.forbidden(), pretended.weak()), (3, 0));
    let unseen = report(vec![row("SB", Access::Relaxed, Layout::Separate, &counts[1..], false)]);
    assert!(unseen.missing_weakness().is_some());
}

#[test]
fn lost_and_torn_values_fail_but_where_values_straddle() {
    let lost = Outcome::whole([1, 1]).with_lost_store();
    let torn = Outcome::of([Seen { low: 1, high: 0 }, Seen::whole(1)]);
    for layout in Layout::ALL {
        assert_eq!(row("MP", Access::Plain, layout, &[(lost, 1)], false).forbidden(), 1, "{layout:?}");
        let expected = u64::from(layout != Layout::Straddle);
        assert_eq!(row("MP", Access::Plain, layout, &[(torn, 1)], false).forbidden(), expected, "{layout:?}");
    }
}

#[test]
fn the_table_says_of_each_outcome_what_the_model_says() {
    let counts = [(Outcome::whole([0, 0]), 3)];
    let rows = [Access::Plain, Access::Relaxed, Access::AcqRel]
        .map(|access| row("MP", access, Layout::Separate, &counts, false));
    let table = outcomes_table(&rows);
    let line = table.lines().find(|line| line.contains("r0=1 r1=0")).expect("all outcomes are in the table");
    let words: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(words, ["r0=1", "r1=0", "0", "race:never", "0", "not-on-x86", "0", "forbidden"]);
    assert!(table.contains("MP, separate: x=1; y=1 || r0=y; r1=x"), "{table}");
}

#[test]
fn a_run_that_failed_is_no_success() {
    let object = report(Vec::new()).to_json(Some("no thread has moved"));
    assert_eq!(object["ok"], false);
    assert_eq!(object["failure"], "no thread has moved");
}
