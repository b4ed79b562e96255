//! A process that is no member yet: it asks to be let in until it is told a view that it is in, or gives up.

use crate::copyset::Copyset;
use crate::ids::{NodeId, ViewId};
use crate::limits::NODES_MAX;
use crate::membership::change::Candidate;
use crate::membership::node::{Fact, Identity, Intent};
use crate::membership::packet::{Body, Packet, Welcome};
use crate::membership::settings::Settings;
use crate::membership::voters::VoterId;
use crate::time::Time;
use crate::view::{Member, View};
use std::collections::BTreeMap;

/// The view of who is in none.
const NO_VIEW: ViewId = ViewId(0);

/// A candidate.
#[derive(Clone, Debug)]
pub struct Joiner {
    candidate: Candidate,
    settings: Settings,
    contacts: Vec<VoterId>,
    gives_up: Time,
    asks: Time,
    /// The view of which parts have come, and the parts.
    told: ViewId,
    parts: BTreeMap<NodeId, Member>,
}

/// How the asking goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Admission {
    /// No answer yet.
    Waiting,
    /// This is the view that it is in.
    Admitted(View),
    /// It will never be in one.
    Over,
}

impl Joiner {
    /// A candidate that asks `contacts`.
    pub fn new(now: Time, candidate: Candidate, settings: Settings, contacts: Vec<VoterId>) -> Joiner {
        let gives_up = now + settings.join_timeout();
        Joiner { candidate, settings, contacts, gives_up, asks: now, told: NO_VIEW, parts: BTreeMap::new() }
    }

    /// Which process it is.
    pub fn identity(&self) -> Identity {
        let Candidate { node, incarnation, host } = self.candidate;
        Identity { id: VoterId::Node(node), incarnation, host }
    }

    /// The cluster's times.
    pub fn settings(&self) -> Settings {
        self.settings
    }

    /// When it asks again.
    pub fn deadline(&self) -> Time {
        self.asks.min(self.gives_up)
    }

    /// Takes a fact.
    pub fn handle<M>(
        &mut self,
        now: Time,
        fact: Fact<M>,
        out: &mut Vec<Intent<M>>,
        rejected: &mut u64,
    ) -> Admission {
        let admission = match fact {
            Fact::Received { packet, .. } => self.receive(packet, out, rejected),
            Fact::Leave => {
                out.push(Intent::Left);
                Admission::Over
            }
            Fact::Tick | Fact::Suspected { .. } | Fact::ProvenDead { .. } => Admission::Waiting,
        };
        match admission {
            Admission::Waiting if now >= self.gives_up => {
                out.push(Intent::NoQuorum);
                return Admission::Over;
            }
            Admission::Waiting if now >= self.asks => self.ask(now, out),
            Admission::Waiting | Admission::Admitted(_) | Admission::Over => {}
        }
        admission
    }

    fn ask<M>(&mut self, now: Time, out: &mut Vec<Intent<M>>) {
        self.asks = now + self.settings.heartbeat();
        for to in &self.contacts {
            let body = Body::Join(self.candidate);
            let packet = Packet { view: NO_VIEW, incarnation: self.candidate.incarnation, body };
            out.push(Intent::Send { to: *to, packet });
        }
    }

    fn receive<M>(&mut self, packet: Packet<M>, out: &mut Vec<Intent<M>>, rejected: &mut u64) -> Admission {
        match packet.body {
            Body::Welcome(welcome) => self.welcome(packet.view, welcome, rejected),
            // It was let in and evicted before it knew.
            Body::Removed { incarnation } if incarnation == self.candidate.incarnation => {
                out.push(Intent::Evicted { view: packet.view });
                Admission::Over
            }
            // Members of a view that it is in speak to it before it knows: it asks on, and is told.
            Body::Heartbeat { .. }
            | Body::Answer { .. }
            | Body::Consensus(_)
            | Body::Decided { .. }
            | Body::Fetch
            | Body::Removed { .. }
            | Body::Join(_) => Admission::Waiting,
        }
    }

    /// A part of a view. Parts of several views may come mixed, after changes in a row: the newest counts.
    fn welcome(&mut self, view: ViewId, welcome: Welcome, rejected: &mut u64) -> Admission {
        let fits =
            welcome.some.iter().all(|(node, _)| welcome.all.contains(*node) && node.index() < NODES_MAX);
        if !fits || view == NO_VIEW {
            *rejected += 1;
            return Admission::Waiting;
        }
        if view < self.told {
            return Admission::Waiting;
        }
        if view > self.told {
            self.told = view;
            self.parts.clear();
        }
        self.parts.extend(welcome.some);
        let told: Copyset = self.parts.keys().copied().collect();
        let mine = self.parts.get(&self.candidate.node).map(|member| member.incarnation);
        if told != welcome.all || mine != Some(self.candidate.incarnation) {
            return Admission::Waiting;
        }
        let members = core::mem::take(&mut self.parts);
        Admission::Admitted(View::told(view, welcome.replicas, members))
    }
}
