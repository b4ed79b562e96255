//! Errors of usage, as all commands of this project say them: one line; and values that several of them take. Shared by
//! the binaries, not for users.

use clap::error::ErrorKind;
use std::process::ExitCode;
use std::time::Duration;

/// The exit code of a command that was not told what to do in a way that it understands, or that cannot run here.
pub const EXIT_CODE: u8 = 2;

/// Answers a command line that was not taken: shows help as it is, and has everything else refused in one line.
/// `incomplete` is what to say where there is no subcommand.
pub fn explain(error: &clap::Error, incomplete: &str, refuse: impl FnOnce(&str) -> ExitCode) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            // A closed standard output is no reason to fail at showing help.
            let _ = error.print();
            ExitCode::SUCCESS
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand => {
            refuse(incomplete)
        }
        // The kinds belong to clap, which adds to them; all others are said in clap's words.
        _ => refuse(&one_line(&error.to_string())),
    }
}

/// A length of time such as `2s` or `500ms`. The unit is needed: a bare number could mean either.
///
/// # Errors
/// What is allowed, for whatever is no such time.
pub fn parse_time(text: &str) -> Result<Duration, String> {
    let parse = || {
        let digits_end = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (digits, unit) = text.split_at(digits_end);
        let count: f64 = digits.parse().ok()?;
        let seconds = match unit {
            "s" => count,
            "ms" => count / 1e3,
            _ => return None,
        };
        Duration::try_from_secs_f64(seconds).ok()
    };
    parse().ok_or_else(|| String::from("it must be a time such as 2s or 500ms"))
}

/// A command-line parser's message, which may have several lines, as one.
fn one_line(rendered: &str) -> String {
    // The first paragraph says what is wrong; tips and the usage follow.
    let mut line = String::new();
    for part in rendered.lines().map(str::trim).take_while(|part| !part.is_empty()) {
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(part);
    }
    line.strip_prefix("error: ").map_or(line.clone(), str::to_owned)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_first_paragraph_is_the_line() {
        let text =
            "error: the following required arguments were not provided:\n  --nodes <N>\n\nUsage: dsm run\n";
        assert_eq!(super::one_line(text), "the following required arguments were not provided: --nodes <N>");
    }
}
