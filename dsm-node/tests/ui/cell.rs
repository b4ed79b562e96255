use dsm_node::Shared;

#[derive(Shared)]
#[repr(C)]
struct Holder {
    count: u64,
    field: std::cell::Cell<u8>,
}

fn main() {}
