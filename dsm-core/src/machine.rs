//! placeholder
use crate::{Access, Actions, Copyset, Event, Geometry, Message, NodeId, PageId, Time};

/// A broken invariant.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct Violation(pub String);

/// The protocol of one node.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Machine {}

impl Machine {
    /// The machine of `me` in a cluster of `members`.
    #[must_use]
    pub fn new(_me: NodeId, _members: Copyset, _geometry: Geometry) -> Machine {
        todo!()
    }
    /// Takes one fact and appends what is to be done about it.
    pub fn handle(&mut self, _now: Time, _event: Event, _out: &mut Actions) {
        todo!()
    }
    /// Whether the bytes behind `message` may go straight into the page's frame.
    #[must_use]
    pub fn reserves(&self, _from: NodeId, _message: &Message) -> bool {
        todo!()
    }
    /// What this node may do with `page`.
    #[must_use]
    pub fn access(&self, _page: PageId) -> Access {
        todo!()
    }
    /// Checks everything that must hold between events.
    ///
    /// # Errors
    /// The first invariant that does not hold.
    pub fn invariants(&self) -> Result<(), Violation> {
        todo!()
    }
}
