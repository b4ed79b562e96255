//! What a node says to the process that started it: lines of JSON on its standard output.

use super::check::Verdict;
use dsm_node::Lost;
use serde::{Deserialize, Serialize};
use std::fmt;

/// One line.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeLine {
    /// So many items of this node's share are acknowledged: their sections have committed.
    Appended {
        /// How many.
        count: u64,
    },
    /// The list is so long, and all that is in it is acknowledged. This node is in the middle of appending another item: it
    /// owns the page of the list's end, and holds still until it is told to go on, or dies.
    Reached {
        /// A length that the node was told to hold still at.
        length: u64,
        /// How many items of this node's share are acknowledged.
        count: u64,
    },
    /// So many items of the whole list were checked.
    Checked {
        /// How many.
        count: u64,
    },
    /// How long some of the node's faults took; said before the report, in as many lines as it takes.
    Faults {
        /// Pairs of a time in nanoseconds and how often it came.
        nanos: Vec<(u64, u64)>,
    },
    /// The node got over the death of another.
    Recovered {
        /// When something was resolved that had waited for the dead, or else when the node went on: nanoseconds of this
        /// machine's clock since its start.
        at: u64,
    },
    /// Something that the list needs is lost.
    Broken(Break),
    /// The node is done.
    Report(Box<Report>),
    /// The node cannot go on.
    Failed {
        /// Why.
        message: String,
    },
}

impl NodeLine {
    /// The line.
    pub fn to_json(&self) -> String {
        // A value of numbers and strings has a JSON form always; an empty line would be shown to the user.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// A node's figures.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Report {
    /// Items whose appending was acknowledged.
    pub acknowledged: u64,
    /// What its walk found, unless the list is broken.
    pub verdict: Option<Verdict>,
    /// Faults of loads.
    pub read_faults: u64,
    /// Faults of stores.
    pub write_faults: u64,
    /// Pages whose bytes came from other nodes.
    pub pages_moved: u64,
    /// Bytes that came from other nodes.
    pub bytes_moved: u64,
    /// Pages that the node knows to be lost.
    pub lost_pages: u64,
}

/// Where a list ends before its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Break {
    /// Items that a walk from the newest to the oldest met before it. None where the lock that guards the whole list is lost,
    /// and nothing of it can be had.
    pub walked: Option<u64>,
    /// The page that is lost.
    pub page: u64,
    /// Its address.
    pub address: u64,
    /// The rank that owned it last, if anybody knows.
    pub last_owner: Option<u32>,
    /// The view in whose recovery it was found lost.
    pub view: u64,
}

impl Break {
    /// Where `lost` is, after so many items.
    pub fn new(lost: Lost, walked: Option<u64>) -> Break {
        let Lost { page, address, last_owner, view, .. } = lost;
        Break { walked, page, address, last_owner, view }
    }
}

impl fmt::Display for Break {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.walked {
            Some(walked) => write!(f, "the chain breaks after its newest {walked} items: ")?,
            None => write!(f, "the lock says that the list is lost: ")?,
        }
        write!(f, "page {:#x}, address {:#x}, last owner ", self.page, self.address)?;
        match self.last_owner {
            Some(rank) => write!(f, "rank {rank}")?,
            None => write!(f, "unknown")?,
        }
        write!(f, ", lost in view {}", self.view)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_break_says_where_and_whose() {
        let known =
            Break { walked: Some(7), page: 0x10, address: 0x2000_0001_0000, last_owner: Some(2), view: 3 };
        assert_eq!(
            known.to_string(),
            "the chain breaks after its newest 7 items: page 0x10, address 0x200000010000, last owner rank 2, \
             lost in view 3"
        );
        let guarded = Break { walked: None, last_owner: None, ..known };
        assert!(guarded.to_string().contains("lock says") && guarded.to_string().contains("owner unknown"));
    }
}
