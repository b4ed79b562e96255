//! Which outcomes the Rust memory model allows: that of C++20, by its axioms.
//!
//! All candidate executions of a program are enumerated: for each load the store that it reads from, for each variable
//! the order of its stores. A candidate counts if it keeps to the axioms, in the form that Lahav, Vafeiadis, Kang, Hur
//! and Dreyer gave them in "Repairing sequential consistency in C/C++11" (2017), which C++20 took over:
//!
//! - *coherence*: what happens before agrees with reads-from, with the stores' order, and with all that these imply;
//! - *sequential consistency*: the partial order of `SeqCst` accesses and fences has no cycle.
//!
//! Loads may read from stores that come after them (`LB`): the model allows it, though no x86 does it. Conflicting plain
//! accesses that are not ordered are a race, and a program that can race may do anything. Read-modify-write operations
//! do not occur in the shapes, so release sequences are single stores.

use super::outcome::Outcome;
use super::program::{Op, Order, Program};
use super::relation::{EVENTS_MAX, Relation, Set};
use super::shape::{ALL_VARIABLES, Variable};
use std::collections::BTreeSet;

/// What the model says about a program.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Allowed {
    /// These outcomes, and no others.
    Outcomes(BTreeSet<Outcome>),
    /// It can race: its behaviour is undefined.
    Anything,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Write { variable: Variable, value: u8 },
    Read { variable: Variable, register: usize },
    Fence,
}

#[derive(Clone, Copy, Debug)]
struct Event {
    /// `None` for the stores that make all variables zero before all else.
    thread: Option<usize>,
    kind: Kind,
    order: Order,
}

/// A program's events, and what does not depend on the execution.
struct Events {
    all: Vec<Event>,
    /// Program order, with the first stores before everything.
    before: Relation,
    same_variable: Relation,
}

/// One candidate.
struct Execution<'a> {
    events: &'a Events,
    reads_from: Relation,
    store_order: Relation,
}

/// What the model allows of `program`.
#[must_use]
pub fn allowed(program: &Program) -> Allowed {
    let events = Events::of(program);
    let mut outcomes = BTreeSet::new();
    for store_order in events.store_orders() {
        for sources in events.sources() {
            let mut reads_from = Relation::EMPTY;
            sources.iter().for_each(|&(read, write)| reads_from.insert(write, read));
            let execution = Execution { events: &events, reads_from, store_order };
            let happens_before = execution.happens_before();
            if !execution.is_consistent(&happens_before) {
                continue;
            }
            if events.has_race(&happens_before) {
                return Allowed::Anything;
            }
            outcomes.insert(events.outcome(program, &sources, &store_order));
        }
    }
    Allowed::Outcomes(outcomes)
}

impl Event {
    fn variable(&self) -> Option<Variable> {
        match self.kind {
            Kind::Write { variable, .. } | Kind::Read { variable, .. } => Some(variable),
            Kind::Fence => None,
        }
    }

    fn is_write(&self) -> bool {
        matches!(self.kind, Kind::Write { .. })
    }

    fn is_read(&self) -> bool {
        matches!(self.kind, Kind::Read { .. })
    }

    fn is_fence(&self) -> bool {
        self.kind == Kind::Fence
    }

    /// At least `AcqRel`, which for a load means `Acquire`, and for a store `Release`.
    fn synchronises(&self) -> bool {
        matches!(self.order, Order::AcqRel | Order::SeqCst)
    }
}

impl Events {
    fn of(program: &Program) -> Events {
        let zero =
            |variable| Event { thread: None, kind: Kind::Write { variable, value: 0 }, order: Order::Plain };
        let mut all: Vec<Event> =
            ALL_VARIABLES[..program.shape.variables()].iter().map(|&variable| zero(variable)).collect();
        for (thread, ops) in program.threads.iter().enumerate() {
            all.extend(ops.iter().map(|op| {
                let (kind, order) = match *op {
                    Op::Store { variable, value, order } => (Kind::Write { variable, value }, order),
                    Op::Load { variable, register, order } => (Kind::Read { variable, register }, order),
                    Op::Fence(order) => (Kind::Fence, order),
                };
                Event { thread: Some(thread), kind, order }
            }));
        }
        assert!(all.len() <= EVENTS_MAX, "a shape has few events");
        // Threads are laid out one after the other, each in its order.
        let before = Relation::of(all.len(), |a, b| match (all[a].thread, all[b].thread) {
            (None, later) => later.is_some(),
            (earlier, later) => earlier == later && a < b,
        });
        let same_variable = Relation::of(all.len(), |a, b| {
            all[a].variable().is_some() && all[a].variable() == all[b].variable()
        });
        Events { all, before, same_variable }
    }

    fn set(&self, is_in: impl Fn(&Event) -> bool) -> Set {
        let members = self.all.iter().enumerate().filter(|(_, event)| is_in(event));
        members.fold(0, |set, (index, _)| set | 1 << index)
    }

    fn identity(&self, is_in: impl Fn(&Event) -> bool) -> Relation {
        Relation::identity(self.set(is_in))
    }

    fn indices(&self, is_in: impl Fn(&Event) -> bool) -> Vec<usize> {
        (0..self.all.len()).filter(|&index| is_in(&self.all[index])).collect()
    }

    /// All ways to order the stores of each variable, the first zero always first.
    fn store_orders(&self) -> Vec<Relation> {
        let mut orders = vec![Relation::EMPTY];
        for zero in self.indices(|event| event.thread.is_none()) {
            let variable = self.all[zero].variable();
            let others = self
                .indices(|event| event.is_write() && event.thread.is_some() && event.variable() == variable);
            let mut extended = Vec::new();
            for order in &orders {
                for others in permutations(&others) {
                    let mut order = *order;
                    let chain: Vec<usize> = std::iter::once(zero).chain(others).collect();
                    for (place, &earlier) in chain.iter().enumerate() {
                        chain[place + 1..].iter().for_each(|&later| order.insert(earlier, later));
                    }
                    extended.push(order);
                }
            }
            orders = extended;
        }
        orders
    }

    /// All ways to give each load a store to read from: pairs of both.
    fn sources(&self) -> Vec<Vec<(usize, usize)>> {
        let mut all = vec![Vec::new()];
        for read in self.indices(Event::is_read) {
            let variable = self.all[read].variable();
            let writes = self.indices(|event| event.is_write() && event.variable() == variable);
            let extend = |begun: Vec<(usize, usize)>| {
                let with = move |&write: &usize| begun.iter().copied().chain([(read, write)]).collect();
                writes.iter().map(with).collect::<Vec<_>>()
            };
            all = all.into_iter().flat_map(extend).collect();
        }
        all
    }

    /// Whether two conflicting accesses, one of them plain, are not ordered.
    fn has_race(&self, happens_before: &Relation) -> bool {
        let conflict = |a: usize, b: usize| {
            let (one, other) = (&self.all[a], &self.all[b]);
            self.same_variable.has(a, b)
                && one.thread != other.thread
                && (one.is_write() || other.is_write())
                && (one.order == Order::Plain || other.order == Order::Plain)
        };
        let is_race = |a, b| conflict(a, b) && !happens_before.has(a, b) && !happens_before.has(b, a);
        (0..self.all.len()).any(|a| (0..a).any(|b| is_race(a, b)))
    }

    fn outcome(&self, program: &Program, sources: &[(usize, usize)], store_order: &Relation) -> Outcome {
        let value_of = |write: usize| match self.all[write].kind {
            Kind::Write { value, .. } => value,
            Kind::Read { .. } | Kind::Fence => 0,
        };
        let mut values = vec![0; program.shape.registers()];
        for &(read, write) in sources {
            if let Kind::Read { register, .. } = self.all[read].kind {
                values[register] = value_of(write);
            }
        }
        for &variable in program.shape.finals {
            let writes = self.indices(|event| event.is_write() && event.variable() == Some(variable));
            let is_last = |&&write: &&usize| writes.iter().all(|&other| !store_order.has(write, other));
            values.push(writes.iter().find(is_last).map_or(0, |&write| value_of(write)));
        }
        Outcome::whole(values)
    }
}

impl Execution<'_> {
    fn happens_before(&self) -> Relation {
        let events = self.events;
        let is_atomic = |event: &Event| event.order != Order::Plain;
        let releases = events.identity(|event| event.is_write() && event.synchronises());
        let acquires = events.identity(|event| event.is_read() && event.synchronises());
        let fences = events.identity(|event| event.is_fence() && event.synchronises());
        let atomic_writes = events.identity(|event| event.is_write() && is_atomic(event));
        let atomic_reads = events.identity(|event| event.is_read() && is_atomic(event));
        let release = releases.or(&fences.then(&events.before).then(&atomic_writes));
        let acquire = acquires.or(&atomic_reads.then(&events.before).then(&fences));
        let synchronises_with = release.then(&self.reads_from).then(&acquire);
        events.before.or(&synchronises_with).closure()
    }

    fn is_consistent(&self, happens_before: &Relation) -> bool {
        let from_read = self.reads_from.inverse().then(&self.store_order);
        let extended_order = self.reads_from.or(&self.store_order).or(&from_read).closure();
        let coherent = happens_before.then(&extended_order.or_same()).is_irreflexive();
        coherent && self.sequential_order(happens_before, &from_read, &extended_order).is_acyclic()
    }

    /// What the order of `SeqCst` accesses and fences must contain.
    fn sequential_order(&self, happens_before: &Relation, from_read: &Relation, eco: &Relation) -> Relation {
        let events = self.events;
        let accesses = events.identity(|event| event.order == Order::SeqCst);
        let fences = events.identity(|event| event.order == Order::SeqCst && event.is_fence());
        let other_variable =
            Relation::of(events.all.len(), |a, b| !events.same_variable.has(a, b)).and(&events.before);
        let between = events
            .before
            .or(&other_variable.then(happens_before).then(&other_variable))
            .or(&happens_before.and(&events.same_variable))
            .or(&self.store_order)
            .or(from_read);
        let from = accesses.or(&fences.then(&happens_before.or_same()));
        let to = accesses.or(&happens_before.or_same().then(&fences));
        let through = happens_before.or(&happens_before.then(eco).then(happens_before));
        from.then(&between).then(&to).or(&fences.then(&through).then(&fences))
    }
}

/// All orders of `items`.
fn permutations(items: &[usize]) -> Vec<Vec<usize>> {
    let Some((first, rest)) = items.split_first() else { return vec![Vec::new()] };
    let insert = |rest: Vec<usize>| {
        (0..=rest.len()).map(move |place| {
            let (before, after) = rest.split_at(place);
            [before, &[*first], after].concat()
        })
    };
    permutations(rest).into_iter().flat_map(insert).collect()
}
