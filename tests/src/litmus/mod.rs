//! Litmus tests on real nodes: small racing programs, each outcome judged by the Rust memory model and by x86.
//!
//! ```text
//!  shape ─▶ program ─┬─▶ rust_model, hardware ─▶ verdict (judge)
//!                    │                             │
//!                    └─▶ run ═ nodes ═▶ counts ────┴──▶ report: table, JSON, exit code
//! ```
//! A run is one family of programs on one placement of threads. Its nodes are started by `run`, meet on a `board` that
//! lies outside the region, and execute (`node`, `execute`) what the `schedule` says. What is right is no business of
//! theirs: they count outcomes. The judge never sees a node.

mod board;
mod execute;
pub mod hardware;
mod mutant;
mod node;
pub mod outcome;
mod place;
pub mod program;
mod relation;
mod report;
mod run;
pub mod rust_model;
mod schedule;
pub mod shape;
pub mod verdict;

pub use mutant::Mutant;
pub use node::{PLAN_VARIABLE, main as node_main};
pub use place::{Layout, Placement};
pub use program::{Access, Family};
pub use report::{Report, Row, outcomes_table};
pub use run::{Failure, Options, Progress, run};
pub use verdict::WORDS;
