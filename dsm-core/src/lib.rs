//! The protocol of a page-fault-driven distributed shared memory, as a machine that takes facts and returns intentions.
//!
//! Nothing in this crate reads a clock, opens a socket, starts a thread, draws a random number or touches the shared
//! bytes. A driver feeds [`Machine::handle`] one [`Event`] at a time and carries out the returned [`Action`]s, in
//! order and completely, before it feeds the next. Three drivers run the same machine: the node of `dsm-node`, the
//! seeded simulator of `dsm-tests`, and model checks.
//!
//! Modules, from the ground up: [`ids`], [`limits`] and [`time`] name things; [`geometry`], [`access`] and
//! [`copyset`] describe the region, [`view`] who shares it, [`membership`] how that is agreed on; [`message`], [`event`] and [`action`] are the machine's whole vocabulary;
//! `local` (what this node holds), `home` (the directory for pages homed here), and the services that every home
//! offers (`locks`, `roots`, `spans`, `barrier`) never call each other: they speak [`Message`], even on one node.

pub mod access;
pub mod action;
pub mod copyset;
pub mod event;
pub mod failpoint;
pub mod geometry;
pub mod ids;
pub mod limits;
pub mod membership;
pub mod message;
pub mod time;
pub mod view;
pub mod wire;

mod barrier;
mod calls;
mod checks;
mod commit;
mod home;
mod local;
mod locks;
mod machine;
mod notes;
mod outbox;
mod page_map;
mod placement;
mod quota;
mod recovery;
mod roots;
mod spans;

pub use access::{Access, Want};
pub use action::{Action, Actions, Cause, Replication, Reply, Source};
pub use copyset::Copyset;
pub use event::{Command, Event, Progress, Timer};
pub use geometry::{Geometry, GeometryError};
pub use ids::{
    Address, CallId, Incarnation, LockId, NodeId, PageId, RecordId, SegmentId, Ticket, TransactionId,
    Version, ViewId,
};
pub use machine::{Landing, Machine, Violation};
pub use message::{
    Change, Commit, Custody, Holding, Lost, Message, Note, PageRun, Payload, Report, Retired, RootAnswer,
    SpanOwner, SpanRange, Standing, Zone,
};
pub use time::Time;
pub use view::{Host, Member, View};
