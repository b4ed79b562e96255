//! [`ConfigStore`] by the crate `omnipaxos`: its Sequence Paxos, with a log that holds one entry.
//!
//! Its own leader election is left out: it exchanges messages between all voters at all times, and takes several rounds
//! before it leads to anything. Here nothing is sent while nobody wants a change, and whoever wants one leads at once; that
//! two do not lead against each other for long is `turns`' business.
//!
//! The engine expects messages of one voter in the order in which they were sent, each at most once: an old `AcceptSync`
//! that came twice could take back what was accepted. So messages are numbered, and what does not come in order is lost.

use crate::ids::{NodeId, ViewId};
use crate::limits::NODES_MAX;
use crate::membership::change::{Change, JOINED_MAX};
use crate::membership::store::ConfigStore;
use crate::membership::voters::{VoterId, Voters};
use omnipaxos::ballot_leader_election::Ballot;
use omnipaxos::messages::Message;
use omnipaxos::messages::sequence_paxos::{PaxosMessage, PaxosMsg};
use omnipaxos::storage::{Entry, NoSnapshot, StopSign, Storage, StorageOp, StorageResult};
use omnipaxos::util::{LogEntry, LogSync};
use omnipaxos::{ClusterConfig, OmniPaxos, ServerConfig};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One voter's part in the agreement on one view's successor.
pub struct OmniStore {
    me: VoterId,
    voters: Voters,
    engine: Engine,
    /// What this voter would like to be decided.
    wish: Option<Change>,
    /// How many messages went to each voter.
    sent: BTreeMap<VoterId, u64>,
    /// The number of each voter's latest message.
    received: BTreeMap<VoterId, u64>,
}

/// A message of the engine, with its number among those from this sender to this receiver.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OmniMessage {
    number: u64,
    content: PaxosMsg<Change>,
}

enum Engine {
    /// Who votes alone has decided when it wants to. (The engine wants two voters at least.)
    Alone(Option<Change>),
    Many(Box<OmniPaxos<Change, Volatile>>),
}

/// The engine's log never grows beyond this: the first entry is the decision.
const LOG_LENGTH_MAX: usize = 1;

/// The engine's queue of messages: a few per voter. (Its default allocates megabytes.)
const QUEUE_LENGTH: usize = 4 * (NODES_MAX + 1);

/// Never, in ticks.
const NEVER: u64 = u64::MAX;

impl ConfigStore for OmniStore {
    type Message = OmniMessage;

    fn new(view: ViewId, me: VoterId, voters: Voters) -> OmniStore {
        let engine = if voters.len() == 1 { Engine::Alone(None) } else { engine(view, me, voters) };
        OmniStore { me, voters, engine, wish: None, sent: BTreeMap::new(), received: BTreeMap::new() }
    }

    fn lead(&mut self, change: Option<Change>) {
        self.wish = change;
        match &mut self.engine {
            Engine::Alone(decided) => *decided = decided.take().or_else(|| self.wish.take()),
            Engine::Many(paxos) => {
                paxos.try_become_leader();
                self.append();
            }
        }
    }

    fn receive(&mut self, from: VoterId, message: OmniMessage) -> bool {
        let OmniMessage { number, content } = message;
        if from == self.me || !self.voters.contains(from) || !sound(from, self.me, &content) {
            return false;
        }
        let latest = self.received.entry(from).or_default();
        // What comes twice or too late is lost, which the engine can do with.
        if number <= *latest {
            return true;
        }
        *latest = number;
        if let Engine::Many(paxos) = &mut self.engine {
            let message = PaxosMessage { from: pid(from), to: pid(self.me), msg: content };
            paxos.handle_incoming(Message::SequencePaxos(message));
            self.append();
        }
        true
    }

    fn repeat(&mut self) {
        if let Engine::Many(paxos) = &mut self.engine {
            paxos.tick();
        }
    }

    fn drain(&mut self) -> Vec<(VoterId, OmniMessage)> {
        let Engine::Many(paxos) = &mut self.engine else { return Vec::new() };
        let mut messages = Vec::new();
        paxos.take_outgoing_messages(&mut messages);
        let mut numbered = Vec::with_capacity(messages.len());
        for message in messages {
            // The engine's election sends one round of requests at its start; nobody is to answer them.
            let Message::SequencePaxos(message) = message else { continue };
            let Some(to) = voter(message.to).filter(|to| self.voters.contains(*to)) else { continue };
            let number = self.sent.entry(to).or_default();
            *number += 1;
            numbered.push((to, OmniMessage { number: *number, content: message.msg }));
        }
        numbered
    }

    fn accepted(&self) -> bool {
        match &self.engine {
            Engine::Alone(decided) => decided.is_some(),
            Engine::Many(paxos) => paxos.get_accepted_idx() > 0,
        }
    }

    fn decided(&self) -> Option<Change> {
        match &self.engine {
            Engine::Alone(decided) => decided.clone(),
            Engine::Many(paxos) if paxos.get_decided_idx() == 0 => None,
            Engine::Many(paxos) => match paxos.read(0) {
                Some(LogEntry::Decided(change)) => Some(change),
                Some(
                    LogEntry::Undecided(_)
                    | LogEntry::Trimmed(_)
                    | LogEntry::Snapshotted(_)
                    | LogEntry::StopSign(..),
                )
                | None => None,
            },
        }
    }
}

impl OmniStore {
    /// A leader whose followers promised, and found nothing accepted before, proposes its wish.
    fn append(&mut self) {
        let Engine::Many(paxos) = &mut self.engine else { return };
        let leads = paxos.get_current_leader() == Some((pid(self.me), true));
        if leads
            && paxos.get_accepted_idx() == 0
            && let Some(change) = self.wish.take()
        {
            // It refuses only entries behind a stop sign, which nobody appends.
            drop(paxos.append(change));
        }
    }
}

fn engine(view: ViewId, me: VoterId, voters: Voters) -> Engine {
    // The engine only compares the number for equality, and never across views.
    let configuration_id = u32::try_from(view.0).unwrap_or(u32::MAX).max(1);
    let cluster =
        ClusterConfig { configuration_id, nodes: voters.iter().map(pid).collect(), flexible_quorum: None };
    let server = ServerConfig {
        pid: pid(me),
        election_tick_timeout: NEVER,
        resend_message_tick_timeout: 1,
        buffer_size: QUEUE_LENGTH,
        batch_size: 1,
        flush_batch_tick_timeout: NEVER,
        ..ServerConfig::default()
    };
    let paxos = cluster.build_for_server(server, Volatile::default());
    Engine::Many(Box::new(paxos.expect("there are two voters or more, and this one is among them")))
}

/// The engine's name of a voter: from 1.
fn pid(voter: VoterId) -> u64 {
    match voter {
        VoterId::Node(node) => u64::from(node.0) + 1,
        VoterId::Witness => NODES_MAX as u64 + 1,
    }
}

fn voter(pid: u64) -> Option<VoterId> {
    if pid == NODES_MAX as u64 + 1 {
        return Some(VoterId::Witness);
    }
    let rank = u16::try_from(pid.checked_sub(1)?).ok()?;
    Some(VoterId::Node(NodeId(rank)))
}

/// Whether a correct voter may say this. The engine indexes tables by what messages name.
fn sound(from: VoterId, me: VoterId, message: &PaxosMsg<Change>) -> bool {
    let by = |ballot: &Ballot, voter| ballot.pid == pid(voter);
    match message {
        PaxosMsg::PrepareReq(_) | PaxosMsg::NotAccepted(_) => true,
        PaxosMsg::Prepare(it) => by(&it.n, from) && it.accepted_idx <= LOG_LENGTH_MAX,
        PaxosMsg::Promise(it) => {
            by(&it.n, me)
                && it.accepted_idx <= LOG_LENGTH_MAX
                && it.decided_idx <= it.accepted_idx
                && it.log_sync.as_ref().is_none_or(short)
        }
        PaxosMsg::AcceptSync(it) => {
            by(&it.n, from) && it.decided_idx <= LOG_LENGTH_MAX && short(&it.log_sync)
        }
        PaxosMsg::AcceptDecide(it) => by(&it.n, from) && bounded(&it.entries),
        PaxosMsg::Accepted(it) => by(&it.n, me) && it.accepted_idx <= LOG_LENGTH_MAX,
        PaxosMsg::Decide(it) => by(&it.n, from) && it.decided_idx <= LOG_LENGTH_MAX,
        // None of these is ever sent: proposals are not forwarded, logs not compacted, engines not reconfigured.
        PaxosMsg::ProposalForward(_)
        | PaxosMsg::Compaction(_)
        | PaxosMsg::AcceptStopSign(_)
        | PaxosMsg::ForwardStopSign(_) => false,
    }
}

fn short(log: &LogSync<Change>) -> bool {
    log.decided_snapshot.is_none()
        && log.stopsign.is_none()
        && log.sync_idx <= LOG_LENGTH_MAX
        && bounded(&log.suffix)
}

fn bounded(entries: &[Change]) -> bool {
    entries.len() <= LOG_LENGTH_MAX && entries.iter().all(|change| change.joined.len() <= JOINED_MAX)
}

impl Entry for Change {
    type Snapshot = NoSnapshot;
}

/// What the engine stores. It lives as long as the process: see [`ConfigStore`].
#[derive(Clone, Debug, Default)]
struct Volatile {
    log: Vec<Change>,
    promise: Option<Ballot>,
    accepted: Option<Ballot>,
    decided: usize,
    stop_sign: Option<StopSign>,
}

impl Storage<Change> for Volatile {
    fn write_atomically(&mut self, operations: Vec<StorageOp<Change>>) -> StorageResult<()> {
        for operation in operations {
            match operation {
                StorageOp::AppendEntry(entry) => self.append_entry(entry)?,
                StorageOp::AppendEntries(entries) => self.append_entries(entries)?,
                StorageOp::AppendOnPrefix(from, entries) => self.append_on_prefix(from, entries)?,
                StorageOp::SetPromise(ballot) => self.set_promise(ballot)?,
                StorageOp::SetDecidedIndex(index) => self.set_decided_idx(index)?,
                StorageOp::SetAcceptedRound(ballot) => self.set_accepted_round(ballot)?,
                StorageOp::SetCompactedIdx(index) => self.set_compacted_idx(index)?,
                StorageOp::Trim(index) => self.trim(index)?,
                StorageOp::SetStopsign(sign) => self.set_stopsign(sign)?,
                StorageOp::SetSnapshot(snapshot) => self.set_snapshot(snapshot)?,
            }
        }
        Ok(())
    }

    fn append_entry(&mut self, entry: Change) -> StorageResult<()> {
        self.log.push(entry);
        Ok(())
    }

    fn append_entries(&mut self, entries: Vec<Change>) -> StorageResult<()> {
        self.log.extend(entries);
        Ok(())
    }

    fn append_on_prefix(&mut self, from_index: usize, entries: Vec<Change>) -> StorageResult<()> {
        self.log.truncate(from_index);
        self.append_entries(entries)
    }

    fn set_promise(&mut self, ballot: Ballot) -> StorageResult<()> {
        self.promise = Some(ballot);
        Ok(())
    }

    fn set_decided_idx(&mut self, index: usize) -> StorageResult<()> {
        self.decided = index;
        Ok(())
    }

    fn get_decided_idx(&self) -> StorageResult<usize> {
        Ok(self.decided)
    }

    fn set_accepted_round(&mut self, ballot: Ballot) -> StorageResult<()> {
        self.accepted = Some(ballot);
        Ok(())
    }

    fn get_accepted_round(&self) -> StorageResult<Option<Ballot>> {
        Ok(self.accepted)
    }

    fn get_entries(&self, from: usize, to: usize) -> StorageResult<Vec<Change>> {
        Ok(self.log.get(from..to).map(<[Change]>::to_vec).unwrap_or_default())
    }

    fn get_log_len(&self) -> StorageResult<usize> {
        Ok(self.log.len())
    }

    fn get_suffix(&self, from: usize) -> StorageResult<Vec<Change>> {
        Ok(self.log.get(from..).map(<[Change]>::to_vec).unwrap_or_default())
    }

    fn get_promise(&self) -> StorageResult<Option<Ballot>> {
        Ok(self.promise)
    }

    fn set_stopsign(&mut self, sign: Option<StopSign>) -> StorageResult<()> {
        self.stop_sign = sign;
        Ok(())
    }

    fn get_stopsign(&self) -> StorageResult<Option<StopSign>> {
        Ok(self.stop_sign.clone())
    }

    /// The log is never compacted: these keep what the engine says of it, which is nothing.
    fn trim(&mut self, _index: usize) -> StorageResult<()> {
        Ok(())
    }

    fn set_compacted_idx(&mut self, _index: usize) -> StorageResult<()> {
        Ok(())
    }

    fn get_compacted_idx(&self) -> StorageResult<usize> {
        Ok(0)
    }

    fn set_snapshot(&mut self, _snapshot: Option<NoSnapshot>) -> StorageResult<()> {
        Ok(())
    }

    fn get_snapshot(&self) -> StorageResult<Option<NoSnapshot>> {
        Ok(None)
    }
}
