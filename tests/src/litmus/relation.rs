//! Relations over the few events of a program, as rows of bits.

/// Events in one execution at most.
pub const EVENTS_MAX: usize = 32;

/// A set of events.
pub type Set = u32;

const _: () = assert!(EVENTS_MAX == Set::BITS as usize);

/// A relation: row `a` has bit `b` if `a` is related to `b`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Relation([Set; EVENTS_MAX]);

impl Relation {
    /// No events are related.
    pub const EMPTY: Relation = Relation([0; EVENTS_MAX]);

    /// Each event of `set` is related to itself.
    #[must_use]
    pub fn identity(set: Set) -> Relation {
        let mut relation = Relation::EMPTY;
        (0..EVENTS_MAX).for_each(|event| relation.0[event] = set & (1 << event));
        relation
    }

    /// The pairs for which `related` holds, among the first `events`.
    #[must_use]
    pub fn of(events: usize, related: impl Fn(usize, usize) -> bool) -> Relation {
        let mut relation = Relation::EMPTY;
        for a in 0..events {
            (0..events).filter(|&b| related(a, b)).for_each(|b| relation.0[a] |= 1 << b);
        }
        relation
    }

    /// Adds a pair.
    pub fn insert(&mut self, a: usize, b: usize) {
        self.0[a] |= 1 << b;
    }

    /// Whether `a` is related to `b`.
    #[must_use]
    pub fn has(&self, a: usize, b: usize) -> bool {
        self.0[a] & (1 << b) != 0
    }

    /// The pairs of either.
    #[must_use]
    pub fn or(&self, other: &Relation) -> Relation {
        Relation(std::array::from_fn(|a| self.0[a] | other.0[a]))
    }

    /// This, and each event related to itself.
    #[must_use]
    pub fn or_same(&self) -> Relation {
        self.or(&Relation::identity(Set::MAX))
    }

    /// The pairs of both.
    #[must_use]
    pub fn and(&self, other: &Relation) -> Relation {
        Relation(std::array::from_fn(|a| self.0[a] & other.0[a]))
    }

    /// `a` to `c` where this has `a` to `b`, and `next` has `b` to `c`.
    #[must_use]
    pub fn then(&self, next: &Relation) -> Relation {
        Relation(std::array::from_fn(|a| {
            let between = (0..EVENTS_MAX).filter(|&b| self.has(a, b));
            between.fold(0, |row, b| row | next.0[b])
        }))
    }

    /// The other way round.
    #[must_use]
    pub fn inverse(&self) -> Relation {
        Relation::of(EVENTS_MAX, |a, b| self.has(b, a))
    }

    /// The transitive closure.
    #[must_use]
    pub fn closure(&self) -> Relation {
        let mut closed = *self;
        for middle in 0..EVENTS_MAX {
            let row = closed.0[middle];
            for a in 0..EVENTS_MAX {
                if closed.has(a, middle) {
                    closed.0[a] |= row;
                }
            }
        }
        closed
    }

    /// Whether no event is related to itself.
    #[must_use]
    pub fn is_irreflexive(&self) -> bool {
        (0..EVENTS_MAX).all(|event| !self.has(event, event))
    }

    /// Whether it has no cycle.
    #[must_use]
    pub fn is_acyclic(&self) -> bool {
        self.closure().is_irreflexive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cycles_are_found_through_others() {
        let mut relation = Relation::EMPTY;
        relation.insert(0, 1);
        relation.insert(1, 2);
        assert!(relation.is_acyclic());
        assert!(relation.then(&relation).has(0, 2));
        assert!(!relation.has(0, 2) && relation.closure().has(0, 2));
        relation.insert(2, 0);
        assert!(relation.is_irreflexive() && !relation.is_acyclic());
        assert!(relation.inverse().has(0, 2));
    }
}
