//! The terminal: its size, its modes, and a buffer of cells written to it in the fewest bytes.
//!
//! Writes plain ECMA-48 sequences that the kernel's console, serial programs and xterm all know. A cell whose symbol
//! holds a control character is written as a space: the second wall behind [`super::page::clean`].

use super::screen::Size;
use ratatui_core::buffer::{Buffer, Cell};
use ratatui_core::style::{Color, Modifier};
use rustix::termios::{self, LocalModes, OptionalActions, SpecialCodeIndex, Termios};
use std::fmt::Write as _;
use std::io::Write as _;
use unicode_width::UnicodeWidthStr;

/// No terminal is larger; bounds the memory of a screen.
const LARGEST: Size = Size {
    columns: 300,
    rows: 120,
};
/// What a serial line, which does not tell, is taken for.
const USUAL: Size = Size { columns: 80, rows: 24 };

/// The terminal on standard output, in the state that the console needs. Dropped, it is as it was before.
pub struct Terminal {
    before: Option<Termios>,
    /// Whether it was entered from a shell, to which it returns.
    borrowed: bool,
    shown: Option<Buffer>,
}

impl Terminal {
    /// Takes the terminal: no echo, keys at once, no cursor. A `borrowed` one gets a screen of its own and keeps Ctrl-C;
    /// on the appliance's own screen keys do nothing.
    pub fn take(borrowed: bool) -> Self {
        let before = termios::tcgetattr(std::io::stdout()).ok();
        if let Some(before) = &before {
            let mut modes = before.clone();
            modes.local_modes -= LocalModes::ECHO | LocalModes::ICANON;
            if !borrowed {
                modes.local_modes -= LocalModes::ISIG;
            }
            modes.special_codes[SpecialCodeIndex::VMIN] = 1;
            modes.special_codes[SpecialCodeIndex::VTIME] = 0;
            // A terminal that refuses is still one to write to.
            let _ = termios::tcsetattr(std::io::stdout(), OptionalActions::Now, &modes);
        }
        if borrowed {
            write("\x1b[?1049h");
        }
        Self {
            before,
            borrowed,
            shown: None,
        }
    }

    /// Its size now.
    pub fn size() -> Size {
        match termios::tcgetwinsize(std::io::stdout()) {
            Ok(size) if size.ws_col > 0 && size.ws_row > 0 => Size {
                columns: size.ws_col.min(LARGEST.columns),
                rows: size.ws_row.min(LARGEST.rows),
            },
            _ => USUAL,
        }
    }

    /// Shows a screen: what differs from the last one, or with `whole` all of it, for a terminal that was attached
    /// since, or that somebody else wrote to.
    pub fn show(&mut self, screen: Buffer, whole: bool) {
        let same_size = self.shown.as_ref().filter(|shown| shown.area == screen.area && !whole);
        write(&match same_size {
            Some(shown) => difference(shown, &screen),
            None => all(&screen),
        });
        self.shown = Some(screen);
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        write(if self.borrowed {
            "\x1b[0m\x1b[?25h\x1b[?1049l"
        } else {
            "\x1b[0m\x1b[?25h"
        });
        if let Some(before) = &self.before {
            let _ = termios::tcsetattr(std::io::stdout(), OptionalActions::Now, before);
        }
    }
}

/// A line that can't be written to, as that of a PC without the serial port, is no reason to stop.
fn write(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// What turns one screen into the other of the same size; empty when they are equal.
fn difference(shown: &Buffer, screen: &Buffer) -> String {
    let mut pen = Pen::default();
    for (x, y, cell) in shown.diff(screen) {
        pen.put(x, y, cell);
    }
    pen.end()
}

/// The whole screen, row by row, each cleared before it is written: cleared afterwards, a full row would lose its last
/// character. Never blank for longer than a row takes, so that a slow line does not flicker.
fn all(screen: &Buffer) -> String {
    let area = screen.area;
    let mut pen = Pen::default();
    // No cursor; nothing left below on a terminal that is higher than it said.
    let _ = write!(pen.out, "\x1b[?25l\x1b[0m\x1b[{};1H\x1b[J", area.height.max(1));
    for y in 0..area.height {
        let _ = write!(pen.out, "\x1b[0m\x1b[{};1H\x1b[2K", y + 1);
        pen.at = Some((0, y));
        pen.look = None;
        let mut x = 0;
        while x < area.width {
            let Some(cell) = screen.cell((x, y)) else { break };
            pen.put(x, y, cell);
            // A wide symbol covers its neighbour.
            x += u16::try_from(harmless(cell.symbol()).width()).unwrap_or(1).max(1);
        }
    }
    pen.end()
}

/// Foreground, background, and whether bold.
type Look = (Color, Color, bool);

/// Where the terminal's cursor stands and how it writes.
#[derive(Default)]
struct Pen {
    out: String,
    at: Option<(u16, u16)>,
    look: Option<Look>,
}

impl Pen {
    fn put(&mut self, x: u16, y: u16, cell: &Cell) {
        // Writing to a string can't fail.
        if self.at != Some((x, y)) {
            let _ = write!(self.out, "\x1b[{};{}H", y + 1, x + 1);
        }
        let look = (cell.fg, cell.bg, cell.modifier.contains(Modifier::BOLD));
        if self.look != Some(look) {
            self.out.push_str("\x1b[0");
            if look.2 {
                self.out.push_str(";1");
            }
            if let Some(code) = code(look.0) {
                let _ = write!(self.out, ";{}", 30 + code);
            }
            if let Some(code) = code(look.1) {
                let _ = write!(self.out, ";{}", 40 + code);
            }
            self.out.push('m');
            self.look = Some(look);
        }
        let symbol = cell.symbol();
        let symbol = harmless(symbol);
        self.out.push_str(symbol);
        // Where a wide symbol leaves the cursor depends on the terminal.
        self.at = (symbol.width() == 1).then_some((x + 1, y));
    }

    fn end(mut self) -> String {
        if !self.out.is_empty() {
            self.out.push_str("\x1b[0m");
        }
        self.out
    }
}

fn harmless(symbol: &str) -> &str {
    let hostile = symbol.is_empty() || symbol.contains(char::is_control);
    if hostile { " " } else { symbol }
}

/// Of Select Graphic Rendition (ECMA-48, section 8.3.117), what is added to 30 or 40. 60 more are the bright ones.
fn code(color: Color) -> Option<u8> {
    Some(match color {
        Color::Black => 0,
        Color::Red => 1,
        Color::Green => 2,
        Color::Yellow => 3,
        Color::Blue => 4,
        Color::Magenta => 5,
        Color::Cyan => 6,
        Color::Gray => 7,
        Color::DarkGray => 60,
        Color::White => 67,
        _ => return None,
    })
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use ratatui_core::layout::Rect;
    use ratatui_core::style::Style;

    /// Takes the escapes that we write out of `written`; what is left must hold no control character.
    fn without_our_escapes(written: &str) -> String {
        let mut left = String::new();
        let mut rest = written;
        while let Some(at) = rest.find("\x1b[") {
            left.push_str(&rest[..at]);
            let sequence = &rest[at + 2..];
            let end = sequence
                .find(|c: char| !c.is_ascii_digit() && c != ';' && c != '?')
                .unwrap();
            let ours = ["H", "m", "J", "K", "l"].contains(&&sequence[end..=end]);
            assert!(ours, "{sequence:?}");
            rest = &sequence[end + 1..];
        }
        left.push_str(rest);
        left
    }

    /// A whole screen as it is written, without our escapes.
    pub fn written_whole(screen: &Buffer) -> String {
        without_our_escapes(&all(screen))
    }

    fn buffer(lines: [&str; 2]) -> Buffer {
        Buffer::with_lines(lines)
    }

    #[test]
    fn only_what_changed_is_written() {
        let (one, two) = (buffer(["age 1 min", "same     "]), buffer(["age 2 min", "same     "]));
        assert_eq!(difference(&one, &one), "");
        assert_eq!(difference(&one, &two), "\x1b[1;5H\x1b[0m2\x1b[0m");
    }

    #[test]
    fn the_whole_screen_is_written_row_by_row() {
        let mut screen = buffer(["ab", "cd"]);
        screen.set_style(
            Rect::new(0, 1, 2, 1),
            Style::new().fg(Color::Red).add_modifier(Modifier::BOLD),
        );
        assert_eq!(
            all(&screen),
            "\x1b[?25l\x1b[0m\x1b[2;1H\x1b[J\x1b[0m\x1b[1;1H\x1b[2K\x1b[0mab\x1b[0m\x1b[2;1H\x1b[2K\x1b[0;1;31mcd\x1b[0m"
        );
    }

    #[test]
    fn a_control_character_in_a_cell_is_not_written() {
        let mut screen = buffer(["ab", "cd"]);
        screen.cell_mut((0, 0)).unwrap().set_symbol("\x1b]0;x\x07");
        assert_eq!(without_our_escapes(&all(&screen)), " bcd");
    }

    #[test]
    fn after_a_wide_symbol_the_cursor_is_set_anew() {
        let screen = Buffer::with_lines(["箱x"]);
        assert!(all(&screen).contains("箱\x1b[1;3Hx"), "{:?}", all(&screen));
        assert_eq!(all(&Buffer::empty(Rect::new(0, 0, 0, 0))).matches('H').count(), 1);
    }
}
