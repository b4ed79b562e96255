//! What is said about an outcome: by the Rust memory model, and by x86, which is what nodes run on.

use super::hardware::{self, Memory};
use super::outcome::Outcome;
use super::program::Program;
use super::rust_model::{self, Allowed};
use serde::Serialize;
use std::collections::BTreeSet;

/// What the Rust memory model says.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Rust {
    /// The outcome may be.
    Allowed,
    /// It may not be.
    Forbidden,
    /// Nothing: plain accesses race, and the behaviour is undefined.
    Undefined,
}

/// What x86 says, where orderings count as they compile.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Hardware {
    /// Some interleaving of the threads gives the outcome.
    Interleaving,
    /// No interleaving does, but stores may wait in their processor's queue.
    Weak,
    /// It may not be.
    Forbidden,
}

/// Both.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub struct Verdict {
    /// What the Rust memory model says.
    pub rust: Rust,
    /// What x86 says.
    pub x86: Hardware,
}

impl Verdict {
    /// Whether one of the two forbids it. The system promises across nodes what x86 promises across threads.
    #[must_use]
    pub fn is_forbidden(self) -> bool {
        self.rust == Rust::Forbidden || self.x86 == Hardware::Forbidden
    }

    /// Whether it may be, and no interleaving of the threads gives it.
    #[must_use]
    pub fn is_weak(self) -> bool {
        self.x86 == Hardware::Weak && !self.is_forbidden()
    }

    /// A word for a table.
    #[must_use]
    pub fn word(self) -> &'static str {
        match (self.rust, self.x86) {
            (Rust::Forbidden, _) => "forbidden",
            (Rust::Allowed, Hardware::Interleaving) => "allowed",
            (Rust::Allowed, Hardware::Weak) => "weak",
            (Rust::Allowed, Hardware::Forbidden) => "not-on-x86",
            (Rust::Undefined, Hardware::Interleaving) => "race:allowed",
            (Rust::Undefined, Hardware::Weak) => "race:weak",
            (Rust::Undefined, Hardware::Forbidden) => "race:never",
        }
    }
}

/// What the words mean, for the end of a table.
pub const WORDS: &str = "\
allowed     the Rust memory model allows it, and an interleaving of the threads gives it
weak        the Rust memory model allows it, and x86 too, but no interleaving gives it
not-on-x86  the Rust memory model allows it, but x86 does not: seen, it is a failure
forbidden   the Rust memory model forbids it: seen, it is a failure
race:…      plain accesses race, which Rust leaves undefined; x86 allows it (by interleaving, or weak), or never gives it:
            seen, that is a failure";

/// Judges the outcomes of one program.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Judge {
    rust: Allowed,
    x86: BTreeSet<Outcome>,
    interleavings: BTreeSet<Outcome>,
}

impl Judge {
    /// That of `program`, whose variables may be `straddling` two pages each.
    #[must_use]
    pub fn new(program: &Program, straddling: bool) -> Judge {
        Judge {
            rust: rust_model::allowed(program),
            x86: hardware::allowed(program, straddling, Memory::StoreBuffers),
            interleavings: hardware::allowed(program, straddling, Memory::Sequential),
        }
    }

    /// As though nothing but interleavings were allowed, which is wrong: weak outcomes become failures.
    #[must_use]
    pub fn sequential(program: &Program, straddling: bool) -> Judge {
        let interleavings = hardware::allowed(program, straddling, Memory::Sequential);
        Judge { rust: rust_model::allowed(program), x86: interleavings.clone(), interleavings }
    }

    /// What is said about an outcome.
    #[must_use]
    pub fn judge(&self, outcome: Outcome) -> Verdict {
        let rust = match &self.rust {
            Allowed::Anything => Rust::Undefined,
            Allowed::Outcomes(outcomes) if outcomes.contains(&outcome) => Rust::Allowed,
            Allowed::Outcomes(_) => Rust::Forbidden,
        };
        let x86 = match (self.x86.contains(&outcome), self.interleavings.contains(&outcome)) {
            (true, true) => Hardware::Interleaving,
            (true, false) => Hardware::Weak,
            (false, _) => Hardware::Forbidden,
        };
        Verdict { rust, x86 }
    }

    /// How many outcomes x86 allows.
    #[must_use]
    pub fn possible(&self) -> usize {
        self.x86.len()
    }
}

#[cfg(test)]
mod tests;
