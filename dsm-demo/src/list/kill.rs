//! Whom to kill, and when, as users write it; and which kills are still to come. Killing is `launch`'s business.

use dsm_node::launch;
use std::str::FromStr;

/// A kill on request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kill {
    /// `owner@PERCENT`: when so much of the list is there, the node that owns the pages of its end.
    Owner {
        /// How much.
        percent: u64,
    },
    /// `RANK@WHEN`: a node, so long after the start.
    Rank(launch::Kill),
}

/// What is allowed, for messages.
const FORMS: &str = "it must be owner@PERCENT, such as owner@50%, or RANK@WHEN, such as 1@2s or 0@500ms";

impl FromStr for Kill {
    type Err = String;

    fn from_str(text: &str) -> Result<Kill, String> {
        let parse = || match text.strip_prefix("owner@") {
            Some(when) => {
                let percent = when.strip_suffix('%')?.parse().ok()?;
                (1..=100).contains(&percent).then_some(Kill::Owner { percent })
            }
            None => text.parse().ok().map(Kill::Rank),
        };
        parse().ok_or_else(|| String::from(FORMS))
    }
}

/// How long a list of `items` items is at `percent` percent. As long as all but the last item at most: who appends is the owner.
pub fn length_at(percent: u64, items: u64) -> u64 {
    let length = u128::from(items) * u128::from(percent) / 100;
    u64::try_from(length).unwrap_or(u64::MAX).min(items.saturating_sub(1))
}

/// The lengths of the list at which its owner is still to be killed.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Pending(Vec<u64>);

impl Pending {
    /// All of `kills` that wait for a length.
    pub fn new(kills: &[Kill], items: u64) -> Pending {
        let length = |kill: &Kill| match kill {
            Kill::Owner { percent } => Some(length_at(*percent, items)),
            Kill::Rank(_) => None,
        };
        Pending(kills.iter().filter_map(length).collect())
    }

    /// The lengths.
    pub fn lengths(&self) -> &[u64] {
        &self.0
    }

    /// A node has found the list so long; several may say so, and the first that can be killed is the one. `kill` tells
    /// whether it could. Whether it was.
    pub fn reached(&mut self, length: u64, kill: impl FnOnce() -> bool) -> bool {
        let Some(index) = self.0.iter().position(|pending| *pending == length) else { return false };
        let is_killed = kill();
        if is_killed {
            self.0.remove(index);
        }
        is_killed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn both_forms_are_read() {
        assert_eq!("owner@50%".parse(), Ok(Kill::Owner { percent: 50 }));
        let kill = launch::Kill { rank: 2, after: Duration::from_millis(500) };
        assert_eq!("2@500ms".parse(), Ok(Kill::Rank(kill)));
        for text in
            ["", "owner", "owner@50", "owner@0%", "owner@101%", "owner@half", "owner@2s", "2@50%", "x@1s"]
        {
            let message = text.parse::<Kill>().expect_err(text);
            assert!(message.contains("owner@50%") && message.contains("1@2s"), "{message}");
        }
    }

    #[test]
    fn a_share_of_a_list_is_a_length() {
        assert_eq!(length_at(50, 20_000), 10_000);
        assert_eq!(length_at(1, 10), 0);
        assert_eq!(length_at(100, 10), 9);
        assert_eq!(length_at(100, u64::MAX), u64::MAX - 1);
        assert_eq!(length_at(50, 0), 0);
    }

    #[test]
    fn each_length_costs_one_node() {
        let kills = ["owner@50%", "1@1s", "owner@50%", "owner@75%"].map(|text| text.parse().expect(text));
        let mut pending = Pending::new(&kills, 100);
        assert_eq!(pending.lengths(), [50, 50, 75]);
        assert!(!pending.reached(50, || false), "it had ended");
        assert!(!pending.reached(60, || panic!("nobody waits for this length")));
        assert!(pending.reached(50, || true) && pending.reached(50, || true));
        assert!(!pending.reached(50, || panic!("both are dead")));
        assert_eq!(pending.lengths(), [75]);
    }
}
