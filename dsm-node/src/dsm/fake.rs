//! An engine for tests: one node, alone, over ordinary memory. It answers the interface's commands as the machine
//! would, so that the interface can be tested without faults, sockets and other processes.

use crate::dsm::Dsm;
use crate::heap::{self, spans::Spans, spans::testing::TestRegion};
use crate::node::{Call, Caller, Node, Order};
use crate::stats::Stats;
use crossbeam_channel::{Receiver, Sender, unbounded};
use dsm_core::{Address, CallId, Command, LockId, NodeId, Reply, RootAnswer, ViewId};
use nix::sys::eventfd::EventFd;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, OnceLock};
use std::thread;

/// Pages of the fake region.
const PAGES: u64 = 16 * 1024;

/// The one node of this test process. Tests share it, so each uses names of its own.
pub(crate) fn dsm() -> &'static Dsm {
    static DSM: OnceLock<Dsm> = OnceLock::new();
    DSM.get_or_init(|| {
        let region = TestRegion::new(PAGES);
        let (sender, orders) = unbounded();
        let caller = Caller::new(sender, Arc::new(EventFd::new().expect("an eventfd")));
        thread::spawn(move || Engine { region, locks: HashMap::new(), roots: HashMap::new() }.run(&orders));
        let node = Node::new(NodeId(0), 1, *region.geometry(), caller);
        Dsm::new(Node::install(node).expect("the only node of the test process"), || Ok(()))
    })
}

struct Engine {
    region: &'static TestRegion,
    /// The first of each queue has the lock.
    locks: HashMap<LockId, VecDeque<(CallId, Sender<Reply>)>>,
    roots: HashMap<String, Root>,
}

struct Root {
    layout: u64,
    address: Option<Address>,
    creating: bool,
    waiting: VecDeque<Sender<Reply>>,
}

impl Engine {
    fn run(mut self, orders: &Receiver<Order>) {
        for order in orders {
            match order {
                Order::Call(Call { id, command, answer }) => {
                    // A command without an answer gets a sender that nobody listens to.
                    let answer = answer.unwrap_or_else(|| unbounded().0);
                    self.handle(id, command, &answer);
                }
                // Who asked may have given up.
                Order::Count(answer) => drop(answer.send(Stats::default())),
                Order::Examine(_) => unreachable!("there are no page tables here to examine"),
                Order::Stop => return,
            }
        }
    }

    fn handle(&mut self, id: CallId, command: Command, answer: &Sender<Reply>) {
        let reply = |reply| tell(answer, reply);
        match command {
            Command::SpanLease { pages, owner } => reply(match self.region.lease(pages, owner) {
                Ok(span) => Reply::Span(span),
                Err(_) => Reply::SpanDenied { free: 0, largest: 0 },
            }),
            Command::SpanReturn { first } => self.region.give_back(first),
            Command::SpanFind { page } => {
                reply(Reply::SpanFound(self.region.find(page).expect("the test region answers")));
            }
            Command::Free { address } => {
                if let Some(first) = heap::free_local(address) {
                    self.region.give_back(first);
                }
            }
            Command::Lock { lock, wait } => self.lock(id, lock, wait, answer),
            Command::LockWithdraw { lock, waiting } => self.withdraw(lock, waiting),
            Command::Unlock { lock, acquired } => self.unlock(lock, acquired),
            Command::RootClaim { name, layout } => self.claim(name, layout, answer),
            Command::RootPublish { name, address } => {
                let root = self.roots.get_mut(&name).expect("only what was claimed is published");
                root.address = Some(address);
                root.waiting.drain(..).for_each(|w| tell(&w, Reply::Root(RootAnswer::Found(address))));
            }
            Command::RootAbandon { name } => {
                let root = self.roots.get_mut(&name).expect("only what was claimed is abandoned");
                let next = root.waiting.pop_front();
                root.creating = next.is_some();
                next.into_iter().for_each(|w| tell(&w, Reply::Root(RootAnswer::Create)));
            }
            Command::Barrier => reply(Reply::BarrierPassed { view: ViewId::FIRST }),
            Command::Leave => reply(Reply::Left),
            Command::Sync => reply(Reply::Synced),
            Command::Ensure { .. } => reply(Reply::Ensured),
            Command::Cover { .. } => {}
        }
    }

    fn lock(&mut self, id: CallId, lock: LockId, wait: bool, answer: &Sender<Reply>) {
        let queue = self.locks.entry(lock).or_default();
        match (queue.is_empty(), wait) {
            (true, _) => tell(answer, Reply::Locked { recovered: None }),
            (false, true) => {}
            (false, false) => return tell(answer, Reply::LockDenied { holder: NodeId(0) }),
        }
        queue.push_back((id, answer.clone()));
    }

    fn withdraw(&mut self, lock: LockId, waiting: CallId) {
        let queue = self.locks.get_mut(&lock).expect("only a call that waits is withdrawn");
        if queue[0].0 != waiting {
            let index = queue.iter().position(|(id, _)| *id == waiting).expect("the call waits");
            let (_, answer) = queue.remove(index).expect("found above");
            tell(&answer, Reply::LockDenied { holder: NodeId(0) });
        }
    }

    fn unlock(&mut self, lock: LockId, acquired: CallId) {
        let queue = self.locks.get_mut(&lock).expect("only a held lock is released");
        let (id, _) = queue.pop_front().expect("only a held lock is released");
        assert_eq!(id, acquired, "released by the call that acquired it");
        if let Some((_, next)) = queue.front() {
            tell(next, Reply::Locked { recovered: None });
        }
    }

    fn claim(&mut self, name: String, layout: u64, answer: &Sender<Reply>) {
        let fresh = || Root { layout, address: None, creating: false, waiting: VecDeque::new() };
        let root = self.roots.entry(name).or_insert_with(fresh);
        let reply = match root.address {
            Some(_) if root.layout != layout => RootAnswer::OtherLayout(root.layout),
            Some(address) => RootAnswer::Found(address),
            None if root.creating => return root.waiting.push_back(answer.clone()),
            None => {
                root.creating = true;
                root.layout = layout;
                RootAnswer::Create
            }
        };
        tell(answer, Reply::Root(reply));
    }
}

/// Answers a call. The caller may have given up, or not have wanted an answer: then there is nobody to tell.
fn tell(answer: &Sender<Reply>, reply: Reply) {
    let _ = answer.send(reply);
}
