//! Whether a walk over the list meets every item once, and each node's items in the order of their appending. Pure.

use dsm_node::Shared;

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
    /// Each rank's items in all, and the sequence number that must come next.
    ranks: Vec<(u64, u64)>,
    found: u64,
    missing: u64,
    misplaced: u64,
}

/// What a walk found.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, serde::Serialize, serde::Deserialize)]
pub struct Verdict {
    /// Items met for the first time.
    pub found: u64,
    /// Items not met.
    pub missing: u64,
    /// Items met twice, out of order, or appended by nobody.
    pub misplaced: u64,
}

impl Verdict {
    /// Whether every item was met once and in order.
    pub fn is_intact(self) -> bool {
        self.missing == 0 && self.misplaced == 0
    }
}

impl Check {
    /// A walk over a list to which `nodes` nodes have appended `items` items.
    pub fn new(items: u64, nodes: u32) -> Check {
        let ranks = (0..nodes).map(|rank| (share(items, nodes, rank), 0)).collect();
        Check { ranks, found: 0, missing: 0, misplaced: 0 }
    }

    /// The next item of the list.
    pub fn visit(&mut self, item: Item) {
        let rank = usize::try_from(item.rank).ok().and_then(|rank| self.ranks.get_mut(rank));
        match rank {
            Some((share, next)) if (*next..*share).contains(&item.sequence) => {
                self.missing += item.sequence - *next;
                self.found += 1;
                *next = item.sequence + 1;
            }
            Some(_) | None => self.misplaced += 1,
        }
    }

    /// The end of the list.
    pub fn finish(self) -> Verdict {
        let unseen: u64 = self.ranks.iter().map(|(share, next)| share - next).sum();
        Verdict { found: self.found, missing: self.missing + unseen, misplaced: self.misplaced }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(items: u64, nodes: u32, list: &[(u64, u64)]) -> Verdict {
        let mut check = Check::new(items, nodes);
        list.iter().for_each(|&(rank, sequence)| check.visit(Item { rank, sequence }));
        check.finish()
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
    fn interleaved_shares_are_intact() {
        let verdict = walk(5, 2, &[(1, 0), (0, 0), (0, 1), (1, 1), (0, 2)]);
        assert_eq!(verdict, Verdict { found: 5, missing: 0, misplaced: 0 });
        assert!(verdict.is_intact());
        assert!(walk(0, 2, &[]).is_intact());
    }

    #[test]
    fn every_kind_of_damage_is_seen() {
        let whole = [(0, 0), (0, 1), (1, 0), (1, 1)];
        assert_eq!(
            walk(4, 2, &whole[1..]),
            Verdict { found: 3, missing: 1, misplaced: 0 },
            "one at the head"
        );
        assert_eq!(
            walk(4, 2, &whole[..3]),
            Verdict { found: 3, missing: 1, misplaced: 0 },
            "one at the tail"
        );
        assert_eq!(walk(4, 2, &[]), Verdict { found: 0, missing: 4, misplaced: 0 }, "all");
        let twice = [(0, 0), (0, 0), (0, 1), (1, 0), (1, 1)];
        assert_eq!(walk(4, 2, &twice), Verdict { found: 4, missing: 0, misplaced: 1 });
        let swapped = [(0, 1), (0, 0), (1, 0), (1, 1)];
        assert_eq!(walk(4, 2, &swapped), Verdict { found: 3, missing: 1, misplaced: 1 });
        let strange = [(0, 0), (0, 1), (1, 0), (1, 1), (7, 0), (0, u64::MAX)];
        assert_eq!(walk(4, 2, &strange), Verdict { found: 4, missing: 0, misplaced: 2 });
    }
}
