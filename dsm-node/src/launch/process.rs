//! One node as the kernel sees it: started so that it cannot outlive its launcher, signalled together with what it
//! has started itself, waited for by its pidfd, and reaped under the same lock that signals take, so that no signal
//! can reach a stranger under a recycled number. Which node is ended when is not this file's business.

use super::Ending;
use crate::witness;
use dsm_core::Time;
use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use parking_lot::Mutex;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus};
use std::sync::mpsc::{Sender, SyncSender, channel, sync_channel};
use std::thread;

/// A node's process.
pub(super) struct Process {
    pid: u32,
    /// Becomes readable when the process has ended.
    pidfd: OwnedFd,
    life: Mutex<Life>,
}

/// A process runs, or its status is known.
enum Life {
    /// It was not reaped yet, so its number is its own. `told` is why we killed it, and when, if we did.
    Running {
        child: Child,
        told: Option<(Ending, Time)>,
    },
    Ended(End),
}

/// How a process ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct End {
    pub status: ExitStatus,
    pub ending: Ending,
    /// When we killed it, if that is what ended it.
    pub killed: Option<Time>,
}

/// The processes of one cluster, ended when dropped.
#[derive(Default)]
pub(super) struct Group(Vec<Process>);

impl Group {
    pub fn push(&mut self, process: Process) {
        self.0.push(process);
    }

    /// The processes, by rank.
    pub fn all(&self) -> &[Process] {
        &self.0
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for process in &self.0 {
            process.kill(Ending::Dropped);
        }
        for process in &self.0 {
            process.reap();
        }
    }
}

impl Process {
    /// Starts `command`, which inherits `sockets`. Returns its piped streams, where it has any.
    pub fn start(
        mut command: Command,
        sockets: &[BorrowedFd<'_>],
    ) -> io::Result<(Process, Option<ChildStdout>, Option<ChildStderr>)> {
        // A group of its own: a terminal's Ctrl-C then reaches the launcher only, which passes it on once.
        command.process_group(0);
        let launcher = std::process::id();
        let sockets: Vec<RawFd> = sockets.iter().map(AsRawFd::as_raw_fd).collect();
        // SAFETY: between fork and exec the closure makes system calls on values that it owns and only reads: it allocates
        // nothing, takes no lock, and the descriptors are open because the caller borrows their owners until the start is
        // over.
        unsafe {
            command.pre_exec(move || bind_to_launcher(launcher).and_then(|()| pass_on(&sockets)));
        }
        let mut child = spawn_from_lasting_thread(command)?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let pid = child.id();
        let pidfd = match open_pidfd(pid) {
            Ok(pidfd) => pidfd,
            Err(cause) => {
                // The process cannot be watched, so it must not run. Its end cannot fail: it is our child.
                let _ = child.kill().and_then(|()| child.wait());
                return Err(cause);
            }
        };
        Ok((Process { pid, pidfd, life: Mutex::new(Life::Running { child, told: None }) }, stdout, stderr))
    }

    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Readable when the process has ended.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// How the process ended, if it was reaped.
    pub fn ended(&self) -> Option<End> {
        match &*self.life.lock() {
            Life::Running { .. } => None,
            Life::Ended(end) => Some(*end),
        }
    }

    /// Sends `signal` to the process and what it has started. Whether it was there to get it.
    pub fn signal(&self, signal: Signal) -> bool {
        match &*self.life.lock() {
            Life::Running { .. } => self.signal_group(signal),
            Life::Ended(_) => false,
        }
    }

    /// Kills the process and what it has started, and notes why and when. Whether it was there.
    pub fn kill(&self, why: Ending) -> bool {
        match &mut *self.life.lock() {
            Life::Running { told, .. } => {
                // The time comes first: whatever the kill leads to is later.
                told.get_or_insert_with(|| (why, witness::now()));
                self.signal_group(Signal::SIGKILL)
            }
            Life::Ended(_) => false,
        }
    }

    /// Whether it runs, and we have killed it.
    #[cfg(test)]
    pub fn was_told(&self) -> bool {
        matches!(&*self.life.lock(), Life::Running { told: Some(_), .. })
    }

    /// Takes note of a process that has ended, or waits for it to. `None` if that was done before.
    pub fn reap(&self) -> Option<End> {
        let mut life = self.life.lock();
        let Life::Running { child, told } = &mut *life else { return None };
        wait_without_reaping(self.pidfd.as_fd());
        // What the node started and left behind goes with it, while its number still names its group.
        self.signal_group(Signal::SIGKILL);
        // A child that is there can be waited for; were it not, "ended, cause unknown" is all that there is to say.
        let status = child.wait().unwrap_or_else(|_| ExitStatus::from_raw(libc::SIGKILL));
        let end = match (status.signal(), *told) {
            (Some(libc::SIGKILL), Some((ending, at))) => End { status, ending, killed: Some(at) },
            (Some(_) | None, _) => End { status, ending: Ending::Itself, killed: None },
        };
        *life = Life::Ended(end);
        Some(end)
    }

    /// To be called while the process was not reaped.
    fn signal_group(&self, signal: Signal) -> bool {
        i32::try_from(self.pid).is_ok_and(|pid| killpg(Pid::from_raw(pid), signal).is_ok())
    }
}

/// Waits until the process of `pidfd` has ended, and leaves its status and number in place.
fn wait_without_reaping(pidfd: BorrowedFd<'_>) {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let mut ready = [PollFd::new(pidfd, PollFlags::POLLIN)];
    while poll(&mut ready, PollTimeout::NONE) == Err(Errno::EINTR) {}
}

/// In the child: makes the kernel end it when the thread that started it ends.
fn bind_to_launcher(launcher: u32) -> io::Result<()> {
    let signal = libc::SIGKILL as libc::c_ulong;
    // SAFETY: PR_SET_PDEATHSIG takes one number, and changes nothing but this process's own setting.
    if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, signal) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // The launcher may have died before the setting stood; then the parent is another already.
    if std::os::unix::process::parent_id() == launcher {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(libc::ESRCH))
    }
}

/// In the child: keeps `sockets` open over exec.
fn pass_on(sockets: &[RawFd]) -> io::Result<()> {
    for socket in sockets {
        // SAFETY: F_SETFD takes a descriptor and a number; the descriptor is open, as the caller of `start` borrows it.
        if unsafe { libc::fcntl(*socket, libc::F_SETFD, 0) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// A descriptor that becomes readable when `pid`, a child that was not reaped, has ended.
fn open_pidfd(pid: u32) -> io::Result<OwnedFd> {
    const NO_FLAGS: libc::c_uint = 0;
    // SAFETY: the call takes two numbers and makes a new descriptor.
    let number = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, NO_FLAGS) };
    let number = RawFd::try_from(number).map_err(io::Error::other)?;
    if number < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us, closed on exec, so nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

struct Job {
    command: Command,
    answer: SyncSender<io::Result<Child>>,
}

/// Spawns from a thread that lasts as long as this process: the kernel ends a child when the *thread* that started it
/// ends, and the caller's may end any time.
fn spawn_from_lasting_thread(command: Command) -> io::Result<Child> {
    static SPAWNER: Mutex<Option<Sender<Job>>> = Mutex::new(None);
    let (answer, child) = sync_channel(1);
    {
        let mut spawner = SPAWNER.lock();
        let jobs = match &*spawner {
            Some(jobs) => jobs,
            None => spawner.insert(start_spawner()?),
        };
        jobs.send(Job { command, answer }).map_err(io::Error::other)?;
    }
    child.recv().map_err(io::Error::other)?
}

fn start_spawner() -> io::Result<Sender<Job>> {
    let (jobs, queue) = channel::<Job>();
    thread::Builder::new().name(String::from("dsm-spawner")).spawn(move || {
        for mut job in queue {
            // The asker waits for the answer, so it is there to take it.
            let _ = job.answer.send(job.command.spawn());
        }
    })?;
    Ok(jobs)
}
