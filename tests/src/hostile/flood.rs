//! A member that says one thing over and over, each time about something else: what a machine keeps of it has an end.

use dsm_core::limits::{PAGE_SIZE_MIN, REGION_BASE_DEFAULT, SEGMENTS_MIN};
use dsm_core::{
    Actions, Address, CallId, Copyset, Event, Geometry, LockId, Machine, Message, NodeId, PageId, SpanOwner,
    Ticket, Time, TransactionId, Want, Zone,
};

/// Pages of the region: of what is counted by page there is no more than this.
const PAGES: u64 = 64 * SEGMENTS_MIN;

/// What is said over and over. These are the messages of which a home keeps something.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flood {
    /// Requests for one page after the other.
    Requests,
    /// Requests for one page.
    RequestsForOne,
    /// Locks, each at another address.
    Locks,
    /// Calls that wait for one lock.
    WaitsForOneLock,
    /// Names.
    Names,
    /// Calls that wait for one name.
    WaitsForOneName,
    /// Leases.
    Leases,
}

impl Flood {
    /// All of them.
    pub const ALL: [Flood; 7] = [
        Flood::Requests,
        Flood::RequestsForOne,
        Flood::Locks,
        Flood::WaitsForOneLock,
        Flood::Names,
        Flood::WaitsForOneName,
        Flood::Leases,
    ];

    fn message(self, number: u64, geometry: &Geometry, page: PageId) -> Message {
        let node = HOSTILE;
        let transaction = TransactionId { node, number };
        let ticket = Ticket { node, call: CallId(number) };
        let page_at = PageId(number % geometry.pages());
        let begin = geometry.base().0;
        match self {
            Flood::Requests => Message::Request { page: page_at, transaction, want: Want::Write },
            Flood::RequestsForOne => Message::Request { page, transaction, want: Want::Write },
            Flood::Locks => {
                let lock = LockId(Address(begin + number % geometry.size()));
                Message::LockRequest { lock, ticket, wait: true }
            }
            Flood::WaitsForOneLock => {
                Message::LockRequest { lock: LockId(geometry.address_of(page)), ticket, wait: true }
            }
            Flood::Names => Message::RootClaim { name: format!("{number:0>200}"), layout: 0, ticket },
            Flood::WaitsForOneName => {
                // Some of these have their home here.
                Message::RootClaim { name: (number % NAMES).to_string(), layout: 0, ticket }
            }
            Flood::Leases => {
                Message::SpanLease { pages: 1, zone: Zone::Large, owner: SpanOwner::Node(node), ticket }
            }
        }
    }
}

/// Names that are waited for.
const NAMES: u64 = 8;

/// Who says it all, to the coordinator.
const HOSTILE: NodeId = NodeId(1);

/// The machine of a coordinator to which another member said `messages` messages.
///
/// # Panics
/// If the machine does.
#[must_use]
pub fn flood(kind: Flood, messages: u64) -> Machine {
    let geometry = Geometry::new(REGION_BASE_DEFAULT, PAGES * PAGE_SIZE_MIN, PAGE_SIZE_MIN)
        .expect("the default base and a few small pages fit");
    let members = Copyset::first(2);
    let mut machine = Machine::new(NodeId::COORDINATOR, members, geometry);
    let homed = |page: &PageId| geometry.home_of(*page, members) == NodeId::COORDINATOR;
    let page = (0..geometry.pages()).map(PageId).find(homed).expect("every node is home to something");
    let mut actions = Actions::new();
    for number in 0..messages {
        let message = kind.message(number, &geometry, page);
        machine.handle(Time::ZERO, Event::Received { from: HOSTILE, message }, &mut actions);
        actions.clear();
    }
    machine
}
