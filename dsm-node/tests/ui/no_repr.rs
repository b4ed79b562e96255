use dsm_node::Shared;

#[derive(Shared)]
struct Structure {
    count: u64,
}

#[derive(Shared)]
enum Enumeration {
    One,
    Two,
}

#[derive(Shared)]
#[repr(C)]
union Union {
    a: u8,
    b: u8,
}

#[derive(Shared)]
#[repr(C)]
struct Borrowing<'a> {
    text: &'a u8,
}

fn main() {}
