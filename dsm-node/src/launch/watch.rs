//! The thread that sees a cluster's nodes to their end: it kills when that was asked for, reaps each node as it ends, and
//! ends the others when one has failed and nothing is left for them to do.
//!
//! ```text
//! running --a node fails--> grace --the others end, or the grace runs out: kill--> ended
//!    |                       |                                                       ^
//!    |                       +-- the cluster keeps replicas: the others go on --+    |
//!    +----------- all end by themselves, or `wait` runs out of time: kill ------+----+
//! ```

use super::cluster::Shared;
use super::outcome::{Ending, code_of};
use super::process::Process;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::time::{Duration, Instant};

/// How long the others may go on after one node has failed, to say what they have to say: as long as a node takes to
/// learn that a peer is gone.
const GRACE_DEFAULT: Duration = crate::error::PATIENCE;

/// What is to happen to the nodes besides their own ends.
#[derive(Clone, Default, Debug)]
pub(super) struct Plan {
    /// How long the others go on after a failure. Unless it is said, that depends on whether they can go on.
    pub grace: Option<Duration>,
    /// Whom to kill, and how long after the start.
    pub kills: Vec<(Duration, u32)>,
}

/// What the thread still has to do at a certain time.
struct Agenda {
    grace: Duration,
    /// Whether the others may go on after a failure if they have replicas.
    may_survive: bool,
    /// When the grace that a failure began runs out.
    grace_ends: Option<Instant>,
    /// The kills to come, the next one last.
    kills: Vec<(Instant, u32)>,
}

impl Agenda {
    fn new(plan: Plan) -> Agenda {
        let start = Instant::now();
        // A time beyond what the clock can count does not come.
        let mut kills: Vec<(Instant, u32)> =
            plan.kills.iter().filter_map(|(after, rank)| Some((start.checked_add(*after)?, *rank))).collect();
        kills.sort_unstable_by(|one, other| other.cmp(one));
        Agenda {
            grace: plan.grace.unwrap_or(GRACE_DEFAULT),
            may_survive: plan.grace.is_none(),
            grace_ends: None,
            kills,
        }
    }

    fn deadline(&self) -> Option<Instant> {
        self.kills.last().map(|(at, _)| *at).into_iter().chain(self.grace_ends).min()
    }
}

impl Shared {
    /// The thread, from the start of the nodes until the last has ended.
    pub(super) fn watch(&self, plan: Plan) {
        let mut agenda = Agenda::new(plan);
        while self.is_any_running() {
            for rank in self.next_ended(agenda.deadline()) {
                if self.note_end(rank) && agenda.grace_ends.is_none() {
                    agenda.grace_ends = Instant::now().checked_add(agenda.grace);
                }
            }
            self.do_what_is_due(&mut agenda);
        }
    }

    fn do_what_is_due(&self, agenda: &mut Agenda) {
        let now = Instant::now();
        while let Some((_, rank)) = agenda.kills.pop_if(|(at, _)| *at <= now) {
            self.process(rank).map(|process| process.kill(Ending::Killed));
        }
        if agenda.grace_ends.is_some_and(|end| now >= end) {
            // Once is enough: all that is left is to wait for their ends.
            agenda.grace_ends = None;
            // Asked now, not at the failure: another node may say only after it that the cluster has formed.
            if !(agenda.may_survive && self.can_survivors_go_on()) {
                self.kill_all(Ending::AfterAnother);
            }
        }
    }

    /// Waits for nodes to end, no longer than until `deadline`; which have.
    fn next_ended(&self, deadline: Option<Instant>) -> Vec<u32> {
        let running: Vec<(u32, &Process)> =
            (0..).zip(self.processes()).filter(|(_, process)| process.ended().is_none()).collect();
        let mut ready: Vec<PollFd> =
            running.iter().map(|(_, process)| PollFd::new(process.pidfd(), PollFlags::POLLIN)).collect();
        match poll(&mut ready, timeout_until(deadline)) {
            Ok(_) => {}
            Err(Errno::EINTR) => return Vec::new(),
            // Poll refuses only what is wrong by construction, or for want of kernel memory. The first node can be
            // waited for without it.
            Err(_) => return running.iter().map(|&(rank, _)| rank).take(1).collect(),
        }
        let is_ready = |entry: &PollFd| entry.any().unwrap_or(false);
        running.iter().zip(&ready).filter(|(_, entry)| is_ready(entry)).map(|((rank, _), _)| *rank).collect()
    }

    /// Reaps a node that has ended; whether its end is a failure.
    fn note_end(&self, rank: u32) -> bool {
        let Some(end) = self.process(rank).and_then(Process::reap) else { return false };
        let is_its_own = matches!(end.ending, Ending::Itself | Ending::Unreachable);
        let failure = (is_its_own && !end.status.success()).then(|| (rank, code_of(end.status)));
        self.note_progress(failure);
        failure.is_some()
    }
}

fn timeout_until(deadline: Option<Instant>) -> PollTimeout {
    let Some(deadline) = deadline else { return PollTimeout::NONE };
    // A whole millisecond more, so that the deadline is over when the call returns.
    let left = deadline.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
    PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::launch::process::Group;
    use std::process::Command;

    /// One node, which sleeps for ever.
    fn sleeper() -> Shared {
        let mut command = Command::new("sleep");
        command.arg("1000");
        let mut group = Group::default();
        group.push(Process::start(command, &[]).expect("sleep starts").0);
        Shared::new(group)
    }

    /// How the node ends, if the grace of a failure of another is over now.
    fn ending_after_grace(shared: &Shared, grace: Option<Duration>) -> Option<Ending> {
        let mut agenda = Agenda::new(Plan { grace, kills: Vec::new() });
        agenda.grace_ends = Some(Instant::now());
        shared.do_what_is_due(&mut agenda);
        assert!(agenda.deadline().is_none(), "nothing is left to do");
        if !shared.process(0).expect("it is there").was_told() {
            return None;
        }
        shared.process(0).and_then(Process::reap).map(|end| end.ending)
    }

    #[test]
    fn a_failure_ends_those_that_cannot_go_on() {
        assert_eq!(ending_after_grace(&sleeper(), None), Some(Ending::AfterAnother));
        let replicated = sleeper();
        replicated.let_survivors_go_on();
        assert_eq!(ending_after_grace(&replicated, None), None);
        let asked = Some(Duration::ZERO);
        assert_eq!(ending_after_grace(&replicated, asked), Some(Ending::AfterAnother), "it was asked for");
    }

    #[test]
    fn kills_come_in_the_order_of_their_times() {
        let [soon, later] = [1, 2].map(Duration::from_secs);
        let agenda =
            Agenda::new(Plan { grace: None, kills: vec![(later, 0), (soon, 1), (Duration::MAX, 2)] });
        let ranks: Vec<u32> = agenda.kills.iter().rev().map(|(_, rank)| *rank).collect();
        assert_eq!(ranks, [1, 0], "and one that never comes is left out");
        assert!(agenda.deadline().is_some_and(|deadline| deadline <= Instant::now() + soon));
    }
}
