//! After a change of the view: what all members report, and what follows from it for every page.
//!
//! ```text
//!   Settled ── view ──▶ Gathering ── all reports ──▶ Concluded ── all are ready ──▶ Settled
//! ```
//! Every member reports to every other what it holds, once; all draw the same conclusions from the same reports, which
//! is one cut; and none goes on before all have drawn them. A further change of the view starts over. The directory is
//! never replicated: it is rebuilt from what the members hold.

use crate::copyset::Copyset;
use crate::event::Event;
use crate::geometry::Geometry;
use crate::ids::{Address, CallId, LockId, NodeId, PageId, Version, ViewId};
use crate::message::{Holding, Message, PageRun, SpanOwner, SpanRange};
use crate::view::View;
use std::collections::{BTreeMap, BTreeSet};

/// What a member has reported.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct Reported {
    pub runs: Vec<PageRun>,
    pub locks: Vec<(LockId, CallId)>,
    pub spans: Vec<SpanRange>,
    pub roots: Vec<(String, u64, Option<Address>)>,
    /// What comes last: the report is complete.
    pub end: Option<End>,
}

/// The end of a report.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct End {
    /// Barriers passed.
    pub generation: u64,
    /// The view by which the directory goes.
    pub directory: ViewId,
    /// The last view known to be fully replicated.
    pub replicated: ViewId,
}

/// How far the recovery of one node is.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Recovery {
    pub view: View,
    pub phase: Phase,
    pub reports: BTreeMap<NodeId, Reported>,
    /// Members that have drawn their conclusions.
    pub ready: Copyset,
    /// Members all of whose pages are replicated in this view.
    pub replicated: Copyset,
    /// The views since the last that was fully replicated, that one included, and this one not.
    pub since: Vec<View>,
    /// What members that went on have said already.
    pub held: Vec<(NodeId, Message)>,
    /// What threads of this node asked for meanwhile.
    pub deferred: Vec<Event>,
    /// Pages that are lost, as runs.
    pub lost: BTreeMap<u64, u64>,
    /// The view by which this node's directory goes.
    pub directory: ViewId,
}

/// What a node is at.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Phase {
    /// Serving.
    Settled,
    /// Waiting for reports.
    Gathering,
    /// Waiting for the others to have drawn their conclusions.
    Concluded,
}

/// What is to become of a run of pages.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Fate {
    /// Nobody holds it any more, or what is held may be out of date.
    Lost,
    /// Its owner lives, and `copies` have read copies.
    Stays { owner: NodeId, copies: Copyset, kept: Vec<(NodeId, Version)> },
    /// Its owner is gone: `owner` has its last state that others may have seen, and takes over.
    Adopted { owner: NodeId, copies: Copyset, kept: Vec<(NodeId, Version)> },
}

impl Recovery {
    pub fn new(view: View) -> Recovery {
        Recovery {
            directory: view.id(),
            view,
            phase: Phase::Settled,
            reports: BTreeMap::new(),
            ready: Copyset::EMPTY,
            replicated: Copyset::EMPTY,
            since: Vec::new(),
            held: Vec::new(),
            deferred: Vec::new(),
            lost: BTreeMap::new(),
        }
    }

    /// A new view: what was gathered for another means nothing any more.
    pub fn install(&mut self, view: View) {
        let before = core::mem::replace(&mut self.view, view);
        self.since.push(before);
        self.phase = Phase::Gathering;
        self.reports.clear();
        self.ready = Copyset::EMPTY;
        self.replicated = Copyset::EMPTY;
        self.held.clear();
    }

    /// Whether every member's report is complete.
    pub fn is_complete(&self) -> bool {
        let whole = |node: NodeId| self.reports.get(&node).is_some_and(|report| report.end.is_some());
        self.view.members().iter().all(whole)
    }

    /// Whether some node has died together with all that kept its commits, since all pages were last known to have all
    /// their holders.
    pub fn lost_a_group(&self) -> bool {
        let known = self.reports.values().filter_map(|report| report.end).map(|end| end.replicated).max();
        let members = self.view.members();
        let dead =
            |view: &View, node: NodeId| view.buddies_of(node).with(node).intersection(members).is_empty();
        let since = self.since.iter().filter(|view| known.is_none_or(|known| view.id() >= known));
        since.into_iter().any(|view| view.members().iter().any(|node| dead(view, node)))
    }

    /// Barriers that some member has passed.
    pub fn passed(&self) -> u64 {
        self.reports.values().filter_map(|report| report.end).map(|end| end.generation).max().unwrap_or(0)
    }

    /// The fate of every page that some member reports, by run, in ascending order.
    pub fn fates(&self, geometry: Geometry) -> Vec<(PageId, u64, Fate)> {
        let lossy = self.lost_a_group();
        let suspects = if lossy { self.suspects(geometry) } else { Vec::new() };
        let mut bounds: Vec<u64> = Vec::new();
        for run in self.reports.values().flat_map(|report| &report.runs).chain(&suspects) {
            bounds.push(run.first.0);
            bounds.push(run.first.0.saturating_add(run.pages));
        }
        bounds.sort_unstable();
        bounds.dedup();
        let mut cursors: Vec<(NodeId, &[PageRun])> =
            self.reports.iter().map(|(node, report)| (*node, report.runs.as_slice())).collect();
        // They are nobody's, so it does not matter whose they are called.
        cursors.push((NodeId::COORDINATOR, &suspects));
        let mut fates = Vec::new();
        for bound in bounds.windows(2) {
            let (first, end) = (bound[0], bound[1]);
            let mut held = Vec::new();
            for (node, runs) in &mut cursors {
                while runs.first().is_some_and(|run| run.first.0 + run.pages <= first) {
                    *runs = &runs[1..];
                }
                if let Some(run) = runs.first().filter(|run| run.first.0 <= first) {
                    held.push((*node, run.holding));
                }
            }
            if let Some(fate) = fate(&held, lossy) {
                fates.push((PageId(first), end - first, fate));
            }
        }
        self.lose_domains(&mut fates);
        fates
    }

    /// A domain with one lost page is lost as a whole: what is left of it means nothing without the rest.
    fn lose_domains(&self, fates: &mut Vec<(PageId, u64, Fate)>) {
        if !fates.iter().any(|(_, _, fate)| *fate == Fate::Lost) {
            return;
        }
        let spans: BTreeSet<SpanRange> =
            self.reports.values().flat_map(|report| &report.spans).copied().collect();
        let overlaps = |span: &SpanRange, first: PageId, pages: u64| {
            first.0 < span.first.0 + span.pages && span.first.0 < first.0 + pages
        };
        let is_lost = |span: &&SpanRange| {
            fates.iter().any(|(first, pages, fate)| *fate == Fate::Lost && overlaps(span, *first, *pages))
        };
        let domain = |span: &SpanRange| match span.owner {
            SpanOwner::Domain(address) => Some(address),
            SpanOwner::Node(_) | SpanOwner::NewDomain => None,
        };
        let lost: BTreeSet<Address> = spans.iter().filter(is_lost).filter_map(domain).collect();
        for span in spans.iter().filter(|span| domain(span).is_some_and(|address| lost.contains(&address))) {
            let (from, end) = (span.first.0, span.first.0 + span.pages);
            let mut outside = Vec::new();
            fates.retain(|(first, pages, fate)| {
                if !overlaps(span, *first, *pages) {
                    return true;
                }
                let (start, stop) = (first.0, first.0 + pages);
                outside.extend(
                    [(start, from.min(stop)), (end.max(start), stop)].map(|(a, b)| (a, b, fate.clone())),
                );
                false
            });
            fates.extend(
                outside.into_iter().filter(|(a, b, _)| a < b).map(|(a, b, fate)| (PageId(a), b - a, fate)),
            );
            fates.push((span.first, span.pages, Fate::Lost));
        }
        fates.sort_unstable_by_key(|(first, _, _)| *first);
    }

    /// Leased pages of which nobody can say whether somebody has stored to them: their home is gone.
    fn suspects(&self, geometry: Geometry) -> Vec<PageRun> {
        let view_of = |id: ViewId| self.since.iter().chain([&self.view]).find(|view| view.id() == id);
        let knows = |page: PageId| {
            self.reports.iter().any(|(node, report)| {
                let view = report.end.and_then(|end| view_of(end.directory));
                view.is_some_and(|view| geometry.home_of(page, view.members()) == *node)
            })
        };
        let mut spans: Vec<SpanRange> =
            self.reports.values().flat_map(|report| &report.spans).copied().collect();
        spans.sort_unstable_by_key(|span| (span.first, span.pages));
        let mut runs: Vec<PageRun> = Vec::new();
        let mut from = 0;
        for span in spans {
            let end = span.first.0 + span.pages;
            from = from.max(span.first.0);
            while from < end {
                let segment = geometry.pages_of(geometry.segment_of(PageId(from)));
                let until = segment.end.min(end);
                if !knows(PageId(from)) {
                    runs.push(PageRun { first: PageId(from), pages: until - from, holding: Holding::Known });
                }
                from = until;
            }
        }
        runs
    }

    /// Adds a run to the pages that are lost.
    pub fn lose(&mut self, first: PageId, pages: u64) {
        self.lost.insert(first.0, pages);
    }

    /// Whether `page` is lost.
    pub fn is_lost(&self, page: PageId) -> bool {
        self.lost.range(..=page.0).next_back().is_some_and(|(first, pages)| page.0 < first + pages)
    }
}

/// What is to become of a page of which these members hold this. Everything that any survivor has seen is kept: the
/// owner has it, and so does whoever has a copy; what is kept for others is the last state that others may have seen,
/// unless a later one went with all of its holders.
fn fate(held: &[(NodeId, Holding)], lossy: bool) -> Option<Fate> {
    let mut owner = None;
    let mut copies = Copyset::EMPTY;
    let mut kept = Vec::new();
    for &(node, holding) in held {
        match holding {
            Holding::Lost => return Some(Fate::Lost),
            Holding::Known => {}
            Holding::Owned => owner = owner.or(Some(node)),
            Holding::Copy => copies = copies.with(node),
            Holding::Kept(version) => kept.push((node, version)),
        }
    }
    let newest = kept.iter().map(|(_, version)| *version).max();
    let keeper = kept.iter().find(|(_, version)| Some(*version) == newest).map(|(node, _)| *node);
    match (owner, copies.iter().next(), keeper) {
        (Some(owner), _, _) => Some(Fate::Stays { owner, copies: copies.without(owner), kept }),
        (None, Some(owner), _) => Some(Fate::Adopted { owner, copies: copies.without(owner), kept }),
        (None, None, Some(owner)) if !lossy => Some(Fate::Adopted { owner, copies, kept }),
        (None, None, _) if lossy && !held.is_empty() => Some(Fate::Lost),
        // What its owner stored was never replicated, so nobody has seen it: it is as nobody had ever touched it.
        (None, None, _) => None,
    }
}

/// Pages with what is held of them, in ascending order, as runs.
pub(crate) fn runs(pages: impl Iterator<Item = (PageId, Holding)>) -> Vec<PageRun> {
    let mut runs: Vec<PageRun> = Vec::new();
    for (page, holding) in pages {
        match runs.last_mut() {
            Some(run) if run.holding == holding && run.first.0 + run.pages == page.0 => run.pages += 1,
            Some(_) | None => runs.push(PageRun { first: page, pages: 1, holding }),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Incarnation, RecordId};
    use crate::limits;
    use crate::view::Host;

    const PAGE_SIZE: u64 = limits::PAGE_SIZE_MIN;

    fn geometry() -> Geometry {
        Geometry::new(limits::REGION_BASE_DEFAULT, 1 << 30, PAGE_SIZE).expect("it fits")
    }

    fn run(first: u64, pages: u64, holding: Holding) -> PageRun {
        PageRun { first: PageId(first), pages, holding }
    }

    fn kept(record: u64) -> Holding {
        Holding::Kept(Version { view: ViewId::FIRST, record: RecordId(record) })
    }

    /// Of `nodes` nodes with `replicas` replicas those of `gone` are gone, and the others report these runs.
    fn after(nodes: u16, replicas: u32, gone: &[u16], runs: &[(u16, Vec<PageRun>)]) -> Recovery {
        let named = (0..nodes).map(|rank| (NodeId(rank), Incarnation(1), Host(u64::from(rank))));
        let first = View::first(named, replicas);
        let second = first.next(gone.iter().map(|rank| NodeId(*rank)).collect(), []);
        let mut recovery = Recovery::new(first);
        recovery.install(second);
        for (rank, runs) in runs {
            let end = End { generation: 0, directory: ViewId::FIRST, replicated: ViewId::FIRST };
            let report = Reported { runs: runs.clone(), end: Some(end), ..Reported::default() };
            recovery.reports.insert(NodeId(*rank), report);
        }
        recovery
    }

    #[test]
    fn the_greatest_version_takes_over_and_readers_come_before_it() {
        let recovery = after(
            4,
            1,
            &[3],
            &[
                (0, vec![run(0, 4, kept(1)), run(9, 1, Holding::Copy)]),
                (1, vec![run(2, 4, kept(2)), run(9, 1, kept(5))]),
                (2, vec![run(9, 1, Holding::Copy)]),
            ],
        );
        let of = |fates: &[(PageId, u64, Fate)], page: u64| {
            let found = fates.iter().find(|(first, pages, _)| (first.0..first.0 + pages).contains(&page));
            match found.map(|(_, _, fate)| fate.clone()) {
                Some(Fate::Adopted { owner, copies, .. }) => Some((owner.0, copies)),
                other => panic!("page {page}: {other:?}"),
            }
        };
        let fates = recovery.fates(geometry());
        assert_eq!(of(&fates, 0), Some((0, Copyset::EMPTY)));
        assert_eq!(of(&fates, 3), Some((1, Copyset::EMPTY)));
        assert_eq!(of(&fates, 5), Some((1, Copyset::EMPTY)));
        assert_eq!(of(&fates, 9), Some((0, Copyset::EMPTY.with(NodeId(2)))));
    }

    #[test]
    fn what_is_kept_counts_only_while_no_node_is_gone_with_all_its_buddies() {
        let runs = [(0, vec![run(7, 1, kept(1)), run(8, 1, Holding::Owned)]), (1, vec![])];
        let survives = after(4, 2, &[2, 3], &runs).fates(geometry());
        assert!(survives.iter().all(|(_, _, fate)| *fate != Fate::Lost), "{survives:?}");
        // The buddy of rank 2 is rank 3.
        let lossy = after(4, 1, &[2, 3], &runs).fates(geometry());
        assert_eq!(lossy[0], (PageId(7), 1, Fate::Lost));
        assert!(matches!(lossy[1].2, Fate::Stays { owner: NodeId(0), .. }));
    }

    #[test]
    fn a_domain_with_one_lost_page_is_lost_as_a_whole() {
        let mut recovery = after(
            4,
            1,
            &[2, 3],
            &[(0, vec![run(0, 10, Holding::Owned)]), (1, vec![run(4, 1, Holding::Lost)])],
        );
        let owner = SpanOwner::Domain(geometry().address_of(PageId(2)));
        let spans =
            [(2, 2), (4, 1), (20, 3)].map(|(first, pages)| SpanRange { first: PageId(first), pages, owner });
        recovery.reports.get_mut(&NodeId(0)).expect("it reported").spans.extend(spans);
        let fates = recovery.fates(geometry());
        let lost: Vec<(u64, u64)> = fates
            .iter()
            .filter(|(_, _, fate)| *fate == Fate::Lost)
            .map(|(first, pages, _)| (first.0, *pages))
            .collect();
        assert_eq!(lost, [(2, 2), (4, 1), (20, 3)]);
        let rest: u64 =
            fates.iter().filter(|(_, _, fate)| *fate != Fate::Lost).map(|(_, pages, _)| pages).sum();
        assert_eq!(rest, 7);
    }
}
