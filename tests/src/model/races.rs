//! Situations that must have come up, each named for the race that begins there. A configuration in which one of its
//! races cannot be reached checks less than it says.

use super::Cluster;
use super::state::{Envelope, State};
use dsm_core::{Access, Message, NodeId, PageId, TransactionId, Want};
use stateright::Property;

/// A race that is to be seen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Race {
    /// Two readers of one page want to write it, and neither has what it wants.
    RacingUpgrades,
    /// An invalidation is on its way to a node that waits for its own upgrade.
    InvalidateMeetsUpgrade,
    /// A forward for a write is on its way to an owner that waits for its own upgrade.
    ForwardMeetsUpgrade,
    /// The home waits for a page of its own while others do.
    HomeFaults,
    /// Others have come to wait, and the requester hears it before the grant comes.
    HurryBeforeGrant,
    /// Others have come to wait when the requester has confirmed already.
    HurryAfterConfirm,
    /// A load is granted as a store.
    MigratoryGrant,
    /// A page that another wants stays until its instruction has retired.
    DeferredRevocation,
    /// An ack has come before the grant that it is for.
    AckBeforeGrant,
    /// A node asks for a page again before its home has heard the last confirmation.
    RequestBeforeConfirm,
    /// Two threads of a node wait for one page, one to load, one to store.
    TwoThreadsWait,
    /// Two nodes hold a page each that the other waits for.
    EachHoldsWhatTheOtherWants,
    /// A copy of a grant arrives while the node waits for another grant of the page.
    StrayMeetsFault,
    /// A page is taken before its instruction has retired.
    TakenTooSoon,
}

impl Race {
    /// The property that says that it is seen.
    pub(super) fn property(self) -> Property<Cluster> {
        let condition: fn(&Cluster, &State) -> bool = match self {
            Race::RacingUpgrades => |_, state| slots(state).any(|page| upgraders(state, page).count() >= 2),
            Race::InvalidateMeetsUpgrade => invalidate_meets_upgrade,
            Race::ForwardMeetsUpgrade => forward_meets_upgrade,
            Race::HomeFaults => home_faults,
            Race::HurryBeforeGrant => |_, state| hurries(state).any(|fault| is_granting(state, fault)),
            Race::HurryAfterConfirm => |_, state| hurries(state).any(|fault| has_confirmed(state, fault)),
            Race::MigratoryGrant => migratory_grant,
            Race::DeferredRevocation => |_, state| state.nodes.iter().any(|node| !node.timers.is_empty()),
            Race::AckBeforeGrant => ack_before_grant,
            Race::RequestBeforeConfirm => request_before_confirm,
            Race::TwoThreadsWait => two_threads_wait,
            Race::EachHoldsWhatTheOtherWants => each_holds_what_the_other_wants,
            Race::StrayMeetsFault => stray_meets_fault,
            Race::TakenTooSoon => taken_too_soon,
        };
        Property::sometimes(self.name(), condition)
    }

    /// What the checker calls it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Race::RacingUpgrades => "two readers race to write",
            Race::InvalidateMeetsUpgrade => "an invalidation meets an upgrade",
            Race::ForwardMeetsUpgrade => "a forward meets the owner's upgrade",
            Race::HomeFaults => "the home faults while others wait",
            Race::HurryBeforeGrant => "a hurry comes before the grant",
            Race::HurryAfterConfirm => "a hurry comes after the confirmation",
            Race::MigratoryGrant => "a load is granted as a store",
            Race::DeferredRevocation => "a revocation waits for an instruction",
            Race::AckBeforeGrant => "an ack comes before the grant",
            Race::RequestBeforeConfirm => "a request overtakes the last confirmation",
            Race::TwoThreadsWait => "two threads wait for one page",
            Race::EachHoldsWhatTheOtherWants => "two nodes hold what the other waits for",
            Race::StrayMeetsFault => "a stray grant meets a later fault",
            Race::TakenTooSoon => "a page is taken before its instruction has retired",
        }
    }
}

fn slots(state: &State) -> std::ops::Range<usize> {
    0..state.latest.len()
}

fn waits(state: &State, node: usize, page: usize, want: Want) -> bool {
    state.nodes[node].threads.iter().any(|thread| thread.faulted == Some((page, want)))
}

/// The nodes that hold a read copy and wait to write.
fn upgraders(state: &State, page: usize) -> impl Iterator<Item = usize> {
    (0..state.nodes.len()).filter(move |&node| {
        state.nodes[node].table[page] == Access::Read && waits(state, node, page, Want::Write)
    })
}

fn upgrades(cluster: &Cluster, state: &State, node: NodeId, page: PageId) -> bool {
    cluster.slot(page).is_some_and(|page| upgraders(state, page).any(|other| other == node.index()))
}

fn invalidate_meets_upgrade(cluster: &Cluster, state: &State) -> bool {
    state.network.iter().any(|envelope| match envelope.message {
        Message::Invalidate { page, .. } => upgrades(cluster, state, envelope.to, page),
        _ => false,
    })
}

fn forward_meets_upgrade(cluster: &Cluster, state: &State) -> bool {
    state.network.iter().any(|envelope| match envelope.message {
        Message::Forward { page, want: Want::Write, .. } => upgrades(cluster, state, envelope.to, page),
        _ => false,
    })
}

fn home_faults(cluster: &Cluster, state: &State) -> bool {
    cluster.pages.iter().enumerate().any(|(slot, &page)| {
        let waiting = |node| waits(state, node, slot, Want::Read) || waits(state, node, slot, Want::Write);
        let home = cluster.home_of(page).index();
        waiting(home) && (0..state.nodes.len()).any(|node| node != home && waiting(node))
    })
}

/// The transactions of which the requester is being told that others wait.
fn hurries(state: &State) -> impl Iterator<Item = TransactionId> {
    state.network.iter().filter_map(|envelope| match envelope.message {
        Message::Hurry { transaction, .. } => Some(transaction),
        _ => None,
    })
}

fn is_granting(state: &State, fault: TransactionId) -> bool {
    state.network.iter().any(|envelope| match envelope.message {
        Message::Grant { transaction, .. } | Message::Forward { transaction, .. } => transaction == fault,
        _ => false,
    })
}

fn has_confirmed(state: &State, fault: TransactionId) -> bool {
    let confirms =
        |message: &Message| matches!(message, Message::Confirm { transaction, .. } if *transaction == fault);
    let under_way = state.network.iter().any(|envelope| confirms(&envelope.message));
    under_way || state.nodes[fault.node.index()].held.iter().any(|(_, message)| confirms(message))
}

fn migratory_grant(cluster: &Cluster, state: &State) -> bool {
    state.network.iter().any(|envelope| match envelope.message {
        Message::Grant { page, access: Access::Write, .. } => {
            let node = envelope.to.index();
            cluster.slot(page).is_some_and(|page| {
                waits(state, node, page, Want::Read) && !waits(state, node, page, Want::Write)
            })
        }
        _ => false,
    })
}

/// A reader whose ack a grant under way names has no copy any more, and neither its invalidation nor its ack is under
/// way: the ack has come.
fn ack_before_grant(_: &Cluster, state: &State) -> bool {
    let is_pending = |reader: NodeId, fault: TransactionId| {
        state.network.iter().any(|envelope| match envelope.message {
            Message::Invalidate { transaction, .. } => envelope.to == reader && transaction == fault,
            Message::Ack { transaction, .. } => envelope.from == reader && transaction == fault,
            _ => false,
        })
    };
    let revokes = |reader: NodeId| {
        let node = &state.nodes[reader.index()];
        !node.probes.is_empty() || !node.timers.is_empty()
    };
    state.network.iter().any(|Envelope { message, .. }| match message {
        Message::Grant { transaction, awaiting, .. } | Message::Forward { transaction, awaiting, .. } => {
            awaiting.iter().any(|reader| !is_pending(reader, *transaction) && !revokes(reader))
        }
        _ => false,
    })
}

fn request_before_confirm(_: &Cluster, state: &State) -> bool {
    // The request has come when the confirmation of an earlier transaction is still under way, and it is not.
    let requested = |node: NodeId, page: PageId| {
        state.network.iter().any(|envelope| match envelope.message {
            Message::Request { page: asked, .. } => envelope.from == node && asked == page,
            Message::Grant { page: granted, .. } => envelope.to == node && granted == page,
            _ => false,
        })
    };
    state.network.iter().any(|envelope| match envelope.message {
        Message::Confirm { page, transaction } => {
            let threads = &state.nodes[transaction.node.index()].threads;
            threads.iter().any(|thread| thread.faulted.is_some()) && !requested(transaction.node, page)
        }
        _ => false,
    })
}

fn two_threads_wait(_: &Cluster, state: &State) -> bool {
    let both = |node| {
        slots(state).any(|page| waits(state, node, page, Want::Read) && waits(state, node, page, Want::Write))
    };
    (0..state.nodes.len()).any(both)
}

fn each_holds_what_the_other_wants(_: &Cluster, state: &State) -> bool {
    let holds = |node: usize, page: usize| state.nodes[node].unretired[page] != 0;
    let wants = |node: usize, page: usize| {
        waits(state, node, page, Want::Read) || waits(state, node, page, Want::Write)
    };
    let nodes = 0..state.nodes.len();
    nodes.clone().any(|one| {
        nodes
            .clone()
            .any(|other| one != other && holds(one, 0) && wants(other, 0) && holds(other, 1) && wants(one, 1))
    })
}

fn stray_meets_fault(cluster: &Cluster, state: &State) -> bool {
    state.network.iter().any(|envelope| match envelope.message {
        Message::Grant { page, .. } if envelope.stray => {
            let node = envelope.to.index();
            cluster.slot(page).is_some_and(|page| {
                waits(state, node, page, Want::Read) || waits(state, node, page, Want::Write)
            })
        }
        _ => false,
    })
}

fn taken_too_soon(_: &Cluster, state: &State) -> bool {
    state.nodes.iter().any(|node| {
        node.table
            .iter()
            .zip(&node.unretired)
            .any(|(&access, &unretired)| access == Access::None && unretired != 0)
    })
}
