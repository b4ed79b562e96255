//! One process's part in the membership: the one door for facts, and the vocabulary of its driver.

use crate::ids::{Incarnation, NodeId, ViewId};
use crate::membership::change::Candidate;
use crate::membership::joiner::{Admission, Joiner};
use crate::membership::packet::Packet;
use crate::membership::seat::{Life, Seat};
use crate::membership::settings::Settings;
use crate::membership::store::ConfigStore;
use crate::membership::voters::VoterId;
use crate::time::Time;
use crate::view::{Host, View};

/// What happened, as the driver tells it.
#[derive(Clone, Debug)]
pub enum Fact<M> {
    /// Time has passed: [`Membership::deadline`] is reached.
    Tick,
    /// A packet came.
    Received {
        /// Whose connection it came over.
        from: VoterId,
        /// What it says.
        packet: Packet<M>,
    },
    /// A member refuses connections, or closed one and takes no new one. It may be dead; it is not known to be.
    Suspected {
        /// The member.
        node: NodeId,
    },
    /// A process is dead: its pidfd or its wait status said so, on its own host.
    ProvenDead {
        /// Its rank.
        node: NodeId,
        /// Which life of the rank it was.
        incarnation: Incarnation,
    },
    /// This node has handed over all it had, and acts no more: it wants to be no member. That is said of one view: if the
    /// next still has it, it acts again, and is to say so anew when it has handed over what it has then.
    Leave,
}

/// What the driver is to do, in order.
#[derive(Clone, Debug)]
pub enum Intent<M> {
    /// Send this. If it cannot be sent, drop it: what matters is said again.
    Send {
        /// To whom. A node that is no member (a candidate, one that was removed) is reached by the connection that its
        /// packets came over.
        to: VoterId,
        /// What.
        packet: Packet<M>,
    },
    /// This view is agreed on, and this process is in it. Each view's number is the last one's plus one.
    Install(View),
    /// The lease has run out, or was given up: nothing may leave this node, and faults are held.
    Freeze,
    /// There is a lease, in the view that was installed last: go on. A member begins without one.
    Resume,
    /// The others have agreed on a view without this node. It is over: nothing more will come.
    Evicted {
        /// The view that it is not in.
        view: ViewId,
    },
    /// This node has left, as it wanted to. It is over.
    Left,
    /// There was no majority for too long. It is over.
    NoQuorum,
    /// To the launcher: a member is suspected. If it is a child of yours, end it, wait for it and tell its death; then
    /// nobody waits for its lease to run out.
    Kill {
        /// Its rank.
        node: NodeId,
        /// Which life of the rank.
        incarnation: Incarnation,
    },
}

/// Which process this is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Identity {
    /// Its rank, or that it is the launcher.
    pub id: VoterId,
    /// Which life of the rank.
    pub incarnation: Incarnation,
    /// Where it runs.
    pub host: Host,
}

impl Identity {
    /// The launcher of a cluster. It has one life only.
    pub const WITNESS: Identity =
        Identity { id: VoterId::Witness, incarnation: Incarnation(0), host: Host(0) };
}

/// One process's part in the membership.
///
/// ```
/// use dsm_core::membership::{Fact, Identity, Intent, Membership, OmniStore, Settings, VoterId};
/// use dsm_core::{Host, Incarnation, NodeId, Time, View};
///
/// let view = View::first([(NodeId(0), Incarnation(7), Host(0))], 0);
/// let me = Identity { id: VoterId::Node(NodeId(0)), incarnation: Incarnation(7), host: Host(0) };
/// let mut alone: Membership<OmniStore> = Membership::new(Time::ZERO, me, Settings::default(), view);
/// let mut intents = Vec::new();
/// alone.handle(Time::ZERO, Fact::Tick, &mut intents);
/// assert!(matches!(intents[..], [Intent::Resume]));
/// assert!(alone.holds_lease(Time::from_nanos(u64::MAX)));
/// ```
pub struct Membership<S: ConfigStore> {
    state: State<S>,
    /// Packets that no correct process sends.
    rejected: u64,
}

enum State<S: ConfigStore> {
    Joining(Joiner),
    Seated(Box<Seat<S>>),
    Over,
}

impl<S: ConfigStore> Membership<S> {
    /// A member of `view`, or its launcher, at a time when no other view is installed anywhere. The view counts as
    /// installed: there is no [`Intent::Install`] for it. The member has no lease yet: the first [`Intent::Resume`] tells.
    ///
    /// # Panics
    /// If the identity is neither the launcher's nor that of a member.
    #[must_use]
    pub fn new(now: Time, identity: Identity, settings: Settings, view: View) -> Membership<S> {
        if let VoterId::Node(node) = identity.id {
            let incarnation = view.member(node).map(|member| member.incarnation);
            assert_eq!(incarnation, Some(identity.incarnation), "{node} is no member of {view:?}");
        }
        Membership { state: State::Seated(Box::new(Seat::new(now, identity, settings, view))), rejected: 0 }
    }

    /// A process that wants to be a member. It asks `contacts`, of which one at least has to be a member, until the first
    /// [`Intent::Install`].
    #[must_use]
    pub fn joining(
        now: Time,
        candidate: Candidate,
        settings: Settings,
        contacts: impl IntoIterator<Item = VoterId>,
    ) -> Membership<S> {
        let contacts = contacts.into_iter().collect();
        Membership { state: State::Joining(Joiner::new(now, candidate, settings, contacts)), rejected: 0 }
    }

    /// Takes one fact, and appends what is to be done about it. The driver does it, in order, before the next fact.
    /// `now` never goes back; it is the time at which the fact is handed over, not that at which it came about.
    pub fn handle(&mut self, now: Time, fact: Fact<S::Message>, out: &mut Vec<Intent<S::Message>>) {
        let over = match &mut self.state {
            State::Joining(joiner) => match joiner.handle(now, fact, out, &mut self.rejected) {
                Admission::Waiting => false,
                Admission::Over => true,
                Admission::Admitted(view) => {
                    out.push(Intent::Install(view.clone()));
                    let mut seat = Box::new(Seat::new(now, joiner.identity(), joiner.settings(), view));
                    let life = seat.handle(now, Fact::Tick, out, &mut self.rejected);
                    self.state = State::Seated(seat);
                    life == Life::Over
                }
            },
            State::Seated(seat) => seat.handle(now, fact, out, &mut self.rejected) == Life::Over,
            State::Over => false,
        };
        if over {
            self.state = State::Over;
        }
    }

    /// When the driver is to come with [`Fact::Tick`], if nothing else happens before. None when it is over.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        match &self.state {
            State::Joining(joiner) => Some(joiner.deadline()),
            State::Seated(seat) => Some(seat.deadline()),
            State::Over => None,
        }
    }

    /// The view that was installed last. None before a candidate's first, and when it is over.
    #[must_use]
    pub fn view(&self) -> Option<&View> {
        match &self.state {
            State::Joining(_) | State::Over => None,
            State::Seated(seat) => Some(seat.view()),
        }
    }

    /// Whether this node may act at `now`: a question for whoever is about to send, between two facts.
    #[must_use]
    pub fn holds_lease(&self, now: Time) -> bool {
        match &self.state {
            State::Joining(_) | State::Over => false,
            State::Seated(seat) => seat.holds_lease(now),
        }
    }

    /// Packets that no correct process sends. They changed nothing.
    #[must_use]
    pub fn rejected(&self) -> u64 {
        self.rejected
    }
}
