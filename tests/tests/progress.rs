//! The runtime goes on whatever the application does, and costs nothing while nothing happens.

use dsm_tests::scenario;
use std::time::Duration;

/// A read miss of a node whose owner's threads take all cores may wait for the scheduler, in the middle, no longer than
/// this, or than so many times the quiet time of the same run. A handler that is starved until the threads are done
/// would make it wait for 3 s.
const WAIT_MAX: Duration = Duration::from_millis(3);
const RATIO_MAX: u64 = 20;

#[test]
fn pages_come_while_their_owners_threads_compute_or_sleep() {
    for owner in ["computes", "sleeps"] {
        let report = scenario!("owner_busy").nodes(2).arg("owner", owner).run();
        let nanos = |name| report.number::<u64>(1, name);
        let (quiet, busy) = (nanos("quiet p50"), nanos("busy p50"));
        let most = (quiet * RATIO_MAX).max(WAIT_MAX.as_nanos() as u64);
        assert!(busy <= most, "{busy} ns when the owner {owner}, {quiet} ns when it is quiet: {report}");
        // No page came only when the spell was over.
        assert!(nanos("busy longest") < nanos("spell") / 2, "{report}");
    }
}

#[test]
fn idle_nodes_use_no_processor() {
    /// In one second: 2 %.
    const CPU_MAX: Duration = Duration::from_millis(20);
    /// Leases are renewed five times in a second, each with the other three nodes and the launcher: what these say and
    /// answer takes at most nine wake-ups each time. A node that looked around besides, a hundred times say, would be seen.
    const WAKE_UPS_MAX: u64 = 50;
    let report = scenario!("idle").nodes(4).run();
    for rank in 0..4 {
        let cpu = Duration::from_nanos(report.number(rank, "cpu"));
        assert!(cpu < CPU_MAX, "rank {rank} used {cpu:?}: {report}");
        assert!(report.number::<u64>(rank, "switches") <= WAKE_UPS_MAX, "{report}");
    }
}
