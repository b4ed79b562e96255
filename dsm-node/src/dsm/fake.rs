//! An engine for tests: one node, alone, over ordinary memory. It answers the interface's commands as the machine
//! would, so that the interface can be tested without faults, sockets and other processes.

use crate::dsm::Dsm;
use crate::heap::{self, spans::Spans, spans::testing::TestRegion};
use crate::node::{Call, Caller, Node, Order};
use crate::stats::Stats;
use crossbeam_channel::{Receiver, Sender, unbounded};
use dsm_core::{Address, CallId, Command, LockId, Lost, NodeId, Reply, RootAnswer, SpanRange, ViewId};
use nix::sys::eventfd::EventFd;
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, OnceLock};
use std::thread;

/// Pages of the fake region.
const PAGES: u64 = 16 * 1024;

/// What tests have declared lost: nobody asks for it but they.
static LOST: Mutex<Vec<Lost>> = Mutex::new(Vec::new());

/// Declares a page, or the domain that begins there, lost.
pub(crate) fn lose(lost: Lost) {
    LOST.lock().push(lost);
}

/// For whose death the next grant of a lock says that its holder died.
static DEAD: Mutex<Vec<(LockId, NodeId)>> = Mutex::new(Vec::new());

/// Pretends that `node` has died in a section of `lock`.
pub(crate) fn die_in(lock: LockId, node: NodeId) {
    DEAD.lock().push((lock, node));
}

/// The one node of this test process. Tests share it, so each uses names of its own.
pub(crate) fn dsm() -> &'static Dsm {
    static DSM: OnceLock<Dsm> = OnceLock::new();
    DSM.get_or_init(|| {
        let region = TestRegion::new(PAGES);
        let (sender, orders) = unbounded();
        let caller = Caller::new(sender, Arc::new(EventFd::new().expect("an eventfd")));
        thread::spawn(move || Engine::new(region).run(&orders));
        let node = Node::new(NodeId(0), 1, *region.geometry(), caller).with_replicas(1);
        Dsm::new(Node::install(node).expect("the only node of the test process"), |_| Ok(()))
    })
}

struct Engine {
    region: &'static TestRegion,
    /// The first of each queue has the lock.
    locks: HashMap<LockId, VecDeque<(CallId, Sender<Reply>)>>,
    roots: HashMap<String, Root>,
    /// What was given up while locks were held.
    given_up: Vec<Command>,
}

struct Root {
    layout: u64,
    address: Option<Address>,
    creating: bool,
    waiting: VecDeque<Sender<Reply>>,
}

impl Engine {
    fn new(region: &'static TestRegion) -> Engine {
        Engine { region, locks: HashMap::new(), roots: HashMap::new(), given_up: Vec::new() }
    }

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
                Order::Stop(_) => return,
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
            Command::SpanReturn { .. } | Command::Free { .. } => {
                self.given_up.push(command);
                self.take_back();
            }
            Command::SpanFind { page } => {
                reply(Reply::SpanFound(self.region.find(page).expect("the test region answers")));
            }
            Command::Lock { lock, wait } => self.lock(id, lock, wait, answer),
            Command::LockWithdraw { lock, waiting } => self.withdraw(lock, waiting),
            Command::Unlock { lock, acquired } => self.unlock(&[(lock, acquired)]),
            Command::UnlockTogether { locks } => {
                assert!(locks.len() > 1, "one lock is released by itself");
                self.unlock(&locks);
            }
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
            Command::Ensure { page } => {
                let lost = LOST.lock().iter().find(|lost| lost.page == page).copied();
                reply(lost.map_or(Reply::Ensured, Reply::Lost));
            }
            Command::Cover { lock, spans } => {
                let is_leased = |span: &SpanRange| {
                    let leased = self.region.find(span.first).expect("the test region answers");
                    leased.is_some_and(|leased| (leased.first, leased.pages) == (span.first, span.pages))
                };
                assert!(spans.iter().all(is_leased) && self.is_held(lock), "{lock:?} has {spans:?}");
                reply(Reply::Covered);
            }
        }
    }

    fn lock(&mut self, id: CallId, lock: LockId, wait: bool, answer: &Sender<Reply>) {
        let page = self.region.geometry().page_of(lock.0);
        if let Some(lost) = LOST.lock().iter().find(|lost| Some(lost.page) == page) {
            return tell(answer, Reply::Lost(*lost));
        }
        let queue = self.locks.entry(lock).or_default();
        match (queue.is_empty(), wait) {
            (true, _) => {
                let mut dead = DEAD.lock();
                let index = dead.iter().position(|(other, _)| *other == lock);
                let recovered = index.map(|index| dead.swap_remove(index).1);
                tell(answer, Reply::Locked { recovered });
            }
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

    fn unlock(&mut self, locks: &[(LockId, CallId)]) {
        for &(lock, acquired) in locks {
            self.unlock_one(lock, acquired);
        }
        self.take_back();
    }

    /// What was given up in sections is free once they have ended; here, once there is none.
    fn take_back(&mut self) {
        if self.locks.values().any(|queue| !queue.is_empty()) {
            return;
        }
        for command in std::mem::take(&mut self.given_up) {
            match command {
                Command::SpanReturn { first } => self.region.give_back(first),
                Command::Free { address } => {
                    if let Some(first) = heap::free_local(address) {
                        self.region.give_back(first);
                    }
                }
                other => unreachable!("{other:?} gives nothing up"),
            }
        }
    }

    fn is_held(&self, lock: LockId) -> bool {
        self.locks.get(&lock).is_some_and(|queue| !queue.is_empty())
    }

    fn unlock_one(&mut self, lock: LockId, acquired: CallId) {
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
