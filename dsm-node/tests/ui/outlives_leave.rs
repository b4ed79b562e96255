use dsm_node::{Dsm, Error};

fn main() -> Result<(), Error> {
    let dsm = Dsm::join()?;
    let owned = dsm.alloc(7_u64)?;
    dsm.leave()?;
    drop(owned);
    Ok(())
}
