//! Who runs when: stopped processes, engines that are late; and the troubles that a seed has planned.

use super::state::Happening;
use crate::membership_sim::{End, Nemesis, ProcessId, undo};
use crate::survive::Check;
use crate::survive::world::{self, World};
use dsm_core::membership::{Fact, VoterId};
use dsm_core::{NodeId, Time};
use std::time::Duration;

/// After a process runs again, its threads do within this time, and its engine within the other, at most: threads
/// may be faster.
const THREADS_LAG: u64 = 20_000;
const ENGINE_LAG: u64 = 300_000;

/// How many engines in a thousand take much longer.
const LATE_PERMILLE: u64 = 300;
const LATE_LAG: u64 = 5_000_000;

/// When a connection is tried that is refused, in nanoseconds.
const REFUSED_DELAY: u64 = 1_000_000;

/// Who does what is going to happen.
enum Runs {
    /// A thread of this process.
    Thread(ProcessId),
    /// Its engine.
    Engine(ProcessId),
    /// Nobody: it is done to the cluster.
    Nobody,
}

fn runs(what: &world::Happening) -> Runs {
    match what {
        world::Happening::Step(node, _) => Runs::Thread(node.index()),
        world::Happening::Fault(node, ..)
        | world::Happening::Timer(node, ..)
        | world::Happening::Probed(node, ..)
        | world::Happening::Joined(node)
        | world::Happening::Installed(node, _) => Runs::Engine(node.index()),
        world::Happening::Delivered(said) => Runs::Engine(said.to.index()),
        world::Happening::Killed(_) | world::Happening::Knocks(_) | world::Happening::Agreed => Runs::Nobody,
        world::Happening::Cluster(what) => match what {
            Happening::Told(process, _) | Happening::Arrived(process, ..) | Happening::Alarm(process, _) => {
                Runs::Engine(*process)
            }
            Happening::Depart(node) | Happening::Mended(_, node) => Runs::Engine(node.index()),
            Happening::Continue(_) | Happening::Trouble(_) | Happening::Look => Runs::Nobody,
        },
    }
}

impl World {
    /// What is to happen, if its process runs; else it happens when it does.
    pub(in crate::survive) fn when_it_runs(&mut self, what: world::Happening) -> Option<world::Happening> {
        let Some(cluster) = &mut self.cluster else { return Some(what) };
        let (process, engine) = match runs(&what) {
            Runs::Nobody => return Some(what),
            Runs::Thread(process) => (process, false),
            Runs::Engine(process) => (process, true),
        };
        if !cluster.processes[process].lives() {
            return Some(what);
        }
        let driver = &mut cluster.drivers[process];
        if cluster.processes[process].stopped.is_some() {
            driver.backlog.push(what);
            return None;
        }
        let free = driver.busy_until;
        if engine && self.now < free {
            self.schedule(free, what);
            return None;
        }
        Some(what)
    }

    /// Does one thing that concerns the agreement on views.
    pub(in crate::survive) fn happen_in_cluster(&mut self, what: Happening) -> Check {
        match what {
            Happening::Told(process, fact) => self.tell(process, fact),
            Happening::Arrived(process, from, packet) => {
                if self.is_cut(from, process) {
                    return Ok(());
                }
                self.tell(process, Fact::Received { from, packet })
            }
            Happening::Alarm(process, alarm) => {
                let counts = |cluster: &super::Cluster| cluster.processes[process].alarm == alarm;
                if self.cluster.as_deref().is_some_and(counts) {
                    return self.tell(process, Fact::Tick);
                }
                Ok(())
            }
            Happening::Depart(node) => {
                self.depart(node);
                Ok(())
            }
            Happening::Mended(from, to) => self.mended(from, to),
            Happening::Continue(process) => {
                self.proceed(process);
                Ok(())
            }
            Happening::Trouble(place) => self.trouble(place),
            Happening::Look => self.look_around(),
        }
    }

    fn stop(&mut self, process: ProcessId, span: u64) {
        let now = self.now.as_nanos();
        let Some(cluster) = &mut self.cluster else { return };
        let it = &mut cluster.processes[process];
        if it.lives() && it.stopped.is_none() {
            it.stopped = Some(now);
            it.disturbed = true;
            cluster.tally.stopped += 1;
            let at = self.now + Duration::from_nanos(span);
            self.schedule(at, world::Happening::Cluster(Happening::Continue(process)));
        }
    }

    /// Threads and engine run again, the threads first perhaps.
    fn proceed(&mut self, process: ProcessId) {
        let lag = if self.rng.chance(LATE_PERMILLE) { LATE_LAG } else { ENGINE_LAG };
        let free = self.after(lag);
        let Some(cluster) = &mut self.cluster else { return };
        if cluster.processes[process].stopped.take().is_none() {
            return;
        }
        cluster.drivers[process].busy_until = free;
        let backlog = core::mem::take(&mut cluster.drivers[process].backlog);
        let clock_first = self.rng.chance(500);
        let tick = world::Happening::Cluster(Happening::Told(process, Fact::Tick));
        if clock_first {
            self.schedule(free, tick.clone());
        }
        for what in backlog {
            let at = match runs(&what) {
                Runs::Thread(_) => self.after(THREADS_LAG),
                Runs::Engine(_) | Runs::Nobody => free,
            };
            self.schedule(at, what);
        }
        self.schedule(free, tick);
    }

    /// Schedules all that is planned.
    pub(super) fn plan_trouble(&mut self) {
        let Some(cluster) = &self.cluster else { return };
        let times: Vec<u64> = cluster.trouble.list.iter().map(|(at, _)| *at).collect();
        for (place, at) in times.into_iter().enumerate() {
            self.schedule(Time::from_nanos(at), world::Happening::Cluster(Happening::Trouble(place)));
        }
    }

    fn trouble(&mut self, place: usize) -> Check {
        let Some(cluster) = &mut self.cluster else { return Ok(()) };
        let what = cluster.trouble.list[place].1.clone();
        if self.now.as_nanos() > cluster.trouble.rest {
            return Ok(());
        }
        if let Some((span, undone)) = undo(&what) {
            let next = cluster.trouble.list.len();
            cluster.trouble.list.push((0, undone));
            let at = self.now + Duration::from_nanos(span);
            self.schedule(at, world::Happening::Cluster(Happening::Trouble(next)));
        }
        self.trace.note(self.now, NodeId(0), || format!("-- {what:?}"));
        self.does_trouble(&what);
        Ok(())
    }

    fn does_trouble(&mut self, what: &Nemesis) {
        match what {
            Nemesis::Crash(rank) => self.kill(NodeId(*rank)),
            Nemesis::CrashWitness => {
                if let Some(witness) = self.process(VoterId::Witness) {
                    self.ended(witness, End::Killed);
                }
            }
            Nemesis::Stop(id, span) => {
                if let Some(process) = self.process(*id) {
                    self.stop(process, *span);
                }
            }
            Nemesis::StopAll(span) => {
                let all = self.cluster.as_ref().map_or(0, |cluster| cluster.processes.len());
                (0..all).for_each(|process| self.stop(process, *span));
            }
            Nemesis::Split(some, _) => self.set_links(some, &self.others(some), true),
            Nemesis::Mend(some) => self.set_links(some, &self.others(some), false),
            Nemesis::OneWay(from, to, _) => {
                if let Some(cluster) = &mut self.cluster {
                    cluster.network.set_one_way(*from, *to, true);
                }
                self.disturb(&[*from, *to]);
                self.refuse(*from, *to);
            }
            Nemesis::Link(a, b, cut) => self.set_links(&[*a], &[*b], *cut),
            Nemesis::Slow(rank, delay) => {
                if let Some(cluster) = &mut self.cluster {
                    cluster.processes[usize::from(*rank)].sluggish = *delay;
                }
            }
            Nemesis::Rest => self.rest(),
            // What this simulation does not draw.
            Nemesis::CrashAtConsensus(..)
            | Nemesis::Restart(_)
            | Nemesis::Flap(..)
            | Nemesis::Join(_)
            | Nemesis::Leave(_) => {}
        }
    }

    fn process(&self, id: VoterId) -> Option<ProcessId> {
        self.cluster.as_ref().and_then(|cluster| cluster.process_of(id))
    }

    fn others(&self, some: &[VoterId]) -> Vec<VoterId> {
        let all = self.cluster.iter().flat_map(|cluster| &cluster.processes);
        all.map(|process| process.identity.id).filter(|id| !some.contains(id)).collect()
    }

    fn disturb(&mut self, who: &[VoterId]) {
        let all = self.cluster.iter_mut().flat_map(|cluster| &mut cluster.processes);
        all.filter(|process| who.contains(&process.identity.id)).for_each(|process| process.disturbed = true);
    }

    fn set_links(&mut self, some: &[VoterId], others: &[VoterId], cut: bool) {
        if let Some(cluster) = &mut self.cluster {
            cluster.network.set_between(some, others, cut);
        }
        self.disturb(some);
        self.disturb(others);
        if cut && let (Some(one), Some(other)) = (some.first(), others.first()) {
            self.refuse(*one, *other);
        }
        if !cut {
            self.drain_mended();
        }
    }

    /// A connection over a link that is cut may be refused, which looks like a death.
    fn refuse(&mut self, one: VoterId, other: VoterId) {
        let permille = self.cluster.as_ref().map_or(0, |cluster| cluster.trouble.refused_permille);
        for (who, whom) in [(one, other), (other, one)] {
            if let (Some(process), VoterId::Node(node)) = (self.process(who), whom)
                && who != whom
                && self.rng.chance(permille)
            {
                self.told_later(process, REFUSED_DELAY, Fact::Suspected { node });
            }
        }
    }

    /// What waits on links that are whole comes.
    fn drain_mended(&mut self) {
        let Some(cluster) = &self.cluster else { return };
        let is_cut = |from: NodeId, to: NodeId| {
            cluster.network.cut.contains(&(VoterId::Node(from), VoterId::Node(to)))
        };
        let whole =
            cluster.stalled.iter().filter(|((from, to), said)| !said.is_empty() && !is_cut(*from, *to));
        let ways: Vec<(NodeId, NodeId)> = whole.map(|(way, _)| *way).collect();
        for (from, to) in ways {
            let at = self.after(self.plan.way.0 + self.plan.way.1);
            self.schedule(at, world::Happening::Cluster(Happening::Mended(from, to)));
        }
    }

    fn rest(&mut self) {
        self.plan.deaths.clear();
        let Some(cluster) = &mut self.cluster else { return };
        cluster.network.cut.clear();
        let all = cluster.processes.len();
        for process in &mut cluster.processes {
            process.sluggish = 0;
        }
        for process in 0..all {
            self.proceed(process);
        }
        self.drain_mended();
    }
}
