//! Agreement on the successor of one view: the seam behind which the consensus engine can be exchanged.

use crate::ids::ViewId;
use crate::membership::change::Change;
use crate::membership::voters::{VoterId, Voters};
use core::fmt::Debug;

/// One voter's part in the agreement on the successor of one view. It decides one change, once.
///
/// Its voters are the view's, so each view has an agreement of its own, with its own voters, and no reconfiguration
/// happens inside one. It may forget everything when its process ends: a process that ended never votes again.
///
/// Messages may be lost, and may come late, twice and out of order. Time is not its business: whoever wants something
/// calls [`ConfigStore::lead`] again after a while.
pub trait ConfigStore {
    /// What voters say to each other.
    type Message: Clone + Debug;

    /// The agreement on the successor of `view`, at the voter `me`.
    fn new(view: ViewId, me: VoterId, voters: Voters) -> Self;

    /// Takes the lead, and has `change` decided unless another change may have been decided already: then that one.
    /// Without a change, it only brings to an end what others began. Leading again after a while is how lost messages
    /// and dead leaders are dealt with.
    fn lead(&mut self, change: Option<Change>);

    /// Takes a message of another voter. What no correct voter says changes nothing; false if it was such.
    fn receive(&mut self, from: VoterId, message: Self::Message) -> bool;

    /// Says again what may have been lost.
    fn repeat(&mut self);

    /// The messages to be sent.
    fn drain(&mut self) -> Vec<(VoterId, Self::Message)>;

    /// Whether this voter has accepted a change that may come to be decided. From then on it grants no lease in the view.
    ///
    /// Of the voters whose acceptance makes the decision, each must have said yes here before it sent its acceptance.
    fn accepted(&self) -> bool;

    /// What was decided.
    fn decided(&self) -> Option<Change>;
}
