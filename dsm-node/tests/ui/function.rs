use dsm_node::Shared;

#[derive(Shared)]
#[repr(C)]
struct Holder {
    count: u64,
    field: fn(u8) -> u8,
}

fn main() {}
