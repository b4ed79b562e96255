//! Errors of usage, as all commands of this project say them: one line. Shared by the binaries, not for users.

/// The exit code of a command that was not told what to do in a way that it understands, or that cannot run here.
pub const EXIT_CODE: u8 = 2;

/// A command-line parser's message, which may have several lines, as one.
#[must_use]
pub fn one_line(rendered: &str) -> String {
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
