//! What nodes print: read by one thread per stream, handed on in whole lines, so that lines of several nodes do not
//! mix. A stream is read to its end whatever becomes of its lines, so that no node ever blocks on a full pipe.

use crate::error::{Error, Result};
use parking_lot::Mutex;
use std::convert::Infallible;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::process::{ChildStderr, ChildStdout};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

/// Longer lines are handed on in pieces: a node that never ends its line must not fill the launcher's memory.
const LINE_LENGTH_MAX: u64 = 64 << 10;

/// As much is captured of a stream. The rest is read and thrown away, and the capture says so.
const CAPTURE_LENGTH_MAX: usize = 16 << 20;

/// What a capture ends with that could not take everything.
const CAPTURE_CUT: &[u8] = b"\n[the rest was not captured]\n";

/// Where the output of the nodes goes.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Output {
    /// Where this process's output goes, as it is.
    Inherited,
    /// Where this process's output goes, each line after `[rank] `.
    Prefixed,
    /// Into memory: [`super::Cluster::captured`] while the nodes run, [`super::NodeOutcome`] afterwards.
    Captured,
    /// To a channel, line by line.
    Lines(Sender<Line>),
}

impl Output {
    pub(super) fn is_piped(&self) -> bool {
        match self {
            Output::Inherited => false,
            Output::Prefixed | Output::Captured | Output::Lines(_) => true,
        }
    }
}

/// One line of a node's output, without its end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Line {
    /// The node's rank.
    pub rank: u32,
    /// Which stream it came from.
    pub stream: Stream,
    /// The line; bytes that are not UTF-8 are replaced.
    pub text: String,
}

/// A standard stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

type Capture = Arc<Mutex<Vec<u8>>>;

/// Where one stream's lines go.
enum Sink {
    Prefixed,
    Captured(Capture),
    Lines(Sender<Line>),
}

/// The threads that read a cluster's streams, and what they captured.
pub(super) struct Readers {
    output: Output,
    /// Standard output and standard error by rank.
    captures: Vec<[Capture; 2]>,
    /// A clone is with each reading thread, so that the other end tells when all have ended.
    alive: Sender<Infallible>,
    ended: Receiver<Infallible>,
}

/// The far side of [`Readers`], when all streams are being read.
pub(super) struct Captures {
    captures: Vec<[Capture; 2]>,
    ended: Mutex<Receiver<Infallible>>,
}

impl Readers {
    pub fn new(output: &Output, nodes: u32) -> Readers {
        let (alive, ended) = channel();
        let captures = (0..nodes).map(|_| Default::default()).collect();
        Readers { output: output.clone(), captures, alive, ended }
    }

    /// Starts to read the streams of `rank` that are pipes.
    pub fn read(
        &mut self,
        rank: u32,
        stdout: Option<ChildStdout>,
        stderr: Option<ChildStderr>,
    ) -> Result<()> {
        if let Some(source) = stdout {
            self.start(rank, Stream::Stdout, source)?;
        }
        if let Some(source) = stderr {
            self.start(rank, Stream::Stderr, source)?;
        }
        Ok(())
    }

    /// All streams are being read.
    pub fn complete(self) -> Captures {
        Captures { captures: self.captures, ended: Mutex::new(self.ended) }
    }

    fn start(&self, rank: u32, stream: Stream, source: impl Read + Send + 'static) -> Result<()> {
        let sink = match &self.output {
            // An inherited stream is no pipe; were it one, showing its lines would be right as well.
            Output::Inherited | Output::Prefixed => Sink::Prefixed,
            Output::Captured => Sink::Captured(Arc::clone(capture_of(&self.captures[rank as usize], stream))),
            Output::Lines(lines) => Sink::Lines(lines.clone()),
        };
        let alive = self.alive.clone();
        thread::Builder::new()
            .name(format!("dsm-out-{rank}"))
            .spawn(move || {
                read_lines(rank, stream, source, &sink);
                drop(alive);
            })
            .map(|_| ())
            .map_err(|cause| Error::io("starting a thread that reads a node's output", cause))
    }
}

impl Captures {
    /// What `rank` has printed so far.
    pub fn text(&self, rank: u32, stream: Stream) -> String {
        let capture = self.captures.get(rank as usize).map(|both| capture_of(both, stream));
        capture.map_or_else(String::new, |bytes| String::from_utf8_lossy(&bytes.lock()).into_owned())
    }

    /// Waits until all streams have ended, for `patience` at most: a process that has left its node's group may hold
    /// one open for ever.
    pub fn wait(&self, patience: Duration) {
        match self.ended.lock().recv_timeout(patience) {
            Ok(never) => match never {},
            Err(RecvTimeoutError::Disconnected | RecvTimeoutError::Timeout) => {}
        }
    }
}

fn capture_of(both: &[Capture; 2], stream: Stream) -> &Capture {
    match stream {
        Stream::Stdout => &both[0],
        Stream::Stderr => &both[1],
    }
}

fn read_lines(rank: u32, stream: Stream, source: impl Read, sink: &Sink) {
    let mut source = BufReader::new(source);
    let mut line = Vec::new();
    // A stream that cannot be read has ended, as far as this thread can tell.
    while let Ok(1..) = (&mut source).take(LINE_LENGTH_MAX).read_until(b'\n', &mut line) {
        sink.take(rank, stream, &mut line);
        line.clear();
    }
}

impl Sink {
    fn take(&self, rank: u32, stream: Stream, line: &mut Vec<u8>) {
        match self {
            Sink::Prefixed => show(rank, stream, line),
            Sink::Captured(capture) => keep(&mut capture.lock(), line),
            Sink::Lines(lines) => {
                let text = String::from_utf8_lossy(line.strip_suffix(b"\n").unwrap_or(line)).into_owned();
                // Nobody listens any more: the stream is read to its end all the same.
                let _ = lines.send(Line { rank, stream, text });
            }
        }
    }
}

/// Prints a line after its prefix in one write. Output that nobody takes is dropped: the nodes go on.
fn show(rank: u32, stream: Stream, line: &mut Vec<u8>) {
    if line.last() != Some(&b'\n') {
        line.push(b'\n');
    }
    let mut text = format!("[{rank}] ").into_bytes();
    text.append(line);
    let _ = match stream {
        Stream::Stdout => write_whole(&mut io::stdout().lock(), &text),
        Stream::Stderr => write_whole(&mut io::stderr().lock(), &text),
    };
}

fn write_whole(to: &mut impl Write, text: &[u8]) -> io::Result<()> {
    to.write_all(text).and_then(|()| to.flush())
}

fn keep(capture: &mut Vec<u8>, line: &[u8]) {
    if capture.ends_with(CAPTURE_CUT) {
        return;
    }
    let fits = capture.len() + line.len() <= CAPTURE_LENGTH_MAX;
    capture.extend_from_slice(if fits { line } else { CAPTURE_CUT });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capture_is_bounded_and_says_so() {
        let mut capture = Vec::new();
        let line = vec![b'x'; 1 << 20];
        for _ in 0..40 {
            keep(&mut capture, &line);
        }
        assert!(capture.len() <= CAPTURE_LENGTH_MAX + CAPTURE_CUT.len());
        assert!(capture.ends_with(CAPTURE_CUT));
    }

    #[test]
    fn lines_without_end_come_in_pieces() {
        let (lines, taken) = channel();
        let text = vec![b'y'; LINE_LENGTH_MAX as usize + 3];
        read_lines(2, Stream::Stderr, text.as_slice(), &Sink::Lines(lines));
        let lengths: Vec<_> = taken.iter().map(|line| line.text.len()).collect();
        assert_eq!(lengths, [LINE_LENGTH_MAX as usize, 3]);
    }
}
