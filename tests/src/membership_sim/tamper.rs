//! Where the mutants change what processes say and hear.

use super::mutant::Mutant;
use super::process::Process;
use dsm_core::Time;
use dsm_core::membership::{Body, Claims, ConfigStore, Fact, Packet};

/// Changes a fact that a process is about to be told.
pub fn fact<S: ConfigStore>(mutant: Option<Mutant>, to: &Process<S>, now: Time, fact: &mut Fact<S::Message>) {
    let Some(mutant) = mutant else { return };
    if let (Mutant::EvictsOnSuspicion, Fact::Suspected { node }) = (mutant, &*fact) {
        let member = to.membership.view().and_then(|view| view.member(*node));
        if let Some(member) = member {
            *fact = Fact::ProvenDead { node: *node, incarnation: member.incarnation };
        }
        return;
    }
    let Fact::Received { packet, .. } = fact else { return };
    match (mutant, &mut packet.body) {
        (Mutant::CountsFromReceipt, Body::Answer { stamp, .. }) => *stamp = now.as_nanos(),
        (Mutant::IgnoresViews, Body::Heartbeat { .. } | Body::Answer { .. } | Body::Consensus(_)) => {
            if let Some(view) = to.membership.view() {
                packet.view = view.id();
            }
        }
        _ => {}
    }
}

/// Changes a packet that is about to be sent; false if it is not to be sent.
pub fn packet<M>(mutant: Option<Mutant>, packet: &mut Packet<M>) -> bool {
    let Some(mutant) = mutant else { return true };
    match (mutant, &mut packet.body) {
        (Mutant::RenewsRefused, Body::Answer { granted, .. }) => *granted = true,
        (Mutant::LosesClaims, Body::Heartbeat { claims, .. }) => *claims = Claims::default(),
        (Mutant::TellsNobody, Body::Decided { .. })
        | (Mutant::LosesRemovals, Body::Removed { .. } | Body::Decided { .. })
        | (Mutant::LosesWelcomes, Body::Welcome(_)) => return false,
        _ => {}
    }
    true
}
