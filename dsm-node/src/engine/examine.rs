//! The engine's view of itself, for tests: what it believes about each page, beside what the page tables say.

use super::Engine;
use crate::error::Result;
use crate::testing::{Entry, Examination};
use dsm_core::{Access, PageId};

impl Engine {
    /// Compares the protocol's state with the page tables, page by page.
    pub(super) fn examine(&self) -> Result<Examination> {
        let pages = self.geometry.size() / self.geometry.page_size();
        let access: Vec<Access> = (0..pages).map(|page| self.machine.access(PageId(page))).collect();
        let mapped = self.region.scan(0..pages)?;
        let differs = access.iter().zip(&mapped).enumerate().filter(|(_, (says, is))| says != is);
        let mut mismatches: Vec<String> = differs
            .map(|(page, (says, is))| {
                format!("page {page}: {says:?} by the protocol, {is:?} by the page table")
            })
            .collect();
        mismatches.extend(self.machine.invariants().err().map(|violation| violation.to_string()));
        Ok(Examination {
            quiet: self.machine.pages_are_quiet(),
            replicated: self.machine.is_fully_replicated(),
            access,
            mismatches,
            directory: self.directory(),
        })
    }

    fn directory(&self) -> Vec<Entry> {
        let held = |page: PageId| self.machine.holders(page).map(|holders| (page, holders));
        let entries = self.machine.homed_pages().filter_map(held);
        entries
            .map(|(page, (owner, readers))| Entry {
                page: page.0,
                owner: owner.map(|owner| owner.rank()),
                readers: readers.iter().map(|reader| reader.rank()).collect(),
            })
            .collect()
    }
}
