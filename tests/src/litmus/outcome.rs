//! What one iteration of a program came to: the value in each register, then the final values that its shape asks for.
//!
//! A value is seen in two halves, because one that straddles a page boundary may be torn. Of a value that lies on one
//! page both halves must be the same.

use super::shape::{REGISTERS_MAX, Shape, VARIABLES_MAX};
use std::fmt::Write as _;

/// What is seen of one half of a value: a value of the shape, or one of the two below.
pub type Digit = u8;

/// A number that nobody ever stored there.
pub const MADE_UP: Digit = 6;

/// What an earlier iteration left, and a later one had overwritten before this one began.
pub const OUTDATED: Digit = 7;

/// Bits of one digit: the greatest is `OUTDATED`.
const DIGIT_BITS: u32 = 3;

const _: () = assert!(OUTDATED as u32 + 1 == 1 << DIGIT_BITS);

/// Digits of one observation: its two halves.
const HALVES: usize = 2;

/// Marks an outcome after which a variable did not have any value that was stored to it.
const LOST_STORE: u64 = 1 << (u64::BITS - 1);

const _: () = assert!((REGISTERS_MAX + VARIABLES_MAX) * HALVES * (DIGIT_BITS as usize) < u64::BITS as usize);

/// What was seen of one value.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Seen {
    /// In its lower half.
    pub low: Digit,
    /// In its upper half.
    pub high: Digit,
}

impl Seen {
    /// A value that is not torn.
    #[must_use]
    pub fn whole(value: Digit) -> Seen {
        Seen { low: value, high: value }
    }

    fn is_whole(self) -> bool {
        self.low == self.high
    }
}

/// The outcome of one iteration, packed into a number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Outcome(pub u64);

impl Outcome {
    /// The outcome in which these values were seen, registers first.
    #[must_use]
    pub fn of(seen: impl IntoIterator<Item = Seen>) -> Outcome {
        let digits = seen.into_iter().flat_map(|seen| [seen.low, seen.high]);
        let packed = digits.zip(0..).map(|(digit, place)| u64::from(digit) << (place * DIGIT_BITS));
        Outcome(packed.fold(0, |all, digit| all | digit))
    }

    /// The outcome in which these values were seen, none of them torn.
    #[must_use]
    pub fn whole(values: impl IntoIterator<Item = Digit>) -> Outcome {
        Outcome::of(values.into_iter().map(Seen::whole))
    }

    /// The same, but that a variable, whether the shape asks for it or not, has no value that was stored to it.
    #[must_use]
    pub fn with_lost_store(self) -> Outcome {
        Outcome(self.0 | LOST_STORE)
    }

    /// The value of this place among registers and finals.
    #[must_use]
    pub fn seen(self, place: usize) -> Seen {
        let digit = |half: usize| {
            let shift = (place * HALVES + half) as u32 * DIGIT_BITS;
            (self.0 >> shift) as Digit & OUTDATED
        };
        Seen { low: digit(0), high: digit(1) }
    }

    /// Whether no value of `shape` is torn.
    #[must_use]
    pub fn is_whole(self, shape: &Shape) -> bool {
        (0..observations(shape)).all(|place| self.seen(place).is_whole())
    }

    /// The outcome in words: `r0=1 r1=0 x=2`, with `low|high` for a torn value.
    #[must_use]
    pub fn describe(self, shape: &Shape) -> String {
        let registers = shape.registers();
        let mut text = String::new();
        for place in 0..observations(shape) {
            let gap = if place > 0 { " " } else { "" };
            let seen = self.seen(place);
            let value = match seen.is_whole() {
                true => digit(seen.low),
                false => format!("{}|{}", digit(seen.low), digit(seen.high)),
            };
            // Writing to a string cannot fail.
            let _ = match place.checked_sub(registers) {
                None => write!(text, "{gap}r{place}={value}"),
                Some(index) => write!(text, "{gap}{}={value}", shape.finals[index]),
            };
        }
        if self.0 & LOST_STORE != 0 {
            text.push_str(" (a store is lost)");
        }
        text
    }
}

fn digit(digit: Digit) -> String {
    match digit {
        MADE_UP => "made-up".to_owned(),
        OUTDATED => "outdated".to_owned(),
        value => value.to_string(),
    }
}

/// How many values make an outcome of `shape`.
#[must_use]
pub fn observations(shape: &Shape) -> usize {
    shape.registers() + shape.finals.len()
}

/// Every outcome of `shape` without torn values, possible or not.
#[must_use]
pub fn all_whole(shape: &Shape) -> Vec<Outcome> {
    let loaded = shape.threads.iter().copied().flatten().filter_map(|step| match *step {
        super::shape::Step::Load(variable) => Some(variable),
        super::shape::Step::Store(..) => None,
    });
    let mut all = vec![Vec::new()];
    for variable in loaded.chain(shape.finals.iter().copied()) {
        let values = shape.values(variable);
        all = all
            .into_iter()
            .flat_map(|begun| {
                values.iter().map(move |&value| begun.iter().copied().chain([value]).collect::<Vec<_>>())
            })
            .collect();
    }
    all.into_iter().map(Outcome::whole).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_reads_as_it_was_seen() {
        let shape = Shape::named("S").expect("there is such a shape");
        assert_eq!(Outcome::whole([1, 2]).describe(&shape), "r0=1 x=2");
        let torn = Outcome::of([Seen { low: 1, high: 0 }, Seen::whole(OUTDATED)]);
        assert_eq!(torn.describe(&shape), "r0=1|0 x=outdated");
        assert!(!torn.is_whole(&shape));
        assert_eq!(torn.seen(0), Seen { low: 1, high: 0 });
    }

    #[test]
    fn all_outcomes_are_all_combinations() {
        let shape = Shape::named("WWC").expect("there is such a shape");
        // x is 0, 1 or 2, and y is 0 or 1.
        assert_eq!(all_whole(&shape).len(), 3 * 2 * 3);
    }
}
