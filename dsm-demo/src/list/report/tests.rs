//! What reports add up to.

use super::super::check::Met;
use super::*;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

/// How nodes of these exit codes ended; None for one that was killed, a second after the machine's start.
fn outcome(codes: &[Option<i32>]) -> Outcome {
    const EXIT_CODE_SHIFT: i32 = 8;
    const SIGKILL: i32 = 9;
    let node = |(rank, code): (u32, &Option<i32>)| NodeOutcome {
        rank,
        status: Some(ExitStatus::from_raw(code.map_or(SIGKILL, |code| code << EXIT_CODE_SHIFT))),
        ending: if code.is_some() { Ending::Itself } else { Ending::Killed },
        killed_at: code.is_none().then_some(Duration::from_secs(1)),
        stdout: String::new(),
        stderr: String::new(),
    };
    let failed = (0..).zip(codes).find_map(|(rank, code)| Some((rank, (*code).filter(|code| *code != 0)?)));
    Outcome { nodes: (0..).zip(codes).map(node).collect(), first_failure: failed, elapsed: Duration::ZERO }
}

/// A report of a walk that met so many items of each rank.
fn report(counts: [u64; 2]) -> NodeLine {
    let ranks = counts.map(|count| Met { count, next: count }).to_vec();
    NodeLine::Report(Box::new(Report {
        acknowledged: 5,
        verdict: Some(Verdict { ranks, misplaced: 0 }),
        read_faults: 3,
        pages_moved: 2,
        ..Report::default()
    }))
}

/// Of ten items each of two nodes has acknowledged `appended`, and said a line.
fn tally_of(appended: [u64; 2], lines: [Option<NodeLine>; 2]) -> Tally {
    let mut tally = Tally::new(2, 10);
    for ((rank, line), count) in (0..).zip(lines).zip(appended) {
        tally.take(rank, NodeLine::Appended { count });
        // In two lines, as from a node that has much to say.
        tally.take(rank, NodeLine::Faults { nanos: vec![(10_000, 98)] });
        tally.take(rank, NodeLine::Faults { nanos: vec![(90_000, 2)] });
        if let Some(line) = line {
            tally.take(rank, serde_json::from_str(&line.to_json()).expect("a line survives its way"));
        }
    }
    tally
}

fn tally(lines: [NodeLine; 2]) -> Tally {
    tally_of([5, 5], lines.map(Some))
}

const WELL: Option<i32> = Some(0);
const KILLED: Option<i32> = None;

#[test]
fn the_json_object_has_exactly_the_agreed_fields() {
    let summary =
        tally([report([5, 5]), report([5, 5])]).summary(&outcome(&[WELL, WELL]), Duration::from_millis(1500));
    let value: serde_json::Value = serde_json::from_str(&summary.to_json()).expect("JSON");
    let fields: Vec<_> = value.as_object().expect("an object").keys().map(String::as_str).collect();
    let mut agreed = [
        "ok",
        "nodes",
        "survivors",
        "items_acknowledged",
        "items_found",
        "items_lost",
        "read_faults",
        "write_faults",
        "pages_moved",
        "bytes_moved",
        "fault_p50_us",
        "fault_p99_us",
        "elapsed_s",
        "recovery_ms",
        "lost_pages",
    ];
    agreed.sort_unstable();
    assert_eq!(fields, agreed);
    assert_eq!(value["ok"], true);
    assert_eq!(value["survivors"], 2);
    assert_eq!(value["items_acknowledged"], 10);
    assert_eq!(value["items_lost"], 0);
    assert_eq!(value["read_faults"], 6);
    assert_eq!(value["pages_moved"], 4);
    assert_eq!(value["fault_p50_us"], 10.0);
    assert_eq!(value["fault_p99_us"], 90.0);
    assert_eq!(value["elapsed_s"], 1.5);
    assert!(value["recovery_ms"].is_null());
}

#[test]
fn one_node_that_misses_an_item_spoils_the_whole() {
    let tally = tally([report([5, 5]), report([4, 5])]);
    let ends = outcome(&[WELL, WELL]);
    let summary = tally.summary(&ends, Duration::ZERO);
    assert!(!summary.ok);
    assert_eq!((summary.items_found, summary.items_lost), (9, 1));
    let damage = tally.damage(&ends);
    assert!(damage.contains("rank 1 missed 1 acknowledged items") && !damage.contains("rank 0"), "{damage}");
}

#[test]
fn a_node_that_fails_is_no_survivor() {
    let tally = tally([report([5, 5]), NodeLine::Failed { message: String::from("no such luck") }]);
    let summary = tally.summary(&outcome(&[WELL, Some(1)]), Duration::ZERO);
    assert!(!summary.ok);
    assert_eq!((summary.nodes, summary.survivors), (2, 1));
    assert_eq!(tally.failure(1), Some("no such luck"));
    assert!(tally.whereabouts().contains("rank 1 had appended 5 and checked 0"));
}

#[test]
fn what_a_killed_node_had_said_must_be_there_and_more_may_be() {
    for (heard, found, ok) in [(3, 2, false), (3, 3, true), (3, 4, true)] {
        let tally = tally_of([5, heard], [Some(report([5, found])), None]);
        let summary = tally.summary(&outcome(&[WELL, KILLED]), Duration::ZERO);
        assert_eq!(summary.ok, ok, "{summary:?}");
        assert_eq!(
            (summary.survivors, summary.items_acknowledged, summary.items_found),
            (1, 5 + heard, 5 + found)
        );
        assert_eq!(summary.items_lost, u64::from(!ok));
        assert_eq!(summary.killed, [1]);
    }
    let short = tally_of([4, 3], [Some(report([4, 3])), None]);
    assert!(
        !short.summary(&outcome(&[WELL, KILLED]), Duration::ZERO).ok,
        "the survivor did not finish its share"
    );
}

#[test]
fn survivors_must_agree_on_what_is_there_of_the_dead() {
    let mut tally = Tally::new(3, 9);
    for (rank, found) in [(0, 2), (1, 3)] {
        let ranks = [3, 3, found].map(|count| Met { count, next: count }).to_vec();
        let verdict = Some(Verdict { ranks, misplaced: 0 });
        tally.take(rank, NodeLine::Appended { count: 3 });
        tally
            .take(rank, NodeLine::Report(Box::new(Report { acknowledged: 3, verdict, ..Report::default() })));
    }
    tally.take(2, NodeLine::Reached { length: 5, count: 2 });
    let ends = outcome(&[WELL, WELL, KILLED]);
    let summary = tally.summary(&ends, Duration::ZERO);
    assert!(!summary.ok);
    assert_eq!((summary.items_acknowledged, summary.items_lost), (8, 0));
    assert!(tally.damage(&ends).contains("found different items"));
}

#[test]
fn gaps_and_items_out_of_place_spoil_a_list_that_misses_nothing() {
    for (next, misplaced) in [(5, 0), (4, 1)] {
        let verdict = Verdict { ranks: vec![Met { count: 5, next: 5 }, Met { count: 4, next }], misplaced };
        let report = Report { verdict: Some(verdict), ..Report::default() };
        let tally = tally_of([5, 3], [Some(NodeLine::Report(Box::new(report))), None]);
        assert!(!tally.summary(&outcome(&[WELL, KILLED]), Duration::ZERO).ok);
    }
}

#[test]
fn a_list_that_breaks_has_lost_what_is_behind() {
    let broken = Break { walked: Some(2), page: 7, address: 0x7000, last_owner: Some(1), view: 2 };
    let mut tally = tally_of([4, 3], [Some(NodeLine::Broken(broken)), None]);
    tally.take(0, NodeLine::Report(Box::new(Report { lost_pages: 9, ..Report::default() })));
    let summary = tally.summary(&outcome(&[Some(1), KILLED]), Duration::ZERO);
    assert!(!summary.ok);
    assert_eq!(
        (summary.survivors, summary.items_found, summary.items_lost, summary.lost_pages),
        (1, 2, 5, 9)
    );
    assert_eq!(tally.broken(), Some((0, broken)));
}

#[test]
fn recovery_is_from_each_kill_to_the_first_that_got_over_it() {
    let mut tally = tally_of([5, 3], [Some(report([5, 3])), None]);
    let ends = outcome(&[WELL, KILLED]);
    assert_eq!(tally.summary(&ends, Duration::ZERO).recovery_ms, None, "nobody said that it has");
    // The first was before the kill, and the last later than another.
    for at in [900_000_000, 1_012_500_000, 1_500_000_000] {
        tally.take(0, NodeLine::Recovered { at });
    }
    assert_eq!(tally.summary(&ends, Duration::ZERO).recovery_ms, Some(12.5));
    assert_eq!(tally.summary(&outcome(&[WELL, WELL]), Duration::ZERO).recovery_ms, None);
}

#[test]
fn progress_ends_where_it_should() {
    let tally = tally([report([5, 5]), report([5, 5])]);
    assert_eq!((tally.steps(), tally.position()), (30, 30));
}

#[test]
fn the_table_has_a_row_per_node_that_reported_or_was_killed() {
    let tally = tally([report([5, 5]), NodeLine::Failed { message: String::new() }]);
    for (end, rows) in [(Some(1), 1), (KILLED, 2)] {
        let table = tally.table(&outcome(&[WELL, end]));
        let lines: Vec<_> = table.lines().collect();
        assert_eq!(lines.len(), 1 + rows, "{table}");
        assert_eq!(lines[0].len(), lines[1].len(), "{table}");
    }
}
