//! Who is there? The first exchange on every connection: the caller's [`Hello`], and the answer to it.
//!
//! ```text
//!  | magic u32 | version u16 | rank u16 | length u32 | crc u32 |  postcard, at most 64 KiB
//! ```
//! Version and rank stand in front of what is encoded, so that nodes of different versions can still tell each other
//! that they are. This module encodes, decodes and compares; whom to let in is the gate's decision.

use super::stream::Stream;
use crate::error::Error;
use dsm_core::{Host, Incarnation, NodeId};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::{Duration, Instant};

/// The version of the handshake. It changes with anything that nodes say to each other.
pub(crate) const VERSION: u16 = dsm_core::wire::VERSION;

/// The first bytes of every handshake: "DSMh".
const MAGIC: u32 = u32::from_le_bytes(*b"DSMh");

/// The length of what precedes the encoded part.
pub(super) const PREFIX_LENGTH: usize = 16;

/// The longest encoded part: room for some two thousand types by name.
pub(super) const LENGTH_MAX: usize = 64 << 10;

/// What must be the same in the programs of all nodes. Opaque here but for the comparison.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Identity {
    /// The compiler's version: layouts depend on it.
    pub compiler: String,
    /// Types by name, with the hash of their layout. A name may come with several hashes.
    pub types: Vec<(String, u64)>,
}

/// What all nodes of a cluster must agree on.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Terms {
    /// How many nodes the cluster starts with.
    pub nodes: u16,
    /// Where the region begins.
    pub base: u64,
    /// The region's length in bytes.
    pub size: u64,
    /// The length of a page in bytes.
    pub page_size: u64,
    /// The crashes that the cluster is to survive.
    pub replicas: u32,
    /// How long a lease lasts.
    pub lease: Duration,
    /// How often it is renewed.
    pub heartbeat: Duration,
    /// The programs.
    pub identity: Identity,
}

/// A process, as processes of the same machine can find it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Habitat {
    /// The machine.
    pub host: Host,
    /// The name space in which its number means something.
    pub name_space: u64,
    /// Its number there.
    pub process: u32,
}

/// Why a connection is opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) enum Purpose {
    /// To be in the cluster that the rendezvous forms, or in one that runs.
    Join,
    /// To be known to a member of a cluster that runs, in the hope of becoming a member.
    Enter {
        /// Which cluster.
        cluster: u64,
    },
    /// To be the connection of a link between two members.
    Link {
        /// Which cluster both believe to be in.
        cluster: u64,
        /// The last frame that the caller has from the other.
        received_through: u64,
    },
}

/// What the caller says first.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Hello {
    pub rank: NodeId,
    pub incarnation: Incarnation,
    pub purpose: Purpose,
    /// Where the caller listens; empty if the other knows already.
    pub listen: String,
    /// Where the caller runs.
    pub habitat: Habitat,
    pub terms: Terms,
}

/// What the other side answers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    /// Come in. To a join, the peer table follows once everybody is there.
    Welcome {
        /// Who answers.
        incarnation: Incarnation,
        /// The last frame that the answerer has from the caller.
        received_through: u64,
    },
    /// Stay out.
    Refused(Refusal),
}

/// How a rendezvous ends, for those who were welcome.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) enum Outcome {
    /// All are there.
    Formed {
        /// The name of the cluster.
        cluster: u64,
        /// Whether a launcher votes on the membership.
        witness: bool,
        /// Each node's incarnation, where it listens, and where it runs, by rank.
        peers: Vec<(Incarnation, String, Habitat)>,
    },
    /// The cluster was formed before: these are its members, and those that want to be.
    Runs(Running),
    /// It will not come about.
    Abandoned(String),
}

/// A cluster that runs, as one of its members knows it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Running {
    /// The name of the cluster.
    pub cluster: u64,
    /// How many nodes it began with.
    pub nodes: u16,
    /// Whether a launcher votes on the membership.
    pub witness: bool,
    /// Its members: rank, incarnation, where each listens and where it runs.
    pub members: Vec<(NodeId, Incarnation, String, Habitat)>,
    /// Those that want to be, some of which may be gone already.
    pub candidates: Vec<(NodeId, Incarnation, String, Habitat)>,
}

/// What two nodes can disagree on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum Subject {
    /// The version of the protocol.
    Version,
    /// The number of nodes.
    Nodes,
    /// The region's base.
    RegionBase,
    /// The region's size.
    RegionSize,
    /// The page size.
    PageSize,
    /// How many replicas there are.
    Replicas,
    /// The length of a lease.
    Lease,
    /// The time between heartbeats.
    Heartbeat,
    /// The compiler's version.
    Compiler,
}

impl Subject {
    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Subject::Version => "protocol version",
            Subject::Nodes => "number of nodes",
            Subject::RegionBase => "region base",
            Subject::RegionSize => "region size",
            Subject::PageSize => "page size",
            Subject::Replicas => "number of replicas",
            Subject::Lease => "lease",
            Subject::Heartbeat => "heartbeat",
            Subject::Compiler => "compiler version",
        }
    }
}

/// Why a node is not let in, as the one that refuses sees it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum Refusal {
    /// Both disagree on what all must agree on.
    #[error("the {}: {caller} at the caller, {answerer} here", subject.name())]
    Mismatch {
        /// On what.
        subject: Subject,
        /// Who refuses.
        by: NodeId,
        /// The caller's value.
        caller: String,
        /// The refuser's value.
        answerer: String,
    },
    /// Both know a type by the same name with different layouts.
    #[error("type {name} has layout {caller} at the caller and {answerer} here")]
    Layout {
        /// The type's name.
        name: String,
        /// The caller's layout.
        caller: String,
        /// The refuser's layout.
        answerer: String,
    },
    /// Somebody else is that rank.
    #[error("rank {} is taken by another process", rank.0)]
    Taken {
        /// The rank.
        rank: NodeId,
    },
    /// There is no such rank.
    #[error("rank {} is outside a cluster of {nodes}", rank.0)]
    NoSuchRank {
        /// The rank.
        rank: NodeId,
        /// How many nodes there are.
        nodes: u16,
    },
    /// The member of that rank is another process: the caller was restarted, or belongs elsewhere.
    #[error(
        "{rank} is process {known} in this cluster, not {found}; a restarted process cannot take its place"
    )]
    Stale {
        /// The rank.
        rank: NodeId,
        /// The member's incarnation.
        known: Incarnation,
        /// The caller's.
        found: Incarnation,
    },
    /// The caller belongs to another cluster.
    #[error("this is a node of another cluster")]
    OtherCluster,
    /// The caller wants to join, and this node is not where one joins.
    #[error("this node is not the rendezvous")]
    NotRendezvous,
    /// The listen address of the caller cannot be.
    #[error("the caller's listen address {0:?} is none")]
    Address(String),
}

/// Why there was no handshake.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandshakeError {
    /// What came is no handshake.
    #[error("{0}")]
    Garbage(String),
    /// The other side speaks another version.
    #[error("{rank} speaks version {version} of the protocol, this node {VERSION}")]
    Version {
        /// Who it says it is.
        rank: NodeId,
        /// Its version.
        version: u16,
    },
    /// The connection failed, or the time ran out.
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl Terms {
    /// As [`Terms::compare`], for a caller that comes when the cluster runs: how many nodes it began with, it need not know.
    pub fn compare_late(&self, by: NodeId, caller: &Terms) -> Result<(), Refusal> {
        self.compare(by, &Terms { nodes: self.nodes, ..caller.clone() })
    }

    /// Why `by`, whose terms these are, cannot be in one cluster with a caller whose terms are `caller`.
    pub fn compare(&self, by: NodeId, caller: &Terms) -> Result<(), Refusal> {
        let hex = |value: u64| format!("{value:#x}");
        let decimal = |value: u64| value.to_string();
        let span = |value: Duration| format!("{value:?}");
        let compiler = |terms: &Terms| terms.identity.compiler.clone();
        let values = [
            (Subject::Nodes, decimal(caller.nodes.into()), decimal(self.nodes.into())),
            (Subject::RegionBase, hex(caller.base), hex(self.base)),
            (Subject::RegionSize, decimal(caller.size), decimal(self.size)),
            (Subject::PageSize, decimal(caller.page_size), decimal(self.page_size)),
            (Subject::Replicas, caller.replicas.to_string(), self.replicas.to_string()),
            (Subject::Lease, span(caller.lease), span(self.lease)),
            (Subject::Heartbeat, span(caller.heartbeat), span(self.heartbeat)),
            (Subject::Compiler, compiler(caller), compiler(self)),
        ];
        for (subject, caller, answerer) in values {
            if caller != answerer {
                return Err(Refusal::Mismatch { subject, by, caller, answerer });
            }
        }
        self.identity.compare(&caller.identity)
    }
}

impl Identity {
    /// A type is a mismatch if both know its name, and no layout under it is known to both.
    fn compare(&self, caller: &Identity) -> Result<(), Refusal> {
        let (theirs, ours) = (caller.layouts(), self.layouts());
        for (name, theirs) in theirs {
            if let Some(ours) = ours.get(name)
                && ours.is_disjoint(&theirs)
            {
                let list = |hashes: &BTreeSet<u64>| {
                    hashes.iter().map(|hash| format!("{hash:016x}")).collect::<Vec<_>>().join(" or ")
                };
                return Err(Refusal::Layout {
                    name: name.to_owned(),
                    caller: list(&theirs),
                    answerer: list(ours),
                });
            }
        }
        Ok(())
    }

    /// The layouts by name: a stranger's list is as long as it likes, so it is not searched again for each name.
    fn layouts(&self) -> BTreeMap<&str, BTreeSet<u64>> {
        let mut layouts: BTreeMap<&str, BTreeSet<u64>> = BTreeMap::new();
        for (name, hash) in &self.types {
            layouts.entry(name).or_default().insert(*hash);
        }
        layouts
    }
}

impl Refusal {
    /// The error of `rank`, whose call to `address` was refused so.
    pub fn at_caller(self, rank: NodeId, address: &str) -> Error {
        match self {
            Refusal::Mismatch { subject, by, caller, answerer } => Error::Mismatch {
                what: subject.name(),
                ours_rank: rank.rank(),
                ours: caller,
                theirs_rank: by.rank(),
                theirs: answerer,
            },
            Refusal::Layout { name, caller, answerer } => {
                Error::LayoutMismatch { name, expected: caller, found: answerer }
            }
            other @ (Refusal::Taken { .. }
            | Refusal::NoSuchRank { .. }
            | Refusal::Stale { .. }
            | Refusal::OtherCluster
            | Refusal::NotRendezvous
            | Refusal::Address(_)) => {
                Error::Refused { address: address.to_owned(), rank: rank.rank(), cause: other.to_string() }
            }
        }
    }

    /// The error of the node that refused `caller` so, where that means that no cluster can be.
    pub fn at_answerer(self, caller: NodeId, address: &str) -> Error {
        match self {
            Refusal::Mismatch { subject, by, caller: theirs, answerer } => Error::Mismatch {
                what: subject.name(),
                ours_rank: by.rank(),
                ours: answerer,
                theirs_rank: caller.rank(),
                theirs,
            },
            Refusal::Layout { name, caller, answerer } => {
                Error::LayoutMismatch { name, expected: answerer, found: caller }
            }
            other @ (Refusal::Taken { .. }
            | Refusal::NoSuchRank { .. }
            | Refusal::Stale { .. }
            | Refusal::OtherCluster
            | Refusal::NotRendezvous
            | Refusal::Address(_)) => {
                Error::Refused { address: address.to_owned(), rank: caller.rank(), cause: other.to_string() }
            }
        }
    }
}

/// What precedes the encoded part.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Prefix {
    pub version: u16,
    pub rank: NodeId,
    pub length: usize,
    crc: u32,
}

impl Prefix {
    /// Reads a prefix; its length is within the limit.
    pub fn decode(bytes: &[u8; PREFIX_LENGTH]) -> Result<Prefix, HandshakeError> {
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let half = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        if word(0) != MAGIC {
            return Err(HandshakeError::Garbage(format!(
                "it begins with {:#010x}, which is no handshake",
                word(0)
            )));
        }
        let length = word(8) as usize;
        if length > LENGTH_MAX {
            return Err(HandshakeError::Garbage(format!(
                "it claims {length} bytes, and none has more than {LENGTH_MAX}"
            )));
        }
        Ok(Prefix { version: half(4), rank: NodeId(half(6)), length, crc: word(12) })
    }

    /// The value that `bytes`, which followed this prefix, encode.
    pub fn open<T: DeserializeOwned>(&self, bytes: &[u8]) -> Result<T, HandshakeError> {
        if self.version != VERSION {
            return Err(HandshakeError::Version { rank: self.rank, version: self.version });
        }
        if crc32fast::hash(bytes) != self.crc {
            return Err(HandshakeError::Garbage("its checksum does not match".to_owned()));
        }
        match postcard::take_from_bytes(bytes) {
            Ok((value, [])) => Ok(value),
            Ok((_, rest)) => Err(HandshakeError::Garbage(format!("{} bytes follow it", rest.len()))),
            Err(cause) => Err(HandshakeError::Garbage(format!("it cannot be read: {cause}"))),
        }
    }
}

/// The bytes of `value`, said by `rank`.
pub(super) fn encode<T: Serialize>(rank: NodeId, value: &T) -> Result<Vec<u8>, HandshakeError> {
    let too_long = |length: usize| {
        HandshakeError::Garbage(format!(
            "this node's own message has {length} bytes, the limit is {LENGTH_MAX}"
        ))
    };
    let body = postcard::to_allocvec(value)
        .map_err(|cause| HandshakeError::Garbage(format!("this node's own message: {cause}")))?;
    let length = u32::try_from(body.len()).map_err(|_| too_long(body.len()))?;
    if body.len() > LENGTH_MAX {
        return Err(too_long(body.len()));
    }
    let mut bytes = Vec::with_capacity(PREFIX_LENGTH + body.len());
    bytes.extend_from_slice(&MAGIC.to_le_bytes());
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&rank.0.to_le_bytes());
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&crc32fast::hash(&body).to_le_bytes());
    bytes.extend_from_slice(&body);
    Ok(bytes)
}

/// Says `value`.
pub(super) fn tell<T: Serialize>(
    stream: &Stream,
    rank: NodeId,
    value: &T,
    deadline: Instant,
) -> Result<(), HandshakeError> {
    Ok(stream.send_all(&encode(rank, value)?, deadline)?)
}

/// Hears a value. Takes not a byte more from the stream than belong to it: what follows is the link's.
pub(super) fn hear<T: DeserializeOwned>(stream: &Stream, deadline: Instant) -> Result<T, HandshakeError> {
    let mut prefix = [0; PREFIX_LENGTH];
    stream.receive_all(&mut prefix, deadline)?;
    let prefix = Prefix::decode(&prefix)?;
    let mut bytes = vec![0; prefix.length];
    stream.receive_all(&mut bytes, deadline)?;
    prefix.open(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::testing::pair;

    fn terms(types: &[(&str, u64)]) -> Terms {
        let types = types.iter().map(|(name, hash)| ((*name).to_owned(), *hash)).collect();
        let identity = Identity { compiler: "rustc 1".to_owned(), types };
        Terms {
            nodes: 3,
            base: 0x1000,
            size: 0x10000,
            page_size: 4096,
            replicas: 1,
            lease: Duration::from_secs(1),
            heartbeat: Duration::from_millis(200),
            identity,
        }
    }

    #[test]
    fn each_difference_names_both_values() {
        let ours = terms(&[]);
        let other = Identity { compiler: "rustc 2".to_owned(), types: Vec::new() };
        for (theirs, subject, text) in [
            (Terms { nodes: 4, ..ours.clone() }, Subject::Nodes, "4 at the caller, 3 here"),
            (
                Terms { base: 0x2000, ..ours.clone() },
                Subject::RegionBase,
                "0x2000 at the caller, 0x1000 here",
            ),
            (Terms { size: 8192, ..ours.clone() }, Subject::RegionSize, "8192 at the caller, 65536 here"),
            (Terms { page_size: 8192, ..ours.clone() }, Subject::PageSize, "8192 at the caller, 4096 here"),
            (Terms { replicas: 2, ..ours.clone() }, Subject::Replicas, "2 at the caller, 1 here"),
            (
                Terms { lease: Duration::from_secs(2), ..ours.clone() },
                Subject::Lease,
                "2s at the caller, 1s here",
            ),
            (
                Terms { heartbeat: Duration::from_millis(5), ..ours.clone() },
                Subject::Heartbeat,
                "5ms at the caller, 200ms here",
            ),
            (
                Terms { identity: other, ..ours.clone() },
                Subject::Compiler,
                "rustc 2 at the caller, rustc 1 here",
            ),
        ] {
            let refusal = ours.compare(NodeId(0), &theirs).expect_err("they differ");
            assert!(refusal.to_string().ends_with(text), "{refusal}");
            assert!(matches!(refusal, Refusal::Mismatch { subject: found, .. } if found == subject));
        }
    }

    #[test]
    fn types_differ_only_if_no_layout_is_common() {
        let ours = terms(&[("A", 1), ("B", 2), ("B", 3)]);
        assert_eq!(ours.compare(NodeId(0), &terms(&[("C", 9)])), Ok(()));
        assert_eq!(ours.compare(NodeId(0), &terms(&[("A", 1), ("B", 3), ("B", 4)])), Ok(()));
        let refusal = ours.compare(NodeId(0), &terms(&[("B", 7)])).expect_err("they differ");
        assert!(matches!(&refusal, Refusal::Layout { name, .. } if name == "B"));
        assert!(matches!(
            refusal.at_caller(NodeId(1), "here"),
            Error::LayoutMismatch { name, expected, found }
                if name == "B" && expected.ends_with('7') && found.contains(" or ")
        ));
    }

    #[test]
    fn what_is_said_is_heard_and_what_follows_is_left() {
        let (near, far) = pair(None);
        let deadline = Instant::now() + Duration::from_secs(5);
        tell(&near, NodeId(1), &Answer::Refused(Refusal::NotRendezvous), deadline).expect("it is short");
        near.send_all(b"rest", deadline).expect("it is short");
        assert_eq!(
            hear::<Answer>(&far, deadline).expect("it was said"),
            Answer::Refused(Refusal::NotRendezvous)
        );
        let mut rest = [0; 4];
        far.receive_all(&mut rest, deadline).expect("it was left");
        assert_eq!(&rest, b"rest");
    }

    #[test]
    fn damage_is_garbage_and_another_version_is_named() {
        let good = encode(NodeId(7), &Answer::Refused(Refusal::OtherCluster)).expect("it is short");
        let open = |bytes: &[u8]| {
            let prefix = Prefix::decode(bytes.first_chunk().expect("there is one"))?;
            prefix.open::<Answer>(&bytes[PREFIX_LENGTH..])
        };
        assert!(open(&good).is_ok());
        for at in (0..good.len()).filter(|at| !(4..8).contains(at)) {
            let mut bad = good.clone();
            bad[at] ^= 0x40;
            // The length does not matter to bytes that are there already; the prefix's own check is on its size.
            assert!(open(&bad).is_err() || (8..12).contains(&at), "at {at}");
        }
        let mut newer = good.clone();
        newer[4] += 1;
        assert!(matches!(open(&newer), Err(HandshakeError::Version { rank: NodeId(7), .. })));
        let mut huge = good;
        huge[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(matches!(open(&huge), Err(HandshakeError::Garbage(_))));
    }

    #[test]
    fn silence_ends_at_the_deadline() {
        let (_near, far) = pair(None);
        let deadline = Instant::now() + Duration::from_millis(20);
        assert!(matches!(
            hear::<Answer>(&far, deadline),
            Err(HandshakeError::Io(error)) if error.kind() == io::ErrorKind::TimedOut
        ));
    }
}
