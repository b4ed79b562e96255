//! Exhausts the configurations of the model checks, and prints how many states each has.
//!
//! Exit 1 and the shortest run on a failure, exit 2 on a usage error.

use clap::Parser;
use dsm_tests::model::recovery::{self, RECOVERIES};
use dsm_tests::model::{self, CONFIGURATIONS, Counterexample, Exhausted};
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Instant;

/// Tries every order of everything that may happen in small clusters, on the real protocol machine.
#[derive(Parser)]
#[command(name = "model")]
struct Arguments {
    /// Only the configuration of this name.
    #[arg(long, value_name = "NAME", value_parser = configuration)]
    config: Option<Configuration>,
    /// Those too that take minutes.
    #[arg(long)]
    long: bool,
    /// Plants a deliberate bug, and prints the shortest run that finds it; with --config.
    #[arg(long, value_name = "NAME", requires = "config")]
    mutant: Option<String>,
}

/// A configuration of one of the two models.
#[derive(Clone, Copy)]
enum Configuration {
    Coherence(model::Configuration),
    Recovery(recovery::Configuration),
}

impl Configuration {
    fn all() -> impl Iterator<Item = Configuration> {
        let coherence = CONFIGURATIONS.into_iter().map(Configuration::Coherence);
        coherence.chain(RECOVERIES.into_iter().map(Configuration::Recovery))
    }

    fn name(&self) -> &'static str {
        match self {
            Configuration::Coherence(it) => it.name,
            Configuration::Recovery(it) => it.name,
        }
    }

    fn is_long(&self) -> bool {
        match self {
            Configuration::Coherence(it) => it.long,
            Configuration::Recovery(it) => it.long,
        }
    }

    /// How many states it is known to have.
    fn states(&self) -> usize {
        match self {
            Configuration::Coherence(it) => it.states,
            Configuration::Recovery(it) => it.states,
        }
    }

    fn exhaust(&self) -> Result<Exhausted, Box<Counterexample>> {
        match self {
            Configuration::Coherence(it) => model::exhaust(it),
            Configuration::Recovery(it) => recovery::exhaust(it),
        }
    }

    /// The shortest run that finds a mutant, if any does; in words, if there is no such mutant.
    fn find(&self, mutant: &str) -> Result<Option<Counterexample>, String> {
        let unknown = |known: &dyn std::fmt::Debug| format!("there is no such mutant; there are {known:?}");
        match self {
            Configuration::Coherence(it) => {
                let mutant = model::Mutant::named(mutant).ok_or_else(|| unknown(&model::Mutant::ALL))?;
                Ok(model::counterexample(it, Some(mutant)))
            }
            Configuration::Recovery(it) => {
                let mutant =
                    recovery::Mutant::named(mutant).ok_or_else(|| unknown(&recovery::Mutant::ALL))?;
                Ok(recovery::counterexample(it, Some(mutant)))
            }
        }
    }
}

fn configuration(name: &str) -> Result<Configuration, String> {
    let names = || Configuration::all().map(|it| it.name()).collect::<Vec<_>>().join(", ");
    let found = Configuration::all().find(|configuration| configuration.name() == name);
    found.ok_or_else(|| format!("there is no such configuration; there are {}", names()))
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let (Some(configuration), Some(mutant)) = (&arguments.config, &arguments.mutant) {
        return find(configuration, mutant);
    }
    let wanted = |configuration: &Configuration| match &arguments.config {
        Some(only) => only.name() == configuration.name(),
        None => arguments.long || !configuration.is_long(),
    };
    let wanted: Vec<Configuration> = Configuration::all().filter(wanted).collect();
    let failed = wanted.iter().filter(|configuration| !exhaust(configuration)).count();
    print(&format!("{} configurations exhausted, {failed} failed", wanted.len() - failed));
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Whether all was as it must be.
fn exhaust(configuration: &Configuration) -> bool {
    let began = Instant::now();
    let name = configuration.name();
    match configuration.exhaust() {
        Ok(outcome) => {
            let seconds = began.elapsed().as_secs_f64();
            let Exhausted { states, steps, depth } = outcome;
            print(&format!(
                "{name:<20} {states:>9} states {steps:>10} steps, depth {depth:>3}, {seconds:>6.1} s"
            ));
            let known = configuration.states();
            if states != known {
                print(&format!(
                    "{name:<20} should have {known} states: say so in its entry if this is right"
                ));
            }
            states == known
        }
        Err(failure) => {
            print(&format!("{name}: {failure}"));
            false
        }
    }
}

fn find(configuration: &Configuration, mutant: &str) -> ExitCode {
    match configuration.find(mutant) {
        Ok(Some(found)) => {
            print(&format!("{mutant} is found after {} steps; {found}", found.steps.len()));
            ExitCode::SUCCESS
        }
        Ok(None) => {
            print(&format!("{mutant} is not found in {}", configuration.name()));
            ExitCode::FAILURE
        }
        Err(what) => {
            // A reader that is gone needs no reason.
            drop(writeln!(io::stderr(), "{what}"));
            ExitCode::from(USAGE)
        }
    }
}

/// The exit code for a usage error, as the parser of arguments has it.
const USAGE: u8 = 2;

/// A reader that closes the pipe early has seen enough.
fn print(line: &str) {
    drop(writeln!(io::stdout(), "{}", line.trim_end()));
}
