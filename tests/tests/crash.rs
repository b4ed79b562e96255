//! Nodes that die in the middle of everything, on real processes, by seed. The command `kills` runs many more.

use dsm_tests::crash::{CASES, Case, Plan, Tally};

const WORKER: &str = env!("CARGO_BIN_EXE_worker");

/// Seeds of each case.
const SEEDS: u64 = 2;

/// In the environment: the one seed to run instead.
const SEED: &str = "DSM_TEST_SEED";

/// Runs the case with this name.
fn run(name: &str) {
    let case = CASES.iter().find(|case| case.name == name).expect("a case of that name");
    let asked = std::env::var(SEED).ok().map(|text| text.parse().expect("a seed"));
    let seeds = asked.map_or(0..SEEDS, |seed: u64| seed..seed + 1);
    let mut total = Tally::default();
    for seed in seeds {
        total.add(&Plan::new(*case, seed).run(WORKER));
    }
    println!("{name}: {total}");
    assert!(total.deaths > 0, "{name}: nobody died: {total}");
}

/// One test for each case.
macro_rules! cases {
    ($($test:ident: $name:literal,)*) => {
        $(#[test] fn $test() { run($name); })*

        #[test]
        fn every_case_is_a_test() {
            let tested = [$($name),*];
            let missing: Vec<_> = CASES.iter().map(|case| case.name).filter(|name| !tested.contains(name)).collect();
            assert!(missing.is_empty(), "{missing:?}");
        }
    };
}

cases! {
    somebody_at_work: "somebody at work",
    one_of_two: "one of two",
    owner_idle: "owner idle",
    home_idle: "home idle",
    owner_between_protect_and_commit: "owner between protect and commit",
    commit_half_sent: "commit half sent",
    commit_sent_but_for_its_end: "commit sent but for its end",
    commit_sent: "commit sent",
    after_one_of_two_acks: "after one of two acks",
    after_acks_before_data: "after acks before data",
    after_data_before_the_homes_update: "after data before the home's update",
    new_owner_before_its_first_commit: "new owner before its first commit",
    before_its_confirmation: "before its confirmation",
    recipient_is_the_buddy: "recipient is the buddy",
    writer_in_mid_invalidation: "writer in mid-invalidation",
    reader_in_mid_invalidation: "reader in mid-invalidation",
    reader_after_its_invalidation: "reader after its invalidation",
    home_in_a_transaction: "home in a transaction",
    home_with_a_request: "home with a request",
    home_at_a_confirmation: "home at a confirmation",
    buddy_at_a_record: "buddy at a record",
    buddy_with_a_record_applied: "buddy with a record applied",
    buddy_before_its_ack: "buddy before its ack",
    lock_holder: "lock holder",
    lock_holder_before_its_release: "lock holder before its release",
    home_of_the_lock: "lock's home",
    runtime_thread_panics: "runtime thread panics",
    home_in_recovery: "home in recovery",
    home_that_has_concluded: "home that has concluded",
    home_that_resumes: "home that resumes",
    second_during_re_replication: "second during re-replication",
    second_during_re_replication_with_one_replica: "second during re-replication, one replica",
    leader_during_a_view_change: "leader during a view change",
    next_leader_during_a_view_change: "next leader during a view change",
    two_at_once: "two at once",
    owner_and_buddy_together: "owner and buddy together",
    lock_holder_and_home_together: "lock holder and home together",
    holder_and_home_together_with_two_replicas: "holder and home together, two replicas",
    one_by_one_to_the_last: "one by one to the last",
}

#[test]
fn seeds_lose_tear_and_hang_nothing() {
    const SEEDS: u64 = 6;
    let mut total = Tally::default();
    for seed in 0..SEEDS {
        total.add(&Plan::random(seed).run(WORKER));
    }
    println!("{total}");
    assert!(total.deaths > 0 && total.of_the_dead > 0, "{total}");
}

#[test]
fn what_is_lost_without_replicas_is_noticed() {
    const SEEDS: u64 = 3;
    let case = CASES.iter().find(|case| case.name == "somebody at work").expect("there is such a case");
    let case = Case { replicas: 0, ..*case };
    let fails = |seed: &u64| std::panic::catch_unwind(|| Plan::new(case, *seed).run(WORKER)).is_err();
    let failed = (0..SEEDS).filter(fails).count();
    assert!(failed > 0, "nothing was lost, or nobody noticed");
}
