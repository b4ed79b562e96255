//! What it costs to survive: the time of a record, the price of replication on a shared list, and how long a death holds
//! the others up. Each has a cluster of its own, with as many replicas as it is about.

use super::floor::{self, nanos_since};
use super::{Figure, PATIENCE};
use crate::Shared;
use crate::collections::DsmList;
use crate::config::Builder;
use crate::dsm::Dsm;
use crate::error::{Error, Result};
use crate::launch::{Cluster, Launch, Line, Output, Stream};
use crate::pidfd;
use crate::refs::{DsmBox, DsmRef};
use crate::stats::Latency;
use crate::sync::DsmMutex;
use crate::testing;
use crate::witness::now;
use dsm_core::limits;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Map, Value};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

/// Pages of the records that are timed: one store, a section's worth, and as much as is committed at once unasked.
const RECORD_PAGES: [usize; 3] = [1, 16, limits::WRITE_BEHIND_PAGES];

/// Records of each length, and round trips of each floor.
const RECORDS: usize = 200;

/// What a record's ack weighs on the wire.
const ACK_LENGTH: usize = 64;

/// Rounds of the list, and what each node appends in one.
const ROUNDS: usize = 20;
const APPENDS: u64 = 50;

/// Nodes of the list and of the death.
const NODES: u32 = 4;

/// Deaths that are timed.
const DEATHS: usize = 5;

/// Who dies.
const VICTIM: u32 = 2;

/// What each node has touched when one dies: a quarter of 256 MiB.
const TOUCHED_PAGES: usize = (64 << 20) / PAGE;

/// Pages of the victim that the others read one after another, so that one waits for such a page whenever it dies.
const READ_PAGES: usize = 2048;

/// Between two of these reads.
const READ_PAUSE: Duration = Duration::from_micros(200);

/// The lease of a cluster in which one node is stopped.
const LEASE: Duration = Duration::from_millis(500);

/// From the moment at which all nodes are ready to the kill: the readers are in their stride.
const KILL_DELAY: Duration = Duration::from_millis(20);

const PAGE: usize = limits::PAGE_SIZE_DEFAULT as usize;

/// One page of the region.
#[derive(Shared)]
#[repr(C, align(4096))]
struct Page {
    words: [AtomicU64; PAGE / size_of::<u64>()],
}

/// Some pages that all nodes find.
#[derive(Shared)]
#[repr(C)]
struct Pages<const N: usize> {
    pages: [DsmRef<Page>; N],
}

/// The figures of commits: one record of each length, and the list with and without replicas.
pub(super) fn commit() -> Result<Map<String, Value>> {
    let mut figures = figures_of(job("record", 2, 1).output(Output::Captured).spawn()?)?;
    let mut per_item = [0, 1].map(|_| Latency::new());
    // In turns, so that a drift of the machine moves both.
    for _ in 0..2 {
        for (replicas, latency) in (0..).zip(&mut per_item) {
            let taken = figures_of(job("append", NODES, replicas).output(Output::Captured).spawn()?)?;
            let nanos = taken.get("nanos").and_then(Value::as_array).into_iter().flatten();
            nanos.filter_map(Value::as_u64).for_each(|nanos| latency.record(nanos));
        }
    }
    let [without, with] = &per_item;
    for (name, latency) in [("append_k0", without), ("append_k1", with)] {
        figures.insert(name.to_owned(), Figure::new(latency, without.p50_us()).to_json());
    }
    Ok(figures)
}

/// The figures of recovery: from a kill, and from a stop that only the lease can tell from an idle node, to the first
/// fault that is resolved though its page's owner is gone.
pub(super) fn recovery() -> Result<Map<String, Value>> {
    let mut figures = Map::new();
    let (mut took, mut ended) = (Latency::new(), Latency::new());
    for _ in 0..DEATHS {
        let cluster = Doomed::start(job("death", NODES, 1))?;
        let pidfd = cluster.nodes.pid(VICTIM).map(pidfd::open).transpose();
        let pidfd = pidfd.map_err(|error| Error::io("watching a node", error))?;
        let killed = now().as_nanos();
        cluster.nodes.kill(VICTIM);
        if let Some(pidfd) = pidfd {
            // An interrupted wait ends early, which makes the floor lower, not higher.
            let _ = poll(&mut [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)], PollTimeout::MAX);
            ended.record(now().as_nanos().saturating_sub(killed));
        }
        took.record(cluster.recovered()?.saturating_sub(killed));
    }
    figures.insert("recovery".to_owned(), Figure::new(&took, ended.p50_us()).to_json());
    let mut took = Latency::new();
    for _ in 0..DEATHS {
        let cluster = Doomed::start(job("death", NODES, 1).lease(LEASE))?;
        let stopped = now().as_nanos();
        let pid = cluster.nodes.pid(VICTIM).and_then(|pid| i32::try_from(pid).ok());
        // Of a node that has ended there is nothing to be stopped, which the others' failure will tell.
        let _ = pid.map(|pid| kill(Pid::from_raw(pid), Signal::SIGSTOP));
        took.record(cluster.recovered()?.saturating_sub(stopped));
    }
    let lease = LEASE.as_secs_f64() * 1e6;
    figures.insert("recovery_by_lease".to_owned(), Figure::new(&took, lease).to_json());
    Ok(figures)
}

/// A cluster of which one node is about to go.
struct Doomed {
    nodes: Cluster,
    received: Receiver<Line>,
}

impl Doomed {
    /// Starts it, and waits until its nodes are in their stride.
    fn start(launch: Launch) -> Result<Doomed> {
        let (lines, received) = channel();
        let nodes = launch.output(Output::Lines(lines)).spawn()?;
        await_ready(&nodes, &received)?;
        thread::sleep(KILL_DELAY);
        Ok(Doomed { nodes, received })
    }

    /// When the first of the survivors got what it had waited for, after all have.
    fn recovered(self) -> Result<u64> {
        let start = Instant::now();
        let mut resolved: Vec<u64> = Vec::new();
        while resolved.len() + 1 < NODES as usize {
            let left = PATIENCE.saturating_sub(start.elapsed());
            let Ok(line) = self.received.recv_timeout(left) else { break };
            resolved.extend(line.text.parse::<u64>().ok().filter(|_| line.stream == Stream::Stdout));
        }
        // One that was stopped would be waited for in vain.
        self.nodes.kill(VICTIM);
        let outcome = self.nodes.wait(PATIENCE.saturating_sub(start.elapsed()));
        let failed = || Error::Argument(format!("the nodes did not survive: {outcome}"));
        resolved.into_iter().min().filter(|_| outcome.success()).ok_or_else(failed)
    }
}

fn job(name: &str, nodes: u32, replicas: u32) -> Launch {
    super::launch(nodes, replicas, &format!("{JOB}{name}"))
}

/// What the variable begins with that tells a node which of these jobs is its.
pub(super) const JOB: &str = "job:";

/// What rank 0 prints last.
fn figures_of(cluster: Cluster) -> Result<Map<String, Value>> {
    let outcome = cluster.wait(PATIENCE);
    let line = outcome.nodes.first().and_then(|node| node.stdout.lines().last());
    match line.and_then(|line| serde_json::from_str(line).ok()) {
        Some(Value::Object(figures)) if outcome.success() => Ok(figures),
        Some(_) | None => Err(Error::Argument(format!("the nodes that measure failed: {outcome}"))),
    }
}

fn await_ready(cluster: &Cluster, received: &Receiver<Line>) -> Result<()> {
    let (start, mut ready) = (Instant::now(), 0);
    while ready < NODES {
        let late = |_| {
            Error::Argument(format!("the nodes were not ready in time: {}", cluster.wait(Duration::ZERO)))
        };
        let line = received.recv_timeout(PATIENCE.saturating_sub(start.elapsed())).map_err(late)?;
        ready += u32::from(line.text == READY);
    }
    Ok(())
}

const READY: &str = "ready";

/// One node of a job.
pub(super) fn run_node(name: &str) -> Result<()> {
    let dsm = Builder::from_env()?.join()?;
    match name {
        "record" => time_records(&dsm)?,
        "append" => time_appends(&dsm)?,
        "death" => time_death(&dsm)?,
        other => return Err(Error::Argument(format!("there is no job {other:?}"))),
    }
    dsm.leave()
}

fn new_pages(dsm: &Dsm, count: usize) -> Result<Vec<DsmRef<Page>>> {
    let page = || Page { words: [const { AtomicU64::new(1) }; PAGE / size_of::<u64>()] };
    (0..count).map(|_| Ok(DsmBox::leak(dsm.alloc(page())?))).collect()
}

/// Rank 0 stores to pages and has them committed; rank 1 keeps them, and answers the floor's round trips.
fn time_records(dsm: &Dsm) -> Result<()> {
    let port = dsm.root("port", |_| Ok(AtomicU64::new(0)))?;
    let pages = if dsm.rank() == 0 { new_pages(dsm, limits::WRITE_BEHIND_PAGES)? } else { Vec::new() };
    let mut figures = Map::new();
    for count in RECORD_PAGES {
        let bytes = count * PAGE;
        if dsm.rank() == 1 {
            port.store(0, Ordering::SeqCst);
            dsm.barrier()?;
            floor::answer_round_trips(bytes, ACK_LENGTH, |bound| port.store(bound.into(), Ordering::SeqCst))?;
        } else {
            dsm.barrier()?;
            while port.load(Ordering::SeqCst) == 0 {
                thread::yield_now();
            }
            let port = u16::try_from(port.load(Ordering::SeqCst)).unwrap_or_default();
            let floor = floor::round_trip(port, bytes, ACK_LENGTH, RECORDS)?;
            let mut latency = Latency::new();
            for _ in 0..RECORDS {
                dsm.sync()?;
                for page in &pages[..count] {
                    page.words[0].fetch_add(1, Ordering::Relaxed);
                }
                let start = Instant::now();
                dsm.sync()?;
                latency.record(nanos_since(start));
            }
            let name = if count == 1 { "commit".to_owned() } else { format!("commit_{count}") };
            figures.insert(name, Figure::new(&latency, floor.p50_us()).to_json());
        }
        dsm.barrier()?;
    }
    if dsm.rank() == 0 {
        println!("{}", Value::Object(figures));
    }
    Ok(())
}

/// All nodes append to one list; rank 0 takes the time per item of each round.
fn time_appends(dsm: &Dsm) -> Result<()> {
    let list: &DsmMutex<DsmList<u64>> = dsm.root("list", |dsm| DsmMutex::new(dsm, DsmList::new()))?;
    let mut nanos = Vec::new();
    for round in 0..=ROUNDS {
        dsm.barrier()?;
        let start = Instant::now();
        for item in 0..APPENDS {
            let mut guard = list.lock()?;
            guard.push_back(item)?;
            guard.commit()?;
        }
        dsm.barrier()?;
        // The first warms up.
        if round > 0 {
            nanos.push(Value::from(nanos_since(start) / (APPENDS * u64::from(NODES))));
        }
    }
    if dsm.rank() == 0 {
        println!("{}", Value::Object(Map::from_iter([("nanos".to_owned(), Value::Array(nanos))])));
    }
    Ok(())
}

/// All nodes touch what they have; then one is killed while the others read what it has.
fn time_death(dsm: &Dsm) -> Result<()> {
    let mine = new_pages(dsm, TOUCHED_PAGES)?;
    if dsm.rank() == VICTIM {
        dsm.root("pages", |_| Ok(Pages::<READ_PAGES> { pages: std::array::from_fn(|index| mine[index]) }))?;
    }
    dsm.sync()?;
    dsm.barrier()?;
    let pages = dsm.root("pages", |_| Err::<Pages<READ_PAGES>, _>(Error::NotJoined))?;
    println!("{READY}");
    if dsm.rank() == VICTIM {
        loop {
            thread::park();
        }
    }
    let mut turns = pages.pages.iter().cycle();
    let resolved = loop {
        if let Some(page) = turns.next() {
            std::hint::black_box(page.words[0].load(Ordering::Relaxed));
        }
        match testing::recovery_times(dsm).first() {
            Some(recovery) => break recovery.first_resolved_at.unwrap_or(recovery.resumed_at),
            None => thread::sleep(READ_PAUSE),
        }
    };
    println!("{resolved}");
    Ok(())
}
