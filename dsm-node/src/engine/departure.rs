//! How a node goes while others stay.
//!
//! ```text
//!   Stop ─▶ all of its stores are acked ─▶ all pages have their replicas in this view ─▶ Leave ─▶ a view without it
//!                                              ▲                                          │
//!                                              └────────────── another view ──────────────┘
//! ```
//! What it has is kept by others then, as if it had died, but nobody has died: those that keep it are as many as there
//! should be. Nodes that want to go at once go one after another, since each may keep what the other has. Where every
//! program is done, nobody needs anything, and all go at once.

use super::Engine;
use super::timers::Reminder;
use crate::error::Result;
use crate::node::Call;
use dsm_core::membership::Fact;
use dsm_core::{CallId, Command, Time, ViewId};
use std::time::Duration;

/// A node that ends though others have not gives the others so long to agree that it is no member any more, where nobody
/// keeps what it has, or it cannot wait. They find out by themselves otherwise.
const DEPARTURE_PATIENCE: Duration = Duration::from_secs(1);

/// The engine's own sync.
const LAST_SYNC: CallId = CallId(u64::MAX - 1);

/// A departure under way.
pub(super) struct Departure {
    /// Whether all stores of this node are acked. There are no more.
    synced: bool,
    /// The view in which the others were told.
    said_in: Option<ViewId>,
    /// When this node goes, whatever is missing.
    until: Option<Time>,
}

impl Engine {
    /// This node's program is done. Where the others are not, they are told that it goes, when they can do without it, or
    /// after `patience`, and have a moment to agree.
    pub(super) fn stop(&mut self, patience: Option<Duration>) -> Result<()> {
        if self.departing {
            self.stopping = true;
            return Ok(());
        }
        if self.machine.view().replicas() == 0 {
            // Nobody keeps anything.
            self.depart_in(self.machine.view().id(), None);
            return self.tell_membership(Fact::Leave);
        }
        let until = patience.map(|patience| self.timers.now() + patience + DEPARTURE_PATIENCE);
        self.departure = Some(Departure { synced: false, said_in: None, until });
        if let Some(until) = until {
            self.timers.set(Reminder::Stop, until);
        }
        self.take_call(Call { id: LAST_SYNC, command: Command::Sync, answer: None })
    }

    /// A call has its answer.
    pub(super) fn note_departure(&mut self, call: CallId) {
        if let Some(departure) = &mut self.departure {
            departure.synced |= call == LAST_SYNC;
        }
    }

    /// Goes, if this node is to and the others can do without it.
    pub(super) fn mind_the_departure(&mut self) -> Result<()> {
        let Some(departure) = &self.departure else { return Ok(()) };
        if self.departing {
            // All others are done as well.
            self.stopping = true;
            return Ok(());
        }
        let view = self.machine.view().id();
        let ready = departure.synced && !self.members.frozen && self.machine.is_fully_replicated();
        if !ready || departure.said_in == Some(view) {
            return Ok(());
        }
        let until = departure.until;
        // From then on it has no lease, and nothing but words about membership leaves it.
        self.flush_all();
        if !self.blocked.intersection(self.machine.view().members()).is_empty() {
            return Ok(());
        }
        self.depart_in(view, until);
        self.tell_membership(Fact::Leave)
    }

    /// Whether the others were told in this view. What was said in one before, when they could do without this node, does not
    /// count: by now it may have what nobody else has.
    pub(super) fn has_said_that_it_leaves(&self) -> bool {
        let view = self.machine.view().id();
        self.departure.as_ref().is_some_and(|departure| departure.said_in == Some(view))
    }

    fn depart_in(&mut self, view: ViewId, until: Option<Time>) {
        self.departure = Some(Departure { synced: true, said_in: Some(view), until });
        if self.machine.view().replicas() == 0 {
            self.timers.set(Reminder::Stop, self.timers.now() + DEPARTURE_PATIENCE);
        }
    }

    /// The time is up that the others had, or that this node had.
    pub(super) fn end_departure(&mut self, now: Time) {
        let Some(departure) = &self.departure else { return };
        if self.machine.view().replicas() == 0 {
            self.stopping = true;
        } else if departure.until.is_some_and(|until| until <= now) {
            let me = self.me;
            self.log.warn(format!("{me} goes before the others can do without it: it was to wait no longer"));
            self.stopping = true;
        }
    }
}
