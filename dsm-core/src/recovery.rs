//! After a change of the view: what all members report, and what follows from it for every page.
//!
//! ```text
//!   Settled ── view ──▶ Gathering ── all reports ──▶ Concluded ── all are ready ──▶ Settled
//! ```
//! Every member reports to every other what it holds, once; all draw the same conclusions from the same reports, which
//! is one cut; and none goes on before all have drawn them. A further change of the view starts over. The directory is
//! never replicated: it is rebuilt from what the members hold. What becomes of each page is the business of `fates`.

mod fates;

use crate::copyset::Copyset;
use crate::event::Event;
use crate::geometry::Geometry;
use crate::ids::{Address, CallId, LockId, NodeId, PageId, ViewId};
use crate::message::{Holding, Lost, Message, PageRun, SpanRange};
use crate::view::View;
pub(crate) use fates::{Fate, Fates, kept};
use std::collections::BTreeMap;

/// What a member has reported.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct Reported {
    /// Pages of which something is held.
    pub held: Vec<PageRun>,
    /// Pages that a home knows to have been stored to.
    pub known: Vec<PageRun>,
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
    pub lost: BTreeMap<u64, LostRun>,
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

/// Pages that are lost, from some page on.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct LostRun {
    pub pages: u64,
    pub last_owner: Option<NodeId>,
    /// The view in whose recovery they were found lost.
    pub view: ViewId,
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
                    runs.push(PageRun {
                        first: PageId(from),
                        pages: until - from,
                        holding: Holding::Known { owner: None },
                    });
                }
                from = until;
            }
        }
        runs
    }

    /// Adds a run to the pages that are lost. What of it was not lost before, by run.
    pub fn lose(&mut self, first: PageId, run: LostRun) -> Vec<(PageId, LostRun)> {
        let end = first.0 + run.pages;
        let mut from = self.lost_run(first).map_or(first.0, |(start, before)| start + before.pages);
        let mut new = Vec::new();
        while from < end {
            let next =
                self.lost.range(from..end).next().map(|(&start, before)| (start, start + before.pages));
            let (until, resume) = next.unwrap_or((end, end));
            if from < until {
                new.push((PageId(from), LostRun { pages: until - from, ..run }));
            }
            from = resume;
        }
        self.lost.extend(new.iter().map(|(first, run)| (first.0, *run)));
        new
    }

    /// What is known of the loss of `page`, if it is lost.
    pub fn lost(&self, page: PageId) -> Option<Lost> {
        self.lost_run(page).map(|(_, run)| Lost { page, last_owner: run.last_owner, view: run.view })
    }

    /// What is known of the loss of the domain that `lock` owns, if it is lost.
    pub fn lost_domain(&self, lock: LockId, geometry: Geometry) -> Option<Lost> {
        geometry.page_of(lock.0).and_then(|page| self.lost(page))
    }

    fn lost_run(&self, page: PageId) -> Option<(u64, LostRun)> {
        let (&first, &run) = self.lost.range(..=page.0).next_back()?;
        (page.0 < first + run.pages).then_some((first, run))
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
