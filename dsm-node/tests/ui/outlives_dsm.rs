use dsm_node::{Dsm, DsmMutex, Error};

fn main() -> Result<(), Error> {
    let lock: &DsmMutex<u64>;
    {
        let dsm = Dsm::join()?;
        lock = dsm.root("lock", |dsm| DsmMutex::new(dsm, 0))?;
    }
    drop(lock.lock());
    Ok(())
}
