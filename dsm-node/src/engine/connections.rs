//! Which link goes to which process: a rank may be had by one after the other, and each is another peer.
//!
//! A member's link is there from the moment at which its view is installed, connected or not: what is said to it before
//! it is connected waits. Links that are down are seen to here too: no member stays without a call.

use super::Engine;
use super::timers::Reminder;
use crate::transport::Link;
use dsm_core::{Incarnation, NodeId, View};
use std::time::Duration;

/// After a call that failed, and after a change of the view, the next begins so much later: a peer that refuses each at
/// once, or a machine without threads to spare, is not to keep this node busy. The connection of a newcomer whose view
/// came before it was read comes within this, too.
const CALL_PAUSE: Duration = Duration::from_millis(200);

impl Engine {
    /// Sees to it that there is a link to each of the members of `view`, and to the process that is a member.
    pub(super) fn meet_members(&mut self, view: &View) {
        for (peer, member) in view.iter() {
            if peer != self.me && self.life_of(peer) != Some(member.incarnation) {
                self.meet(peer, member.incarnation);
            }
        }
    }

    /// The process `life` has the rank `peer` from now on, or wants it: the link to the one before is over.
    pub(super) fn meet(&mut self, peer: NodeId, life: Incarnation) {
        self.hang_up(peer);
        let Some(place) = self.links.get_mut(peer.index()) else { return };
        // A page fits into memory, so its size fits.
        let mut link = Link::new(peer, self.geometry.page_size() as usize).of(life);
        link.install(self.machine.view().id());
        self.mesh.reconnect.count_in(peer, link.received_handle());
        *place = Some(link);
    }

    /// The process to which the link to `peer` goes.
    pub(super) fn life_of(&self, peer: NodeId) -> Option<Incarnation> {
        self.links.get(peer.index()).and_then(Option::as_ref).and_then(Link::life)
    }

    /// Has the member `peer` called, or its call awaited, if its link is down.
    pub(super) fn call(&self, peer: NodeId) {
        if self.is_missing(peer)
            && let Some(life) = self.life_of(peer)
        {
            self.mesh.reconnect.begin(peer, life);
        }
    }

    /// As [`Engine::call`], in a moment.
    pub(super) fn call_soon(&mut self, peer: NodeId) {
        self.timers.set_within(Reminder::Call(peer), CALL_PAUSE);
    }

    /// Has all members called soon whose links are down: one may have broken before its peer was a member.
    pub(super) fn call_missing(&mut self) {
        for peer in self.machine.view().members().iter() {
            if self.is_missing(peer) {
                self.call_soon(peer);
            }
        }
    }

    /// Whether `peer` is a member, and the link to it is down.
    pub(super) fn is_missing(&self, peer: NodeId) -> bool {
        let is_down = |link: &Link| {
            let member = self.machine.view().member(peer).map(|member| member.incarnation);
            !link.is_attached() && member.is_some() && link.life() == member
        };
        let link = self.links.get(peer.index()).and_then(Option::as_ref);
        !self.stopping && !self.departing && link.is_some_and(is_down)
    }
}
