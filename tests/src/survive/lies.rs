//! The lies of those mutants that are faults of the network: messages that are lost, forged, or say what is not so.
//!
//! A message of a node to itself never leaves its machine, so nothing can be made of that.

use super::mutant::Mutant;
use super::network::Said;
use super::world::World;
use dsm_core::{
    CallId, Commit, Copyset, LockId, Message, NodeId, PageId, RecordId, Report, Standing, Ticket, Version,
    ViewId,
};
use std::collections::{BTreeMap, BTreeSet};

/// Records of one node on the way to another, in one view.
type Way = (ViewId, NodeId, NodeId);

/// What a lying network remembers.
#[derive(Default)]
pub struct Lies {
    /// The last record that was let through.
    through: BTreeMap<Way, RecordId>,
    /// The last record that was sent.
    sent: BTreeMap<Way, RecordId>,
    /// Records of which a page was let through.
    begun: BTreeSet<(Way, RecordId)>,
    /// The pages of each record, and who has acked it.
    records: BTreeMap<(ViewId, NodeId, RecordId), (BTreeSet<PageId>, Copyset)>,
    /// Who has said that all of its pages are replicated.
    replicated: BTreeSet<(ViewId, NodeId)>,
    /// Releases and arrivals that came before they were sent, and that must not come twice.
    unlocked: BTreeSet<(LockId, Ticket)>,
    arrived: BTreeSet<(NodeId, u64)>,
    /// Locks whose holders died.
    pub(super) bequeathed: BTreeSet<LockId>,
}

/// Of so many records, one never comes, for the mutant that loses some.
const LOST_ONE_OF: u64 = 3;

impl World {
    /// What a lying network carries in the stead of a message.
    pub(super) fn lies(&mut self, mutant: Mutant, said: Said) -> Option<Said> {
        if matches!(said.message, Message::Commit(_)) {
            self.lie_about_commits(mutant, said)
        } else if matches!(said.message, Message::Report(_)) {
            self.lie_about_recovery(mutant, said)
        } else {
            self.lie_about_services(mutant, said)
        }
    }

    fn lie_about_commits(&mut self, mutant: Mutant, mut said: Said) -> Option<Said> {
        let way = (said.view, said.from, said.to);
        match (mutant, &mut said.message) {
            (Mutant::AcksBeforeKept, Message::Commit(Commit::End { record, .. })) => {
                let record = *record;
                self.forge(said.to, said.from, Message::Commit(Commit::Ack { record }));
            }
            (
                Mutant::AcksWhatNeverCame | Mutant::SkipsNewBuddies,
                Message::Commit(Commit::Page { record, .. }),
            ) => {
                let record = *record;
                return (!self.is_to_be_lost(mutant, way, record)).then_some(said);
            }
            (
                Mutant::AcksWhatNeverCame | Mutant::SkipsNewBuddies,
                Message::Commit(Commit::End { record, previous, .. }),
            ) => {
                let record = *record;
                // The receiver is not to miss what it did not get.
                *previous = self.lies.through.get(&way).copied().unwrap_or(RecordId::NONE);
                if self.is_to_be_lost(mutant, way, record) {
                    self.forge(said.to, said.from, Message::Commit(Commit::Ack { record }));
                    return None;
                }
                self.lies.through.insert(way, record);
            }
            (Mutant::AcksAnyNumber, Message::Commit(Commit::End { record, .. })) => {
                self.lies.sent.insert(way, *record);
            }
            (Mutant::AcksAnyNumber, Message::Commit(Commit::Ack { record })) => {
                *record = self.lies.sent.get(&(said.view, said.to, said.from)).copied().unwrap_or(*record);
            }
            (Mutant::CommitsOnePage, Message::Commit(Commit::Page { record, .. })) => {
                return self.lies.begun.insert((way, *record)).then_some(said);
            }
            (Mutant::CommitsOnePage, Message::Commit(Commit::End { pages, .. })) => *pages = 1,
            (Mutant::ReleasesBeforeAcked, Message::Commit(Commit::Page { record, page })) => {
                let (record, page) = (*record, *page);
                self.release_all(said.from, page, record);
            }
            (Mutant::ReleasesAtOnce, Message::Commit(Commit::Page { record, page })) => {
                self.lies.records.entry((said.view, said.from, *record)).or_default().0.insert(*page);
            }
            (Mutant::ReleasesAtOnce, Message::Commit(Commit::Ack { record })) => {
                let record = *record;
                let buddies = self.nodes[said.to.index()].machine.view().buddies_of(said.to);
                let (pages, acked) = self.lies.records.entry((said.view, said.to, record)).or_default();
                *acked = acked.with(said.from);
                if buddies.minus(*acked).is_empty() {
                    for page in core::mem::take(pages) {
                        self.release_all(said.to, page, record);
                    }
                }
            }
            (Mutant::LosesReleases, Message::Commit(Commit::Release { .. })) => return None,
            (_, _) => {}
        }
        Some(said)
    }

    fn is_to_be_lost(&self, mutant: Mutant, (view, from, to): Way, record: RecordId) -> bool {
        if mutant == Mutant::AcksWhatNeverCame {
            return record.0.is_multiple_of(LOST_ONE_OF);
        }
        let before = self.views.iter().find(|before| before.id().0 + 1 == view.0);
        let new = before.is_some_and(|before| !before.buddies_of(from).contains(to));
        new && !self.lies.replicated.contains(&(view, from))
    }

    /// All but its buddies hear from `owner` that they need not keep what came before `record`.
    fn release_all(&mut self, owner: NodeId, page: PageId, record: RecordId) {
        let view = self.nodes[owner.index()].machine.view();
        let before = Version { view: view.id(), record };
        let others = view.members().minus(view.buddies_of(owner)).without(owner);
        // Whoever is in another view does not hear it.
        let installed = |node: NodeId| self.nodes[node.index()].installed;
        let hearing: Vec<_> = others.iter().filter(|other| installed(*other) == installed(owner)).collect();
        for other in hearing {
            self.forge(owner, other, Message::Commit(Commit::Release { page, before }));
        }
    }

    fn lie_about_recovery(&mut self, mutant: Mutant, mut said: Said) -> Option<Said> {
        match (mutant, &mut said.message) {
            (Mutant::ResumesAlone, Message::Report(Report::Ready)) => {
                self.forge(said.to, said.from, Message::Report(Report::Ready));
                return None;
            }
            (Mutant::LosesNothing, Message::Report(Report::Groups { groups })) => {
                groups.retain(|group| !group.is_empty())
            }
            (Mutant::LosesNothing, Message::Report(Report::End(Standing { replicated, .. }))) => {
                *replicated = self.nodes[said.from.index()].machine.view().id();
            }
            (Mutant::ForgetsBarriers, Message::Report(Report::End(Standing { generation, .. }))) => {
                *generation = 0
            }
            (Mutant::KeepsLocksOfTheDead, Message::Report(Report::End(_))) => {
                // Somebody holds them, it seems.
                let held = self.lies.bequeathed.iter().map(|lock| (*lock, CallId(u64::MAX))).collect();
                self.carry(Said { message: Message::Report(Report::Locks { held }), ..said.clone() });
            }
            (Mutant::SkipsNewBuddies, Message::Report(Report::Replicated)) => {
                self.lies.replicated.insert((said.view, said.from));
            }
            (_, _) => {}
        }
        Some(said)
    }

    fn lie_about_services(&mut self, mutant: Mutant, mut said: Said) -> Option<Said> {
        match (mutant, &mut said.message) {
            (Mutant::HidesInheritance, Message::LockGrant { recovered, .. }) => *recovered = None,
            (Mutant::UnlocksEarly, Message::LockRelease { lock, ticket }) => {
                return (!self.lies.unlocked.remove(&(*lock, *ticket))).then_some(said);
            }
            (Mutant::ArrivesEarly, Message::BarrierArrive { generation }) => {
                return (!self.lies.arrived.remove(&(said.from, *generation))).then_some(said);
            }
            (_, _) => {}
        }
        Some(said)
    }

    /// A thread releases a lock: its home hears of it at once, if a mutant says so.
    pub(super) fn unlock_early(&mut self, node: NodeId, lock: LockId, acquired: CallId) {
        let Some(page) = self.plan.geometry.page_of(lock.0) else { return };
        let home = self.plan.geometry.home_of(page, self.nodes[node.index()].machine.view().members());
        if self.mutant == Some(Mutant::UnlocksEarly) && home != node && self.nodes[node.index()].serves() {
            let ticket = Ticket { node, call: acquired };
            self.lies.unlocked.insert((lock, ticket));
            self.forge(node, home, Message::LockRelease { lock, ticket });
        }
    }

    /// A thread comes to the barrier: the coordinator hears of it at once, if a mutant says so.
    pub(super) fn arrive_early(&mut self, node: NodeId, generation: u64) {
        let coordinator = self.nodes[node.index()].machine.view().coordinator();
        if self.mutant == Some(Mutant::ArrivesEarly)
            && coordinator != node
            && self.nodes[node.index()].serves()
        {
            self.lies.arrived.insert((node, generation));
            self.forge(node, coordinator, Message::BarrierArrive { generation });
        }
    }
}
