//! Threads of all nodes do random things with counters, registers, queues and lists, and record what they asked, what
//! they were told, and when. The test puts the records of all nodes together and checks them.
//!
//! Nothing is recorded in shared memory, so that recording orders nothing. What the objects are is in `history`.

use super::cluster::{meet, on_threads, with_cluster};
use super::{Arguments, Outcome, Scenario, at, fact};
use crate::history::programs::{Approach, Kind, Name, OBJECTS_OF_KIND, Pause, Program, Request, Round};
use crate::history::run::{CLOCK, Entries, Mutant, SCENARIO, Told};
use crate::history::{Entry, EntryOf, Sequence, Thread, Word, clock};
use crate::history::{SequenceAnswer, SequenceOperation, WordAnswer, WordOperation};
use clap::ValueEnum;
use dsm_node::{Dsm, DsmMutex, DsmMutexGuard, Error, LockError, Shared, collections::DsmList};
use std::collections::BTreeMap;
use std::hint::spin_loop;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::yield_now;
use std::time::Duration;

pub(super) const SCENARIOS: &[(&str, Scenario)] = &[(SCENARIO, history)];

/// A word on a page of its own, whatever the page size: no box of this length shares one.
#[derive(Shared)]
#[repr(C, align(4096))]
struct Lone {
    word: AtomicU64,
}

/// The words of one kind: the first shares a page with others, the second does not.
#[derive(Shared)]
#[repr(C)]
struct Words {
    counter: AtomicU64,
    register: AtomicU64,
    lone_counter: Lone,
    lone_register: Lone,
}

/// A queue or a list.
type List = DsmMutex<DsmList<u64>>;

/// The objects of a round.
#[derive(Shared)]
#[repr(C)]
struct Board {
    words: Words,
    queues: [List; OBJECTS_OF_KIND],
    lists: [List; OBJECTS_OF_KIND],
    /// Threads that are ready.
    ready: Lone,
}

impl Board {
    fn new(dsm: &Dsm) -> Result<Board, Error> {
        let word = || AtomicU64::new(0);
        let list = || DsmMutex::new(dsm, DsmList::new());
        let words = Words {
            counter: word(),
            register: word(),
            lone_counter: Lone { word: word() },
            lone_register: Lone { word: word() },
        };
        let (queues, lists) = ([list()?, list()?], [list()?, list()?]);
        Ok(Board { words, queues, lists, ready: Lone { word: word() } })
    }

    fn word(&self, name: Name) -> &AtomicU64 {
        let words = &self.words;
        match (name.kind, name.index) {
            (Kind::Counter, 0) => &words.counter,
            (Kind::Counter, _) => &words.lone_counter.word,
            (Kind::Register, 0) => &words.register,
            (Kind::Register, _) => &words.lone_register.word,
            (Kind::Queue | Kind::List, _) => panic!("{name} is no word"),
        }
    }

    fn sequence(&self, name: Name) -> &List {
        match name.kind {
            Kind::Queue => &self.queues[name.index],
            Kind::List => &self.lists[name.index],
            Kind::Counter | Kind::Register => panic!("{name} is no sequence"),
        }
    }
}

/// Of so many values, a mutant loses one.
const LOSES_EVERY: u64 = 8;

/// What one thread remembers.
#[derive(Default)]
struct Record {
    words: BTreeMap<Name, Vec<EntryOf<Word>>>,
    sequences: BTreeMap<Name, Vec<EntryOf<Sequence>>>,
    /// What each word was when this thread saw it last.
    seen: BTreeMap<Name, u64>,
    /// When its last operation ended.
    last: u64,
}

struct Run<'a> {
    dsm: &'a Dsm,
    seed: u64,
    threads: u64,
    mutant: Option<Mutant>,
}

fn history(arguments: &Arguments) -> Outcome {
    let (seed, rounds) = (arguments.number("seed"), arguments.number("rounds"));
    let kind = Kind::ALL.into_iter().find(|kind| format!("{kind:?}") == arguments.text("object"));
    let kinds = kind.map_or(Kind::ALL.to_vec(), |kind| vec![kind]);
    let mutant = Mutant::from_str(arguments.text("mutant"), false).ok();
    let threads = arguments.number("threads");
    with_cluster(|dsm| {
        fact(CLOCK, clock::identity());
        let run = Run { dsm, seed, threads, mutant };
        for number in 0..rounds {
            run.round(number, &kinds)?;
        }
        Ok(())
    })
}

impl Run<'_> {
    fn round(&self, number: u64, kinds: &[Kind]) -> Outcome {
        let all = u64::from(self.dsm.size()) * self.threads;
        let round = Round::draw(self.seed, number, kinds, all);
        let board = self.dsm.root(&format!("board {number}"), Board::new)?;
        at(format_args!("round {number}"));
        let records = Mutex::new(Vec::new());
        on_threads(self.dsm, self.threads, |thread| {
            let record = self.turns(board, number, &round, thread)?;
            records.lock().expect("a panic ends the process").push(record);
            Ok(())
        })?;
        meet(self.dsm, format_args!("round {number} is over"))?;
        let mut records = records.into_inner().expect("a panic ends the process");
        if u64::from(self.dsm.rank()) == number % u64::from(self.dsm.size()) {
            records.push(self.last_look(board, &round)?);
        }
        for record in records {
            record.tell(number);
        }
        Ok(())
    }

    fn turns(&self, board: &Board, number: u64, round: &Round, thread: u64) -> Result<Record, Error> {
        let mut record = Record::default();
        let mut program = Program::new(self.seed, number, thread, &round.names);
        let me = self.thread(thread % self.threads);
        let all = u64::from(self.dsm.size()) * self.threads;
        board.ready.word.fetch_add(1, Ordering::AcqRel);
        while board.ready.word.load(Ordering::Acquire) < all {
            yield_now();
        }
        for _ in 0..round.turns {
            let turn = program.turn(|name| record.seen.get(&name).copied().unwrap_or(0));
            match turn.pause {
                Pause::None => {}
                Pause::Yield => yield_now(),
                Pause::Spin(turns) => (0..turns).for_each(|_| spin_loop()),
            }
            match turn.request {
                Request::Word(operation) => record.ask_word(board, me, turn.name, operation, self.mutant),
                Request::Sequence(operation) => {
                    record.ask_sequence(board, me, turn.name, (operation, turn.approach), self.mutant)?;
                }
            }
        }
        Ok(record)
    }

    /// What the objects are when nobody changes them any more.
    fn last_look(&self, board: &Board, round: &Round) -> Result<Record, Error> {
        let mut record = Record::default();
        let me = self.thread(self.threads);
        for &name in &round.names {
            match name.kind {
                Kind::Counter | Kind::Register => record.ask_word(board, me, name, WordOperation::Load, None),
                Kind::Queue | Kind::List => {
                    let look = (SequenceOperation::Elements, Approach::Wait);
                    record.ask_sequence(board, me, name, look, None)?;
                }
            }
        }
        Ok(record)
    }

    fn thread(&self, index: u64) -> Thread {
        let small = |number: u64| u16::try_from(number).expect("there are a few threads");
        Thread { node: small(u64::from(self.dsm.rank())), index: small(index) }
    }
}

impl Record {
    fn ask_word(
        &mut self,
        board: &Board,
        thread: Thread,
        name: Name,
        operation: WordOperation,
        mutant: Option<Mutant>,
    ) {
        let word = board.word(name);
        let seen = self.seen.get(&name).copied();
        let (invoked, answer, ended) = self.timed(|| match (mutant, operation, seen) {
            (Some(Mutant::LoadsFromMemory), WordOperation::Load, Some(seen)) => WordAnswer::Was(seen),
            (Some(Mutant::TearsAdditions), WordOperation::Add(more), _) => tear(word, more),
            (_, operation, _) => perform(word, operation),
        });
        match answer {
            WordAnswer::Done => {}
            WordAnswer::Was(value) | WordAnswer::Differed(value) => {
                self.seen.insert(name, value);
            }
        }
        let entry = Entry { thread, invoked, acted: ended, operation, returned: Some((ended, answer)) };
        self.words.entry(name).or_default().push(entry);
    }

    fn ask_sequence(
        &mut self,
        board: &Board,
        thread: Thread,
        name: Name,
        (operation, approach): (SequenceOperation, Approach),
        mutant: Option<Mutant>,
    ) -> Outcome {
        let lock = board.sequence(name);
        let early = match (mutant, operation) {
            (Some(Mutant::LooksEarly), SequenceOperation::Length | SequenceOperation::Elements) => {
                Some(change(&mut *lock.lock()?, operation)?)
            }
            (_, _) => None,
        };
        let mut acted = 0;
        let (invoked, answer, ended) = self.timed(|| -> Result<SequenceAnswer, Error> {
            let mut list = take(lock, approach)?;
            acted = clock::now();
            match (mutant, operation, early) {
                (_, _, Some(early)) => Ok(early),
                (Some(Mutant::LosesPushes), SequenceOperation::PushBack(value), _)
                    if value % LOSES_EVERY == 0 =>
                {
                    Ok(SequenceAnswer::Done)
                }
                (_, operation, _) => change(&mut list, operation),
            }
        });
        let entry = Entry { thread, invoked, acted, operation, returned: Some((ended, answer?)) };
        self.sequences.entry(name).or_default().push(entry);
        Ok(())
    }

    /// Times an operation. Its times differ from each other, and from those of the operation before.
    fn timed<T>(&mut self, operation: impl FnOnce() -> T) -> (u64, T, u64) {
        let later = |than: u64| {
            loop {
                let now = clock::now();
                assert!(now >= than, "the clock went back from {than} to {now}");
                if now > than {
                    return now;
                }
            }
        };
        let invoked = later(self.last);
        let answer = operation();
        self.last = later(invoked);
        (invoked, answer, self.last)
    }

    fn tell(self, round: u64) {
        let words = self.words.into_iter().map(|(name, entries)| (name, Entries::Word(entries)));
        let sequences = self.sequences.into_iter().map(|(name, entries)| (name, Entries::Sequence(entries)));
        for (name, entries) in words.chain(sequences) {
            let told = Told { round, name, entries };
            fact(SCENARIO, serde_json::to_string(&told).expect("numbers and names can be written down"));
        }
    }
}

fn take(lock: &List, approach: Approach) -> Result<DsmMutexGuard<'_, DsmList<u64>>, Error> {
    /// About as long as the lock takes to another node and back.
    const PATIENCE: Duration = Duration::from_micros(200);
    let denied = match approach {
        Approach::Wait => return Ok(lock.lock()?),
        Approach::Try => lock.try_lock(),
        Approach::GiveUpOnce => lock.lock_timeout(PATIENCE),
    };
    match denied {
        Err(LockError::WouldBlock | LockError::Timeout { .. }) => Ok(lock.lock()?),
        taken => Ok(taken?),
    }
}

fn perform(word: &AtomicU64, operation: WordOperation) -> WordAnswer {
    // Linearizability is what the strongest order promises. The store is an exchange in the machine, so that it has
    // taken effect when it ends.
    const ORDER: Ordering = Ordering::SeqCst;
    match operation {
        WordOperation::Load => WordAnswer::Was(word.load(ORDER)),
        WordOperation::Store(value) => {
            word.store(value, ORDER);
            WordAnswer::Done
        }
        WordOperation::Swap(value) => WordAnswer::Was(word.swap(value, ORDER)),
        WordOperation::Add(more) => WordAnswer::Was(word.fetch_add(more, ORDER)),
        WordOperation::CompareExchange { expected, new } => {
            let exchanged = word.compare_exchange(expected, new, ORDER, ORDER);
            exchanged.map_or_else(WordAnswer::Differed, WordAnswer::Was)
        }
    }
}

/// An addition as a mutant does it.
fn tear(word: &AtomicU64, more: u64) -> WordAnswer {
    let was = word.load(Ordering::SeqCst);
    yield_now();
    word.store(was + more, Ordering::SeqCst);
    WordAnswer::Was(was)
}

fn change(list: &mut DsmList<u64>, operation: SequenceOperation) -> Result<SequenceAnswer, Error> {
    let done = |()| SequenceAnswer::Done;
    Ok(match operation {
        SequenceOperation::PushBack(value) => list.push_back(value).map(done)?,
        SequenceOperation::PushFront(value) => list.push_front(value).map(done)?,
        SequenceOperation::Insert(index, value) => match list.insert(index, value) {
            Ok(()) => SequenceAnswer::Done,
            Err(Error::Argument(_)) => SequenceAnswer::Refused,
            Err(error) => return Err(error),
        },
        SequenceOperation::PopFront => SequenceAnswer::Element(list.pop_front()),
        SequenceOperation::PopBack => SequenceAnswer::Element(list.pop_back()),
        SequenceOperation::Remove(index) => SequenceAnswer::Element(list.remove(index)),
        SequenceOperation::Rotate => {
            let first = list.pop_front();
            if let Some(value) = first {
                list.push_back(value)?;
            }
            SequenceAnswer::Element(first)
        }
        SequenceOperation::Length => SequenceAnswer::Length(list.len()),
        SequenceOperation::Elements => {
            let elements: Vec<u64> = list.iter().copied().collect();
            // The links back must tell the same.
            let back = list.iter().rev().copied();
            let same = back.eq(elements.iter().rev().copied());
            if same { SequenceAnswer::Elements(elements) } else { SequenceAnswer::Broken }
        }
    })
}
