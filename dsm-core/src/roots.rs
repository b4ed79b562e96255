//! The names homed at this node: what each stands for, or who is creating it, and who waits to hear.

use crate::action::Cause;
use crate::ids::{Address, NodeId, Ticket};
use crate::limits::NAMES_MAX;
use crate::message::{Message, RootAnswer};
use crate::outbox::Outbox;
use crate::quota::Quota;
use std::collections::{BTreeMap, VecDeque};

/// The names of one home.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct Roots {
    names: BTreeMap<String, Root>,
    /// Waiting claims, by node.
    quota: Quota,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Root {
    layout: u64,
    state: State,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum State {
    Creating { creator: NodeId, waiting: VecDeque<Ticket> },
    Ready { address: Address },
}

impl Roots {
    /// A call asks for `name`. The first to ask creates the object; the others wait for it.
    pub fn claim(&mut self, name: String, layout: u64, ticket: Ticket, out: &mut Outbox<'_>) {
        let many = self.names.len() >= NAMES_MAX;
        let answer = match self.names.get_mut(&name) {
            None if many => RootAnswer::TooMany,
            None => {
                let state = State::Creating { creator: ticket.node, waiting: VecDeque::new() };
                self.names.insert(name, Root { layout, state });
                RootAnswer::Create
            }
            Some(root) if root.layout != layout => RootAnswer::OtherLayout(root.layout),
            Some(Root { state: State::Ready { address }, .. }) => RootAnswer::Found(*address),
            Some(Root { state: State::Creating { waiting, .. }, .. }) if self.quota.take(ticket.node) => {
                waiting.push_back(ticket);
                return;
            }
            Some(Root { state: State::Creating { .. }, .. }) => RootAnswer::TooMany,
        };
        out.send(ticket.node, Message::RootAnswered { ticket, answer });
    }

    /// The object under `name` stands at `address`. Returns the identity of its type's layout.
    pub fn publish(
        &mut self,
        from: NodeId,
        name: &str,
        address: Address,
        out: &mut Outbox<'_>,
    ) -> Result<u64, Cause> {
        let state = self.created_by(from, name)?;
        if let State::Creating { waiting, .. } = core::mem::replace(state, State::Ready { address }) {
            let answer = RootAnswer::Found(address);
            for ticket in waiting {
                self.quota.give_back(ticket.node);
                out.send(ticket.node, Message::RootAnswered { ticket, answer });
            }
        }
        Ok(self.names.get(name).map_or(0, |root| root.layout))
    }

    /// Creating the object under `name` failed: the next that waits creates it, or the name is new again.
    pub fn abandon(&mut self, from: NodeId, name: &str, out: &mut Outbox<'_>) -> Result<(), Cause> {
        let next = match self.created_by(from, name)? {
            State::Creating { creator, waiting } => waiting.pop_front().inspect(|next| *creator = next.node),
            State::Ready { .. } => None,
        };
        match next {
            Some(ticket) => {
                self.quota.give_back(ticket.node);
                out.send(ticket.node, Message::RootAnswered { ticket, answer: RootAnswer::Create });
            }
            None => {
                self.names.remove(name);
            }
        }
        Ok(())
    }

    /// Another view: names are told anew, those that are being created included.
    pub fn clear(&mut self) {
        self.names.clear();
        self.quota = Quota::default();
    }

    /// The roots that have their addresses: name, layout, address.
    pub fn ready(&self) -> impl Iterator<Item = (&String, u64, Address)> + '_ {
        self.names.iter().filter_map(|(name, root)| match root.state {
            State::Ready { address } => Some((name, root.layout, address)),
            State::Creating { .. } => None,
        })
    }

    /// A member knows where the object under `name` stands, or is creating it.
    pub fn restore(&mut self, from: NodeId, name: &str, layout: u64, address: Option<Address>) {
        let known = self.names.get(name).is_some_and(|root| matches!(root.state, State::Ready { .. }));
        if known {
            return;
        }
        let state = match address {
            Some(address) => State::Ready { address },
            None => State::Creating { creator: from, waiting: VecDeque::new() },
        };
        self.names.insert(name.to_owned(), Root { layout, state });
    }

    /// The state of `name`, which `from` is creating.
    fn created_by(&mut self, from: NodeId, name: &str) -> Result<&mut State, Cause> {
        let root = self.names.get_mut(name).ok_or(Cause::OutOfTurn)?;
        match &root.state {
            State::Creating { creator, .. } if *creator == from => Ok(&mut root.state),
            State::Creating { .. } | State::Ready { .. } => Err(Cause::OutOfTurn),
        }
    }

    /// Whether no name's object is being created.
    pub fn is_quiet(&self) -> bool {
        self.names.values().all(|root| matches!(root.state, State::Ready { .. }))
    }
}
