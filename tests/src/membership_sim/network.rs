//! The network between processes: delays, loss, doubling, and cut links.

use crate::sim::Rng;
use dsm_core::membership::VoterId;
use std::collections::BTreeSet;

/// How the network treats packets.
#[derive(Clone, Debug)]
pub struct Network {
    /// The shortest way, in nanoseconds.
    pub delay_min: u64,
    /// The longest way.
    pub delay_max: u64,
    /// How many packets in a thousand are lost.
    pub loss_permille: u64,
    /// How many packets in a thousand come twice.
    pub double_permille: u64,
    /// Links that let nothing through, each in one direction.
    pub cut: BTreeSet<(VoterId, VoterId)>,
    /// Voters that words of consensus, and nothing else, are lost on their way to.
    pub mute: BTreeSet<VoterId>,
}

impl Network {
    /// A quiet local network.
    #[must_use]
    pub fn calm() -> Network {
        Network {
            delay_min: 20_000,
            delay_max: 200_000,
            loss_permille: 0,
            double_permille: 0,
            cut: BTreeSet::new(),
            mute: BTreeSet::new(),
        }
    }

    /// When a packet that is sent now arrives: not at all, once or twice.
    pub fn ways(&self, rng: &mut Rng, from: VoterId, to: VoterId) -> Vec<u64> {
        if self.cut.contains(&(from, to)) || rng.chance(self.loss_permille) {
            return Vec::new();
        }
        let copies = if rng.chance(self.double_permille) { 2 } else { 1 };
        (0..copies).map(|_| rng.between(self.delay_min, self.delay_max)).collect()
    }

    /// Cuts, or mends, the link from one to another, in this direction.
    pub fn set_one_way(&mut self, from: VoterId, to: VoterId, cut: bool) {
        if cut {
            self.cut.insert((from, to));
        } else {
            self.cut.remove(&(from, to));
        }
    }

    /// Cuts, or mends, all links between two groups.
    pub fn set_between(&mut self, one: &[VoterId], other: &[VoterId], cut: bool) {
        for a in one {
            for b in other {
                self.set_one_way(*a, *b, cut);
                self.set_one_way(*b, *a, cut);
            }
        }
    }
}
