//! Carries out what a machine wants, and checks that each is possible.

use super::super::state::Slot;
use super::configuration::Task;
use super::mutant::Mutant;
use super::rules::Rule;
use super::state::{Said, Waiting, Word};
use super::turn::{Check, RUBBISH, Turn};
use dsm_core::{
    Access, Action, CallId, Commit, Message, NodeId, PageId, Payload, Replication, Reply, Report, Source,
};

impl Turn<'_> {
    pub(super) fn act(&mut self, action: Action) -> Check {
        match action {
            Action::Protect { page, access } => {
                let page = self.known(page)?;
                let mapped = self.node.table[page];
                self.require(mapped > access, || format!("page {page} is {mapped:?}, not above {access:?}"))?;
                self.node.table[page] = access;
            }
            Action::Install { page, access, payload } => self.map(page, access, payload)?,
            Action::Refresh { page, access } => {
                let page = self.known(page)?;
                self.require(self.node.table[page] == access, || format!("page {page} is not {access:?}"))?;
                self.wake(page);
            }
            Action::Send { to, message } | Action::SendLazily { to, message } => self.say(to, message, None),
            Action::SendPage { to, page, message } => {
                let page = self.known(page)?;
                let word = self.node.frames[page];
                let frozen = matches!(message, Message::Grant { custody: Some(_), .. });
                self.say(to, message, Some(word));
                if frozen && self.is(Mutant::ReusesFrozenFrames) {
                    self.node.frames[page] = RUBBISH;
                }
            }
            Action::Flush { .. } => {}
            Action::Replicate(what) => self.replicate(what)?,
            Action::ProbeResidency { page } => drop(self.probes.insert(page)),
            Action::Complete { call, reply } => self.answered(call, reply)?,
            Action::Reject { from, cause } => {
                return Err((Rule::NothingRefused, format!("{} refuses what {from} said: {cause}", self.me)));
            }
            Action::SetTimer { .. } | Action::Doom { .. } | Action::Freed { .. } => {
                return Err((Rule::ActionsFit, format!("{} wants {action:?}", self.me)));
            }
        }
        Ok(())
    }

    fn map(&mut self, page: PageId, access: Access, payload: Payload) -> Check {
        let page = self.known(page)?;
        let mapped = self.node.table[page];
        let fits = match payload {
            Payload::Bytes | Payload::Zero => mapped == Access::None && access != Access::None,
            Payload::Held => mapped == Access::Read && access == Access::Write,
        };
        self.require(fits, || format!("{payload:?} as {access:?} over {mapped:?} on page {page}"))?;
        match payload {
            Payload::Zero => self.node.frames[page] = 0,
            Payload::Bytes => {
                if let Some(word) = self.node.aside.remove(&page) {
                    self.node.frames[page] = word;
                }
            }
            Payload::Held => {}
        }
        self.node.table[page] = access;
        self.wake(page);
        Ok(())
    }

    fn wake(&mut self, page: Slot) {
        if matches!(self.node.waiting, Waiting::Page(awaited, _) if awaited == page) {
            self.node.waiting = Waiting::Not;
            self.woken = true;
        }
    }

    fn replicate(&mut self, what: Replication) -> Check {
        match what {
            Replication::SendCopy { to, page, source, message } => {
                let page = self.known(page)?;
                let still = self.node.table[page] < Access::Write;
                let word = match source {
                    Source::Frame => {
                        self.require(still, || format!("page {page} is copied while it may be stored to"))?;
                        Some(self.node.frames[page])
                    }
                    Source::Twin if self.is(Mutant::KeepsNoTwins) => Some(self.node.frames[page]),
                    Source::Twin => self.node.twins.get(&page).copied(),
                };
                self.require(word.is_some(), || format!("there is no twin of page {page}"))?;
                for buddy in to.iter() {
                    self.say(buddy, message.clone(), word);
                }
            }
            Replication::KeepTwin { page } => {
                let page = self.known(page)?;
                let still = self.node.table[page] < Access::Write;
                self.require(still, || format!("page {page} is set aside while it may be stored to"))?;
                let word = self.node.aside.get(&page).copied().unwrap_or(self.node.frames[page]);
                self.node.twins.insert(page, word);
            }
            Replication::DropTwin { page } => {
                let page = self.known(page)?;
                self.node.twins.remove(&page);
            }
            Replication::ApplyRecord { from, record, pages } => {
                let words = self.node.records.remove(&(from, record)).unwrap_or_default();
                for page in pages {
                    let page = self.known(page)?;
                    let mapped = self.node.table[page];
                    self.require(mapped == Access::None, || format!("a record is put over mapped {page}"))?;
                    let word = words.get(&page).copied();
                    self.require(word.is_some(), || format!("bytes of {page} in {record:?} never came"))?;
                    self.node.frames[page] = word.unwrap_or(RUBBISH);
                }
                if self.is(Mutant::CountsHalfRecords) {
                    self.node.sent.insert(from, record);
                }
            }
            Replication::DropRecords => {
                self.node.records.clear();
                self.node.aside.clear();
            }
            Replication::Discard { page } => {
                let page = self.known(page)?;
                let mapped = self.node.table[page];
                self.require(mapped == Access::None, || format!("page {page} is discarded, and mapped"))?;
                self.node.frames[page] = RUBBISH;
            }
            Replication::Poison { first, .. } => {
                // No configuration has more crashes than it has replicas since it was fully replicated.
                return Err((Rule::NothingLost, format!("{} takes {first} for lost", self.me)));
            }
            Replication::Resumed { view: _ } => self.resumed()?,
        }
        Ok(())
    }

    fn answered(&mut self, call: CallId, reply: Reply) -> Check {
        if reply == Reply::Covered {
            return Ok(());
        }
        let task = self.node.program.first().copied();
        self.require(self.node.waiting == Waiting::Call(call), || format!("{call:?} is answered unasked"))?;
        self.node.waiting = Waiting::Not;
        match (task, reply) {
            (Some(Task::Lock), Reply::Locked { recovered: _ }) => {
                self.state.truth.locked(self.me).map_err(|what| (Rule::OneHolder, what))?;
                self.node.acquired = Some(call);
                self.covering = true;
            }
            (Some(Task::Sync), Reply::Synced) => self.state.truth.synced(self.me),
            (task, reply) => {
                return Err((Rule::ActionsFit, format!("{} answers {task:?} with {reply:?}", self.me)));
            }
        }
        self.retire();
        Ok(())
    }

    /// Says a message to a peer, or what a mutant says in its stead.
    pub(super) fn say(&mut self, to: NodeId, message: Message, body: Option<Word>) {
        let mut message = message;
        if let Some(mutant) = self.cluster.mutant
            && !self.lie(mutant, to, &mut message)
        {
            return;
        }
        let said = Said::new(self.me, to, self.node.installed, message, body);
        let installed = self.state.nodes[to.index()].installed;
        self.state.transmit(said, installed);
    }

    /// Whether the message is sent.
    fn lie(&mut self, mutant: Mutant, to: NodeId, message: &mut Message) -> bool {
        match (mutant, message) {
            (Mutant::AcksBeforeKept, Message::Commit(Commit::End { record, .. })) => {
                self.forged.push_back((to, Message::Commit(Commit::Ack { record: *record })));
            }
            (Mutant::AcksBeforeKept, Message::Commit(Commit::Ack { .. })) => return false,
            (Mutant::CommitsOnePage, Message::Commit(Commit::Page { record, .. })) => {
                return self.node.begun.insert((to, *record));
            }
            (Mutant::CommitsOnePage, Message::Commit(Commit::End { pages, .. })) => *pages = 1,
            (Mutant::ReleasesAtOnce, Message::Commit(Commit::Page { record, page })) => {
                self.node.pages.insert((*record, *page));
            }
            (Mutant::AcksAnyNumber, Message::Commit(Commit::End { record, .. })) => {
                self.node.sent.insert(to, *record);
            }
            (Mutant::SkipsNewBuddies, Message::Commit(Commit::Page { .. })) => return !self.is_new_buddy(to),
            (Mutant::SkipsNewBuddies, Message::Commit(Commit::End { record, previous, .. })) => {
                if self.is_new_buddy(to) {
                    self.forged.push_back((to, Message::Commit(Commit::Ack { record: *record })));
                    return false;
                }
                *previous = self.node.sent.insert(to, *record).unwrap_or(dsm_core::RecordId::NONE);
            }
            (Mutant::ResumesAlone, Message::Report(Report::Ready)) => {
                self.forged.push_back((to, Message::Report(Report::Ready)));
                return false;
            }
            (_, _) => {}
        }
        true
    }

    /// Whether `buddy` has become one in this view, and has not got all that it is to keep.
    fn is_new_buddy(&self, buddy: NodeId) -> bool {
        let installed = self.node.installed;
        let before = self.state.views.iter().find(|view| view.id().0 + 1 == installed.0);
        let is_new = before.is_some_and(|view| !view.buddies_of(self.me).contains(buddy));
        is_new && !self.node.machine.is_fully_replicated()
    }

    /// All members have recovered, and nobody has stored anything since: what must have survived has.
    fn resumed(&mut self) -> Check {
        let view = self.node.installed;
        if view <= self.state.seen {
            return Ok(());
        }
        self.state.seen = view;
        let Some(view) = self.state.views.iter().find(|known| known.id() == view).cloned() else {
            return Ok(());
        };
        // What a member leaves that has died meanwhile is the next view's business.
        if view.members().iter().any(|node| self.state.nodes[node.index()].dead) {
            return Ok(());
        }
        let mut words = Vec::new();
        for page in &self.cluster.pages {
            let node = |name: NodeId| {
                if name == self.me { &self.node } else { &*self.state.nodes[name.index()] }
            };
            let owners: Vec<NodeId> =
                view.members().iter().filter(|name| node(*name).machine.owns(*page)).collect();
            let word = match owners[..] {
                [] => 0,
                [owner] => node(owner).frames[words.len()],
                [..] => return Err((Rule::OneOwner, format!("{page} has owners {owners:?}"))),
            };
            words.push(word);
            for home in view.members().iter() {
                let Some((known, _)) = node(home).machine.holders(*page) else { continue };
                if known != owners.first().copied() {
                    return Err((
                        Rule::OneOwner,
                        format!("{home} takes {known:?} for the owner of {page}: {owners:?}"),
                    ));
                }
            }
        }
        if self.cluster.configuration.domain {
            self.state
                .truth
                .domain_recovered([words[0], words[1]])
                .map_err(|what| (Rule::SectionsAreWhole, what))
        } else {
            self.state.truth.recovered(&words).map_err(|what| (Rule::SeenSurvives, what))
        }
    }

    pub(super) fn known(&self, page: PageId) -> Check<Slot> {
        let unknown = || (Rule::ActionsFit, format!("{} speaks of {page}, which nobody touched", self.me));
        self.cluster.slot(page).ok_or_else(unknown)
    }

    pub(super) fn require(&self, holds: bool, what: impl FnOnce() -> String) -> Check {
        if holds { Ok(()) } else { Err((Rule::ActionsFit, format!("{}: {}", self.me, what()))) }
    }
}
