//! All configurations.

use super::configuration::Instruction::{Copy, Load, Store};
use super::configuration::{Configuration, HoldBack, Network};
use super::races::Race;

/// What is exhausted: the short ones by `cargo test`, all of them by the command.
pub const CONFIGURATIONS: [Configuration; 2] = [
    Configuration {
        name: "two-nodes",
        what: "1 page, 2 nodes, 2 instructions each, any order of messages",
        homes: &[0],
        threads: &[&[2], &[2]],
        prologue: &[],
        instructions: &[Load(0), Store(0)],
        network: Network::Unordered,
        hold_back: HoldBack::AnyTime,
        hasty: 0,
        strays: 0,
        races: &[Race::HomeFaults],
        states: 0,
        long: false,
    },
    Configuration {
        name: "straddle",
        what: "2 pages, 2 nodes, each with an instruction that needs both",
        homes: &[0, 1],
        threads: &[&[1], &[1]],
        prologue: &[],
        instructions: &[Copy(0, 1), Copy(1, 0)],
        network: Network::Unordered,
        hold_back: HoldBack::AnyTime,
        hasty: 0,
        strays: 0,
        races: &[],
        states: 0,
        long: false,
    },
];
