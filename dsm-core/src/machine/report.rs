//! What members tell each other after a change of the view: what each holds and knows, in messages of bounded length.

use super::Machine;
use crate::action::Cause;
use crate::ids::{Address, NodeId, PageId};
use crate::limits::REPORT_LENGTH_MAX;
use crate::message::{Holding, Message, PageRun, Report, Standing};
use crate::outbox::Outbox;
use crate::recovery::{LostRun, Phase, joined, merged, one};
use crate::time::Time;
use serde::Serialize;
use std::collections::BTreeMap;

impl Machine {
    /// Tells every member what this node holds, itself included.
    pub(super) fn report(&mut self, out: &mut Outbox<'_>) {
        let mut parts = Vec::new();
        let pages = |runs| Message::Report(Report::Pages { runs });
        parts.extend(packed(self.holdings()).map(pages));
        parts.extend(packed(self.known()).map(pages));
        let locks = self.calls.held().collect();
        parts.extend(packed(locks).map(|held| Message::Report(Report::Locks { held })));
        let orphans = self.locks.orphans().collect();
        parts.extend(packed(orphans).map(|locks| Message::Report(Report::Orphans { locks })));
        // What this node has leased itself it knows best.
        let known = self.calls.notes().spans().chain(self.spans.leased());
        let spans: BTreeMap<PageId, _> = known.map(|span| (span.first, span)).collect();
        let spans = spans.into_values().collect();
        parts.extend(packed(spans).map(|spans| Message::Report(Report::Spans { spans })));
        parts.extend(self.spans.retired().map(|retired| Message::Report(Report::Retired(retired))));
        self.report_roots(&mut parts);
        let groups = self.recovery.groups.iter().copied().collect();
        parts.extend(packed(groups).map(|groups| Message::Report(Report::Groups { groups })));
        parts.push(Message::Report(Report::End(Standing {
            generation: self.calls.generation(),
            left: self.calls.has_left(),
            directory: self.recovery.directory,
            homes: self.recovery.homes,
            gone: self.recovery.gone,
            replicated: self.recovery.replicated_in,
        })));
        self.tell_all(&parts, out);
    }

    /// Roots that this node knows as their home, or has been told of, and those that its threads are creating.
    fn report_roots(&mut self, parts: &mut Vec<Message>) {
        let root = |name: &String, layout, address| {
            Message::Report(Report::Root { name: name.clone(), layout, address })
        };
        let known = self.roots.ready().chain(self.calls.notes().roots());
        let known: BTreeMap<&String, (u64, Address)> =
            known.map(|(name, layout, address)| (name, (layout, address))).collect();
        parts.extend(known.into_iter().map(|(name, (layout, address))| root(name, layout, Some(address))));
        parts.extend(self.calls.creating().map(|(name, layout)| root(name, layout, None)));
    }

    pub(super) fn tell_all(&self, messages: &[Message], out: &mut Outbox<'_>) {
        for member in self.placement.members.iter() {
            for message in messages {
                out.send(member, message.clone());
            }
        }
    }

    /// What this node holds of each page that it holds something of.
    fn holdings(&self) -> Vec<PageRun> {
        let kept = self.local.commits_ref().kept().map(|(page, version)| one(page, Holding::Kept(version)));
        let held = self.local.held();
        let held = held.map(|(page, owned)| one(page, if owned { Holding::Owned } else { Holding::Copy }));
        let lost = self.recovery.lost.iter().map(|(&first, &LostRun { pages, last_owner, view })| {
            let holding = Holding::Lost { last_owner, view };
            PageRun { first: PageId(first), pages, holding }
        });
        joined(merged(merged(held, kept), lost))
    }

    /// What this node knows as a home of pages that their owners may not be able to report. Where nothing is kept for
    /// others, that includes pages on their way from one that lives.
    fn known(&self) -> Vec<PageRun> {
        let gone = self.recovery.gone;
        let all = self.recovery.view.replicas() == 0;
        let written = self.home.written(gone).filter(|(_, owner)| all || gone.contains(*owner));
        joined(written.map(|(page, owner)| one(page, Holding::Known { owner: Some(owner) })))
    }

    /// What members say to each other between the view and the moment at which all go on.
    pub(super) fn receive_report(
        &mut self,
        now: Time,
        from: NodeId,
        part: Report,
        out: &mut Outbox<'_>,
    ) -> Result<(), Cause> {
        match part {
            Report::Ready => return self.ready(now, from, out),
            Report::Replicated => return self.replicated(from, out),
            Report::Pages { .. }
            | Report::Locks { .. }
            | Report::Orphans { .. }
            | Report::Spans { .. }
            | Report::Retired(_)
            | Report::Root { .. }
            | Report::Groups { .. }
            | Report::End(_) => {}
        }
        if self.recovery.phase != Phase::Gathering {
            return Err(Cause::OutOfTurn);
        }
        let report = self.recovery.reports.entry(from).or_default();
        if report.end.is_some() {
            return Err(Cause::OutOfTurn);
        }
        match part {
            Report::Pages { runs } => {
                for run in runs {
                    let list = match run.holding {
                        Holding::Known { .. } => &mut report.known,
                        Holding::Lost { .. } | Holding::Kept(_) | Holding::Copy | Holding::Owned => {
                            &mut report.held
                        }
                    };
                    let end = list.last().map_or(0, |run| run.first.0 + run.pages);
                    if run.first.0 < end || run.pages == 0 {
                        return Err(Cause::OutOfTurn);
                    }
                    list.push(run);
                }
            }
            Report::Locks { held } => report.locks.extend(held),
            Report::Spans { spans } => report.spans.extend(spans),
            Report::Orphans { locks } => report.orphans.extend(locks),
            Report::Retired(retired) => report.retired.push(retired),
            Report::Root { name, layout, address } => report.roots.push((name, layout, address)),
            Report::Groups { groups } => report.groups.extend(groups),
            Report::End(standing) => report.end = Some(standing),
            Report::Ready | Report::Replicated => return Err(Cause::OutOfTurn),
        }
        if self.recovery.is_complete() {
            self.conclude(out);
        }
        Ok(())
    }
}

/// What fits into one message each.
fn packed<T: Serialize>(items: Vec<T>) -> impl Iterator<Item = Vec<T>> {
    let mut items = items.into_iter().peekable();
    core::iter::from_fn(move || {
        let mut some = Vec::new();
        let mut room = REPORT_LENGTH_MAX;
        while let Some(item) = items.peek() {
            // These are plain numbers, whose length can always be told.
            let length = postcard::experimental::serialized_size(item).unwrap_or(REPORT_LENGTH_MAX);
            if length > room && !some.is_empty() {
                break;
            }
            room = room.saturating_sub(length);
            some.extend(items.next());
        }
        (!some.is_empty()).then_some(some)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{RecordId, Version, ViewId};
    use crate::wire;

    #[test]
    fn whatever_its_numbers_are_a_part_of_a_report_fits_into_a_message() {
        let most = Version { view: ViewId(u64::MAX), record: RecordId(u64::MAX) };
        for (first, holding) in [(0, Holding::Owned), (u64::MAX - 1000, Holding::Kept(most))] {
            let runs: Vec<PageRun> = (0..1000)
                .map(|page| PageRun { first: PageId(first + page), pages: u64::MAX, holding })
                .collect();
            let parts: Vec<_> = packed(runs.clone()).collect();
            assert_eq!(parts.concat(), runs);
            for runs in parts {
                let mut bytes = Vec::new();
                wire::encode_message(&Message::Report(Report::Pages { runs }), &mut bytes).expect("it fits");
            }
        }
    }
}
