//! Carrying out what failpoints say, for tests that need a node to die at a particular place. What a failpoint is and
//! which there are: `dsm_core::failpoint`. They are read from the environment once; a node without them pays one look at
//! an empty list per message.

use super::Engine;
use crate::error::{Error, Result};
use dsm_core::failpoint::{Deed, Failpoints, Moment};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The variable that has them.
const VARIABLE: &str = "DSM_FAILPOINTS";

/// The failpoints that the environment asks for.
pub(super) fn from_environment() -> Result<Failpoints> {
    match std::env::var(VARIABLE) {
        Ok(text) => text.parse().map_err(|error| Error::Config(format!("{VARIABLE}: {error}"))),
        Err(_) => Ok(Failpoints::default()),
    }
}

impl Engine {
    /// Does what is to be done where this node is at. Whether the message that it is about is to be lost.
    pub(super) fn pass(&mut self, moment: Moment, name: &str) -> bool {
        if self.failpoints.is_empty() {
            return false;
        }
        match self.failpoints.hit(moment, name) {
            None => false,
            Some(Deed::Drop) => true,
            Some(Deed::Delay(span)) => {
                std::thread::sleep(span);
                false
            }
            Some(Deed::Panic) => panic!("a failpoint at {name} asks for it"),
            Some(Deed::Kill) => {
                // A signal to oneself cannot fail, and this one leaves nothing to go on.
                let _ = kill(Pid::this(), Signal::SIGKILL);
                true
            }
            Some(Deed::Stop) => {
                // As above, but somebody may let this process go on.
                let _ = kill(Pid::this(), Signal::SIGSTOP);
                false
            }
        }
    }
}
