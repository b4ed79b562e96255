use dsm_node::{Dsm, Error};

fn main() -> Result<(), Error> {
    let dsm = Dsm::join()?;
    dsm.root("vec", |_| Ok(vec![1_u8]))?;
    Ok(())
}
