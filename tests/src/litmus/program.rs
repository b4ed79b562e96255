//! A shape with its orderings: what is executed, and what the models judge.
//!
//! A *family* is a shape, or a shape with a fence between any two steps of a thread. Its *flavours* say which accesses
//! and fences are used; its *layouts* and *placements* say where variables and threads are (see `place`).

use super::shape::{Shape, Step, Variable};
use serde::{Deserialize, Serialize};
use std::fmt;

/// How strong an access or a fence is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Order {
    /// Not atomic: one `mov`.
    Plain,
    /// `Relaxed`.
    Relaxed,
    /// `Acquire` of a load, `Release` of a store, `AcqRel` of a fence.
    AcqRel,
    /// `SeqCst`.
    SeqCst,
}

/// Which accesses a program uses.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub enum Access {
    /// Plain loads and stores.
    Plain,
    /// `Relaxed` loads and stores.
    Relaxed,
    /// `Acquire` loads and `Release` stores.
    #[value(name = "acqrel")]
    AcqRel,
    /// `SeqCst` loads and stores.
    #[value(name = "seqcst")]
    SeqCst,
}

/// Which fences stand between any two steps of a thread.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fence {
    /// None.
    None,
    /// `fence(AcqRel)`.
    AcqRel,
    /// `fence(SeqCst)`.
    SeqCst,
}

/// Accesses and fences.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Flavour {
    /// The accesses.
    pub access: Access,
    /// The fences.
    pub fence: Fence,
}

/// One step of a program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Op {
    /// Stores `value` to `variable`.
    Store {
        /// Where.
        variable: Variable,
        /// What.
        value: u8,
        /// How.
        order: Order,
    },
    /// Loads `variable` into `register`.
    Load {
        /// Where.
        variable: Variable,
        /// Which register of the whole program.
        register: usize,
        /// How.
        order: Order,
    },
    /// A fence.
    Fence(Order),
}

/// A shape with orderings: what each thread does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Program {
    /// The threads.
    pub threads: Vec<Vec<Op>>,
    /// The shape that it is of.
    pub shape: Shape,
    /// Its orderings.
    pub flavour: Flavour,
}

/// A shape, unfenced or fenced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Family {
    /// The shape.
    pub shape: Shape,
    /// Whether fences stand between its steps.
    pub fenced: bool,
}

/// What the name of a fenced family ends with.
const FENCED_SUFFIX: &str = "+fences";

impl Access {
    fn order(self) -> Order {
        match self {
            Access::Plain => Order::Plain,
            Access::Relaxed => Order::Relaxed,
            Access::AcqRel => Order::AcqRel,
            Access::SeqCst => Order::SeqCst,
        }
    }

    /// All of them.
    pub const ALL: [Access; 4] = [Access::Plain, Access::Relaxed, Access::AcqRel, Access::SeqCst];

    /// As it is called on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Access::Plain => "plain",
            Access::Relaxed => "relaxed",
            Access::AcqRel => "acqrel",
            Access::SeqCst => "seqcst",
        }
    }
}

impl Flavour {
    const fn new(access: Access, fence: Fence) -> Flavour {
        Flavour { access, fence }
    }

    /// Those of unfenced families.
    pub const UNFENCED: [Flavour; 4] = [
        Flavour::new(Access::Plain, Fence::None),
        Flavour::new(Access::Relaxed, Fence::None),
        Flavour::new(Access::AcqRel, Fence::None),
        Flavour::new(Access::SeqCst, Fence::None),
    ];

    /// Those of fenced families. Fences beside accesses that are as strong would add nothing.
    pub const FENCED: [Flavour; 4] = [
        Flavour::new(Access::Plain, Fence::SeqCst),
        Flavour::new(Access::Relaxed, Fence::AcqRel),
        Flavour::new(Access::Relaxed, Fence::SeqCst),
        Flavour::new(Access::AcqRel, Fence::SeqCst),
    ];
}

impl fmt::Display for Flavour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self.fence {
            Fence::None => self.access.name().to_owned(),
            Fence::AcqRel => format!("{}+acqrel", self.access.name()),
            Fence::SeqCst => format!("{}+seqcst", self.access.name()),
        };
        f.pad(&text)
    }
}

impl Family {
    /// All of them: every shape, and every shape with fences.
    pub fn all() -> impl Iterator<Item = Family> {
        super::shape::SHAPES
            .into_iter()
            .flat_map(|shape| [false, true].map(|fenced| Family { shape, fenced }))
            .filter(|family| !family.fenced || family.shape.threads.iter().any(|thread| thread.len() > 1))
    }

    /// Those that a name means: a shape's means the shape with and without fences.
    #[must_use]
    pub fn named(name: &str) -> Vec<Family> {
        let is_meant = |family: &Family| {
            name.eq_ignore_ascii_case(family.shape.name) || name.eq_ignore_ascii_case(&family.name())
        };
        Family::all().filter(is_meant).collect()
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}{}", self.shape.name, if self.fenced { FENCED_SUFFIX } else { "" })
    }

    /// Its flavours.
    #[must_use]
    pub fn flavours(&self) -> &'static [Flavour] {
        if self.fenced { &Flavour::FENCED } else { &Flavour::UNFENCED }
    }
}

impl Program {
    /// The program of a shape in a flavour.
    #[must_use]
    pub fn new(shape: Shape, flavour: Flavour) -> Program {
        let order = flavour.access.order();
        let fence = match flavour.fence {
            Fence::None => None,
            Fence::AcqRel => Some(Op::Fence(Order::AcqRel)),
            Fence::SeqCst => Some(Op::Fence(Order::SeqCst)),
        };
        let mut registers = 0..;
        let mut threads = Vec::with_capacity(shape.threads.len());
        for steps in shape.threads {
            let mut ops = Vec::new();
            for step in *steps {
                if !ops.is_empty() {
                    ops.extend(fence);
                }
                ops.push(match *step {
                    Step::Store(variable, value) => Op::Store { variable, value, order },
                    Step::Load(variable) => {
                        Op::Load { variable, register: registers.next().unwrap_or(0), order }
                    }
                });
            }
            threads.push(ops);
        }
        Program { threads, shape, flavour }
    }

    /// Whether accesses are plain: then they race, and the language says nothing about the outcome.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.flavour.access == Access::Plain
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fences_stand_between_steps_only() {
        let shape = Shape::named("IRIW").expect("there is such a shape");
        let program = Program::new(shape, Flavour::new(Access::Relaxed, Fence::SeqCst));
        let fences = |thread: &Vec<Op>| thread.iter().filter(|op| matches!(op, Op::Fence(_))).count();
        assert_eq!(program.threads.iter().map(fences).collect::<Vec<_>>(), [0, 0, 1, 1]);
        assert!(matches!(program.threads[2][1], Op::Fence(Order::SeqCst)));
    }

    #[test]
    fn a_shapes_name_means_its_fenced_family_too() {
        let names = |name| Family::named(name).iter().map(Family::name).collect::<Vec<_>>();
        assert_eq!(names("sb"), ["SB", "SB+fences"]);
        assert_eq!(names("2+2W+FENCES"), ["2+2W+fences"]);
        assert!(names("XYZ").is_empty());
    }
}
