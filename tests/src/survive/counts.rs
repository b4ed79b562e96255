//! What happened in a run, or in many, in numbers.

use std::fmt;

/// What happened.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Counts {
    /// Runs.
    pub seeds: u64,
    /// Things that happened at an instant.
    pub events: u64,
    /// Nodes that died.
    pub deaths: u64,
    /// Processes that joined.
    pub joins: u64,
    /// Views that were agreed on after the first.
    pub views: u64,
    /// Views in which members went on.
    pub recoveries: u64,
    /// Records that a buddy put into its frames.
    pub records: u64,
    /// Messages with a page that broke off in the middle of it, in a frame that was reserved for it.
    pub torn: u64,
    /// Pages lost, counted at each member.
    pub lost: u64,
    /// Pages that a thread was told to be here.
    pub ensured: u64,
    /// Locks and pages that a thread was told to be lost.
    pub refused: u64,
    /// Sections that ended.
    pub sections: u64,
    /// Locks that came from the dead, and said so.
    pub inherited: u64,
    /// Barriers that threads passed.
    pub barriers: u64,
    /// Stores to plain pages.
    pub stores: u64,
    /// Instructions and calls that ended.
    pub retired: u64,
    /// Pages whose holders were held against each other at rest.
    pub compared: u64,
}

impl Counts {
    /// Adds another run, or other runs.
    pub fn add(&mut self, other: &Counts) {
        self.seeds += other.seeds;
        self.events += other.events;
        self.deaths += other.deaths;
        self.joins += other.joins;
        self.views += other.views;
        self.ensured += other.ensured;
        self.refused += other.refused;
        self.recoveries += other.recoveries;
        self.records += other.records;
        self.torn += other.torn;
        self.lost += other.lost;
        self.sections += other.sections;
        self.inherited += other.inherited;
        self.barriers += other.barriers;
        self.stores += other.stores;
        self.retired += other.retired;
        self.compared += other.compared;
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} seeds, {} events, {} deaths, {} joins, {} views, {} recoveries, {} records, {} bodies torn, {} pages lost, \
             {} ensured, {} refused, {} sections, {} locks inherited, {} barriers, {} stores, {} pages compared at rest",
            self.seeds,
            self.events,
            self.deaths,
            self.joins,
            self.views,
            self.recoveries,
            self.records,
            self.torn,
            self.lost,
            self.ensured,
            self.refused,
            self.sections,
            self.inherited,
            self.barriers,
            self.stores,
            self.compared,
        )
    }
}
