use dsm_node::Shared;

#[derive(Shared)]
#[repr(C)]
struct Holder {
    count: u64,
    field: dsm_node::DsmBox<'static, u8>,
}

fn main() {}
