//! What others say to a process in a view, and what is answered at once. What follows from it all is `seat`'s.

use super::{Life, Out, Seat};
use crate::ids::{NodeId, ViewId};
use crate::membership::change::Candidate;
use crate::membership::packet::{Body, Packet, Welcome};
use crate::membership::store::ConfigStore;
use crate::membership::voters::VoterId;
use crate::time::Time;

impl<S: ConfigStore> Seat<S> {
    /// A packet came. Who is behind is told what it missed, who is ahead is asked, and who is no member is told so.
    pub(super) fn receive(
        &mut self,
        now: Time,
        from: VoterId,
        packet: Packet<S::Message>,
        out: &mut Out<S::Message>,
        rejected: &mut u64,
    ) -> Life {
        let Packet { view, incarnation, body } = packet;
        match body {
            Body::Join(candidate) => self.asked(now, from, candidate, out, rejected),
            Body::Removed { incarnation } => {
                if incarnation == self.identity.incarnation && view > self.view.id() {
                    return self.removed(view, out);
                }
            }
            Body::Decided { of, change } => {
                if of == self.view.id() {
                    if change.fits(&self.view) {
                        return self.install(now, &change, out);
                    }
                    *rejected += 1;
                }
            }
            // Only candidates need a whole view.
            Body::Welcome(_) => {}
            Body::Heartbeat { .. } | Body::Answer { .. } | Body::Consensus(_) | Body::Fetch => {
                let known = match from {
                    VoterId::Witness => self.settings.witness(),
                    VoterId::Node(node) => {
                        self.view.member(node).is_some_and(|member| member.incarnation == incarnation)
                    }
                };
                if view > self.view.id() {
                    self.ask_what_was_missed(now, from, out);
                } else if !known {
                    out.push(self.packet(from, Body::Removed { incarnation }));
                } else if view < self.view.id() {
                    self.tell_what_was_missed(from, view, out);
                } else {
                    self.hear(now, from, body, out, rejected);
                }
            }
        }
        Life::On
    }

    /// A word in this view, of somebody who is in it.
    fn hear(
        &mut self,
        now: Time,
        from: VoterId,
        body: Body<S::Message>,
        out: &mut Out<S::Message>,
        rejected: &mut u64,
    ) {
        match body {
            Body::Heartbeat { stamp, renew, claims } => {
                self.evidence.hear(from, stamp, claims, &self.view);
                if let Some(node) = from.node().filter(|_| renew) {
                    let granted = self.grants(now, node);
                    if granted {
                        self.promises.renew(now, node);
                    }
                    out.push(self.packet(from, Body::Answer { stamp, granted }));
                }
            }
            Body::Answer { stamp, granted } => {
                let sent = Time::from_nanos(stamp);
                if sent > now {
                    *rejected += 1;
                } else if granted && !self.leaving {
                    self.lease.renew(from, sent);
                }
            }
            Body::Consensus(message) => {
                if !self.voters.contains(self.identity.id) || !self.store().receive(from, message) {
                    *rejected += 1;
                }
            }
            Body::Fetch | Body::Decided { .. } | Body::Removed { .. } | Body::Join(_) | Body::Welcome(_) => {}
        }
    }

    /// Whether this voter lets `node` go on: not after it has called it refused, not once a successor of the view may
    /// have been decided, and not while it is to go because of a rift.
    fn grants(&self, now: Time, node: NodeId) -> bool {
        !self.accepted
            && !self.evidence.mine().refused.contains(node)
            && self.rifts.victim(now, self.settings.rift_patience()) != Some(node)
    }

    fn asked(
        &mut self,
        now: Time,
        from: VoterId,
        candidate: Candidate,
        out: &mut Out<S::Message>,
        rejected: &mut u64,
    ) {
        if from != VoterId::Node(candidate.node) {
            *rejected += 1;
        } else if self.view.member(candidate.node).is_some_and(|it| it.incarnation == candidate.incarnation) {
            self.welcome(from, out);
        } else if self.evidence.has_departed(&candidate) {
            out.push(self.packet(from, Body::Removed { incarnation: candidate.incarnation }));
        } else {
            self.evidence.ask(now, candidate);
        }
    }

    pub(super) fn welcome(&self, to: VoterId, out: &mut Out<S::Message>) {
        out.extend(Welcome::parts(&self.view).into_iter().map(|part| self.packet(to, Body::Welcome(part))));
    }

    fn ask_what_was_missed(&mut self, now: Time, from: VoterId, out: &mut Out<S::Message>) {
        if now >= self.fetch {
            self.fetch = now + self.settings.turn();
            out.push(self.packet(from, Body::Fetch));
        }
    }

    fn tell_what_was_missed(&self, to: VoterId, since: ViewId, out: &mut Out<S::Message>) {
        for (of, change) in self.history.iter().filter(|(of, _)| *of >= since) {
            out.push(self.packet(to, Body::Decided { of: *of, change: change.clone() }));
        }
    }
}
