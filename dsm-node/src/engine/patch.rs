//! Pages of records by what differs from an earlier record: a section that changes a few words of a page makes its buddies
//! hear those, not the page (diffs against the last state that both ends have, as in TreadMarks, though of one writer).
//!
//! The owner remembers what it sent last, while nobody else can have owned the page since and the buddies are the same; a
//! buddy has just that, in the record that came last or in the frame that keeps it. The checksum of the whole page says so.

use dsm_core::Change;

/// What is compared at once: of most stores, all bytes change.
const WORD: usize = 8;

/// Changes with less between them are one: each costs about as much besides its bytes.
const GAP_MAX: usize = WORD;

/// What changes may take in a message, whose length is bounded. Beyond it, and long before it, a page that is mostly new
/// costs less as a whole.
const LENGTH_MAX: usize = 768;

/// What a change costs besides its bytes: its place and its length.
const CHANGE_LENGTH: usize = 8;

/// How `new` differs from `old`, where that is short.
pub(super) fn diff(old: &[u8], new: &[u8]) -> Option<Vec<Change>> {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    let mut length = 0;
    for (word, (before, after)) in old.chunks(WORD).zip(new.chunks(WORD)).enumerate() {
        if before == after {
            continue;
        }
        let (start, end) = (word * WORD, word * WORD + after.len());
        match runs.last_mut() {
            Some((_, last)) if start - *last <= GAP_MAX => {
                length += end - *last;
                *last = end;
            }
            Some(_) | None => {
                length += CHANGE_LENGTH + after.len();
                runs.push((start, end));
            }
        }
        if length > LENGTH_MAX {
            return None;
        }
    }
    // A page has 2 MiB at most.
    let change = |(start, end): (usize, usize)| Change { at: start as u32, bytes: new[start..end].to_vec() };
    (old.len() == new.len()).then(|| runs.into_iter().map(change).collect())
}

/// Makes of `page`, which is as it was, what it is; whether the changes fit into it.
pub(super) fn apply(page: &mut [u8], changes: &[Change]) -> bool {
    changes.iter().all(|change| {
        let at = change.at as usize;
        let part = at.checked_add(change.bytes.len()).and_then(|end| page.get_mut(at..end));
        part.map(|part| part.copy_from_slice(&change.bytes)).is_some()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use dsm_core::wire;
    use dsm_core::{Commit, Message, PageId, RecordId};
    use proptest::prelude::*;

    const PAGE: usize = 4096;

    proptest! {
        /// What is made of the old page by the changes is the new one, and changes fit into a message.
        #[test]
        fn changes_lead_from_one_page_to_the_other(
            fill in any::<u8>(),
            stores in prop::collection::vec((0..PAGE, prop::collection::vec(any::<u8>(), 1..40)), 0..40),
        ) {
            let old = vec![fill; PAGE];
            let mut new = old.clone();
            for (at, bytes) in stores {
                let end = (at + bytes.len()).min(PAGE);
                new[at..end].copy_from_slice(&bytes[..end - at]);
            }
            let Some(changes) = diff(&old, &new) else { return Ok(()) };
            let mut made = old;
            prop_assert!(apply(&mut made, &changes));
            prop_assert_eq!(made, new);
            let largest = RecordId(u64::MAX);
            let (record, page) = (largest, PageId(u64::MAX));
            let patch = Message::Commit(Commit::Patch { record, page, base: largest, crc: u32::MAX, changes });
            let mut bytes = Vec::new();
            prop_assert!(wire::encode_message(&patch, &mut bytes).is_ok());
        }
    }

    #[test]
    fn a_few_words_are_short_and_a_new_page_has_no_changes() {
        let old = vec![0; PAGE];
        let mut new = old.clone();
        assert_eq!(diff(&old, &new), Some(Vec::new()));
        new[100] = 1;
        new[4000] = 2;
        let starts =
            diff(&old, &new).map(|changes| changes.iter().map(|change| change.at).collect::<Vec<_>>());
        assert_eq!(starts, Some(vec![96, 4000]));
        assert_eq!(diff(&old, &vec![1; PAGE]), None);
    }

    #[test]
    fn changes_that_do_not_fit_are_refused() {
        let mut page = vec![0; PAGE];
        assert!(!apply(&mut page, &[Change { at: PAGE as u32 - 1, bytes: vec![1, 2] }]));
        assert!(!apply(&mut page, &[Change { at: u32::MAX, bytes: vec![1] }]));
        assert!(apply(&mut page, &[Change { at: PAGE as u32 - 1, bytes: vec![7] }]));
        assert_eq!(page[PAGE - 1], 7);
    }
}
