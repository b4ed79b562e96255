//! Starts a cluster on this machine: N copies of a program, each told its rank, with a meeting point that is bound
//! before the first of them runs. `dsm run`, `dsm-demo` and the tests start their nodes here.
//!
//! Nothing that is started outlives its [`Cluster`]: each node is the head of a process group that is ended with it,
//! and the kernel ends the nodes of a launcher that was itself killed. What the nodes do is not this module's business.
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
mod meeting;
mod output;
mod process;
#[doc(hidden)]
pub mod usage;

pub use crate::config::TransportKind;
pub use cluster::{Cluster, Ending, NodeOutcome, Outcome, Signaller};
pub use nix::sys::signal::Signal;
pub use output::{Line, Output, Stream};

use crate::error::{Error, Result};
use dsm_core::limits;
use meeting::Meeting;
use process::Process;
use std::ffi::{OsStr, OsString};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Nodes in one cluster, as ranks count them.
const NODES_MAX: u32 = limits::NODES_MAX as u32;

/// How long the others may go on after one node has failed, to say what they have to say: as long as a node takes to
/// learn that a peer is gone.
const GRACE_DEFAULT: Duration = crate::error::PATIENCE;

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
    grace: Duration,
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
            grace: GRACE_DEFAULT,
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

    /// How long the others may go on after one node has failed. 5 s unless said otherwise.
    pub fn grace(mut self, grace: Duration) -> Launch {
        self.grace = grace;
        self
    }

    /// Starts the nodes.
    ///
    /// # Errors
    /// [`Error::Config`] for a count of nodes that cannot be, [`Error::Io`] when a node cannot be started; those that
    /// were started before it are ended.
    pub fn spawn(self) -> Result<Cluster> {
        if !(1..=NODES_MAX).contains(&self.nodes) {
            return Err(Error::Config(format!("nodes is {}; it must be from 1 to {NODES_MAX}", self.nodes)));
        }
        let meeting = meeting::bind(self.transport)?;
        let mut readers = output::Readers::new(&self.output, self.nodes);
        // Held in a cluster from the first on, so that a later failure ends those that run.
        let mut processes = process::Group::default();
        for rank in 0..self.nodes {
            let command = self.command(rank, &meeting);
            let inherited = (rank == 0).then_some(&meeting.socket);
            let (process, stdout, stderr) = Process::start(command, inherited)
                .map_err(|cause| Error::io(format!("starting {:?} as rank {rank}", self.program), cause))?;
            processes.push(process);
            readers.read(rank, stdout, stderr)?;
        }
        // From here on rank 0 alone holds the meeting point: when it dies, connecting to it is refused at once.
        drop(meeting);
        Cluster::watch(processes, readers, self.grace)
    }

    fn command(&self, rank: u32, meeting: &Meeting) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(&self.args)
            .env("DSM_RANK", rank.to_string())
            .env("DSM_NODES", self.nodes.to_string())
            .env("DSM_RENDEZVOUS", &meeting.address)
            .env("DSM_TRANSPORT", self.transport.name())
            // One address to listen at cannot serve all nodes of a machine.
            .env_remove("DSM_LISTEN");
        match rank {
            0 => command.env(meeting::VARIABLE, meeting.number().to_string()),
            _ => command.env_remove(meeting::VARIABLE),
        };
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
