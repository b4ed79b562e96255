//! What a thread is told when it touches a page that cannot be had: one line, and the end of the process.
//!
//! SIGSEGV comes where the region was, once this node has left; SIGBUS comes from a page that is lost, and from a frame
//! for which the machine has no memory. Both handlers
//! run on the thread's alternate stack, use nothing but async-signal-safe calls, and leave every other fault to the
//! handlers that were there before, those of the Rust runtime included. Faults that a page fetch resolves never come
//! here: userfaultfd keeps them from being signals.

mod line;
mod lost;

pub(crate) use lost::note_lost;

use crate::error::{Error, Result};
use dsm_core::Geometry;
use line::Line;
use nix::errno::Errno;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, AtomicU8, AtomicU64, Ordering};

/// What ends a process whose machine has no memory for a page that came.
pub(crate) const NO_FRAME: &str = "no memory for a page of the shared region: the machine, or this container's limit, has \
     none left; run fewer nodes here, use less of the region, or raise the limit";

/// Who reads stderr has so long, in milliseconds, to make room for the line: one that does not read at all must not keep a
/// process that others count on from ending.
const STDERR_PATIENCE_MS: libc::c_int = 500;

/// The exit status of a process that ends here: `EX_SOFTWARE` of sysexits.h.
pub(crate) const EXIT_STATUS: i32 = 70;

/// Why the region cannot be touched any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Reason {
    /// It can: this node is a member.
    Member = 0,
    /// This node has left.
    Left = 1,
    /// The others went on without this node.
    Evicted = 2,
    /// A majority was out of reach for too long.
    NoQuorum = 3,
}

/// The region, for the handlers: they may read atomics and nothing that a lock guards. A size of zero is no region.
static BASE: AtomicU64 = AtomicU64::new(0);
static SIZE: AtomicU64 = AtomicU64::new(0);
/// Where the runtime's own view of the region begins, which is as long; zero while there is none.
static FRAMES: AtomicU64 = AtomicU64::new(0);
static PAGE_SIZE: AtomicU64 = AtomicU64::new(1);
static REASON: AtomicU8 = AtomicU8::new(Reason::Member as u8);
/// The process that joined: a forked child inherits the handlers, but not the region.
static PROCESS: AtomicI32 = AtomicI32::new(0);

/// The handlers that were there before: of SIGSEGV, of SIGBUS.
static PREVIOUS: [OnceLock<libc::sigaction>; 2] = [OnceLock::new(), OnceLock::new()];

/// `si_code` of an access to a poisoned page: some kernels say so, ...
const BUS_ADRERR: i32 = 2;
/// ... others take it for a fault of the memory chips.
const BUS_MCEERR_AR: i32 = 4;

/// Room for an alternate stack of ours beyond what the kernel needs to save the registers.
const STACK_ROOM: usize = 64 << 10;

/// Sets the handlers up for a region of this shape, on this thread's alternate stack, which it gets if it has none.
/// (Threads of the Rust runtime have one.) May be done again for another region: the last one counts.
pub(crate) fn install(geometry: Geometry) -> Result<()> {
    ensure_alternate_stack()?;
    // The size last: a handler that runs in between sees no region, or a whole one.
    SIZE.store(0, Ordering::SeqCst);
    BASE.store(geometry.base().0, Ordering::SeqCst);
    PAGE_SIZE.store(geometry.page_size(), Ordering::SeqCst);
    PROCESS.store(std::process::id().cast_signed(), Ordering::SeqCst);
    REASON.store(Reason::Member as u8, Ordering::SeqCst);
    SIZE.store(geometry.size(), Ordering::SeqCst);
    chain(libc::SIGSEGV)?;
    chain(libc::SIGBUS)
}

/// Says why the region cannot be touched from now on.
pub(crate) fn set_reason(reason: Reason) {
    REASON.store(reason as u8, Ordering::SeqCst);
}

/// Says where the runtime reads and writes the bytes of pages.
pub(crate) fn set_frames(start: u64) {
    FRAMES.store(start, Ordering::SeqCst);
}

/// Ends the process with one line on stderr, past every lock and buffer: a thread that waits for a page may hold them.
pub(crate) fn die(line: &str) -> ! {
    let parts = [b"dsm: ".as_slice(), line.as_bytes(), b"\n"]
        .map(|part| libc::iovec { iov_base: part.as_ptr().cast_mut().cast(), iov_len: part.len() });
    // SAFETY: the three parts are live, and the kernel only reads them. `_exit` runs nothing of this process, and
    // does not return.
    unsafe {
        if takes_a_line(libc::STDERR_FILENO) {
            // One call, so that no other writer comes in between. Nobody is left to be told that it failed.
            libc::writev(libc::STDERR_FILENO, parts.as_ptr(), parts.len() as libc::c_int);
        }
        libc::_exit(EXIT_STATUS)
    }
}

/// Whether `descriptor` takes a line now, or within [`STDERR_PATIENCE_MS`]. A pipe that is ready has room for a line that is
/// no longer than `PIPE_BUF`, and takes it as a whole.
fn takes_a_line(descriptor: libc::c_int) -> bool {
    let mut polled = libc::pollfd { fd: descriptor, events: libc::POLLOUT, revents: 0 };
    // SAFETY: `polled` is live, and it is one. The call is allowed in handlers.
    let ready = unsafe { libc::poll(&raw mut polled, 1, STDERR_PATIENCE_MS) };
    // A pipe whose other end is closed is ready too, to fail; a failed poll says nothing against it.
    ready != 0
}

/// Puts our handler before the one that is there.
fn chain(signal: libc::c_int) -> Result<()> {
    let failed = |errno| Error::io(format!("setting a handler for signal {signal}"), errno);
    let slot = &PREVIOUS[slot(signal)];
    if slot.get().is_some() {
        return Ok(());
    }
    // SAFETY: zero is a value of every field of `sigaction`: no handler, no flags, an empty mask.
    let mut previous: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: with no new action, the call only writes to `previous`, which is live.
    let answer = unsafe { libc::sigaction(signal, ptr::null(), &raw mut previous) };
    Errno::result(answer).map_err(failed)?;
    // Kept before ours is in force, so that ours always finds it. Who comes second finds the work done.
    if slot.set(previous).is_err() {
        return Ok(());
    }
    let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) = handle;
    let mut ours = previous;
    ours.sa_sigaction = handler as usize;
    ours.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // SAFETY: `ours` is live and names a handler of the form that SA_SIGINFO asks for, which makes only calls that
    // are allowed in handlers.
    let answer = unsafe { libc::sigaction(signal, &raw const ours, ptr::null_mut()) };
    Errno::result(answer).map(|_| ()).map_err(failed)
}

fn slot(signal: libc::c_int) -> usize {
    usize::from(signal == libc::SIGBUS)
}

/// The handler of both signals.
extern "C" fn handle(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel hands a live `siginfo_t` to a handler with SA_SIGINFO; its address field is set for the two
    // signals that this handler is for, and is otherwise some number, which the code below tells apart.
    let (code, address) = unsafe { ((*info).si_code, (*info).si_addr().addr() as u64) };
    // Codes of zero and below are of signals that a process sent: they say nothing about an address.
    if code > 0 && signal == libc::SIGBUS && is_frame(address) {
        die(NO_FRAME);
    }
    if code > 0
        && let Some(page) = page_of(address)
        && let Some(reason) = reason(signal, code)
    {
        let mut line = Line::new();
        line.text("a touch of ").hex(address).text(", page ").hex(page).text(" of the shared region: ");
        match reason {
            Told::Words(words) => line.text(words),
            Told::Lost => line.lost(page),
        };
        die(line.as_str());
    }
    hand_on(signal, code, info, context);
}

/// The page of the region that holds `address`, counted from the base.
fn page_of(address: u64) -> Option<u64> {
    let offset = address.checked_sub(BASE.load(Ordering::SeqCst))?;
    (offset < SIZE.load(Ordering::SeqCst)).then(|| offset / PAGE_SIZE.load(Ordering::SeqCst).max(1))
}

/// Whether `address` lies in the runtime's view of the region.
fn is_frame(address: u64) -> bool {
    let start = FRAMES.load(Ordering::SeqCst);
    start != 0 && address.checked_sub(start).is_some_and(|offset| offset < SIZE.load(Ordering::SeqCst))
}

/// What there is to tell about a fault.
enum Told {
    /// Just this.
    Words(&'static str),
    /// What is known of the loss of the page.
    Lost,
}

/// What to tell about a fault in the region; nothing where it is not ours.
fn reason(signal: libc::c_int, code: libc::c_int) -> Option<Told> {
    // SAFETY: the call takes nothing and cannot fail.
    if unsafe { libc::getpid() } != PROCESS.load(Ordering::SeqCst) {
        return Some(Told::Words(
            "this process was forked from a node; only the node itself has the region, so start nodes with exec",
        ));
    }
    if signal == libc::SIGBUS {
        return matches!(code, BUS_ADRERR | BUS_MCEERR_AR).then_some(Told::Lost);
    }
    let words = match REASON.load(Ordering::SeqCst) {
        left if left == Reason::Left as u8 => {
            "this node has left the cluster; nothing may refer to the region any more"
        }
        evicted if evicted == Reason::Evicted as u8 => {
            "this node was evicted: the others took it for dead and went on; start it again as a new node"
        }
        lonely if lonely == Reason::NoQuorum as u8 => {
            "this node did not reach a majority of the members for too long; start the cluster again once they can \
             reach each other"
        }
        // A member's fault that no page fetch can resolve, such as a jump into the region, is not ours.
        _ => return None,
    };
    Some(Told::Words(words))
}

/// Leaves the signal to whoever had it before.
fn hand_on(signal: libc::c_int, code: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let previous = PREVIOUS[slot(signal)].get();
    let (handler, flags) =
        previous.map_or((libc::SIG_DFL, 0), |action| (action.sa_sigaction, action.sa_flags));
    if handler == libc::SIG_IGN && code <= 0 {
        return;
    }
    if handler == libc::SIG_DFL || handler == libc::SIG_IGN {
        // SAFETY: both calls are allowed in handlers and take their arguments by value. With the default restored,
        // the instruction faults again when this handler returns, and the process ends as it would have without
        // us; a sent signal does not come again by itself, so it is sent once more.
        unsafe {
            libc::signal(signal, libc::SIG_DFL);
            if code <= 0 {
                libc::raise(signal);
            }
        }
        return;
    }
    if flags & libc::SA_SIGINFO == 0 {
        // SAFETY: without SA_SIGINFO, what was registered as a handler has this form.
        let handler: extern "C" fn(libc::c_int) = unsafe { std::mem::transmute(handler) };
        handler(signal);
    } else {
        // SAFETY: with SA_SIGINFO, what was registered as a handler has this form.
        let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) =
            unsafe { std::mem::transmute(handler) };
        handler(signal, info, context);
    }
}

/// Gives this thread an alternate stack, unless it has one.
fn ensure_alternate_stack() -> Result<()> {
    let failed = |errno| Error::io("setting up an alternate signal stack", errno);
    // SAFETY: zero is a value of every field of `stack_t`.
    let mut stack: libc::stack_t = unsafe { std::mem::zeroed() };
    // SAFETY: with no new stack, the call only writes to `stack`, which is live.
    Errno::result(unsafe { libc::sigaltstack(ptr::null(), &raw mut stack) }).map_err(failed)?;
    if stack.ss_flags & libc::SS_DISABLE == 0 {
        return Ok(());
    }
    // SAFETY: the call takes its argument by value. It gives zero where the kernel does not tell.
    let registers = unsafe { libc::getauxval(libc::AT_MINSIGSTKSZ) } as usize;
    let size = (registers + STACK_ROOM).next_multiple_of(STACK_ROOM);
    // Given away for good: the thread may take a signal until it ends.
    let lowest = Box::into_raw(vec![0_u8; size].into_boxed_slice());
    let stack = libc::stack_t { ss_sp: lowest.cast(), ss_flags: 0, ss_size: size };
    // SAFETY: the stack is `size` bytes of memory that is nobody else's and never given back, so it outlives the thread.
    Errno::result(unsafe { libc::sigaltstack(&raw const stack, ptr::null_mut()) }).map(|_| ()).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::region::KERNEL_PAGE;
    use crate::region::testing::{TestRegion, aside, load, next_fault, region, store};
    use crate::transport::Frames;
    use dsm_core::{Access, Address, Lost, NodeId, PageId, Payload, ViewId};
    use std::io::Write;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    /// In the environment of a child: the test whose body it is to run.
    const CHILD: &str = "DSM_TEST_CHILD";
    /// A child that hangs is ended by SIGALRM after so many seconds.
    const CHILD_SECONDS_MAX: u32 = 20;

    /// How a child ended: its exit status, the signal that ended it, what it said on stderr.
    type End = (Option<i32>, Option<i32>, String);

    /// Runs `body` in a process of its own, which is this program again with nothing but the test `name`.
    fn in_child(name: &str, body: impl FnOnce()) -> End {
        if std::env::var(CHILD).is_ok_and(|child| child == name) {
            nix::unistd::alarm::set(CHILD_SECONDS_MAX);
            body();
            std::process::exit(0);
        }
        let output = Command::new(std::env::current_exe().expect("this program has a path"))
            .args([&format!("signals::tests::{name}"), "--exact", "--nocapture"])
            .env(CHILD, name)
            .output()
            .expect("this program starts again");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), output.status.signal(), said)
    }

    /// A region with handlers, whose page 1 holds 1.
    fn joined() -> (TestRegion, Address) {
        let region = region(4, KERNEL_PAGE);
        install(region.geometry()).expect("handlers can be set");
        region.install(PageId(1), Access::Write, Payload::Zero).expect("installing works");
        let address = region.geometry().address_of(PageId(1));
        store(address, 1);
        (region, address)
    }

    fn assert_told((status, signal, said): &End, address_end: &str, words: &str) {
        assert_eq!((*status, *signal), (Some(EXIT_STATUS), None), "{said}");
        let lines: Vec<_> = said.lines().filter(|line| line.starts_with("dsm: ")).collect();
        assert_eq!(lines.len(), 1, "{said}");
        assert!(lines[0].contains(address_end) && lines[0].contains("page 0x1 "), "{}", lines[0]);
        assert!(lines[0].contains(words), "{}", lines[0]);
    }

    #[test]
    fn a_process_ends_though_nobody_reads_what_it_says() {
        let name = "a_process_ends_though_nobody_reads_what_it_says";
        if std::env::var(CHILD).is_ok_and(|child| child == name) {
            nix::unistd::alarm::set(CHILD_SECONDS_MAX);
            die("nobody reads this");
        }
        let (reader, mut writer) = std::io::pipe().expect("a pipe");
        nix::fcntl::fcntl(&writer, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK))
            .expect("a flag");
        while writer.write(&[b'.'; 4096]).is_ok() {}
        nix::fcntl::fcntl(&writer, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::empty()))
            .expect("a flag");
        let status = Command::new(std::env::current_exe().expect("this program has a path"))
            .args([&format!("signals::tests::{name}"), "--exact", "--nocapture"])
            .env(CHILD, name)
            .stderr(writer)
            .status()
            .expect("this program starts again");
        assert_eq!((status.code(), status.signal()), (Some(EXIT_STATUS), None));
        drop(reader);
    }

    #[test]
    fn a_touch_after_leave_ends_with_a_line() {
        let end = in_child("a_touch_after_leave_ends_with_a_line", || {
            let (region, address) = joined();
            set_reason(Reason::Left);
            drop(region);
            load(Address(address.0 + 8));
        });
        assert_told(&end, "008,", "has left the cluster");
    }

    #[test]
    fn a_touch_after_eviction_ends_with_a_line() {
        let end = in_child("a_touch_after_eviction_ends_with_a_line", || {
            let (region, address) = joined();
            set_reason(Reason::Evicted);
            drop(region);
            store(address, 1);
        });
        assert_told(&end, "000,", "was evicted");
    }

    fn assert_no_frame((status, signal, said): &End) {
        assert_eq!((*status, *signal), (Some(EXIT_STATUS), None), "{said}");
        assert_eq!(said.lines().last(), Some(format!("dsm: {NO_FRAME}").as_str()));
    }

    #[test]
    fn a_frame_without_memory_ends_with_a_line() {
        assert_no_frame(&in_child("a_frame_without_memory_ends_with_a_line", || {
            let (region, _) = joined();
            region.starve();
            region.frames().fill(PageId(2), 0, &[1; 8]);
        }));
    }

    #[test]
    fn a_system_call_on_a_frame_without_memory_ends_with_a_line() {
        assert_no_frame(&in_child("a_system_call_on_a_frame_without_memory_ends_with_a_line", || {
            let (region, _) = joined();
            let (ours, theirs) = UnixStream::pair().expect("sockets can be made");
            (&theirs).write_all(&[1; 8]).expect("there is room for 8 bytes");
            region.starve();
            panic!("the frame took {:?}", region.frames().receive(ours.as_fd(), PageId(2), 0..8));
        }));
    }

    #[test]
    fn a_forked_child_is_told_that_it_has_no_region() {
        let end = in_child("a_forked_child_is_told_that_it_has_no_region", || {
            let (_region, address) = joined();
            // SAFETY: the child makes no call but a load, whose handler is async-signal-safe, and ends.
            match unsafe { nix::unistd::fork() }.expect("processes can be made") {
                nix::unistd::ForkResult::Child => {
                    load(address);
                }
                nix::unistd::ForkResult::Parent { child } => {
                    let status = nix::sys::wait::waitpid(child, None).expect("the child ends");
                    assert_eq!(load(address), 1, "the node goes on");
                    let nix::sys::wait::WaitStatus::Exited(_, status) = status else { panic!("{status:?}") };
                    std::process::exit(status);
                }
            }
        });
        assert_told(&end, "000,", "was forked");
    }

    #[test]
    fn a_thread_that_waits_for_a_page_when_the_node_leaves_gets_no_zeros() {
        let end = in_child("a_thread_that_waits_for_a_page_when_the_node_leaves_gets_no_zeros", || {
            let (region, address) = joined();
            region.protect(PageId(1), Access::None).expect("protecting works");
            let touch = aside(move || load(address));
            next_fault(&region);
            set_reason(Reason::Left);
            drop(region);
            panic!("the thread got {:?}", touch.recv());
        });
        assert_told(&end, "000,", "has left the cluster");
    }

    #[test]
    fn a_thread_that_waits_for_a_page_when_the_engine_fails_waits_on() {
        let (status, signal, said) =
            in_child("a_thread_that_waits_for_a_page_when_the_engine_fails_waits_on", || {
                let (region, address) = joined();
                region.protect(PageId(1), Access::None).expect("protecting works");
                let touch = aside(move || load(address));
                next_fault(&region);
                region.fail();
                // It must not come back; were it to, it would at once.
                let got = touch.recv_timeout(std::time::Duration::from_millis(200));
                assert_eq!(got, Err(std::sync::mpsc::RecvTimeoutError::Timeout));
                die("the engine failed");
            });
        assert_eq!((status, signal), (Some(EXIT_STATUS), None), "{said}");
        assert_eq!(said.lines().last(), Some("dsm: the engine failed"));
    }

    #[test]
    fn a_lost_page_ends_with_a_line_from_every_state() {
        for before in [Access::None, Access::Read, Access::Write] {
            let end = in_child("a_lost_page_ends_with_a_line_from_every_state", || {
                for before in [Access::Write, Access::Read, Access::None, before] {
                    let (region, address) = joined();
                    if before < Access::Write {
                        region.protect(PageId(1), before).expect("protecting works");
                    }
                    region.poison(PageId(1)).expect("poisoning works");
                    region.poison(PageId(1)).expect("poisoning works again");
                    assert_eq!(region.scan(0..2).expect("scanning works"), [Access::None; 2]);
                    if before == Access::None {
                        load(address);
                    }
                }
            });
            assert_told(&end, "000,", "the page is lost");
        }
    }

    #[test]
    fn a_lost_page_is_told_with_its_last_owner_and_the_view() {
        let end = in_child("a_lost_page_is_told_with_its_last_owner_and_the_view", || {
            let (region, address) = joined();
            let lost = Lost { page: PageId(0), last_owner: Some(NodeId(12)), view: ViewId(7) };
            note_lost(&region.geometry(), PageId(0), 3, lost);
            region.poison(PageId(1)).expect("poisoning works");
            load(address);
        });
        assert_told(
            &end,
            "000,",
            "the page is lost: rank 12 owned it last, and view 7 began without any node",
        );
    }

    #[test]
    fn a_thread_that_waits_for_a_page_that_is_lost_is_told() {
        let end = in_child("a_thread_that_waits_for_a_page_that_is_lost_is_told", || {
            let (region, address) = joined();
            region.protect(PageId(1), Access::None).expect("protecting works");
            let touch = aside(move || load(address));
            next_fault(&region);
            region.poison(PageId(1)).expect("poisoning works");
            panic!("the thread got {:?}", touch.recv());
        });
        assert_told(&end, "000,", "the page is lost");
    }

    #[test]
    fn other_faults_go_to_the_handler_that_was_there() {
        let (status, signal, said) = in_child("other_faults_go_to_the_handler_that_was_there", || {
            let (region, _) = joined();
            set_reason(Reason::Left);
            drop(region);
            // In no region, and mapped by nobody: the first page of the address space.
            load(Address(8));
        });
        assert_eq!((status, signal), (None, Some(libc::SIGSEGV)), "{said}");
        assert!(!said.contains("dsm: "), "{said}");
    }

    #[test]
    fn a_signal_that_was_sent_is_handed_on() {
        let (status, signal, said) = in_child("a_signal_that_was_sent_is_handed_on", || {
            let (_region, _) = joined();
            // The runtime's handler takes the first for a fault that will come again, and restores the default.
            for _ in 0..2 {
                nix::sys::signal::raise(nix::sys::signal::Signal::SIGBUS).expect("signals can be sent");
            }
        });
        assert_eq!((status, signal), (None, Some(libc::SIGBUS)), "{said}");
        assert!(!said.contains("dsm: "), "{said}");
    }

    #[test]
    fn stack_overflow_is_still_told_by_the_runtime() {
        fn deeper(depth: u64) -> u64 {
            let room = std::hint::black_box([depth; 512]);
            if depth == 0 { room[0] } else { deeper(depth + 1) + room[1] }
        }
        let (_, signal, said) = in_child("stack_overflow_is_still_told_by_the_runtime", || {
            let (_region, _) = joined();
            std::hint::black_box(deeper(1));
        });
        assert_eq!(signal, Some(libc::SIGABRT), "{said}");
        assert!(said.contains("overflowed its stack"), "{said}");
    }

    #[test]
    fn a_thread_without_an_alternate_stack_gets_one() {
        let flags = || {
            // SAFETY: zero is a value of every field of `stack_t`, and with no new stack, the call only writes to it.
            unsafe {
                let mut stack: libc::stack_t = std::mem::zeroed();
                assert_eq!(libc::sigaltstack(ptr::null(), &raw mut stack), 0);
                stack.ss_flags
            }
        };
        std::thread::spawn(move || {
            let none = libc::stack_t { ss_sp: ptr::null_mut(), ss_flags: libc::SS_DISABLE, ss_size: 0 };
            // SAFETY: the call takes this thread's alternate stack away; the runtime, whose it is, frees it later.
            assert_eq!(unsafe { libc::sigaltstack(&raw const none, ptr::null_mut()) }, 0);
            assert_eq!(flags(), libc::SS_DISABLE);
            ensure_alternate_stack().expect("memory is left");
            assert_eq!(flags(), 0);
        })
        .join()
        .expect("the thread ends well");
    }

    #[test]
    fn die_writes_one_line() {
        let (status, _, said) = in_child("die_writes_one_line", || die("page 0x7 is gone with rank 2"));
        assert_eq!(status, Some(EXIT_STATUS));
        assert_eq!(said.lines().last(), Some("dsm: page 0x7 is gone with rank 2"));
    }
}
