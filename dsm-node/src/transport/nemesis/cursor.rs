//! Where in which frame a stream of bytes is. It looks at heads; the bytes of pages pass it uncounted but in number.

use dsm_core::wire::{self, Head, Header};

/// A place in a stream of frames.
#[derive(Clone, Debug)]
pub(super) struct Cursor {
    page_size: u64,
    /// The head of the frame under way, as far as it has come.
    head: Vec<u8>,
    /// The frame under way, once its head is whole.
    frame: Option<Frame>,
    /// It has seen what is no frame, and knows no more where it is.
    lost: bool,
}

/// A frame whose head is whole.
#[derive(Clone, Debug)]
struct Frame {
    header: Header,
    /// Bytes of its page that have yet to come.
    missing: usize,
}

/// A frame that is over.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Passed {
    pub header: Header,
    pub head: Vec<u8>,
}

impl Cursor {
    /// At the beginning of a stream whose pages have `page_size` bytes.
    pub fn new(page_size: u64) -> Cursor {
        Cursor { page_size, head: Vec::new(), frame: None, lost: false }
    }

    /// Whether a frame begins here.
    pub fn at_boundary(&self) -> bool {
        self.head.is_empty() && !self.lost
    }

    /// Whether the next byte belongs to a page.
    pub fn in_page(&self) -> bool {
        self.frame.is_some()
    }

    /// The header of the frame that `bytes` begin with, if they hold all of its head.
    pub fn peek(&self, bytes: &[u8]) -> Option<(Header, usize)> {
        match wire::decode_head(bytes, self.page_size) {
            Ok(Head::Whole { header, length, .. }) => Some((header, length + header.body_length as usize)),
            Ok(Head::Partial) | Err(_) => None,
        }
    }

    /// Goes on by `known` bytes, and then by `unseen` bytes of a page. Tells of each frame that ends.
    pub fn advance(&mut self, mut known: &[u8], mut unseen: usize, mut passed: impl FnMut(Passed)) {
        while known.len() + unseen > 0 && !self.lost {
            if let Some(frame) = &mut self.frame {
                let seen = frame.missing.min(known.len());
                known = &known[seen..];
                let skipped = (frame.missing - seen).min(unseen);
                unseen -= skipped;
                frame.missing -= seen + skipped;
            } else {
                // Bytes that are not shown belong to a page, and a page has a head before it.
                let Some((first, rest)) = known.split_first() else {
                    self.lost = true;
                    return;
                };
                self.head.push(*first);
                known = rest;
                self.read_head();
            }
            if let Some(frame) = self.frame.take_if(|frame| frame.missing == 0) {
                passed(Passed { header: frame.header, head: std::mem::take(&mut self.head) });
            }
        }
    }

    fn read_head(&mut self) {
        match wire::decode_head(&self.head, self.page_size) {
            Ok(Head::Partial) => {}
            Ok(Head::Whole { header, .. }) => {
                self.frame = Some(Frame { header, missing: header.body_length as usize });
            }
            Err(_) => self.lost = true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dsm_core::ViewId;
    use dsm_core::wire::Kind;

    /// An acknowledgement: the only frame without a message.
    fn frame(acknowledged: u64) -> Vec<u8> {
        let header = Header {
            kind: Kind::Acknowledgement,
            control_length: 0,
            body_length: 0,
            sequence: 0,
            acknowledged,
            view: ViewId::FIRST,
            body_crc: 0,
        };
        header.encode(&[]).to_vec()
    }

    #[test]
    fn frames_are_told_apart_however_their_bytes_come() {
        let stream = [frame(1), frame(2), frame(3)].concat();
        for step in 1..=stream.len() {
            let mut cursor = Cursor::new(4096);
            let mut passed = Vec::new();
            for part in stream.chunks(step) {
                cursor.advance(part, 0, |frame| passed.push(frame.header.acknowledged));
            }
            assert_eq!(passed, [1, 2, 3], "{step} bytes at a time");
            assert!(cursor.at_boundary());
        }
    }

    #[test]
    fn noise_is_no_frame() {
        let mut cursor = Cursor::new(4096);
        cursor.advance(&[7; 200], 0, |frame| panic!("{frame:?}"));
        assert!(!cursor.at_boundary());
    }
}
