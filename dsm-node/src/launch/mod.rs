//! Starts a cluster on this machine: N copies of a program, each told its rank, with a meeting point that is bound
//! before the first of them runs. `dsm run`, `dsm-demo` and the tests start their nodes here.
//!
//! Nothing that is started outlives its [`Cluster`]: each node is the head of a process group that is ended with it,
//! and the kernel ends the nodes of a launcher that was itself killed. While it lives, the launcher takes part in the
//! cluster's membership as a witness. What else the nodes do is not this module's business.
//!
//! ```no_run
//! use dsm_node::launch::{Launch, Output};
//! use std::time::Duration;
//!
//! let cluster = Launch::new("./first").nodes(4).output(Output::Captured).spawn()?;
//! let outcome = cluster.wait(Duration::from_secs(60));
//! assert!(outcome.success(), "{outcome}");
//! # Ok::<(), dsm_node::Error>(())
//! ```

mod cluster;
mod kill;
mod meeting;
mod outcome;
mod output;
mod process;
#[doc(hidden)]
pub mod usage;
mod watch;
mod witness;

pub use crate::config::TransportKind;
pub use cluster::{Cluster, Signaller};
pub use kill::Kill;
pub use nix::sys::signal::Signal;
pub use outcome::{Ending, NodeOutcome, Outcome};
pub use output::{Line, Output, Stream};

use crate::error::{Error, Result};
use dsm_core::limits;
use dsm_core::membership::Settings;
use meeting::Meeting;
use process::Process;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::{Command, Stdio};
use std::time::Duration;
use watch::Plan;

/// Nodes in one cluster, as ranks count them.
const NODES_MAX: u32 = limits::NODES_MAX as u32;

/// What to start, and how. See the [module](self).
#[derive(Debug)]
#[must_use = "nothing is started before `spawn`"]
pub struct Launch {
    program: OsString,
    args: Vec<OsString>,
    nodes: u32,
    transport: TransportKind,
    /// Variables for one rank, or for all.
    env: Vec<(Option<u32>, OsString, OsString)>,
    output: Output,
    stdin_to_first: bool,
    replicas: Option<u32>,
    lease: Option<Duration>,
    plan: Plan,
}

impl Launch {
    /// One node of `program`, over TCP, with its output where this process's goes.
    pub fn new(program: impl Into<OsString>) -> Launch {
        Launch {
            program: program.into(),
            args: Vec::new(),
            nodes: 1,
            transport: TransportKind::default(),
            env: Vec::new(),
            output: Output::Inherited,
            stdin_to_first: false,
            replicas: None,
            lease: None,
            plan: Plan::default(),
        }
    }

    /// Adds an argument, the same for all nodes.
    pub fn arg(mut self, arg: impl Into<OsString>) -> Launch {
        self.args.push(arg.into());
        self
    }

    /// Adds arguments, the same for all nodes.
    pub fn args(mut self, args: impl IntoIterator<Item = impl Into<OsString>>) -> Launch {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// How many nodes to start, from 1 to 64.
    pub fn nodes(mut self, nodes: u32) -> Launch {
        self.nodes = nodes;
        self
    }

    /// How the nodes talk to each other.
    pub fn transport(mut self, transport: TransportKind) -> Launch {
        self.transport = transport;
        self
    }

    /// How many crashes the cluster is to survive: so many other nodes keep a copy of what a node has committed. Unless this is
    /// said, the nodes use what the environment says, else their default: 1 where there are two nodes or more.
    pub fn replicas(mut self, replicas: u32) -> Launch {
        self.replicas = Some(replicas);
        self
    }

    /// How long a node may be silent before the others go on without it, where its death cannot be proven. Unless this is said,
    /// the nodes use what the environment says, else their default.
    pub fn lease(mut self, lease: Duration) -> Launch {
        self.lease = Some(lease);
        self
    }

    /// Has a node killed so long after the start of the last one, as [`Cluster::kill`] does. A node that has ended by then
    /// stays as it is.
    pub fn kill_at(mut self, rank: u32, after: Duration) -> Launch {
        self.plan.kills.push((after, rank));
        self
    }

    /// Sets a variable in the environment of all nodes; it wins over what the launcher itself sets.
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Launch {
        self.env.push((None, name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Sets a variable in the environment of one node.
    pub fn env_of(mut self, rank: u32, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Launch {
        self.env.push((Some(rank), name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Where the nodes' standard output and standard error go.
    pub fn output(mut self, output: Output) -> Launch {
        self.output = output;
        self
    }

    /// Lets rank 0 read this process's standard input. Nodes are not in the terminal's foreground group, so this is
    /// for pipes and files.
    pub fn stdin_to_first(mut self, inherit: bool) -> Launch {
        self.stdin_to_first = inherit;
        self
    }

    /// Ends the others so long after one node has failed. Unless this is said, they are ended after 5 s, but not if they
    /// have formed a cluster that keeps replicas: then they go on to their own end.
    pub fn grace(mut self, grace: Duration) -> Launch {
        self.plan.grace = Some(grace);
        self
    }

    /// Starts the nodes.
    ///
    /// # Errors
    /// [`Error::Config`] for a count of nodes that cannot be, as many replicas as nodes or more, a lease that is too short or
    /// too long, or a kill of a rank that is none; [`Error::Io`] when a node cannot be started: those that were started before
    /// it are ended.
    pub fn spawn(self) -> Result<Cluster> {
        self.check()?;
        let meeting = meeting::bind(self.transport)?;
        let mut readers = output::Readers::new(&self.output, self.nodes);
        // Held in a cluster from the first on, so that a later failure ends those that run.
        let mut processes = process::Group::default();
        let mut channels = Vec::new();
        for rank in 0..self.nodes {
            let (end, socket) = witness::channel()?;
            let command = self.command(rank, &meeting, &socket);
            let mut inherited = vec![socket.as_fd()];
            inherited.extend((rank == 0).then_some(meeting.socket.as_fd()));
            let (process, stdout, stderr) = Process::start(command, &inherited)
                .map_err(|cause| Error::io(format!("starting {:?} as rank {rank}", self.program), cause))?;
            processes.push(process);
            readers.read(rank, stdout, stderr)?;
            channels.push(end);
        }
        // From here on rank 0 alone holds the meeting point: when it dies, connecting to it is refused at once.
        drop(meeting);
        Cluster::watch(processes, readers, self.plan, channels)
    }

    fn check(&self) -> Result<()> {
        if !(1..=NODES_MAX).contains(&self.nodes) {
            return Err(Error::Config(format!("nodes is {}; it must be from 1 to {NODES_MAX}", self.nodes)));
        }
        if let Some((_, rank)) = self.plan.kills.iter().find(|(_, rank)| *rank >= self.nodes) {
            let last = self.nodes - 1;
            return Err(Error::Config(format!("rank {rank} cannot be killed; ranks are from 0 to {last}")));
        }
        if let Some(replicas) = self.replicas.filter(|replicas| *replicas >= self.nodes) {
            let (nodes, others) = (self.nodes, self.nodes - 1);
            return Err(Error::Config(format!(
                "{nodes} nodes keep no {replicas} replicas; there are {others} others at most"
            )));
        }
        if let Some(lease) = self.lease {
            Settings::default().with_lease(lease).map_err(|error| Error::Config(error.to_string()))?;
        }
        Ok(())
    }

    fn command(&self, rank: u32, meeting: &Meeting, channel: &OwnedFd) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(&self.args)
            .env("DSM_RANK", rank.to_string())
            .env("DSM_NODES", self.nodes.to_string())
            .env("DSM_RENDEZVOUS", &meeting.address)
            .env("DSM_TRANSPORT", self.transport.name())
            .env(crate::witness::VARIABLE, channel.as_raw_fd().to_string())
            // One address to listen at cannot serve all nodes of a machine.
            .env_remove("DSM_LISTEN");
        match rank {
            0 => command.env(meeting::VARIABLE, meeting.number().to_string()),
            _ => command.env_remove(meeting::VARIABLE),
        };
        if let Some(replicas) = self.replicas {
            command.env("DSM_REPLICAS", replicas.to_string());
        }
        if let Some(lease) = self.lease {
            command.env("DSM_LEASE", format!("{}us", lease.as_micros()));
        }
        for (_, name, value) in self.env.iter().filter(|(whose, ..)| whose.is_none_or(|whose| whose == rank))
        {
            command.env(name, value);
        }
        command.stdin(if self.stdin_to_first && rank == 0 { Stdio::inherit() } else { Stdio::null() });
        if self.output.is_piped() {
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
        }
        command
    }
}

#[cfg(test)]
mod tests;
