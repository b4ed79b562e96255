//! What the honest nodes do, one thing at a time: instructions, calls, and what their drivers owe them.

use super::Check;
use super::cluster::Cluster;
use super::truth::Call;
use arbitrary::Unstructured;
use dsm_core::{Address, Command, Event, NodeId, PageId, Progress, SpanOwner, Want};
use std::time::Duration;

/// As many messages are delivered in one go, at most.
const DELIVERIES_MAX: usize = 6;

/// Spans of this many pages, at most: small ones, and some that only the large zone can hold.
const SPAN_PAGES_MAX: u64 = 6;

/// The layout that claims of roots expect, and another.
const LAYOUTS: [u64; 2] = [1, 2];

/// Time that passes at once: less than a residency, and more than the longest patience.
const PAUSES: [Duration; 3] =
    [Duration::from_micros(50), Duration::from_millis(11), Duration::from_millis(150)];

impl Cluster {
    /// One thing that honest nodes do, as the bytes say.
    pub fn honest_act(&mut self, u: &mut Unstructured<'_>) -> Check {
        let node = *u.choose(&self.honest()).map_err(|error| error.to_string())?;
        let choice = u.int_in_range(0..=15_u8).unwrap_or(0);
        match choice {
            0..=5 => {
                let page = self.any_page(u);
                if node == self.palette.hostile {
                    self.truth.involve(page);
                }
                let want = if u.arbitrary().unwrap_or(false) { Want::Write } else { Want::Read };
                self.touch(node, page, want)
            }
            6..=8 => {
                for _ in 0..u.int_in_range(1..=DELIVERIES_MAX).unwrap_or(1) {
                    let choice = u.int_in_range(0..=usize::from(u8::MAX)).unwrap_or(0);
                    self.deliver(choice)?;
                }
                Ok(())
            }
            9 | 10 => {
                let awaits = self.any_page(u);
                let looks = [Progress::Retired, Progress::Waiting, Progress::Straddling { awaits }];
                let progress = *u.choose(&looks).unwrap_or(&Progress::Retired);
                self.look(node, progress)
            }
            11 => {
                self.wait(*u.choose(&PAUSES).unwrap_or(&PAUSES[0]));
                self.ring(node).map(drop)
            }
            12 | 13 => self.lock_call(node, u),
            14 => self.root_call(node, u),
            _ => self.span_or_meeting(node, u),
        }
    }

    fn any_page(&self, u: &mut Unstructured<'_>) -> PageId {
        u.choose(&self.palette.pages).copied().unwrap_or(PageId(0))
    }

    fn command(&mut self, node: NodeId, call: Option<Call>, command: Command) -> Check {
        let id = self.next_call(node);
        if let Some(call) = call {
            self.truth.called(node, id, call);
        }
        self.feed(node, Event::Command { call: id, command })
    }

    fn lock_call(&mut self, node: NodeId, u: &mut Unstructured<'_>) -> Check {
        let Ok(&lock) = u.choose(&self.palette.locks) else { return Ok(()) };
        if let Some(&(_, acquired)) = self.truth.holders.get(&lock).filter(|holder| holder.0 == node) {
            self.truth.holders.remove(&lock);
            return self.command(node, None, Command::Unlock { lock, acquired });
        }
        let mut waiting =
            self.truth.calls.iter().filter(|((at, _), call)| *at == node && **call == Call::Lock(lock));
        let waiting = waiting.next().map(|((_, id), _)| *id);
        match waiting {
            Some(waiting) if u.arbitrary().unwrap_or(false) => {
                self.command(node, None, Command::LockWithdraw { lock, waiting })
            }
            Some(_) | None => {
                let wait = u.arbitrary().unwrap_or(true);
                self.command(node, Some(Call::Lock(lock)), Command::Lock { lock, wait })
            }
        }
    }

    fn root_call(&mut self, node: NodeId, u: &mut Unstructured<'_>) -> Check {
        if let Some(at) = self.truth.creating.iter().position(|(creator, _)| *creator == node) {
            let (_, name) = self.truth.creating.swap_remove(at);
            if u.arbitrary().unwrap_or(false) {
                return self.command(node, None, Command::RootAbandon { name });
            }
            let address = Address(self.palette.geometry.base().0 + self.truth.calls.len() as u64);
            self.truth.published(name.clone(), address);
            return self.command(node, None, Command::RootPublish { name, address });
        }
        let Ok(name) = u.choose(&self.palette.names).cloned() else { return Ok(()) };
        let layout = LAYOUTS[usize::from(u.ratio(1_u8, 8_u8).unwrap_or(false))];
        self.command(node, Some(Call::Root(name.clone())), Command::RootClaim { name, layout })
    }

    fn span_or_meeting(&mut self, node: NodeId, u: &mut Unstructured<'_>) -> Check {
        let mine = self.truth.spans.values().find(|(_, owner)| *owner == node).map(|(span, _)| *span);
        match (u.int_in_range(0..=7_u8).unwrap_or(0), mine) {
            (0, Some(span)) => {
                self.truth.spans.remove(&span.first);
                self.command(node, None, Command::SpanReturn { first: span.first })
            }
            (1, Some(span)) => self.command(node, Some(Call::Find), Command::SpanFind { page: span.first }),
            (2, _) if !self.truth.leaving.contains(&node) => {
                self.command(node, Some(Call::Barrier), Command::Barrier)
            }
            // Whoever is in the barrier cannot leave; and once all have left, nothing happens any more.
            (3, _) if self.may_leave(node) => self.command(node, Some(Call::Leave), Command::Leave),
            (4, _) => self.lease(node, SpanOwner::NewDomain, u),
            (_, _) => self.lease(node, SpanOwner::Node(node), u),
        }
    }

    fn may_leave(&self, node: NodeId) -> bool {
        let in_barrier = self.truth.calls.iter().any(|((at, _), call)| *at == node && *call == Call::Barrier);
        !in_barrier && !self.truth.leaving.contains(&node)
    }

    fn lease(&mut self, node: NodeId, owner: SpanOwner, u: &mut Unstructured<'_>) -> Check {
        let pages = u.int_in_range(1..=SPAN_PAGES_MAX).unwrap_or(1);
        self.command(node, Some(Call::Lease(pages, owner)), Command::SpanLease { pages, owner })
    }
}
