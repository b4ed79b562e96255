//! Exhausts the configurations of the model checks, and prints how many states each has.
//!
//! Exit 1 and the shortest run on a failure, exit 2 on a usage error.

use clap::Parser;
use dsm_tests::model::{self, CONFIGURATIONS, Configuration, Mutant};
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
    #[arg(long, value_name = "NAME", value_parser = mutant, requires = "config")]
    mutant: Option<Mutant>,
}

fn configuration(name: &str) -> Result<Configuration, String> {
    let names = || CONFIGURATIONS.map(|configuration| configuration.name).join(", ");
    let found = CONFIGURATIONS.into_iter().find(|configuration| configuration.name == name);
    found.ok_or_else(|| format!("there is no such configuration; there are {}", names()))
}

fn mutant(name: &str) -> Result<Mutant, String> {
    Mutant::named(name).ok_or_else(|| format!("there is no such mutant; there are {:?}", Mutant::ALL))
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let (Some(configuration), Some(mutant)) = (&arguments.config, arguments.mutant) {
        return find(configuration, mutant);
    }
    let wanted = |configuration: &&Configuration| match &arguments.config {
        Some(only) => only.name == configuration.name,
        None => arguments.long || !configuration.long,
    };
    let outcomes: Vec<bool> = CONFIGURATIONS.iter().filter(wanted).map(exhaust).collect();
    let failed = outcomes.iter().filter(|exhausted| !**exhausted).count();
    println!("{} configurations exhausted, {failed} failed", outcomes.len() - failed);
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Whether all was as it must be.
fn exhaust(configuration: &Configuration) -> bool {
    let began = Instant::now();
    match model::exhaust(configuration) {
        Ok(outcome) => {
            let seconds = began.elapsed().as_secs_f64();
            let model::Exhausted { states, steps, depth } = outcome;
            let name = configuration.name;
            println!("{name:<20} {states:>9} states {steps:>10} steps, depth {depth:>3}, {seconds:>6.1} s");
            let pinned = states == configuration.states;
            if !pinned {
                println!(
                    "{name:<20} should have {} states: say so in its entry if this is right",
                    configuration.states
                );
            }
            pinned
        }
        Err(failure) => {
            println!("{}: {failure}", configuration.name);
            false
        }
    }
}

fn find(configuration: &Configuration, mutant: Mutant) -> ExitCode {
    match model::counterexample(configuration, Some(mutant)) {
        Some(found) => {
            println!("{mutant:?} is found after {} steps; {found}", found.steps.len());
            ExitCode::SUCCESS
        }
        None => {
            println!("{mutant:?} is not found in {}", configuration.name);
            ExitCode::FAILURE
        }
    }
}
