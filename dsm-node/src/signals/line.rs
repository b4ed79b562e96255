//! The line that a process ends with, put together where nothing may be allocated or waited for.

/// A line of text that is put together without any memory but its own. What does not fit is cut off.
pub(super) struct Line {
    bytes: [u8; Line::LENGTH_MAX],
    length: usize,
}

impl Line {
    /// More than the longest reason with two numbers.
    const LENGTH_MAX: usize = 256;

    pub(super) fn new() -> Line {
        Line { bytes: [0; Line::LENGTH_MAX], length: 0 }
    }

    pub(super) fn text(&mut self, text: &str) -> &mut Line {
        for byte in text.bytes() {
            if let Some(place) = self.bytes.get_mut(self.length) {
                *place = byte;
                self.length += 1;
            }
        }
        self
    }

    pub(super) fn hex(&mut self, number: u64) -> &mut Line {
        self.text("0x");
        let digits = (u64::BITS - number.leading_zeros()).div_ceil(4).max(1);
        for digit in (0..digits).rev() {
            let value = (number >> (digit * 4)) & 0xF;
            self.text(HEX_DIGITS[value as usize]);
        }
        self
    }

    pub(super) fn decimal(&mut self, number: u64) -> &mut Line {
        let digits = number.checked_ilog10().unwrap_or(0);
        for digit in (0..=digits).rev() {
            let value = number / 10_u64.pow(digit) % 10;
            self.text(HEX_DIGITS[value as usize]);
        }
        self
    }

    /// What is known of the loss of `page`.
    pub(super) fn lost(&mut self, page: u64) -> &mut Line {
        self.text("the page is lost");
        let Some(run) = super::lost::find(page) else {
            return self.text(": every node that held it is gone");
        };
        match run.last_owner {
            Some(rank) => self.text(": rank ").decimal(u64::from(rank)).text(" owned it last"),
            None => self.text(": no survivor knows who owned it last"),
        };
        self.text(", and view ").decimal(run.view).text(" began without any node that held it")
    }

    pub(super) fn as_str(&self) -> &str {
        // Only whole ASCII texts go in; were one cut in the middle of a letter, the line would be empty, not wrong.
        self.bytes.get(..self.length).and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or_default()
    }
}

const HEX_DIGITS: [&str; 16] =
    ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "a", "b", "c", "d", "e", "f"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_hold_numbers_and_end_at_their_room() {
        let mut line = Line::new();
        line.text("a ").hex(0).text(" ").hex(0x2000_0000_10f0).text(" ").hex(u64::MAX);
        assert_eq!(line.as_str(), "a 0x0 0x2000000010f0 0xffffffffffffffff");
        let mut numbers = Line::new();
        numbers.decimal(0).text(" ").decimal(10).text(" ").decimal(999).text(" ").decimal(u64::MAX);
        assert_eq!(numbers.as_str(), format!("0 10 999 {}", u64::MAX));
        line.text(&"x".repeat(Line::LENGTH_MAX));
        assert_eq!(line.as_str().len(), Line::LENGTH_MAX);
    }
}
