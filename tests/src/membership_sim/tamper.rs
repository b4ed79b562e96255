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
    if let (Mutant::CountsFromReceipt, Body::Answer { stamp, .. }) = (mutant, &mut packet.body) {
        *stamp = now.as_nanos();
    }
    let names_ranks =
        matches!(packet.body, Body::Heartbeat { .. } | Body::Answer { .. } | Body::Consensus(_));
    if mutant == Mutant::IgnoresViews
        && names_ranks
        && let Some(view) = to.membership.view()
    {
        packet.view = view.id();
    }
}

/// Changes a packet that is about to be sent; false if it is not to be sent.
pub fn packet<M>(mutant: Option<Mutant>, packet: &mut Packet<M>) -> bool {
    let Some(mutant) = mutant else { return true };
    if let (Mutant::RenewsRefused, Body::Answer { granted, .. }) = (mutant, &mut packet.body) {
        *granted = true;
    }
    if let (Mutant::LosesClaims, Body::Heartbeat { claims, .. }) = (mutant, &mut packet.body) {
        *claims = Claims::default();
    }
    let decided = matches!(packet.body, Body::Decided { .. });
    let lost = match mutant {
        Mutant::TellsNobody => decided,
        Mutant::LosesRemovals => decided || matches!(packet.body, Body::Removed { .. }),
        Mutant::LosesWelcomes => matches!(packet.body, Body::Welcome(_)),
        Mutant::CountsFromReceipt
        | Mutant::EvictsOnSuspicion
        | Mutant::RenewsRefused
        | Mutant::GrantsAfterAccepting
        | Mutant::FastClocks
        | Mutant::DecidesAlone
        | Mutant::ForgetsAccepted
        | Mutant::IgnoresViews
        | Mutant::LosesClaims
        | Mutant::LosesTicks
        | Mutant::IgnoresFreeze => false,
    };
    !lost
}
