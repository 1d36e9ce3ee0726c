//! Which release this appliance runs: the version file that the image's build leaves in `/etc/strongroom-release`, lines
//! of `NAME=value` such as `VERSION`, `COMMIT`, `TIME` and `BASE`.

use alloc::string::String;

/// Where the version file lies.
pub const FILE: &str = "/etc/strongroom-release";

/// The value of `name` in the version file's text.
pub fn value<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines()
        .find_map(|line| line.trim().strip_prefix(name)?.strip_prefix('='))
        .filter(|value| !value.is_empty())
}

/// What `strongroom --version` says: the version, and beneath it the rest of the file. `otherwise` is the program's own
/// version, for a computer that is no appliance.
pub fn describe(text: &str, otherwise: &str) -> String {
    let mut said = String::from(value(text, "VERSION").unwrap_or(otherwise));
    for (name, label) in [("COMMIT", "commit "), ("TIME", "sources of "), ("BASE", "on ")] {
        if let Some(value) = value(text, name) {
            said.push('\n');
            said.push_str(label);
            said.push_str(value);
        }
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_file_is_told_and_a_computer_without_one_tells_the_program() {
        let text = "VERSION=0.1.0-abc\nCOMMIT=abcdef\nTIME=2026-01-01T00:00:00Z\nBASE=debian-trixie-2026\n";
        assert_eq!(value(text, "VERSION"), Some("0.1.0-abc"));
        assert_eq!(value(text, "VER"), None);
        assert_eq!(
            describe(text, "9"),
            "0.1.0-abc\ncommit abcdef\nsources of 2026-01-01T00:00:00Z\non debian-trixie-2026"
        );
        assert_eq!(describe("VERSION=\nnonsense", "9"), "9");
    }
}
