use dsm_node::Shared;

#[derive(Shared)]
#[shared(plain)]
#[repr(u8)]
enum Enumeration {
    One = 1,
}

#[derive(Shared)]
#[shared(plain)]
#[repr(C)]
struct OwnsAList {
    list: dsm_node::collections::DsmList<u8>,
}

#[derive(Shared)]
#[shared(plain)]
#[repr(C)]
struct Drops(u8);

impl Drop for Drops {
    fn drop(&mut self) {}
}

#[derive(Shared)]
#[shared(zero)]
#[repr(C)]
struct Misspelt(u8);

fn main() {}
