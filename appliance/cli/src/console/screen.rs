//! The full screen: the page, and beside it the QR code where that costs nothing else its place.
//!
//! Pure: the snapshot, the time and the size of the terminal come in, a buffer of cells goes out.

use super::page::{self, BOLD, DIM, NAME, Page};
use super::{code, facts, sections, verdict};
use ratatui_core::buffer::Buffer;
use ratatui_core::layout::Rect;
use ratatui_core::text::Line;
use strongroom_model::status::Status;

/// Columns at the left and the right edge, on a terminal that has them to spare.
const MARGIN: usize = 1;
/// Between the page and the code.
const GAP: usize = 2;
/// A page narrower than this is no pleasure to read.
const NARROWEST: usize = 38;
/// Longer lines than this are hard to follow.
const WIDEST: usize = 110;
/// Stands below the code, where there is a row for it.
const CAPTION: &str = "to log in, and the host key";
/// The title, the health, and a rule.
const HEAD: usize = 3;

/// A terminal as far as the screen cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    pub columns: u16,
    pub rows: u16,
}

/// The screen. `leave` says how to leave it; the appliance's own screen is not left.
pub fn render(status: &Status, now_unix: u64, size: Size, leave: Option<&str>) -> Buffer {
    let mut buffer = Buffer::empty(Rect::new(0, 0, size.columns, size.rows));
    let margin = if size.columns >= 60 { MARGIN } else { 0 };
    let columns = usize::from(size.columns).saturating_sub(2 * margin);
    let rows = usize::from(size.rows).saturating_sub(HEAD);
    for (row, line) in head(status, now_unix, columns, leave).iter().enumerate() {
        put(&mut buffer, margin, row, line, columns);
    }
    let code = code::content(&status.appliance).map(|content| code::lines(&content));
    let (page, code) = choose(status, now_unix, columns, rows, code.unwrap_or_default());
    for (row, line) in page.lines.iter().enumerate() {
        put(&mut buffer, margin, HEAD + row, line, columns);
    }
    let left = (margin + columns).saturating_sub(code.first().map_or(0, Line::width));
    for (row, line) in code.iter().enumerate() {
        put(&mut buffer, left, HEAD + row, line, columns);
    }
    if let Some(first) = code.first() {
        let caption = page::line(NAME, CAPTION);
        let left = left + first.width().saturating_sub(caption.width()) / 2;
        put(&mut buffer, left, HEAD + code.len(), &caption, columns);
    }
    buffer
}

/// What is shown while the supervisor can't be asked.
pub fn render_silence(why: &str, size: Size) -> Buffer {
    let mut buffer = Buffer::empty(Rect::new(0, 0, size.columns, size.rows));
    let columns = usize::from(size.columns).saturating_sub(2 * MARGIN);
    let mut lines = vec![page::line(BOLD, "Strongroom"), Line::default()];
    let text = format!("The supervisor does not answer yet: {why}");
    lines.extend(
        page::wrap("", &text, columns.min(WIDEST))
            .iter()
            .map(|text| page::line(page::PLAIN, text)),
    );
    for (row, line) in lines.iter().enumerate() {
        put(&mut buffer, MARGIN, row, line, columns);
    }
    buffer
}

/// The page with the code beside it, or, where something would be lost by that, the page alone.
fn choose(
    status: &Status,
    now: u64,
    columns: usize,
    rows: usize,
    code: Vec<Line<'static>>,
) -> (Page, Vec<Line<'static>>) {
    let alone = compose(status, now, columns, rows);
    let width = code.first().map_or(0, Line::width);
    let beside = columns.saturating_sub(width + GAP);
    if code.is_empty() || code.len() > rows || beside < NARROWEST {
        return (alone, Vec::new());
    }
    let narrow = compose(status, now, beside, rows);
    if narrow.lost <= alone.lost {
        (narrow, code)
    } else {
        (alone, Vec::new())
    }
}

fn compose(status: &Status, now: u64, columns: usize, rows: usize) -> Page {
    let width = columns.min(WIDEST);
    page::fit(
        facts(status, now, width),
        &sections(status, now, width, true),
        width,
        rows,
    )
}

fn head(status: &Status, now: u64, columns: usize, leave: Option<&str>) -> [Line<'static>; HEAD] {
    let name = page::cut(&page::clean(super::name(status)), columns.saturating_sub(12));
    let mut right = format!(
        "release {}   {}",
        super::or_dash(&status.appliance.release),
        time_of_day(now)
    );
    if let Some(leave) = leave {
        right = format!("{leave}   {right}");
    }
    let left = 12 + Line::raw(name.as_str()).width();
    let gap = columns.saturating_sub(left + right.len());
    // The right side goes before the name does.
    let right = if gap < 2 { String::new() } else { right };
    let (badge, words) = verdict(status);
    let (badge_style, words_style) = super::looks(status.health);
    [
        page::spans(&[
            (BOLD, "Strongroom  "),
            (BOLD, &name),
            (DIM, &" ".repeat(gap)),
            (NAME, &right),
        ]),
        page::spans(&[
            (badge_style, &format!(" {badge} ")),
            (words_style, &format!("  {words}")),
        ]),
        page::line(DIM, &"─".repeat(columns)),
    ]
}

/// `21:46 UTC`. Whoever stands before a screen sees that it is alive.
fn time_of_day(unix: u64) -> String {
    let minutes = unix / 60 % 1440;
    format!("{:02}:{:02} UTC", minutes / 60, minutes % 60)
}

fn put(buffer: &mut Buffer, column: usize, row: usize, line: &Line<'_>, columns: usize) {
    let (Ok(x), Ok(y), Ok(width)) = (u16::try_from(column), u16::try_from(row), u16::try_from(columns)) else {
        return;
    };
    if x < buffer.area.width && y < buffer.area.height {
        buffer.set_line(x, y, line, width.min(buffer.area.width - x));
    }
}
