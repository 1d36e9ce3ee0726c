//! Lines and how they fit on a page: cleaning, cutting, wrapping, and leaving out what has no room, with a word about it.
//!
//! Nothing here knows the status. Text from outside is cleaned before it becomes a line, so that no error message can
//! move the cursor or recolour the console.

use ratatui_core::style::{Color, Modifier, Style};
use ratatui_core::text::{Line, Span};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// What ends a line that was cut. Not `…`: the font that the kernel and the BIOS bring does not have it.
const CUT: &str = "..";

/// The looks, of the sixteen colours that every terminal has.
pub const PLAIN: Style = Style::new();
pub const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);
pub const DIM: Style = Style::new().fg(Color::DarkGray);
/// Of what a fact is about.
pub const NAME: Style = Style::new().fg(Color::Cyan);
pub const GOOD: Style = Style::new().fg(Color::Green).add_modifier(Modifier::BOLD);
pub const WARNING: Style = Style::new().fg(Color::Yellow).add_modifier(Modifier::BOLD);
pub const ALARM: Style = Style::new().fg(Color::Red).add_modifier(Modifier::BOLD);

/// Text of which every character takes room and moves nothing: control characters become spaces, invisible ones go,
/// and typographic marks that the console's font lacks become their plain relatives.
pub fn clean(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '…' => clean.push_str("..."),
            '‘' | '’' | '‚' => clean.push('\''),
            '“' | '”' | '„' => clean.push('"'),
            '‐'..='―' => clean.push('-'),
            '×' => clean.push('x'),
            c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') => clean.push(' '),
            // Marks that combine, and those that turn the direction of writing.
            c if c.width().unwrap_or(0) == 0 => {}
            c => clean.push(c),
        }
    }
    clean
}

/// A line of one look.
pub fn line(style: Style, text: &str) -> Line<'static> {
    Line::styled(clean(text), style)
}

/// A line of several looks.
pub fn spans(parts: &[(Style, &str)]) -> Line<'static> {
    let spans: Vec<Span<'static>> = parts
        .iter()
        .map(|(style, text)| Span::styled(clean(text), *style))
        .collect();
    Line::from(spans)
}

/// The text of a line, without its looks.
pub fn text(line: &Line<'_>) -> String {
    line.spans.iter().map(|span| span.content.as_ref()).collect()
}

/// A part of the page: a title, and items of one or more lines each that stay together.
#[derive(Clone, Debug)]
pub struct Section {
    /// The title with what stands beside it.
    pub title: Line<'static>,
    pub items: Vec<Vec<Line<'static>>>,
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

    /// The section within `rows` rows, and how many items have no room; those are counted in the last of the rows.
    pub fn lines(&self, rows: usize) -> (Vec<Line<'static>>, usize) {
        if self.items.is_empty() || rows < 3 {
            return (Vec::new(), self.items.len());
        }
        let mut lines = vec![Line::default(), self.title.clone()];
        let all_fit = self.rows() <= rows;
        for (shown, item) in self.items.iter().enumerate() {
            if !all_fit && lines.len() + item.len() + 1 > rows {
                let rest = self.items.len() - shown;
                lines.push(line(DIM, &format!("  and {rest} more: `strongroom status`")));
                return (lines, rest);
            }
            lines.extend(item.iter().cloned());
        }
        (lines, 0)
    }
}

/// A page, and what of it was lost to its size.
#[derive(Clone, Debug)]
pub struct Page {
    pub lines: Vec<Line<'static>>,
    /// Items that are not shown, and lines that are cut.
    pub lost: usize,
}

/// The head, and of each section as much as has room on `rows` rows of `columns`, in order.
pub fn fit(head: Vec<Line<'static>>, sections: &[Section], columns: usize, rows: usize) -> Page {
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
    let mut lost = head.len().saturating_sub(rows);
    let mut lines = head;
    for (section, rows) in sections.iter().zip(granted) {
        let (some, rest) = section.lines(rows);
        lines.extend(some);
        lost += rest;
    }
    lines.truncate(rows);
    lost += lines.iter().filter(|line| line.width() > columns).count();
    let lines = lines.into_iter().map(|line| cut_line(line, columns)).collect();
    Page { lines, lost }
}

/// At most `columns` wide; a longer text ends in [`CUT`].
pub fn cut(text: &str, columns: usize) -> String {
    if text.width() <= columns {
        return text.into();
    }
    let mut room = columns.saturating_sub(CUT.len());
    let mut kept: String = text
        .chars()
        .take_while(|c| {
            let fits = c.width().unwrap_or(0) <= room;
            room = room.saturating_sub(c.width().unwrap_or(0));
            fits
        })
        .collect();
    kept.push_str(&CUT[..columns.min(CUT.len())]);
    kept
}

fn cut_line(mut line: Line<'static>, columns: usize) -> Line<'static> {
    let mut room = columns;
    for span in &mut line.spans {
        let width = span.width();
        if width > room {
            span.content = cut(&span.content, room).into();
        }
        room = room.saturating_sub(width);
    }
    line
}

/// Breaks text at spaces into lines of at most `columns` columns. The first begins with `first`, the others are
/// indented as far. A word that is longer than a line is broken, after a `/` or `@` where there is one.
pub fn wrap(first: &str, text: &str, columns: usize) -> Vec<String> {
    let indent = first.width();
    let width = columns.saturating_sub(indent).max(2);
    let mut lines = vec![String::new()];
    let mut used = 0;
    for word in clean(text).split_whitespace() {
        let mut word = word;
        while !word.is_empty() {
            let space = usize::from(used > 0);
            if used + space + word.width() > width && used > 0 {
                lines.push(String::new());
                used = 0;
                continue;
            }
            let (now, later) = word.split_at(breaking_point(word, width));
            if let Some(line) = lines.last_mut() {
                line.extend((space > 0).then_some(' '));
                line.push_str(now);
            }
            used += space + now.width();
            word = later;
        }
    }
    let later = " ".repeat(indent);
    lines
        .iter()
        .enumerate()
        .map(|(number, line)| format!("{}{line}", if number == 0 { first } else { &later }))
        .collect()
}

/// How many bytes of a word go on a line of `width` columns: all, or up to the last `/` or `@`, or as many as fit; at least
/// one character.
fn breaking_point(word: &str, width: usize) -> usize {
    if word.width() <= width {
        return word.len();
    }
    let mut used = 0;
    let fitting = word
        .char_indices()
        .find(|(_, c)| {
            used += c.width().unwrap_or(0);
            used > width
        })
        .map_or(word.len(), |(at, _)| at);
    let first = word.chars().next().map_or(0, char::len_utf8);
    match word[..fitting].rfind(['/', '@']) {
        Some(at) if at > fitting / 3 => at + 1,
        _ => fitting.max(first),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_wrapped_and_long_ones_broken() {
        assert_eq!(wrap("! ", "one two three", 9), ["! one two", "  three"]);
        assert_eq!(wrap("", "abcdefgh ij", 4), ["abcd", "efgh", "ij"]);
        assert_eq!(wrap("", "ssh://ab.c/mnt/raid/x", 17), ["ssh://ab.c/mnt/", "raid/x"]);
        assert_eq!(wrap("> ", "", 10), ["> "]);
        for columns in 0..20 {
            for line in wrap("  ", "the quick brown fox-jumps-over-the lazy dog 箱箱箱", columns) {
                assert!(line.width() <= columns.max(4), "{columns}: {line}");
            }
        }
    }

    #[test]
    fn cut_counts_columns() {
        assert_eq!(cut("äöü", 3), "äöü");
        assert_eq!(cut("äöüxy", 4), "äö..");
        assert_eq!(cut("箱箱箱", 5), "箱..");
        assert_eq!((cut("xy", 0), cut("xyz", 1)), (String::new(), ".".to_string()));
    }

    #[test]
    fn control_characters_never_reach_the_terminal() {
        assert_eq!(clean("a\x1b[2Jb\nc\u{9b}d\u{202e}e\u{200b}"), "a [2Jb c de");
        assert_eq!(clean("“so” – it’s…"), "\"so\" - it's...");
    }

    fn section(title: &'static str, items: usize, share: usize) -> Section {
        Section {
            title: line(BOLD, title),
            items: (0..items).map(|n| vec![line(PLAIN, &format!("{title}{n}"))]).collect(),
            share,
        }
    }

    #[test]
    fn what_has_no_room_is_counted() {
        let (lines, rest) = section("s", 9, 0).lines(6);
        assert_eq!((lines.len(), rest), (6, 6));
        assert_eq!(text(&lines[5]), "  and 6 more: `strongroom status`");
        assert_eq!(section("s", 4, 0).lines(6).0.len(), 6);
        let (lines, rest) = section("s", 4, 0).lines(2);
        assert!(lines.is_empty() && rest == 4);
    }

    #[test]
    fn shares_are_kept_and_rows_never_exceeded() {
        for rows in 0..40 {
            let sections = [section("a", 30, 8), section("b", 30, 6)];
            let page = fit(vec![line(PLAIN, "head")], &sections, 80, rows);
            assert!(page.lines.len() <= rows && page.lost > 0);
            if rows >= 15 {
                for one in ["a0", "b0"] {
                    assert!(page.lines.iter().any(|line| text(line) == one));
                }
            }
        }
    }

    #[test]
    fn a_line_of_several_looks_is_cut_as_one() {
        let line = spans(&[(BOLD, "name"), (PLAIN, " value that is long"), (DIM, " end")]);
        let page = fit(vec![line], &[], 12, 1);
        assert_eq!((text(&page.lines[0]).as_str(), page.lost), ("name value..", 1));
    }
}
