//! The engine: one thread that waits on the userfaultfd, the peers, the timers and the application's orders, tells the
//! machine what happened, and carries out what the machine wants, in order.
//!
//! ```text
//!  userfaultfd ─┐                                        ┌─▶ region: protect, install
//!  links ───────┼─▶ wait ─▶ Event ─▶ machine ─▶ Actions ─┼─▶ links: queue, then flush
//!  timers ──────┤                                        ├─▶ answers to application threads
//!  orders ──────┘                                        └─▶ timers, probes (next event)
//! ```
//!
//! It never touches the app view, takes no lock that an application thread may hold while it faults, and never blocks
//! but in its wait. It does not decide anything about pages: that is the machine's part.

mod act;
mod admission;
mod connections;
mod copies;
mod departure;
mod examine;
mod failpoints;
mod faults;
mod join;
mod members;
mod patch;
mod poller;
mod priority;
mod replicate;
#[cfg(test)]
mod tests;
mod timers;

pub(crate) use join::join;

use crate::error::Result;
use crate::log::Logger;
use crate::node::{Node, Order};
use crate::region::Region;
use crate::signals;
use crate::stats::Stats;
use crate::transport::{Habitat, Heard, Incoming, Link, Mesh, Stream, Voice};
use crate::uffd::FaultBuffer;
use copies::Copies;
use crossbeam_channel::{Receiver, Sender};
use departure::Departure;
use dsm_core::failpoint::Failpoints;
use dsm_core::membership::Fact;
use dsm_core::{Actions, CallId, Copyset, Event, Geometry, Incarnation, Machine, NodeId, Reply};
use faults::Faults;
use members::Members;
use nix::sys::eventfd::EventFd;
use poller::{Poller, Source};
use replicate::{Discards, Recovering};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use timers::{Reminder, Timers};

/// How long a node that is done waits for its peers to hang up, before it ends without them.
const GOODBYE_PATIENCE: Duration = Duration::from_secs(2);

/// Messages of one peer, or orders, that are taken before others have their turn and answers go out: enough to make
/// little of a turn's system calls, and done within some tens of microseconds.
const TAKEN_PER_TURN: usize = 64;

/// The engine of this process's node.
pub(super) struct Engine {
    node: &'static Node,
    me: NodeId,
    geometry: Geometry,
    machine: Machine,
    region: Region,
    links: Vec<Option<Link>>,
    mesh: Mesh,
    poller: Poller,
    timers: Timers,
    faults: Faults,
    /// Kept between reads, so that none allocates.
    fault_buffer: Option<FaultBuffer>,
    orders: Receiver<Order>,
    wake: Arc<EventFd>,
    answers: HashMap<CallId, Sender<Reply>>,
    /// Facts that came up while the last one was carried out.
    upcoming: VecDeque<Event>,
    /// Sources that have more than was taken in this turn, of which the poller need not know: what a peer said may
    /// have left the socket already.
    leftover: Vec<Source>,
    actions: Actions,
    /// Peers to which something was said since the last flush.
    unflushed: Vec<NodeId>,
    /// Peers for which something is held back.
    held_back: Copyset,
    timer_ran_out: bool,
    /// Peers whose connection takes no more bytes for now.
    blocked: Copyset,
    stats: Stats,
    log: Logger,
    /// Where this process runs.
    habitat: Habitat,
    members: Members,
    copies: Copies,
    discards: Discards,
    recovering: Option<Recovering>,
    failpoints: Failpoints,
    /// Every program is done: peers that hang up have left, and are not lost.
    departing: bool,
    /// This node's program is done, while others may not be.
    departure: Option<Departure>,
    stopping: bool,
}

/// Ends the process if its thread panics.
struct Deadly {
    rank: u32,
}

impl Drop for Deadly {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // The panic's own message is out already.
            signals::die(&format!("rank {}: the engine panicked; the process ends", self.rank));
        }
    }
}

impl Engine {
    /// Runs until told to stop. An error is one that leaves memory in doubt, and so is a panic: the process ends with
    /// either, before the program can see that there is no engine any more.
    fn run(mut self) -> Result<()> {
        // Dropped before the engine is, whose end the program's threads would notice.
        let _deadly = Deadly { rank: self.me.rank() };
        priority::wake_early();
        if let Err(error) = self.serve() {
            signals::die(&format!("rank {}: the engine failed: {error}", self.me.rank()));
        }
        if self.members.ended.is_some() {
            // Nobody expects anything of this node. Who waits for a call learns that no answer comes.
            self.region.detach();
            return Ok(());
        }
        self.say_goodbye()
    }

    fn serve(&mut self) -> Result<()> {
        self.begin_membership()?;
        self.flush_all();
        while !self.stopping {
            self.timers.arm()?;
            self.take_turns(None)?;
            self.fire_timers()?;
            self.mind_the_time()?;
            self.mind_the_departure()?;
            self.flush_all();
            self.faults.note_clocks();
        }
        Ok(())
    }

    /// Waits until something happens, for `patience` at most, and turns to each source at which something has.
    fn take_turns(&mut self, patience: Option<Duration>) -> Result<()> {
        let leftover = std::mem::take(&mut self.leftover);
        let patience = if leftover.is_empty() { patience } else { Some(Duration::ZERO) };
        let found = self.poller.wait(patience)?;
        // This process may have been stopped for longer than its lease.
        self.mind_the_time()?;
        for index in 0..found {
            for source in self.poller.found(index) {
                self.turn_to(source)?;
            }
        }
        leftover.into_iter().try_for_each(|source| self.turn_to(source))
    }

    fn turn_to(&mut self, source: Source) -> Result<()> {
        match source {
            Source::Faults => self.take_faults(),
            Source::Orders => self.take_orders(),
            Source::Incoming => self.take_incoming(),
            Source::Timer => {
                self.timers.ran_out();
                self.timer_ran_out = true;
                Ok(())
            }
            Source::Witness => self.take_witness(),
            Source::Death(node) => self.take_end(node),
            Source::Readable(peer) => self.receive(peer),
            Source::Writable(peer) => {
                self.flush(peer);
                Ok(())
            }
        }
    }

    /// Tells the machine one fact and carries out all that follows from it.
    fn handle(&mut self, event: Event) -> Result<()> {
        self.upcoming.push_back(event);
        self.settle_upcoming()
    }

    /// Tells the machine what is about to be told, and carries out all that follows from it.
    fn settle_upcoming(&mut self) -> Result<()> {
        while let Some(event) = self.upcoming.pop_front() {
            let mut actions = std::mem::take(&mut self.actions);
            self.machine.handle(self.timers.now(), event, &mut actions);
            for action in actions.drain(..) {
                self.carry_out(action)?;
            }
            self.actions = actions;
        }
        Ok(())
    }

    fn take_faults(&mut self) -> Result<()> {
        let mut buffer = self.fault_buffer.take().unwrap_or_default();
        let now = self.timers.now();
        for fault in self.region.uffd().read_faults(&mut buffer)? {
            let Some(page) = self.geometry.page_of(fault.address) else { continue };
            if !self.faults.begin(page, fault.thread, fault.want, now) {
                self.stats.repeated_faults += 1;
            }
            self.take_fault(page, fault.want)?;
        }
        self.doubt_if_it_takes_long();
        self.fault_buffer = Some(buffer);
        Ok(())
    }

    fn take_orders(&mut self) -> Result<()> {
        // Reading it resets its readiness; what it counts is in the queue.
        let _ = self.wake.read();
        for _ in 0..TAKEN_PER_TURN {
            let Ok(order) = self.orders.try_recv() else { return Ok(()) };
            match order {
                Order::Call(call) => self.take_call(call)?,
                Order::Count(answer) => {
                    // Who asked may have given up.
                    let _ = answer.send(self.count());
                }
                Order::Examine(answer) => {
                    // As above.
                    let _ = answer.send(self.examine());
                }
                Order::Stop(patience) => self.stop(patience)?,
            }
        }
        self.come_back_to(Source::Orders);
        Ok(())
    }

    /// Turns to `source` again after the others have had their turns.
    fn come_back_to(&mut self, source: Source) {
        if !self.leftover.contains(&source) {
            self.leftover.push(source);
        }
    }

    fn receive(&mut self, peer: NodeId) -> Result<()> {
        let mut drained = false;
        for _ in 0..TAKEN_PER_TURN {
            let Some(link) = self.links.get_mut(peer.index()).and_then(Option::as_mut) else { return Ok(()) };
            let machine = &self.machine;
            match link.hear(&self.region.frames(), |message| machine.landing(peer, message)) {
                Ok(Some(Heard::Message { view, message, body })) => {
                    self.take_message(peer, view, message, body)?;
                }
                Ok(Some(Heard::Packet(packet))) => self.take_packet(peer, *packet)?,
                Ok(None) => {
                    drained = true;
                    break;
                }
                Err(down) => {
                    self.link_down(peer, &down.to_string());
                    return Ok(());
                }
            }
        }
        if !drained {
            self.come_back_to(Source::Readable(peer));
        }
        // What came last may have been one too many to go unacknowledged.
        let link = self.links.get(peer.index()).and_then(Option::as_ref);
        if link.is_some_and(Link::owes_acknowledgement) {
            self.mark_unflushed(peer);
        }
        Ok(())
    }

    /// The connection to a peer broke. The peer may live: the session goes on when it is made anew.
    fn link_down(&mut self, peer: NodeId, cause: &str) {
        if self.departing {
            self.say_last_word(peer);
        }
        self.hang_up(peer);
        self.doubt_at_once();
        if self.is_missing(peer) {
            self.log.info(format!("the connection to {peer} broke ({cause}); reconnecting"));
            self.call(peer);
        }
    }

    /// A peer closed its end because all programs are done, before this node's program has taken note of that: it waits to
    /// learn that its last words were heard, and still listens.
    fn say_last_word(&mut self, peer: NodeId) {
        let Some(link) = self.links.get_mut(peer.index()).and_then(Option::as_mut) else { return };
        link.shutdown();
        // If this fails, the connection broke after all: then the peer waits for a call.
        let _ = link.flush(&self.region.frames(), Voice::Full);
    }

    /// Closes the connection to a peer, if there is one.
    fn hang_up(&mut self, peer: NodeId) {
        let Some(link) = self.links.get_mut(peer.index()).and_then(Option::as_mut) else { return };
        if let Some(descriptor) = link.descriptor() {
            self.poller.forget(descriptor);
            link.detach();
        }
        self.blocked = self.blocked.without(peer);
    }

    fn take_incoming(&mut self) -> Result<()> {
        // Reading it resets its readiness; what it counts is in the queue.
        let _ = self.mesh.incoming_wake.read();
        while let Ok(incoming) = self.mesh.incoming.try_recv() {
            match incoming {
                Incoming::Reconnected { peer, life, stream, received_through } => {
                    self.attach(peer, life, stream, received_through)?;
                }
                Incoming::Entered { peer, stream, member } => self.let_in(peer, stream, &member)?,
                Incoming::PeerUnreachable { peer, life, cause } => self.suspect(peer, life, &cause)?,
                Incoming::Refused { rank, incarnation: _, refusal } => {
                    self.stats.refused_frames += 1;
                    self.log.warn_once("refused", rank.0.into(), || {
                        format!("refused a process that wants to be {rank}: {refusal}")
                    });
                }
                Incoming::Garbage { cause } => {
                    self.stats.refused_frames += 1;
                    self.log.warn_once("garbage", 0, || {
                        format!("closed a connection that does not speak this protocol: {cause}")
                    });
                }
            }
        }
        Ok(())
    }

    fn attach(
        &mut self,
        peer: NodeId,
        life: Incarnation,
        stream: Stream,
        received_through: u64,
    ) -> Result<()> {
        let Some(link) = self.links.get_mut(peer.index()).and_then(Option::as_mut) else { return Ok(()) };
        if link.life() != Some(life) {
            // Another process has the rank by now. The call to this one, or its own, was held up.
            return Ok(());
        }
        if link.is_behind(received_through) {
            // A call that was held up on its way, and that the peer has given up. It was taken for the one that is due.
            if !link.is_attached() {
                self.link_down(peer, "an old call came late");
            }
            return Ok(());
        }
        // The peer may have noticed first that the connection broke.
        self.hang_up(peer);
        let Some(link) = self.links.get_mut(peer.index()).and_then(Option::as_mut) else { return Ok(()) };
        if let Err(down) = link.attach(stream, received_through) {
            // Both ends disagree on what was said: no further connection can mend that.
            return self.suspect(peer, life, &down.to_string());
        }
        if let Some(descriptor) = link.descriptor() {
            self.poller.watch_peer(peer, descriptor)?;
        }
        self.mesh.reconnect.end(peer);
        self.mark_unflushed(peer);
        Ok(())
    }

    /// A peer could not be reached in time. If it has called meanwhile, that is out of date. Whether it goes is for the
    /// members to agree on; until then it is called again, but not before others had their turn.
    fn suspect(&mut self, peer: NodeId, life: Incarnation, cause: &str) -> Result<()> {
        let is_its_link = self.life_of(peer) == Some(life);
        if !is_its_link || !self.is_missing(peer) {
            return Ok(());
        }
        self.log.warn(format!("{peer} does not answer: {cause}"));
        self.call_soon(peer);
        self.tell_membership(Fact::Suspected { node: peer })
    }

    fn fire_timers(&mut self) -> Result<()> {
        if !self.timer_ran_out {
            return Ok(());
        }
        self.timer_ran_out = false;
        let now = self.timers.now();
        while let Some(reminder) = self.timers.take_due(now) {
            match reminder {
                Reminder::Machine(timer) => self.handle(Event::TimerFired(timer))?,
                Reminder::Flush => {
                    for peer in std::mem::take(&mut self.held_back).iter() {
                        self.mark_unflushed(peer);
                    }
                }
                Reminder::Stop => self.end_departure(now),
                Reminder::Membership => self.mind_the_time()?,
                Reminder::Doubt => self.look_at_peers(now)?,
                Reminder::Discard => self.discard_some()?,
                Reminder::Call(peer) => self.call(peer),
            }
        }
        Ok(())
    }

    /// Ends this node's part. Every program is done, so nobody needs a page of this node any more; but what was said
    /// last must reach the peers before the connections close, so each side closes its end and waits for the other's.
    /// The coordinator, which tells everybody that all programs are done, also waits for the calls of those whose
    /// connection broke before they had heard it.
    fn say_goodbye(mut self) -> Result<()> {
        let deadline = self.timers.now() + GOODBYE_PATIENCE;
        // Before the links go: the launcher would take their end for the end of a node that cannot be reached.
        self.forget_membership();
        // Whoever is no member may be stopped, and would keep its end open. And where the others go on without this node,
        // nothing of it may leave any more: there is nothing to say.
        let members = self.machine.view().members();
        for peer in (0..self.links.len()).filter_map(|rank| u16::try_from(rank).ok()).map(NodeId) {
            if self.members.frozen || !members.contains(peer) {
                self.hang_up(peer);
            }
        }
        for link in self.links.iter_mut().flatten() {
            link.shutdown();
            self.unflushed.push(link.peer());
        }
        // Nothing of these matters any more; left in the set, one that is ready would end every wait at once.
        self.poller.forget(self.region.uffd());
        self.poller.forget(&*self.wake);
        self.poller.forget(&self.timers);
        while self.links.iter().flatten().any(|link| link.is_attached() || self.awaits_call(link)) {
            self.flush_all();
            let left = deadline.since(self.timers.now());
            if left.is_zero() {
                break;
            }
            self.take_turns(Some(left))?;
        }
        signals::set_reason(signals::Reason::Left);
        self.region.detach();
        Ok(())
    }

    /// Whether this node has to tell a peer once more that all programs are done, when it calls.
    fn awaits_call(&self, link: &Link) -> bool {
        let view = self.machine.view();
        let tells = self.departing && self.me == view.coordinator();
        tells && !link.was_heard_out() && view.members().contains(link.peer())
    }
}
