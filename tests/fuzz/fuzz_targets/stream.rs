//! Streams of good frames that arrive in arbitrary pieces, then with one byte damaged.
#![no_main]

use dsm_tests::hostile::wire;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Err(what) = wire::stream(bytes) {
        panic!("{what}");
    }
});
