use dsm_node::{Dsm, DsmMutex, Error};

fn send<T: Send>(_: T) {}

fn main() -> Result<(), Error> {
    let dsm = Dsm::join()?;
    let lock: &DsmMutex<u64> = dsm.root("lock", |dsm| DsmMutex::new(dsm, 0))?;
    send(lock.lock()?);
    Ok(())
}
