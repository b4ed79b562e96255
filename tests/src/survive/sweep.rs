//! Many seeds, on several threads.

use super::Failure;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::thread;

/// Runs all seeds of `range`, `jobs` at a time. What was counted in those that ran clean, added up, and the failures,
/// the lowest seed's first; unless `all` are wanted, no seed is begun after one has failed.
pub fn sweep<C: Default + Send>(
    range: &Range<u64>,
    jobs: usize,
    all: bool,
    run: impl Fn(u64) -> Result<C, Box<Failure>> + Sync,
    add: impl Fn(&mut C, &C) + Sync,
) -> (C, Vec<Failure>) {
    let next = AtomicU64::new(range.start);
    let stop = AtomicU64::new(range.end);
    let total = Mutex::new(C::default());
    let failures = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    // Seeds are handed out in order, so none below a failed one is left out.
                    if seed >= stop.load(Ordering::Relaxed) {
                        break;
                    }
                    match run(seed) {
                        Ok(counts) => add(&mut lock(&total), &counts),
                        Err(failure) => {
                            if !all {
                                stop.fetch_min(seed, Ordering::Relaxed);
                            }
                            lock(&failures).push(*failure);
                        }
                    }
                }
            });
        }
    });
    let mut failures: Vec<Failure> = core::mem::take(&mut *lock(&failures));
    failures.sort_by_key(|failure| failure.seed);
    let counts = core::mem::take(&mut *lock(&total));
    (counts, failures)
}

/// A lock is poisoned only by a panic, and what it guards is whole at every moment.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
