//! Nodes that come when others work already, and go before them, on real nodes.

use dsm_tests::harness::Running;
use dsm_tests::scenario;
use std::time::{Duration, Instant};

const ITEMS: u64 = 150;

/// A leave that nobody else is part of takes a second of waiting for the others, and a change of the view.
const LEAVE_MAX: Duration = Duration::from_secs(5);

/// What `rank` of `running` finds at its count of this number, asked to count.
fn count(running: &mut Running, rank: u32, number: u32) -> Vec<u64> {
    running.go(rank);
    running.await_at(rank, &format!("counted {number}"));
    let found = running.await_fact(rank, &format!("found {number}"));
    found.split(' ').map(|text| text.parse().expect("a count")).collect()
}

/// That `rank` leaves while others stay.
fn leaves(running: &mut Running, rank: u32) {
    let began = Instant::now();
    running.go(rank);
    running.await_at(rank, "left");
    assert!(began.elapsed() < LEAVE_MAX, "it took {:?}", began.elapsed());
    running.await_end(rank);
}

#[test]
fn a_node_that_joins_while_others_commit_shares_all_and_keeps_what_others_leave_behind() {
    let mut members = scenario!("comers").nodes(3).arg("items", ITEMS).arg("counts", 2).start();
    members.await_all_at("working");
    let address = members.variable(0, "DSM_RENDEZVOUS");
    let late = scenario!("comers").as_late_comer(3, 4, &address).arg("items", ITEMS).arg("counts", 2);
    let mut guest = late.start();
    assert_eq!(guest.await_fact(0, "members"), "4");
    guest.await_at(0, "resting");
    members.await_all_at("resting");

    // What the new node keeps for others by now is put to the test.
    members.kill(1);
    let all = [ITEMS, ITEMS, ITEMS, ITEMS, 0, 0, 0, 0];
    assert_eq!(count(&mut members, 0, 0), all);
    assert_eq!(count(&mut members, 2, 0), all);
    assert_eq!(count(&mut guest, 0, 0), all);

    // The others leave one by one; the last has everything.
    assert_eq!(count(&mut members, 2, 1), all);
    leaves(&mut members, 2);
    assert_eq!(count(&mut members, 0, 1), all);
    leaves(&mut members, 0);
    assert_eq!(count(&mut guest, 0, 1), all);
    leaves(&mut guest, 0);
    guest.finish().expect_success();
}

#[test]
fn a_rank_that_died_is_taken_again_by_a_new_process() {
    let mut members = scenario!("comers").nodes(3).arg("items", ITEMS).arg("counts", 1).start();
    members.await_all_at("resting");
    let address = members.variable(0, "DSM_RENDEZVOUS");
    members.kill(2);
    // At once, so that the members may not have agreed yet that its predecessor is gone.
    let late = scenario!("comers").as_late_comer(2, 3, &address).arg("items", 0).arg("counts", 1);
    let mut guest = late.start();
    guest.await_at(0, "resting");
    let all = [ITEMS, ITEMS, ITEMS, 0, 0, 0, 0, 0];
    assert_eq!(count(&mut guest, 0, 0), all);
    members.kill(1);
    assert_eq!(count(&mut members, 0, 0), all);
    members.go(0);
    guest.go(0);
    guest.finish().expect_success();
    members.await_end(0);
}

#[test]
fn a_process_whose_rank_is_alive_is_refused() {
    let mut members = scenario!("comers").nodes(2).arg("items", 1).arg("counts", 0).start();
    members.await_all_at("resting");
    let address = members.variable(0, "DSM_RENDEZVOUS");
    let late = scenario!("comers").as_late_comer(1, 2, &address).arg("items", 1).arg("counts", 0);
    let report = late.start().finish();
    report.expect_code(0, 1);
    assert_eq!(report.fact(0, "error kind"), "Refused", "{report}");
    members.go(0);
    members.go(1);
    members.finish().expect_success();
}

/// With one replica: two nodes, each of which keeps what the other has, go at the same time, and where one was killed just
/// before, what it had is on its way then.
#[test]
fn nodes_that_leave_at_once_leave_everything_behind() {
    for (victim, leavers, stayers) in [(None, [1, 2], vec![0, 3]), (Some(3), [1, 2], vec![0])] {
        let stays: u32 = stayers.iter().map(|rank| 1 << rank).sum();
        let mut running = scenario!("leavers").nodes(4).arg("stays", stays).start();
        running.await_all_at("working");
        if let Some(victim) = victim {
            running.kill(victim);
        }
        leavers.iter().for_each(|rank| running.go(*rank));
        for rank in leavers {
            running.await_at(rank, "left");
            running.await_end(rank);
        }
        for stage in ["checked", "left"] {
            stayers.iter().for_each(|rank| running.go(*rank));
            stayers.iter().for_each(|rank| running.await_at(*rank, stage));
        }
        let report = running.finish();
        (0..4).filter(|rank| Some(*rank) != victim).for_each(|rank| report.expect_code(rank as usize, 0));
    }
}
