//! Where the parts of the machine put what they want done. Messages to this node itself stay inside the machine; all
//! else becomes an action, in the order in which it was said.

use crate::action::{Action, Actions};
use crate::copyset::Copyset;
use crate::ids::{NodeId, PageId};
use crate::message::Message;
use std::collections::VecDeque;

/// The outbox of one event.
pub(crate) struct Outbox<'a> {
    me: NodeId,
    gone: Copyset,
    actions: &'a mut Actions,
    to_self: &'a mut VecDeque<Message>,
}

impl<'a> Outbox<'a> {
    /// An outbox of `me`, in a cluster that has lost `gone`, that puts what is for `me` into `to_self`.
    pub fn new(
        me: NodeId,
        gone: Copyset,
        actions: &'a mut Actions,
        to_self: &'a mut VecDeque<Message>,
    ) -> Outbox<'a> {
        Outbox { me, gone, actions, to_self }
    }

    /// Says `message` to `to`. What is said to a node that is gone is lost, as it would be on the way.
    pub fn send(&mut self, to: NodeId, message: Message) {
        if to == self.me {
            self.to_self.push_back(message);
        } else if !self.gone.contains(to) {
            self.actions.push(Action::Send { to, message });
        }
    }

    /// Says `message` to `to`, which need not hear it before it hears something else.
    pub fn send_lazily(&mut self, to: NodeId, message: Message) {
        if to == self.me {
            self.to_self.push_back(message);
        } else if !self.gone.contains(to) {
            self.actions.push(Action::SendLazily { to, message });
        }
    }

    /// Lets `to` hear what was held back.
    pub fn flush(&mut self, to: NodeId) {
        if to != self.me && !self.gone.contains(to) {
            self.actions.push(Action::Flush { to });
        }
    }

    /// Says `message` to `to`, with the bytes of `page`. A node never sends a page to itself: it holds it.
    pub fn send_page(&mut self, to: NodeId, page: PageId, message: Message) {
        assert_ne!(to, self.me, "{page} would be sent to the node that holds it");
        if !self.gone.contains(to) {
            self.actions.push(Action::SendPage { to, page, message });
        }
    }

    /// Wants something else done.
    pub fn act(&mut self, action: Action) {
        self.actions.push(action);
    }

    /// The next message to this node itself.
    pub fn next_to_self(&mut self) -> Option<Message> {
        self.to_self.pop_front()
    }
}
