//! Executes litmus tests on real nodes, and holds what they show to the Rust memory model. See `dsm_tests::litmus`.
//!
//! Exit 1 when something forbidden was seen or a run did not end, exit 2 on a usage error.

use clap::Parser;
use dsm_tests::litmus::{self, Access, Family, Layout, Mutant, Options, Placement, Progress, Row};
use indicatif::{ProgressBar, ProgressStyle};
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

/// Small racing programs on real nodes: every outcome is counted, and judged by the Rust memory model and by x86.
#[derive(Parser)]
#[command(
    name = "litmus",
    after_help = "\
Exit code 0 when nothing forbidden was seen, 1 when something was or a run did not come to its end, 2 for wrong usage.

With --json the last line of standard output is one JSON object with the fields ok, shapes, configurations, iterations, \
iterations_fewest (of any shape and layout), forbidden, weak_seen, elapsed_s, seed, failure (null or text), and runs: \
one object per configuration with shape, access, fence, layout, placement, iterations, forbidden, weak, seconds and \
outcomes (outcome, count, rust, x86, forbidden)."
)]
struct Arguments {
    /// Only this shape, fenced and unfenced (SB), or one of the two (SB+fences); may be given more than once
    #[arg(long, value_name = "NAME", value_parser = families)]
    only: Vec<Vec<Family>>,
    /// How often each shape is executed on each layout, all accesses and placements together
    #[arg(long, value_name = "N", default_value_t = ITERATIONS_DEFAULT, value_parser = clap::value_parser!(u64).range(1..=ITERATIONS_MAX))]
    iterations: u64,
    /// Only with variables on separate pages, on the same page, or across page boundaries (plain accesses only)
    #[arg(long, value_enum)]
    layout: Vec<Layout>,
    /// Only with each thread on a node of its own, on two nodes of two threads, or with all threads on one node
    #[arg(long, value_enum)]
    placement: Vec<Placement>,
    /// Only with these accesses
    #[arg(long, value_enum)]
    access: Vec<Access>,
    /// What decides who runs where, in which order and at which pace
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Ends a run in which no thread has moved for so long, and fails
    #[arg(long, value_name = "SECONDS", default_value_t = PATIENCE_DEFAULT, value_parser = clap::value_parser!(u64).range(1..))]
    patience: u64,
    /// Prints the last table only, not what was seen of each outcome
    #[arg(long)]
    brief: bool,
    /// Ends with one JSON object on the last line
    #[arg(long)]
    json: bool,
    /// Lists the shapes, and runs nothing
    #[arg(long)]
    list: bool,
    /// Plants a deliberate bug between programs and memory, or in the judge: the command must fail
    #[arg(long, value_enum, value_name = "NAME")]
    mutant: Option<Mutant>,
}

/// What every shape must be executed at least, before anybody believes that nothing forbidden comes.
const ITERATIONS_DEFAULT: u64 = 100_000;

/// Rounds are numbered across all configurations of a run in 29 bits.
const ITERATIONS_MAX: u64 = 1_000_000_000;

/// Threads move many times a second, even on a busy machine.
const PATIENCE_DEFAULT: u64 = 60;

fn families(name: &str) -> Result<Vec<Family>, String> {
    let found = Family::named(name);
    if found.is_empty() {
        let names: Vec<String> = Family::all().map(|family| family.name()).collect();
        return Err(format!("there is no such shape; there are {}", names.join(", ")));
    }
    Ok(found)
}

fn main() -> ExitCode {
    if std::env::var_os(litmus::PLAN_VARIABLE).is_some() {
        return litmus::node_main();
    }
    let arguments = Arguments::parse();
    if arguments.list {
        list();
        return ExitCode::SUCCESS;
    }
    let options = match options(&arguments) {
        Ok(options) => options,
        Err(what) => {
            eprintln!("litmus: {what}");
            return ExitCode::from(2);
        }
    };
    let mut shown = Shown { bar: progress_bar(options.total()), brief: arguments.brief };
    let (report, failure) = litmus::run(&options, &mut shown);
    shown.bar.finish_and_clear();
    if !arguments.brief {
        print(&format!("\n{}\n", litmus::WORDS));
    }
    print(&report.to_string());
    if let Some(failure) = &failure {
        eprintln!("litmus: {}", failure.0);
    }
    if arguments.json {
        print(&report.to_json(failure.as_ref().map(|failure| failure.0.as_str())).to_string());
    }
    if failure.is_none() && report.forbidden() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn options(arguments: &Arguments) -> Result<Options, String> {
    let families = match arguments.only.is_empty() {
        true => Family::all().collect(),
        false => arguments.only.concat(),
    };
    let options = Options {
        families,
        layouts: all_or(&arguments.layout, &Layout::ALL),
        placements: all_or(&arguments.placement, &Placement::ALL),
        accesses: all_or(&arguments.access, &Access::ALL),
        iterations: arguments.iterations,
        seed: arguments.seed,
        mutant: arguments.mutant,
        patience: Duration::from_secs(arguments.patience),
        program: std::env::current_exe().map_err(|error| format!("this program cannot be found: {error}"))?,
    };
    if options.total() == 0 {
        return Err(
            "nothing to run: only plain accesses straddle, and fenced shapes have no seqcst accesses"
                .to_owned(),
        );
    }
    Ok(options)
}

fn all_or<T: Clone>(wanted: &[T], all: &[T]) -> Vec<T> {
    if wanted.is_empty() { all.to_vec() } else { wanted.to_vec() }
}

fn list() {
    let width = Family::all().map(|family| family.name().len()).max().unwrap_or(0);
    for family in Family::all() {
        let flavours: Vec<String> = family.flavours().iter().map(ToString::to_string).collect();
        print(&format!(
            "{:<width$}  {}\n{:width$}  {}",
            family.name(),
            family.shape,
            "",
            flavours.join(", ")
        ));
    }
    print(&format!("{} shapes", Family::all().count()));
}

/// What is shown while runs go on: a bar, and each family's outcomes when they are there.
struct Shown {
    bar: ProgressBar,
    brief: bool,
}

impl Progress for Shown {
    fn advanced(&mut self, iterations: u64) {
        self.bar.set_position(iterations);
    }

    fn family_done(&mut self, rows: &[Row]) {
        if !self.brief {
            self.bar.suspend(|| print(litmus::outcomes_table(rows).trim_end()));
        }
    }
}

/// A bar on a terminal; elsewhere nothing.
fn progress_bar(iterations: u64) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(iterations);
    match ProgressStyle::with_template("{bar:40} {percent:>3} % of {len} iterations, {elapsed}, {eta} to go")
    {
        Ok(style) => bar.with_style(style),
        // The bar looks otherwise then; the template is fixed, so that this is a matter of indicatif's version.
        Err(_) => bar,
    }
}

/// A reader that closes the pipe early has seen enough.
fn print(text: &str) {
    drop(writeln!(io::stdout(), "{text}"));
}
