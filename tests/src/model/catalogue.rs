//! All configurations.

use super::configuration::Instruction::{self, Copy, Load, Store};
use super::configuration::{Configuration, HoldBack, Network};
use super::races::Race;

/// Loads and stores of one page.
const ONE_PAGE: &[Instruction] = &[Load(0), Store(0)];

/// Loads and stores of two pages.
const TWO_PAGES: &[Instruction] = &[Load(0), Store(0), Load(1), Store(1)];

/// Instructions that need two pages at once, in either order.
const STRADDLING: &[Instruction] = &[Copy(0, 1), Copy(1, 0)];

/// Rank 1 has written the page, and the two others have read it since.
const READ_BY_THREE: [(usize, Instruction); 3] = [(1, Store(0)), (0, Load(0)), (2, Load(0))];

/// Rank 1 has written the page, and the three others have read it since.
const READ_BY_FOUR: [(usize, Instruction); 4] = [(1, Store(0)), (0, Load(0)), (2, Load(0)), (3, Load(0))];

/// What the configurations have in common: one page, homed at rank 0; any order of messages; honest drivers.
const PLAIN: Configuration = Configuration {
    name: "",
    what: "",
    homes: &[0],
    threads: &[],
    prologue: &[],
    instructions: ONE_PAGE,
    network: Network::Unordered,
    hold_back: HoldBack::AnyTime,
    hasty: 0,
    strays: 0,
    races: &[],
    states: 0,
    long: false,
};

/// What is exhausted: the short ones by `cargo test`, all of them by the command.
pub const CONFIGURATIONS: [Configuration; 23] = [
    Configuration {
        name: "two-nodes",
        what: "1 page, 2 nodes, 3 instructions each",
        threads: &[&[3], &[3]],
        races: &[
            Race::HomeFaults,
            Race::RequestBeforeConfirm,
            Race::DeferredRevocation,
            Race::HurryBeforeGrant,
            Race::HurryAfterConfirm,
        ],
        states: 31_730,
        ..PLAIN
    },
    Configuration {
        name: "three-nodes",
        what: "1 page, 3 nodes, of which 2 have 2 instructions",
        threads: &[&[2], &[2], &[1]],
        races: &[Race::HomeFaults, Race::RequestBeforeConfirm, Race::AckBeforeGrant],
        states: 97_818,
        ..PLAIN
    },
    Configuration {
        name: "upgrades",
        what: "1 page that rank 1 wrote and all have read; 3 nodes",
        threads: &[&[1], &[2], &[1]],
        prologue: &READ_BY_THREE,
        races: &[
            Race::RacingUpgrades,
            Race::InvalidateMeetsUpgrade,
            Race::ForwardMeetsUpgrade,
            Race::AckBeforeGrant,
        ],
        states: 17_646,
        ..PLAIN
    },
    Configuration {
        name: "four-nodes",
        what: "1 page that nobody has touched; 4 nodes",
        threads: &[&[1], &[1], &[1], &[1]],
        races: &[Race::HomeFaults, Race::AckBeforeGrant],
        states: 146_105,
        ..PLAIN
    },
    Configuration {
        name: "four-readers",
        what: "1 page that rank 1 wrote and all have read; 4 nodes",
        threads: &[&[1], &[1], &[1], &[1]],
        prologue: &READ_BY_FOUR,
        races: &[Race::RacingUpgrades, Race::InvalidateMeetsUpgrade, Race::AckBeforeGrant, Race::HomeFaults],
        states: 142_160,
        ..PLAIN
    },
    Configuration {
        name: "two-pages",
        what: "2 pages with different homes, written before; 3 nodes",
        homes: &[0, 1],
        threads: &[&[1], &[1], &[2]],
        prologue: &[(0, Store(0)), (1, Store(1))],
        instructions: TWO_PAGES,
        races: &[Race::HomeFaults, Race::DeferredRevocation, Race::AckBeforeGrant],
        states: 296_615,
        ..PLAIN
    },
    Configuration {
        name: "held",
        what: "1 page, 3 nodes; confirmations stay back until they are needed",
        threads: &[&[2], &[2], &[2]],
        network: Network::Fifo,
        hold_back: HoldBack::UntilNeeded,
        races: &[Race::HurryBeforeGrant, Race::HurryAfterConfirm],
        states: 168_569,
        ..PLAIN
    },
    Configuration {
        name: "held-two-pages",
        what: "2 pages with one home; confirmations of one travel with requests for the other",
        homes: &[0, 0],
        threads: &[&[1], &[2], &[1]],
        instructions: TWO_PAGES,
        network: Network::Fifo,
        hold_back: HoldBack::UntilNeeded,
        races: &[Race::HurryAfterConfirm],
        states: 83_575,
        ..PLAIN
    },
    Configuration {
        name: "migratory",
        what: "1 page that moves from writer to writer; 3 nodes",
        threads: &[&[2], &[2], &[1]],
        prologue: &[(1, Store(0)), (2, Load(0)), (2, Store(0))],
        races: &[Race::MigratoryGrant],
        states: 79_324,
        ..PLAIN
    },
    Configuration {
        name: "threads",
        what: "1 page, 2 nodes with 2 threads each",
        threads: &[&[1, 1], &[1, 1]],
        races: &[Race::TwoThreadsWait],
        states: 26_182,
        ..PLAIN
    },
    Configuration {
        name: "straddle",
        what: "2 pages, 2 nodes, instructions that need both",
        homes: &[0, 1],
        threads: &[&[2], &[2]],
        instructions: STRADDLING,
        races: &[Race::EachHoldsWhatTheOtherWants, Race::DeferredRevocation],
        states: 99_327,
        ..PLAIN
    },
    Configuration {
        name: "hasty",
        what: "1 page, 3 nodes; one probe is answered too soon",
        threads: &[&[1], &[2], &[1]],
        hasty: 1,
        races: &[Race::TakenTooSoon],
        states: 136_742,
        ..PLAIN
    },
    Configuration {
        name: "strays",
        what: "1 page, 3 nodes; one grant comes twice",
        threads: &[&[1], &[2], &[1]],
        strays: 1,
        races: &[Race::StrayMeetsFault],
        states: 114_048,
        ..PLAIN
    },
    Configuration {
        name: "three-nodes-long",
        what: "1 page, 3 nodes, 2 to 3 instructions each",
        threads: &[&[2], &[3], &[2]],
        races: &[Race::HomeFaults],
        states: 2_627_870,
        long: true,
        ..PLAIN
    },
    Configuration {
        name: "upgrades-long",
        what: "1 page that rank 1 wrote and all have read; 3 nodes",
        threads: &[&[2], &[2], &[3]],
        prologue: &READ_BY_THREE,
        races: &[Race::RacingUpgrades],
        states: 1_936_594,
        long: true,
        ..PLAIN
    },
    Configuration {
        name: "four-nodes-long",
        what: "1 page, 4 nodes, of which 2 have 2 instructions",
        threads: &[&[2], &[2], &[1], &[1]],
        races: &[Race::HomeFaults],
        states: 3_084_999,
        long: true,
        ..PLAIN
    },
    Configuration {
        name: "two-pages-long",
        what: "2 pages with different homes; 3 nodes",
        homes: &[0, 1],
        threads: &[&[2], &[1], &[2]],
        instructions: TWO_PAGES,
        races: &[Race::HomeFaults],
        states: 2_766_267,
        long: true,
        ..PLAIN
    },
    Configuration {
        name: "one-home-long",
        what: "2 pages with one home; 3 nodes",
        homes: &[0, 0],
        threads: &[&[1], &[2], &[2]],
        instructions: TWO_PAGES,
        races: &[Race::HomeFaults],
        states: 3_643_212,
        long: true,
        ..PLAIN
    },
    Configuration {
        name: "held-long",
        what: "1 page, 4 nodes; confirmations stay back until they are needed",
        threads: &[&[2], &[2], &[1], &[1]],
        network: Network::Fifo,
        hold_back: HoldBack::UntilNeeded,
        races: &[Race::HurryAfterConfirm],
        states: 827_222,
        long: true,
        ..PLAIN
    },
    Configuration {
        name: "threads-long",
        what: "1 page, 3 nodes, of which 2 have 2 threads",
        threads: &[&[1, 1], &[1, 1], &[1]],
        races: &[Race::TwoThreadsWait],
        states: 858_811,
        long: true,
        ..PLAIN
    },
    Configuration {
        name: "straddle-long",
        what: "2 pages, 3 nodes, instructions that need both",
        homes: &[0, 1],
        threads: &[&[1], &[1], &[2]],
        instructions: STRADDLING,
        races: &[Race::EachHoldsWhatTheOtherWants],
        states: 2_721_099,
        long: true,
        ..PLAIN
    },
    Configuration {
        name: "hasty-long",
        what: "1 page, 3 nodes; two probes are answered too soon",
        threads: &[&[1], &[2], &[2]],
        hasty: 2,
        races: &[Race::TakenTooSoon],
        states: 3_534_963,
        long: true,
        ..PLAIN
    },
    Configuration {
        name: "strays-long",
        what: "1 page, 3 nodes; two grants come twice",
        threads: &[&[2], &[2], &[1]],
        strays: 2,
        races: &[Race::StrayMeetsFault],
        states: 1_418_994,
        long: true,
        ..PLAIN
    },
];
