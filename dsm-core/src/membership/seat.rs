//! A process that is in a view: a member, or the launcher. It keeps its own lease, grants others theirs, gathers what is
//! known, takes its turn in leading changes, and installs what was decided.

use crate::copyset::Copyset;
use crate::ids::ViewId;
use crate::membership::change::Change;
use crate::membership::evidence::Evidence;
use crate::membership::lease::{Lease, Reach};
use crate::membership::node::{Fact, Identity, Intent};
use crate::membership::packet::{Body, Claims, Packet};
use crate::membership::promises::Promises;
use crate::membership::rifts::Rifts;
use crate::membership::settings::Settings;
use crate::membership::store::ConfigStore;
use crate::membership::turns::Turns;
use crate::membership::voters::{VoterId, Voters};
use crate::time::Time;
use crate::view::View;
use std::collections::VecDeque;

/// The changes that are kept for those who missed some. Who missed more has missed its lease many times over.
const HISTORY_LENGTH: usize = 64;

/// Whether there is anything more to come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Life {
    /// There is.
    On,
    /// There is not.
    Over,
}

type Out<M> = Vec<Intent<M>>;

mod hearing;

/// The state of a process in a view.
pub struct Seat<S: ConfigStore> {
    identity: Identity,
    settings: Settings,
    view: View,
    voters: Voters,
    /// The latest changes, each with the view that it applied to.
    history: VecDeque<(ViewId, Change)>,
    /// What this node holds; the launcher holds nothing.
    lease: Lease,
    /// Since when it has had no lease.
    frozen: Option<Time>,
    /// What this process granted.
    promises: Promises,
    evidence: Evidence,
    rifts: Rifts,
    turns: Turns,
    /// The agreement on the next view, once anybody wants one.
    store: Option<S>,
    /// Whether it has accepted a successor of the view.
    accepted: bool,
    leaving: bool,
    heartbeat: Time,
    /// What the last heartbeat said.
    said: Claims,
    /// When it may ask again what it missed.
    fetch: Time,
    /// Members whose end the launcher was asked for, in this view.
    killed: Copyset,
    deadline: Time,
}

impl<S: ConfigStore> Seat<S> {
    /// A process in `view`, which counts as installed.
    pub fn new(now: Time, identity: Identity, settings: Settings, view: View) -> Seat<S> {
        let voters = Voters::of(&view, settings.witness());
        let others = identity.id.node().map_or(view.members(), |me| view.members().without(me));
        Seat {
            identity,
            settings,
            voters,
            history: VecDeque::new(),
            lease: Lease::new(identity.id, settings.lease()),
            frozen: Some(now),
            promises: Promises::begin(now, settings, others, Copyset::EMPTY),
            evidence: Evidence::new(identity.id),
            rifts: Rifts::default(),
            turns: Turns::default(),
            store: None,
            accepted: false,
            leaving: false,
            heartbeat: now,
            said: Claims::default(),
            fetch: now,
            killed: Copyset::EMPTY,
            deadline: now,
            view,
        }
    }

    /// The view that was installed last.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// When it wants to be told the time.
    pub fn deadline(&self) -> Time {
        self.deadline
    }

    /// Whether this node may act.
    pub fn holds_lease(&self, now: Time) -> bool {
        let reaches = match self.lease.reach(self.voters) {
            Reach::None => false,
            Reach::Until(end) => now < end,
            Reach::Endless => true,
        };
        reaches && !self.leaving && self.frozen.is_none()
    }

    /// Takes a fact.
    pub fn handle(
        &mut self,
        now: Time,
        fact: Fact<S::Message>,
        out: &mut Out<S::Message>,
        rejected: &mut u64,
    ) -> Life {
        if now.since(self.deadline) > self.settings.pause() {
            self.promises.forgive(now, self.evidence.mine().refused);
        }
        // First of all: whatever the fact is, it must not be acted on with a lease that has run out.
        let mut life = self.watch_lease(now, out);
        if life == Life::On {
            life = self.take(now, fact, out, rejected);
        }
        if life == Life::On {
            life = self.settle(now, out);
        }
        if life == Life::On {
            life = self.watch_lease(now, out);
        }
        if life == Life::On {
            self.speak(now, out);
            self.deadline = self.next_deadline(now);
        }
        life
    }

    fn take(
        &mut self,
        now: Time,
        fact: Fact<S::Message>,
        out: &mut Out<S::Message>,
        rejected: &mut u64,
    ) -> Life {
        match fact {
            Fact::Tick => {}
            Fact::Received { from, packet } => return self.receive(now, from, packet, out, rejected),
            Fact::Suspected { node } => self.evidence.suspect(node, &self.view),
            Fact::ProvenDead { node, incarnation } => self.evidence.prove(node, incarnation, &self.view),
            Fact::Leave => {
                if let Some(me) = self.identity.id.node() {
                    self.leaving = true;
                    if self.view.members() == Copyset::EMPTY.with(me) {
                        return self.removed(self.view.id(), out);
                    }
                    self.lease.drop_all();
                    self.evidence.leave();
                }
            }
        }
        Life::On
    }

    /// The end of the own lease, its return, and the end of patience.
    fn watch_lease(&mut self, now: Time, out: &mut Out<S::Message>) -> Life {
        if self.identity.id == VoterId::Witness {
            return Life::On;
        }
        let held = match self.lease.reach(self.voters) {
            Reach::None => false,
            Reach::Until(end) => now < end,
            Reach::Endless => true,
        } && !self.leaving;
        match (held, self.frozen) {
            (true, Some(_)) => {
                self.frozen = None;
                out.push(Intent::Resume);
            }
            (false, None) => {
                self.frozen = Some(now);
                out.push(Intent::Freeze);
            }
            (false, Some(since)) if now.since(since) >= self.settings.quorum_timeout() => {
                out.push(Intent::NoQuorum);
                return Life::Over;
            }
            (true, None) | (false, Some(_)) => {}
        }
        Life::On
    }

    /// Does what follows from what is known, until nothing more follows.
    fn settle(&mut self, now: Time, out: &mut Out<S::Message>) -> Life {
        loop {
            self.note_acceptance(now);
            if !self.accepted {
                self.judge(now);
            }
            self.lead(now);
            self.note_acceptance(now);
            self.flush(out);
            let Some(change) = self.store.as_ref().and_then(ConfigStore::decided) else { break };
            assert!(
                change.fits(&self.view),
                "voters agreed on {change:?}, which is no successor of {:?}",
                self.view
            );
            if self.install(now, &change, out) == Life::Over {
                return Life::Over;
            }
        }
        self.ask_for_proofs(out);
        Life::On
    }

    fn note_acceptance(&mut self, now: Time) {
        let accepted = self.store.as_ref().is_some_and(ConfigStore::accepted);
        if self.accepted && !accepted {
            // Meanwhile it granted nothing, which says nothing about those that it did not grant.
            self.promises.forgive(now, self.evidence.mine().refused);
        }
        self.accepted = accepted;
        self.lease.accept(now, accepted);
    }

    fn judge(&mut self, now: Time) {
        self.evidence.judge(self.promises.late(now), self.voters);
        let mine = self.evidence.mine();
        // Whoever is late because of a rift stays late until it is mended or the member is gone: else the grants that
        // follow would end the lateness before the other voters come to it.
        let victim = self.rifts.victim(now, self.settings.rift_patience());
        let late = victim.map_or(mine.late, |victim| mine.late.without(victim));
        self.rifts.update(now, self.evidence.all(), late.union(mine.dead));
    }

    fn lead(&mut self, now: Time) {
        if !self.voters.contains(self.identity.id) {
            return;
        }
        let change = self.evidence.change(&self.view, self.voters);
        let wanted = change.is_some() || self.accepted;
        let turn = self.settings.turn();
        if self.turns.take(now, wanted, self.position(), self.voters.len(), turn) {
            self.store().lead(change);
        }
    }

    /// How many are before this voter in leading a change.
    fn position(&self) -> usize {
        let unfit = self.evidence.unfit();
        let fit = |voter: &VoterId| voter.node().is_none_or(|node| !unfit.contains(node));
        self.voters.iter().filter(fit).take_while(|voter| *voter != self.identity.id).count()
    }

    fn store(&mut self) -> &mut S {
        let (view, me, voters) = (self.view.id(), self.identity.id, self.voters);
        self.store.get_or_insert_with(|| S::new(view, me, voters))
    }

    fn flush(&mut self, out: &mut Out<S::Message>) {
        let messages = self.store.as_mut().map(ConfigStore::drain).unwrap_or_default();
        out.extend(messages.into_iter().map(|(to, message)| self.packet(to, Body::Consensus(message))));
    }

    fn install(&mut self, now: Time, change: &Change, out: &mut Out<S::Message>) -> Life {
        let next = change.apply(&self.view);
        let old = core::mem::replace(&mut self.view, next);
        let me = self.identity.id;
        let is_gone = me.node().is_some_and(|node| change.gone.contains(node));
        // When all leave, one is left at the end, and nobody is there to agree to its going.
        if is_gone || (self.leaving && self.view.members().len() == 1) {
            return self.removed(self.view.id(), out);
        }
        if self.history.len() == HISTORY_LENGTH {
            self.history.pop_front();
        }
        self.history.push_back((old.id(), change.clone()));
        // What others had may be its to keep now: it goes on, and says so again when it need not.
        self.leaving = false;
        self.lease.carry(now, self.voters);
        self.voters = Voters::of(&self.view, self.settings.witness());
        let others = me.node().map_or(self.view.members(), |node| self.view.members().without(node));
        self.promises = Promises::begin(now, self.settings, others, self.promises.heard().minus(change.gone));
        self.evidence.begin(&old, &self.view);
        self.rifts = Rifts::default();
        self.turns = Turns::default();
        self.store = None;
        self.accepted = false;
        self.killed = Copyset::EMPTY;
        self.heartbeat = now;
        out.push(Intent::Install(self.view.clone()));
        self.announce(&old, change, out);
        Life::On
    }

    /// One member tells those that consensus does not reach. Whoever it misses will ask.
    fn announce(&self, old: &View, change: &Change, out: &mut Out<S::Message>) {
        if self.identity.id != VoterId::Node(self.view.coordinator()) {
            return;
        }
        let to_old = |to| self.packet(to, Body::Decided { of: old.id(), change: change.clone() });
        out.extend(change.gone.iter().map(|node| to_old(VoterId::Node(node))));
        out.extend(self.settings.witness().then(|| to_old(VoterId::Witness)));
        for candidate in &change.joined {
            self.welcome(VoterId::Node(candidate.node), out);
        }
    }

    fn removed(&self, view: ViewId, out: &mut Out<S::Message>) -> Life {
        out.push(if self.leaving { Intent::Left } else { Intent::Evicted { view } });
        Life::Over
    }

    /// The launcher has those ended that are suspected, so that their death is proven.
    fn ask_for_proofs(&mut self, out: &mut Out<S::Message>) {
        if self.identity.id != VoterId::Witness {
            return;
        }
        for node in self.evidence.suspected().minus(self.evidence.mine().dead).minus(self.killed).iter() {
            if let Some(member) = self.view.member(node) {
                self.killed = self.killed.with(node);
                out.push(Intent::Kill { node, incarnation: member.incarnation });
            }
        }
    }

    /// The heartbeat: when it is time for it, and when there is news.
    fn speak(&mut self, now: Time, out: &mut Out<S::Message>) {
        let claims = self.evidence.claims(now, self.settings.lease());
        let due = now >= self.heartbeat;
        if !due && claims == self.said {
            return;
        }
        if due {
            self.heartbeat = now + self.settings.heartbeat();
            if let Some(store) = &mut self.store {
                store.repeat();
            }
            self.flush(out);
        }
        let renew = self.identity.id != VoterId::Witness && !self.leaving;
        let stamp = now.as_nanos();
        let everybody = self.view.members().iter().map(VoterId::Node);
        let everybody = everybody.chain(self.settings.witness().then_some(VoterId::Witness));
        for to in everybody.filter(|to| *to != self.identity.id) {
            out.push(self.packet(to, Body::Heartbeat { stamp, renew, claims: claims.clone() }));
        }
        self.said = claims;
    }

    fn next_deadline(&self, now: Time) -> Time {
        let lease_end = match (self.frozen, self.lease.reach(self.voters)) {
            (Some(since), _) => Some(since + self.settings.quorum_timeout()),
            (None, Reach::Until(end)) => Some(end),
            (None, Reach::None | Reach::Endless) => None,
        };
        let is_node = self.identity.id != VoterId::Witness;
        let late = self.promises.deadline(self.evidence.mine().late).filter(|_| !self.accepted);
        let rift = self.rifts.deadline(now, self.settings.rift_patience());
        let times = [lease_end.filter(|_| is_node), late, rift, self.turns.deadline()];
        times.into_iter().flatten().fold(self.heartbeat, Time::min)
    }

    fn packet(&self, to: VoterId, body: Body<S::Message>) -> Intent<S::Message> {
        let packet = Packet { view: self.view.id(), incarnation: self.identity.incarnation, body };
        Intent::Send { to, packet }
    }
}
