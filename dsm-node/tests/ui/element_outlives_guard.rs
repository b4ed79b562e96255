use dsm_node::{Dsm, DsmMutex, Error, collections::DsmList};

fn main() -> Result<(), Error> {
    let dsm = Dsm::join()?;
    let list: &DsmMutex<DsmList<u64>> = dsm.root("list", |dsm| DsmMutex::new(dsm, DsmList::new()))?;
    let guard = list.lock()?;
    let first = guard.front();
    drop(guard);
    println!("{first:?}");
    Ok(())
}
