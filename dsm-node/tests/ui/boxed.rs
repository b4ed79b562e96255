use dsm_node::Shared;

#[derive(Shared)]
#[repr(C)]
struct Holder {
    count: u64,
    field: Box<u8>,
}

fn main() {}
