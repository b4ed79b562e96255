//! What this node knows of the spans and roots that others' homes keep: those that it leased or asked for itself, and
//! what the homes whose buddy it is told it. When a home is gone, this is what its successor learns from.

use crate::ids::{Address, PageId};
use crate::message::{Note, SpanRange};
use std::collections::BTreeMap;

/// The notes of one node.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct Notes {
    spans: BTreeMap<PageId, SpanRange>,
    roots: BTreeMap<String, (u64, Address)>,
}

impl Notes {
    /// What a home has noted.
    pub fn take(&mut self, note: Note) {
        match note {
            Note::Span { span } => self.span(span),
            Note::SpanReturned { first } => self.span_returned(first),
            Note::Root { name, layout, address } => self.root(name, layout, address),
        }
    }

    /// A span is leased.
    pub fn span(&mut self, span: SpanRange) {
        self.spans.insert(span.first, span);
    }

    /// A span is free again.
    pub fn span_returned(&mut self, first: PageId) {
        self.spans.remove(&first);
    }

    /// What is leased is to be told anew.
    pub fn forget_spans(&mut self) {
        self.spans.clear();
    }

    /// A root has its address.
    pub fn root(&mut self, name: String, layout: u64, address: Address) {
        self.roots.insert(name, (layout, address));
    }

    /// The spans that are leased, as far as is known here.
    pub fn spans(&self) -> impl Iterator<Item = SpanRange> + '_ {
        self.spans.values().copied()
    }

    /// The roots that have their addresses, as far as is known here: name, layout, address.
    pub fn roots(&self) -> impl Iterator<Item = (&String, u64, Address)> + '_ {
        self.roots.iter().map(|(name, &(layout, address))| (name, layout, address))
    }
}
