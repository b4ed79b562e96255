//! A panic of the machine is a finding like any other: it becomes an error that says where it was.

use super::Check;
use std::cell::{Cell, RefCell};
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

thread_local! {
    static CATCHING: Cell<bool> = const { Cell::new(false) };
    static CAUGHT: RefCell<Option<String>> = const { RefCell::new(None) };
}

static HOOK: Once = Once::new();

/// Runs `work`; a panic in it is its error, and is not printed.
pub fn caught(work: impl FnOnce() -> Check) -> Check {
    HOOK.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if CATCHING.get() {
                CAUGHT.set(Some(info.to_string()));
            } else {
                before(info);
            }
        }));
    });
    CATCHING.set(true);
    let outcome = panic::catch_unwind(AssertUnwindSafe(work));
    CATCHING.set(false);
    outcome.unwrap_or_else(|_| {
        let what = CAUGHT.take().unwrap_or_else(|| "a panic without a message".to_owned());
        Err(what.replace('\n', " "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_that_says_where() {
        let what = caught(|| panic!("page {} is gone", 7)).expect_err("it panicked");
        assert!(what.contains("page 7 is gone") && what.contains("panics.rs"), "{what}");
        assert_eq!(caught(|| Ok(())), Ok(()));
    }
}
