//! What must have survived, known from outside: as the simulation's oracle has it, in a form that can be told apart.

use super::state::Word;
use dsm_core::{Copyset, NodeId};

/// Nodes of a configuration at most.
pub const NODES: usize = 4;

/// How many stores of each node one may depend on.
type Knowledge = [u8; NODES];

/// What went wrong, in words.
type Check = Result<(), String>;

/// A store.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Stored {
    value: Word,
    by: NodeId,
    knows: Knowledge,
}

/// The truth.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Truth {
    /// What was stored to each page, and counts.
    pages: Vec<Vec<Stored>>,
    values: Word,
    known: [Knowledge; NODES],
    synced: Knowledge,
    dead: Copyset,
    lost: Vec<bool>,
    /// Who is in the section, and how many each knows to have been completed; how many were begun.
    pub holder: Option<NodeId>,
    sections: [Word; NODES],
    begun: Word,
}

impl Truth {
    /// Nothing has been stored.
    pub fn new(pages: usize) -> Truth {
        Truth {
            pages: vec![Vec::new(); pages],
            values: 0,
            known: [[0; NODES]; NODES],
            synced: [0; NODES],
            dead: Copyset::EMPTY,
            lost: vec![false; pages],
            holder: None,
            sections: [0; NODES],
            begun: 0,
        }
    }

    fn learn(&mut self, node: NodeId, what: Knowledge) {
        for (known, learned) in self.known[node.index()].iter_mut().zip(what) {
            *known = (*known).max(learned);
        }
    }

    /// A load must find the latest store.
    pub fn loaded(&mut self, by: NodeId, page: usize, value: Word) -> Check {
        let latest = self.pages[page].last().copied();
        let expected = latest.map_or(0, |stored| stored.value);
        if value != expected {
            return Err(format!("{by} loads {value} from page {page}, not {expected}"));
        }
        if let Some(stored) = latest {
            self.learn(by, stored.knows);
        }
        Ok(())
    }

    /// The value of a new store, which is made on what the page held.
    pub fn store(&mut self, by: NodeId, page: usize, found: Word) -> Result<Word, String> {
        let latest = self.pages[page].last().map_or(0, |stored| stored.value);
        if found != latest {
            return Err(format!("{by} stores to page {page}, which holds {found} and not {latest}"));
        }
        self.values += 1;
        self.known[by.index()][by.index()] += 1;
        let stored = Stored { value: self.values, by, knows: self.known[by.index()] };
        self.pages[page].push(stored);
        Ok(self.values)
    }

    /// All that a node has stored is promised to survive.
    pub fn synced(&mut self, node: NodeId) {
        self.synced[node.index()] = self.known[node.index()][node.index()];
    }

    /// A node is no more.
    pub fn died(&mut self, node: NodeId) {
        self.dead = self.dead.with(node);
        self.holder = self.holder.filter(|holder| *holder != node);
    }

    /// A page was declared lost.
    pub fn lost(&mut self, page: usize) {
        self.lost[page] = true;
    }

    /// The lock is granted: nobody else that lives holds it (I9).
    pub fn locked(&mut self, by: NodeId) -> Check {
        match self.holder.replace(by) {
            Some(other) => Err(format!("{by} is granted the lock, which {other} holds")),
            None => Ok(()),
        }
    }

    /// A section begins with these counts (I6).
    pub fn looked(&mut self, by: NodeId, counts: [Word; 2]) -> Check {
        self.fits(counts)?;
        self.sections[by.index()] = counts[0];
        self.begun = counts[0] + 1;
        Ok(())
    }

    /// A section ends.
    pub fn unlocked(&mut self, by: NodeId, count: Word) {
        self.holder = None;
        self.sections[by.index()] = count;
    }

    fn fits(&self, counts: [Word; 2]) -> Check {
        let live = |rank: &usize| !self.dead.contains(NodeId(u16::try_from(*rank).unwrap_or(u16::MAX)));
        let least = (0..NODES).filter(live).map(|rank| self.sections[rank]).max().unwrap_or(0);
        let [one, other] = counts;
        if one != other || one < least || one > self.begun {
            return Err(format!("the domain has {counts:?}, of {least} known and {} begun", self.begun));
        }
        Ok(())
    }

    /// All members have recovered, and the domain's pages hold this.
    pub fn domain_recovered(&mut self, counts: [Word; 2]) -> Check {
        if self.holder.is_some() || self.lost.iter().any(|lost| *lost) {
            return Ok(());
        }
        self.fits(counts)?;
        self.begun = counts[0];
        Ok(())
    }

    /// All members have recovered, and the pages hold this: of each of the dead a prefix of what it stored, with all that
    /// survivors know of (I3, I4).
    pub fn recovered(&mut self, words: &[Word]) -> Check {
        let mut cut = self.synced;
        for rank in 0..NODES {
            if !self.dead.contains(NodeId(u16::try_from(rank).unwrap_or(u16::MAX))) {
                let known = self.known[rank];
                cut.iter_mut().zip(known).for_each(|(all, one)| *all = (*all).max(one));
            }
        }
        let mut lengths = Vec::new();
        for (page, &value) in words.iter().enumerate().filter(|(page, _)| !self.lost[*page]) {
            let history = &self.pages[page];
            let found = history.iter().position(|stored| stored.value == value);
            let length = match (value, found) {
                (0, _) => 0,
                (_, Some(index)) => index + 1,
                (_, None) => {
                    return Err(format!("page {page} holds {value}, which was undone or never stored"));
                }
            };
            if let Some(stored) = history[..length].last() {
                cut.iter_mut().zip(stored.knows).for_each(|(all, one)| *all = (*all).max(one));
            }
            lengths.push((page, length));
        }
        for (page, length) in lengths {
            let is_known = |stored: &&Stored| stored.knows[stored.by.index()] <= cut[stored.by.index()];
            if let Some(missing) = self.pages[page][length..].iter().find(is_known) {
                return Err(format!("{missing:?} to page {page} is gone, though survivors depend on it"));
            }
            self.pages[page].truncate(length);
        }
        Ok(())
    }
}
