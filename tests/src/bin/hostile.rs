//! Tells stories in which one member says anything: over a range of seeds, from one seed, or from files that a fuzzer
//! left behind; and writes the bytes of seeds as files for a fuzzer to begin with.
//!
//! Ends with one line of counts; with exit 1 and what replays it on a failure, with exit 2 on a usage error.

use clap::Parser;
use dsm_tests::hostile::{self, Counts, bytes_of_seed, wire};
use dsm_tests::sim::seeds;
use std::ffi::OsStr;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{fs, io};

/// Tells stories, each decided by its bytes, in which one member of a small cluster says anything.
#[derive(Parser)]
#[command(name = "hostile")]
struct Arguments {
    /// The seeds to run, as FIRST..END.
    #[arg(long, value_name = "FIRST..END", value_parser = seeds, default_value = "0..1000")]
    seeds: Range<u64>,
    /// Replays this one seed.
    #[arg(long, value_name = "SEED", conflicts_with = "seeds")]
    seed: Option<u64>,
    /// Replays files instead: what `cargo fuzz` left behind, or all files of a directory.
    #[arg(long, value_name = "PATH", num_args = 1.., conflicts_with_all = ["seeds", "seed"])]
    files: Vec<PathBuf>,
    /// Prints what each node is told and what it does; with --seed or one file.
    #[arg(long)]
    trace: bool,
    /// Writes the bytes of the seeds into files below this directory, for each fuzz target some, and runs nothing.
    #[arg(long, value_name = "DIRECTORY", conflicts_with_all = ["files", "trace"])]
    write: Option<PathBuf>,
    /// Prints the counts as one JSON object, as the last line.
    #[arg(long)]
    json: bool,
}

/// What is run, and what replays it.
struct Input {
    replay: String,
    bytes: Vec<u8>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let inputs = match inputs(&arguments) {
        Ok(inputs) => inputs,
        Err(what) => {
            eprintln!("error: {what}");
            return ExitCode::from(2);
        }
    };
    if arguments.trace && inputs.len() != 1 {
        eprintln!("error: --trace needs one input; name it with --seed or --files");
        return ExitCode::from(2);
    }
    match &arguments.write {
        Some(directory) => write(directory, &inputs),
        None => run(&arguments, &inputs),
    }
}

fn inputs(arguments: &Arguments) -> Result<Vec<Input>, String> {
    if arguments.files.is_empty() {
        let range = arguments.seed.map_or(arguments.seeds.clone(), |seed| seed..seed + 1);
        let input = |seed| Input { replay: format!("--seed {seed}"), bytes: bytes_of_seed(seed) };
        return Ok(range.map(input).collect());
    }
    let unreadable = |path: &Path, error: io::Error| format!("{} cannot be read: {error}", path.display());
    let mut inputs = Vec::new();
    for path in &arguments.files {
        for file in files(path).map_err(|error| unreadable(path, error))? {
            let bytes = fs::read(&file).map_err(|error| unreadable(&file, error))?;
            inputs.push(Input { replay: format!("--files {}", file.display()), bytes });
        }
    }
    if inputs.is_empty() { Err(String::from("there are no files there; name some")) } else { Ok(inputs) }
}

/// The file itself, or the files of a directory, by name.
fn files(path: &Path) -> io::Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = fs::read_dir(path)?.map(|entry| entry.map(|entry| entry.path()));
    let mut files = entries.collect::<io::Result<Vec<_>>>()?;
    files.retain(|file| file.is_file());
    files.sort();
    Ok(files)
}

/// Random bytes are good streams and stories; to the decoder of frames they are noise, so it gets a stream of frames.
fn write(directory: &Path, inputs: &[Input]) -> ExitCode {
    let written = inputs.iter().try_for_each(|input| {
        let name = input.replay.rsplit(' ').next().unwrap_or_default();
        let frames = wire::encoded(&input.bytes).map_err(io::Error::other)?;
        for (target, bytes) in [("frame", &frames), ("stream", &input.bytes), ("machine", &input.bytes)] {
            let directory = directory.join(target);
            fs::create_dir_all(&directory)?;
            fs::write(directory.join(OsStr::new(name)), bytes)?;
        }
        Ok::<(), io::Error>(())
    });
    match written {
        Ok(()) => {
            println!("{} files for each target in {}", inputs.len(), directory.display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {} cannot be written: {error}", directory.display());
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &Arguments, inputs: &[Input]) -> ExitCode {
    let (mut counts, mut frames) = (Counts::default(), 0);
    for input in inputs {
        let told = if arguments.trace {
            hostile::replay(&input.bytes).map(|()| Counts::default())
        } else {
            hostile::attempt(&input.bytes, hostile::unmeasured)
        };
        let checked = told.and_then(|told| {
            counts.add(&told);
            wire::decode(&input.bytes, hostile::unmeasured)?;
            wire::stream(&input.bytes)
        });
        match checked {
            Ok(sent) => frames += sent,
            Err(what) => {
                println!("{}: {what}", input.replay);
                println!(
                    "replay: cargo run --release -p dsm-tests --bin hostile -- {} --trace",
                    input.replay
                );
                return ExitCode::FAILURE;
            }
        }
    }
    println!("{} inputs, {counts}, {frames} frames in streams", inputs.len());
    if arguments.json {
        println!("{}", counts.to_json(inputs.len(), frames));
    }
    ExitCode::SUCCESS
}
