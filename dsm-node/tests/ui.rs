//! Misuses that the compiler must reject, with what it says about each.

/// Each file in `tests/ui` has one misuse, and beside it what the compiler says. After a change of messages:
/// `TRYBUILD=overwrite cargo test -p dsm-node --test ui`.
#[test]
fn misuses_are_rejected_with_advice() {
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}
