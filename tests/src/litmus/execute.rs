//! Executes one thread of one instance: real loads and stores of the region, in program order.
//!
//! Variables are never reset. A store puts the round's number beside its value, in both halves of the word, so that a
//! load tells what it saw, down to the half: a value of this round, what the last round left (which counts as zero), or
//! something that must not be there any more.

use super::outcome::{Digit, MADE_UP, OUTDATED, Seen};
use super::program::{Op, Order};
use super::shape::{REGISTERS_MAX, VARIABLES_MAX};
use std::arch::asm;
use std::sync::atomic::{AtomicU64, Ordering, fence};

/// Bits of a half that hold the value; the others hold the round.
const VALUE_BITS: u32 = 3;

/// Rounds of one run at most: their numbers must fit beside the value.
pub const ROUNDS_MAX: u32 = u32::MAX >> VALUE_BITS;

/// The word that stands for a value of a round.
#[must_use]
pub fn word(round: u32, value: u8) -> u64 {
    let half = u64::from(round << VALUE_BITS | u32::from(value));
    half << u32::BITS | half
}

/// What a word shows, where `previous` was at the end of the last round, and `values` may be stored.
#[must_use]
pub fn read(word: u64, round: u32, previous: u64, values: &[u8]) -> Seen {
    let digit = |shift: u32| -> Digit {
        let (half, before) = ((word >> shift) as u32, (previous >> shift) as u32);
        let value = (half & ((1 << VALUE_BITS) - 1)) as u8;
        match (half >> VALUE_BITS).cmp(&round) {
            std::cmp::Ordering::Equal if value != 0 && values.contains(&value) => value,
            std::cmp::Ordering::Equal | std::cmp::Ordering::Greater => MADE_UP,
            std::cmp::Ordering::Less if half == before => 0,
            std::cmp::Ordering::Less => OUTDATED,
        }
    };
    Seen { low: digit(0), high: digit(u32::BITS) }
}

/// Does `ops` on the variables at `addresses`, with a call of `pause` before each, and returns what the registers have.
///
/// # Safety
/// The addresses are those of variables in an arena that lives. Those of atomic accesses are aligned. All that touches
/// them at the same time does so by this function or [`load_plain`].
pub unsafe fn run(
    ops: &[Op],
    addresses: &[*mut u64; VARIABLES_MAX],
    round: u32,
    mut pause: impl FnMut(),
) -> [u64; REGISTERS_MAX] {
    let mut registers = [0; REGISTERS_MAX];
    for op in ops {
        pause();
        match *op {
            Op::Fence(order) => fence(fence_ordering(order)),
            Op::Store { variable, value, order } => {
                let (at, word) = (addresses[variable.index()], word(round, value));
                // SAFETY: the caller's promise.
                unsafe { store(at, word, order) }
            }
            Op::Load { variable, register, order } => {
                // SAFETY: the caller's promise.
                registers[register] = unsafe { load(addresses[variable.index()], order) };
            }
        }
    }
    registers
}

fn fence_ordering(order: Order) -> Ordering {
    match order {
        Order::SeqCst => Ordering::SeqCst,
        // There are no weaker fences.
        Order::Plain | Order::Relaxed | Order::AcqRel => Ordering::AcqRel,
    }
}

/// # Safety
/// As [`run`].
unsafe fn store(at: *mut u64, word: u64, order: Order) {
    let ordering = match order {
        Order::Plain => {
            // SAFETY: the caller's promise; one instruction of the machine, unlike one of the language, may race.
            unsafe { asm!("mov qword ptr [{at}], {word}", at = in(reg) at, word = in(reg) word) }
            return;
        }
        Order::Relaxed => Ordering::Relaxed,
        Order::AcqRel => Ordering::Release,
        Order::SeqCst => Ordering::SeqCst,
    };
    // SAFETY: the address is aligned and in a live arena, and all that touches it now is atomic, or one instruction.
    unsafe { AtomicU64::from_ptr(at) }.store(word, ordering);
}

/// # Safety
/// As [`run`].
unsafe fn load(at: *mut u64, order: Order) -> u64 {
    let ordering = match order {
        // SAFETY: the caller's promise.
        Order::Plain => return unsafe { load_plain(at) },
        Order::Relaxed => Ordering::Relaxed,
        Order::AcqRel => Ordering::Acquire,
        Order::SeqCst => Ordering::SeqCst,
    };
    // SAFETY: the address is aligned and in a live arena, and all that touches it now is atomic, or one instruction.
    unsafe { AtomicU64::from_ptr(at) }.load(ordering)
}

/// Loads with one `mov`.
///
/// # Safety
/// The address is that of a variable in an arena that lives.
pub unsafe fn load_plain(at: *mut u64) -> u64 {
    let word;
    // SAFETY: the caller's promise; one instruction of the machine may race, and meet a torn value.
    unsafe { asm!("mov {word}, qword ptr [{at}]", at = in(reg) at, word = out(reg) word) }
    word
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALUES: &[u8] = &[0, 1, 2];

    #[test]
    fn a_word_tells_of_which_round_it_is() {
        let previous = word(8, 2);
        assert_eq!(read(word(9, 2), 9, previous, VALUES), Seen::whole(2));
        assert_eq!(read(previous, 9, previous, VALUES), Seen::whole(0));
        assert_eq!(read(word(8, 1), 9, previous, VALUES), Seen::whole(OUTDATED));
        assert_eq!(read(word(9, 3), 9, previous, VALUES), Seen::whole(MADE_UP));
        assert_eq!(read(word(10, 1), 9, previous, VALUES), Seen::whole(MADE_UP));
        assert_eq!(read(0, 1, 0, VALUES), Seen::whole(0));
        let torn = word(9, 1) & u64::from(u32::MAX) | previous & !u64::from(u32::MAX);
        assert_eq!(read(torn, 9, previous, VALUES), Seen { low: 1, high: 0 });
    }

    #[test]
    fn the_last_round_fits() {
        assert_eq!(read(word(ROUNDS_MAX, 2), ROUNDS_MAX, 0, VALUES), Seen::whole(2));
    }
}
