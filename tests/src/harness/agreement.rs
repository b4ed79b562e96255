//! The nodes' answers to the question what each may do with each page, held against each other and against what the
//! homes' directories say. That each node's page tables say the same was checked by the node itself.

use super::Report;
use std::collections::BTreeMap;

/// What the directory says of one page: its owner, and its readers.
type Holders = (Option<usize>, Vec<usize>);

impl Report {
    /// One writer xor readers, and every home knows them: by what the nodes said after `round`.
    ///
    /// # Panics
    /// If that is not so, or no page was touched.
    pub fn check_pages(&self, round: u64) {
        let all: Vec<usize> = (0..self.nodes.len()).collect();
        self.check(&all, round, Owners::HaveAccess);
    }

    /// As [`Report::check_pages`], of the nodes that live. Whoever owns a page that went with another need not have mapped
    /// it yet.
    ///
    /// # Panics
    /// As there.
    pub fn check_pages_of(&self, ranks: &[usize], round: u64) {
        self.check(ranks, round, Owners::MayHaveAccess);
    }

    fn check(&self, ranks: &[usize], round: u64, owners: Owners) {
        let access: BTreeMap<usize, &[u8]> = ranks
            .iter()
            .map(|rank| (*rank, self.fact(*rank, &format!("access {round}")).as_bytes()))
            .collect();
        let mut directory = BTreeMap::new();
        for rank in ranks {
            read_directory(self.fact(*rank, &format!("directory {round}")), &mut directory);
        }
        let pages = access.values().map(|node| node.len()).max().unwrap_or(0);
        let is_touched = |page: &usize| {
            let checked = check_page(&access, &directory, owners, *page);
            checked.unwrap_or_else(|wrong| panic!("round {round}, page {page}: {wrong}: {self}"))
        };
        let touched = (0..pages).filter(is_touched).count();
        assert!(touched > 0, "the nodes touched no pages: {self}");
    }
}

/// What the owners of pages can do with them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Owners {
    /// Read them at least.
    HaveAccess,
    /// Perhaps nothing, before their first fault.
    MayHaveAccess,
}

/// Whether the page was touched; what is wrong with it.
fn check_page(
    access: &BTreeMap<usize, &[u8]>,
    directory: &BTreeMap<usize, Holders>,
    owners: Owners,
    page: usize,
) -> Result<bool, String> {
    let letters: Vec<(usize, u8)> = access.iter().map(|(rank, node)| (*rank, node[page])).collect();
    let with = |letter| letters.iter().filter(move |(_, one)| *one == letter).map(|(rank, _)| *rank);
    let (writers, readers): (Vec<usize>, Vec<usize>) = (with(b'w').collect(), with(b'r').collect());
    if writers.len() > 1 || !writers.is_empty() && !readers.is_empty() {
        return Err(format!("{writers:?} write, {readers:?} read"));
    }
    let Some((owner, copies)) = directory.get(&page) else {
        let is_untouched = writers.is_empty() && readers.is_empty();
        return if is_untouched { Ok(false) } else { Err(String::from("it is in no directory")) };
    };
    let is_mapped = |owner: &usize| letters.iter().any(|(rank, letter)| rank == owner && *letter != b'-');
    let owner_found = owner.filter(|owner| owners == Owners::HaveAccess || is_mapped(owner));
    let mut holders: Vec<usize> = copies.iter().copied().chain(owner_found).collect();
    holders.sort_unstable();
    let mut found: Vec<usize> = writers.iter().copied().chain(readers).collect();
    found.sort_unstable();
    let is_owners = writers.iter().all(|writer| *owner == Some(*writer));
    if holders == found && is_owners {
        return Ok(true);
    }
    Err(format!("directory {owner:?} {copies:?}, but {writers:?} write and {found:?} have access"))
}

fn read_directory(text: &str, directory: &mut BTreeMap<usize, Holders>) {
    for entry in text.split_whitespace() {
        let parts: Vec<&str> = entry.split(':').collect();
        let readers = parts[2].split(',').filter(|reader| !reader.is_empty());
        let readers = readers.map(|reader| reader.parse().expect("a rank")).collect();
        let before = directory.insert(parts[0].parse().expect("a page"), (parts[1].parse().ok(), readers));
        assert!(before.is_none(), "page {} has two homes", parts[0]);
    }
}
