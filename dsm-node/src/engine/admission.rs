//! Being let into a cluster that runs: asks its members over the links to them until a view has this node in it.
//!
//! All of it happens in the thread that joins, before there is an engine: the engine goes on with the membership as it is
//! then, and with what members have said meanwhile.

use super::members::{MembershipIntent, Postponed};
use crate::error::{Error, Result};
use crate::region::Region;
use crate::transport::{Heard, Mesh, Voice, poll_timeout};
use dsm_core::membership::{Candidate, Fact, Intent, Membership, OmniStore, Settings, VoterId};
use dsm_core::{Landing, NodeId, View};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};

/// A node that was let in.
pub(super) struct Admission {
    pub membership: Membership<OmniStore>,
    /// The view that it was let into.
    pub view: View,
    /// What the membership wants besides.
    pub intents: Vec<MembershipIntent>,
    /// What members have said in that view already.
    pub said: Vec<Postponed>,
}

/// An admission under way.
struct Waiting<'a> {
    mesh: &'a mut Mesh,
    region: &'a Region,
    membership: Membership<OmniStore>,
    intents: Vec<MembershipIntent>,
    said: Vec<Postponed>,
}

/// Waits until the members have agreed on a view with this node.
///
/// # Errors
/// If they do not in time, or have agreed on one without it since.
pub(super) fn be_admitted(
    mesh: &mut Mesh,
    region: &Region,
    candidate: Candidate,
    settings: Settings,
) -> Result<Admission> {
    let contacts: Vec<VoterId> = mesh
        .links
        .iter()
        .flatten()
        .filter(|link| link.is_attached())
        .map(|link| VoterId::Node(link.peer()))
        .collect();
    let membership = Membership::joining(super::timers::now(), candidate, settings, contacts);
    let mut waiting = Waiting { mesh, region, membership, intents: Vec::new(), said: Vec::new() };
    waiting.tell(Fact::Tick);
    loop {
        if let Some(view) = waiting.follow(candidate.node)? {
            let Waiting { membership, intents, said, .. } = waiting;
            return Ok(Admission { membership, view, intents, said });
        }
        waiting.wait()?;
        waiting.hear_all();
        waiting.tell(Fact::Tick);
    }
}

impl Waiting<'_> {
    fn tell(&mut self, fact: Fact<<OmniStore as dsm_core::membership::ConfigStore>::Message>) {
        self.membership.handle(super::timers::now(), fact, &mut self.intents);
    }

    /// Does what the membership wants, until this node is let in: what it wants after that, the engine does.
    fn follow(&mut self, me: NodeId) -> Result<Option<View>> {
        let refused = |cause: &str| Error::Refused {
            address: String::from("the members of the running cluster"),
            rank: me.rank(),
            cause: cause.to_owned(),
        };
        let mut intents = std::mem::take(&mut self.intents).into_iter();
        while let Some(intent) = intents.next() {
            match intent {
                Intent::Send { to: VoterId::Node(node), packet } => {
                    if let Some(link) = self.mesh.links.get_mut(node.index()).and_then(Option::as_mut) {
                        let said = link.say(&packet).is_ok();
                        if !said || link.flush(&self.region.frames(), Voice::Membership).is_err() {
                            link.detach();
                        }
                    }
                }
                Intent::Install(view) => {
                    self.intents.extend(intents);
                    return Ok(Some(view));
                }
                Intent::NoQuorum => {
                    return Err(refused(
                        "they did not agree to let it in within the time that a change may take",
                    ));
                }
                Intent::Evicted { .. } | Intent::Left => {
                    return Err(refused("they had let it in, and have gone on without it since"));
                }
                Intent::Send { to: VoterId::Witness, .. }
                | Intent::Freeze
                | Intent::Resume
                | Intent::Kill { .. } => {}
            }
        }
        Ok(None)
    }

    fn wait(&self) -> Result<()> {
        let descriptors = self.mesh.links.iter().flatten().filter_map(|link| link.descriptor());
        let mut polled: Vec<PollFd<'_>> = descriptors.map(|it| PollFd::new(it, PollFlags::POLLIN)).collect();
        let now = super::timers::now();
        let left = self.membership.deadline().map(|deadline| deadline.since(now)).unwrap_or_default();
        match poll(&mut polled, poll_timeout(left)) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(Error::io("waiting to be let into the cluster", errno)),
        }
    }

    fn hear_all(&mut self) {
        for rank in 0..self.mesh.links.len() {
            while let Some(link) = self.mesh.links.get_mut(rank).and_then(Option::as_mut) {
                let from = link.peer();
                match link.hear(&self.region.frames(), |_| Landing::Nowhere) {
                    Ok(Some(Heard::Packet(packet))) => {
                        self.tell(Fact::Received { from: VoterId::Node(from), packet: *packet });
                    }
                    Ok(Some(Heard::Message { view, message, body })) => {
                        self.said.push(Postponed::Heard { from, view, message, body });
                    }
                    Ok(None) => break,
                    Err(_) => {
                        link.detach();
                        break;
                    }
                }
            }
        }
    }
}
