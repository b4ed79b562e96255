//! Failpoints: places in a node's work that have names, at which a test can have the node die, stop, dawdle, or lose a
//! message. Pure: it says what is to be done; whoever drives the machine does it. A node and a simulation understand the
//! same text.
//!
//! ```text
//!   send:Grant=kill          when the first grant is about to be said
//!   sent:Commit::End@3=kill  when the third end of a record is with the kernel
//!   receive:Forward@2=drop   the second forward that comes is lost
//!   received:Report::Ready=stop
//!   install@100..=delay:5ms  from the hundredth page that is mapped on, each time
//! ```
//! Several are separated by semicolons. Messages are called as [`Message::name`](crate::Message::name) has them, changes
//! of state as [`change`] has them.

use crate::action::{Action, Replication};
use core::str::FromStr;
use core::time::Duration;

/// When, around what has the name.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Moment {
    /// A message is about to be said; nothing of it has left.
    Send,
    /// A message, and all that was said to its receiver before, has left.
    Sent,
    /// A message has come, and nothing was done about it.
    Receive,
    /// All was done about a message that came, and what was said about it has left.
    Received,
    /// A change of state is about to be carried out.
    Change,
}

/// What is to happen there.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Deed {
    /// The process is killed.
    Kill,
    /// The process is stopped, until somebody lets it go on.
    Stop,
    /// The node does nothing for a while.
    Delay(Duration),
    /// The message is lost. Has no effect on what is no message.
    Drop,
    /// The node's own thread fails, as by a mistake in it.
    Panic,
}

/// Why a text names no failpoints.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "{text:?} is no failpoint: {cause}; write [send:|sent:|receive:|received:]NAME[@N|@N..]=kill|stop|drop|panic|delay:5ms"
)]
pub struct NotAFailpoint {
    text: String,
    cause: &'static str,
}

/// The failpoints of one node.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Failpoints {
    armed: Vec<Armed>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Armed {
    moment: Moment,
    name: String,
    /// At which occurrence, from 1 on.
    nth: u64,
    /// Whether at each later one too.
    onward: bool,
    deed: Deed,
    seen: u64,
}

impl Failpoints {
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.armed.is_empty()
    }

    /// Something called `name` comes to pass: what is to be done there, if anything. Of several, the first counts.
    pub fn hit(&mut self, moment: Moment, name: &str) -> Option<Deed> {
        let mut deed = None;
        for armed in self.armed.iter_mut().filter(|it| it.moment == moment && it.name == name) {
            armed.seen += 1;
            if armed.seen == armed.nth || armed.onward && armed.seen > armed.nth {
                deed = deed.or(Some(armed.deed));
            }
        }
        deed
    }
}

impl FromStr for Failpoints {
    type Err = NotAFailpoint;

    fn from_str(text: &str) -> Result<Failpoints, NotAFailpoint> {
        let parts = text.split(';').map(str::trim).filter(|part| !part.is_empty());
        Ok(Failpoints { armed: parts.map(Armed::read).collect::<Result<_, _>>()? })
    }
}

impl Armed {
    fn read(text: &str) -> Result<Armed, NotAFailpoint> {
        let refuse = |cause| NotAFailpoint { text: text.to_owned(), cause };
        let (place, deed) =
            text.rsplit_once('=').ok_or_else(|| refuse("it does not say what is to happen"))?;
        let (place, nth, onward) = match place.split_once('@') {
            None => (place, 1, false),
            Some((place, count)) => {
                let (count, onward) = count.strip_suffix("..").map_or((count, false), |count| (count, true));
                let nth = count.parse().ok().filter(|nth| *nth > 0);
                (place, nth.ok_or_else(|| refuse("the count is no number from 1 on"))?, onward)
            }
        };
        let moments = [
            ("sent:", Moment::Sent),
            ("send:", Moment::Send),
            ("received:", Moment::Received),
            ("receive:", Moment::Receive),
        ];
        let found = moments.iter().find_map(|(prefix, moment)| Some((place.strip_prefix(prefix)?, *moment)));
        let (name, moment) = found.unwrap_or((place, Moment::Change));
        if name.is_empty() {
            return Err(refuse("the name is missing"));
        }
        let deed = match deed.split_once(':') {
            Some(("delay", span)) => Deed::Delay(millis(span).ok_or_else(|| refuse("the delay is no time"))?),
            None if deed == "kill" => Deed::Kill,
            None if deed == "stop" => Deed::Stop,
            None if deed == "drop" => Deed::Drop,
            None if deed == "panic" => Deed::Panic,
            Some(_) | None => return Err(refuse("nobody knows what to do")),
        };
        Ok(Armed { moment, name: name.to_owned(), nth, onward, deed, seen: 0 })
    }
}

fn millis(text: &str) -> Option<Duration> {
    text.strip_suffix("ms")?.parse().ok().map(Duration::from_millis)
}

/// What the change of state is called that carrying out `action` makes; none where nothing but a message or a timer is
/// concerned.
#[must_use]
pub fn change(action: &Action) -> Option<&'static str> {
    match action {
        Action::Protect { .. } => Some("protect"),
        Action::Install { .. } => Some("install"),
        Action::Refresh { .. } => Some("refresh"),
        Action::Complete { .. } => Some("complete"),
        Action::Freed { .. } => Some("freed"),
        Action::Replicate(what) => Some(match what {
            Replication::SendCopy { .. } => "copy",
            Replication::KeepTwin { .. } => "twin",
            Replication::DropTwin { .. } => "drop_twin",
            Replication::ApplyRecord { .. } => "apply",
            Replication::DropRecords => "install_view",
            Replication::Discard { .. } => "discard",
            Replication::Poison { .. } => "poison",
            Replication::Resumed { .. } => "resume",
        }),
        Action::Send { .. }
        | Action::SendLazily { .. }
        | Action::SendPage { .. }
        | Action::Flush { .. }
        | Action::SetTimer { .. }
        | Action::ProbeResidency { .. }
        | Action::Doom { .. }
        | Action::Reject { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_met_at_its_occurrence() {
        let text = "send:Grant=kill; receive:Forward@2=drop;install@2..=delay:5ms ; sent:Commit::End@3=stop";
        let mut points: Failpoints = text.parse().expect("it is well-formed");
        assert_eq!(points.hit(Moment::Send, "Request"), None);
        assert_eq!(points.hit(Moment::Sent, "Grant"), None);
        assert_eq!(points.hit(Moment::Send, "Grant"), Some(Deed::Kill));
        assert_eq!(points.hit(Moment::Send, "Grant"), None, "once");
        let met: Vec<_> = (0..3).map(|_| points.hit(Moment::Receive, "Forward")).collect();
        assert_eq!(met, [None, Some(Deed::Drop), None]);
        let delay = Some(Deed::Delay(Duration::from_millis(5)));
        let met: Vec<_> = (0..4).map(|_| points.hit(Moment::Change, "install")).collect();
        assert_eq!(met, [None, delay, delay, delay]);
        let met: Vec<_> = (0..3).map(|_| points.hit(Moment::Sent, "Commit::End")).collect();
        assert_eq!(met, [None, None, Some(Deed::Stop)]);
    }

    #[test]
    fn nonsense_is_refused_with_its_text() {
        for text in
            ["send:Grant", "send:=kill", "install@0=kill", "install@x=kill", "install=die", "copy=delay:5"]
        {
            let error = text.parse::<Failpoints>().expect_err(text).to_string();
            assert!(error.contains(text) && error.contains("delay:5ms"), "{error}");
        }
        assert!("".parse::<Failpoints>().expect("nothing is none").is_empty());
    }
}
