//! Calling peers: for the first connection of a link, and for the next when one broke.
//!
//! Of two peers, the one with the higher rank calls, and the other waits; both give up after the same time.

use super::acceptor::{Bell, HANDSHAKE_PATIENCE};
use super::gate::{Gate, Incoming, Member, Notifier, RECONNECT_PATIENCE};
use super::handshake::{Answer, HandshakeError, Hello, Purpose, Refusal, Subject, VERSION, hear, tell};
use super::nemesis::Side;
use super::stream::{Stream, transport};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use dsm_core::{Incarnation, NodeId};
use parking_lot::Mutex;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

/// The pause after the first failed call; each further one doubles it.
const BACK_OFF_MIN: Duration = Duration::from_millis(10);

/// No pause is longer.
const BACK_OFF_MAX: Duration = Duration::from_millis(200);

/// A port that refused connections for so long has nobody behind it any more.
const REFUSED_PATIENCE: Duration = Duration::from_secs(1);

/// Why a call to a peer failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    /// Nobody listens there.
    #[error("nobody listens at its address")]
    NobodyThere,
    /// It may go better another time.
    #[error("{0}")]
    Failed(String),
    /// The other side does not want us.
    #[error("{0}")]
    Refused(Refusal),
}

/// Calls peers again whose links went down. Dropping it ends its calls.
pub(crate) struct Reconnector {
    shared: Option<Arc<Shared>>,
    /// Its other ends notice that it is gone.
    _stop: Sender<()>,
}

struct Shared {
    gate: Arc<Gate>,
    notifier: Notifier,
    bell: Arc<Bell>,
    stopped: Receiver<()>,
    /// Peers that are being called, and which process of each: a call to one that is gone may take its time.
    calling: Mutex<Vec<(NodeId, Incarnation)>>,
}

impl Reconnector {
    /// One that has nobody to call.
    pub(super) fn idle() -> Reconnector {
        Reconnector { shared: None, _stop: bounded(0).0 }
    }

    pub(super) fn new(gate: Arc<Gate>, notifier: Notifier, bell: Arc<Bell>) -> Reconnector {
        let (stop, stopped) = bounded(0);
        let calling = Mutex::new(Vec::new());
        Reconnector { shared: Some(Arc::new(Shared { gate, notifier, bell, stopped, calling })), _stop: stop }
    }

    /// The link to the process `life` of `peer` is down: call it, or wait for its call. The answer is one [`Incoming::Reconnected`] or
    /// [`Incoming::PeerUnreachable`], within bounded time.
    pub fn begin(&self, peer: NodeId, life: Incarnation) {
        let Some(shared) = &self.shared else { return };
        if shared.gate.rank < peer {
            shared.gate.await_call(peer, life, Instant::now() + RECONNECT_PATIENCE);
            shared.bell.ring();
            return;
        }
        let mut calling = shared.calling.lock();
        if calling.contains(&(peer, life)) {
            return;
        }
        calling.push((peer, life));
        drop(calling);
        let caller = Arc::clone(shared);
        let spawned = std::thread::Builder::new()
            .name(format!("dsm-call-{}", peer.0))
            .spawn(move || caller.call_until_answered(peer, life));
        if let Err(error) = spawned {
            shared.report(peer, life, Err(format!("starting a thread: {error}")));
        }
    }

    /// The cluster has these members now: who else calls is told so, and nobody else is called.
    pub fn install(&self, members: impl Iterator<Item = (NodeId, Incarnation)>) {
        if let Some(shared) = &self.shared {
            shared.gate.install(members);
        }
    }

    /// The link to `peer` is a new one, whose frames `received` counts.
    pub fn count_in(&self, peer: NodeId, received: Arc<AtomicU64>) {
        if let Some(shared) = &self.shared {
            shared.gate.count_in(peer, received);
        }
    }

    /// Whether nobody is being called, or is to call.
    #[cfg(test)]
    pub fn is_idle(&self) -> bool {
        let is_idle =
            |shared: &Arc<Shared>| shared.calling.lock().is_empty() && shared.gate.next_overdue().is_none();
        self.shared.as_ref().is_none_or(is_idle)
    }

    /// `peer` is connected again: its call is not awaited any more. It may have come before it was begun to be awaited,
    /// and what would then be overdue later would be taken for the next.
    pub fn end(&self, peer: NodeId) {
        if let Some(shared) = &self.shared {
            shared.gate.note_call(peer);
        }
    }
}

impl Shared {
    fn call_until_answered(&self, peer: NodeId, life: Incarnation) {
        let known = self.gate.member(peer).filter(|(_, member)| member.incarnation == life);
        let Some((cluster, member)) = known else {
            return self.report(peer, life, Err("it is not a member".to_owned()));
        };
        let began = Instant::now();
        let mut pause = BACK_OFF_MIN;
        let outcome = loop {
            let left = RECONNECT_PATIENCE.saturating_sub(began.elapsed());
            let purpose = Purpose::Link { cluster, received_through: self.gate.received_through(peer) };
            let hello = hello(&self.gate, purpose, String::new());
            let cause = match call(&hello, peer, &member, left.min(HANDSHAKE_PATIENCE)) {
                Ok(connected) => break Ok(connected),
                Err(refused @ CallError::Refused(_)) => break Err(refused.to_string()),
                Err(CallError::NobodyThere) if began.elapsed() >= REFUSED_PATIENCE => {
                    break Err(CallError::NobodyThere.to_string());
                }
                Err(cause @ (CallError::NobodyThere | CallError::Failed(_))) => cause,
            };
            if began.elapsed() + pause >= RECONNECT_PATIENCE {
                break Err(cause.to_string());
            }
            match self.stopped.recv_timeout(pause) {
                Err(RecvTimeoutError::Timeout) => pause = (pause * 2).min(BACK_OFF_MAX),
                Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
            }
        };
        self.report(peer, life, outcome);
    }

    fn report(&self, peer: NodeId, life: Incarnation, outcome: Result<(Stream, u64), String>) {
        // First this, then the report: once it is read, the next call may have to begin.
        self.calling.lock().retain(|called| *called != (peer, life));
        self.notifier.tell(match outcome {
            Ok((stream, received_through)) => Incoming::Reconnected { peer, life, stream, received_through },
            Err(cause) => Incoming::PeerUnreachable { peer, life, cause },
        });
    }
}

/// What this node says when it calls. `listen` is empty where the other knows it.
pub(super) fn hello(gate: &Gate, purpose: Purpose, listen: String) -> Hello {
    Hello {
        rank: gate.rank,
        incarnation: gate.incarnation,
        purpose,
        listen,
        habitat: gate.habitat,
        terms: gate.terms.clone(),
    }
}

/// Calls `peer` once: the connection, and the last frame that the peer has from us.
pub(super) fn call(
    hello: &Hello,
    peer: NodeId,
    member: &Member,
    patience: Duration,
) -> Result<(Stream, u64), CallError> {
    let deadline = Instant::now() + patience;
    let mut stream = transport(member.endpoint.kind())
        .connect(&member.endpoint, patience)
        .map_err(|error| classify(&member.endpoint.to_string(), &error))?;
    stream.identify(hello.rank, peer, Side::Caller);
    let failed = |error| describe(peer, error);
    tell(&stream, hello.rank, hello, deadline).map_err(failed)?;
    match hear::<Answer>(&stream, deadline).map_err(failed)? {
        Answer::Refused(refusal) => Err(CallError::Refused(refusal)),
        Answer::Welcome { incarnation, received_through } if incarnation == member.incarnation => {
            Ok((stream, received_through))
        }
        Answer::Welcome { incarnation, .. } => Err(CallError::Refused(Refusal::Stale {
            rank: peer,
            known: member.incarnation,
            found: incarnation,
        })),
    }
}

/// The pauses between calls, for those who call in their own thread.
pub(super) fn back_off() -> impl Iterator<Item = Duration> {
    std::iter::successors(Some(BACK_OFF_MIN), |pause| Some((*pause * 2).min(BACK_OFF_MAX)))
}

fn classify(address: &str, error: &io::Error) -> CallError {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => CallError::NobodyThere,
        _ => CallError::Failed(format!("connecting to {address}: {error}")),
    }
}

fn describe(peer: NodeId, error: HandshakeError) -> CallError {
    match error {
        HandshakeError::Version { version, .. } => CallError::Refused(Refusal::Mismatch {
            subject: Subject::Version,
            by: peer,
            caller: VERSION.to_string(),
            answerer: version.to_string(),
        }),
        other @ (HandshakeError::Garbage(_) | HandshakeError::Io(_)) => CallError::Failed(other.to_string()),
    }
}
