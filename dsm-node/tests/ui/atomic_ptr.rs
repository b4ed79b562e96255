use dsm_node::Shared;

#[derive(Shared)]
#[repr(C)]
struct Holder {
    count: u64,
    field: std::sync::atomic::AtomicPtr<u8>,
}

fn main() {}
