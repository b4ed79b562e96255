//! A small cluster in which one member says anything.
#![no_main]

use dsm_tests::hostile;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let measured = |work: &mut dyn FnMut()| allocation_counter::measure(work).bytes_total;
    if let Err(what) = hostile::run(bytes, measured) {
        panic!("{what}");
    }
});
