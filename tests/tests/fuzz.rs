//! What `cargo fuzz` runs, on stable: its corpus, and random bytes by seed. The machine's allocations are counted here,
//! too. `docs/testing.md` says how the corpus came to be, and how to replay what fails.

use dsm_tests::hostile::{self, Counts, Flood, bytes_of_seed, wire};
use dsm_tests::sim::{self, Hostility, Options};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// What the work allocated, in bytes, freed or not.
fn measured(work: &mut dyn FnMut()) -> u64 {
    allocation_counter::measure(work).bytes_total
}

fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
    let entries = fs::read_dir(&directory).expect("the corpus is part of the repository");
    let files = entries.map(|entry| entry.expect("its files can be listed").path());
    files.map(|file| (file.clone(), fs::read(&file).expect("its files can be read"))).collect()
}

/// Each part of the corpus has at least this many files: it must not get lost unseen.
const FILES_MIN: usize = 40;

#[test]
fn the_corpus_of_frames_holds() {
    let files = corpus("frame");
    assert!(files.len() >= FILES_MIN, "{} files", files.len());
    for (file, bytes) in files {
        wire::decode(&bytes, measured).unwrap_or_else(|what| panic!("{}: {what}", file.display()));
    }
}

#[test]
fn the_corpus_of_streams_holds() {
    let files = corpus("stream");
    assert!(files.len() >= FILES_MIN, "{} files", files.len());
    let mut frames = 0;
    for (file, bytes) in files {
        frames += wire::stream(&bytes).unwrap_or_else(|what| panic!("{}: {what}", file.display()));
    }
    assert!(frames >= FILES_MIN, "{frames} frames");
}

#[test]
fn the_corpus_of_stories_holds() {
    let files = corpus("machine");
    assert!(files.len() >= FILES_MIN, "{} files", files.len());
    let mut total = Counts::default();
    for (file, bytes) in files {
        match hostile::attempt(&bytes, measured) {
            Ok(counts) => total.add(&counts),
            Err(what) => panic!(
                "{what}\nreplay: cargo run -p dsm-tests --bin hostile -- --files {} --trace",
                file.display()
            ),
        }
    }
    println!("{total}");
    assert!(total.hostile > total.refused, "some of what it says must be nearly right: {total}");
}

/// Seeds of the plain test run.
const SEEDS: u64 = 2000;

#[test]
fn random_stories_hold() {
    let mut total = Counts::default();
    for seed in 0..SEEDS {
        let bytes = bytes_of_seed(seed);
        let told = hostile::attempt(&bytes, measured);
        let checked = told.and_then(|told| {
            total.add(&told);
            wire::decode(&bytes, measured)?;
            wire::stream(&bytes)
        });
        if let Err(what) = checked {
            panic!(
                "seed {seed}: {what}\nreplay: cargo run -p dsm-tests --bin hostile -- --seed {seed} --trace"
            );
        }
    }
    println!("{total}");
    // The stories must not come to be idle by some change of what the bytes mean.
    assert!(total.hostile > 100_000 && total.pages_used > 4000, "{total}");
    assert!(total.hostile - total.refused > 10_000, "too little of it is taken: {total}");
}

/// What each flood consists of: more than any limit allows to keep.
const FLOOD_MESSAGES: u64 = 1 << 17;

/// What a machine keeps of one, at most: as many of the longest names as it may have, each with its entry.
const FLOOD_BYTES_MAX: i64 = 32 << 20;

#[test]
fn what_a_machine_keeps_of_a_flood_has_an_end() {
    for kind in Flood::ALL {
        let mut machine = None;
        let kept = allocation_counter::measure(|| machine = Some(hostile::flood(kind, FLOOD_MESSAGES)));
        assert!(kept.bytes_current <= FLOOD_BYTES_MAX, "{kind:?} leaves {} bytes", kept.bytes_current);
    }
}

/// Seeds of the simulator with a hostile member.
const SIMULATOR_SEEDS: u64 = 150;

#[test]
fn a_hostile_member_of_the_simulator_harms_nobody_else() {
    let options = Options { hostile: Some(Hostility::Guesses), ..Options::default() };
    let mut total = sim::Counts::default();
    for seed in 0..SIMULATOR_SEEDS {
        match sim::run(seed, &options) {
            Ok(counts) => total.add(&counts),
            Err(failure) => panic!("{failure}"),
        }
    }
    println!("{total}");
    assert!(total.hostile > 10_000 && total.faults > 5_000, "{total}");
    assert!(total.refused < total.hostile, "nothing that it says is ever taken: {total}");
}

/// The check of the check: what keeps a stranger from granting a page is that it does not know the fault's number.
#[test]
fn a_member_that_overhears_the_others_is_found_out() {
    let options = Options { hostile: Some(Hostility::Overhears), ..Options::default() };
    let failures = (0..SIMULATOR_SEEDS).filter_map(|seed| sim::run(seed, &options).err());
    let whats: Vec<String> = failures.map(|failure| failure.what).collect();
    assert!(whats.iter().any(|what| what.contains("but the latest store was")), "{whats:#?}");
}

fn hostile_command(arguments: &[&str]) -> Output {
    let command = Command::new(env!("CARGO_BIN_EXE_hostile")).args(arguments).output();
    command.expect("the command was built for this test")
}

#[test]
fn the_command_ends_with_its_counts() {
    let output = hostile_command(&["--seeds", "0..20", "--json"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.starts_with("20 inputs, "), "{text}");
    let json: serde_json::Value =
        serde_json::from_str(text.lines().last().unwrap_or_default()).expect("the last line is JSON");
    assert_eq!(json["inputs"], 20);
    let trace = hostile_command(&["--seed", "1", "--trace"]);
    assert!(String::from_utf8_lossy(&trace.stdout).contains("turns hostile"));
}

#[test]
fn a_wrong_command_line_exits_with_2() {
    for arguments in [&["--seeds", "5..5"][..], &["--files", "/nowhere"], &["--trace"]] {
        let output = hostile_command(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{arguments:?}");
    }
}
