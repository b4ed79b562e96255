//! Runs a scenario on real nodes: N copies of the `worker` binary, real userfaultfd, real sockets, one time budget.
//!
//! ```text
//!  test ── Scenario ── start ──▶ Running: lines as they come, kill, signal ── finish ──▶ Report: assertions
//! ```
//! Workers say what they are about to do (`at: …`) and what they found (`name=value`). When the budget is over, the
//! harness says what each node was at, and where each of its threads was in the kernel, ends all of them, and fails the
//! test. What a scenario does is the worker's business; whether that was right is asserted there, or on the report.

mod agreement;
mod network;
pub mod ports;
mod report;
pub(crate) mod stuck;

pub use network::Network;
pub use report::{NodeReport, Report};

use dsm_node::launch::{Cluster, Ending, Launch, Line, Output, Signal, Stream, TransportKind};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt::Display;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// What a scenario may take unless it says otherwise: many times what it takes on two noisy cores.
const BUDGET_DEFAULT: Duration = Duration::from_secs(60);

/// Ends are not announced on the lines' channel, nor is silence: so often it is looked for them.
const LOOK: Duration = Duration::from_millis(5);

/// In the environment of a shell that starts a node: what it becomes, ...
const PROGRAM: &str = "DSM_TEST_PROGRAM";

/// ... and in which network namespace.
const SPACE: &str = "DSM_TEST_SPACE";

/// What a line begins with that says what a worker is about to do.
pub const AT: &str = "at: ";

/// Where a worker is once a call has told it that a node died.
pub const TOLD: &str = "told";

/// A scenario on the worker of the calling test; the first argument is its name.
#[macro_export]
macro_rules! scenario {
    ($name:expr) => {
        $crate::harness::Scenario::new(env!("CARGO_BIN_EXE_worker"), $name)
    };
}

/// What to run.
#[must_use = "a scenario does nothing until it runs"]
pub struct Scenario {
    name: String,
    nodes: u32,
    budget: Duration,
    silence: Option<Duration>,
    launch: Launch,
}

/// A scenario that runs. Dropping it ends its nodes.
pub struct Running {
    name: String,
    started: Instant,
    budget: Duration,
    silence: Option<Duration>,
    cluster: Cluster,
    lines: Receiver<Line>,
    said: Vec<Vec<Line>>,
    /// When each node was heard last; what does not matter of one that is kept from saying anything.
    heard: Vec<Instant>,
    /// The nodes that may be silent.
    excused: RefCell<BTreeSet<u32>>,
}

impl Scenario {
    /// The scenario `name` of the program `worker`, on one node, over TCP.
    pub fn new(worker: &str, name: &str) -> Scenario {
        Scenario {
            name: name.to_owned(),
            nodes: 1,
            budget: BUDGET_DEFAULT,
            silence: None,
            launch: Launch::new(worker).arg(name).env("RUST_BACKTRACE", "0"),
        }
    }

    /// As [`Scenario::new`], but `other` is the program of one rank.
    pub fn with_other_program(worker: &str, other: &str, rank: u32, name: &str) -> Scenario {
        let script = format!("exec \"${PROGRAM}\" \"$@\"");
        let launch = Launch::new("/bin/sh").args(["-c", &script, "sh", name]);
        let launch = launch.env(PROGRAM, worker).env_of(rank, PROGRAM, other);
        Scenario { name: name.to_owned(), nodes: 1, budget: BUDGET_DEFAULT, silence: None, launch }
    }

    /// As [`Scenario::new`], with each node in its place in `network`, and no launcher that has a vote.
    pub fn in_network(worker: &str, network: &Network, name: &str) -> Scenario {
        let script = format!("exec ip netns exec \"${SPACE}\" \"${PROGRAM}\" \"$@\"");
        let launch = Launch::new("/bin/sh").args(["-c", &script, "sh", name]).env(PROGRAM, worker);
        let this =
            Scenario { name: name.to_owned(), nodes: 1, budget: BUDGET_DEFAULT, silence: None, launch };
        let this = this.nodes(network.nodes()).env("DSM_TRUST_NETWORK", "1").env("DSM_WITNESS_FD", "");
        let this = this.env("DSM_RENDEZVOUS", network.meeting()).env("DSM_RENDEZVOUS_FD", "");
        (0..network.nodes()).fold(this, |this, rank| {
            let this = this.env_of(rank, SPACE, network.space_of(rank));
            this.env_of(rank, "DSM_LISTEN", network.listen_of(rank)).env_of(
                rank,
                "DSM_HOST",
                rank.to_string(),
            )
        })
    }

    /// On so many nodes.
    pub fn nodes(mut self, nodes: u32) -> Scenario {
        self.nodes = nodes;
        self.launch = self.launch.nodes(nodes);
        self
    }

    /// Over this transport.
    pub fn transport(mut self, transport: TransportKind) -> Scenario {
        self.launch = self.launch.transport(transport);
        self
    }

    /// With pages of so many bytes.
    pub fn page_size(self, bytes: u64) -> Scenario {
        self.env("DSM_PAGE_SIZE", bytes.to_string())
    }

    /// With a region of so many bytes.
    pub fn region_size(self, bytes: u64) -> Scenario {
        self.env("DSM_REGION_SIZE", bytes.to_string())
    }

    /// As the user nobody, who may use userfaultfd for faults of user mode only.
    pub fn unprivileged(self) -> Scenario {
        self.env(crate::worker::UNPRIVILEGED, "1")
    }

    /// With an argument that the scenario reads by its name.
    pub fn arg(mut self, name: &str, value: impl Display) -> Scenario {
        self.launch = self.launch.arg(format!("{name}={value}"));
        self
    }

    /// With a variable in the environment of all nodes.
    pub fn env(mut self, name: &str, value: impl Into<OsString>) -> Scenario {
        self.launch = self.launch.env(name, value.into());
        self
    }

    /// As a node that another launcher, which is not there, has started: of a cluster of `nodes` that meets at `address`.
    pub fn as_late_comer(self, rank: u32, nodes: u32, address: &str) -> Scenario {
        let this = self.env("DSM_RANK", rank.to_string()).env("DSM_NODES", nodes.to_string());
        // The socket that the launcher passes on is for another address.
        this.env("DSM_RENDEZVOUS", address).env("DSM_RENDEZVOUS_FD", "")
    }

    /// With a variable in the environment of one node.
    pub fn env_of(mut self, rank: u32, name: &str, value: impl Into<OsString>) -> Scenario {
        self.launch = self.launch.env_of(rank, name, value.into());
        self
    }

    /// It fails if it takes longer.
    pub fn budget(mut self, budget: Duration) -> Scenario {
        self.budget = budget;
        self
    }

    /// It fails if a node that runs, and is not frozen, says nothing for so long: then it hangs.
    pub fn silence(mut self, silence: Duration) -> Scenario {
        self.silence = Some(silence);
        self
    }

    /// Starts the nodes.
    ///
    /// # Panics
    /// If that cannot be done.
    pub fn start(self) -> Running {
        let (sender, lines) = channel();
        // The harness judges by itself how long the others may go on after one has failed.
        let launch = self.launch.output(Output::Lines(sender)).grace(self.budget);
        let started = Instant::now();
        let cluster = launch.spawn().unwrap_or_else(|error| panic!("{}: {error}", self.name));
        Running {
            name: self.name,
            started,
            budget: self.budget,
            silence: self.silence,
            cluster,
            lines,
            said: vec![Vec::new(); self.nodes as usize],
            heard: vec![started; self.nodes as usize],
            excused: RefCell::new(BTreeSet::new()),
        }
    }

    /// Runs the nodes to their end; all must end well.
    ///
    /// # Panics
    /// If one of them fails, or the budget is over.
    pub fn run(self) -> Report {
        let report = self.start().finish();
        report.expect_success();
        report
    }
}

impl Running {
    /// The nodes.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// The process id of a node.
    ///
    /// # Panics
    /// If it has ended.
    pub fn pid(&self, rank: u32) -> u32 {
        self.cluster.pid(rank).unwrap_or_else(|| self.fail(&format!("rank {rank} has ended early")))
    }

    /// How many nodes there are.
    pub fn nodes(&self) -> u32 {
        self.said.len() as u32
    }

    /// A variable in the environment in which a node was started.
    ///
    /// # Panics
    /// If the node has ended, or has no such variable.
    pub fn variable(&self, rank: u32, name: &str) -> String {
        let text = std::fs::read_to_string(format!("/proc/{}/environ", self.pid(rank))).unwrap_or_default();
        let found = text.split('\0').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
        found.map(str::to_owned).unwrap_or_else(|| self.fail(&format!("rank {rank} has no variable {name}")))
    }

    /// Waits until `rank` has said that it is at `place`.
    ///
    /// # Panics
    /// If the budget is over, or the node ends, before that.
    pub fn await_at(&mut self, rank: u32, place: &str) {
        let wanted = format!("{AT}{place}");
        loop {
            if self.said[rank as usize].iter().any(|line| line.text == wanted) {
                return;
            }
            if self.next_line().is_none() {
                self.fail(&format!("all nodes ended before rank {rank} was at {place:?}"));
            }
        }
    }

    /// Waits until all nodes are at `place`.
    ///
    /// # Panics
    /// As [`Running::await_at`].
    pub fn await_all_at(&mut self, place: &str) {
        for rank in 0..self.said.len() {
            self.await_at(rank as u32, place);
        }
    }

    /// What `rank` has said about `name` so far, waiting for it if need be.
    ///
    /// # Panics
    /// As [`Running::await_at`].
    pub fn await_fact(&mut self, rank: u32, name: &str) -> String {
        loop {
            let facts = self.said[rank as usize].iter().filter_map(|line| line.text.split_once('='));
            if let Some((_, value)) = facts.clone().find(|(found, _)| *found == name) {
                return value.to_owned();
            }
            if self.next_line().is_none() {
                self.fail(&format!("all nodes ended before rank {rank} said what {name:?} is"));
            }
        }
    }

    /// Waits until `rank` has said of `name` that it is `least` or more. False if it ends before that.
    ///
    /// # Panics
    /// If the budget is over before that.
    pub fn await_count(&mut self, rank: u32, name: &str, least: u64) -> bool {
        let has_come = |this: &Running| {
            let mut facts =
                this.said[rank as usize].iter().rev().filter_map(|line| line.text.split_once('='));
            let found =
                facts.find(|(found, _)| *found == name).and_then(|(_, value)| value.parse::<u64>().ok());
            found.is_some_and(|found| found >= least)
        };
        self.await_that(|this| has_come(this) || !this.is_running(rank));
        has_come(self)
    }

    /// Whether the process of `rank` has not ended.
    #[must_use]
    pub fn is_running(&self, rank: u32) -> bool {
        self.cluster.pid(rank).is_some()
    }

    /// Lets a frozen node go on.
    pub fn thaw(&mut self, rank: u32) {
        self.heard[rank as usize] = Instant::now();
        self.excused.borrow_mut().remove(&rank);
        self.cluster.signal(rank, Signal::SIGCONT);
    }

    /// From now on `rank` may be silent: it is stopped, or waits for the harness.
    pub fn excuse(&self, rank: u32) {
        self.excused.borrow_mut().insert(rank);
    }

    /// Waits until the process of `rank` has ended.
    ///
    /// # Panics
    /// If the budget is over before that.
    pub fn await_end(&mut self, rank: u32) {
        self.await_that(|this| this.cluster.pid(rank).is_none());
    }

    /// Waits for something that may come to pass without a line.
    fn await_that(&mut self, has_come: impl Fn(&Running) -> bool) {
        while !has_come(self) {
            self.left();
            match self.lines.recv_timeout(LOOK) {
                Ok(line) => self.keep(line),
                Err(RecvTimeoutError::Timeout) => {}
                // All streams are closed: the process is about to be reaped.
                Err(RecvTimeoutError::Disconnected) => std::thread::sleep(LOOK),
            }
        }
    }

    /// Waits until `rank` has said that it was told of a death, or its process has ended.
    ///
    /// # Panics
    /// If the budget is over before that.
    pub fn await_told_or_end(&mut self, rank: u32) {
        let told = format!("{AT}{TOLD}");
        self.await_that(|this| {
            this.said[rank as usize].iter().any(|line| line.text == told) || this.cluster.pid(rank).is_none()
        });
    }

    /// Lets `rank` go on that waits for it.
    ///
    /// # Panics
    /// If it has ended.
    pub fn go(&self, rank: u32) {
        if !self.cluster.signal(rank, Signal::SIGUSR1) {
            self.fail(&format!("rank {rank} has ended early"));
        }
    }

    /// Stops a node, as a machine that hangs would. It answers nobody any more when this returns.
    ///
    /// # Panics
    /// If it has ended, or the budget is over before it stands still.
    pub fn freeze(&self, rank: u32) {
        self.excuse(rank);
        self.cluster.signal(rank, Signal::SIGSTOP);
        // The signal is sent, but a thread that runs on another core stops a little later.
        while !stuck::is_stopped(self.pid(rank)) {
            self.left();
            std::thread::yield_now();
        }
    }

    /// Kills a node, as a crash of its machine would.
    pub fn kill(&self, rank: u32) {
        self.cluster.kill(rank);
    }

    /// Waits for all nodes to end.
    ///
    /// # Panics
    /// If the budget is over before that.
    pub fn finish(mut self) -> Report {
        while self.next_line().is_some() {}
        let outcome = self.cluster.wait(self.budget.saturating_sub(self.started.elapsed()));
        if outcome.nodes.iter().any(|node| node.ending == Ending::Overdue) {
            panic!("{}: a node closed its output, but did not end in time\n{outcome}", self.name);
        }
        let nodes = outcome.nodes.iter().zip(std::mem::take(&mut self.said));
        let nodes = nodes.map(|(node, lines)| NodeReport::new(node, lines)).collect();
        Report { name: self.name.clone(), nodes, elapsed: self.started.elapsed() }
    }

    /// The next line of any node; `None` when all have closed their output.
    fn next_line(&mut self) -> Option<()> {
        match self.lines.recv_timeout(self.left()) {
            Ok(line) => {
                let failed = line.stream == Stream::Stderr && line.text.starts_with(crate::worker::PANICKED);
                let rank = line.rank;
                self.keep(line);
                if failed {
                    self.fail(&format!("rank {rank} panicked"));
                }
                Some(())
            }
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => {
                self.left();
                Some(())
            }
        }
    }

    fn keep(&mut self, line: Line) {
        self.heard[line.rank as usize] = Instant::now();
        self.said[line.rank as usize].push(line);
    }

    /// How long to wait before looking again; fails the test if the budget is over, or a node hangs.
    fn left(&self) -> Duration {
        let left = self.budget.saturating_sub(self.started.elapsed());
        if left.is_zero() {
            self.fail(&format!("not done within {} s", self.budget.as_secs_f32()));
        }
        let Some(silence) = self.silence else { return left };
        for (rank, heard) in (0..).zip(&self.heard) {
            if heard.elapsed() >= silence && !self.excused.borrow().contains(&rank) && self.is_running(rank) {
                self.fail(&format!("rank {rank} has said nothing for {} s", silence.as_secs_f32()));
            }
        }
        left.min(LOOK)
    }

    /// Ends all nodes and fails the test, saying what each was at.
    fn fail(&self, why: &str) -> ! {
        let mut text = format!("scenario {:?}: {why}\n", self.name);
        for (rank, lines) in self.said.iter().enumerate() {
            let at = lines.iter().rev().find_map(|line| line.text.strip_prefix(AT)).unwrap_or("its start");
            text += &format!("rank {rank} was at: {at}\n");
            match self.cluster.pid(rank as u32) {
                Some(pid) => text += &stuck::threads_of(pid),
                None => text += "  its process has ended\n",
            }
            for line in lines.iter().filter(|line| line.stream == Stream::Stderr) {
                text += &format!("  stderr: {}\n", line.text);
            }
        }
        self.cluster.signaller().kill_all();
        panic!("{text}");
    }
}
