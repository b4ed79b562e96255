//! The region with real page faults, in one process.

use super::testing::{BUDGET, Pager, TestRegion, aside, load, next_fault, next_faults, region, shape, store};
use super::*;
use crate::transport::Frames;
use crate::uffd::{Fault, FaultKind, FaultScope};
use Access::{None as Nothing, Read, Write};
use dsm_core::Want;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The page sizes that the protocol promises, from one kernel page to 512 of them.
const PAGE_SIZES: [u64; 3] = [limits::PAGE_SIZE_MIN, 64 << 10, limits::PAGE_SIZE_MAX];

/// The address of a kernel page of a page.
fn part(region: &Region, page: u64, part: u64) -> Address {
    Address(region.geometry.address_of(PageId(page)).0 + part * KERNEL_PAGE)
}

/// Writes a number, which depends on the place, at the beginning of each kernel page of a frame.
fn mark(region: &Region, page: u64, seed: u64) {
    for part in 0..region.geometry.page_size() / KERNEL_PAGE {
        region.frames().fill(PageId(page), usize_of(part * KERNEL_PAGE), &(seed + part).to_ne_bytes());
    }
}

/// The number at the beginning of a frame.
fn peek(region: &Region, page: u64) -> u64 {
    let mut bytes = [0; 8];
    region.frames().copy(PageId(page), 0, &mut bytes);
    u64::from_ne_bytes(bytes)
}

fn kinds(faults: &[Fault]) -> Vec<(Want, FaultKind)> {
    faults.iter().map(|fault| (fault.want, fault.kind)).collect()
}

#[test]
fn a_region_that_was_never_used_gives_its_addresses_back_and_a_detached_one_keeps_them() {
    let shape = shape(4, KERNEL_PAGE);
    drop(Region::new(shape).expect("the addresses are free"));
    Region::new(shape).expect("a join may be tried again").detach();
    let refused = Region::new(shape).map(drop).expect_err("a stale pointer must not find other memory");
    assert!(refused.to_string().contains("region_base"), "{refused}");
}

#[test]
fn a_page_goes_through_all_its_states() {
    for page_size in PAGE_SIZES {
        let pager = Pager::new(4, page_size);
        let tail = Address(pager.address(1).0 + page_size - 8);
        mark(pager.region(), 1, 100);
        pager.region().frames().fill(PageId(1), usize_of(page_size - 8), &200_u64.to_ne_bytes());
        pager.assert_access(&[Nothing, Nothing]);

        assert_eq!(load(tail), 200, "a load gets the frame's bytes");
        assert_eq!(kinds(&pager.faults()), [(Want::Read, FaultKind::Minor)]);
        pager.assert_access(&[Nothing, Read]);
        assert_eq!(load(pager.address(1)), 100, "the whole page came with one fault");
        assert_eq!(pager.faults(), []);

        store(pager.address(1), 7);
        assert_eq!(kinds(&pager.faults()), [(Want::Write, FaultKind::Protected)]);
        pager.assert_access(&[Nothing, Write]);
        store(tail, 8);
        assert_eq!((pager.faults(), peek(pager.region(), 1)), (vec![], 7));

        pager.protect(1, Read);
        pager.assert_access(&[Nothing, Read]);
        assert_eq!((load(tail), pager.faults()), (8, vec![]));
        store(tail, 9);
        assert_eq!(kinds(&pager.faults()), [(Want::Write, FaultKind::Protected)]);

        pager.protect(1, Nothing);
        pager.assert_access(&[Nothing, Nothing]);
        assert_eq!(load(tail), 9, "the frame kept the bytes");
        assert_eq!(kinds(&pager.faults()), [(Want::Read, FaultKind::Minor)]);
        pager.protect(1, Nothing);
        store(pager.address(1), 10);
        assert_eq!(kinds(&pager.faults()), [(Want::Write, FaultKind::Minor)], "one fault, over the marker");
        pager.assert_access(&[Nothing, Write]);
    }
}

#[test]
fn the_first_touch_of_a_page_without_a_frame_is_missing_and_finds_zeros() {
    let pager = Pager::new(4, KERNEL_PAGE);
    store(pager.address(3), 5);
    assert_eq!(load(pager.address(2)), 0);
    let expected = [(Want::Write, FaultKind::Missing), (Want::Read, FaultKind::Missing)];
    assert_eq!(kinds(&pager.faults()), expected);
    pager.assert_access(&[Nothing, Nothing, Read, Write]);
}

#[test]
fn a_fault_names_address_and_thread() {
    let region = region(2, KERNEL_PAGE);
    let address = Address(part(&region, 1, 0).0 + 24);
    let done = aside(move || {
        store(address, 1);
        nix::unistd::gettid()
    });
    let fault = next_fault(&region);
    assert_eq!((fault.address, fault.want), (address, Want::Write));
    region.install(PageId(1), Write, Payload::Zero).expect("installing works");
    let thread = done.recv_timeout(BUDGET).expect("the fault is resolved");
    assert_eq!(fault.thread, thread.as_raw().cast_unsigned());
}

#[test]
fn a_zero_page_is_zero_whatever_the_frame_held() {
    for page_size in PAGE_SIZES {
        let region = region(2, page_size);
        mark(&region, 1, 100);
        for (page, access) in [(0, Write), (1, Read)] {
            region.install(PageId(page), access, Payload::Zero).expect("installing works");
        }
        for each in 0..page_size / KERNEL_PAGE {
            assert_eq!((load(part(&region, 0, each)), load(part(&region, 1, each))), (0, 0));
        }
        assert_eq!(region.scan(0..2).expect("scanning works"), [Write, Read]);
    }
}

#[test]
fn the_oracle_tells_when_a_page_is_mapped_in_part() {
    let region = region(2, 64 << 10);
    mark(&region, 1, 0);
    let Address(start) = part(&region, 1, 3);
    let one = Span { start, length: KERNEL_PAGE };
    assert_eq!(region.uffd().resolve(one, false).expect("mapping works"), Resolved::Installed);
    assert_eq!(region.scan(0..1).expect("scanning works"), [Nothing]);
    let text = region.scan(0..2).expect_err("one page is in pieces").to_string();
    assert!(text.contains("page 0x1") && text.contains("Read"), "{text}");
}

#[test]
fn an_install_over_parts_that_are_mapped_or_absent_sets_all_of_them_right() {
    for (before, after) in [(Write, Read), (Read, Write)] {
        let region = region(2, 64 << 10);
        let Address(start) = part(&region, 1, 3);
        let one = Span { start, length: KERNEL_PAGE };
        // Only this part of the frame exists; the parts before and behind it are absent.
        region.frames().fill(PageId(1), usize_of(3 * KERNEL_PAGE), &[1]);
        assert_eq!(region.uffd().resolve(one, before == Write).expect("mapping works"), Resolved::Installed);
        region.install(PageId(1), after, Payload::Bytes).expect("installing works");
        assert_eq!(region.scan(0..2).expect("scanning works"), [Nothing, after]);
        assert_eq!((load(part(&region, 1, 3)), load(part(&region, 1, 4))), (1, 0));
    }
}

/// A region whose page 0 is mapped writable while a thread sleeps that faulted on it, as after a lost wake.
fn sleeper() -> (TestRegion, std::sync::mpsc::Receiver<()>) {
    let region = region(2, KERNEL_PAGE);
    region.install(PageId(0), Read, Payload::Zero).expect("installing works");
    let address = part(&region, 0, 0);
    let done = aside(move || store(address, 1));
    assert_eq!(next_fault(&region).kind, FaultKind::Protected);
    region.uffd().protect(region.span(PageId(0)), Protection::OffWithoutWake).expect("lifting works");
    assert!(done.try_recv().is_err(), "nobody woke the thread");
    (region, done)
}

#[test]
fn a_thread_that_sleeps_on_a_mapped_page_is_woken() {
    let (region, done) = sleeper();
    region.refresh(PageId(0), Write).expect("refreshing works");
    done.recv_timeout(BUDGET).expect("a refresh wakes");
    assert_eq!(peek(&region, 0), 1);

    let (region, done) = sleeper();
    region.install(PageId(0), Write, Payload::Bytes).expect("installing works");
    done.recv_timeout(BUDGET).expect("an install of a mapped page wakes");
    assert_eq!(peek(&region, 0), 1);
}

#[test]
fn a_refresh_brings_any_state_to_the_one_asked_for() {
    for page_size in PAGE_SIZES {
        let region = region(2, page_size);
        for (before, after) in [(Nothing, Read), (Read, Read), (Write, Read), (Nothing, Write), (Read, Write)]
        {
            region.install(PageId(0), Write, Payload::Zero).expect("installing works");
            if before < Write {
                region.protect(PageId(0), before).expect("protecting works");
            }
            for _ in 0..2 {
                region.refresh(PageId(0), after).expect("refreshing works");
                assert_eq!(region.scan(0..1).expect("scanning works"), [after], "from {before:?}");
            }
        }
    }
}

#[test]
fn a_reader_and_a_writer_of_one_page_are_both_served() {
    let region = region(2, KERNEL_PAGE);
    mark(&region, 0, 5);
    let address = part(&region, 0, 0);
    let reader = aside(move || load(address));
    assert_eq!(next_fault(&region).want, Want::Read);
    let writer = aside(move || store(address, 6));
    assert_eq!(next_fault(&region).want, Want::Write);
    region.install(PageId(0), Read, Payload::Bytes).expect("installing works");
    assert_eq!(reader.recv_timeout(BUDGET), Ok(5));
    let again = next_fault(&region);
    assert_eq!((again.want, again.kind), (Want::Write, FaultKind::Protected), "the writer asks for more");
    region.install(PageId(0), Write, Payload::Held).expect("installing works");
    writer.recv_timeout(BUDGET).expect("the writer goes on");
    assert_eq!(peek(&region, 0), 6);
}

#[test]
fn many_faults_come_in_one_read() {
    const THREADS: u64 = 8;
    let region = region(THREADS, KERNEL_PAGE);
    let touches: Vec<_> = (0..THREADS)
        .map(|page| {
            let address = part(&region, page, 0);
            aside(move || load(address))
        })
        .collect();
    let mut seen = 0;
    while seen < touches.len() {
        for fault in next_faults(&region) {
            let page = region.geometry.page_of(fault.address).expect("only the region is registered");
            region.install(page, Read, Payload::Zero).expect("installing works");
            seen += 1;
        }
    }
    assert!(touches.iter().all(|touch| touch.recv_timeout(BUDGET) == Ok(0)));
    let mut buffer = crate::uffd::FaultBuffer::default();
    assert_eq!(region.uffd().read_faults(&mut buffer).expect("reading never blocks").count(), 0);
}

/// Lets other threads go on: on another core for as long as a store takes, and now and then on this one.
fn give_way(turn: u64) {
    if turn.is_multiple_of(32) {
        std::thread::yield_now();
    } else {
        (0..50).for_each(|_| std::hint::spin_loop());
    }
}

/// Protects a page again and again under a thread that never stops storing to it. Where the machine is busy with other
/// things, the rounds end with the budget.
fn race(access: Access, rounds: u64, budget: Duration) {
    let pager = Pager::new(2, KERNEL_PAGE);
    let address = pager.address(0);
    let stop = Arc::new(AtomicBool::new(false));
    let writer = aside({
        let stop = stop.clone();
        move || (1..).take_while(|_| !stop.load(Ordering::Relaxed)).for_each(|value| store(address, value))
    });
    let end = Instant::now() + budget;
    let (mut last, mut round) = (0, 0);
    while round < rounds && Instant::now() < end {
        (1..).take_while(|_| peek(pager.region(), 0) == last).for_each(give_way);
        let mut belief = pager.belief();
        pager.region().protect(PageId(0), access).expect("protecting works");
        last = peek(pager.region(), 0);
        give_way(round);
        assert_eq!(peek(pager.region(), 0), last, "round {round}: a store landed on a page of {access:?}");
        belief.access.insert(PageId(0), access);
        round += 1;
    }
    stop.store(true, Ordering::Relaxed);
    writer.recv_timeout(BUDGET).expect("the writer ends");
    assert!(round > rounds / 100, "only {round} rounds in {budget:?}");
    assert!(pager.faults().len() as u64 >= round, "each round stopped the writer");
}

#[test]
fn no_store_lands_after_protect_returned() {
    for access in [Read, Nothing] {
        race(access, 10_000, Duration::from_secs(5));
    }
}

#[test]
fn system_calls_fault_like_instructions_where_that_is_permitted() {
    let pager = Pager::new(2, KERNEL_PAGE);
    let (reader, writer) = nix::unistd::pipe().expect("descriptors are left");
    nix::unistd::write(&writer, &42_u64.to_ne_bytes()).expect("the pipe has room");
    let target: *mut libc::c_void = std::ptr::with_exposed_provenance_mut(usize_of(pager.address(1).0));
    // SAFETY: the target is 8 bytes of a mapped region, to which no reference exists.
    let answer = unsafe { libc::read(std::os::fd::AsRawFd::as_raw_fd(&reader), target, size_of::<u64>()) };
    match pager.region().uffd().scope() {
        FaultScope::KernelAndUser => {
            assert_eq!((answer, load(pager.address(1))), (8, 42));
            pager.assert_access(&[Nothing, Write]);
        }
        FaultScope::UserOnly => {
            assert_eq!((answer, Errno::last()), (-1, Errno::EFAULT));
            pager.assert_access(&[Nothing, Nothing]);
        }
    }
}

#[test]
fn taken_addresses_are_refused_with_a_way_out() {
    let geometry = shape(2, KERNEL_PAGE);
    let first = Region::new(geometry).expect("the addresses are free");
    let taken =
        |geometry| Region::new(geometry).map(|_| ()).expect_err("the addresses are taken").to_string();
    let text = taken(geometry);
    assert!(text.contains(&format!("{:#x}", geometry.base().0)) && text.contains("region_base"), "{text}");
    assert!(text.contains("dsm-region"), "the holder is named: {text}");
    first.detach();
    assert!(taken(geometry).contains("region_base"), "the addresses stay reserved");
}

#[test]
fn pages_travel_between_frames_in_pieces() {
    let (there, here) = (region(2, 64 << 10), region(2, 64 << 10));
    mark(&there, 1, 77);
    let flags = SockFlag::SOCK_CLOEXEC;
    let (from, to) =
        socketpair(AddressFamily::Unix, SockType::Stream, None, flags).expect("descriptors are left");
    let mut head = [0; 5];
    // A first piece without the head's last two bytes, as after a socket that was full.
    let page = PageId(1);
    let size = there.frames().page_size();
    assert_eq!(nix::unistd::write(&from, b"hea").expect("the socket has room"), 3);
    assert_eq!(
        there.frames().send(from.as_fd(), b"d:", page, 0..size).expect("the socket has room"),
        2 + size
    );
    assert_eq!(nix::unistd::read(&to, &mut head).expect("the head is there"), head.len());
    assert_eq!(&head, b"head:");
    let mut at = 0;
    while at < size {
        at += here.frames().receive(to.as_fd(), page, at..size).expect("the rest is there");
    }
    assert_eq!(here.frames().crc32(page), there.frames().crc32(page));
    assert_ne!(here.frames().crc32(page), here.frames().crc32(PageId(0)));
    here.install(page, Read, Payload::Bytes).expect("installing works");
    assert_eq!(load(part(&here, 1, 15)), 77 + 15);

    let blocked = here.frames().receive(to.as_fd(), page, 0..size).expect_err("nothing is left");
    assert_eq!(blocked.kind(), std::io::ErrorKind::WouldBlock);
    assert_eq!(there.frames().send(from.as_fd(), b"", page, size - 8..size).expect("the socket has room"), 8);
    assert_eq!(here.frames().receive(to.as_fd(), PageId(0), 16..size).expect("it is there"), 8);
    drop(from);
    assert_eq!(here.frames().receive(to.as_fd(), page, 0..size).expect("the end is no error"), 0);
}

#[test]
#[should_panic(expected = "page 0x2 is not in the region")]
fn frames_beyond_the_region_are_out_of_reach() {
    region(2, KERNEL_PAGE).frames().fill(PageId(2), 0, &[1]);
}

#[test]
#[should_panic(expected = "leave a page")]
fn bytes_beyond_the_page_are_out_of_reach() {
    region(2, KERNEL_PAGE).frames().fill(PageId(0), usize_of(KERNEL_PAGE) - 1, &[1, 2]);
}

#[test]
fn who_waits_in_a_run_that_is_emptied_faults_again_and_what_was_mapped_is_not() {
    let region = region(8, KERNEL_PAGE);
    region.install(PageId(2), Write, Payload::Zero).expect("installing works");
    let address = region.geometry().address_of(PageId(5));
    let touch = aside(move || load(address));
    assert_eq!(next_fault(&region).address, address);
    region.empty_run(PageId(1), 6).expect("emptying works");
    assert_eq!(next_fault(&region).address, address, "it was woken");
    assert_eq!(region.scan(0..8).expect("it can be told"), [Nothing; 8]);
    region.install(PageId(5), Read, Payload::Zero).expect("installing works");
    assert_eq!(touch.recv().expect("it goes on"), 0);
}
