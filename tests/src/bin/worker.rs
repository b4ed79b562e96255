//! One node of a multi-process test: runs the scenario that it is told by name. See `dsm_tests::worker`.

use std::process::ExitCode;

fn main() -> ExitCode {
    dsm_tests::worker::main()
}
