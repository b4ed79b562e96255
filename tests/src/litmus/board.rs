//! Where the threads of a run meet, and lay down what they saw: memory that all processes of a run map, and that is no
//! part of the region, so that a bug in the region cannot cover itself up.
//!
//! The runner reads here how far each thread is. What the numbers mean is not this module's business.

use super::shape::{REGISTERS_MAX, THREADS_MAX, VARIABLES_MAX};
use memmap2::MmapRaw;
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::fs::{File, OpenOptions};
use std::hint::spin_loop;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::yield_now;

/// Instances of a program in one round at most.
pub const INSTANCES_MAX: usize = 256;

/// How often a waiting thread looks again before it lets another have the processor. Longer than a partner on another
/// core takes to be there, and much shorter than a page fault.
const SPINS: u32 = 200;

/// A word that shares its cache lines with no other: processors fetch lines in pairs.
#[repr(C, align(128))]
struct Lone(AtomicU64);

#[repr(C)]
struct Words {
    arrived: Lone,
    finished: Lone,
    places: [Lone; THREADS_MAX],
    paces: [Lone; THREADS_MAX],
    registers: [[AtomicU64; REGISTERS_MAX]; INSTANCES_MAX],
    previous: [[AtomicU64; VARIABLES_MAX]; INSTANCES_MAX],
}

/// The memory of one run.
pub struct Board {
    map: MmapRaw,
    file: File,
}

impl Board {
    /// A new board, all of it zero.
    ///
    /// # Errors
    /// If the kernel has no memory for it.
    pub fn create() -> io::Result<Board> {
        let file = File::from(memfd_create("litmus-board", MFdFlags::MFD_CLOEXEC)?);
        file.set_len(size_of::<Words>() as u64)?;
        Ok(Board { map: MmapRaw::map_raw(&file)?, file })
    }

    /// The board that another process of this user has made.
    ///
    /// # Errors
    /// If there is none at `path`.
    pub fn open(path: &str) -> io::Result<Board> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let length = file.metadata()?.len();
        if length < size_of::<Words>() as u64 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{path} has {length} bytes only"),
            ));
        }
        Ok(Board { map: MmapRaw::map_raw(&file)?, file })
    }

    /// Where other processes find it while this one lives.
    #[must_use]
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd())
    }

    fn words(&self) -> &Words {
        // SAFETY: the mapping is readable and writable, begins at a page, which is as aligned as `Words` wants, is as
        // long as `Words` (both constructors see to it), and lives as long as `self`. Words are atomics, for which every
        // bit pattern is a value and which other processes may change.
        unsafe { &*self.map.as_ptr().cast::<Words>() }
    }

    /// Waits until all `threads` of the run are here.
    pub fn meet(&self, threads: u64) {
        let arrived = &self.words().arrived.0;
        // Nobody comes a second time before all have come, so that the count alone tells the meetings apart.
        let all = (arrived.fetch_add(1, Ordering::SeqCst) / threads + 1) * threads;
        wait_until(|| arrived.load(Ordering::SeqCst) >= all);
    }

    /// How many iterations are over.
    #[must_use]
    pub fn finished(&self) -> u64 {
        self.words().finished.0.load(Ordering::Relaxed)
    }

    /// So many more iterations are over.
    pub fn finish(&self, iterations: u64) {
        self.words().finished.0.fetch_add(iterations, Ordering::Relaxed);
    }

    /// Where a thread of the run is.
    #[must_use]
    pub fn place(&self, slot: usize) -> &AtomicU64 {
        &self.words().places[slot].0
    }

    /// How far a thread of the run is in the present round.
    #[must_use]
    pub fn pace(&self, slot: usize) -> &AtomicU64 {
        &self.words().paces[slot].0
    }

    /// What an instance's registers have.
    #[must_use]
    pub fn registers(&self, instance: usize) -> &[AtomicU64; REGISTERS_MAX] {
        &self.words().registers[instance]
    }

    /// What an instance's variables had before the present round.
    #[must_use]
    pub fn previous(&self, instance: usize) -> &[AtomicU64; VARIABLES_MAX] {
        &self.words().previous[instance]
    }
}

/// Waits for another thread: on its processor for a little while, then giving way.
pub fn wait_until(has_come: impl Fn() -> bool) {
    loop {
        for _ in 0..SPINS {
            if has_come() {
                return;
            }
            spin_loop();
        }
        yield_now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_board_is_the_same_for_all_who_open_it() {
        let board = Board::create().expect("there is memory");
        let other = Board::open(&board.path()).expect("it is there");
        board.registers(INSTANCES_MAX - 1)[0].store(7, Ordering::Relaxed);
        assert_eq!(other.registers(INSTANCES_MAX - 1)[0].load(Ordering::Relaxed), 7);
        assert!(Board::open("/proc/self/fd/999999").is_err());
    }

    #[test]
    fn all_meet_or_nobody_goes_on() {
        const MEETINGS: u64 = 200;
        const THREADS: u64 = 3;
        let board = Board::create().expect("there is memory");
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    for meeting in 0..MEETINGS {
                        board.finish(1);
                        board.meet(THREADS);
                        assert_eq!(board.finished(), (meeting + 1) * THREADS);
                        board.meet(THREADS);
                    }
                });
            }
        });
    }
}
