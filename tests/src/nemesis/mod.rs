//! Real nodes over a network that misbehaves by seed: which cluster a seed is, what must come out, and what was done.
//!
//! What goes wrong is decided in `dsm_node::testing`; what the nodes do, in the worker's scenario. Here a run is judged:
//! by what the nodes found, by their page tables and directories, and by what they counted.

mod counts;

pub use counts::Counts;

use crate::harness::{Report, Scenario};
use dsm_core::wire::HEADER_LENGTH;
use dsm_node::launch::TransportKind;
use std::time::Duration;

/// What a seed may take before it hangs: many times what it takes on two busy cores. A node that is out of reach is
/// given up after 1.5 s, so a lost message shows in far less.
const BUDGET: Duration = Duration::from_secs(60);

/// Rounds of a seed. After each, all nodes stand still and are examined.
const ROUNDS: u64 = 2;

/// Additions of a node in a round.
const COUNT: u64 = 40;

/// A region of test size: the examination looks at each page.
const REGION_SIZE: u64 = 64 << 20;

/// The shortest frame with a page of 4 KiB that travels with so many replicas: header, message, page. Without replicas,
/// pages come with grants; with some, they come in records, whose messages are a kind, another, a number and a page.
const fn page_frame_length_min(replicas: u32) -> u64 {
    let message = if replicas == 0 { 8 } else { 4 };
    HEADER_LENGTH as u64 + message + 4096
}

/// Clusters have from 2 to 4 nodes.
const NODES_MIN: u64 = 2;
const NODES_CHOICES: u64 = 3;

/// One seed in so many has pages of 64 KiB instead of 4 KiB.
const LARGE_PAGES_ONE_IN: u64 = 5;

/// The cluster that a seed is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shape {
    /// How many nodes there are.
    pub nodes: u32,
    /// The bytes of a page.
    pub page_size: u64,
    /// How the nodes are connected.
    pub transport: TransportKind,
}

impl Shape {
    /// What `seed` says, but for the transport where one is asked for.
    #[must_use]
    pub fn of(seed: u64, transport: Option<TransportKind>) -> Shape {
        let by_seed = if seed.is_multiple_of(2) { TransportKind::Tcp } else { TransportKind::Unix };
        // Different digits of the seed, so that everything meets everything.
        let nodes = NODES_MIN + seed / 2 % NODES_CHOICES;
        let large = seed / (2 * NODES_CHOICES) % LARGE_PAGES_ONE_IN == LARGE_PAGES_ONE_IN - 1;
        Shape {
            nodes: u32::try_from(nodes).unwrap_or(u32::MAX),
            page_size: if large { 64 << 10 } else { 4 << 10 },
            transport: transport.unwrap_or(by_seed),
        }
    }
}

/// Runs one seed on real nodes, each a copy of `program`, which must do as `worker` does.
///
/// # Panics
/// If anything is wrong; it says what, and where each node was.
#[must_use]
pub fn run(program: &str, seed: u64, transport: Option<TransportKind>) -> Counts {
    let Shape { nodes, page_size, transport } = Shape::of(seed, transport);
    let scenario = Scenario::new(program, "nemesis").nodes(nodes).transport(transport).page_size(page_size);
    let scenario = scenario.region_size(REGION_SIZE).budget(BUDGET);
    let scenario = scenario.arg("seed", seed).arg("page", page_size);
    let report = scenario.arg("rounds", ROUNDS).arg("count", COUNT).run();
    for round in 0..ROUNDS {
        report.check_pages(round);
    }
    report.agreed("sum");
    report.agreed("values");
    judge(&report)
}

/// Runs two nodes, of which one breaks a connection at each `step`th byte of a frame that carries a page, from its first
/// byte to its last; with so many replicas.
///
/// # Panics
/// As [`run`].
#[must_use]
pub fn run_aimed(program: &str, step: u64, transport: TransportKind, replicas: u32) -> Counts {
    let breaks = page_frame_length_min(replicas).div_ceil(step);
    let scenario = Scenario::new(program, "nemesis_aimed").nodes(2).transport(transport);
    let scenario = scenario.region_size(REGION_SIZE).budget(BUDGET + break_budget(breaks));
    let scenario = scenario.env("DSM_REPLICAS", replicas.to_string());
    let report = scenario.arg("step", step).arg("breaks", breaks).run();
    report.check_pages(0);
    let counts = judge(&report);
    // None of them was at a byte at which another was.
    let aimed = counts.of("resets_as_aimed");
    assert!(aimed >= breaks, "{aimed} connections were broken where they should be, not {breaks}: {report}");
    counts
}

/// What the breaks of a run may take.
fn break_budget(breaks: u64) -> Duration {
    /// A reconnect takes a millisecond or two; on a busy machine, ten times that.
    const EACH: Duration = Duration::from_millis(20);
    EACH.saturating_mul(u32::try_from(breaks).unwrap_or(u32::MAX))
}

/// Nobody was taken for dead, and nobody complained of anything but what was put into the network on purpose.
fn judge(report: &Report) -> Counts {
    let counts = Counts::read(report);
    assert!(
        report.nodes.iter().all(|node| node.stderr.iter().all(|line| !line.contains(" is gone"))),
        "a node was given up: {report}"
    );
    assert_eq!(counts.of("refused_messages"), 0, "a node said what no correct node says: {report}");
    // A call that breaks off before the caller has said who it is counts as one from a stranger.
    let (refused, meant) =
        (counts.of("refused_frames"), counts.of("gaps") + counts.of("resets_in_handshake"));
    assert!(refused <= meant, "{refused} frames were refused, and {meant} were bad on purpose: {report}");
    counts
}
