//! The lock and the list, on real nodes.

use dsm_node::launch::TransportKind;
use dsm_tests::scenario;

#[test]
fn everybody_gets_a_turn_and_nobody_is_inside_twice() {
    scenario!("fairness").nodes(4).arg("threads", 2).arg("count", 100).run();
    scenario!("fairness").nodes(1).arg("threads", 8).arg("count", 100).run();
    scenario!("fairness").nodes(8).arg("threads", 1).arg("count", 50).transport(TransportKind::Unix).run();
}

#[test]
fn who_does_not_wait_is_told_and_who_gives_up_learns_the_holder() {
    scenario!("try_and_timeout").nodes(2).run();
    scenario!("try_and_timeout").nodes(3).transport(TransportKind::Unix).run();
}

#[test]
fn a_panic_poisons_the_lock_everywhere() {
    scenario!("poison").nodes(3).run();
}

#[test]
fn a_thread_with_a_guard_may_not_wait_for_others() {
    scenario!("in_section").nodes(2).run();
    scenario!("leave_in_section").nodes(1).run();
}

#[test]
fn an_inner_lock_stays_until_the_outer_guard_goes() {
    scenario!("nested").nodes(2).run();
}

#[test]
fn the_list_equals_a_model() {
    for (seed, nodes) in [(1, 2), (2, 4), (3, 3)] {
        scenario!("list_model").nodes(nodes).arg("count", 300).arg("seed", seed).run();
    }
}

#[test]
fn what_one_node_makes_another_drops() {
    scenario!("dropped_elsewhere").nodes(3).region_size(16 << 20).arg("rounds", 12).arg("count", 60).run();
}
