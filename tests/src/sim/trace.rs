//! The message-sequence trace of a run: its last lines, for a failure's report, or all of them on standard output.
//!
//! Lines are built only while somebody wants them; a failing seed is simply run again with a trace.

use dsm_core::{NodeId, Time};
use std::collections::VecDeque;
use std::io::Write;

/// Who wants the lines.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tracing {
    /// Nobody.
    Off,
    /// A failure's report: the last ones before it.
    Last {
        /// How many.
        lines: usize,
        /// When it failed.
        until: Time,
    },
    /// A reader, as they come.
    Echo,
}

/// The lines of one run.
pub struct Trace {
    wanted: Tracing,
    lines: VecDeque<String>,
}

/// Virtual time is shown in microseconds.
const NANOS_PER_MICRO: u64 = 1000;

impl Trace {
    /// No lines yet.
    #[must_use]
    pub fn new(wanted: Tracing) -> Trace {
        Trace { wanted, lines: VecDeque::new() }
    }

    /// Adds what happened at `node`, if somebody wants to know.
    pub fn note(&mut self, now: Time, node: NodeId, line: impl FnOnce() -> String) {
        if self.wanted == Tracing::Off {
            return;
        }
        let nanos = now.as_nanos();
        let text = format!(
            "{:>9}.{:03} us  n{}  {}",
            nanos / NANOS_PER_MICRO,
            nanos % NANOS_PER_MICRO,
            node.0,
            line()
        );
        match self.wanted {
            Tracing::Off => {}
            // Whoever closed the pipe has seen enough.
            Tracing::Echo => drop(writeln!(std::io::stdout(), "{text}")),
            Tracing::Last { until, .. } if now > until => {}
            Tracing::Last { lines: limit, .. } => {
                if self.lines.len() == limit {
                    self.lines.pop_front();
                }
                self.lines.push_back(text);
            }
        }
    }

    /// The lines that were kept.
    #[must_use]
    pub fn into_lines(self) -> Vec<String> {
        self.lines.into()
    }
}
