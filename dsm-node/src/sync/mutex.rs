//! The lock that users see: a handle to a domain, and the guard through which its value is reached.
//!
//! The lock itself is a queue at its home: a call waits for a message, and nobody spins on shared memory. Which locks
//! a thread has is `held`'s duty; what lies in the domain, `domain`'s.

use super::domain::Domain;
use super::held::{self, Begin, Occupied, refuse_in_section};
use crate::dsm::Dsm;
use crate::error::{Error, LockError, Result};
use crate::layout::Shape;
use crate::node::Node;
use crate::shared::Shared;
use dsm_core::limits::{CALLS_MAX, LOCK_WAITERS_MAX};
use dsm_core::{Address, CallId, Command, LockId, NodeId, Reply, SpanRange};
use std::fmt;
use std::marker::PhantomData;
use std::num::NonZeroU64;
use std::ops::{Deref, DerefMut};
use std::ptr::{self, NonNull};
use std::thread;
use std::time::Duration;

/// A lock of the whole cluster, and the value that it guards, with all that the value's collections hold.
///
/// The value lives in a domain of its own, a page at least, which the lock owns. The handle itself is one word, and
/// lies wherever it is put: in a root, a box, or another lock's value. Waiters are served in the order in which they
/// asked. A thread that panics with the guard poisons the lock, as `std`'s does.
///
/// A guard that is forgotten (`mem::forget`) holds its lock for good, and with it every lock that its thread takes
/// after it and until it ends. Dropping a lock asks the lock's home, and so blocks on that node; the memory of one that
/// another thread forgot to unlock is never given back.
#[repr(C)]
pub struct DsmMutex<T> {
    /// Where the domain begins. Never changes, so that all nodes may read it at any time.
    domain: NonZeroU64,
    owns: PhantomData<T>,
}

/// The right to the value of a [`DsmMutex`]. Dropping it publishes what was written.
///
/// The lock goes to other threads and nodes when this thread holds no guard any more. It stays in its thread: the
/// lock's grant is the thread's.
pub struct DsmMutexGuard<'a, T: ?Sized> {
    /// A raw pointer, which also keeps the guard in its thread: `NonNull` is not `Send`.
    value: NonNull<T>,
    domain: Domain,
    acquired: CallId,
    /// Whether the thread was panicking when it got the lock: then the panic's cause is not in this section.
    panicking: bool,
    recovered: Option<Recovered>,
    borrows: PhantomData<&'a mut T>,
}

/// A crash that undid the section before this one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Recovered {
    /// The rank that died with the lock.
    pub rank: u32,
}

/// How long a call waits for a lock.
#[derive(Clone, Copy)]
enum Patience {
    None,
    For(Duration),
    Forever,
}

/// A lock that was had by asking for it.
#[derive(Clone, Copy)]
struct Granted {
    /// The call that has it.
    acquired: CallId,
    /// Who died in the section before.
    recovered: Option<Recovered>,
}

/// How asking for a lock ended, where it did not end with the lock.
enum Denied {
    Held(NodeId),
    Failed(Error),
}

impl<T: Shared> DsmMutex<T> {
    /// A lock with `value` in a new domain.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] where the region has no room, and what waiting for another node may end with.
    pub fn new(dsm: &Dsm, value: T) -> Result<DsmMutex<T>> {
        let domain = Domain::create(dsm.node(), dsm.rank(), value)?;
        let domain = NonZeroU64::new(domain.base().0)
            .ok_or_else(|| Error::Argument(String::from("no domain begins at address zero")))?;
        Ok(DsmMutex { domain, owns: PhantomData })
    }

    /// Waits for the lock. If its holder dies, for as long as it takes to agree on that; then the lock is free, and what
    /// the holder's section wrote is undone: [`DsmMutexGuard::recovered`].
    ///
    /// # Errors
    /// [`LockError::Poisoned`], with the guard, if a thread panicked while it held the lock; [`LockError::Reentrant`]
    /// if this thread holds it; [`LockError::Lost`] if memory of the lock went with every node that held it;
    /// [`LockError::Evicted`] and [`LockError::NoQuorum`] where the others went, or may have gone, on without this node;
    /// [`LockError::Failed`] if the cluster cannot answer, or the lock's home keeps as many
    /// locks for this node as it can.
    pub fn lock(&self) -> Result<DsmMutexGuard<'_, T>, LockError<'_, T>> {
        self.acquire(Patience::Forever)
    }

    /// Takes the lock if nobody holds it. Asks the lock's home, but does not queue there.
    ///
    /// Blocks on the lock's home; in a cluster with replicas, right after a section of this node under the same lock, also on
    /// the nodes that keep this node's commits, until they have that section; and when a node dies, for as long as it takes
    /// to agree on that.
    ///
    /// # Errors
    /// As [`DsmMutex::lock`], and [`LockError::WouldBlock`].
    pub fn try_lock(&self) -> Result<DsmMutexGuard<'_, T>, LockError<'_, T>> {
        self.acquire(Patience::None)
    }

    /// Waits for the lock, for `patience` at most; then gives its place in the queue up, which takes an answer of the lock's
    /// home: when that has died, for as long as it takes to agree on that. If the lock was granted meanwhile, it is this
    /// thread's after all.
    ///
    /// # Errors
    /// As [`DsmMutex::lock`], and [`LockError::Timeout`] with the rank that held the lock then.
    pub fn lock_timeout(&self, patience: Duration) -> Result<DsmMutexGuard<'_, T>, LockError<'_, T>> {
        self.acquire(Patience::For(patience))
    }

    /// Whether a thread panicked while it held the lock, and nobody has cleared that since.
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        // SAFETY: the domain stands for as long as its lock does.
        self.domain().is_ok_and(|domain| unsafe { domain.is_poisoned() })
    }

    /// Declares the value to be in order again.
    pub fn clear_poison(&self) {
        if let Ok(domain) = self.domain() {
            // SAFETY: the domain stands for as long as its lock does.
            unsafe { domain.set_poisoned(false) };
        }
    }

    fn acquire(&self, patience: Patience) -> Result<DsmMutexGuard<'_, T>, LockError<'_, T>> {
        let node = Node::current().map_err(LockError::failed)?;
        let domain = Domain::at(self.base(), node).map_err(LockError::Failed)?;
        let Granted { acquired, recovered } = match held::begin(domain) {
            Begin::Reentrant => return Err(LockError::Reentrant),
            Begin::Resumed(acquired) => Granted { acquired, recovered: None },
            Begin::Ask => {
                let granted =
                    ask(node, domain.lock_id(), patience).map_err(|denied| match (denied, patience) {
                        (Denied::Failed(error), _) => LockError::failed(error),
                        (Denied::Held(_), Patience::None) => LockError::WouldBlock,
                        (Denied::Held(holder), Patience::For(_) | Patience::Forever) => {
                            LockError::Timeout { holder: holder.rank() }
                        }
                    })?;
                held::add(domain, granted.acquired);
                // SAFETY: the domain stands for as long as its lock does, which this thread has just got.
                if let Err(error) = unsafe { cover(node, domain) } {
                    held::end(node, domain.lock_id(), granted.acquired);
                    return Err(LockError::failed(error));
                }
                granted
            }
        };
        let guard = DsmMutexGuard {
            // SAFETY: the domain stands for as long as its lock does, and its value is a `T`, as `new` wrote.
            value: unsafe { domain.value::<T>() },
            domain,
            acquired,
            panicking: thread::panicking(),
            recovered,
            borrows: PhantomData,
        };
        // SAFETY: as above.
        if unsafe { domain.is_poisoned() } { Err(LockError::Poisoned(guard)) } else { Ok(guard) }
    }
}

impl<T> DsmMutex<T> {
    fn base(&self) -> Address {
        Address(self.domain.get())
    }

    fn domain(&self) -> Result<Domain> {
        Domain::at(self.base(), Node::current()?)
    }
}

/// Tells the engine which pages the section has that begins, before it stores to any of them: none is replicated before
/// the section ends. Where the domain is one page, the engine knows; spans that the section leases, it sees.
///
/// Waits for the engine, where there is something to tell.
///
/// # Safety
/// The domain stands, and this thread has its lock.
unsafe fn cover(node: &Node, domain: Domain) -> Result<()> {
    if node.replicas == 0 {
        return Ok(());
    }
    // SAFETY: as this function's caller promises.
    let spans = unsafe { domain.spans() };
    if let [SpanRange { pages: 1, .. }] = spans[..] {
        return Ok(());
    }
    match node.call(Command::Cover { lock: domain.lock_id(), spans })? {
        Reply::Covered => Ok(()),
        other => Err(Error::unexpected("the beginning of a section", other)),
    }
}

/// Asks the home of `lock` for it.
fn ask(node: &Node, lock: LockId, patience: Patience) -> Result<Granted, Denied> {
    let wait = !matches!(patience, Patience::None);
    let waiting = node.start(Command::Lock { lock, wait }).map_err(Denied::Failed)?;
    let id = waiting.id;
    let mut gave_up = !wait;
    let reply = match patience {
        Patience::None | Patience::Forever => waiting.wait(),
        Patience::For(patience) => match waiting.wait_timeout(patience) {
            Ok(Some(reply)) => Ok(reply),
            Ok(None) => {
                // The grant may be under way: then this call has the lock after all.
                node.post(Command::LockWithdraw { lock, waiting: id }).map_err(Denied::Failed)?;
                gave_up = true;
                waiting.wait()
            }
            Err(error) => Err(error),
        },
    };
    judge(reply, gave_up).map(|recovered| Granted { acquired: id, recovered })
}

/// What `reply` means to a call that `gave_up` waiting, or never began to. If it has the lock: who died with it before.
fn judge(reply: Result<Reply>, gave_up: bool) -> Result<Option<Recovered>, Denied> {
    match reply {
        Ok(Reply::Locked { recovered }) => Ok(recovered.map(|dead| Recovered { rank: dead.rank() })),
        Ok(Reply::LockDenied { holder }) if gave_up => Err(Denied::Held(holder)),
        // Who waits is denied only what the home has no room for.
        Ok(Reply::LockDenied { .. }) => Err(Denied::Failed(Error::Argument(format!(
            "the lock's home keeps no further claim of this node: it keeps {CALLS_MAX} locks that one node holds or waits \
             for, and {LOCK_WAITERS_MAX} claims that wait for one lock; a thread keeps all its locks until it holds no \
             guard any more, so drop the outermost guard now and then"
        )))),
        Ok(other) => Err(Denied::Failed(Error::unexpected("a lock", other))),
        Err(error) => Err(Denied::Failed(error)),
    }
}

impl<T> Drop for DsmMutex<T> {
    /// Drops the value and gives the domain's memory back. Asks the lock's home whether anybody still holds the lock,
    /// as a thread does that forgot a guard of it, or that dropped one inside a section that is open still: then the
    /// value is not dropped and its memory stays taken, because that thread may still look into it.
    fn drop(&mut self) {
        // Once the node has left, the region is gone, and with it all that there was to drop.
        let Ok(node) = Node::current() else { return };
        let Ok(domain) = Domain::at(self.base(), node) else { return };
        let lock = domain.lock_id();
        let granted = || ask(node, lock, Patience::None).ok().map(|granted| granted.acquired);
        let Some(acquired) = held::take(lock).or_else(granted) else { return };
        // In a section that a crash may undo, the handle is a handle again then: the domain must stand, and its pages
        // be as they were, until that section has ended. So its own ends with it, and its spans are given back by the
        // engine only after both.
        let is_part_of_section = node.replicas > 0 && held::is_in_section();
        // SAFETY: the domain stands, and this thread has its lock.
        if unsafe { cover(node, domain) }.is_err() {
            // The domain cannot be told to be part of the section, so it stays; the lock is not this thread's to keep. Where
            // the engine has ended, nobody waits for it, and there is nobody to give spans back to.
            held::give_up(node, lock, acquired);
            return;
        }
        // SAFETY: whoever drops the lock has the only reference to it, and has just got or taken over the lock itself,
        // so that no thread's list has the domain; it stands until it is dissolved below. The value is a `T`, as `new`
        // wrote, and is dropped once.
        unsafe {
            let occupied = Occupied::new(domain);
            ptr::drop_in_place(domain.value::<T>().as_ptr());
            if is_part_of_section {
                domain.dissolve();
                drop(occupied);
                held::give_up(node, lock, acquired);
            } else {
                // Before the pages go: the next lock at this address is another.
                held::release(node, vec![(lock, acquired)]);
                domain.dissolve();
                drop(occupied);
                held::settle(node);
            }
        }
    }
}

impl<T> fmt::Debug for DsmMutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The value is not shown: that would take the lock.
        write!(f, "DsmMutex({:#x})", self.domain)
    }
}

// SAFETY: the handle is an address that never changes; the value is reached by one thread of the cluster at a time,
// and a `Shared` type is `Send`.
unsafe impl<T: Shared> Send for DsmMutex<T> {}
// SAFETY: as above.
unsafe impl<T: Shared> Sync for DsmMutex<T> {}

// SAFETY: an address in the region that means the same on every node; the value's type is described.
#[diagnostic::do_not_recommend]
unsafe impl<T: Shared> Shared for DsmMutex<T> {
    fn describe(shape: &mut Shape) {
        shape.element::<T>("value");
    }
}

impl<T> DsmMutexGuard<'_, T> {
    /// Drops the guard, and waits until the section survives as many crashes as the cluster has replicas. Without
    /// replicas there is nothing to wait for.
    ///
    /// Sections that are nested in each other end together, when the thread's last guard goes: `commit` is for that one.
    /// It commits all of them.
    ///
    /// Blocks on the nodes that keep this node's commits.
    ///
    /// # Errors
    /// [`Error::InCriticalSection`] if this thread holds another guard: this one is dropped as by `drop`, nothing is
    /// lost, and nothing is committed before the last guard goes. [`Error::Evicted`] and [`Error::NoQuorum`] where it is
    /// not known whether the section survives.
    pub fn commit(self) -> Result<()> {
        let node = Node::current()?;
        drop(self);
        refuse_in_section("commit")?;
        node.sync()
    }

    /// The crash that undid the section before this one, if one did: the value is as that section found it.
    ///
    /// The first guard after the crash is told, whoever gets it; also where the section may have ended well just before
    /// its node died. Nobody is told where the lock's home died with its holder, as when they are one node: then no survivor
    /// knew that a section was open. The value is as its last committed section left it all the same.
    #[must_use]
    pub fn recovered(&self) -> Option<Recovered> {
        self.recovered
    }
}

impl<T: ?Sized> Deref for DsmMutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the lock keeps all other threads of the cluster from the value while the guard lives.
        unsafe { self.value.as_ref() }
    }
}

impl<T: ?Sized> DerefMut for DsmMutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above, and the guard is borrowed mutably.
        unsafe { self.value.as_mut() }
    }
}

impl<T: ?Sized> Drop for DsmMutexGuard<'_, T> {
    fn drop(&mut self) {
        let Ok(node) = Node::current() else {
            // After a leave nobody waits for the lock, and the flag's page is gone. What remains is that this thread is in
            // the section no more.
            held::take(self.domain.lock_id());
            return;
        };
        if !self.panicking && thread::panicking() {
            // SAFETY: the domain stands for as long as its lock does, which this guard borrows.
            unsafe { self.domain.set_poisoned(true) };
        }
        held::end(node, self.domain.lock_id(), self.acquired);
    }
}

impl<T: fmt::Debug + ?Sized> fmt::Debug for DsmMutexGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: fmt::Display + ?Sized> fmt::Display for DsmMutexGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

// SAFETY: a shared guard gives out `&T` only.
unsafe impl<T: Sync + ?Sized> Sync for DsmMutexGuard<'_, T> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_is_denied_while_it_waits_has_met_a_limit_and_no_holder() {
        let denied = || Ok(Reply::LockDenied { holder: NodeId(1) });
        let Err(Denied::Failed(error)) = judge(denied(), false) else { panic!("it had not given up") };
        assert!(matches!(error, Error::Argument(_)) && error.to_string().contains("65536 locks"), "{error}");
        assert!(matches!(judge(denied(), true), Err(Denied::Held(NodeId(1)))));
        assert!(judge(Ok(Reply::Locked { recovered: None }), true).is_ok());
    }

    #[test]
    fn a_lock_whose_holder_died_says_who_that_was() {
        let told = judge(Ok(Reply::Locked { recovered: Some(NodeId(3)) }), false);
        assert!(matches!(told, Ok(Some(Recovered { rank: 3 }))));
    }
}
