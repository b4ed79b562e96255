//! What becomes of each page after a change of the view, as runs: one pass over what all members reported.

use super::Recovery;
use crate::copyset::Copyset;
use crate::geometry::Geometry;
use crate::ids::{Address, NodeId, PageId, Version, ViewId};
use crate::message::{Holding, PageRun, SpanOwner, SpanRange};
use std::collections::{BTreeMap, BTreeSet};

/// What is to become of a run of pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fate {
    /// Nobody holds it any more, or what is held may be out of date.
    Lost { last_owner: Option<NodeId>, view: ViewId },
    /// Its owner lives, and `copies` have read copies.
    Stays { owner: NodeId, copies: Copyset },
    /// Its owner is gone: `owner` has its last state that others may have seen, and takes over.
    Adopted { owner: NodeId, copies: Copyset },
}

/// All that bears on the fates of pages, after all members have reported.
pub(crate) struct Fates<'a> {
    /// Who reported which runs. What homes know comes last, the latest directory's first.
    reported: Vec<(NodeId, &'a [PageRun])>,
    /// Leased pages of which nobody can say whether somebody has stored to them.
    suspects: Vec<PageRun>,
    /// The spans of domains that are lost because some page of them is.
    domains: Vec<PageRun>,
    judge: Judge,
}

/// By what a page is judged of which it is known who holds what.
#[derive(Clone, Copy)]
struct Judge {
    view: ViewId,
    members: Copyset,
    gone: Copyset,
    /// Whether some node is gone together with all that kept its commits.
    lossy: bool,
    /// Whether nothing is kept for others.
    unreplicated: bool,
}

impl<'a> Fates<'a> {
    /// The fates of all pages that some member of `recovery` reports.
    pub fn new(recovery: &'a Recovery, geometry: Geometry) -> Fates<'a> {
        let (lossy, view) = (recovery.lost_a_group(), &recovery.view);
        let (members, gone) = (view.members(), recovery.all_gone());
        let unreplicated = view.replicas() == 0;
        let judge = Judge { view: view.id(), members, gone, lossy, unreplicated };
        let reports = &recovery.reports;
        let mut reported: Vec<_> = reports.iter().map(|(node, it)| (*node, it.held.as_slice())).collect();
        let mut homes: Vec<_> = reports.iter().filter(|(_, it)| !it.known.is_empty()).collect();
        homes.sort_by_key(|(_, it)| core::cmp::Reverse(it.end.map(|end| end.directory)));
        reported.extend(homes.into_iter().map(|(node, it)| (*node, it.known.as_slice())));
        let suspects = if lossy { suspects(recovery, gone, geometry) } else { Vec::new() };
        let mut fates = Fates { reported, suspects, domains: Vec::new(), judge };
        fates.domains = fates.lost_domains(recovery.leased(geometry).into_iter());
        fates
    }

    /// Visits the run of every page of which something is held or known, in ascending order: what becomes of it, and
    /// what members hold of it.
    pub fn visit(&self, mut visit: impl FnMut(PageId, u64, Fate, &[(NodeId, Holding)])) {
        let mut cursors = self.reported.clone();
        // Suspects and domains are nobody's, so it does not matter whose they are called.
        cursors.push((NodeId::COORDINATOR, &self.suspects));
        cursors.push((NodeId::COORDINATOR, &self.domains));
        let mut held = Vec::new();
        let mut from = 0;
        loop {
            held.clear();
            let mut until = u64::MAX;
            for (node, runs) in &mut cursors {
                while runs.first().is_some_and(|run| run.first.0 + run.pages <= from) {
                    *runs = &runs[1..];
                }
                let Some(run) = runs.first() else { continue };
                if run.first.0 > from {
                    until = until.min(run.first.0);
                } else {
                    until = until.min(run.first.0 + run.pages);
                    held.push((*node, run.holding));
                }
            }
            if until == u64::MAX {
                return;
            }
            if let Some(fate) = self.judge.fate(&held) {
                visit(PageId(from), until - from, fate, &held);
            }
            from = until;
        }
    }

    /// A domain with one lost page is lost as a whole: what is left of it means nothing without the rest. Its spans
    /// among `spans`, in ascending order.
    fn lost_domains(&self, spans: impl Iterator<Item = SpanRange>) -> Vec<PageRun> {
        let mut lost: Vec<(u64, u64, Holding)> = Vec::new();
        self.visit(|first, pages, fate, _| match fate {
            Fate::Lost { last_owner, view } => {
                lost.push((first.0, first.0 + pages, Holding::Lost { last_owner, view }));
            }
            Fate::Stays { .. } | Fate::Adopted { .. } => {}
        });
        if lost.is_empty() {
            return Vec::new();
        }
        let domain = |span: &SpanRange| match span.owner {
            SpanOwner::Domain(address) => Some(address),
            SpanOwner::Node(_) | SpanOwner::NewDomain => None,
        };
        let spans: BTreeSet<(SpanRange, Address)> =
            spans.filter_map(|span| domain(&span).map(|address| (span, address))).collect();
        let mut domains: BTreeMap<Address, Holding> = BTreeMap::new();
        for (span, address) in &spans {
            let after = lost.partition_point(|(_, end, _)| *end <= span.first.0);
            if let Some((_, _, how)) =
                lost.get(after).filter(|(first, _, _)| *first < span.first.0 + span.pages)
            {
                domains.entry(*address).or_insert(*how);
            }
        }
        // Spans do not overlap, whatever members report: each page is in the first that has it.
        let mut end = 0;
        let mut runs = Vec::new();
        for (span, address) in spans {
            let Some(&holding) = domains.get(&address) else { continue };
            let (first, until) = (span.first.0.max(end), span.first.0 + span.pages);
            if first < until {
                runs.push(PageRun { first: PageId(first), pages: until - first, holding });
                end = until;
            }
        }
        runs
    }
}

impl Judge {
    /// What is to become of a page of which these members hold this. Everything that any survivor has seen is kept: the
    /// owner has it, and so does whoever has a copy; what is kept for others is the last state that others may have
    /// seen, unless a later one went with all of its holders.
    fn fate(&self, held: &[(NodeId, Holding)]) -> Option<Fate> {
        let mut owner = None;
        let mut copies = Copyset::EMPTY;
        let mut newest: Option<(Version, NodeId)> = None;
        let mut known = None;
        for &(node, holding) in held {
            match holding {
                Holding::Lost { last_owner, view } => return Some(Fate::Lost { last_owner, view }),
                Holding::Known { owner } => known = known.or(owner),
                Holding::Owned => owner = owner.or(Some(node)),
                Holding::Copy => copies = copies.with(node),
                Holding::Kept(version) => {
                    newest = newest.filter(|(best, _)| *best >= version).or(Some((version, node)));
                }
            }
        }
        // Where nothing is kept, a page that is on its way between two that live is in the frame of the one that sent
        // it: its home has heard of no other owner.
        let sender = known.filter(|sender| self.unreplicated && self.members.contains(*sender));
        let sender = sender.filter(|sender| !self.gone.contains(*sender));
        let keeper = newest.map(|(_, node)| node).filter(|_| !self.lossy).or(sender);
        match (owner, copies.iter().next().or(keeper)) {
            (Some(owner), _) => Some(Fate::Stays { owner, copies: copies.without(owner) }),
            (None, Some(owner)) => Some(Fate::Adopted { owner, copies: copies.without(owner) }),
            (None, None) if self.lossy && !held.is_empty() => {
                // Whoever owned it is gone: where just one is, it is that one.
                let only = self.gone.iter().next().filter(|_| self.gone.len() == 1);
                Some(Fate::Lost { last_owner: known.or(only), view: self.view })
            }
            // What its owner stored was never replicated, so nobody has seen it: it is as nobody had ever touched it.
            (None, None) => None,
        }
    }
}

/// Leased pages of which nobody can say whether somebody has stored to them: their home is gone. They were most likely
/// their lessee's. Where all that knew anything are gone, these are all pages.
fn suspects(recovery: &Recovery, gone: Copyset, geometry: Geometry) -> Vec<PageRun> {
    if recovery.knows_nothing() {
        let holding = Holding::Known { owner: None };
        return vec![PageRun { first: PageId(0), pages: geometry.pages(), holding }];
    }
    let knows = |page: PageId| {
        recovery.reports.iter().any(|(node, report)| {
            let homes = report.end.map_or(Copyset::EMPTY, |end| end.homes);
            !homes.is_empty() && geometry.home_of(page, homes) == *node
        })
    };
    let mut runs: Vec<PageRun> = Vec::new();
    let mut from = 0;
    for span in recovery.leased(geometry) {
        let owner = match span.owner {
            SpanOwner::Node(node) if gone.contains(node) => Some(node),
            SpanOwner::Node(_) | SpanOwner::Domain(_) | SpanOwner::NewDomain => None,
        };
        let end = span.first.0 + span.pages;
        from = from.max(span.first.0);
        while from < end {
            let segment = geometry.pages_of(geometry.segment_of(PageId(from)));
            let until = segment.end.min(end);
            if !knows(PageId(from)) {
                let holding = Holding::Known { owner };
                runs.push(PageRun { first: PageId(from), pages: until - from, holding });
            }
            from = until;
        }
    }
    runs
}

/// The states of a page that members keep, of all that they hold of it.
pub(crate) fn kept(held: &[(NodeId, Holding)]) -> impl Iterator<Item = (NodeId, Version)> + '_ {
    held.iter().filter_map(|&(node, holding)| match holding {
        Holding::Kept(version) => Some((node, version)),
        Holding::Lost { .. } | Holding::Known { .. } | Holding::Copy | Holding::Owned => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Incarnation, RecordId};
    use crate::limits;
    use crate::message::Standing;
    use crate::recovery::Reported;
    use crate::view::{Host, View};

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
            let end = Standing {
                generation: 0,
                left: false,
                directory: ViewId::FIRST,
                homes: Copyset::first(usize::from(nodes)),
                gone: recovery.gone,
                replicated: ViewId::FIRST,
            };
            let (known, held) = runs.iter().partition(|run| matches!(run.holding, Holding::Known { .. }));
            let groups = recovery.groups.clone();
            let report = Reported { held, known, groups, end: Some(end), ..Reported::default() };
            recovery.reports.insert(NodeId(*rank), report);
        }
        recovery
    }

    fn fates(recovery: &Recovery) -> Vec<(u64, u64, Fate)> {
        let mut fates = Vec::new();
        let all = Fates::new(recovery, geometry());
        all.visit(|first, pages, fate, _| fates.push((first.0, pages, fate)));
        fates
    }

    fn lost_by(owner: Option<u16>) -> Fate {
        Fate::Lost { last_owner: owner.map(NodeId), view: ViewId(2) }
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
        let fates = fates(&recovery);
        let of = |page: u64| {
            let found = fates.iter().find(|(first, pages, _)| (*first..first + pages).contains(&page));
            match found.map(|(_, _, fate)| *fate) {
                Some(Fate::Adopted { owner, copies }) => (owner.0, copies),
                other => panic!("page {page}: {other:?}"),
            }
        };
        assert_eq!(of(0), (0, Copyset::EMPTY));
        assert_eq!(of(3), (1, Copyset::EMPTY));
        assert_eq!(of(5), (1, Copyset::EMPTY));
        assert_eq!(of(9), (0, Copyset::EMPTY.with(NodeId(2))));
    }

    #[test]
    fn what_is_kept_counts_only_while_no_node_is_gone_with_all_its_buddies() {
        let runs = [(0, vec![run(7, 1, kept(1)), run(8, 1, Holding::Owned)]), (1, vec![])];
        let survives = fates(&after(4, 2, &[2, 3], &runs));
        assert!(survives.iter().all(|(_, _, fate)| !matches!(fate, Fate::Lost { .. })), "{survives:?}");
        // The buddy of rank 2 is rank 3.
        let lossy = fates(&after(4, 1, &[2, 3], &runs));
        assert_eq!(lossy[0], (7, 1, lost_by(None)));
        assert!(matches!(lossy[1].2, Fate::Stays { owner: NodeId(0), .. }));
    }

    #[test]
    fn what_is_lost_says_whose_it_was_where_the_home_knew() {
        let known = |owner: u16| Holding::Known { owner: Some(NodeId(owner)) };
        let runs = [(0, vec![run(4, 2, kept(1)), run(4, 1, known(3)), run(5, 1, known(2))]), (1, vec![])];
        assert_eq!(fates(&after(4, 1, &[2, 3], &runs)), [(4, 1, lost_by(Some(3))), (5, 1, lost_by(Some(2)))]);
        // What was found lost before stays as it was.
        let before = Holding::Lost { last_owner: Some(NodeId(1)), view: ViewId::FIRST };
        let again = fates(&after(4, 1, &[2, 3], &[(0, vec![run(4, 2, before)]), (1, vec![])]));
        assert_eq!(again, [(4, 2, Fate::Lost { last_owner: Some(NodeId(1)), view: ViewId::FIRST })]);
        // Where one node is gone, it can only have been that one's.
        assert_eq!(
            fates(&after(3, 0, &[2], &[(0, vec![run(4, 1, kept(1))]), (1, vec![])])),
            [(4, 1, lost_by(Some(2)))]
        );
    }

    #[test]
    fn without_replicas_a_page_on_its_way_is_where_it_came_from() {
        let known = |owner: u16| vec![run(3, 1, Holding::Known { owner: Some(NodeId(owner)) })];
        let lives = fates(&after(3, 0, &[2], &[(0, known(1)), (1, vec![])]));
        assert_eq!(lives, [(3, 1, Fate::Adopted { owner: NodeId(1), copies: Copyset::EMPTY })]);
        assert_eq!(fates(&after(3, 0, &[2], &[(0, known(2)), (1, vec![])])), [(3, 1, lost_by(Some(2)))]);
        // What replicas keep is looked for among them alone.
        assert_eq!(fates(&after(3, 1, &[2], &[(0, known(1)), (1, vec![])])), []);
    }

    #[test]
    fn a_domain_with_one_lost_page_is_lost_as_a_whole() {
        let how = Holding::Lost { last_owner: Some(NodeId(3)), view: ViewId::FIRST };
        let mut recovery =
            after(4, 1, &[2, 3], &[(0, vec![run(0, 10, Holding::Owned)]), (1, vec![run(4, 1, how)])]);
        let owner = SpanOwner::Domain(geometry().address_of(PageId(2)));
        let spans =
            [(2, 2), (4, 1), (20, 3)].map(|(first, pages)| SpanRange { first: PageId(first), pages, owner });
        recovery.reports.get_mut(&NodeId(0)).expect("it reported").spans.extend(spans);
        let lost = Fate::Lost { last_owner: Some(NodeId(3)), view: ViewId::FIRST };
        let stays = Fate::Stays { owner: NodeId(0), copies: Copyset::EMPTY };
        assert_eq!(
            fates(&recovery),
            [(0, 2, stays), (2, 2, lost), (4, 1, lost), (5, 5, stays), (20, 3, lost)]
        );
    }

    #[test]
    fn where_only_newcomers_are_left_everything_is_lost() {
        let mut recovery = after(2, 1, &[0], &[(1, vec![])]);
        let report = recovery.reports.get_mut(&NodeId(1)).expect("it reported");
        let end = report.end.as_mut().expect("it is complete");
        (end.replicated, end.directory, end.homes) = (ViewId::NONE, ViewId::NONE, Copyset::EMPTY);
        report.groups.clear();
        assert_eq!(fates(&recovery), [(0, geometry().pages(), lost_by(Some(0)))]);
    }
}
