//! How much of a home's memory each node takes up: a count per node, with a limit. What is counted is its user's affair.

use crate::ids::NodeId;
use crate::limits::CALLS_MAX;
use std::collections::BTreeMap;

/// Counts of calls, by node. A node without calls has no entry.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct Quota {
    calls: BTreeMap<NodeId, usize>,
}

impl Quota {
    /// Counts one more call of `node`, if it may have one more.
    pub fn take(&mut self, node: NodeId) -> bool {
        let calls = self.calls.entry(node).or_default();
        let may = *calls < CALLS_MAX;
        *calls += usize::from(may);
        may
    }

    /// A call of `node` is over that was counted.
    pub fn give_back(&mut self, node: NodeId) {
        let Some(calls) = self.calls.get_mut(&node) else { return };
        *calls -= 1;
        if *calls == 0 {
            self.calls.remove(&node);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_has_so_many_calls_and_the_others_have_theirs() {
        let mut quota = Quota::default();
        for _ in 0..CALLS_MAX {
            assert!(quota.take(NodeId(1)));
        }
        assert!(!quota.take(NodeId(1)));
        assert!(quota.take(NodeId(2)));
        quota.give_back(NodeId(1));
        assert!(quota.take(NodeId(1)));
    }

    #[test]
    fn nothing_is_kept_of_a_node_without_calls() {
        let mut quota = Quota::default();
        assert!(quota.take(NodeId(1)));
        quota.give_back(NodeId(1));
        quota.give_back(NodeId(1));
        assert_eq!(quota, Quota::default());
    }
}
