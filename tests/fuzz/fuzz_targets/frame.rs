//! Arbitrary bytes as a header, a frame's head and a control message.
#![no_main]

use dsm_tests::hostile::wire;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let measured = |work: &mut dyn FnMut()| allocation_counter::measure(work).bytes_total;
    if let Err(what) = wire::decode(bytes, measured) {
        panic!("{what}");
    }
});
