//! What must have survived, known from outside.
//!
//! Every store has a place in its word's history, and the knowledge of its node at that moment: how many stores of each
//! node it may depend on. Loads, locks and barriers pass knowledge on. After a recovery, what survivors know of a dead
//! node's stores must be there, and with each of its stores all before it: a prefix of what it did.
//!
//! A node is one process here: who joins with the rank of one that died has a number of its own.

use super::Check;
use super::node::slot;
use super::plan::{Plan, WORDS};
use dsm_core::{Copyset, Lost, NodeId, PageId};
use std::collections::BTreeMap;

/// Processes in one run: six to begin with, and three that join.
pub const LIVES_MAX: usize = 9;

/// How many stores of each node one may depend on.
pub type Knowledge = [u64; LIVES_MAX];

#[derive(Clone, Copy, Debug)]
struct Stored {
    value: u64,
    by: NodeId,
    knowledge: Knowledge,
}

/// A counter of sections.
#[derive(Clone, Default, Debug)]
struct Sections {
    /// The highest count that each node has completed or seen.
    known: Knowledge,
    /// The highest count that is safe whatever happens.
    safe: u64,
    /// The highest count that was ever begun.
    begun: u64,
    /// Who is in a section, and by whose grant.
    holder: Option<(NodeId, NodeId)>,
    /// Who died in a section that nobody has followed yet, and who had granted it.
    left: Option<(NodeId, NodeId)>,
    /// What the last to release the lock knew.
    released: Knowledge,
    /// What the last release had passed on to the last holder.
    acquired: Knowledge,
}

impl Sections {
    /// The count that must have survived these deaths.
    fn least(&self, dead: Copyset) -> u64 {
        let live = |node: &usize| !dead.contains(NodeId(u16::try_from(*node).unwrap_or(u16::MAX)));
        let known = (0..self.known.len()).filter(live).map(|node| self.known[node]);
        known.max().unwrap_or(0).max(self.safe)
    }
}

/// The truth.
pub struct Oracle {
    words: Vec<Vec<Stored>>,
    values: u64,
    known: Vec<Knowledge>,
    sections: Vec<Sections>,
    /// What those knew who arrived at each barrier, and how many barriers each node has passed.
    barriers: Vec<Knowledge>,
    passed: Vec<usize>,
    /// What has been promised by `sync`.
    synced: Vec<u64>,
    dead: Copyset,
    /// Pages that are lost, as the first was told that heard of it.
    lost: BTreeMap<PageId, (Lost, NodeId)>,
}

impl Oracle {
    pub fn new(plan: &Plan) -> Oracle {
        let pages = usize::try_from(plan.geometry.pages()).unwrap_or(0);
        Oracle {
            words: vec![Vec::new(); pages * WORDS],
            values: 0,
            known: vec![[0; LIVES_MAX]; LIVES_MAX],
            sections: vec![Sections::default(); plan.domains.len()],
            barriers: Vec::new(),
            passed: vec![0; LIVES_MAX],
            synced: vec![0; LIVES_MAX],
            dead: Copyset::EMPTY,
            lost: BTreeMap::new(),
        }
    }

    fn word(page: PageId, word: usize) -> usize {
        slot(page) * WORDS + word
    }

    /// A load must return the latest store.
    pub fn loaded(&mut self, by: NodeId, page: PageId, word: usize, value: u64) -> Check {
        let history = &self.words[Self::word(page, word)];
        let latest = history.last().map_or(0, |stored| stored.value);
        if value != latest {
            return Err(format!(
                "{by} loads {value} from word {word} of {page}, but the latest store was {latest}"
            ));
        }
        if let Some(stored) = history.last().copied() {
            self.learn(by, stored.knowledge);
        }
        Ok(())
    }

    /// A new value is stored; returns it.
    pub fn store(&mut self, by: NodeId, page: PageId, word: usize) -> u64 {
        self.values += 1;
        let known = &mut self.known[by.index()];
        known[by.index()] += 1;
        let stored = Stored { value: self.values, by, knowledge: *known };
        self.words[Self::word(page, word)].push(stored);
        self.values
    }

    fn learn(&mut self, node: NodeId, what: Knowledge) {
        for (known, learned) in self.known[node.index()].iter_mut().zip(what) {
            *known = (*known).max(learned);
        }
    }

    /// A node's stores up to now are promised to survive.
    pub fn synced(&mut self, node: NodeId, through: u64) {
        let synced = &mut self.synced[node.index()];
        *synced = (*synced).max(through);
    }

    /// How many stores a node has made.
    pub fn stores_of(&self, node: NodeId) -> u64 {
        self.known[node.index()][node.index()]
    }

    /// A lock is granted by `home`, which says whose death left it.
    pub fn locked(&mut self, domain: usize, by: NodeId, home: NodeId, recovered: Option<NodeId>) -> Check {
        let dead = self.dead;
        let section = &mut self.sections[domain];
        if let Some((other, _)) = section.holder {
            return Err(format!("{by} is granted domain {domain}, which {other} holds"));
        }
        if let Some(alive) = recovered.filter(|node| !dead.contains(*node)) {
            return Err(format!("{by} inherits domain {domain} from {alive}, which lives"));
        }
        if let Some((last, knew)) = section.left.take()
            && recovered.is_none()
            && !dead.contains(knew)
        {
            return Err(format!(
                "{by} is not told that {last} died with domain {domain}, though {knew} knew"
            ));
        }
        section.holder = Some((by, home));
        // A release that its home never heard of, since its node died before it could be said, was none.
        if recovered.is_some() {
            section.released = section.acquired;
        }
        section.acquired = section.released;
        let released = section.released;
        self.learn(by, released);
        Ok(())
    }

    /// A section begins with these counts.
    pub fn looked(&mut self, domain: usize, by: NodeId, counts: [u64; 2]) -> Check {
        let dead = self.dead;
        let section = &mut self.sections[domain];
        let [one, other] = counts;
        if one != other {
            return Err(format!("{by} finds domain {domain} torn: {one} and {other}"));
        }
        let least = section.least(dead);
        if one < least || one > section.begun {
            return Err(format!(
                "{by} finds {one} sections of domain {domain}; {least} must have survived, {} were begun",
                section.begun
            ));
        }
        section.known[by.index()] = one;
        section.begun = one + 1;
        Ok(())
    }

    /// A section ends with this count.
    pub fn unlocked(&mut self, domain: usize, by: NodeId, count: u64) {
        let section = &mut self.sections[domain];
        section.holder = None;
        section.known[by.index()] = count;
        section.released = self.known[by.index()];
    }

    /// All sections up to these are promised to survive.
    pub fn sections_synced(&mut self, counts: &[u64]) {
        for (section, count) in self.sections.iter_mut().zip(counts) {
            section.safe = section.safe.max(*count);
        }
    }

    /// What a node knows of the sections that were completed.
    pub fn sections_of(&self, node: NodeId) -> Vec<u64> {
        self.sections.iter().map(|section| section.known[node.index()]).collect()
    }

    /// How many barriers a node has passed.
    pub fn passed(&self, node: NodeId) -> u64 {
        u64::try_from(self.passed[node.index()]).unwrap_or(u64::MAX)
    }

    /// A node comes to its next barrier.
    pub fn arrived(&mut self, node: NodeId) {
        let generation = self.passed[node.index()];
        if self.barriers.len() <= generation {
            self.barriers.resize(generation + 1, [0; LIVES_MAX]);
        }
        let known = self.known[node.index()];
        for (all, one) in self.barriers[generation].iter_mut().zip(known) {
            *all = (*all).max(one);
        }
    }

    /// A node passes a barrier: it knows what all knew who came to it.
    pub fn met(&mut self, node: NodeId) {
        let generation = self.passed[node.index()];
        self.passed[node.index()] += 1;
        let all = self.barriers[generation];
        self.learn(node, all);
    }

    /// A node is no more.
    pub fn died(&mut self, node: NodeId) {
        self.dead = self.dead.with(node);
        for section in &mut self.sections {
            section.left = section.holder.take_if(|(holder, _)| *holder == node).or(section.left);
        }
    }

    /// Who is in a section.
    pub fn holder(&self, domain: usize) -> Option<NodeId> {
        self.sections[domain].holder.map(|(holder, _)| holder)
    }

    /// A node is told that a page is lost: all are told the same of it. Nothing is expected of it any more.
    pub fn lost(&mut self, node: NodeId, page: PageId, lost: Lost) -> Check {
        let (told, to) = *self.lost.entry(page).or_insert((lost, node));
        if self.dead.contains(to) {
            // Nobody else may have heard of it.
            self.lost.insert(page, (lost, node));
        } else if !self.dead.contains(node) && (told.last_owner, told.view) != (lost.last_owner, lost.view) {
            return Err(format!("{page} is lost as {lost:?} to one, and as {told:?} to another"));
        }
        Ok(())
    }

    /// Somebody is told that a page is lost.
    pub fn is_lost(&self, page: PageId) -> Check {
        let known = self.lost.contains_key(&page);
        if known { Ok(()) } else { Err(format!("{page} is said to be lost, and is not")) }
    }

    /// All members have recovered: what is known of the lock of a domain, its home knows.
    pub fn moved(&mut self, domain: usize, home: NodeId) {
        let dead = self.dead;
        let section = &mut self.sections[domain];
        for (_, knows) in section.holder.iter_mut().chain(&mut section.left) {
            if !dead.contains(*knows) {
                *knows = home;
            }
        }
    }

    /// A node joins: it comes to the barriers that are yet to come.
    pub fn joined(&mut self, node: NodeId, passed: usize) {
        self.passed[node.index()] = passed;
    }

    /// All members have recovered: `frame` says what each plain page holds now. What of it the dead had stored must be
    /// a prefix of what they did, with all that survivors know of in it; what is not in it never was.
    pub fn recovered(&mut self, pages: &[PageId], frame: impl Fn(PageId) -> [u64; WORDS]) -> Check {
        let mut cut: Knowledge = [0; LIVES_MAX];
        let live: Vec<usize> =
            (0..LIVES_MAX).filter(|life| !self.dead.iter().any(|dead| dead.index() == *life)).collect();
        for (node, all) in cut.iter_mut().enumerate() {
            *all =
                live.iter().map(|&knower| self.known[knower][node]).max().unwrap_or(0).max(self.synced[node]);
        }
        let mut found = Vec::new();
        for &page in pages.iter().filter(|page| !self.lost.contains_key(page)) {
            let words = frame(page);
            for (word, value) in words.into_iter().enumerate() {
                let history = &self.words[Self::word(page, word)];
                let length = match value {
                    0 => 0,
                    _ => 1 + history.iter().position(|stored| stored.value == value).ok_or_else(|| {
                        format!("word {word} of {page} holds {value}, which was never stored there, or undone before")
                    })?,
                };
                for stored in history[..length].iter().rev().take(1) {
                    for (all, one) in cut.iter_mut().zip(stored.knowledge) {
                        *all = (*all).max(one);
                    }
                }
                found.push((page, word, length));
            }
        }
        for (page, word, length) in found {
            let history = &mut self.words[Self::word(page, word)];
            let by = |stored: &Stored| stored.knowledge[stored.by.index()] <= cut[stored.by.index()];
            if let Some(missing) = history[length..].iter().find(|stored| by(stored)) {
                return Err(format!(
                    "{missing:?} to word {word} of {page} is gone, though survivors depend on {:?} of its node's stores",
                    cut[missing.by.index()]
                ));
            }
            history.truncate(length);
        }
        Ok(())
    }

    /// All members have recovered: a domain that nobody is in stands at the end of a section, and at no earlier one
    /// than must have survived.
    pub fn domain_recovered(&mut self, domain: usize, pages: [PageId; 2], counts: [u64; 2]) -> Check {
        let least = self.sections[domain].least(self.dead);
        let section = &mut self.sections[domain];
        if section.holder.is_some() || pages.iter().any(|page| self.lost.contains_key(page)) {
            return Ok(());
        }
        let [one, other] = counts;
        if one != other {
            return Err(format!("domain {domain} has recovered torn: {one} and {other}"));
        }
        if one < least || one > section.begun {
            return Err(format!(
                "domain {domain} has recovered with {one} sections; {least} must have survived, {} were begun",
                section.begun
            ));
        }
        // What is undone now does not come back.
        section.begun = one;
        Ok(())
    }
}
