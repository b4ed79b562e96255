//! What the engine of a node does about the membership; and the launcher, which has no pages.

use super::mutant::Mutant;
use super::state::{Happening, Word};
use crate::membership_sim::{End, ProcessId, nanos};
use crate::survive::Check;
use crate::survive::world::{self, World};
use dsm_core::NodeId;
use dsm_core::View;
use dsm_core::membership::{Fact, Intent, VoterId};
use std::time::Duration;

/// What the launcher, or a neighbour, takes to see a death, at least and at most, in nanoseconds.
const PROOF_DELAY: (u64, u64) = (50_000, 5_000_000);

/// What others take to see that connections are closed.
const CLOSED_DELAY: (u64, u64) = (20_000, 2_000_000);

/// How late an engine usually is for its own wake-up call, at most.
const LATE_NANOS: u64 = 100_000;

/// Where the machines are busy, wake-up calls may come later by this part of a lease.
const BUSY_PART: u64 = 3;

impl World {
    /// Tells a process something about the membership, and does what follows from it.
    pub(super) fn tell(&mut self, process: ProcessId, fact: Fact<Word>) -> Check {
        let now = self.now.as_nanos();
        let Some(cluster) = &mut self.cluster else { return Ok(()) };
        let it = &mut cluster.processes[process];
        if !it.lives() {
            return Ok(());
        }
        let fact = match fact {
            Fact::Suspected { node } if cluster.mutant == Some(Mutant::TakesSuspicionForProof) => {
                let member = it.membership.view().and_then(|view| view.member(node));
                let incarnation = member.map(|member| member.incarnation);
                incarnation.map_or(Fact::Tick, |incarnation| Fact::ProvenDead { node, incarnation })
            }
            Fact::Suspected { .. }
            | Fact::Tick
            | Fact::Received { .. }
            | Fact::ProvenDead { .. }
            | Fact::Leave => fact,
        };
        let mut intents = Vec::new();
        it.membership.handle(it.clock.shows(now), fact.clone(), &mut intents);
        let rank = NodeId(u16::try_from(process).unwrap_or(u16::MAX));
        if intents.iter().any(|intent| !matches!(intent, Intent::Send { .. })) {
            self.trace.note(self.now, rank, || format!("<= {fact:?}"));
        }
        for intent in intents {
            self.follow(process, intent)?;
        }
        let ignores = self.is_mutant(Mutant::IgnoresFreeze);
        let Some(cluster) = &mut self.cluster else { return Ok(()) };
        // One that does not notice that it is over is found by what follows from that.
        if cluster.processes[process].membership.deadline().is_some() {
            cluster.checks.after(now, &cluster.processes, process, ignores)?;
        }
        self.set_alarm(process);
        Ok(())
    }

    fn set_alarm(&mut self, process: ProcessId) {
        let lease = self.lease();
        let busy = self.trouble_permille(|trouble| trouble.busy_permille);
        let late = if self.rng.chance(busy) { lease / BUSY_PART } else { LATE_NANOS };
        let late = self.rng.below(late);
        let Some(cluster) = &mut self.cluster else { return };
        let it = &mut cluster.processes[process];
        it.alarm += 1;
        let (alarm, sluggish) = (it.alarm, it.sluggish);
        let Some(deadline) = it.membership.deadline() else { return };
        let at = it.clock.when(deadline).max(self.now.as_nanos()) + late + sluggish;
        self.schedule(
            dsm_core::Time::from_nanos(at),
            world::Happening::Cluster(Happening::Alarm(process, alarm)),
        );
    }

    /// A lease's length, in nanoseconds.
    pub(super) fn lease(&self) -> u64 {
        self.cluster.as_ref().map_or(0, |cluster| nanos(cluster.settings.lease()))
    }

    fn follow(&mut self, process: ProcessId, intent: Intent<Word>) -> Check {
        let now = self.now.as_nanos();
        let Some(cluster) = &mut self.cluster else { return Ok(()) };
        let it = &mut cluster.processes[process];
        let node = it.identity.id.node();
        if !matches!(intent, Intent::Send { .. }) {
            cluster.checks.intents += 1;
            let rank = NodeId(u16::try_from(process).unwrap_or(u16::MAX));
            self.trace.note(self.now, rank, || format!("=> {intent:?}"));
        }
        match intent {
            Intent::Send { to, packet } => self.send_packet(process, to, packet),
            Intent::Install(view) => self.agreed(process, view)?,
            Intent::Freeze => {
                it.frozen = Some(it.clock.shows(now));
                node.into_iter().for_each(|node| self.freeze(node));
            }
            Intent::Resume => {
                it.frozen = None;
                if let Some(node) = node {
                    self.thaw(node)?;
                }
            }
            Intent::Evicted { view } => {
                cluster.checks.evicted(&cluster.processes[process], view)?;
                if !cluster.has(Mutant::IgnoresEviction) {
                    self.over(process, End::Evicted);
                }
            }
            Intent::Left => self.over(process, End::Left),
            Intent::NoQuorum if cluster.has(Mutant::IgnoresNoQuorum) => {}
            Intent::NoQuorum => self.over(process, End::NoQuorum),
            Intent::Kill { node, incarnation: _ } => {
                let seen = self.trouble_permille(|trouble| trouble.launcher_permille) > 0;
                if seen && !self.node(node).dead {
                    self.kill(node);
                }
            }
        }
        Ok(())
    }

    fn trouble_permille(&self, of: impl Fn(&super::trouble::Trouble) -> u64) -> u64 {
        self.cluster.as_ref().map_or(0, |cluster| of(&cluster.trouble))
    }

    /// A process has a new view.
    fn agreed(&mut self, process: ProcessId, view: View) -> Check {
        let now = self.now.as_nanos();
        let Some(cluster) = &mut self.cluster else { return Ok(()) };
        cluster.checks.installed(now, &mut cluster.processes, process, view.clone())?;
        let node = cluster.processes[process].identity.id.node();
        let newest = cluster.checks.newest().clone();
        if newest.id() > self.view.id() {
            self.view = newest.clone();
            self.views.push(newest.clone());
            self.counts.views += 1;
            for gone in self.plan.view.members().minus(newest.members()).iter() {
                let Some(cluster) = &mut self.cluster else { continue };
                let was_out = std::mem::replace(&mut cluster.drivers[gone.index()].out, true);
                if !was_out {
                    self.oracle.died(gone);
                }
            }
        }
        let Some(node) = node else { return Ok(()) };
        if self.is_mutant(Mutant::MissesViews) && self.is_held(node) {
            return Ok(());
        }
        self.install_view(node, view)
    }

    /// A node may act again.
    fn thaw(&mut self, node: NodeId) -> Check {
        let forgets = self.is_mutant(Mutant::ForgetsQueue);
        let Some(cluster) = &mut self.cluster else { return Ok(()) };
        let driver = &mut cluster.drivers[node.index()];
        driver.held = false;
        if forgets {
            driver.outbox.clear();
        }
        self.schedule(self.now, world::Happening::Cluster(Happening::Depart(node)));
        self.catch_up(node)
    }

    /// A process is not to go on.
    fn over(&mut self, process: ProcessId, end: End) {
        if let Some(cluster) = &mut self.cluster {
            cluster.processes[process].end = Some(end);
            if let Some(node) = cluster.processes[process].identity.id.node() {
                self.kill(node);
            }
        }
    }

    /// A process is no more: who can see it is told.
    pub(in crate::survive) fn ended(&mut self, process: ProcessId, end: End) {
        let Some(cluster) = &mut self.cluster else { return };
        let it = &mut cluster.processes[process];
        it.end.get_or_insert(end);
        it.stopped = None;
        let identity = it.identity;
        cluster.drivers[process] =
            super::state::Driver { out: cluster.drivers[process].out, ..Default::default() };
        let VoterId::Node(node) = identity.id else { return };
        let (pidfds, launcher, suspect) = {
            let trouble = &cluster.trouble;
            (trouble.pidfds, trouble.launcher_permille, trouble.suspect_permille)
        };
        let others: Vec<(ProcessId, bool, bool)> = cluster
            .processes
            .iter()
            .enumerate()
            .filter(|(other, _)| *other != process)
            .map(|(other, it)| {
                let witness = it.identity.id == VoterId::Witness;
                (other, witness, it.identity.host == identity.host)
            })
            .collect();
        let seen = self.rng.chance(launcher);
        for (other, witness, near) in others {
            if witness && seen || !witness && near && pidfds {
                let delay = self.rng.between(PROOF_DELAY.0, PROOF_DELAY.1);
                let fact = Fact::ProvenDead { node, incarnation: identity.incarnation };
                self.told_later(other, delay, fact);
            } else if self.rng.chance(suspect) {
                let delay = self.rng.between(CLOSED_DELAY.0, CLOSED_DELAY.1);
                self.told_later(other, delay, Fact::Suspected { node });
            }
        }
    }

    /// A process is told something after a while.
    pub(super) fn told_later(&mut self, process: ProcessId, delay: u64, fact: Fact<Word>) {
        let at = self.now + Duration::from_nanos(delay);
        self.schedule(at, world::Happening::Cluster(Happening::Told(process, fact)));
    }
}
