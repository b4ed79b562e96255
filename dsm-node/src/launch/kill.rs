//! When to kill whom, as users write it.

use super::usage::parse_time;
use std::str::FromStr;
use std::time::Duration;

/// A kill on request: `RANK@WHEN`, with a time after the start such as `2s` or `500ms`.
///
/// ```
/// use dsm_node::launch::Kill;
/// use std::time::Duration;
///
/// assert_eq!("1@500ms".parse(), Ok(Kill { rank: 1, after: Duration::from_millis(500) }));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Kill {
    /// Whom.
    pub rank: u32,
    /// How long after the start.
    pub after: Duration,
}

/// What is allowed, for messages.
const FORMS: &str = "it must be RANK@WHEN, such as 1@2s or 0@500ms";

impl FromStr for Kill {
    type Err = String;

    fn from_str(text: &str) -> Result<Kill, String> {
        let parsed = text
            .split_once('@')
            .and_then(|(rank, when)| Some(Kill { rank: rank.parse().ok()?, after: parse_time(when).ok()? }));
        parsed.ok_or_else(|| String::from(FORMS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_and_when_are_both_needed() {
        let kill = |rank, millis| Ok(Kill { rank, after: Duration::from_millis(millis) });
        assert_eq!("3@2s".parse(), kill(3, 2000));
        assert_eq!("0@0ms".parse(), kill(0, 0));
        assert_eq!("12@1.5s".parse(), kill(12, 1500));
        for text in
            ["", "1", "1@", "@2s", "1@2", "1@soon", "-1@2s", "1@-2s", "one@2s", "1@2h", "1@.s", "1@2s@3s"]
        {
            let message = text.parse::<Kill>().expect_err(text);
            assert!(message.contains("1@2s"), "{message}");
        }
    }
}
