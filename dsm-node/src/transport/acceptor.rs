//! The thread that answers whoever calls, from the forming of the cluster to this node's end.
//!
//! It accepts connections, hears what they say, asks the gate, and hands on those that come in. A caller gets little
//! time and little memory, and only so many are heard at once: of more, the one that has said too little for longest
//! gives way. A node says who it is with its first bytes, so silent strangers cannot keep one out. A caller that does
//! not come in leaves no trace but a report.

use super::gate::{Gate, Incoming, Joiner, Notifier, RECONNECT_PATIENCE, Verdict};
use super::handshake::{Answer, HandshakeError, Hello, Outcome, PREFIX_LENGTH, Prefix, Refusal, tell};
use super::nemesis::Side;
use super::stream::{Listener, Stream, poll_timeout, would_block};
use crate::error::Error;
use dsm_core::NodeId;
use dsm_core::limits::NODES_MAX;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A caller has so long to say who it is.
pub(super) const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(2);

/// So many callers are heard at once: a full cluster that comes at once, and as many strangers.
pub(super) const CALLERS_MAX: usize = 2 * NODES_MAX;

/// An answer is short and the connection new, so the socket takes it at once; a caller that arranged for it not to
/// holds the thread up for no longer than this.
const ANSWER_PATIENCE: Duration = Duration::from_millis(100);

/// After an error in accepting, such as too many open files, nothing is accepted for so long.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The acceptor. Dropping it ends its thread and closes its listeners.
pub(crate) struct Acceptor {
    bell: Arc<Bell>,
    thread: Option<JoinHandle<()>>,
}

/// Wakes the thread.
pub(super) struct Bell {
    stop: AtomicBool,
    wake: EventFd,
}

impl Bell {
    /// Makes the thread look at its deadlines again.
    pub fn ring(&self) {
        // It fails only if the counter is full, and then the thread is awake.
        let _ = self.wake.write(1);
    }
}

impl Acceptor {
    /// Starts the thread.
    pub(super) fn start(
        gate: Arc<Gate>,
        notifier: Notifier,
        listeners: Vec<Listener>,
    ) -> Result<Acceptor, Error> {
        let wake = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
            .map_err(|errno| Error::io("creating the acceptor's eventfd", errno))?;
        let bell = Arc::new(Bell { stop: AtomicBool::new(false), wake });
        let worker = Worker {
            gate,
            notifier,
            listeners,
            bell: Arc::clone(&bell),
            callers: Vec::new(),
            paused_until: None,
        };
        let thread = std::thread::Builder::new()
            .name("dsm-acceptor".to_owned())
            .spawn(move || worker.run())
            .map_err(|error| Error::io("starting the acceptor's thread", error))?;
        Ok(Acceptor { bell, thread: Some(thread) })
    }

    /// For those who change what the thread waits for.
    pub(super) fn bell(&self) -> Arc<Bell> {
        Arc::clone(&self.bell)
    }
}

impl Drop for Acceptor {
    fn drop(&mut self) {
        self.bell.stop.store(true, Ordering::Release);
        self.bell.ring();
        if let Some(thread) = self.thread.take() {
            // The thread's own panic has been reported by the panic hook; there is nothing to add.
            let _ = thread.join();
        }
    }
}

/// Somebody who has not said everything yet.
struct Caller {
    stream: Stream,
    said: Vec<u8>,
    until: Instant,
}

/// What a caller has turned out to be.
enum Heard {
    /// Not all has come.
    More,
    /// It said who it is.
    Hello(Box<Hello>),
    /// It speaks another version.
    Version { rank: NodeId, version: u16 },
    /// It does not speak the protocol, or fell silent.
    Garbage(String),
}

struct Worker {
    gate: Arc<Gate>,
    notifier: Notifier,
    listeners: Vec<Listener>,
    bell: Arc<Bell>,
    callers: Vec<Caller>,
    paused_until: Option<Instant>,
}

impl Worker {
    fn run(mut self) {
        while !self.bell.stop.load(Ordering::Acquire) {
            self.wait();
            let now = Instant::now();
            self.paused_until = self.paused_until.filter(|until| *until > now);
            self.hear_all(now);
            self.accept_all(now);
            for (peer, life) in self.gate.take_overdue(now) {
                let cause = format!("it did not call again within {RECONNECT_PATIENCE:?}");
                self.notifier.tell(Incoming::PeerUnreachable { peer, life, cause });
            }
        }
    }

    fn wait(&self) {
        let deadlines = self.callers.iter().map(|caller| caller.until);
        let first = deadlines.chain(self.paused_until).chain(self.gate.next_overdue()).min();
        let timeout =
            first.map_or(PollTimeout::NONE, |at| poll_timeout(at.saturating_duration_since(Instant::now())));
        let mut polled = vec![PollFd::new(self.bell.wake.as_fd(), PollFlags::POLLIN)];
        polled
            .extend(self.callers.iter().map(|caller| PollFd::new(caller.stream.as_fd(), PollFlags::POLLIN)));
        if self.paused_until.is_none() {
            polled.extend(self.listeners.iter().map(|it| PollFd::new(it.as_fd(), PollFlags::POLLIN)));
        }
        match poll(&mut polled, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            // All descriptors are ours and open, so what is left is a lack of kernel memory: it may pass.
            Err(_) => std::thread::sleep(ACCEPT_PAUSE),
        }
        // EAGAIN means that nobody rang.
        let _ = self.bell.wake.read();
    }

    fn accept_all(&mut self, now: Instant) {
        if self.paused_until.is_some() {
            return;
        }
        for at in 0..self.listeners.len() {
            // Not more at a time, so that a flood does not keep those who were accepted before from being heard.
            for _ in 0..CALLERS_MAX {
                match self.listeners[at].accept() {
                    Ok(Some(stream)) => {
                        let until = now + HANDSHAKE_PATIENCE;
                        self.hear(Caller { stream, said: Vec::new(), until }, now);
                    }
                    Ok(None) => break,
                    Err(error) if is_callers_fault(&error) => {}
                    Err(error) => {
                        self.paused_until = Some(now + ACCEPT_PAUSE);
                        let cause = format!("accepting failed: {error}");
                        return self.notifier.tell(Incoming::Garbage { cause });
                    }
                }
            }
        }
    }

    fn hear_all(&mut self, now: Instant) {
        for caller in std::mem::take(&mut self.callers) {
            self.hear(caller, now);
        }
    }

    fn hear(&mut self, mut caller: Caller, now: Instant) {
        match caller.hear(now) {
            Heard::More => {
                if self.callers.len() == CALLERS_MAX {
                    let said = self.callers.remove(0).said.len();
                    let cause = format!("it had said {said} bytes when too many others called");
                    self.notifier.tell(Incoming::Garbage { cause });
                }
                self.callers.push(caller);
            }
            Heard::Hello(hello) => self.admit(caller.stream, hello),
            Heard::Version { rank, version } => self.turn_away_version(&caller.stream, rank, version),
            Heard::Garbage(cause) => self.notifier.tell(Incoming::Garbage { cause }),
        }
    }

    fn admit(&self, mut stream: Stream, hello: Box<Hello>) {
        match self.gate.judge(&hello) {
            Verdict::Join(joins) => {
                // It fails where forming has just ended; the caller sees its connection closed.
                let _ = joins.send(Joiner::Caller { stream, hello });
            }
            Verdict::Inform(running) => {
                let welcome = Answer::Welcome { incarnation: self.gate.incarnation, received_through: 0 };
                // A caller that is gone already need not know.
                let _ = self.answer(&stream, &welcome).and_then(|()| {
                    tell(&stream, self.gate.rank, &Outcome::Runs(running), Instant::now() + ANSWER_PATIENCE)
                });
            }
            Verdict::Enter(member) => {
                stream.identify(self.gate.rank, hello.rank, Side::Answerer);
                let welcome = Answer::Welcome { incarnation: self.gate.incarnation, received_through: 0 };
                if self.answer(&stream, &welcome).is_ok() {
                    self.notifier.tell(Incoming::Entered { peer: hello.rank, stream, member });
                }
            }
            Verdict::Welcome { peer_received_through, received_through } => {
                stream.identify(self.gate.rank, hello.rank, Side::Answerer);
                let answer = Answer::Welcome { incarnation: self.gate.incarnation, received_through };
                if self.answer(&stream, &answer).is_ok() {
                    self.gate.note_call(hello.rank);
                    self.notifier.tell(Incoming::Reconnected {
                        peer: hello.rank,
                        life: hello.incarnation,
                        stream,
                        received_through: peer_received_through,
                    });
                }
            }
            Verdict::Refuse(refusal) => {
                self.turn_away(&stream, &refusal);
                let incarnation = Some(hello.incarnation);
                self.notifier.tell(Incoming::Refused { rank: hello.rank, incarnation, refusal });
            }
        }
    }

    fn turn_away_version(&self, stream: &Stream, rank: NodeId, version: u16) {
        let (refusal, joins) = self.gate.refuse_version(rank, version);
        self.turn_away(stream, &refusal);
        match joins {
            // It fails where forming has just ended, and then it is too late to matter.
            Some(joins) => drop(joins.send(Joiner::OtherVersion { rank, refusal })),
            None => self.notifier.tell(Incoming::Refused { rank, incarnation: None, refusal }),
        }
    }

    fn turn_away(&self, stream: &Stream, refusal: &Refusal) {
        // A caller that is gone already needs no answer.
        let _ = self.answer(stream, &Answer::Refused(refusal.clone()));
    }

    fn answer(&self, stream: &Stream, answer: &Answer) -> Result<(), HandshakeError> {
        tell(stream, self.gate.rank, answer, Instant::now() + ANSWER_PATIENCE)
    }
}

impl Caller {
    /// Hears what has come.
    fn hear(&mut self, now: Instant) -> Heard {
        loop {
            let missing = match self.missing() {
                Ok(0) => return self.finish(),
                Ok(missing) => missing,
                Err(cause) => return Heard::Garbage(cause.to_string()),
            };
            let before = self.said.len();
            self.said.resize(before + missing, 0);
            let came = self.stream.receive(&mut self.said[before..]);
            self.said.truncate(before + came.as_ref().copied().unwrap_or(0));
            match came {
                Ok(0) => return Heard::Garbage(format!("it hung up after {before} bytes")),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if would_block(&error) && now < self.until => return Heard::More,
                Err(error) if would_block(&error) => {
                    return Heard::Garbage(format!("it fell silent after {before} bytes"));
                }
                Err(error) => return Heard::Garbage(error.to_string()),
            }
            if now >= self.until {
                return Heard::Garbage("it took too long".to_owned());
            }
        }
    }

    /// How many bytes are to come before the next decision. The first is about the prefix: nothing that it claims is
    /// believed before it is checked.
    fn missing(&self) -> Result<usize, HandshakeError> {
        match self.said.first_chunk::<PREFIX_LENGTH>() {
            None => Ok(PREFIX_LENGTH - self.said.len()),
            Some(prefix) => Ok(PREFIX_LENGTH + Prefix::decode(prefix)?.length - self.said.len()),
        }
    }

    fn finish(&self) -> Heard {
        let Some((prefix, body)) = self.said.split_first_chunk::<PREFIX_LENGTH>() else {
            return Heard::More;
        };
        let opened = Prefix::decode(prefix).and_then(|prefix| {
            let hello = prefix.open::<Hello>(body)?;
            if hello.rank != prefix.rank {
                return Err(HandshakeError::Garbage("it names two ranks".to_owned()));
            }
            Ok(hello)
        });
        match opened {
            Ok(hello) => Heard::Hello(Box::new(hello)),
            Err(HandshakeError::Version { rank, version }) => Heard::Version { rank, version },
            Err(other @ (HandshakeError::Garbage(_) | HandshakeError::Io(_))) => {
                Heard::Garbage(other.to_string())
            }
        }
    }
}

/// Whether accepting failed because of the one connection that it would have accepted.
fn is_callers_fault(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted)
}
