//! What the cluster knows by name, and the calls that one thread, or one process, makes once.

use super::cluster::{meet, with_cluster};
use super::{Arguments, Outcome, Scenario, at, expect_panics, fact};
use dsm_node::{Dsm, Error};
use std::hint::spin_loop;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

pub(super) const SCENARIOS: &[(&str, Scenario)] =
    &[("roots", roots), ("failing_roots", failing_roots), ("already_joined", already_joined), ("busy", busy)];

/// All nodes race for many names: each is created once, and has one address.
fn roots(arguments: &Arguments) -> Outcome {
    let count = arguments.number("count");
    with_cluster(|dsm| {
        let mut created = 0_u64;
        let mut addresses = Vec::new();
        meet(dsm, "all start at once")?;
        for number in 0..count {
            at(format_args!("name {number}"));
            let name = format!("root {number}");
            let found = dsm.root_ref(&name, |_| {
                created += 1;
                Ok(AtomicU64::new(number))
            })?;
            found.fetch_add(1, Ordering::Relaxed);
            addresses.push(found.address());
        }
        meet(dsm, "all names are there")?;
        for number in 0..count {
            let found = dsm.root(&format!("root {number}"), |_| Ok(AtomicU64::new(0)))?;
            assert_eq!(found.load(Ordering::Relaxed), number + u64::from(dsm.size()));
        }
        fact("created", created);
        fact("addresses", format_args!("{addresses:x?}"));
        let other = dsm.root("root 0", |_| Ok(0_u32)).map(|_| ());
        let Err(Error::LayoutMismatch { name, expected, found }) = &other else { panic!("{other:?}") };
        assert!(name == "root 0" && expected.contains("u32") && expected != found, "{other:?}");
        for name in ["", &"x".repeat(257)] {
            assert!(matches!(dsm.root(name, |_| Ok(0_u32)).map(|_| ()), Err(Error::Argument(_))));
        }
        meet(dsm, "all have tried what is wrong")
    })
}

/// Creating fails on all nodes but the last, by error or by panic: each failure passes the duty on.
fn failing_roots(_: &Arguments) -> Outcome {
    expect_panics();
    with_cluster(|dsm| {
        meet(dsm, "all start at once")?;
        for number in 0..10 {
            at(format_args!("name {number}"));
            let name = format!("root {number}");
            let last = dsm.rank() == dsm.size() - 1;
            let claim = || {
                dsm.root(&name, |_| match (last, dsm.rank() % 2) {
                    (true, _) => Ok(AtomicU64::new(number)),
                    (false, 0) => Err(Error::Config(String::from("not here"))),
                    (false, _) => panic!("not here either"),
                })
            };
            // Who fails may ask again, and finds what the last rank made, or fails again.
            let found = loop {
                match catch_unwind(AssertUnwindSafe(claim)) {
                    Ok(Ok(found)) => break found,
                    Ok(Err(Error::Config(cause))) => assert_eq!(cause, "not here"),
                    Ok(Err(other)) => return Err(other),
                    Err(_) => assert_eq!(dsm.rank() % 2, 1),
                }
            };
            assert_eq!(found.load(Ordering::Relaxed), number);
        }
        meet(dsm, "all names are there")
    })
}

/// A process joins once.
fn already_joined(_: &Arguments) -> Outcome {
    with_cluster(|dsm| {
        assert!(matches!(Dsm::join().map(|_| ()), Err(Error::AlreadyJoined)));
        meet(dsm, "the first join stands")
    })?;
    assert!(matches!(Dsm::join().map(|_| ()), Err(Error::AlreadyJoined)));
    Ok(())
}

/// Two threads of rank 0 go into the barrier, while rank 1 waits for one of them to be sent back.
fn busy(_: &Arguments) -> Outcome {
    with_cluster(|dsm| {
        let sent_back = dsm.root("sent back", |_| Ok(AtomicU64::new(0)))?;
        meet(dsm, "all start at once")?;
        if dsm.rank() == 0 {
            let answers: Vec<_> = std::thread::scope(|scope| {
                let enter = || {
                    let answer = dsm.barrier();
                    if matches!(answer, Err(Error::Busy { call: "barrier" })) {
                        sent_back.fetch_add(1, Ordering::SeqCst);
                    }
                    answer
                };
                let threads = [scope.spawn(enter), scope.spawn(enter)];
                threads.map(|thread| thread.join().expect("a panic ends the process")).into()
            });
            assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1, "{answers:?}");
            assert_eq!(sent_back.load(Ordering::SeqCst), 1, "{answers:?}");
        } else {
            at("waiting for a thread to be sent back");
            while sent_back.load(Ordering::SeqCst) == 0 {
                spin_loop();
            }
            dsm.barrier()?;
        }
        meet(dsm, "the next barrier is as ever")
    })
}
