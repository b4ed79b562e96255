//! One node of the list: joins, appends its share, walks and checks the whole, and reports to the process that
//! started it, in lines of JSON on standard output. Nothing here knows how many machines there are.

use super::Memory;
use super::check::{Check, Item, share};
use super::line::{Break, NodeLine, Report};
use super::memory::{Finding, SharedList};
use dsm_node::launch::{Signal, usage};
use dsm_node::{Dsm, Error};
use nix::sys::signal::SigSet;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Progress is reported this often at most: what a node had not reported when it was killed does not count as acknowledged,
/// and a line costs little beside the commits of so much time.
const REPORT_INTERVAL: Duration = Duration::from_millis(10);

/// What a node that holds still is told to go on by.
pub const GO_ON: Signal = Signal::SIGUSR1;

/// Times of faults in one line: some kilobytes.
const TIMES_PER_LINE: usize = 256;

/// One node of `list`.
#[derive(clap::Args)]
pub struct Arguments {
    /// How many items all nodes append together
    #[arg(long)]
    items: u64,
    /// Where the list lives
    #[arg(long, value_enum)]
    memory: Memory,
    /// Lengths of the list to hold still at
    #[arg(long)]
    announce: Vec<u64>,
}

/// Runs this process's node.
pub fn run(arguments: &Arguments) -> ExitCode {
    // Before the node's own threads start, which must not take it either. It fails only for signals that do not exist.
    let _ = SigSet::from(GO_ON).thread_block();
    match take_part(arguments) {
        Ok(code) => code,
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

fn take_part(arguments: &Arguments) -> Result<ExitCode, Error> {
    let dsm = Dsm::join()?;
    let list = SharedList::open(&dsm, arguments.memory)?;
    let mut acknowledged = 0;
    let appended = append_share(&dsm, &list, arguments, &mut acknowledged);
    // What was acknowledged is known exactly, whatever happens next.
    say(&NodeLine::Appended { count: acknowledged });
    let finding = examine(&dsm, &list, arguments, appended);
    for recovery in dsm_node::testing::recovery_times(&dsm) {
        say(&NodeLine::Recovered { at: recovery.first_resolved_at.unwrap_or(recovery.resumed_at) });
    }
    let (verdict, code) = match finding? {
        Finding::Whole(verdict) => (Some(verdict), ExitCode::SUCCESS),
        Finding::Broken(broken) => {
            say(&NodeLine::Broken(broken));
            (None, ExitCode::FAILURE)
        }
    };
    report(&dsm, Report { acknowledged, verdict, ..Report::default() });
    dsm.leave().map(|()| code)
}

/// Appends this node's share, and counts what was acknowledged.
fn append_share(
    dsm: &Dsm,
    list: &SharedList<'_>,
    arguments: &Arguments,
    acknowledged: &mut u64,
) -> Result<(), Error> {
    let mut progress = Progress::start();
    let mut lengths = arguments.announce.clone();
    let rank = u64::from(dsm.rank());
    for sequence in 0..share(arguments.items, dsm.size(), dsm.rank()) {
        list.append(Item { rank, sequence }, |reached| {
            for length in lengths.extract_if(.., |length| *length <= reached) {
                say(&NodeLine::Reached { length, count: sequence });
                hold_still();
            }
        })?;
        *acknowledged += 1;
        progress.step(|count| NodeLine::Appended { count });
    }
    Ok(())
}

/// Waits until the process that started this one says that it is to go on; the other answer is its death.
fn hold_still() {
    // It fails only for signals that do not exist.
    let _ = SigSet::from(GO_ON).wait();
}

/// Waits for the others, and walks the list. Where something is lost, it is told how far a walk comes.
fn examine(
    dsm: &Dsm,
    list: &SharedList<'_>,
    arguments: &Arguments,
    appended: Result<(), Error>,
) -> Result<Finding, Error> {
    let gathered = match appended.and_then(|()| dsm.barrier()) {
        Ok(_) => Ok(()),
        // The walk shows what is left.
        Err(error @ Error::Lost(_)) => Err(error),
        Err(error) => return Err(error),
    };
    let mut progress = Progress::start();
    let check = Check::new(arguments.items, dsm.size());
    let finding = list.walk(check, || progress.step(|count| NodeLine::Checked { count }))?;
    match (gathered, finding) {
        (Ok(()), finding) | (Err(_), finding @ Finding::Broken(_)) => Ok(finding),
        // What was lost is not on the way, or not any more.
        (Err(Error::Lost(lost)), Finding::Whole(_)) => Ok(Finding::Broken(Break::new(lost, None))),
        (Err(error), Finding::Whole(_)) => Err(error),
    }
}

/// Says what this node has counted.
fn report(dsm: &Dsm, outcome: Report) {
    let stats = dsm.stats();
    // In pieces: a line is no place for thousands of figures.
    for nanos in stats.fault_latency().buckets().chunks(TIMES_PER_LINE) {
        say(&NodeLine::Faults { nanos: nanos.to_vec() });
    }
    say(&NodeLine::Report(Box::new(Report {
        read_faults: stats.read_faults,
        write_faults: stats.write_faults,
        pages_moved: stats.pages_received,
        bytes_moved: stats.bytes_received,
        lost_pages: stats.lost_pages,
        ..outcome
    })));
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
