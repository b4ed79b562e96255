//! One node of the list: joins, appends its share, walks and checks the whole, and reports to the process that
//! started it, in lines of JSON on standard output. Nothing here knows how many machines there are.

use super::Memory;
use super::check::{Check, Item, Verdict, share};
use super::report::{NodeLine, Report};
use dsm_node::collections::DsmList;
use dsm_node::launch::usage;
use dsm_node::{Dsm, DsmBox, DsmMutex, DsmRef, Error, Shared};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Progress is reported this often at most: often enough for a bar, and free beside a fault.
const REPORT_INTERVAL: Duration = Duration::from_millis(100);

/// One node of `list`.
#[derive(clap::Args)]
pub struct Arguments {
    /// How many items all nodes append together
    #[arg(long)]
    items: u64,
    /// Where the list lives
    #[arg(long, value_enum)]
    memory: Memory,
}

/// Runs this process's node.
pub fn run(arguments: &Arguments) -> ExitCode {
    match build_and_check(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&NodeLine::Failed { message: error.to_string() });
            match error {
                Error::Unsupported { .. } | Error::Config(_) | Error::Geometry(_) => {
                    ExitCode::from(usage::EXIT_CODE)
                }
                // The enum grows with the library; whatever else goes wrong is a failure of the run.
                _ => ExitCode::FAILURE,
            }
        }
    }
}

/// Times of faults in one line: some kilobytes.
const TIMES_PER_LINE: usize = 256;

fn build_and_check(arguments: &Arguments) -> Result<(), Error> {
    let dsm = Dsm::join()?;
    let list = SharedList::open(&dsm, arguments.memory)?;
    let mut progress = Progress::start();
    let items = share(arguments.items, dsm.size(), dsm.rank());
    for sequence in 0..items {
        // What was acknowledged is known exactly, whatever happens next.
        list.append(Item { rank: u64::from(dsm.rank()), sequence })
            .inspect_err(|_| say(&NodeLine::Appended { count: sequence }))?;
        progress.step(|count| NodeLine::Appended { count });
    }
    say(&NodeLine::Appended { count: items });
    dsm.barrier()?;
    let verdict = walk(&list, arguments.items, dsm.size())?;
    let stats = dsm.stats();
    // In pieces: a line is no place for thousands of figures.
    for nanos in stats.fault_latency().buckets().chunks(TIMES_PER_LINE) {
        say(&NodeLine::Faults { nanos: nanos.to_vec() });
    }
    say(&NodeLine::Report(Box::new(Report {
        acknowledged: items,
        verdict,
        read_faults: stats.read_faults,
        write_faults: stats.write_faults,
        pages_moved: stats.pages_received,
        bytes_moved: stats.bytes_received,
    })));
    dsm.leave()
}

fn walk(list: &SharedList<'_>, items: u64, nodes: u32) -> Result<Verdict, Error> {
    let mut progress = Progress::start();
    let mut check = Check::new(items, nodes);
    list.walk(|item| {
        check.visit(item);
        progress.step(|count| NodeLine::Checked { count });
    })?;
    Ok(check.finish())
}

/// An item in the plain heap, and the one appended before it.
#[derive(Shared)]
#[repr(C)]
struct Link {
    item: Item,
    previous: Option<DsmRef<Link>>,
}

/// A list in the plain heap: the links never change once they can be reached, and the lock guards the last one.
#[derive(Shared)]
#[repr(C)]
struct Chain {
    last: Option<DsmRef<Link>>,
    length: u64,
}

/// The list, in either kind of memory.
enum SharedList<'d> {
    Guarded(&'d DsmMutex<DsmList<Item>>),
    Plain(&'d Dsm, &'d DsmMutex<Chain>),
}

impl<'d> SharedList<'d> {
    fn open(dsm: &'d Dsm, memory: Memory) -> Result<SharedList<'d>, Error> {
        match memory {
            Memory::Guarded => {
                let list = dsm.root("list", |dsm| DsmMutex::new(dsm, DsmList::new()))?;
                Ok(SharedList::Guarded(list))
            }
            Memory::Plain => {
                let empty = Chain { last: None, length: 0 };
                let chain = dsm.root("chain", |dsm| DsmMutex::new(dsm, empty))?;
                Ok(SharedList::Plain(dsm, chain))
            }
        }
    }

    /// Appends one item in a critical section of its own. It is acknowledged when this returns.
    fn append(&self, item: Item) -> Result<(), Error> {
        match self {
            SharedList::Guarded(list) => {
                let mut list = list.lock()?;
                list.push_back(item)?;
                list.commit()
            }
            SharedList::Plain(dsm, chain) => {
                let mut link = dsm.alloc(Link { item, previous: None })?;
                let mut chain = chain.lock()?;
                link.previous = chain.last;
                chain.last = Some(DsmBox::leak(link));
                chain.length += 1;
                chain.commit()
            }
        }
    }

    /// Calls `visit` with each item, the oldest first.
    fn walk(&self, mut visit: impl FnMut(Item)) -> Result<(), Error> {
        match self {
            SharedList::Guarded(list) => list.lock()?.iter().copied().for_each(visit),
            SharedList::Plain(_, chain) => {
                let chain = chain.lock()?;
                // No more links than were appended: a damaged chain may run in a circle.
                let bound = usize::try_from(chain.length).unwrap_or(usize::MAX).saturating_add(1);
                let newest_first = std::iter::successors(chain.last, |link| link.previous);
                let items: Vec<Item> = newest_first.take(bound).map(|link| link.item).collect();
                items.into_iter().rev().for_each(&mut visit);
            }
        }
        Ok(())
    }
}

/// Counts steps, and says so from time to time.
struct Progress {
    count: u64,
    said: Instant,
}

impl Progress {
    fn start() -> Progress {
        Progress { count: 0, said: Instant::now() }
    }

    fn step(&mut self, line: impl FnOnce(u64) -> NodeLine) {
        self.count += 1;
        if self.said.elapsed() >= REPORT_INTERVAL {
            self.said = Instant::now();
            say(&line(self.count));
        }
    }
}

/// Tells the process that started this one.
fn say(line: &NodeLine) {
    println!("{}", line.to_json());
}
