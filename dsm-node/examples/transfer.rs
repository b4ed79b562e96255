//! Two accounts, one lock each. The last rank moves money between them and dies in the middle of it: the others find
//! every transfer that it had committed, and nothing of the one in which it died.
//!
//! Start it with replicas: `dsm run -n 3 --replicas 1 -- transfer`.
use dsm_node::{Dsm, DsmMutex, Error, Shared, collections::DsmList};

const COMMITTED: i64 = 100;

#[derive(Shared)]
#[repr(C)]
struct Account {
    balance: i64,
    log: DsmList<i64>,
}

fn account(dsm: &Dsm) -> Result<DsmMutex<Account>, Error> {
    DsmMutex::new(dsm, Account { balance: 0, log: DsmList::new() })
}

fn main() -> Result<(), Error> {
    let dsm = Dsm::join()?;
    if dsm.rank() == 0 {
        // Made here, so that the locks are kept by a node that lives on.
        dsm.root("from", account)?;
        dsm.root("to", account)?;
    }
    dsm.barrier()?;
    let (from, to) = (dsm.root("from", account)?, dsm.root("to", account)?);
    let mut views = dsm.views();
    let dies = dsm.rank() + 1 == dsm.size();
    if dies {
        for amount in 0..COMMITTED {
            let (mut a, mut b) = (from.lock()?, to.lock()?);
            a.balance -= amount;
            a.log.push_back(-amount)?;
            b.balance += amount;
            b.log.push_back(amount)?;
            drop(b);
            // Both sections end here, in one record, and survive from here on.
            a.commit()?;
        }
    }
    dsm.barrier()?;
    if dies {
        let (mut a, mut b) = (from.lock()?, to.lock()?);
        a.log.iter_mut().chain(b.log.iter_mut()).for_each(|entry| *entry = 7);
        // So much that both logs grow by whole runs of pages.
        for amount in 0..10_000 {
            a.balance -= amount;
            a.log.push_back(-amount)?;
            b.log.push_back(amount)?;
            b.balance += amount;
        }
        // Another thread sees to it that all that this node wrote is replicated; of this section, nothing is.
        std::thread::scope(|scope| scope.spawn(|| dsm.sync()).join().expect("it does not panic"))?;
        std::process::abort();
    }
    let view = views.next().expect("this node is still a member");
    let (a, b) = (from.lock()?, to.lock()?);
    let dead = [a.recovered(), b.recovered()].map(|crash| crash.map(|crash| crash.rank));
    println!(
        "{:?} {} {} {} {} {} {} {dead:?}",
        view.members,
        a.balance,
        b.balance,
        a.log.len(),
        b.log.len(),
        a.log.iter().sum::<i64>(),
        b.log.iter().sum::<i64>(),
    );
    drop((a, b));
    assert_eq!(dsm.barrier()?, view);
    dsm.leave()
}
