//! The membership's parts that need no cluster: how long its messages get, and the agreement of one view's voters under
//! loss, doubling and disorder.

use dsm_core::limits::{CONTROL_LENGTH_MAX, NODES_MAX};
use dsm_core::membership::change::JOINED_MAX;
use dsm_core::membership::{
    Body, Candidate, Change, Claims, ConfigStore, Fact, Identity, Intent, Membership, OmniStore, Packet,
    Settings, VoterId, Voters, Welcome,
};
use dsm_core::{Copyset, Host, Incarnation, Member, NodeId, Time, View, ViewId};
use proptest::prelude::*;
use std::collections::BTreeMap;

type Message = <OmniStore as ConfigStore>::Message;

fn longest_candidates() -> Vec<Candidate> {
    let rank = |offset: usize| NodeId(u16::try_from(NODES_MAX - 1 - offset).expect("a rank is short"));
    let candidate =
        |offset| Candidate { node: rank(offset), incarnation: Incarnation(u64::MAX), host: Host(u64::MAX) };
    (0..JOINED_MAX).rev().map(candidate).collect()
}

fn length(body: Body<Message>) -> usize {
    let packet = Packet { view: ViewId(u64::MAX), incarnation: Incarnation(u64::MAX), body };
    postcard::to_allocvec(&packet).expect("it has an encoding").len()
}

/// A view of as many nodes as there can be, each as long as it can be.
fn longest_view() -> View {
    let all = Copyset::first(NODES_MAX);
    let member = Member { incarnation: Incarnation(u64::MAX), host: Host(u64::MAX), buddies: all };
    View::told(ViewId(u64::MAX), u32::MAX, all.iter().map(|node| (node, member)).collect::<BTreeMap<_, _>>())
}

#[test]
fn every_message_fits_into_a_control_message() {
    let all = Copyset::first(NODES_MAX);
    let claims = Claims {
        late: all,
        refused: all,
        dead: all,
        suspected: all,
        leaving: all,
        candidates: longest_candidates(),
    };
    let change = Change { gone: all, joined: longest_candidates() };
    let mut lengths = vec![
        length(Body::Heartbeat { stamp: u64::MAX, renew: true, claims }),
        length(Body::Decided { of: ViewId(u64::MAX), change }),
    ];
    let parts = Welcome::parts(&longest_view());
    assert_eq!(parts.len(), 4);
    lengths.extend(parts.into_iter().map(|part| length(Body::Welcome(part))));
    assert!(lengths.iter().all(|length| *length < CONTROL_LENGTH_MAX), "{lengths:?}");
}

#[test]
fn every_word_of_consensus_fits_into_a_control_message() {
    let change = Change { gone: Copyset::first(NODES_MAX - 1), joined: longest_candidates() };
    let mut voters = Agreement::new(5);
    for leader in [1, 3, 0] {
        voters.stores[leader].lead(Some(change.clone()));
        voters.collect(leader);
        while voters.deliver(0, false) {}
    }
    assert!(voters.longest > 100 && voters.longest < CONTROL_LENGTH_MAX, "{}", voters.longest);
}

/// The voters of one view, and what is on its way between them.
struct Agreement {
    stores: Vec<OmniStore>,
    on_its_way: Vec<(usize, usize, Message)>,
    longest: usize,
}

impl Agreement {
    fn new(voters: u16) -> Agreement {
        let members = (0..voters).map(|rank| (NodeId(rank), Incarnation(1), Host(0)));
        let all = Voters::of(&View::first(members, 1), false);
        let stores = all.iter().map(|voter| OmniStore::new(ViewId::FIRST, voter, all)).collect();
        Agreement { stores, on_its_way: Vec::new(), longest: 0 }
    }

    fn collect(&mut self, from: usize) {
        for (to, message) in self.stores[from].drain() {
            self.longest = self.longest.max(length(Body::Consensus(message.clone())));
            let to = to.node().expect("there is no launcher here").index();
            self.on_its_way.push((from, to, message));
        }
    }

    /// Delivers one message, which may stay to come again; false if there is none.
    fn deliver(&mut self, which: usize, again: bool) -> bool {
        if self.on_its_way.is_empty() {
            return false;
        }
        let which = which % self.on_its_way.len();
        let (from, to, message) =
            if again { self.on_its_way[which].clone() } else { self.on_its_way.swap_remove(which) };
        let from = VoterId::Node(NodeId(u16::try_from(from).expect("a rank is short")));
        assert!(self.stores[to].receive(from, message), "a correct voter's word is refused");
        self.collect(to);
        true
    }

    fn decisions(&self) -> Vec<Change> {
        self.stores.iter().filter_map(ConfigStore::decided).collect()
    }
}

#[derive(Clone, Debug)]
enum Step {
    Lead(usize),
    Repeat(usize),
    Deliver(usize),
    DeliverAgain(usize),
    Lose(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => (0..5_usize).prop_map(Step::Lead),
        1 => (0..5_usize).prop_map(Step::Repeat),
        20 => any::<usize>().prop_map(Step::Deliver),
        3 => any::<usize>().prop_map(Step::DeliverAgain),
        3 => any::<usize>().prop_map(Step::Lose),
    ]
}

/// What voter `leader` wants: each wants something else.
fn wish(leader: usize) -> Change {
    let gone = NodeId(u16::try_from((leader + 1) % 5).expect("a rank is short"));
    Change { gone: Copyset::EMPTY.with(gone), joined: Vec::new() }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn voters_decide_one_change_whatever_the_network_does(steps in prop::collection::vec(step(), 1..400)) {
        let mut voters = Agreement::new(5);
        let mut decided: Option<Change> = None;
        for step in steps {
            match step {
                Step::Lead(leader) => {
                    voters.stores[leader].lead(Some(wish(leader)));
                    voters.collect(leader);
                }
                Step::Repeat(voter) => {
                    voters.stores[voter].repeat();
                    voters.collect(voter);
                }
                Step::Deliver(which) => drop(voters.deliver(which, false)),
                Step::DeliverAgain(which) => drop(voters.deliver(which, true)),
                Step::Lose(which) => {
                    if !voters.on_its_way.is_empty() {
                        let which = which % voters.on_its_way.len();
                        voters.on_its_way.swap_remove(which);
                    }
                }
            }
            for change in voters.decisions() {
                prop_assert_eq!(decided.get_or_insert(change.clone()), &change);
                let accepted = voters.stores.iter().filter(|store| store.accepted()).count();
                prop_assert!(accepted >= 3, "decided, and a majority does not know that it accepted");
            }
        }
        // Whatever happened: once one leads and nothing is lost, it is decided.
        voters.on_its_way.clear();
        for _ in 0..3 {
            voters.stores[2].lead(Some(wish(2)));
            voters.collect(2);
            while !voters.on_its_way.is_empty() {
                voters.deliver(0, false);
            }
        }
        prop_assert!(voters.stores[2].decided().is_some());
    }
}

#[test]
fn what_no_correct_process_says_changes_nothing() {
    let view = View::first((0..3).map(|rank| (NodeId(rank), Incarnation(1), Host(0))), 1);
    let me = Identity { id: VoterId::Node(NodeId(0)), incarnation: Incarnation(1), host: Host(0) };
    let mut membership: Membership<OmniStore> =
        Membership::new(Time::ZERO, me, Settings::default(), view.clone());
    let mut tell = |body| {
        let mut intents: Vec<Intent<Message>> = Vec::new();
        let packet = Packet { view: ViewId::FIRST, incarnation: Incarnation(1), body };
        let fact = Fact::Received { from: VoterId::Node(NodeId(1)), packet };
        membership.handle(Time::from_nanos(5), fact, &mut intents);
        assert!(
            !intents
                .iter()
                .any(|it| matches!(it, Intent::Install(_) | Intent::Resume | Intent::Evicted { .. }))
        );
        membership.rejected()
    };
    assert_eq!(tell(Body::Answer { stamp: 6, granted: true }), 1, "an answer from the future");
    let nobody_stays = Change { gone: view.members(), joined: Vec::new() };
    assert_eq!(tell(Body::Decided { of: ViewId::FIRST, change: nobody_stays }), 2);
    let stranger = Candidate { node: NodeId(7), incarnation: Incarnation(1), host: Host(0) };
    assert_eq!(tell(Body::Join(stranger)), 3, "rank 1 asks for rank 7");
    assert_eq!(tell(Body::Removed { incarnation: Incarnation(1) }), 3, "in the very view that it is in");
}
