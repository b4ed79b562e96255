//! What is tried: one line per way to die.

use super::{Case, Death, Range1, When, Who};

/// At one of these occurrences of a failpoint.
const fn at(point: &'static str, first: u64, last: u64) -> When {
    When::At(point, Range1(first, last))
}

/// Any one node, of so many with so many replicas, at something.
const fn one(name: &'static str, nodes: u32, replicas: u32, deaths: &'static [Death]) -> Case {
    Case { name, nodes, replicas, deaths, may_lose: false }
}

const fn any(when: When) -> Death {
    Death { who: Who::Any, when }
}

const fn of(rank: u32, when: When) -> Death {
    Death { who: Who::Rank(rank), when }
}

const fn buddy(when: When) -> Death {
    Death { who: Who::Buddy, when }
}

/// As [`one`], where pages may be lost.
const fn lossy(name: &'static str, nodes: u32, replicas: u32, deaths: &'static [Death]) -> Case {
    Case { name, nodes, replicas, deaths, may_lose: true }
}

/// All of them.
pub const CASES: &[Case] = &[
    one("somebody at work", 4, 1, &[any(When::AtWork)]),
    one("one of two", 2, 1, &[any(When::AtWork)]),
    one("owner idle", 3, 1, &[any(When::Idle)]),
    one("home idle", 3, 1, &[of(0, When::Idle)]),
    one("owner between protect and commit", 3, 1, &[any(at("send:Commit::Page", 12, 60))]),
    one("commit half sent", 3, 1, &[any(at("sent:Commit::Page", 12, 60))]),
    one("commit sent but for its end", 3, 1, &[any(at("send:Commit::End", 10, 40))]),
    one("commit sent", 3, 1, &[any(at("sent:Commit::End", 10, 40))]),
    one("after one of two acks", 4, 2, &[any(at("received:Commit::Ack", 10, 60))]),
    one("after acks before data", 3, 1, &[any(at("send:Grant", 10, 40))]),
    one("after data before the home's update", 3, 1, &[any(at("sent:Grant", 10, 40))]),
    one("new owner before its first commit", 3, 1, &[any(at("received:Grant", 10, 60))]),
    one("before its confirmation", 3, 1, &[any(at("send:Confirm", 10, 60))]),
    one("recipient is the buddy", 2, 1, &[any(at("receive:Grant", 10, 40))]),
    one("writer in mid-invalidation", 3, 1, &[any(at("receive:Ack", 3, 15))]),
    one("reader in mid-invalidation", 3, 1, &[any(at("receive:Invalidate", 3, 15))]),
    one("reader after its invalidation", 3, 1, &[any(at("sent:Ack", 3, 15))]),
    one("home in a transaction", 3, 1, &[any(at("send:Forward", 5, 25))]),
    one("home with a request", 3, 1, &[any(at("receive:Request", 5, 25))]),
    one("home at a confirmation", 3, 1, &[any(at("receive:Confirm", 5, 25))]),
    one("buddy at a record", 3, 1, &[any(at("receive:Commit::Page", 10, 60))]),
    one("buddy with a record applied", 3, 1, &[any(at("apply", 10, 40))]),
    one("buddy before its ack", 3, 1, &[any(at("send:Commit::Ack", 10, 40))]),
    one("lock holder", 3, 1, &[any(at("received:LockGrant", 3, 30))]),
    one("lock holder before its release", 3, 1, &[any(at("send:LockRelease", 3, 30))]),
    one("lock's home", 3, 1, &[of(0, at("send:LockGrant", 3, 30))]),
    one("runtime thread panics", 3, 1, &[any(When::Fails("receive:Forward", Range1(5, 25)))]),
    one("home in recovery", 5, 2, &[any(When::AtWork), any(at("send:Report::Pages", 1, 4))]),
    one("home that has concluded", 5, 2, &[any(When::AtWork), any(at("send:Report::Ready", 1, 3))]),
    one("home that resumes", 5, 2, &[any(When::AtWork), any(at("resume", 1, 1))]),
    one("second during re-replication", 5, 2, &[any(When::AtWork), any(at("send:Report::Replicated", 1, 3))]),
    lossy("second during re-replication, one replica", 5, 1, &[any(When::AtWork), any(at("resume", 1, 1))]),
    one("leader during a view change", 5, 2, &[of(1, When::AtWork), of(0, When::Soon)]),
    one("next leader during a view change", 5, 2, &[of(0, When::AtWork), of(1, When::Soon)]),
    one("two at once", 5, 2, &[any(When::AtWork), any(When::AtOnce)]),
    lossy("owner and buddy together", 5, 1, &[any(When::AtWork), buddy(When::AtOnce)]),
    lossy(
        "lock holder and home together",
        5,
        1,
        &[of(1, at("received:LockGrant", 3, 30)), of(0, at("send:LockGrant", 3, 30))],
    ),
    one(
        "holder and home together, two replicas",
        5,
        2,
        &[of(1, at("received:LockGrant", 3, 30)), of(0, at("send:LockGrant", 3, 30))],
    ),
    one("one by one to the last", 4, 1, &[any(When::Idle), any(When::Idle), any(When::Idle)]),
];
