//! Every so often all nodes stand still, and each says what it may do with each page: by its protocol state, which its
//! page tables must equal. The test then holds the nodes' answers, and the homes' directories, against each other.

use super::cluster::{meet, with_cluster};
use super::{Arguments, Outcome, Scenario, at, fact};
use dsm_node::testing::{Access, Examination, examine};
use dsm_node::{Dsm, DsmMutex, Shared, collections::DsmList};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::sync::atomic::{AtomicU64, Ordering};

pub(super) const SCENARIOS: &[(&str, Scenario)] = &[("oracle", oracle)];

/// Pages that all nodes touch at random.
const PAGES: usize = 64;

#[derive(Shared)]
#[repr(C, align(4096))]
struct Page {
    word: AtomicU64,
}

fn oracle(arguments: &Arguments) -> Outcome {
    let (rounds, count) = (arguments.number("rounds"), arguments.number("count"));
    with_cluster(|dsm| {
        let pages = dsm.root("pages", |_| Ok([const { Page { word: AtomicU64::new(0) } }; PAGES]))?;
        let list = dsm.root("list", |dsm| DsmMutex::new(dsm, DsmList::new()))?;
        let mut rng = ChaCha8Rng::seed_from_u64(u64::from(dsm.rank()));
        let mut own = 0;
        for round in 0..rounds {
            at(format_args!("round {round}"));
            for turn in 0..count {
                let word = &pages[rng.random_range(0..PAGES)].word;
                match rng.random_range(0..4) {
                    0 => {
                        word.fetch_add(1, Ordering::SeqCst);
                        own += 1;
                    }
                    1 if turn % 16 == 0 => list.lock()?.push_back(turn)?,
                    _ => {
                        word.load(Ordering::SeqCst);
                    }
                }
            }
            meet(dsm, format_args!("nobody touches memory after round {round}"))?;
            tell(round, &await_quiet(dsm)?);
            meet(dsm, format_args!("all have looked after round {round}"))?;
        }
        fact("own", own);
        let sum: u64 = pages.iter().map(|page| page.word.load(Ordering::SeqCst)).sum();
        fact("sum", sum);
        meet(dsm, "all have counted")
    })
}

/// Examines the whole region once nothing is under way here: the last confirmations may still be on the wire.
pub(super) fn await_quiet(dsm: &Dsm) -> Result<Examination, dsm_node::Error> {
    loop {
        let found = examine(dsm)?;
        if found.quiet {
            return Ok(found);
        }
        std::thread::yield_now();
    }
}

/// Says what [`Report::check_pages`](crate::harness::Report::check_pages) needs to know.
pub(super) fn tell(round: u64, found: &Examination) {
    assert!(found.mismatches.is_empty(), "{:?}", found.mismatches);
    let letter = |access: &Access| match access {
        Access::None => '-',
        Access::Read => 'r',
        Access::Write => 'w',
    };
    fact(&format!("access {round}"), found.access.iter().map(letter).collect::<String>());
    let entries = found.directory.iter().map(|entry| {
        let owner = entry.owner.map_or(String::from("-"), |owner| owner.to_string());
        let readers: Vec<String> = entry.readers.iter().map(u32::to_string).collect();
        format!("{}:{owner}:{}", entry.page, readers.join(","))
    });
    fact(&format!("directory {round}"), entries.collect::<Vec<_>>().join(" "));
}
