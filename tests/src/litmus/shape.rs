//! The classic shapes as data: which thread does what to which variable, and which final values are looked at.
//!
//! The names and threads are those of Alglave, Maranget and Tautschnig, "Herding cats" (2014). The memory orderings are
//! not part of a shape: see `program`. All variables begin as zero, and no value is stored twice to one variable.

use std::fmt;

/// Variables in one shape at most.
pub const VARIABLES_MAX: usize = 3;

/// Threads in one shape at most.
pub const THREADS_MAX: usize = 4;

/// Loads in one shape at most; each has a register of its own.
pub const REGISTERS_MAX: usize = 4;

/// A variable of a shape.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Variable {
    /// The first.
    X,
    /// The second.
    Y,
    /// The third.
    Z,
}

/// All variables, in their order.
pub const ALL_VARIABLES: [Variable; VARIABLES_MAX] = [Variable::X, Variable::Y, Variable::Z];

impl Variable {
    /// Its place among the variables.
    #[must_use]
    pub fn index(self) -> usize {
        match self {
            Variable::X => 0,
            Variable::Y => 1,
            Variable::Z => 2,
        }
    }
}

impl fmt::Display for Variable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Variable::X => "x",
            Variable::Y => "y",
            Variable::Z => "z",
        })
    }
}

/// One access of a thread.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Stores a value, which is not zero.
    Store(Variable, u8),
    /// Loads into the next register: registers are numbered in the order in which a shape's text has them.
    Load(Variable),
}

impl Step {
    /// The variable that it accesses.
    #[must_use]
    pub fn variable(self) -> Variable {
        match self {
            Step::Store(variable, _) | Step::Load(variable) => variable,
        }
    }
}

/// A shape.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shape {
    /// By what people know it.
    pub name: &'static str,
    /// What each thread does, in its order.
    pub threads: &'static [&'static [Step]],
    /// The variables whose final values are part of the outcome.
    pub finals: &'static [Variable],
    /// What it asks, in a sentence.
    pub asks: &'static str,
}

use Step::{Load, Store};
use Variable::{X, Y, Z};

/// All shapes, those of the literature's order: two threads first, coherence of one variable, then three and four.
pub const SHAPES: [Shape; 15] = [
    Shape {
        name: "SB",
        threads: &[&[Store(X, 1), Load(Y)], &[Store(Y, 1), Load(X)]],
        finals: &[],
        asks: "store buffering: can both loads miss the other's store?",
    },
    Shape {
        name: "MP",
        threads: &[&[Store(X, 1), Store(Y, 1)], &[Load(Y), Load(X)]],
        finals: &[],
        asks: "message passing: can the flag be seen without the data?",
    },
    Shape {
        name: "LB",
        threads: &[&[Load(X), Store(Y, 1)], &[Load(Y), Store(X, 1)]],
        finals: &[],
        asks: "load buffering: can both loads see stores that come after them?",
    },
    Shape {
        name: "S",
        threads: &[&[Store(X, 2), Store(Y, 1)], &[Load(Y), Store(X, 1)]],
        finals: &[X],
        asks: "can a store lose to one that comes before what its thread has seen?",
    },
    Shape {
        name: "R",
        threads: &[&[Store(X, 1), Store(Y, 1)], &[Store(Y, 2), Load(X)]],
        finals: &[Y],
        asks: "can a store win over another, and the load after it miss what came before the other?",
    },
    Shape {
        name: "2+2W",
        threads: &[&[Store(X, 1), Store(Y, 2)], &[Store(Y, 1), Store(X, 2)]],
        finals: &[X, Y],
        asks: "can both first stores win?",
    },
    Shape {
        name: "CoRR",
        threads: &[&[Store(X, 1)], &[Load(X), Load(X)]],
        finals: &[],
        asks: "can a second load see an older value?",
    },
    Shape {
        name: "CoWW",
        threads: &[&[Store(X, 1), Store(X, 2)], &[Store(X, 3)]],
        finals: &[X],
        asks: "can a thread's first store win over its second? The other writer makes the page move in between",
    },
    Shape {
        name: "CoRW",
        threads: &[&[Load(X), Store(X, 1)], &[Store(X, 2)]],
        finals: &[X],
        asks: "can a load see the store after it, or one that wins over that?",
    },
    Shape {
        name: "CoWR",
        threads: &[&[Store(X, 1), Load(X)], &[Store(X, 2)]],
        finals: &[X],
        asks: "can a load miss its own thread's store, for one that loses to it?",
    },
    Shape {
        name: "WRC",
        threads: &[&[Store(X, 1)], &[Load(X), Store(Y, 1)], &[Load(Y), Load(X)]],
        finals: &[],
        asks: "write to read causality: does what a thread has seen come with what it says?",
    },
    Shape {
        name: "RWC",
        threads: &[&[Store(X, 1)], &[Load(X), Load(Y)], &[Store(Y, 1), Load(X)]],
        finals: &[],
        asks: "read to write causality: can a load miss a store that another has seen before?",
    },
    Shape {
        name: "WWC",
        threads: &[&[Store(X, 2)], &[Load(X), Store(Y, 1)], &[Load(Y), Store(X, 1)]],
        finals: &[X],
        asks: "write to write causality: can a store lose to one that it follows from?",
    },
    Shape {
        name: "ISA2",
        threads: &[&[Store(X, 1), Store(Y, 1)], &[Load(Y), Store(Z, 1)], &[Load(Z), Load(X)]],
        finals: &[],
        asks: "message passing by way of a third thread",
    },
    Shape {
        name: "IRIW",
        threads: &[&[Store(X, 1)], &[Store(Y, 1)], &[Load(X), Load(Y)], &[Load(Y), Load(X)]],
        finals: &[],
        asks: "independent reads of independent writes: do two readers agree on which store came first?",
    },
];

impl Shape {
    /// The shape of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Shape> {
        SHAPES.into_iter().find(|shape| shape.name.eq_ignore_ascii_case(name))
    }

    /// How many registers it has.
    #[must_use]
    pub fn registers(&self) -> usize {
        self.threads.iter().copied().flatten().filter(|step| matches!(step, Load(_))).count()
    }

    /// How many variables it has: they are used from the first on.
    #[must_use]
    pub fn variables(&self) -> usize {
        let steps = self.threads.iter().copied().flatten();
        steps.map(|step| step.variable().index() + 1).max().unwrap_or(0)
    }

    /// The values that a variable can ever have, zero first.
    #[must_use]
    pub fn values(&self, variable: Variable) -> Vec<u8> {
        let stored = self.threads.iter().copied().flatten().filter_map(|step| match *step {
            Store(at, value) if at == variable => Some(value),
            Store(..) | Load(_) => None,
        });
        std::iter::once(0).chain(stored).collect()
    }
}

/// The threads, side by side, with their registers.
impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut register = 0;
        for (index, thread) in self.threads.iter().enumerate() {
            if index > 0 {
                f.write_str(" || ")?;
            }
            for (place, step) in thread.iter().enumerate() {
                let gap = if place > 0 { "; " } else { "" };
                match step {
                    Store(variable, value) => write!(f, "{gap}{variable}={value}")?,
                    Load(variable) => {
                        write!(f, "{gap}r{register}={variable}")?;
                        register += 1;
                    }
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_keep_within_the_limits() {
        for shape in SHAPES {
            assert!(shape.threads.len() <= THREADS_MAX, "{}", shape.name);
            assert!(shape.registers() <= REGISTERS_MAX, "{}", shape.name);
            assert!(shape.variables() <= VARIABLES_MAX, "{}", shape.name);
        }
    }

    #[test]
    fn no_value_is_stored_twice_to_one_variable() {
        for shape in SHAPES {
            for variable in [X, Y, Z] {
                let mut values = shape.values(variable);
                let count = values.len();
                values.sort_unstable();
                values.dedup();
                assert_eq!(values.len(), count, "{} {variable}", shape.name);
            }
        }
    }

    #[test]
    fn a_shape_reads_as_in_the_literature() {
        let shape = Shape::named("isa2").expect("there is such a shape");
        assert_eq!(shape.to_string(), "x=1; y=1 || r0=y; z=1 || r1=z; r2=x");
    }
}
