//! Memory in bulk: scans, a region that fills up, and what touches it after the end.

use super::cluster::{meet, with_cluster};
use super::{Arguments, Outcome, Scenario, at, fact};
use dsm_node::{Dsm, DsmBox, DsmRef, Error, Shared};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

pub(super) const SCENARIOS: &[(&str, Scenario)] =
    &[("scan", scan), ("exhaust", exhaust), ("after_leave", after_leave)];

/// Words of a block of 64 KiB.
const BLOCK_WORDS: usize = (64 << 10) / size_of::<u64>();

/// Blocks of 64 MiB.
const BLOCKS: usize = 1024;

#[derive(Shared)]
#[repr(C, align(4096))]
struct Block {
    words: [AtomicU64; BLOCK_WORDS],
}

/// What stands in each word: different in all of them, and in each round.
fn expected(block: usize, word: usize, round: u64) -> u64 {
    ((block * BLOCK_WORDS + word) as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(round)
}

/// Rank 0 writes 64 MiB and all others read them; then each writes its part and all read the whole.
fn scan(_: &Arguments) -> Outcome {
    with_cluster(|dsm| {
        let blocks: &[DsmRef<Block>; BLOCKS] = dsm.root("blocks", |dsm| {
            let mut blocks = Vec::with_capacity(BLOCKS);
            for _ in 0..BLOCKS {
                let words = [const { AtomicU64::new(0) }; BLOCK_WORDS];
                blocks.push(DsmBox::leak(dsm.alloc(Block { words })?));
            }
            Ok(std::array::from_fn(|index| blocks[index]))
        })?;
        if dsm.rank() == 0 {
            at("writing all");
            (0..BLOCKS).for_each(|block| write(blocks, block, 1));
        }
        meet(dsm, "rank 0 has written")?;
        if dsm.rank() != 0 {
            at("reading all");
            (0..BLOCKS).for_each(|block| check(blocks, block, 1));
        }
        meet(dsm, "all have read")?;
        at("writing a part");
        let nodes = dsm.size() as usize;
        part(dsm.rank() as usize, nodes).for_each(|block| write(blocks, block, 2));
        meet(dsm, "all have written a part")?;
        at("reading the next rank's part");
        let next = (dsm.rank() as usize + 1) % nodes;
        part(next, nodes).for_each(|block| check(blocks, block, 2));
        meet(dsm, "all have read the next rank's part")?;
        let stats = dsm.stats();
        fact("read faults", stats.read_faults);
        fact("pages received", stats.pages_received);
        Ok(())
    })
}

/// The blocks that a rank writes: one run, so that nodes meet on few pages, however large those are.
fn part(rank: usize, nodes: usize) -> Range<usize> {
    rank * BLOCKS / nodes..(rank + 1) * BLOCKS / nodes
}

fn write(blocks: &[DsmRef<Block>], block: usize, round: u64) {
    for (index, word) in blocks[block].words.iter().enumerate() {
        word.store(expected(block, index, round), Ordering::Relaxed);
    }
}

fn check(blocks: &[DsmRef<Block>], block: usize, round: u64) {
    for (index, word) in blocks[block].words.iter().enumerate() {
        let found = word.load(Ordering::Relaxed);
        assert_eq!(found, expected(block, index, round), "word {index} of block {block} in round {round}");
    }
}

/// A block of a few KiB that knows its number.
type Numbered = [u64; 400];

/// Each node in turn fills the region, finds everything in it, and gives it back: the next finds as much room.
fn exhaust(_: &Arguments) -> Outcome {
    with_cluster(|dsm| {
        let mut most = Vec::new();
        for rank in 0..dsm.size() {
            if rank == dsm.rank() {
                most.push(fill_up(dsm)?);
                // Once more: what was freed is all there again.
                most.push(fill_up(dsm)?);
            }
            meet(dsm, format_args!("rank {rank} has filled the region and freed it"))?;
        }
        assert_eq!(most[0], most[1], "nothing is lost");
        fact("blocks", most[0]);
        // A request that can never be met is refused, and harms nothing.
        at("asking for more than the region has");
        refuse_too_much(dsm)?;
        meet(dsm, "all were refused")
    })
}

fn fill_up(dsm: &Dsm) -> Result<usize, Error> {
    let mut boxes: Vec<DsmBox<'_, Numbered>> = Vec::new();
    let full = fill(dsm, &mut boxes);
    check_refusal(&full, size_of::<Numbered>());
    let most = boxes.len();
    at(format_args!("{most} blocks fill the region"));
    for (number, found) in boxes.iter().enumerate() {
        assert!(found.iter().all(|word| *word == number as u64), "block {number}");
    }
    // Every second is freed: there is room for as many again.
    let mut number = 0;
    boxes.retain(|_| {
        number += 1;
        number % 2 == 0
    });
    let kept = boxes.len();
    let full = fill(dsm, &mut boxes);
    check_refusal(&full, size_of::<Numbered>());
    assert_eq!(boxes.len(), most, "freed blocks can be had again, {kept} were kept");
    Ok(most)
}

/// Allocates until there is no more; the error.
fn fill<'d>(dsm: &'d Dsm, boxes: &mut Vec<DsmBox<'d, Numbered>>) -> Error {
    loop {
        match dsm.alloc([boxes.len() as u64; 400]) {
            Ok(block) => boxes.push(block),
            Err(error) => return error,
        }
    }
}

fn check_refusal(error: &Error, size: usize) {
    match error {
        Error::OutOfMemory { asked, free, largest } => {
            assert_eq!(*asked, size as u64, "{error}");
            assert!(largest <= free, "{error}");
        }
        other => panic!("a full region gave {other}"),
    }
}

fn refuse_too_much(dsm: &Dsm) -> Outcome {
    /// Words of 1 MiB.
    const WORDS: usize = (1 << 20) / size_of::<u64>();
    let mut held = Vec::new();
    let error = loop {
        match dsm.alloc([0_u64; WORDS]) {
            Ok(block) => held.push(block),
            Err(error) => break error,
        }
    };
    check_refusal(&error, WORDS * size_of::<u64>());
    Ok(())
}

/// Touches the region when this node has left: the process ends with a line.
fn after_leave(_: &Arguments) -> Outcome {
    let dsm = Dsm::join()?;
    let word: DsmRef<AtomicU64> = DsmBox::leak(dsm.alloc(AtomicU64::new(7))?);
    fact("address", format_args!("{:#x}", word.address()));
    dsm.leave()?;
    at("touching the region");
    let found = word.load(Ordering::SeqCst);
    panic!("the region is gone, but has {found}");
}
