//! Failpoints in the simulation: one node dies, or loses a message, at a place that has the same name on real nodes.
//!
//! A node that is to die here does so before anything else happens, with what it has said since still on its way: any
//! part of that may arrive, as with a process that is killed.

use super::world::{Happening, World};
use dsm_core::NodeId;
use dsm_core::failpoint::{Deed, Failpoints, Moment};
use std::str::FromStr;

/// Failpoints, and whose they are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Doom {
    node: NodeId,
    points: Failpoints,
}

impl FromStr for Doom {
    type Err = String;

    fn from_str(text: &str) -> Result<Doom, String> {
        let (rank, points) =
            text.split_once(':').ok_or("write RANK:FAILPOINT, such as 1:send:Grant@3=kill")?;
        let node = rank.parse().map(NodeId).map_err(|_| format!("{rank:?} is no rank"))?;
        Ok(Doom { node, points: points.parse::<Failpoints>().map_err(|error| error.to_string())? })
    }
}

impl World {
    /// `node` is at a place that may be a failpoint. Whether the message that it is about is to be lost.
    pub(super) fn come_to(&mut self, node: NodeId, moment: Moment, name: &str) -> bool {
        let Some(doom) = self.doom.as_mut().filter(|doom| doom.node == node) else { return false };
        match doom.points.hit(moment, name) {
            Some(Deed::Kill | Deed::Panic) => {
                self.trace.note(self.now, node, || format!("is to die: {moment:?} {name}"));
                self.schedule(self.now, Happening::Killed(node));
                false
            }
            Some(Deed::Drop) => true,
            // Time is the cluster simulation's: there nodes are stopped and slow.
            Some(Deed::Stop | Deed::Delay(_)) | None => false,
        }
    }
}
