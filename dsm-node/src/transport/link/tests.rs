//! Links over real sockets: order, exactness and restraint, also where connections break.

use super::super::stream::would_block;
use super::super::testing::{VecFrames, pair, tcp_pair};
use super::*;
use dsm_core::{Access, Copyset, Payload, TransactionId};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::sync::atomic::Ordering;

pub(super) const PAGE: usize = 4096;

pub(super) fn control(number: u64) -> Message {
    Message::BarrierArrive { generation: number }
}

pub(super) fn grant(page: u64, number: u64) -> Message {
    Message::Grant {
        page: PageId(page),
        transaction: TransactionId { node: NodeId(1), number },
        access: Access::Read,
        payload: Payload::Bytes,
        awaiting: Copyset::EMPTY,
        contended: false,
        custody: None,
    }
}

pub(super) fn links(page_size: usize) -> (Link, Link) {
    (Link::new(NodeId(1), page_size), Link::new(NodeId(0), page_size))
}

pub(super) fn connect(near: &mut Link, far: &mut Link, streams: (Stream, Stream)) {
    let (near_has, far_has) = (near.received_through(), far.received_through());
    near.attach(streams.0, far_has).expect("the far end has what was sent");
    far.attach(streams.1, near_has).expect("the near end has what was sent");
}

fn wait(link: &Link, events: PollFlags) {
    if let Some(descriptor) = link.descriptor() {
        poll(&mut [PollFd::new(descriptor, events)], PollTimeout::MAX).expect("poll");
    }
}

/// Everything that has arrived.
fn drain(link: &mut Link, frames: &VecFrames) -> Result<Vec<Message>, LinkDown> {
    let mut messages = Vec::new();
    while let Some(message) = link.next(frames, |_| true)? {
        messages.push(message);
    }
    Ok(messages)
}

/// Moves messages until `count` have come.
fn pump(
    near: &mut Link,
    near_frames: &VecFrames,
    far: &mut Link,
    far_frames: &VecFrames,
    count: usize,
) -> Vec<Message> {
    let mut messages = Vec::new();
    while messages.len() < count {
        near.flush(near_frames, Voice::Full).expect("the connection stands");
        wait(far, PollFlags::POLLIN);
        messages.extend(drain(far, far_frames).expect("the connection stands"));
    }
    messages
}

#[test]
fn messages_and_pages_arrive_in_order() {
    for streams in [pair(None), tcp_pair()] {
        let (mut near, mut far) = links(PAGE);
        let (ours, theirs) = (VecFrames::new(PAGE, 8), VecFrames::new(PAGE, 8));
        connect(&mut near, &mut far, streams);
        let mut sent = Vec::new();
        for number in 0..100 {
            let page = number % 8;
            ours.paint(PageId(page), page as u8);
            near.send(&control(number), None).expect("it fits");
            near.send(&grant(page, number), Some(PageId(page))).expect("it fits");
            sent.extend([control(number), grant(page, number)]);
        }
        let came = pump(&mut near, &ours, &mut far, &theirs, sent.len());
        assert_eq!(came, sent);
        for page in 0..8 {
            assert_eq!(theirs.page(PageId(page)), ours.page(PageId(page)));
        }
        let (out, into) = (near.counters(), far.counters());
        assert_eq!((out.frames_sent, out.pages_sent), (200, 100));
        assert_eq!((into.frames_received, into.pages_received), (200, 100));
        assert_eq!(out.bytes_sent, into.bytes_received);
    }
}

#[test]
fn a_run_of_small_frames_goes_out_in_one_flush() {
    let (mut near, mut far) = links(PAGE);
    let frames = VecFrames::new(PAGE, 1);
    connect(&mut near, &mut far, pair(None));
    for number in 0..50 {
        near.send(&control(number), None).expect("it fits");
    }
    assert!(near.has_unsent());
    assert_eq!(near.flush(&frames, Voice::Full).expect("it stands"), Flushed::Done);
    assert!(!near.has_unsent());
    assert_eq!(drain(&mut far, &frames).expect("it stands").len(), 50);
}

#[test]
fn large_pages_pass_through_tiny_buffers() {
    let page_size = 2 << 20;
    let (mut near, mut far) = links(page_size);
    let (ours, theirs) = (VecFrames::new(page_size, 2), VecFrames::new(page_size, 2));
    connect(&mut near, &mut far, pair(Some(1)));
    for page in 0..2 {
        ours.paint(PageId(page), 7 + page as u8);
        near.send(&grant(page, page), Some(PageId(page))).expect("it fits");
    }
    assert_eq!(near.flush(&ours, Voice::Full).expect("it stands"), Flushed::Blocked);
    assert!(near.has_unsent());
    assert_eq!(pump(&mut near, &ours, &mut far, &theirs, 2), [grant(0, 0), grant(1, 1)]);
    assert_eq!(theirs.page(PageId(0)), ours.page(PageId(0)));
    assert_eq!(theirs.page(PageId(1)), ours.page(PageId(1)));
}

#[test]
fn a_page_that_nobody_waits_for_is_discarded_and_checked() {
    let (mut near, mut far) = links(PAGE);
    let (ours, theirs) = (VecFrames::new(PAGE, 1), VecFrames::new(PAGE, 1));
    connect(&mut near, &mut far, pair(None));
    ours.paint(PageId(0), 1);
    near.send(&grant(0, 1), Some(PageId(0))).expect("it fits");
    near.send(&control(2), None).expect("it fits");
    near.flush(&ours, Voice::Full).expect("it stands");
    assert_eq!(far.next(&theirs, |_| false).expect("it stands"), Some(grant(0, 1)));
    assert_eq!(far.next(&theirs, |_| false).expect("it stands"), Some(control(2)));
    assert_eq!(theirs.writes.load(Ordering::Relaxed), 0);
}

#[test]
fn a_revoked_reservation_takes_no_further_byte() {
    let (mut near, mut far) = links(PAGE);
    let (ours, theirs) = (VecFrames::new(PAGE, 1), VecFrames::new(PAGE, 1));
    let (socket, peer) = pair(None);
    ours.paint(PageId(0), 1);
    near.send(&grant(0, 1), Some(PageId(0))).expect("it fits");
    near.send(&control(2), None).expect("it fits");
    let bytes = everything(&mut near, &ours);
    far.attach(peer, 0).expect("nothing was sent");
    socket.send(&bytes[..1000]).expect("it fits the socket");
    assert_eq!(far.next(&theirs, |_| true).expect("it stands"), None);
    let writes = theirs.writes.load(Ordering::Relaxed);
    assert!(writes > 0, "the first part lands in the frame");
    socket.send(&bytes[1000..]).expect("it fits the socket");
    assert_eq!(far.next(&theirs, |_| false).expect("it stands"), Some(grant(0, 1)));
    assert_eq!(far.next(&theirs, |_| false).expect("it stands"), Some(control(2)));
    assert_eq!(theirs.writes.load(Ordering::Relaxed), writes);
}

/// All that `link` would write to a fresh connection.
fn everything(link: &mut Link, frames: &VecFrames) -> Vec<u8> {
    let (socket, peer) = pair(None);
    link.attach(socket, 0).expect("the peer has nothing");
    assert_eq!(link.flush(frames, Voice::Full).expect("it stands"), Flushed::Done);
    let mut bytes = vec![0; 1 << 20];
    let came = peer.receive(&mut bytes).expect("it was written");
    bytes.truncate(came);
    bytes
}

#[test]
fn a_connection_cut_at_any_byte_is_invisible() {
    let messages = [control(1), grant(0, 2), control(3), grant(1, 4), control(5)];
    let ours = VecFrames::new(PAGE, 2);
    ours.paint(PageId(0), 11);
    ours.paint(PageId(1), 22);
    let mut original = Link::new(NodeId(1), PAGE);
    for message in &messages {
        original.send(message, wire::page_behind(message)).expect("it fits");
    }
    let stream = everything(&mut original, &ours);
    for cut in 0..=stream.len() {
        let (mut near, mut far) = links(PAGE);
        let theirs = VecFrames::new(PAGE, 2);
        for message in &messages {
            near.send(message, wire::page_behind(message)).expect("it fits");
        }
        // The near end believes that it wrote everything; the far end sees the first `cut` bytes and the end.
        everything(&mut near, &ours);
        let (socket, peer) = pair(None);
        far.attach(peer, 0).expect("nothing was sent");
        socket.send(&stream[..cut]).expect("it fits the socket");
        drop(socket);
        let mut came = Vec::new();
        loop {
            match far.next(&theirs, |_| true) {
                Ok(Some(message)) => came.push(message),
                Ok(None) => wait(&far, PollFlags::POLLIN),
                Err(LinkDown::Closed) => break,
                Err(other) => panic!("cut at {cut}: {other}"),
            }
        }
        assert!(far.is_attached(), "whoever polls it has yet to let go of it");
        near.detach();
        connect(&mut near, &mut far, pair(None));
        let missing = messages.len() - came.len();
        came.extend(pump(&mut near, &ours, &mut far, &theirs, missing));
        assert_eq!(came, messages, "cut at {cut}");
        assert_eq!(drain(&mut far, &theirs).expect("it stands"), []);
        assert_eq!(theirs.page(PageId(0)), ours.page(PageId(0)), "cut at {cut}");
        assert_eq!(theirs.page(PageId(1)), ours.page(PageId(1)), "cut at {cut}");
        assert_eq!(far.received_through(), 5);
        assert_eq!(near.counters().reconnects, 1);
    }
}

#[test]
fn a_write_cut_in_the_middle_is_repeated_from_the_frame() {
    let page_size = 1 << 20;
    let (mut near, mut far) = links(page_size);
    let (ours, theirs) = (VecFrames::new(page_size, 1), VecFrames::new(page_size, 1));
    ours.paint(PageId(0), 3);
    connect(&mut near, &mut far, pair(Some(1)));
    near.send(&grant(0, 1), Some(PageId(0))).expect("it fits");
    assert_eq!(near.flush(&ours, Voice::Full).expect("it stands"), Flushed::Blocked);
    assert_eq!(drain(&mut far, &theirs).expect("it stands"), []);
    near.detach();
    assert_eq!(near.flush(&ours, Voice::Full).expect("there is none to break"), Flushed::Blocked);
    connect(&mut near, &mut far, pair(Some(1)));
    assert_eq!(pump(&mut near, &ours, &mut far, &theirs, 1), [grant(0, 1)]);
    assert_eq!(theirs.page(PageId(0)), ours.page(PageId(0)));
}

#[test]
fn what_comes_twice_is_dropped_even_when_its_frame_has_changed() {
    let (mut near, mut far) = links(PAGE);
    let (ours, theirs) = (VecFrames::new(PAGE, 1), VecFrames::new(PAGE, 1));
    ours.paint(PageId(0), 1);
    connect(&mut near, &mut far, pair(None));
    near.send(&grant(0, 1), Some(PageId(0))).expect("it fits");
    assert_eq!(pump(&mut near, &ours, &mut far, &theirs, 1), [grant(0, 1)]);
    let before = theirs.page(PageId(0));
    ours.paint(PageId(0), 2);
    // The handshake was overtaken by the old connection: the near end resends what the far end has.
    let (socket, peer) = pair(None);
    near.attach(socket, 0).expect("nothing is acknowledged");
    far.attach(peer, 0).expect("nothing was sent");
    near.send(&control(2), None).expect("it fits");
    assert_eq!(pump(&mut near, &ours, &mut far, &theirs, 1), [control(2)]);
    assert_eq!(far.counters().duplicates, 1);
    assert_eq!(theirs.page(PageId(0)), before);
}

#[test]
fn acknowledgements_free_what_is_kept() {
    let (mut near, mut far) = links(PAGE);
    let frames = VecFrames::new(PAGE, 1);
    connect(&mut near, &mut far, pair(None));
    for number in 0..ACKNOWLEDGE_AFTER {
        near.send(&control(number), None).expect("it fits");
    }
    near.flush(&frames, Voice::Full).expect("it stands");
    assert_eq!(drain(&mut far, &frames).expect("it stands").len(), 64);
    assert!(far.has_unsent(), "after so many frames an acknowledgement is owed");
    far.flush(&frames, Voice::Full).expect("it stands");
    assert_eq!(drain(&mut near, &frames).expect("it stands"), []);
    assert!(matches!(near.attach(pair(None).0, 65), Err(LinkDown::Bad(BadFrame::Acknowledged { .. }))));

    connect(&mut near, &mut far, pair(None));
    near.send(&control(99), None).expect("it fits");
    near.flush(&frames, Voice::Full).expect("it stands");
    assert_eq!(drain(&mut far, &frames).expect("it stands").len(), 1);
    assert!(!far.has_unsent());
}

/// Feeds `bytes` to a fresh link; why it went down, with proof that memory stayed as it was.
fn feed(bytes: &[u8], writes: usize) -> LinkDown {
    let mut far = Link::new(NodeId(0), PAGE);
    let theirs = VecFrames::new(PAGE, 1);
    let (socket, peer) = pair(None);
    far.attach(peer, 0).expect("nothing was sent");
    socket.send(bytes).expect("it fits the socket");
    let down = drain(&mut far, &theirs).expect_err("it is bad");
    assert!(far.is_attached(), "whoever polls it has yet to let go of it");
    assert_eq!(far.counters().bad_frames, 1);
    assert_eq!(theirs.writes.load(Ordering::Relaxed), writes);
    down
}

#[test]
fn bad_frames_take_the_connection_down_and_touch_nothing() {
    let ours = VecFrames::new(PAGE, 1);
    let mut near = Link::new(NodeId(1), PAGE);
    near.send(&grant(0, 1), Some(PageId(0))).expect("it fits");
    let good = everything(&mut near, &ours);

    let noise: Vec<u8> = (0..4096_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    assert!(matches!(feed(&noise, 0), LinkDown::Bad(BadFrame::Wire(WireError::Magic(_)))));

    let mut long = good.clone();
    long[12..16].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(matches!(feed(&long, 0), LinkDown::Bad(BadFrame::Wire(WireError::BodyLength { .. }))));

    let mut flipped = good.clone();
    flipped[50] ^= 1;
    assert!(matches!(feed(&flipped, 0), LinkDown::Bad(BadFrame::Wire(WireError::HeaderCrc { .. }))));

    // A damaged body lands in the frame that was reserved for it, and its message is not handed out.
    let mut damaged = good.clone();
    *damaged.last_mut().expect("it has a body") ^= 1;
    assert!(matches!(feed(&damaged, 1), LinkDown::Bad(BadFrame::BodyCrc { .. })));
}

#[test]
fn gaps_and_impossible_acknowledgements_are_bad() {
    let frame = |sequence, acknowledged, view| {
        let mut bytes = Vec::new();
        let length = wire::encode_message(&control(1), &mut bytes).expect("it fits");
        let header = Header {
            kind: Kind::Data,
            control_length: u32::try_from(length).expect("it is short"),
            body_length: 0,
            sequence,
            acknowledged,
            view,
            body_crc: 0,
        };
        [&header.encode(&bytes)[..], &bytes].concat()
    };
    let gap = BadFrame::Gap { expected: 1, found: 2 };
    assert!(matches!(feed(&frame(2, 0, ViewId::FIRST), 0), LinkDown::Bad(bad) if bad == gap));
    assert!(matches!(
        feed(&frame(1, 1, ViewId::FIRST), 0),
        LinkDown::Bad(BadFrame::Acknowledged { acknowledged: 1, first: 0, last: 0 })
    ));
}

#[test]
fn a_graceful_end_comes_after_everything_else() {
    let (mut near, mut far) = links(PAGE);
    let frames = VecFrames::new(PAGE, 1);
    connect(&mut near, &mut far, pair(None));
    near.send(&control(1), None).expect("it fits");
    near.shutdown();
    assert_eq!(near.flush(&frames, Voice::Full).expect("it stands"), Flushed::Done);
    assert!(!near.has_unsent());
    assert_eq!(far.next(&frames, |_| true).expect("it stands"), Some(control(1)));
    assert_eq!(far.next(&frames, |_| true).expect("a short read comes first"), None);
    assert!(matches!(far.next(&frames, |_| true), Err(LinkDown::Closed)));
}

#[test]
fn what_comes_after_the_farewell_is_still_heard_to_its_end() {
    let (mut near, mut far) = links(PAGE);
    let frames = VecFrames::new(PAGE, 1);
    connect(&mut near, &mut far, pair(None));
    near.shutdown();
    assert_eq!(near.flush(&frames, Voice::Full).expect("it stands"), Flushed::Done);
    // So many that an acknowledgement is owed, and one that asks for an answer.
    for number in 0..=ACKNOWLEDGE_AFTER {
        far.send(&control(number), None).expect("it fits");
    }
    far.flush(&frames, Voice::Full).expect("it stands");
    assert!(matches!(near.next(&frames, |_| true), Ok(Some(_))));
    near.send(&control(1), None).expect("it fits");
    assert_eq!(near.flush(&frames, Voice::Full).expect("nothing is written"), Flushed::Done);
    assert_eq!(drain(&mut near, &frames).expect("it stands").len(), 64);
    assert_eq!(near.flush(&frames, Voice::Full).expect("nothing is written"), Flushed::Done);
}

#[test]
fn a_dead_peer_is_an_error_and_no_signal() {
    let (mut near, mut far) = links(PAGE);
    let frames = VecFrames::new(PAGE, 1);
    connect(&mut near, &mut far, pair(None));
    far.detach();
    near.send(&control(1), None).expect("it fits");
    match near.flush(&frames, Voice::Full) {
        Err(LinkDown::Failed(error)) => assert!(!would_block(&error)),
        other => panic!("{other:?}"),
    }
    assert!(near.descriptor().is_some(), "whoever polls it has yet to let go of it");
    near.detach();
    assert!(near.has_unsent(), "the message waits for the next connection");
}

#[test]
fn a_call_that_comes_late_is_told_from_one_that_is_due() {
    let (mut near, mut far) = links(PAGE);
    let frames = VecFrames::new(PAGE, 1);
    connect(&mut near, &mut far, pair(None));
    for number in 0..ACKNOWLEDGE_AFTER {
        near.send(&control(number), None).expect("it fits");
    }
    near.flush(&frames, Voice::Full).expect("it stands");
    drain(&mut far, &frames).expect("it stands");
    far.flush(&frames, Voice::Full).expect("it stands");
    drain(&mut near, &frames).expect("it stands");
    assert!(near.is_behind(ACKNOWLEDGE_AFTER - 1) && !near.is_behind(ACKNOWLEDGE_AFTER));
}

#[test]
fn what_came_by_an_earlier_connection_is_acknowledged_before_it_is_sent_again() {
    let page_size = 1 << 20;
    let (mut near, mut far) = links(page_size);
    let frames = VecFrames::new(page_size, 1);
    connect(&mut near, &mut far, pair(None));
    near.send(&control(1), None).expect("it fits");
    near.send(&control(2), None).expect("it fits");
    near.flush(&frames, Voice::Full).expect("it stands");
    // The far end shakes hands for the next connection before it has read what the last one brought.
    let (near_has, far_has) = (near.received_through(), far.received_through());
    drain(&mut far, &frames).expect("it stands");
    let (socket, peer) = pair(None);
    near.attach(socket, far_has).expect("nothing is acknowledged");
    far.attach(peer, near_has).expect("nothing was sent");
    // It speaks before the near end has begun to send again.
    far.send(&control(3), None).expect("it fits");
    far.flush(&frames, Voice::Full).expect("it stands");
    assert_eq!(drain(&mut near, &frames).expect("the acknowledgement is right"), [control(3)]);
    near.send(&control(4), None).expect("it fits");
    assert_eq!(pump(&mut near, &frames, &mut far, &frames, 1), [control(4)]);
    assert_eq!(far.counters().duplicates, 0, "what was acknowledged is not sent again");
}

#[test]
fn a_call_that_is_answered_late_leaves_the_next_one_its_right() {
    let (mut near, mut far) = links(PAGE);
    let frames = VecFrames::new(PAGE, 1);
    connect(&mut near, &mut far, pair(None));
    near.send(&control(1), None).expect("it fits");
    near.send(&control(2), None).expect("it fits");
    assert_eq!(pump(&mut near, &frames, &mut far, &frames, 2).len(), 2);
    // An old call, from when the far end had one frame, takes the place of the connection; the next call is right again.
    near.attach(pair(None).0, 1).expect("it may be");
    connect(&mut near, &mut far, pair(None));
    near.send(&control(3), None).expect("it fits");
    assert_eq!(pump(&mut near, &frames, &mut far, &frames, 1), [control(3)]);
}

#[test]
fn a_frame_that_comes_again_may_acknowledge_less_than_is_known() {
    let (mut near, mut far) = links(PAGE);
    let frames = VecFrames::new(PAGE, 1);
    near.send(&control(1), None).expect("it fits");
    let old = everything(&mut near, &frames);
    near.detach();
    connect(&mut near, &mut far, pair(None));
    assert_eq!(pump(&mut near, &frames, &mut far, &frames, 1), [control(1)]);
    far.send(&control(2), None).expect("it fits");
    assert_eq!(pump(&mut far, &frames, &mut near, &frames, 1), [control(2)]);
    near.send(&control(3), None).expect("it fits");
    assert_eq!(pump(&mut near, &frames, &mut far, &frames, 1), [control(3)]);
    let (socket, peer) = pair(None);
    far.attach(peer, near.received_through()).expect("it is right");
    socket.send(&old).expect("it fits the socket");
    wait(&far, PollFlags::POLLIN);
    assert_eq!(drain(&mut far, &frames).expect("it stands"), []);
    assert_eq!(far.counters().duplicates, 1);
}

#[test]
fn who_says_goodbye_says_what_it_has_heard() {
    let (mut near, mut far) = links(PAGE);
    let frames = VecFrames::new(PAGE, 1);
    connect(&mut near, &mut far, pair(None));
    near.send(&control(1), None).expect("it fits");
    near.shutdown();
    assert_eq!(near.flush(&frames, Voice::Full).expect("it stands"), Flushed::Done);
    assert!(!near.was_heard_out(), "nobody has said so");
    // The connection breaks before the far end has heard it; on the next, it is said again.
    near.detach();
    far.detach();
    connect(&mut near, &mut far, pair(None));
    assert_eq!(pump(&mut near, &frames, &mut far, &frames, 1), [control(1)]);
    far.shutdown();
    assert_eq!(far.flush(&frames, Voice::Full).expect("it stands"), Flushed::Done);
    let down = drain(&mut near, &frames).and_then(|_| drain(&mut near, &frames)).expect_err("it ends");
    assert!(matches!(down, LinkDown::Closed), "{down}");
    assert!(near.was_heard_out());
}

#[test]
fn an_acknowledgement_that_was_lost_with_its_connection_is_said_again() {
    let (mut near, mut far) = links(PAGE);
    let frames = VecFrames::new(PAGE, 1);
    connect(&mut near, &mut far, pair(None));
    near.send(&control(1), None).expect("it fits");
    near.shutdown();
    near.flush(&frames, Voice::Full).expect("it stands");
    // The far end shakes hands for the next connection, then reads to the end of this one, and says goodbye on it.
    let far_has = far.received_through();
    assert_eq!(far.next(&frames, |_| true).expect("it stands"), Some(control(1)));
    far.shutdown();
    far.flush(&frames, Voice::Full).expect("it stands");
    let (socket, peer) = pair(None);
    near.attach(socket, far_has).expect("nothing is acknowledged");
    far.attach(peer, 0).expect("nothing was sent");
    assert_eq!(far.flush(&frames, Voice::Full).expect("it stands"), Flushed::Done);
    let down = drain(&mut near, &frames).and_then(|_| drain(&mut near, &frames)).expect_err("it ends");
    assert!(matches!(down, LinkDown::Closed), "{down}");
    assert!(near.was_heard_out());
}

#[test]
fn a_frame_that_is_sent_anew_acknowledges_what_came_meanwhile() {
    let (mut near, mut far) = links(PAGE);
    let frames = VecFrames::new(PAGE, 1);
    connect(&mut near, &mut far, pair(None));
    near.send(&control(1), None).expect("it fits");
    near.flush(&frames, Voice::Full).expect("it stands");
    far.send(&control(2), None).expect("it fits");
    far.shutdown();
    far.flush(&frames, Voice::Full).expect("it stands");
    // Both have heard all, but have shaken hands before.
    assert_eq!(drain(&mut far, &frames).expect("it stands"), [control(1)]);
    assert_eq!(near.next(&frames, |_| true).expect("it stands"), Some(control(2)));
    let (socket, peer) = pair(None);
    near.attach(socket, 0).expect("nothing is acknowledged");
    far.attach(peer, 0).expect("nothing is acknowledged");
    near.flush(&frames, Voice::Full).expect("it stands");
    assert_eq!(drain(&mut far, &frames).expect("it stands"), []);
    assert_eq!(far.counters().duplicates, 1);
    assert!(far.was_heard_out());
}
