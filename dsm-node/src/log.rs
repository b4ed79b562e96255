//! The node's own log lines, handed to another thread.
//!
//! A runtime thread must not take a lock that an application thread may hold while it faults: not the one of standard
//! error, and none that a `tracing` subscriber takes. So lines go through a bounded queue to a thread that may block;
//! when that thread is stuck, lines are dropped and counted, and the runtime goes on. Formatting and filtering are the
//! subscriber's business; without one, warnings and errors go to standard error.

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use dsm_core::NodeId;
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

/// Lines that wait for the log's thread. A burst of one line per peer and reason fits several times.
const QUEUE_MAX: usize = 1024;

/// What a line is worth.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Level {
    Info,
    Warning,
    Error,
}

enum Entry {
    Line(Level, String),
    /// Everything before this was emitted once the sender is dropped.
    Flush(Sender<()>),
}

/// Where log lines go: cheap to clone, never blocks.
#[derive(Clone)]
pub(crate) struct Logger {
    queue: Sender<Entry>,
    dropped: Arc<AtomicU64>,
    /// Keys of lines that are said once. Held for a look-up only, never while anything is emitted.
    said: Arc<Mutex<BTreeSet<(&'static str, u64)>>>,
}

impl Logger {
    /// A logger for the node `rank`, with its thread, which ends after the last clone is dropped.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(rank: NodeId) -> std::io::Result<Logger> {
        Logger::with_sink(move |level, text| emit(rank, level, text))
    }

    fn with_sink(sink: impl FnMut(Level, &str) + Send + 'static) -> std::io::Result<Logger> {
        let (queue, entries) = bounded(QUEUE_MAX);
        let dropped = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&dropped);
        thread::Builder::new()
            .name(String::from("dsm-log"))
            .spawn(move || run(&entries, &counted, sink))
            .map(|_| Logger { queue, dropped, said: Arc::default() })
    }

    /// Says what a curious user may want to know.
    pub fn info(&self, text: impl Into<String>) {
        self.push(Level::Info, text.into());
    }

    /// Says that something is not as it should be, though the node goes on.
    pub fn warn(&self, text: impl Into<String>) {
        self.push(Level::Warning, text.into());
    }

    /// Says that something failed.
    pub fn error(&self, text: impl Into<String>) {
        self.push(Level::Error, text.into());
    }

    /// Warns the first time that `key` and `number` (a peer's rank, say) come together; `text` is built only then.
    pub fn warn_once(&self, key: &'static str, number: u64, text: impl FnOnce() -> String) {
        if self.said.lock().insert((key, number)) {
            self.warn(text());
        }
    }

    /// Waits until everything said so far was emitted, for `patience` at most; whether it was. Not for the engine: the
    /// log's thread may be stuck behind an application thread that waits for it.
    pub fn flush(&self, patience: Duration) -> bool {
        let (sender, done) = bounded(0);
        match self.queue.send_timeout(Entry::Flush(sender), patience) {
            Ok(()) => done.recv_timeout(patience) == Err(crossbeam_channel::RecvTimeoutError::Disconnected),
            Err(_) => false,
        }
    }

    fn push(&self, level: Level, text: String) {
        match self.queue.try_send(Entry::Line(level, text)) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// The log's thread.
fn run(entries: &Receiver<Entry>, dropped: &AtomicU64, mut sink: impl FnMut(Level, &str)) {
    for entry in entries {
        match entry {
            Entry::Line(level, text) => sink(level, &text),
            Entry::Flush(done) => drop(done),
        }
        let lost = dropped.swap(0, Ordering::Relaxed);
        if lost > 0 {
            sink(
                Level::Warning,
                &format!("{lost} log lines were dropped: they came faster than they could be written"),
            );
        }
    }
}

/// Emits one line: to the program's subscriber, else to standard error what a user must see.
fn emit(rank: NodeId, level: Level, text: &str) {
    let rank = rank.rank();
    if tracing::dispatcher::has_been_set() {
        match level {
            Level::Info => tracing::info!(target: "dsm", rank, "{text}"),
            Level::Warning => tracing::warn!(target: "dsm", rank, "{text}"),
            Level::Error => tracing::error!(target: "dsm", rank, "{text}"),
        }
        return;
    }
    match level {
        Level::Info => {}
        // One write per line, so that lines of several nodes do not mix. A closed standard error loses the line: there
        // is nowhere left to say so.
        Level::Warning | Level::Error => {
            let _ = std::io::stderr().lock().write_all(format!("dsm[{rank}]: {text}\n").as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    #[test]
    fn lines_arrive_in_order_and_once() {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&lines);
        let logger = Logger::with_sink(move |level, text| seen.lock().push((level, text.to_owned())));
        let logger = logger.expect("a thread");
        logger.info("a");
        for _ in 0..3 {
            logger.warn_once("bad frame", 2, || String::from("b"));
        }
        logger.warn_once("bad frame", 3, || String::from("c"));
        logger.info("d");
        logger.error("e");
        assert!(logger.flush(PATIENCE));
        let lines = lines.lock();
        let texts: Vec<_> = lines.iter().map(|(_, text)| text.as_str()).collect();
        assert_eq!(texts, ["a", "b", "c", "d", "e"]);
        assert_eq!(lines[4].0, Level::Error);
    }

    #[test]
    fn a_stuck_sink_never_blocks_and_drops_are_counted() {
        let (open, gate) = bounded::<()>(0);
        let (stuck, is_stuck) = bounded::<()>(1);
        let lines = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&lines);
        let logger = Logger::with_sink(move |_, text| {
            let _ = stuck.try_send(());
            let _ = gate.recv();
            seen.lock().push(text.to_owned());
        });
        let logger = logger.expect("a thread");
        logger.warn("first");
        is_stuck.recv().expect("the sink has taken the first line");
        for _ in 0..QUEUE_MAX + 5 {
            logger.warn("more");
        }
        assert!(!logger.flush(Duration::from_millis(1)), "a stuck log does not hold its caller");
        drop(open);
        assert!(logger.flush(PATIENCE));
        let lines = lines.lock();
        assert!(lines.iter().any(|line| line.starts_with("5 log lines were dropped")), "{:?}", lines.get(1));
    }
}
