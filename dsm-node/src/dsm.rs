//! The cluster as a program sees it: who is in it, what is shared by name, where everybody waits for everybody.
//!
//! Joining is `config`'s and the engine's duty; memory is `heap`'s and `sync`'s. This file turns calls into the
//! engine's commands, and its replies into results.

use crate::config::Builder;
use crate::error::{Error, Result};
use crate::heap;
use crate::layout;
use crate::node::{Node, Waiting};
use crate::refs::{DsmBox, DsmRef};
use crate::shared::Shared;
use crate::stats::Stats;
use crate::sync::refuse_in_section;
use crate::views::{View, Views};
use dsm_core::limits::{NAME_LENGTH_MAX, NAMES_MAX};
use dsm_core::{Address, Command, Reply, RootAnswer};
use parking_lot::Mutex;
use std::cell::RefCell;
use std::io::ErrorKind;
use std::ptr::{self, NonNull};
use std::thread;
use std::time::Duration;

/// How long a drop waits for the other nodes to be done: a program whose nodes finish at very different times calls
/// [`Dsm::leave`], which waits for as long as it takes.
const LEAVE_PATIENCE: Duration = Duration::from_secs(600);

/// Nodes of one program that come to their ends within so long of each other leave together, and no page is moved.
const TOGETHER_PATIENCE: Duration = Duration::from_secs(1);

/// How long the drop of a panicking thread waits for them: they may be done too, but if they are not, they wait for this
/// node, and are to learn soon that it will never come.
const PANIC_PATIENCE: Duration = Duration::from_millis(200);

thread_local! {
    /// The roots that this thread is creating, from the outermost to the innermost.
    static CREATING: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// What ends the engine, once nobody needs this node any more.
type Shutdown = Box<dyn FnOnce(Option<Duration>) -> Result<()> + Send>;

/// A node's membership in a cluster. Threads share `&Dsm`; references into the region borrow from it.
///
/// Dropping it leaves the cluster, as [`Dsm::leave`] does, but waits for a bounded time only: ten minutes, and a fraction
/// of a second where a panic is what drops it.
pub struct Dsm {
    node: &'static Node,
    /// The process that joined: a forked child has a copy of this, and no node.
    process: u32,
    shutdown: Mutex<Option<Shutdown>>,
}

impl Dsm {
    /// Joins the cluster that the environment describes; alone, if it describes none.
    ///
    /// # Errors
    /// What the configuration, the kernel or the other nodes refuse; [`Error::AlreadyJoined`] the second time.
    pub fn join() -> Result<Dsm> {
        Builder::from_env()?.join()
    }

    /// Joins a cluster that is described by hand.
    pub fn builder() -> Builder {
        Builder::new()
    }

    /// The membership of `node`, whose engine runs; `shutdown` ends it.
    pub(crate) fn new(
        node: &'static Node,
        shutdown: impl FnOnce(Option<Duration>) -> Result<()> + Send + 'static,
    ) -> Dsm {
        Dsm { node, process: std::process::id(), shutdown: Mutex::new(Some(Box::new(shutdown))) }
    }

    /// The node behind it.
    pub(crate) fn node(&self) -> &'static Node {
        self.node
    }

    /// This node's rank, from zero on.
    #[must_use]
    pub fn rank(&self) -> u32 {
        self.node.rank.rank()
    }

    /// How many nodes there were at the start.
    #[must_use]
    pub fn size(&self) -> u32 {
        self.node.size
    }

    /// The agreed membership as this node knows it: the view that it installed last.
    #[must_use]
    pub fn view(&self) -> View {
        self.node.views().latest()
    }

    /// The changes of the membership, each once and in order, from the one after [`Dsm::view`] on. The iterator waits
    /// for each; [`Views::next_timeout`] does so for a bounded time.
    ///
    /// A view is told when this node has installed it. What the dead had is served again shortly after: calls and
    /// touches that need it wait until then.
    #[must_use]
    pub fn views(&self) -> Views {
        Views::of(self.node)
    }

    /// The object that the whole cluster knows by `name`. The first to ask creates it with `init`; all others wait and
    /// get the same address. If `init` fails or panics, the next to ask creates it. It lasts as long as the cluster.
    ///
    /// # Errors
    /// [`Error::LayoutMismatch`] if the name stands for an object of another type; [`Error::Argument`] for an empty or
    /// too long name, and where `init` asks for the very root that it creates; what `init` returns;
    /// [`Error::OutOfMemory`]; [`Error::Evicted`] and [`Error::NoQuorum`].
    ///
    /// Blocks on the name's home, and on the node that creates the object: whoever asks while it holds a guard must be
    /// sure that `init` needs no lock of it.
    pub fn root<T: Shared>(&self, name: &str, init: impl FnOnce(&Dsm) -> Result<T>) -> Result<&T> {
        let target = self.find_or_create(name, init)?;
        // SAFETY: a `T` stands there: its layout was compared, and roots are never dropped, freed or changed other
        // than through shared references. The result cannot outlive the membership.
        Ok(unsafe { target.as_ref() })
    }

    /// As [`Dsm::root`], but gives a reference that may be stored in the region.
    ///
    /// # Errors
    /// As [`Dsm::root`].
    pub fn root_ref<T: Shared>(&self, name: &str, init: impl FnOnce(&Dsm) -> Result<T>) -> Result<DsmRef<T>> {
        let target = self.find_or_create(name, init)?;
        // SAFETY: as above.
        Ok(unsafe { DsmRef::new(target) })
    }

    /// Waits until one thread of each live member has called it as often as this node has. Returns the membership in
    /// which it completed, with the members of just that view: who is missing from it is gone, and was waited for no
    /// more. Blocks on all members; when one dies, for as long as it takes to agree on that.
    ///
    /// # Errors
    /// [`Error::Busy`] if another thread of this node is in it; [`Error::InCriticalSection`] if this thread holds a
    /// guard; [`Error::Evicted`] and [`Error::NoQuorum`] where the others went, or may have gone, on without this node.
    pub fn barrier(&self) -> Result<View> {
        refuse_in_section("barrier")?;
        match self.node.call(Command::Barrier)? {
            Reply::BarrierPassed { view } => Ok(self.node.view_of(view)),
            Reply::Busy => Err(Error::Busy { call: "barrier" }),
            other => Err(Error::unexpected("a barrier", other)),
        }
    }

    /// Puts `value` on this node's part of the shared heap.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] where the region has no room.
    pub fn alloc<T: Shared>(&self, value: T) -> Result<DsmBox<'_, T>> {
        DsmBox::new(self, value)
    }

    /// Returns once all of this node's writes outside open sections survive as many crashes as the cluster has
    /// replicas: what was printed after it is never contradicted by what is found later. A cluster without replicas
    /// survives none: then this returns at once.
    ///
    /// Blocks on the nodes that keep this node's commits.
    ///
    /// # Errors
    /// [`Error::InCriticalSection`] if this thread holds a guard; [`Error::Evicted`] and [`Error::NoQuorum`] where it is
    /// not known whether the writes survive.
    pub fn sync(&self) -> Result<()> {
        refuse_in_section("sync")?;
        self.node.sync()
    }

    /// What this node has counted since it joined; all zero when it has left. Blocks on this node's engine alone, for
    /// microseconds.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let mut stats = self.node.stats().unwrap_or_default();
        stats.refused_frees = heap::garbage_frees();
        stats
    }

    /// Leaves. Where all nodes leave within a second of each other, as at a program's end, nothing is moved. Otherwise a
    /// node of a cluster with replicas makes sure that all of its pages survive without it, and goes; the others go on,
    /// in a view without it. Nodes that leave at once go one after another. A node of a cluster without replicas waits
    /// until every program is done: nobody else has its pages.
    ///
    /// Blocks on the nodes that keep this node's commits until all pages of the cluster have as many replicas as they
    /// should: after a death that may take as long as copying what the dead node had, and while a section is open
    /// somewhere whose pages lost their replicas, until it ends. A node that is dropped waits so for ten minutes at most,
    /// and one that panics for a fifth of a second.
    ///
    /// # Errors
    /// [`Error::InCriticalSection`] if this thread holds a guard: then the node stays until the process ends.
    /// [`Error::Evicted`] and [`Error::NoQuorum`] where it was no member any more; it has left nevertheless.
    pub fn leave(mut self) -> Result<()> {
        let result = self.depart(None);
        // Whatever happened was reported: the drop has nothing more to do.
        self.shutdown.get_mut().take();
        result
    }

    /// Leaves, waiting for `patience` at most, or for as long as it takes. Does nothing the second time.
    fn depart(&mut self, patience: Option<Duration>) -> Result<()> {
        if self.process != std::process::id() {
            return Ok(());
        }
        if self.shutdown.get_mut().is_some() {
            refuse_in_section("leave")?;
        }
        let Some(shutdown) = self.shutdown.get_mut().take() else { return Ok(()) };
        let left = self.node.start(Command::Leave).and_then(|waiting| self.go(&waiting, patience));
        self.node.mark_left();
        let ended = shutdown(patience);
        left.and(ended)
    }

    /// Waits until this node may go: with all others, or, where others keep its pages, without them.
    fn go(&self, waiting: &Waiting<'_>, patience: Option<Duration>) -> Result<()> {
        if self.node.replicas == 0 {
            return await_leave(waiting, patience);
        }
        let together = patience.map_or(TOGETHER_PATIENCE, |patience| patience.min(TOGETHER_PATIENCE));
        match waiting.wait_timeout(together)? {
            Some(Reply::Left) => Ok(()),
            Some(other) => Err(Error::unexpected("a leave", other)),
            // The engine ends when others keep all that it has.
            None => Ok(()),
        }
    }

    fn find_or_create<T: Shared>(
        &self,
        name: &str,
        init: impl FnOnce(&Dsm) -> Result<T>,
    ) -> Result<NonNull<T>> {
        if name.is_empty() || name.len() > NAME_LENGTH_MAX {
            return Err(Error::Argument(format!(
                "a root's name has 1 to {NAME_LENGTH_MAX} bytes, not {}: {name:?}",
                name.len()
            )));
        }
        if CREATING.with_borrow(|creating| creating.iter().any(|known| known == name)) {
            return Err(Error::Argument(format!(
                "root {name:?} is asked for by the `init` that creates it, which would wait for itself"
            )));
        }
        let identity = layout::identity::<T>();
        match self.node.call(Command::RootClaim { name: name.to_owned(), layout: identity.hash })? {
            Reply::Root(RootAnswer::Create) => self.create(name, init),
            Reply::Root(RootAnswer::Found(address)) => self.target_at(name, address),
            Reply::Root(RootAnswer::OtherLayout(found)) => Err(Error::LayoutMismatch {
                name: name.to_owned(),
                expected: format!("`{}` ({:016x})", identity.name, identity.hash),
                found: describe_hash(found),
            }),
            Reply::Root(RootAnswer::TooMany) => Err(Error::Argument(format!(
                "root {name:?} is one too many: a node keeps the names of {NAMES_MAX} roots, and as many waiting claims; \
                 use a few roots, and collections under them"
            ))),
            other => Err(Error::unexpected("a claim of a root", other)),
        }
    }

    fn create<T: Shared>(&self, name: &str, init: impl FnOnce(&Dsm) -> Result<T>) -> Result<NonNull<T>> {
        let claim = Claim { node: self.node, name };
        let creating = Creating::begin(name);
        let object = DsmBox::new(self, init(self)?)?;
        drop(creating);
        let address = DsmBox::leak(object).address();
        claim.publish(Address(address as u64))?;
        self.target_at(name, Address(address as u64))
    }

    /// The object at `address`, if one can be there.
    fn target_at<T>(&self, name: &str, address: Address) -> Result<NonNull<T>> {
        let target = ptr::with_exposed_provenance_mut::<T>(address.0 as usize);
        NonNull::new(target)
            .filter(|target| target.is_aligned() && self.node.geometry.page_of(address).is_some())
            .ok_or_else(|| {
                Error::Argument(format!("root {name:?} was published at {address}, which is no place for it"))
            })
    }
}

impl Drop for Dsm {
    fn drop(&mut self) {
        let patience = if thread::panicking() { PANIC_PATIENCE } else { LEAVE_PATIENCE };
        if let Err(error) = self.depart(Some(patience)) {
            complain(&format!("leaving the cluster: {error}"));
        }
    }
}

impl std::fmt::Debug for Dsm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Dsm({} of {})", self.node.rank, self.node.size)
    }
}

fn await_leave(waiting: &Waiting<'_>, patience: Option<Duration>) -> Result<()> {
    match waiting.wait_timeout(patience.unwrap_or(Duration::MAX))? {
        Some(Reply::Left) => Ok(()),
        Some(other) => Err(Error::unexpected("a leave", other)),
        None => Err(Error::io("waiting for the other nodes to be done", ErrorKind::TimedOut)),
    }
}

/// A type's name where this program knows one with that layout, and the layout's number in any case.
fn describe_hash(hash: u64) -> String {
    match layout::registered().into_iter().find(|(_, known)| *known == hash) {
        Some((name, _)) => format!("`{name}` ({hash:016x})"),
        None => format!("another type ({hash:016x})"),
    }
}

/// Says what a drop cannot return: to the program's subscriber, or, where it has none, on stderr.
fn complain(text: &str) {
    if tracing::dispatcher::has_been_set() {
        tracing::error!("{text}");
    } else {
        eprintln!("dsm: {text}");
    }
}

/// The duty to create a root: gives it back if creating fails, by error or by panic.
struct Claim<'a> {
    node: &'static Node,
    name: &'a str,
}

impl Claim<'_> {
    fn publish(self, address: Address) -> Result<()> {
        let name = self.name.to_owned();
        let node = self.node;
        std::mem::forget(self);
        node.post(Command::RootPublish { name, address })
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        // This fails only when the engine has ended: then nobody asks for the name any more.
        let _ = self.node.post(Command::RootAbandon { name: self.name.to_owned() });
    }
}

/// While it lives, this thread is creating a root.
struct Creating;

impl Creating {
    fn begin(name: &str) -> Creating {
        CREATING.with_borrow_mut(|creating| creating.push(name.to_owned()));
        Creating
    }
}

impl Drop for Creating {
    fn drop(&mut self) {
        CREATING.with_borrow_mut(|creating| creating.pop());
    }
}

mod ensure;
mod prefault;

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;
