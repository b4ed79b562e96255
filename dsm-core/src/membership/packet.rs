//! What processes say to each other about membership.
//!
//! A lost packet costs time and nothing else: all that matters is said again with the next heartbeat. Packets may come
//! twice, late and out of order.

use crate::copyset::Copyset;
use crate::ids::{Incarnation, NodeId, ViewId};
use crate::membership::change::{Candidate, Change};
use crate::view::{Member, View};
use serde::{Deserialize, Serialize};

/// Members that one part of a [`Welcome`] names at most, so that it stays below the longest control message: a view of
/// 64 nodes comes in four parts.
pub const WELCOME_MEMBERS_MAX: usize = 16;

/// One message. Who sent it, its carrier knows.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Packet<M> {
    /// The view that its sender is in; [`ViewId(0)`](ViewId) while it is in none.
    pub view: ViewId,
    /// Which life of the sender's rank sent it.
    pub incarnation: Incarnation,
    /// What it says.
    pub body: Body<M>,
}

/// What a packet says.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Body<M> {
    /// I am alive; my lease wants renewing; this is what I know.
    Heartbeat {
        /// When it was sent, by the sender's clock. Only the sender reads it again, in the answer; to others it tells the
        /// newer from the older.
        stamp: u64,
        /// Whether the sender wants its lease renewed: the witness has none, and a leaver no more.
        renew: bool,
        /// What the sender knows about others.
        claims: Claims,
    },
    /// To a heartbeat: your lease, as far as I am concerned, is renewed.
    Answer {
        /// The heartbeat's stamp.
        stamp: u64,
        /// Whether it is. A voter that may not grant says so, which tells the holder that it is heard at least.
        granted: bool,
    },
    /// A word of the consensus on the successor of the packet's view.
    Consensus(M),
    /// The successor of `of` is decided.
    Decided {
        /// The view that the change applies to.
        of: ViewId,
        /// Its successor's difference.
        change: Change,
    },
    /// You seem to be ahead of the packet's view: what was decided since?
    Fetch,
    /// Your incarnation is no member of the packet's view.
    Removed {
        /// Whom it concerns: the rank may have a new process.
        incarnation: Incarnation,
    },
    /// I want to be a member. Said until the answer comes.
    Join(Candidate),
    /// To a candidate that has become a member: a part of the packet's view.
    Welcome(Welcome),
}

/// What a process knows about others, in its view. Said anew with each heartbeat.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Claims {
    /// My grants to these have run out. May be taken back.
    pub late: Copyset,
    /// My grants to these have run out, and I give them no more in this view. Is never taken back.
    pub refused: Copyset,
    /// These are dead: somebody who could know has seen it.
    pub dead: Copyset,
    /// These do not take my connections.
    pub suspected: Copyset,
    /// These have handed over all they had, and want to go.
    pub leaving: Copyset,
    /// These want to come.
    pub candidates: Vec<Candidate>,
}

/// A part of a view, for somebody who does not know the view before.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Welcome {
    /// The crashes that the view is to survive.
    pub replicas: u32,
    /// All its members.
    pub all: Copyset,
    /// Some of them.
    pub some: Vec<(NodeId, Member)>,
}

impl Welcome {
    /// `view`, in parts.
    pub fn parts(view: &View) -> Vec<Welcome> {
        let members: Vec<(NodeId, Member)> = view.iter().map(|(node, member)| (node, *member)).collect();
        let part = |some: &[(NodeId, Member)]| Welcome {
            replicas: view.replicas(),
            all: view.members(),
            some: some.to_vec(),
        };
        members.chunks(WELCOME_MEMBERS_MAX).map(part).collect()
    }
}
