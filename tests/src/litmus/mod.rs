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

pub mod hardware;
pub mod outcome;
pub mod program;
mod relation;
pub mod rust_model;
pub mod shape;
pub mod verdict;
