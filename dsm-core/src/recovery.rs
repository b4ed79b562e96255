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
use crate::message::{Holding, Lost, Message, PageRun, Retired, SpanRange, Standing};
use crate::placement::Placement;
use crate::view::View;
pub(crate) use fates::{Fate, Fates, kept};
use std::collections::{BTreeMap, BTreeSet};

/// What a member has reported.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct Reported {
    /// Pages of which something is held.
    pub held: Vec<PageRun>,
    /// Pages that a home knows to have been stored to.
    pub known: Vec<PageRun>,
    pub locks: Vec<(LockId, CallId)>,
    /// Locks whose holders died, and whose each was.
    pub orphans: Vec<(LockId, NodeId)>,
    pub spans: Vec<SpanRange>,
    pub retired: Vec<Retired>,
    pub roots: Vec<(String, u64, Option<Address>)>,
    pub groups: BTreeSet<Copyset>,
    /// What comes last: the report is complete.
    pub end: Option<Standing>,
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
    /// The last view of which it is known that all pages were replicated.
    pub replicated_in: ViewId,
    /// Of each node with its buddies, in each view since that one, those that live.
    pub groups: BTreeSet<Copyset>,
    /// What members that went on have said already.
    pub held: Vec<(NodeId, Message)>,
    /// What threads of this node asked for meanwhile.
    pub deferred: Vec<Event>,
    /// Pages that are lost, as runs.
    pub lost: BTreeMap<u64, LostRun>,
    /// The view by which this node's directory goes, the members over which the homes of that view are spread, and those
    /// of the members since that are gone.
    pub directory: ViewId,
    pub homes: Copyset,
    pub gone: Copyset,
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
    /// Of a member from the beginning: nothing has been stored, so all is replicated.
    pub fn new(view: View) -> Recovery {
        Recovery {
            phase: Phase::Settled,
            reports: BTreeMap::new(),
            ready: Copyset::EMPTY,
            replicated: Copyset::EMPTY,
            replicated_in: view.id(),
            groups: groups_of(&view).collect(),
            held: Vec::new(),
            deferred: Vec::new(),
            lost: BTreeMap::new(),
            directory: view.id(),
            homes: view.members(),
            gone: Copyset::EMPTY,
            view,
        }
    }

    /// Of a member that was let into `view` and knows nothing.
    pub fn joining(view: View) -> Recovery {
        Recovery {
            phase: Phase::Gathering,
            replicated_in: ViewId::NONE,
            directory: ViewId::NONE,
            homes: Copyset::EMPTY,
            ..Recovery::new(view)
        }
    }

    /// A new view: what was gathered for another means nothing any more. Says who has come from the view before.
    pub fn install(&mut self, view: View) -> Copyset {
        let survivors = view.survivors_of(&self.view);
        self.gone = self.gone.union(self.view.members().minus(survivors));
        let living = core::mem::take(&mut self.groups).into_iter().map(|group| group.intersection(survivors));
        self.groups = living.chain(groups_of(&view)).collect();
        self.view = view;
        self.phase = Phase::Gathering;
        self.reports.clear();
        self.ready = Copyset::EMPTY;
        self.replicated = Copyset::EMPTY;
        self.held.clear();
        survivors
    }

    /// Conclusions have been drawn: from here on the directory is of this view, and all know the same of the past.
    pub fn conclude(&mut self) {
        self.phase = Phase::Concluded;
        self.directory = self.view.id();
        self.homes = self.view.members();
        self.gone = Copyset::EMPTY;
        if let Some((replicated, groups)) = self.best_known() {
            (self.groups, self.replicated_in) = (groups.clone(), replicated);
        }
    }

    /// Whether all pages are known to be replicated in this view.
    pub fn is_replicated(&self) -> bool {
        self.replicated_in == self.view.id()
    }

    /// All members have said that all of their pages are replicated.
    pub fn fully_replicated(&mut self) {
        self.replicated_in = self.view.id();
        self.groups = groups_of(&self.view).collect();
    }

    /// Whether every member's report is complete.
    pub fn is_complete(&self) -> bool {
        let whole = |node: NodeId| self.reports.get(&node).is_some_and(|report| report.end.is_some());
        self.view.members().iter().all(whole)
    }

    /// Whether some node has died together with all that kept its commits, since all pages were last known to have all
    /// their holders. Where nobody knows of such a time, everybody that knew is gone.
    pub fn lost_a_group(&self) -> bool {
        self.best_known().is_none_or(|(_, groups)| groups.contains(&Copyset::EMPTY))
    }

    /// Whether all members have joined just now, and those that they joined are gone.
    pub fn knows_nothing(&self) -> bool {
        self.best_known().is_none()
    }

    /// The last view of which some member knows that all pages were replicated, and the groups since.
    fn best_known(&self) -> Option<(ViewId, &BTreeSet<Copyset>)> {
        let known = self.reports.values().filter_map(|it| Some((it.end?.replicated, &it.groups)));
        known.filter(|(view, _)| *view > ViewId::NONE).max_by_key(|(view, _)| *view)
    }

    /// Those that are gone since the members last served together.
    pub fn all_gone(&self) -> Copyset {
        let gone = self.reports.values().filter_map(|report| report.end).map(|end| end.gone);
        gone.fold(Copyset::EMPTY, Copyset::union)
    }

    /// The spans that are leased, in ascending order. Whoever granted them in the latest directory knows; what others have
    /// noted of them may be out of date, and counts only where that one is gone.
    pub fn leased(&self, geometry: Geometry) -> Vec<SpanRange> {
        let ends = self.reports.values().filter_map(|report| report.end);
        let Some(latest) = ends.max_by_key(|end| end.directory) else { return Vec::new() };
        let placement = Placement::new(geometry, latest.homes);
        let knows = |node: NodeId| {
            let end = self.reports.get(&node).and_then(|report| report.end);
            end.is_some_and(|end| end.directory == latest.directory)
        };
        let mut leased = BTreeMap::new();
        for (&node, report) in &self.reports {
            // Where all have joined just now, nobody reports any.
            let counts = |span: &&SpanRange| {
                let granter = if latest.homes.is_empty() { node } else { placement.granter_of(span.first) };
                granter == node || !knows(granter)
            };
            leased.extend(report.spans.iter().filter(counts).map(|span| (span.first, *span)));
        }
        leased.into_values().collect()
    }

    /// Members whose programs are done.
    pub fn left(&self) -> Copyset {
        let left = |report: &Reported| report.end.is_some_and(|end| end.left);
        self.reports.iter().filter(|(_, report)| left(report)).map(|(node, _)| *node).collect()
    }

    /// Barriers that some member has passed.
    pub fn passed(&self) -> u64 {
        self.reports.values().filter_map(|report| report.end).map(|end| end.generation).max().unwrap_or(0)
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

/// Each member of `view` with its buddies.
fn groups_of(view: &View) -> impl Iterator<Item = Copyset> + '_ {
    view.iter().map(|(node, member)| member.buddies.with(node))
}

/// Runs of pages, in ascending order: neighbours of which the same is held are made one.
pub(crate) fn joined(runs: impl Iterator<Item = PageRun>) -> Vec<PageRun> {
    let mut joined: Vec<PageRun> = Vec::new();
    for run in runs {
        match joined.last_mut() {
            Some(last) if last.holding == run.holding && last.first.0 + last.pages == run.first.0 => {
                last.pages += run.pages;
            }
            Some(_) | None => joined.push(run),
        }
    }
    joined
}

/// Runs of both, in ascending order; where both have a page, `first` has it. Only runs of one page may be in both.
pub(crate) fn merged(
    first: impl Iterator<Item = PageRun>,
    second: impl Iterator<Item = PageRun>,
) -> impl Iterator<Item = PageRun> {
    let (mut first, mut second) = (first.peekable(), second.peekable());
    core::iter::from_fn(move || {
        let Some(next) = first.peek() else { return second.next() };
        let before = second.next_if(|other| other.first < next.first);
        if before.is_some() {
            return before;
        }
        second.next_if(|other| other.first == next.first);
        first.next()
    })
}

/// What is held of one page.
pub(crate) fn one(page: PageId, holding: Holding) -> PageRun {
    PageRun { first: page, pages: 1, holding }
}
