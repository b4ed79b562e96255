//! Threads and nodes at once: a lock, an atomic, references that are stored, boxes that are sent, and a poisoned lock.
use dsm_node::{Dsm, DsmBox, DsmMutex, DsmRef, Error, Shared};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
#[derive(Shared)]
#[repr(C)]
struct Node {
    next: Option<DsmRef<Node>>,
    hits: AtomicU64,
} // points to itself
#[derive(Shared)]
#[repr(C)]
struct Pair<T> {
    a: T,
    b: Option<DsmRef<Pair<T>>>,
} // generic and recursive
fn main() -> Result<(), Error> {
    let dsm = Dsm::join()?;
    let sum = dsm.root("sum", |d| DsmMutex::new(d, 0u64))?;
    let hits = dsm.root("hits", |_| Ok(AtomicU64::new(0)))?;
    std::thread::scope(|s| {
        for _ in 0..4 {
            s.spawn(|| -> Result<(), Error> {
                *sum.lock()? += 1;
                hits.fetch_add(1, SeqCst);
                Ok(())
            });
        }
    });
    let last = DsmBox::leak(dsm.alloc(Node { next: None, hits: AtomicU64::new(0) })?);
    let mut b = dsm.alloc(Node { next: None, hits: AtomicU64::new(0) })?;
    b.next = Some(last);
    let first = DsmBox::leak(b);
    std::thread::spawn(move || first.next.unwrap().hits.fetch_add(1, SeqCst)).join().unwrap();
    let p = dsm.alloc(Pair { a: 1u32, b: None })?;
    std::thread::scope(|s| {
        s.spawn(move || drop(p));
    });
    let e = dsm.root("sum", |_| Ok(0u32)).unwrap_err();
    println!(
        "{} {} {} {}",
        *sum.lock()?,
        hits.load(SeqCst),
        last.hits.load(SeqCst),
        matches!(e, Error::LayoutMismatch { .. })
    );
    let r = std::thread::scope(|s| {
        s.spawn(|| {
            let _g = sum.lock();
            panic!("in a section")
        })
        .join()
        .is_err()
    });
    println!("{r} {:?}", sum.lock().map(|_| ()).map_err(Error::from));
    sum.clear_poison();
    sum.lock()?;
    dsm.leave()
}
