//! Lines and how they fit on a page: cutting, wrapping, and leaving out what has no room, with a word about it.
//!
//! Nothing here knows the status. Text from outside is cleaned of control characters, so that no error message can
//! move the cursor or recolour the console.

use std::fmt::Write;

/// How a line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    Plain,
    Bold,
    Dim,
    Good,
    Warning,
    Alarm,
}

impl Style {
    /// Select Graphic Rendition (ECMA-48, section 8.3.117).
    fn sgr(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Bold => "\x1b[1m",
            Self::Dim => "\x1b[2m",
            Self::Good => "\x1b[1;32m",
            Self::Warning => "\x1b[1;33m",
            Self::Alarm => "\x1b[1;31m",
        }
    }
}

/// One line of clean text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    pub text: String,
    pub style: Style,
}

impl Line {
    pub fn new(style: Style, text: &str) -> Self {
        let text = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        Self { text, style }
    }

    pub fn plain(text: &str) -> Self {
        Self::new(Style::Plain, text)
    }

    pub fn empty() -> Self {
        Self::plain("")
    }
}

/// A part of the page: a title, and items of one or more lines each that stay together.
#[derive(Clone, Debug)]
pub struct Section {
    pub title: &'static str,
    pub items: Vec<Vec<Line>>,
    /// Rows that it gets before others get more.
    pub share: usize,
}

impl Section {
    /// Rows that it takes as a whole: an empty one, the title, the items.
    fn rows(&self) -> usize {
        if self.items.is_empty() {
            0
        } else {
            2 + self.items.iter().map(Vec::len).sum::<usize>()
        }
    }

    /// The section within `rows` rows; what has no room is counted in the last of them.
    pub fn lines(&self, rows: usize) -> Vec<Line> {
        if self.items.is_empty() || rows < 3 {
            return Vec::new();
        }
        let mut lines = vec![Line::empty(), Line::new(Style::Bold, self.title)];
        let all_fit = self.rows() <= rows;
        for (shown, item) in self.items.iter().enumerate() {
            if !all_fit && lines.len() + item.len() + 1 > rows {
                let rest = self.items.len() - shown;
                lines.push(Line::new(
                    Style::Dim,
                    &format!("  … and {rest} more: `strongroom status`"),
                ));
                break;
            }
            lines.extend(item.iter().cloned());
        }
        lines
    }
}

/// The head, and of each section as much as has room on `rows` rows, in order.
pub fn fit(head: Vec<Line>, sections: &[Section], rows: usize) -> Vec<Line> {
    let mut free = rows.saturating_sub(head.len());
    let mut granted: Vec<usize> = sections
        .iter()
        .map(|section| {
            let rows = section.rows().min(section.share).min(free);
            free -= rows;
            rows
        })
        .collect();
    for (section, granted) in sections.iter().zip(&mut granted) {
        let more = (section.rows() - *granted).min(free);
        *granted += more;
        free -= more;
    }
    let mut lines = head;
    for (section, rows) in sections.iter().zip(granted) {
        lines.extend(section.lines(rows));
    }
    lines.truncate(rows);
    lines
}

/// The lines as a full screen: home, each line cleared and cut to `columns`, then the rest of `rows`
/// cleared. No newline after the last row, which would scroll.
pub fn screen(lines: &[Line], columns: usize, rows: usize) -> String {
    let mut out = String::from("\x1b[H");
    for (number, line) in lines.iter().enumerate() {
        if number > 0 {
            out.push_str("\r\n");
        }
        let style = line.style.sgr();
        let end = if style.is_empty() { "" } else { "\x1b[0m" };
        // Cleared before it is written: after a line that fills the row, clearing would take its last character.
        // Writing to a string can't fail.
        let _ = write!(out, "\x1b[2K{style}{}{end}", cut(&line.text, columns));
    }
    if lines.len() < rows {
        out.push_str("\r\n\x1b[J");
    }
    out
}

/// At most `columns` characters; a longer text ends in `…`.
pub fn cut(text: &str, columns: usize) -> String {
    if text.chars().count() <= columns {
        return text.into();
    }
    let mut kept: String = text.chars().take(columns.saturating_sub(1)).collect();
    if columns > 0 {
        kept.push('…');
    }
    kept
}

/// Breaks text at spaces into lines of at most `columns` characters. The first begins with `first`, the others are
/// indented as far. A word that is longer than a line is broken.
pub fn wrap(first: &str, text: &str, columns: usize) -> Vec<String> {
    let indent = first.chars().count();
    let width = columns.saturating_sub(indent).max(1);
    let mut lines = vec![String::new()];
    let mut used = 0;
    for word in text.split_whitespace() {
        let mut letters: Vec<char> = word.chars().collect();
        while !letters.is_empty() {
            let space = usize::from(used > 0);
            if used + space + letters.len() > width && used > 0 {
                lines.push(String::new());
                used = 0;
                continue;
            }
            let rest = letters.split_off(letters.len().min(width));
            if let Some(line) = lines.last_mut() {
                line.extend((space > 0).then_some(' '));
                line.extend(&letters);
            }
            used += space + letters.len();
            letters = rest;
        }
    }
    let later = " ".repeat(indent);
    lines
        .iter()
        .enumerate()
        .map(|(number, line)| format!("{}{line}", if number == 0 { first } else { &later }))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_wrapped_and_long_ones_broken() {
        assert_eq!(wrap("! ", "one two three", 9), ["! one two", "  three"]);
        assert_eq!(wrap("", "abcdefgh ij", 4), ["abcd", "efgh", "ij"]);
        assert_eq!(wrap("> ", "", 10), ["> "]);
        for columns in 0..20 {
            for line in wrap("  ", "the quick brown fox-jumps-over-the lazy dog", columns) {
                assert!(line.chars().count() <= columns.max(3), "{columns}: {line}");
            }
        }
    }

    #[test]
    fn cut_counts_characters() {
        assert_eq!(cut("äöü", 3), "äöü");
        assert_eq!(cut("äöüx", 3), "äö…");
        assert_eq!(cut("x", 0), "");
    }

    #[test]
    fn control_characters_never_reach_the_terminal() {
        let line = Line::plain("a\x1b[2Jb\nc\u{9b}d");
        assert_eq!(line.text, "a [2Jb c d");
    }

    fn section(title: &'static str, items: usize, share: usize) -> Section {
        Section {
            title,
            items: (0..items).map(|n| vec![Line::plain(&format!("{title}{n}"))]).collect(),
            share,
        }
    }

    #[test]
    fn what_has_no_room_is_counted() {
        let lines = section("s", 9, 0).lines(6);
        assert_eq!(lines.len(), 6);
        assert_eq!(lines[5].text, "  … and 6 more: `strongroom status`");
        assert_eq!(section("s", 4, 0).lines(6).len(), 6);
        assert!(section("s", 4, 0).lines(2).is_empty());
    }

    #[test]
    fn shares_are_kept_and_rows_never_exceeded() {
        for rows in 0..40 {
            let sections = [section("a", 30, 8), section("b", 30, 6)];
            let lines = fit(vec![Line::plain("head")], &sections, rows);
            assert!(lines.len() <= rows);
            if rows >= 15 {
                assert!(lines.iter().any(|line| line.text == "b0") && lines.iter().any(|line| line.text == "a0"));
            }
        }
    }
}
