//! Links across changes of the view: what is over, what is ahead, what goes though nothing else may, and copies of pages.

use super::super::testing::{VecFrames, pair};
use super::tests::{PAGE, connect, control, grant, links};
use super::*;

/// What `link` hears next, and in which view it was said.
fn hear(link: &mut Link, frames: &VecFrames) -> Option<(ViewId, Message)> {
    let heard = link.hear(frames, |_| Landing::Frame).expect("the connection stands")?;
    match heard {
        Heard::Message { view, message, body: Delivered::Nothing } => Some((view, message)),
        other => panic!("a message without bytes was due: {other:?}"),
    }
}

#[test]
fn what_was_said_in_a_view_that_is_over_is_dropped_and_of_a_later_one_is_told() {
    let (mut near, mut far) = links(PAGE);
    let (ours, theirs) = (VecFrames::new(PAGE, 1), VecFrames::new(PAGE, 1));
    connect(&mut near, &mut far, pair(None));
    near.send(&control(1), None).expect("it fits");
    near.send(&grant(0, 1), Some(PageId(0))).expect("it fits");
    near.flush(&ours, Voice::Full).expect("it stands");
    far.install(ViewId(2));
    assert_eq!(hear(&mut far, &theirs), None);
    assert_eq!((far.counters().stale, theirs.writes.load(Ordering::Relaxed)), (2, 0));
    near.install(ViewId(3));
    near.send(&control(2), None).expect("it fits");
    near.flush(&ours, Voice::Full).expect("it stands");
    assert_eq!(hear(&mut far, &theirs), Some((ViewId(3), control(2))));
    // Nobody sends pages before all have installed the view.
    near.send(&grant(0, 2), Some(PageId(0))).expect("it fits");
    near.flush(&ours, Voice::Full).expect("it stands");
    assert_eq!(hear(&mut far, &theirs), None, "a short read comes first");
    let down = far.hear(&theirs, |_| Landing::Frame).expect_err("it is bad");
    assert!(matches!(down, LinkDown::Bad(BadFrame::View { .. })), "{down}");
}

#[test]
fn what_had_not_gone_out_when_the_view_changed_never_does() {
    let (mut near, mut far) = links(PAGE);
    let frames = VecFrames::new(PAGE, 1);
    connect(&mut near, &mut far, pair(None));
    near.send(&control(1), None).expect("it fits");
    near.flush(&frames, Voice::Full).expect("it stands");
    near.send(&control(2), None).expect("it fits");
    near.install(ViewId(2));
    near.send(&control(3), None).expect("it fits");
    near.flush(&frames, Voice::Full).expect("it stands");
    assert_eq!(hear(&mut far, &frames), Some((ViewId::FIRST, control(1))));
    assert_eq!(hear(&mut far, &frames), Some((ViewId(2), control(3))));
}

#[test]
fn words_about_membership_go_first_and_go_though_nothing_else_may() {
    let (mut near, mut far) = links(PAGE);
    let frames = VecFrames::new(PAGE, 1);
    connect(&mut near, &mut far, pair(None));
    let packet = MembershipPacket {
        view: ViewId::FIRST,
        incarnation: dsm_core::Incarnation(7),
        body: dsm_core::membership::Body::Fetch,
    };
    near.send(&control(1), None).expect("it fits");
    near.say(&packet).expect("it fits");
    assert_eq!(near.flush(&frames, Voice::Membership).expect("it stands"), Flushed::Done);
    let heard = far.hear(&frames, |_| Landing::Frame).expect("it stands");
    assert!(matches!(heard, Some(Heard::Packet(heard)) if heard.incarnation == packet.incarnation));
    assert_eq!(hear(&mut far, &frames), None, "the message has no lease");
    near.flush(&frames, Voice::Full).expect("it stands");
    assert_eq!(hear(&mut far, &frames), Some((ViewId::FIRST, control(1))));
}

#[test]
fn copies_travel_behind_their_messages_and_may_land_aside() {
    let (mut near, mut far) = links(PAGE);
    let (ours, theirs) = (VecFrames::new(PAGE, 1), VecFrames::new(PAGE, 1));
    connect(&mut near, &mut far, pair(None));
    let copy: Vec<u8> = (0..PAGE).map(|at| (at % 253) as u8).collect();
    for number in 0..20 {
        near.send_copy(&grant(0, number), Arc::from(&copy[..])).expect("it fits");
        near.send(&control(number), None).expect("it fits");
    }
    let mut came = 0;
    while came < 20 {
        near.flush(&ours, Voice::Full).expect("it stands");
        match far.hear(&theirs, |_| Landing::Aside).expect("it stands") {
            Some(Heard::Message { message: Message::Grant { .. }, body, .. }) => {
                assert_eq!(body, Delivered::Aside(Box::from(&copy[..])));
                came += 1;
            }
            Some(Heard::Message { body, .. }) => assert_eq!(body, Delivered::Nothing),
            Some(Heard::Packet(packet)) => panic!("{packet:?}"),
            None => {}
        }
    }
    assert_eq!(theirs.writes.load(Ordering::Relaxed), 0, "no frame is touched");
}

#[test]
fn where_the_bytes_behind_a_message_went_is_told() {
    let (mut near, mut far) = links(PAGE);
    let (ours, theirs) = (VecFrames::new(PAGE, 1), VecFrames::new(PAGE, 1));
    connect(&mut near, &mut far, pair(None));
    let mut came = |number, landing: Landing| {
        near.send(&grant(0, number), Some(PageId(0))).expect("it fits");
        loop {
            near.flush(&ours, Voice::Full).expect("it stands");
            match far.hear(&theirs, |_| landing).expect("it stands") {
                Some(Heard::Message { body, .. }) => return body,
                Some(Heard::Packet(packet)) => panic!("{packet:?}"),
                None => {}
            }
        }
    };
    assert_eq!(came(1, Landing::Nowhere), Delivered::Nothing);
    assert_eq!(came(2, Landing::Frame), Delivered::InFrame);
    assert!(matches!(came(3, Landing::Aside), Delivered::Aside(_)));
}
