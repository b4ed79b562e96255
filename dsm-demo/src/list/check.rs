//! Whether a walk over the list meets every item once, and each node's items in the order of their appending. Pure.

use dsm_node::Shared;
use serde::{Deserialize, Serialize};

/// One item: who appended it, and as its how-manyth.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Shared)]
#[repr(C)]
pub struct Item {
    /// The rank that appended it.
    pub rank: u64,
    /// Counts that rank's items from 0.
    pub sequence: u64,
}

/// How many of `items` the node `rank` of `nodes` appends: the first ones take what does not divide.
pub fn share(items: u64, nodes: u32, rank: u32) -> u64 {
    let nodes = u64::from(nodes);
    items / nodes + u64::from(u64::from(rank) < items % nodes)
}

/// A walk under way.
pub struct Check {
    /// Each rank's share, and what of it was met.
    ranks: Vec<(u64, Met)>,
    misplaced: u64,
}

/// What was met of one rank's items.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Met {
    /// How many.
    pub count: u64,
    /// The number that the next one would have: more than the count where some are missing in between.
    pub next: u64,
}

/// What a walk met.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Verdict {
    /// Each rank's items that were met for the first time and in order.
    pub ranks: Vec<Met>,
    /// Items met twice, out of order, or appended by nobody: a torn one looks like that.
    pub misplaced: u64,
}

impl Verdict {
    /// Items met for the first time, in all.
    pub fn found(&self) -> u64 {
        self.ranks.iter().map(|met| met.count).sum()
    }

    /// Items of which a later one of the same rank was met, but not they.
    pub fn gaps(&self) -> u64 {
        self.ranks.iter().map(|met| met.next - met.count).sum()
    }
}

impl Check {
    /// A walk over a list to which `nodes` nodes were to append `items` items.
    pub fn new(items: u64, nodes: u32) -> Check {
        let ranks = (0..nodes).map(|rank| (share(items, nodes, rank), Met::default())).collect();
        Check { ranks, misplaced: 0 }
    }

    /// The next item of the list.
    pub fn visit(&mut self, item: Item) {
        let rank = usize::try_from(item.rank).ok().and_then(|rank| self.ranks.get_mut(rank));
        match rank {
            Some((share, met)) if (met.next..*share).contains(&item.sequence) => {
                *met = Met { count: met.count + 1, next: item.sequence + 1 };
            }
            Some(_) | None => self.misplaced += 1,
        }
    }

    /// The end of the list.
    pub fn finish(self) -> Verdict {
        Verdict { ranks: self.ranks.into_iter().map(|(_, met)| met).collect(), misplaced: self.misplaced }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(items: u64, nodes: u32, list: &[(u64, u64)]) -> (Vec<u64>, u64, u64) {
        let mut check = Check::new(items, nodes);
        list.iter().for_each(|&(rank, sequence)| check.visit(Item { rank, sequence }));
        let verdict = check.finish();
        let counts: Vec<u64> = verdict.ranks.iter().map(|met| met.count).collect();
        assert_eq!(verdict.found(), counts.iter().sum::<u64>());
        (counts, verdict.gaps(), verdict.misplaced)
    }

    #[test]
    fn shares_add_up() {
        for (items, nodes) in [(0, 3), (1, 4), (10, 4), (100_000, 7), (3, 64)] {
            let shares: Vec<u64> = (0..nodes).map(|rank| share(items, nodes, rank)).collect();
            assert_eq!(shares.iter().sum::<u64>(), items);
            assert!(shares[0] - shares[shares.len() - 1] <= 1);
        }
    }

    #[test]
    fn interleaved_shares_are_whole() {
        assert_eq!(walk(5, 2, &[(1, 0), (0, 0), (0, 1), (1, 1), (0, 2)]), (vec![3, 2], 0, 0));
        assert_eq!(walk(0, 2, &[]), (vec![0, 0], 0, 0));
    }

    #[test]
    fn every_kind_of_damage_is_seen() {
        let whole = [(0, 0), (0, 1), (1, 0), (1, 1)];
        assert_eq!(walk(4, 2, &whole[1..]), (vec![1, 2], 1, 0), "one is missing at the head");
        assert_eq!(walk(4, 2, &whole[..3]), (vec![2, 1], 0, 0), "one is missing at the tail");
        assert_eq!(walk(4, 2, &[]), (vec![0, 0], 0, 0), "all are missing");
        assert_eq!(
            walk(4, 2, &[(0, 0), (0, 0), (0, 1), (1, 0), (1, 1)]),
            (vec![2, 2], 0, 1),
            "one comes twice"
        );
        assert_eq!(walk(4, 2, &[(0, 1), (0, 0), (1, 0), (1, 1)]), (vec![1, 2], 1, 1), "two changed places");
        let strange = [(0, 0), (0, 1), (1, 0), (1, 1), (7, 0), (0, u64::MAX)];
        assert_eq!(walk(4, 2, &strange), (vec![2, 2], 0, 2), "nobody appended the last two");
    }
}
