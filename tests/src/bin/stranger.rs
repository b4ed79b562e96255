//! A program that has a type of the worker's name, but not of its layout: no cluster holds both.

use dsm_node::{Dsm, Error, Shared};

/// As `Guarded` of the worker, but for everything that matters.
#[derive(Shared)]
#[repr(C)]
struct Guarded {
    first: u32,
}

fn main() -> Result<(), Error> {
    let dsm = Dsm::join().inspect_err(|error| println!("error={error}"))?;
    dsm.root("guarded", |_| Ok(Guarded { first: 0 }))?;
    dsm.leave()
}
