//! The recovery kit: one page that holds all that is needed to read the copies again, but the passphrase. It is printed,
//! so it is plain HTML with the codes drawn into it; and the same file can be given to `gpg --import`, which passes over
//! what is not armour.

use super::RecipientFailure;
use crate::words;
use qrcode::{Color, EcLevel, QrCode};
use std::fmt::Write;
use strongroom_offsite::manifest::RECOVERY;
use strongroom_offsite::openpgp::passphrase::{GROUP, GROUPS};
use zeroize::Zeroizing;

/// Most bytes in one code: at the level M that makes 73 modules a side, which any phone reads from paper.
const CODE_MAX: usize = 360;
/// Light modules around a code (ISO/IEC 18004).
const QUIET: usize = 4;

const PAGE: &str = include_str!("files/recovery.html");

/// What the page tells.
pub struct Facts<'a> {
    /// The recipient's name.
    pub name: &'a str,
    /// Its user id.
    pub user_id: &'a str,
    /// Its fingerprint, 40 digits.
    pub fingerprint: &'a str,
    /// When it was made, Unix seconds.
    pub made: u64,
    /// The armoured secret key.
    pub secret: &'a str,
    /// The owner brought the passphrase along.
    pub own_passphrase: bool,
}

/// Makes the page.
pub fn page(facts: &Facts<'_>) -> Result<Zeroizing<String>, RecipientFailure> {
    let parts = parts(facts.secret);
    let mut codes = Zeroizing::new(String::new());
    for (number, part) in (1..).zip(&parts) {
        let drawing = drawing(part).ok_or_else(|| RecipientFailure::Kit("a code holds too much".into()))?;
        let _ = writeln!(
            codes,
            "<figure><figcaption>{number} of {}</figcaption>\n{}</figure>",
            parts.len(),
            *drawing
        );
    }
    let blank = if facts.own_passphrase {
        "_".repeat(40)
    } else {
        vec!["_".repeat(2 * GROUP); GROUPS].join(" - ")
    };
    let replaced = [
        ("@NAME@", facts.name),
        ("@USER_ID@", &escaped(facts.user_id)),
        ("@FINGERPRINT@", &grouped(facts.fingerprint)),
        ("@MADE@", &words::day(facts.made)),
        ("@COUNT@", &parts.len().to_string()),
        ("@BLANK@", &blank),
        ("@RECOVERY@", &escaped(RECOVERY)),
        ("@CODES@", &codes),
        ("@SECRET@", facts.secret),
    ];
    Ok(filled(&replaced))
}

/// The page with each word replaced. What was put in is not looked at again, so that a user id can't be one of the words.
fn filled(replaced: &[(&str, &str)]) -> Zeroizing<String> {
    let length = PAGE.len() + replaced.iter().map(|(_, text)| 4 * text.len()).sum::<usize>();
    let mut page = Zeroizing::new(String::with_capacity(length));
    let mut rest = PAGE;
    loop {
        let next = replaced
            .iter()
            .filter_map(|(word, text)| Some((rest.find(word)?, word, text)))
            .min();
        let Some((at, word, text)) = next else { break };
        page.push_str(&rest[..at]);
        page.push_str(text);
        rest = &rest[at + word.len()..];
    }
    page.push_str(rest);
    page
}

/// The armour cut between lines into parts that fit a code each. Put one below the other they are the armour again.
fn parts(armour: &str) -> Vec<Zeroizing<String>> {
    let mut parts: Vec<Zeroizing<String>> = Vec::new();
    for line in armour.lines() {
        match parts.last_mut() {
            Some(part) if part.len() + 1 + line.len() <= CODE_MAX => {
                part.push('\n');
                part.push_str(line);
            }
            _ => {
                let mut part = Zeroizing::new(String::with_capacity(CODE_MAX));
                part.push_str(line);
                parts.push(part);
            }
        }
    }
    parts
}

/// A code as SVG: one path, of a square for each run of dark modules in a row.
fn drawing(content: &str) -> Option<Zeroizing<String>> {
    let code = QrCode::with_error_correction_level(content, EcLevel::M).ok()?;
    let width = code.width();
    let side = width + 2 * QUIET;
    let mut svg = Zeroizing::new(format!(
        "<svg viewBox=\"0 0 {side} {side}\" shape-rendering=\"crispEdges\"><path d=\""
    ));
    for (y, row) in code.to_colors().chunks(width).enumerate() {
        let mut x = 0;
        for run in row.chunk_by(|a, b| a == b) {
            if run.first() == Some(&Color::Dark) {
                let (x, y, length) = (x + QUIET, y + QUIET, run.len());
                let _ = write!(svg, "M{x} {y}h{length}v1h-{length}z");
            }
            x += run.len();
        }
    }
    svg.push_str("\"/></svg>");
    Some(svg)
}

/// Four digits at a time, as gpg shows it.
pub fn grouped(fingerprint: &str) -> String {
    let groups: Vec<&str> = (0..fingerprint.len())
        .step_by(4)
        .filter_map(|at| fingerprint.get(at..(at + 4).min(fingerprint.len())))
        .collect();
    groups.join(" ")
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_whole_lines_and_make_the_armour_again() {
        let lines: Vec<String> = (0..40).map(|number| "x".repeat(number * 7 % 65)).collect();
        let armour = lines.join("\n");
        let parts = parts(&armour);
        assert!(parts.len() > 3 && parts.iter().all(|part| part.len() <= CODE_MAX));
        let again: Vec<&str> = parts.iter().map(|part| part.as_str()).collect();
        assert_eq!(again.join("\n"), armour);
    }

    #[test]
    fn what_is_put_in_is_text_alone() {
        let facts = Facts {
            name: "owner",
            user_id: "<b>@SECRET@ & co",
            fingerprint: &"0123456789".repeat(4),
            made: 1_800_000_000,
            secret: "-----BEGIN\n",
            own_passphrase: false,
        };
        let page = page(&facts).unwrap();
        assert!(page.contains("&lt;b&gt;@SECRET@ &amp; co"), "{}", *page);
        assert_eq!(page.matches("-----BEGIN").count(), 1);
        assert!(page.contains("0123 4567 8901"));
        let left = page.replace("@SECRET@ &amp;", "");
        assert_eq!(left.matches('@').count(), left.matches("@page").count(), "{left}");
    }
}
