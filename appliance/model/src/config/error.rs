//! What is wrong with a configuration: line, message, remedy.

use alloc::format;
use alloc::string::{String, ToString};
use core::fmt;
use core::ops::Range;

/// One fault of a configuration file, told so that a person can mend it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// Line, counted from 1; `None` when it is about the file as a whole.
    pub line: Option<usize>,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub remedy: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "strongroom.toml, line {line}: {}. {}", self.message, self.remedy),
            None => write!(f, "strongroom.toml: {}. {}", self.message, self.remedy),
        }
    }
}

impl core::error::Error for ConfigError {}

impl ConfigError {
    /// A fault of the file as a whole.
    pub fn whole(message: &str, remedy: &str) -> Self {
        Self {
            line: None,
            message: message.into(),
            remedy: remedy.into(),
        }
    }

    pub(super) fn at(text: &str, span: Range<usize>, message: String, remedy: &str) -> Self {
        // A value that was filled in by default has no place in the file.
        let line = (span != (0..0)).then(|| line_of(text, span.start));
        Self {
            line,
            message,
            remedy: remedy.into(),
        }
    }

    pub(super) fn from_toml(text: &str, error: &toml::de::Error) -> Self {
        let message = error.message().trim_end_matches('.').to_string();
        let remedy =
            suggestion(&message).unwrap_or_else(|| "Correct this line; see docs/configuration.md.".to_string());
        let line = error.span().map(|span| line_of(text, span.start));
        // The message of a syntax error may run over lines; one line is easier to read on the console.
        let message = message
            .split('\n')
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .collect::<alloc::vec::Vec<_>>()
            .join(", ");
        Self { line, message, remedy }
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}

/// For an unknown key: the known key that is nearest, if it is near enough to be meant.
fn suggestion(message: &str) -> Option<String> {
    let mut quoted = message.split('`').skip(1).step_by(2);
    if !message.starts_with("unknown field") && !message.starts_with("unknown variant") {
        return None;
    }
    let wrong = quoted.next()?;
    let nearest = quoted.min_by_key(|known| distance(wrong, known))?;
    if distance(wrong, nearest) <= 3 && distance(wrong, nearest) < nearest.len() {
        Some(format!("Did you mean `{nearest}`?"))
    } else {
        Some("Remove it, or see docs/configuration.md for what is known here.".to_string())
    }
}

/// Levenshtein distance in characters.
fn distance(a: &str, b: &str) -> usize {
    let b: alloc::vec::Vec<char> = b.chars().collect();
    let mut row: alloc::vec::Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let substitution = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = substitution.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
