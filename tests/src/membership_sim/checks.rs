//! What must hold, whatever happens.
//!
//! - At most one view per number; each process installs them one by one.
//! - No process acts while anybody has installed a view without it.
//! - Nobody that lives is removed while it may act, and nobody to whom nothing was done.
//! - Whoever has no lease goes on or ends in bounded time.
//! - Once the network is whole: those that are a majority have one view, of exactly the living; others have ended.

use super::process::{End, Process};
use super::world::{ProcessId, nanos};
use dsm_core::membership::{ConfigStore, Settings, VoterId, Voters};
use dsm_core::{View, ViewId};
use std::collections::BTreeMap;

/// What was seen, and what is checked against it.
pub struct Checks {
    settings: Settings,
    /// Every view that was installed anywhere.
    pub views: BTreeMap<ViewId, View>,
    /// Packets that were sent.
    pub packets: u64,
    /// Intents that were no packets.
    pub intents: u64,
    /// Processes that lived and were removed.
    pub evicted: u64,
    /// When the newest view was first installed.
    pub newest_since: u64,
}

impl Checks {
    /// Nothing has happened yet in `view`.
    #[must_use]
    pub fn new(view: &View, settings: Settings) -> Checks {
        let views = BTreeMap::from([(view.id(), view.clone())]);
        Checks { settings, views, packets: 0, intents: 0, evicted: 0, newest_since: 0 }
    }

    /// The newest view of all.
    ///
    /// # Panics
    /// Never: the first view is there from the beginning.
    #[must_use]
    pub fn newest(&self) -> &View {
        self.views.last_key_value().expect("the first view is there from the beginning").1
    }

    /// A process installs a view.
    pub fn installed<S: ConfigStore>(
        &mut self,
        now: u64,
        processes: &mut [Process<S>],
        process: ProcessId,
        view: View,
    ) -> Result<(), String> {
        let it = &mut processes[process];
        let id = it.identity.id;
        if it.installed.is_some_and(|last| view.id() != ViewId(last.0 + 1)) {
            return Err(format!("{id} installs {} after {:?}", view.id(), it.installed));
        }
        it.installed = Some(view.id());
        if let VoterId::Node(node) = id
            && view.member(node).is_none_or(|member| member.incarnation != it.identity.incarnation)
        {
            return Err(format!("{id} installs {}, which it is not in", view.id()));
        }
        if let Some(known) = self.views.get(&view.id()) {
            return if *known == view {
                Ok(())
            } else {
                Err(format!("two views have one number: {known:?} and {view:?}"))
            };
        }
        self.newest_since = now;
        let before = self.newest().clone();
        if view.id() != ViewId(before.id().0 + 1) {
            return Err(format!("{} comes after {}", view.id(), before.id()));
        }
        for process in processes.iter().filter(|it| is_member(it, &before) && !is_member(it, &view)) {
            if process.lives() && !process.disturbed && !process.leaving {
                return Err(format!("{} is removed, and nothing was done to it", process.identity.id));
            }
        }
        self.views.insert(view.id(), view);
        processes.iter().try_for_each(|it| self.is_fenced(now, it, false))
    }

    /// A process was told that it is no member.
    pub fn evicted<S: ConfigStore>(&mut self, process: &Process<S>, view: ViewId) -> Result<(), String> {
        self.evicted += 1;
        let id = process.identity.id;
        match self.views.get(&view) {
            Some(view) if is_member(process, view) => {
                Err(format!("{id} is evicted, though it is in {}", view.id()))
            }
            Some(_) => Ok(()),
            // It led the change itself, and is the first to know that it was decided.
            None if view == ViewId(self.newest().id().0 + 1) => Ok(()),
            None => Err(format!("{id} is evicted by {view}, which nobody has installed")),
        }
    }

    /// A process has done what it was to do.
    pub fn after<S: ConfigStore>(
        &self,
        now: u64,
        processes: &[Process<S>],
        process: ProcessId,
        acts_frozen: bool,
    ) -> Result<(), String> {
        let it = &processes[process];
        if !it.lives() {
            return Ok(());
        }
        self.is_fenced(now, it, acts_frozen)?;
        let id = it.identity.id;
        if it.membership.rejected() > 0 {
            return Err(format!("{id} rejects what correct processes sent"));
        }
        let local = it.clock.shows(now);
        if it.membership.deadline().is_none_or(|deadline| deadline <= local) {
            return Err(format!("{id} wants to be woken at {:?}, which is past", it.membership.deadline()));
        }
        let limit = self.settings.join_timeout() + self.settings.lease();
        if let Some(since) = it.frozen
            && id != VoterId::Witness
            && nanos(local.since(since)) > nanos(limit) + it.sluggish
        {
            return Err(format!("{id} has been without a lease for {:?}", local.since(since)));
        }
        Ok(())
    }

    fn is_fenced<S: ConfigStore>(&self, now: u64, it: &Process<S>, acts_frozen: bool) -> Result<(), String> {
        let newest = self.newest();
        let id = it.identity.id;
        // Who has installed nothing was never told to act.
        if !it.lives() || it.installed.is_none() || id == VoterId::Witness || is_member(it, newest) {
            return Ok(());
        }
        let acts = it.frozen.is_none() && (acts_frozen || it.membership.holds_lease(it.clock.shows(now)));
        if acts && it.stopped.is_none() {
            return Err(format!(
                "{id} acts in {:?}, and {} without it is installed",
                it.installed,
                newest.id()
            ));
        }
        Ok(())
    }

    /// After a time in which nothing was done to anybody.
    pub fn settled<S: ConfigStore>(&self, processes: &[Process<S>]) -> Result<(), String> {
        let newest = self.newest();
        let voters = Voters::of(newest, self.settings.witness());
        let alive = |id: VoterId| {
            processes.iter().any(|it| it.lives() && it.identity.id == id && speaks_for(it, newest))
        };
        let living = voters.iter().filter(|voter| alive(*voter)).count();
        let nodes = || processes.iter().filter(|it| it.lives() && it.identity.id != VoterId::Witness);
        if living < voters.majority() {
            return match nodes().next() {
                None => Ok(()),
                Some(it) => {
                    Err(format!("{} goes on in {:?} without a majority", it.identity.id, it.installed))
                }
            };
        }
        for it in nodes() {
            let id = it.identity.id;
            if it.leaving {
                return Err(format!("{id} wants to leave {:?}, and never comes to it", it.installed));
            }
            if it.installed != Some(newest.id()) {
                return Err(format!("{id} is in {:?}, others are in {}", it.installed, newest.id()));
            }
            if it.frozen.is_some() {
                return Err(format!("{id} waits for a lease in {}", newest.id()));
            }
        }
        match newest.members().iter().find(|node| !alive(VoterId::Node(*node))) {
            Some(dead) => Err(format!("{dead} is dead, and a member of {}", newest.id())),
            None => Ok(()),
        }
    }
}

fn is_member<S: ConfigStore>(it: &Process<S>, view: &View) -> bool {
    it.identity
        .id
        .node()
        .and_then(|node| view.member(node))
        .is_some_and(|member| member.incarnation == it.identity.incarnation)
}

fn speaks_for<S: ConfigStore>(it: &Process<S>, view: &View) -> bool {
    it.identity.id == VoterId::Witness || is_member(it, view)
}

/// What many runs came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Runs.
    pub seeds: u64,
    /// Views beyond the first.
    pub views: u64,
    /// Processes that were killed.
    pub killed: u64,
    /// Processes that lived and were evicted.
    pub evicted: u64,
    /// Processes that left.
    pub left: u64,
    /// Processes that gave up.
    pub without_quorum: u64,
    /// Processes that were let in.
    pub joined: u64,
    /// Packets that were sent.
    pub packets: u64,
}

impl Counts {
    /// What one run came to.
    #[must_use]
    pub fn of<S: ConfigStore>(checks: &Checks, processes: &[Process<S>], first: usize) -> Counts {
        let ended = |end| processes.iter().filter(|it| it.end == Some(end)).count() as u64;
        Counts {
            seeds: 1,
            views: checks.views.len() as u64 - 1,
            killed: ended(End::Killed),
            evicted: ended(End::Evicted),
            left: ended(End::Left),
            without_quorum: ended(End::NoQuorum),
            joined: processes[first..].iter().filter(|it| it.installed.is_some()).count() as u64,
            packets: checks.packets,
        }
    }

    /// Adds another's.
    pub fn add(&mut self, other: &Counts) {
        self.seeds += other.seeds;
        self.views += other.views;
        self.killed += other.killed;
        self.evicted += other.evicted;
        self.left += other.left;
        self.without_quorum += other.without_quorum;
        self.joined += other.joined;
        self.packets += other.packets;
    }
}

impl std::fmt::Display for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} seeds: {} views, {} killed, {} evicted, {} left, {} joined, {} without a quorum, {} packets",
            self.seeds,
            self.views,
            self.killed,
            self.evicted,
            self.left,
            self.joined,
            self.without_quorum,
            self.packets
        )
    }
}
