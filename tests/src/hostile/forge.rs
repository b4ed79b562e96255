//! Messages that are nearly right: each field is, more often than not, one that fits.

use arbitrary::{Result, Unstructured};
use dsm_core::{
    Access, Address, CallId, Copyset, Geometry, LockId, Message, NodeId, PageId, Payload, RootAnswer,
    SpanOwner, SpanRange, Ticket, TransactionId, ViewId, Want, Zone,
};

/// What a hostile member knows of its cluster.
#[derive(Clone, Debug)]
pub struct Palette {
    /// The region.
    pub geometry: Geometry,
    /// The cluster.
    pub members: Copyset,
    /// The hostile member.
    pub hostile: NodeId,
    /// The pages that the others use.
    pub pages: Vec<PageId>,
    /// The locks that the others use.
    pub locks: Vec<LockId>,
    /// The names that the others use.
    pub names: Vec<String>,
    /// Transactions that it heard of, and of which page.
    pub transactions: Vec<(PageId, TransactionId)>,
    /// Calls that it heard of.
    pub tickets: Vec<Ticket>,
}

/// Of each kind of thing that it heard of, it remembers the last few.
const HEARD_MAX: usize = 32;

/// The first transactions and calls of each node: numbers below this are worth a guess.
const NUMBER_MAX: u64 = 24;

/// One field in this many is anything at all.
const WILD_ONE_IN: u32 = 16;

/// Names go beyond their limit by up to this.
const NAME_EXCESS: usize = 40;

/// How many kinds of message there are; see [`message`].
const KINDS: u8 = 27;

/// The first of them are about a page's copies.
const KINDS_ABOUT_PAGES: u8 = 8;

impl Palette {
    /// It heard a message.
    pub fn hear(&mut self, message: &Message) {
        match About::of(message) {
            About::Page(page, transaction) => remember(&mut self.transactions, (page, transaction)),
            About::Call(ticket) => remember(&mut self.tickets, ticket),
            About::Other => {}
        }
    }
}

fn remember<T: PartialEq>(heard: &mut Vec<T>, one: T) {
    if heard.contains(&one) {
        return;
    }
    if heard.len() == HEARD_MAX {
        heard.remove(0);
    }
    heard.push(one);
}

/// What a message is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum About {
    /// A page's copies, in the course of a transaction.
    Page(PageId, TransactionId),
    /// A call that waits.
    Call(Ticket),
    /// Something without a name of its own.
    Other,
}

impl About {
    pub(super) fn of(message: &Message) -> About {
        match message {
            Message::Request { page, transaction, .. }
            | Message::Forward { page, transaction, .. }
            | Message::Invalidate { page, transaction }
            | Message::Ack { page, transaction, .. }
            | Message::Grant { page, transaction, .. }
            | Message::Confirm { page, transaction }
            | Message::Hurry { page, transaction }
            | Message::Lost { page, transaction, .. } => About::Page(*page, *transaction),
            Message::LockRequest { ticket, .. }
            | Message::LockGrant { ticket, .. }
            | Message::LockDenied { ticket, .. }
            | Message::LockWithdraw { ticket, .. }
            | Message::LockRelease { ticket, .. }
            | Message::RootClaim { ticket, .. }
            | Message::RootAnswered { ticket, .. }
            | Message::SpanLease { ticket, .. }
            | Message::SpanLeased { ticket, .. }
            | Message::SpanDenied { ticket, .. }
            | Message::SpanFind { ticket, .. }
            | Message::SpanFound { ticket, .. } => About::Call(*ticket),
            Message::BarrierArrive { .. }
            | Message::BarrierComplete { .. }
            | Message::LeaveArrive
            | Message::LeaveComplete
            | Message::RootPublish { .. }
            | Message::RootAbandon { .. }
            | Message::SpanReturn { .. }
            | Message::Free { .. }
            | Message::Commit(_)
            | Message::Note(_)
            | Message::Report(_) => About::Other,
        }
    }
}

/// A message of any kind, for `to`.
///
/// # Errors
/// Never because bytes are missing: those that are not there count as zero.
pub fn message(u: &mut Unstructured<'_>, palette: &Palette, to: NodeId) -> Result<Message> {
    let kind = u.int_in_range(0..=KINDS - 1)?;
    let forge = Forge { palette, to, fits: u.ratio(3_u8, 4_u8)? };
    if kind < KINDS_ABOUT_PAGES { forge.about_page(kind, u) } else { forge.about_service(kind, u) }
}

struct Forge<'a> {
    palette: &'a Palette,
    to: NodeId,
    /// Whether sender and receiver are in the role that the message speaks of.
    fits: bool,
}

impl Forge<'_> {
    fn about_page(&self, kind: u8, u: &mut Unstructured<'_>) -> Result<Message> {
        let (me, to) = (self.palette.hostile, self.to);
        let (page, transaction) = match kind {
            0 | 5 => self.course(u, Some(to), me)?,
            1 | 2 => self.course(u, Some(me), me)?,
            6 | 7 => self.course(u, Some(me), to)?,
            _ => self.course(u, None, to)?,
        };
        Ok(match kind {
            0 => Message::Request { page, transaction, want: want(u)? },
            1 => Message::Forward {
                page,
                transaction,
                want: want(u)?,
                awaiting: self.nodes(u)?,
                contended: u.arbitrary()?,
            },
            2 => Message::Invalidate { page, transaction },
            3 => Message::Ack { page, transaction, custody: None },
            4 => Message::Grant {
                page,
                transaction,
                access: *u.choose(&[Access::Write, Access::Read, Access::None])?,
                payload: *u.choose(&[Payload::Bytes, Payload::Zero, Payload::Held])?,
                awaiting: self.nodes(u)?,
                contended: u.arbitrary()?,
                custody: None,
            },
            5 => Message::Confirm { page, transaction },
            6 => Message::Hurry { page, transaction },
            _ => Message::Lost { page, transaction, node: self.node(u)? },
        })
    }

    fn about_service(&self, kind: u8, u: &mut Unstructured<'_>) -> Result<Message> {
        let (me, to) = (self.palette.hostile, self.to);
        Ok(match kind {
            8 => Message::LockRequest {
                lock: self.lock(u, to)?,
                ticket: self.ticket(u, me)?,
                wait: u.arbitrary()?,
            },
            9 => Message::LockGrant { lock: self.lock(u, me)?, ticket: self.ticket(u, to)?, recovered: None },
            10 => Message::LockDenied {
                lock: self.lock(u, me)?,
                ticket: self.ticket(u, to)?,
                holder: self.node(u)?,
            },
            11 => Message::LockWithdraw { lock: self.lock(u, to)?, ticket: self.ticket(u, me)? },
            12 => Message::LockRelease { lock: self.lock(u, to)?, ticket: self.ticket(u, me)? },
            13 => Message::BarrierArrive { generation: number(u)? },
            14 => Message::BarrierComplete { generation: number(u)?, view: ViewId(number(u)?) },
            15 => Message::LeaveArrive,
            16 => Message::LeaveComplete,
            17 => Message::RootClaim { name: self.name(u)?, layout: number(u)?, ticket: self.ticket(u, me)? },
            18 => Message::RootAnswered { ticket: self.ticket(u, to)?, answer: self.answer(u)? },
            19 => Message::RootPublish { name: self.name(u)?, address: self.address(u)? },
            20 => Message::RootAbandon { name: self.name(u)? },
            21 => Message::SpanLease {
                pages: number(u)?,
                zone: *u.choose(&[Zone::Small, Zone::Large])?,
                owner: self.owner(u)?,
                ticket: self.ticket(u, me)?,
            },
            22 => Message::SpanLeased { ticket: self.ticket(u, to)?, span: self.span(u)? },
            23 => Message::SpanDenied { ticket: self.ticket(u, to)?, free: number(u)?, largest: number(u)? },
            24 => Message::SpanReturn { first: self.page(u)? },
            25 => Message::SpanFind { page: self.page(u)?, ticket: self.ticket(u, me)? },
            _ => self.found_or_free(u)?,
        })
    }

    fn found_or_free(&self, u: &mut Unstructured<'_>) -> Result<Message> {
        if u.arbitrary()? {
            return Ok(Message::Free { address: self.address(u)? });
        }
        let span = if u.arbitrary()? { Some(self.span(u)?) } else { None };
        Ok(Message::SpanFound { ticket: self.ticket(u, self.to)?, span })
    }

    /// A page, and a transaction on it: one that it heard of, or one of `asker` on a page that is homed at `home`.
    fn course(
        &self,
        u: &mut Unstructured<'_>,
        home: Option<NodeId>,
        asker: NodeId,
    ) -> Result<(PageId, TransactionId)> {
        let palette = self.palette;
        let at =
            |page: &PageId| home.is_none_or(|home| palette.geometry.home_of(*page, palette.members) == home);
        if self.fits && u.arbitrary()? {
            let heard = palette.transactions.iter().filter(|(page, _)| at(page));
            if let Ok(course) = u.choose_iter(heard.collect::<Vec<_>>()) {
                return Ok(*course);
            }
        }
        let page = if self.fits {
            let fitting: Vec<_> = palette.pages.iter().copied().filter(at).collect();
            u.choose(&fitting).copied().unwrap_or(PageId(0))
        } else {
            self.page(u)?
        };
        let node = if self.fits { asker } else { self.node(u)? };
        Ok((page, TransactionId { node, number: number(u)? }))
    }

    fn page(&self, u: &mut Unstructured<'_>) -> Result<PageId> {
        if wild(u)? {
            return u.arbitrary().map(PageId);
        }
        if u.ratio(3_u8, 4_u8)? && !self.palette.pages.is_empty() {
            return u.choose(&self.palette.pages).copied();
        }
        // One beyond the last, too.
        u.int_in_range(0..=self.palette.geometry.pages()).map(PageId)
    }

    /// A call of `asker`, or one that it heard of.
    fn ticket(&self, u: &mut Unstructured<'_>, asker: NodeId) -> Result<Ticket> {
        if u.ratio(1_u8, 3_u8)? && !self.palette.tickets.is_empty() {
            return u.choose(&self.palette.tickets).copied();
        }
        let node = if self.fits { asker } else { self.node(u)? };
        Ok(Ticket { node, call: CallId(number(u)?) })
    }

    fn node(&self, u: &mut Unstructured<'_>) -> Result<NodeId> {
        if wild(u)? {
            return u.arbitrary().map(NodeId);
        }
        u.choose_iter(self.palette.members.iter().collect::<Vec<_>>())
    }

    fn nodes(&self, u: &mut Unstructured<'_>) -> Result<Copyset> {
        if wild(u)? {
            let bits: u64 = u.arbitrary()?;
            let all = Copyset::first(Copyset::BITS);
            return Ok(all.iter().filter(|node| bits >> node.0 & 1 == 1).collect());
        }
        let bits: u8 = u.arbitrary()?;
        Ok(self.palette.members.iter().filter(|node| bits >> (node.0 % 8) & 1 == 1).collect())
    }

    /// A lock of which `home` is the home.
    fn lock(&self, u: &mut Unstructured<'_>, home: NodeId) -> Result<LockId> {
        let palette = self.palette;
        let at = |lock: &LockId| {
            let page = palette.geometry.page_of(lock.0);
            page.is_some_and(|page| palette.geometry.home_of(page, palette.members) == home)
        };
        let fitting: Vec<LockId> = palette.locks.iter().copied().filter(at).collect();
        if self.fits && !fitting.is_empty() {
            return u.choose(&fitting).copied();
        }
        if u.ratio(3_u8, 4_u8)? && !self.palette.locks.is_empty() {
            return u.choose(&self.palette.locks).copied();
        }
        self.address(u).map(LockId)
    }

    fn address(&self, u: &mut Unstructured<'_>) -> Result<Address> {
        if wild(u)? {
            return u.arbitrary().map(Address);
        }
        let geometry = &self.palette.geometry;
        let page = self.page(u)?;
        let begin = geometry.base().0.saturating_add(page.0.saturating_mul(geometry.page_size()));
        let offset: u8 = u.arbitrary()?;
        Ok(Address(begin.saturating_add(u64::from(offset))))
    }

    fn name(&self, u: &mut Unstructured<'_>) -> Result<String> {
        if u.ratio(3_u8, 4_u8)? && !self.palette.names.is_empty() {
            return u.choose(&self.palette.names).cloned();
        }
        let length = u.int_in_range(0..=dsm_core::limits::NAME_LENGTH_MAX + NAME_EXCESS)?;
        let letter = u.int_in_range(b'a'..=b'z')?;
        Ok(char::from(letter).to_string().repeat(length))
    }

    fn answer(&self, u: &mut Unstructured<'_>) -> Result<RootAnswer> {
        Ok(match u.int_in_range(0..=3)? {
            0 => RootAnswer::Create,
            3 => RootAnswer::TooMany,
            1 => RootAnswer::Found(self.address(u)?),
            _ => RootAnswer::OtherLayout(number(u)?),
        })
    }

    fn owner(&self, u: &mut Unstructured<'_>) -> Result<SpanOwner> {
        Ok(match u.int_in_range(0..=3)? {
            0 | 1 => SpanOwner::Node(if self.fits { self.palette.hostile } else { self.node(u)? }),
            2 => SpanOwner::Domain(self.address(u)?),
            _ => SpanOwner::NewDomain,
        })
    }

    fn span(&self, u: &mut Unstructured<'_>) -> Result<SpanRange> {
        Ok(SpanRange { first: self.page(u)?, pages: number(u)?, owner: self.owner(u)? })
    }
}

fn want(u: &mut Unstructured<'_>) -> Result<Want> {
    Ok(if u.arbitrary()? { Want::Write } else { Want::Read })
}

/// Small as a rule: the numbers of transactions, calls and generations begin at the low end.
fn number(u: &mut Unstructured<'_>) -> Result<u64> {
    if wild(u)? { u.arbitrary() } else { u.int_in_range(0..=NUMBER_MAX) }
}

fn wild(u: &mut Unstructured<'_>) -> Result<bool> {
    u.ratio(1, WILD_ONE_IN)
}
