//! How much time recovery takes of each member: its machine alone, without a network and without bytes.
//!
//! Four members have stored to 256 MiB in pages of 4 KiB, of which each owns a quarter, and each keeps the commits of
//! another. One dies, and the others go on. Prints, for each survivor, milliseconds from the view to its report, from
//! there to its conclusions, and from there until it serves; and how long its report is. It prints that for pages that
//! were leased by those that store to them, and for pages that go round from one member to the next.
//!
//! `cargo run --release -p dsm-core --example recovery_cost`

use dsm_core::limits::REGION_BASE_DEFAULT;
use dsm_core::{
    Action, Actions, Copyset, Event, Geometry, Host, Incarnation, Machine, Message, NodeId, PageId, Progress,
    Replication, Report, Time, View, Want, wire,
};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

const MEMBERS: u16 = 4;
const DEAD: NodeId = NodeId(3);
const PAGES: u64 = 65_536;

/// Where members' time goes.
#[derive(Clone, Copy, Default)]
struct Spent {
    reporting: Duration,
    concluding: Duration,
    resuming: Duration,
    messages: usize,
    bytes: usize,
}

struct Cluster {
    view: View,
    machines: Vec<Machine>,
    wire: VecDeque<(NodeId, NodeId, Message)>,
    spent: Vec<Spent>,
    resumed: Copyset,
}

fn main() {
    let geometry = Geometry::new(REGION_BASE_DEFAULT, 1 << 30, 4096).expect("the region has a shape");
    let own = |page: PageId| geometry.home_of(page, Copyset::first(usize::from(MEMBERS)));
    measure("leased", geometry, own);
    measure("in turn", geometry, |page| NodeId(u16::try_from(page.0 % u64::from(MEMBERS)).unwrap_or(0)));
}

fn measure(name: &str, geometry: Geometry, owner: impl Fn(PageId) -> NodeId) {
    let mut cluster = Cluster::new(geometry);
    for page in (0..PAGES).map(PageId) {
        cluster.feed(owner(page), Event::Fault { page, want: Want::Write });
        cluster.settle();
    }
    for node in cluster.view.members().iter() {
        let sync = Event::Command { call: dsm_core::CallId(1), command: dsm_core::Command::Sync };
        cluster.feed(node, sync);
        cluster.settle();
    }
    cluster.lose();
    for node in cluster.view.members().iter() {
        let Spent { reporting, concluding, resuming, messages, bytes } = cluster.spent[node.index()];
        let millis = |time: Duration| time.as_secs_f64() * 1e3;
        println!(
            "{name}, {node}: {:.1} ms to report ({messages} messages, {bytes} bytes to each), {:.1} ms to conclude, \
             {:.1} ms to resume, {:.1} ms in all",
            millis(reporting),
            millis(concluding),
            millis(resuming),
            millis(reporting + concluding + resuming)
        );
    }
}

impl Cluster {
    fn new(geometry: Geometry) -> Cluster {
        let named = (0..MEMBERS).map(|rank| (NodeId(rank), Incarnation(1), Host(u64::from(rank))));
        let view = View::first(named, 1);
        let machine = |node| Machine::in_view(node, view.clone(), geometry);
        Cluster {
            machines: view.members().iter().map(machine).collect(),
            view,
            wire: VecDeque::new(),
            spent: vec![Spent::default(); usize::from(MEMBERS)],
            resumed: Copyset::EMPTY,
        }
    }

    /// Hands one fact to a machine; says how long it took.
    fn feed(&mut self, node: NodeId, event: Event) -> Duration {
        let mut actions: Actions = Vec::new();
        let begun = Instant::now();
        self.machines[node.index()].handle(Time::ZERO, event, &mut actions);
        let took = begun.elapsed();
        for action in actions {
            self.carry_out(node, action);
        }
        took
    }

    #[allow(clippy::wildcard_enum_match_arm, reason = "only what other machines hear of matters here")]
    fn carry_out(&mut self, node: NodeId, action: Action) {
        match action {
            Action::Send { to, message }
            | Action::SendLazily { to, message }
            | Action::SendPage { to, message, .. } => self.wire.push_back((node, to, message)),
            Action::Replicate(Replication::SendCopy { to, message, .. }) => {
                self.wire.extend(to.iter().map(|to| (node, to, message.clone())));
            }
            Action::Replicate(Replication::Resumed { .. }) => self.resumed = self.resumed.with(node),
            Action::ProbeResidency { page } => {
                self.feed(node, Event::Probed { page, progress: Progress::Retired });
            }
            _ => {}
        }
    }

    fn settle(&mut self) {
        while let Some((from, to, message)) = self.wire.pop_front() {
            self.feed(to, Event::Received { from, message });
        }
    }

    /// One member dies; the others recover. What they do in the background afterwards is not counted.
    fn lose(&mut self) {
        self.view = self.view.next(Copyset::EMPTY.with(DEAD), []);
        for node in self.view.members().iter() {
            self.spent[node.index()].reporting = self.feed(node, Event::ViewInstalled(self.view.clone()));
            let others = self.view.members().len() - 1;
            let reports = self.wire.iter().filter(|(from, _, _)| *from == node);
            let lengths = reports.filter_map(|(_, _, message)| {
                let mut bytes = Vec::new();
                wire::encode_message(message, &mut bytes).ok()
            });
            let spent = &mut self.spent[node.index()];
            (spent.messages, spent.bytes) =
                lengths.fold((0, 0), |(messages, bytes), length| (messages + 1, bytes + length));
            (spent.messages, spent.bytes) = (spent.messages / others, spent.bytes / others);
        }
        while let Some((from, to, message)) = self.wire.pop_front() {
            let ready = message == Message::Report(Report::Ready);
            if self.resumed == self.view.members() {
                return;
            }
            let took = self.feed(to, Event::Received { from, message });
            let spent = &mut self.spent[to.index()];
            if ready {
                spent.resuming += took;
            } else if !self.resumed.contains(to) {
                spent.concluding += took;
            }
        }
    }
}
