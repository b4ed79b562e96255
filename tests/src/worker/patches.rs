//! One node changes a few words of the same pages again and again, as records see it: what its buddies keep of them came in
//! pieces, and is put to the test when it dies.

use super::{Arguments, Outcome, Scenario, at, await_go, fact};
use dsm_node::{Dsm, DsmMutex};

pub(super) const SCENARIOS: &[(&str, Scenario)] = &[("patches", patches)];

/// Eight pages of the smallest size.
const WORDS: usize = 8 * 4096 / size_of::<u64>();

/// Whose death is survived.
const WRITER: u32 = 0;

/// Who looks at the pages meanwhile, and now and then stores to one of them: then they have another owner for a while.
const VISITOR: u32 = 1;

/// Of the sections of the writer, every so many-th fills a page: no patch can say that.
const FILLS: u64 = 50;

/// Sections of each survivor.
const AFTERWARDS: u64 = 300;

fn patches(arguments: &Arguments) -> Outcome {
    let sections = arguments.number("sections");
    at("join");
    let dsm = Dsm::join()?;
    let words = dsm.root("words", |dsm| DsmMutex::new(dsm, [0_u64; WORDS]))?;
    dsm.barrier()?;
    at("working");
    if dsm.rank() == WRITER {
        write(&dsm, words, sections)?;
    } else if dsm.rank() == VISITOR {
        for visit in 1..=sections / FILLS {
            let mut words = words.lock()?;
            std::hint::black_box(words.iter().sum::<u64>());
            if visit.is_multiple_of(2) {
                words[WORDS - 1] += 1;
            }
        }
        dsm.sync()?;
    }
    at("done");
    await_go();
    let sum = words.lock()?[..WORDS - 1].iter().fold(0, mix);
    fact("sum", sum);
    fact("visits", words.lock()?[WORDS - 1]);
    at("looked");
    await_go();
    // In turns with the others, so that pages that were adopted go to and fro.
    for section in 0..AFTERWARDS {
        let mut words = words.lock()?;
        words[section as usize % (WORDS - 1)] += 1;
        drop(words);
        dsm.sync()?;
    }
    dsm.barrier()?;
    fact("sum afterwards", words.lock()?[..WORDS - 1].iter().fold(0, mix));
    at("leave");
    dsm.leave()
}

fn write(dsm: &Dsm, shared: &DsmMutex<[u64; WORDS]>, sections: u64) -> Outcome {
    // All but the visitor's word.
    let mut model = [0_u64; WORDS - 1];
    let mut random = 1_u64;
    for section in 0..sections {
        let mut words = shared.lock()?;
        let stores = if section % FILLS == 0 { 512 } else { section % 7 + 1 };
        let first = next(&mut random) as usize;
        for store in 0..stores {
            let place =
                if stores > 7 { first + store as usize } else { next(&mut random) as usize } % model.len();
            model[place] = next(&mut random);
            words[place] = model[place];
        }
        drop(words);
        // A section's end waits for nobody; what is said after it does.
        if section % 5 == 0 {
            dsm.sync()?;
        }
    }
    dsm.sync()?;
    fact("sum", model.iter().fold(0, mix));
    fact("patched", dsm.stats().pages_patched);
    fact("committed", dsm.stats().pages_committed);
    Ok(())
}

/// Knuth's linear congruential generator (MMIX), of which the upper bits are good.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *state >> 20
}

fn mix(sum: u64, word: &u64) -> u64 {
    (sum ^ word).wrapping_mul(0x0000_0100_0000_01b3)
}
