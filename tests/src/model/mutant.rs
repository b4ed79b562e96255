//! Deliberate bugs, each of which the model checker must find: what a wrong machine, a wrong driver or a wrong
//! transport would do. All of them lie between machines: messages and actions are altered, dropped, doubled or put
//! off. So the machine itself needs no switch, and no build of it contains one.

use dsm_core::{Access, Copyset, Message, NodeId, Want};

/// One deliberate bug.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Mutant {
    /// An owner keeps a read mapping after it granted a write, and a reader after its ack.
    KeepsReadMapping,
    /// An owner keeps its write mapping after it granted a read.
    KeepsWriteMapping,
    /// A load maps its page writable.
    MapsReadsWritable,
    /// Nobody is told to drop read copies, and nobody waits for it.
    NoInvalidation,
    /// An upgrade invalidates the readers, but not the owner, whose copy has become one of them.
    SparesOwner,
    /// The home starts the next transaction without waiting for the confirmation of the last.
    NoWaitForConfirm,
    /// A requester confirms when the grant comes, before the acks have come.
    ConfirmsBeforeAcks,
    /// A requester does not wait for acks.
    NoWaitForAcks,
    /// A reader acks when it is told to drop its copy, though the copy stays for its residency.
    AcksBeforeUnmapping,
    /// Acks are lost.
    LosesAcks,
    /// The bytes of every grant are put into the frame, though nobody waits for them.
    AcceptsAnyBody,
    /// The bytes of a grant are not put into the frame.
    DiscardsBody,
    /// A grant carries the bytes as they were before the last store.
    SendsStaleBody,
    /// Bytes are sent first, and the page is protected some time after.
    SendsBeforeProtecting,
    /// A page that comes with bytes is cleared.
    ClearsPages,
    /// The frame is used for something else as soon as its bytes were sent.
    ReusesSentFrame,
    /// A read is granted as a write, though the owner keeps its copy.
    GrantsReadsAsWrites,
    /// The home does not say that others have come to wait.
    NeverHurries,
    /// Grants do not say that others wait already.
    HidesContention,
    /// A confirmation that was held back is not let go when others have come to wait.
    IgnoresFlush,
    /// An install wakes nobody.
    LosesWakes,
    /// An install wakes one of the threads that wait.
    WakesOneThread,
    /// A page that was not given up at the first look is never looked at again.
    LosesTimer,
    /// A page is kept for an instruction that waits for another page, whichever of the two is the lower.
    KeepsStraddled,
    /// The transport delivers requests twice.
    DoublesRequests,
    /// A grant that comes twice is taken for the answer to whatever the node waits for.
    AcceptsAnyGrant,
    /// A page that is given up stays mapped.
    ForgetsProtecting,
    /// An owner that is to share its page gives it up, to be written.
    GivesUpForReads,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Mutant; 28] = [
        Mutant::KeepsReadMapping,
        Mutant::KeepsWriteMapping,
        Mutant::MapsReadsWritable,
        Mutant::NoInvalidation,
        Mutant::SparesOwner,
        Mutant::NoWaitForConfirm,
        Mutant::ConfirmsBeforeAcks,
        Mutant::NoWaitForAcks,
        Mutant::AcksBeforeUnmapping,
        Mutant::LosesAcks,
        Mutant::AcceptsAnyBody,
        Mutant::DiscardsBody,
        Mutant::SendsStaleBody,
        Mutant::SendsBeforeProtecting,
        Mutant::ClearsPages,
        Mutant::ReusesSentFrame,
        Mutant::GrantsReadsAsWrites,
        Mutant::NeverHurries,
        Mutant::HidesContention,
        Mutant::IgnoresFlush,
        Mutant::LosesWakes,
        Mutant::WakesOneThread,
        Mutant::LosesTimer,
        Mutant::KeepsStraddled,
        Mutant::DoublesRequests,
        Mutant::AcceptsAnyGrant,
        Mutant::ForgetsProtecting,
        Mutant::GivesUpForReads,
    ];

    /// The mutant of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Mutant> {
        Mutant::ALL.into_iter().find(|mutant| format!("{mutant:?}") == name)
    }

    /// Whether page tables are wrong by design: then the consequences are to be found, and not the lie itself.
    pub(super) fn is_about_page_tables(self) -> bool {
        matches!(
            self,
            Mutant::KeepsReadMapping
                | Mutant::KeepsWriteMapping
                | Mutant::MapsReadsWritable
                | Mutant::SendsBeforeProtecting
        )
    }

    /// Whether a message that a node says is lost. `owner` is the page's owner, where the home that speaks knew it.
    pub(super) fn loses(self, message: &Message, to: NodeId, owner: Option<NodeId>) -> bool {
        let invalidates = matches!(message, Message::Invalidate { .. });
        let acks = matches!(message, Message::Ack { .. });
        (invalidates && self == Mutant::NoInvalidation)
            || (invalidates && self == Mutant::SparesOwner && owner == Some(to))
            || (acks && matches!(self, Mutant::NoWaitForAcks | Mutant::LosesAcks))
            || (matches!(message, Message::Hurry { .. }) && self == Mutant::NeverHurries)
            || (matches!(message, Message::Confirm { .. }) && self == Mutant::NoWaitForConfirm)
    }

    /// What becomes of a message on its way out.
    pub(super) fn alter(self, message: &mut Message, owner: Option<NodeId>) {
        if let Message::Forward { want, .. } = message
            && self == Mutant::GivesUpForReads
        {
            *want = Want::Write;
        }
        if let Message::Grant { access, .. } = message
            && self == Mutant::GrantsReadsAsWrites
        {
            *access = Access::Write;
        }
        if let Message::Grant { awaiting, contended, .. } | Message::Forward { awaiting, contended, .. } =
            message
        {
            *contended &= self != Mutant::HidesContention;
            if matches!(self, Mutant::NoInvalidation | Mutant::NoWaitForAcks) {
                *awaiting = Copyset::EMPTY;
            } else if let (Mutant::SparesOwner, Some(owner)) = (self, owner) {
                *awaiting = awaiting.without(owner);
            }
        }
    }
}
