//! The list itself, in either kind of memory: appending to it and walking it, by code that knows nothing of machines.

use super::Memory;
use super::check::{Check, Item, Verdict};
use super::line::Break;
use dsm_node::collections::DsmList;
use dsm_node::{Dsm, DsmBox, DsmMutex, DsmRef, Error, Lost, Shared};
use std::cell::Cell;

/// An item in the plain heap, and the one appended before it.
#[derive(Shared)]
#[repr(C)]
pub struct Link {
    item: Item,
    previous: Option<DsmRef<Link>>,
}

/// A list in the plain heap: the links never change once they can be reached, and the lock guards the last one.
#[derive(Shared)]
#[repr(C)]
pub struct Chain {
    last: Option<DsmRef<Link>>,
    length: u64,
}

/// The list.
pub enum SharedList<'d> {
    /// In the arena of the lock that guards it.
    Guarded(&'d DsmMutex<DsmList<Item>>),
    /// In the plain heap.
    Plain {
        /// What its pages are asked of.
        dsm: &'d Dsm,
        /// Where its end is.
        chain: &'d DsmMutex<Chain>,
        /// The link that this node appended last: where its own walk can begin if nobody knows the end any more.
        newest: Cell<Option<DsmRef<Link>>>,
    },
}

/// What a walk found.
pub enum Finding {
    /// It came to the end.
    Whole(Verdict),
    /// It came to something that is lost.
    Broken(Break),
}

impl<'d> SharedList<'d> {
    /// The list that all nodes share.
    pub fn open(dsm: &'d Dsm, memory: Memory) -> Result<SharedList<'d>, Error> {
        match memory {
            Memory::Guarded => {
                let list = dsm.root("list", |dsm| DsmMutex::new(dsm, DsmList::new()))?;
                Ok(SharedList::Guarded(list))
            }
            Memory::Plain => {
                let empty = Chain { last: None, length: 0 };
                let chain = dsm.root("chain", |dsm| DsmMutex::new(dsm, empty))?;
                Ok(SharedList::Plain { dsm, chain, newest: Cell::new(None) })
            }
        }
    }

    /// Appends one item in a critical section of its own. It is acknowledged when this returns. In the middle of the section,
    /// with the item written but not committed, `pause` is called with the number of items that were there before.
    pub fn append(&self, item: Item, pause: impl FnOnce(u64)) -> Result<(), Error> {
        match self {
            SharedList::Guarded(list) => {
                let mut list = list.lock()?;
                let length = list.len() as u64;
                list.push_back(item)?;
                pause(length);
                list.commit()
            }
            SharedList::Plain { dsm, chain, newest } => {
                let mut link = dsm.alloc(Link { item, previous: None })?;
                let mut chain = chain.lock()?;
                link.previous = chain.last;
                let link = DsmBox::leak(link);
                chain.last = Some(link);
                chain.length += 1;
                pause(chain.length - 1);
                chain.commit()?;
                newest.set(Some(link));
                Ok(())
            }
        }
    }

    /// Walks the list and shows `check` each item, the oldest first. `step` is called per item.
    pub fn walk(&self, mut check: Check, mut step: impl FnMut()) -> Result<Finding, Error> {
        match self {
            SharedList::Guarded(list) => match list.lock().map_err(Error::from) {
                Ok(list) => list.iter().for_each(|item| {
                    check.visit(*item);
                    step();
                }),
                Err(Error::Lost(lost)) => return Ok(Finding::Broken(Break::new(lost, None))),
                Err(error) => return Err(error),
            },
            SharedList::Plain { dsm, chain, newest } => {
                let (begin, length, lost) = match chain.lock().map_err(Error::from) {
                    Ok(chain) => (chain.last, chain.length, None),
                    // The end is gone, but not what this node appended itself.
                    Err(Error::Lost(lost)) => (newest.get(), u64::MAX, Some(lost)),
                    Err(error) => return Err(error),
                };
                let items = match follow(dsm, begin, length, lost, step)? {
                    Ok(items) => items,
                    Err(broken) => return Ok(Finding::Broken(broken)),
                };
                items.into_iter().rev().for_each(|item| check.visit(item));
            }
        }
        Ok(Finding::Whole(check.finish()))
    }
}

/// Follows a chain from `begin` to its oldest link, over `length` links at most: a damaged chain may run in a circle. `lost`
/// is the end of the chain, if it is known to be lost. The items, the newest first, or where the chain breaks.
fn follow(
    dsm: &Dsm,
    begin: Option<DsmRef<Link>>,
    length: u64,
    lost: Option<Lost>,
    mut step: impl FnMut(),
) -> Result<Result<Vec<Item>, Break>, Error> {
    let mut items = Vec::new();
    let mut next = begin;
    while let Some(link) = next.filter(|_| items.len() as u64 <= length) {
        // A plain dereference of a page that is lost ends the process: so its presence is asked for first.
        let link = match dsm.ensure(link) {
            Ok(link) => link,
            Err(Error::Lost(lost)) => return Ok(Err(Break::new(lost, Some(items.len() as u64)))),
            Err(error) => return Err(error),
        };
        items.push(link.item);
        next = link.previous;
        step();
    }
    match lost {
        Some(lost) => Ok(Err(Break::new(lost, Some(items.len() as u64)))),
        None => Ok(Ok(items)),
    }
}
