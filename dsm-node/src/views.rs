//! The memberships that this node has installed, for the program to follow.
//!
//! The engine adds a view when it installs it, and takes the lock for that alone. Whoever else takes the lock copies a
//! view or waits for one; nobody touches the region meanwhile, because the engine would wait for a thread that waits
//! for it. Agreeing on views is the membership's duty.

use crate::node::Node;
use dsm_core::ViewId;
use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::iter::FusedIterator;
use std::time::{Duration, Instant};

/// How many views are kept: far more than come while a thread that follows them is kept from running.
const VIEWS_KEPT: usize = 1024;

/// An agreed membership.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct View {
    /// Its number. It only grows.
    pub number: u64,
    /// The ranks of the live members, in order.
    pub members: Vec<u32>,
}

/// The changes of the membership, one view after the other as this node installs them: see [`crate::Dsm::views`].
///
/// As an iterator, it waits for the next change for as long as it takes, and ends once this node has left, was evicted
/// or found no quorum: no view comes after that.
///
/// A thread that falls more than 1024 views behind misses the oldest of them; the numbers tell.
pub struct Views {
    node: &'static Node,
    /// The number of the view that was handed out last.
    after: u64,
}

/// The views of one node, the latest last.
pub(crate) struct ViewLog {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    /// Never empty. Numbers ascend, but need not follow each other.
    recent: VecDeque<View>,
    /// No view comes any more.
    ended: bool,
}

/// What a reader of the log finds.
enum Found {
    View(View),
    NotYet,
    Ended,
}

impl From<&dsm_core::View> for View {
    fn from(view: &dsm_core::View) -> View {
        View { number: view.id().0, members: view.members().iter().map(dsm_core::NodeId::rank).collect() }
    }
}

impl ViewLog {
    /// The log of a cluster that starts with ranks up to `size`.
    pub fn new(size: u32) -> ViewLog {
        let first = View { number: ViewId::FIRST.0, members: (0..size).collect() };
        ViewLog {
            state: Mutex::new(State { recent: VecDeque::from([first]), ended: false }),
            changed: Condvar::new(),
        }
    }

    /// Adds a view that is installed. The latest view, told anew, replaces what was thought of it.
    pub fn publish(&self, view: View) {
        let mut state = self.state.lock();
        match state.recent.back_mut() {
            Some(latest) if latest.number > view.number => return,
            Some(latest) if latest.number == view.number => *latest = view,
            Some(_) | None => state.recent.push_back(view),
        }
        if state.recent.len() > VIEWS_KEPT {
            state.recent.pop_front();
        }
        self.changed.notify_all();
    }

    /// Notes that no view comes any more.
    pub fn end(&self) {
        self.state.lock().ended = true;
        self.changed.notify_all();
    }

    /// The latest view.
    pub fn latest(&self) -> View {
        let state = self.state.lock();
        state.recent.back().cloned().unwrap_or(View { number: 0, members: Vec::new() })
    }

    /// The view of this number, or, where it is not kept any more, the first after it.
    pub fn of(&self, number: ViewId) -> View {
        let state = self.state.lock();
        let found = state.recent.iter().find(|view| view.number >= number.0);
        found.cloned().unwrap_or_else(|| {
            drop(state);
            self.latest()
        })
    }

    /// The first view with a number above `after`; waits for it until `deadline`, or for as long as it takes.
    fn next(&self, after: u64, deadline: Option<Instant>) -> Option<View> {
        let mut state = self.state.lock();
        loop {
            match state.find(after) {
                Found::View(view) => return Some(view),
                Found::Ended => return None,
                Found::NotYet => {}
            }
            match deadline {
                None => self.changed.wait(&mut state),
                Some(deadline) if self.changed.wait_until(&mut state, deadline).timed_out() => {
                    return match state.find(after) {
                        Found::View(view) => Some(view),
                        Found::Ended | Found::NotYet => None,
                    };
                }
                Some(_) => {}
            }
        }
    }
}

impl State {
    fn find(&self, after: u64) -> Found {
        match self.recent.iter().find(|view| view.number > after) {
            Some(view) => Found::View(view.clone()),
            None if self.ended => Found::Ended,
            None => Found::NotYet,
        }
    }
}

impl Views {
    /// The changes that `node` installs from now on.
    pub(crate) fn of(node: &'static Node) -> Views {
        Views { node, after: node.views().latest().number }
    }

    /// The next change, if it comes within `patience`. `None` where it does not, and where no more can come.
    pub fn next_timeout(&mut self, patience: Duration) -> Option<View> {
        // A patience beyond what the clock can count is no limit.
        self.next_until(Instant::now().checked_add(patience))
    }

    fn next_until(&mut self, deadline: Option<Instant>) -> Option<View> {
        if !self.node.is_of_this_process() {
            // In a forked child nobody installs views.
            return None;
        }
        let view = self.node.views().next(self.after, deadline)?;
        self.after = view.number;
        Some(view)
    }
}

impl Iterator for Views {
    type Item = View;

    fn next(&mut self) -> Option<View> {
        self.next_until(None)
    }
}

impl FusedIterator for Views {}

impl std::fmt::Debug for Views {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Views(after {})", self.after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::thread;

    /// So long that a test which waits in vain fails instead.
    const LONG: Duration = Duration::from_secs(60);

    fn view(number: u64, members: &[u32]) -> View {
        View { number, members: members.to_vec() }
    }

    fn soon() -> Option<Instant> {
        Some(Instant::now() + LONG)
    }

    #[test]
    fn each_view_comes_once_and_in_order() {
        let log = ViewLog::new(3);
        let first = log.latest();
        assert_eq!(first, view(ViewId::FIRST.0, &[0, 1, 2]));
        log.publish(view(first.number + 1, &[0, 2]));
        log.publish(view(first.number + 3, &[2]));
        let second = log.next(first.number, soon()).unwrap();
        assert_eq!(second, view(first.number + 1, &[0, 2]));
        let third = log.next(second.number, soon()).unwrap();
        assert_eq!(third, view(first.number + 3, &[2]));
        assert_eq!(log.next(third.number, Some(Instant::now())), None);
    }

    #[test]
    fn a_view_told_again_is_no_change_and_corrects_what_was_thought() {
        let log = ViewLog::new(3);
        log.publish(view(ViewId::FIRST.0, &[4, 7]));
        assert_eq!(log.latest().members, [4, 7]);
        assert_eq!(log.next(ViewId::FIRST.0, Some(Instant::now())), None);
        log.publish(view(ViewId::FIRST.0 + 1, &[4]));
        log.publish(view(ViewId::FIRST.0, &[9]));
        assert_eq!(log.latest().members, [4], "an old view changes nothing");
    }

    #[test]
    fn a_view_keeps_its_members_when_later_ones_come() {
        let log = ViewLog::new(3);
        log.publish(view(5, &[0, 1]));
        log.publish(view(6, &[1]));
        assert_eq!(log.of(ViewId(5)), view(5, &[0, 1]));
        assert_eq!(log.of(ViewId(6)), view(6, &[1]));
        assert_eq!(log.of(ViewId(9)), view(6, &[1]), "nothing later is known");
    }

    #[test]
    fn a_waiter_is_woken_by_a_view_and_by_the_end() {
        let log = ViewLog::new(2);
        thread::scope(|scope| {
            let (sender, seen) = mpsc::channel();
            let log = &log;
            scope.spawn(move || {
                let mut after = ViewId::FIRST.0;
                while let Some(view) = log.next(after, None) {
                    after = view.number;
                    sender.send(view).unwrap();
                }
            });
            log.publish(view(2, &[1]));
            assert_eq!(seen.recv_timeout(LONG).unwrap(), view(2, &[1]));
            log.publish(view(3, &[1, 5]));
            log.end();
            assert_eq!(
                seen.recv_timeout(LONG).unwrap(),
                view(3, &[1, 5]),
                "what came before the end is told"
            );
            assert_eq!(seen.recv_timeout(LONG), Err(mpsc::RecvTimeoutError::Disconnected));
        });
    }

    #[test]
    fn the_oldest_views_are_forgotten() {
        let log = ViewLog::new(1);
        let last = VIEWS_KEPT as u64 + 10;
        (2..=last).for_each(|number| log.publish(view(number, &[0])));
        assert_eq!(log.state.lock().recent.len(), VIEWS_KEPT);
        assert_eq!(log.next(ViewId::FIRST.0, soon()).unwrap().number, 11);
        assert_eq!(log.of(ViewId(2)).number, 11);
        assert_eq!(log.latest().number, last);
    }
}
