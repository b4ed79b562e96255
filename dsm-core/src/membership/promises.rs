//! The voter's side of leases: whom this voter has promised not to call late, and until when.
//!
//! A promise begins when a renewal is *received*, which is never before it was sent, and lasts longer than the lease by what
//! the clocks may differ in speed. So it ends after the holder's own count of it, whatever the clocks show.

use crate::copyset::Copyset;
use crate::ids::NodeId;
use crate::membership::settings::Settings;
use crate::time::Time;
use std::collections::BTreeMap;

/// What this voter has promised.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Promises {
    settings: Settings,
    /// When each member may be called late.
    until: BTreeMap<NodeId, Time>,
    /// Members that this voter has heard at least once.
    heard: Copyset,
}

impl Promises {
    /// The promises to `members` with which a view begins: nobody is late for a whole lease, and those that were never
    /// heard for longer. Whoever learns of the view late still acts on a lease of the view before, for that long at most.
    pub fn begin(now: Time, settings: Settings, members: Copyset, known: Copyset) -> Promises {
        let heard = members.intersection(known);
        let patience = |node| if heard.contains(node) { settings.promise() } else { settings.first_word() };
        let until = members.iter().map(|node| (node, now + patience(node))).collect();
        Promises { settings, until, heard }
    }

    /// Promises `node` a lease more.
    pub fn renew(&mut self, now: Time, node: NodeId) {
        if !self.heard.contains(node) && self.until.contains_key(&node) {
            self.heard = self.heard.with(node);
            self.until.insert(node, now + self.settings.promise());
        }
        self.extend(now, node);
    }

    /// This voter did not run for a while, so that others may have spoken unheard: it begins to listen anew.
    pub fn forgive(&mut self, now: Time, refused: Copyset) {
        let forgiven: Vec<NodeId> =
            self.until.keys().copied().filter(|node| !refused.contains(*node)).collect();
        for node in forgiven {
            self.extend(now, node);
        }
    }

    /// Whom it may call late.
    pub fn late(&self, now: Time) -> Copyset {
        self.until.iter().filter(|(_, until)| now >= **until).map(|(node, _)| *node).collect()
    }

    /// Members that it has heard.
    pub fn heard(&self) -> Copyset {
        self.heard
    }

    /// When somebody comes to be late next.
    pub fn deadline(&self, late: Copyset) -> Option<Time> {
        self.until.iter().filter(|(node, _)| !late.contains(**node)).map(|(_, until)| *until).min()
    }

    fn extend(&mut self, now: Time, node: NodeId) {
        if let Some(until) = self.until.get_mut(&node) {
            *until = (now + self.settings.promise()).max(*until);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_late_before_its_time() {
        let settings = Settings::default();
        let known = Copyset::first(2);
        let mut promises = Promises::begin(Time::ZERO, settings, Copyset::first(3), known);
        let end = Time::ZERO + settings.promise();
        assert_eq!(promises.late(Time::ZERO + settings.lease()), Copyset::EMPTY);
        assert_eq!(promises.late(end), known, "rank 2 was never heard, and has longer");
        promises.renew(Time::from_nanos(5), NodeId(1));
        assert_eq!(promises.late(end), Copyset::EMPTY.with(NodeId(0)));
        promises.forgive(Time::from_nanos(7), Copyset::EMPTY.with(NodeId(0)));
        assert_eq!(promises.late(end), Copyset::EMPTY.with(NodeId(0)), "who is refused stays late");
        assert_eq!(promises.deadline(known), Some(Time::ZERO + settings.first_word()));
        promises.renew(Time::from_nanos(9), NodeId(2));
        assert_eq!(
            promises.deadline(known),
            Some(Time::from_nanos(9) + settings.promise()),
            "its first word"
        );
    }
}
