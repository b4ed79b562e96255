//! Text to values: sizes, durations, addresses, switches, each refused with the name of what it was given for, the
//! text itself, and what is allowed. Where the text comes from is not this file's business.

use crate::error::{Error, Result};
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

/// What an address may look like, for messages.
const ADDRESS_FORMS: &str = "host:port, tcp://host:port or unix:name";

/// The longest name of a Unix socket in the abstract namespace: the kernel's field of 108 bytes, less the leading zero.
const UNIX_NAME_MAX: usize = 107;

/// `name`'s value `text` is not one of `allowed`.
pub(super) fn refuse(name: &str, text: &str, allowed: impl Display) -> Error {
    Error::Config(format!("{name} is {text:?}; it must be {allowed}"))
}

/// A whole number within `allowed`.
pub(super) fn number<T>(name: &str, text: &str, allowed: RangeInclusive<T>) -> Result<T>
where
    T: FromStr + PartialOrd + Display,
{
    match text.trim().parse::<T>() {
        Ok(value) if allowed.contains(&value) => Ok(value),
        Ok(_) | Err(_) => {
            Err(refuse(name, text, format_args!("a number from {} to {}", allowed.start(), allowed.end())))
        }
    }
}

/// A number of bytes: decimal or `0x…`, with an optional unit.
pub(super) fn bytes(name: &str, text: &str) -> Result<u64> {
    parse_bytes(text.trim())
        .ok_or_else(|| refuse(name, text, "a number of bytes such as 4096, 0x200000, 64KiB, 2MiB or 64GiB"))
}

fn parse_bytes(text: &str) -> Option<u64> {
    if let Some(digits) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        return u64::from_str_radix(&digits.replace('_', ""), 16).ok();
    }
    let digits_end = text.find(|c: char| !c.is_ascii_digit() && c != '_').unwrap_or(text.len());
    let (digits, unit) = text.split_at(digits_end);
    let count: u64 = digits.replace('_', "").parse().ok()?;
    let shift = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kib" => 10,
        "m" | "mib" => 20,
        "g" | "gib" => 30,
        "t" | "tib" => 40,
        _ => return None,
    };
    count.checked_mul(1 << shift)
}

/// A length of time above zero: seconds, or with a unit.
pub(super) fn duration(name: &str, text: &str) -> Result<Duration> {
    parse_duration(text.trim())
        .filter(|length| !length.is_zero())
        .ok_or_else(|| refuse(name, text, "a length of time above zero such as 500ms, 30s or 2m"))
}

fn parse_duration(text: &str) -> Option<Duration> {
    let digits_end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (digits, unit) = text.split_at(digits_end);
    let count: f64 = digits.parse().ok()?;
    let seconds = match unit.trim() {
        "" | "s" => count,
        "ms" => count / 1e3,
        "us" => count / 1e6,
        "m" | "min" => count * 60.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(seconds).ok()
}

/// A switch.
pub(super) fn switch(name: &str, text: &str) -> Result<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "1" | "true" | "yes" | "on" => Ok(true),
        "0" | "false" | "no" | "off" => Ok(false),
        _ => Err(refuse(name, text, "1 or 0")),
    }
}

/// An address of an endpoint, checked for its form only.
pub(super) fn address(name: &str, text: &str) -> Result<String> {
    let text = text.trim();
    let fits = match text.strip_prefix("unix:") {
        Some(socket) => !socket.is_empty() && socket.len() <= UNIX_NAME_MAX,
        None => {
            let bare = text.strip_prefix("tcp://").unwrap_or(text);
            bare.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
        }
    };
    if fits { Ok(text.to_owned()) } else { Err(refuse(name, text, ADDRESS_FORMS)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_and_without_units() {
        for (text, value) in [
            ("4096", 4096),
            ("0x2000_0000_0000", 0x2000_0000_0000),
            ("64KiB", 64 << 10),
            ("2 MiB", 2 << 20),
            ("64GiB", 64 << 30),
            ("1T", 1 << 40),
        ] {
            assert_eq!(bytes("SIZE", text).expect(text), value);
        }
        for text in ["", "GiB", "-1", "1.5GiB", "64GB", "0xzz", "99999999999TiB"] {
            let message = bytes("SIZE", text).expect_err(text).to_string();
            assert!(
                message.contains("SIZE") && message.contains(text) && message.contains("64GiB"),
                "{message}"
            );
        }
    }

    #[test]
    fn durations_are_above_zero() {
        assert_eq!(duration("T", "500ms").expect("fits"), Duration::from_millis(500));
        assert_eq!(duration("T", "30").expect("fits"), Duration::from_secs(30));
        assert_eq!(duration("T", "1.5s").expect("fits"), Duration::from_millis(1500));
        assert_eq!(duration("T", "2m").expect("fits"), Duration::from_secs(120));
        for text in ["0", "0ms", "-1s", "soon", "", "1h30", "1e400"] {
            assert!(duration("T", text).is_err(), "{text}");
        }
    }

    #[test]
    fn addresses_have_a_form() {
        for text in ["127.0.0.1:4000", "tcp://[::1]:0", "unix:dsm-1", "head-node:7300"] {
            assert_eq!(address("A", text).expect(text), text);
        }
        for text in ["", "localhost", ":4000", "host:99999", "unix:", "tcp://host"] {
            assert!(address("A", text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_number_out_of_range_names_the_range() {
        let message = number("DSM_NODES", "65", 1..=64u16).expect_err("too many").to_string();
        assert_eq!(message, "configuration: DSM_NODES is \"65\"; it must be a number from 1 to 64");
    }
}
