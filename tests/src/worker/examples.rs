//! The example programs, as they are, on as many nodes as the test starts.

use super::{Arguments, Outcome, Scenario, expect_panics};

pub(super) const SCENARIOS: &[(&str, Scenario)] = &[("example_first", first), ("example_threads", threads)];

mod first_program {
    include!("../../../dsm-node/examples/first.rs");

    pub(super) fn run() -> Result<(), Error> {
        main()
    }
}

mod threads_program {
    include!("../../../dsm-node/examples/threads.rs");

    pub(super) fn run() -> Result<(), Error> {
        main()
    }
}

fn first(_: &Arguments) -> Outcome {
    first_program::run()
}

/// It panics in a section, to show what comes of that.
fn threads(_: &Arguments) -> Outcome {
    expect_panics();
    threads_program::run()
}
