use dsm_node::Shared;

#[derive(Shared)]
#[repr(C)]
struct Holder {
    count: u64,
    field: dsm_node::DsmRef<dyn Send>,
}

fn main() {}
