//! The smallest program: every node appends its rank to one list, and rank 0 prints it.
use dsm_node::{Dsm, DsmMutex, Error, collections::DsmList};

fn main() -> Result<(), Error> {
    let dsm = Dsm::join()?; // finds its rank and peers in the environment; alone: a cluster of one
    let list: &DsmMutex<DsmList<u64>> = dsm.root("list", |dsm| DsmMutex::new(dsm, DsmList::new()))?;
    list.lock()?.push_back(dsm.rank() as u64)?; // one critical section, replicated when the guard drops
    dsm.barrier()?;
    if dsm.rank() == 0 {
        println!("{:?}", list.lock()?.iter().copied().collect::<Vec<u64>>());
    }
    Ok(())
}
