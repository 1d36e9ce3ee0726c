//! How deep a file nests, told from its tokens before the parser builds anything.
//!
//! The parser bounds arrays and keys by themselves, but not together: 80 tables within one another, each under a key of
//! 80 parts, overflow a thread's stack when they are read or dropped. No real configuration comes near these bounds.

use super::ConfigError;
use alloc::format;
use toml_parser::{Source, lexer::TokenKind};

/// Most arrays and tables within one another.
const NESTING_MAX: usize = 8;
/// Most parts of a dotted key.
const PARTS_MAX: usize = 8;

/// Errors: the line on which the file nests too deeply.
pub(super) fn check(text: &str) -> Result<(), ConfigError> {
    let (mut nesting, mut parts) = (0_usize, 1_usize);
    for token in Source::new(text).lex() {
        match token.kind() {
            TokenKind::LeftSquareBracket | TokenKind::LeftCurlyBracket => {
                nesting += 1;
                parts = 1;
            }
            TokenKind::RightSquareBracket | TokenKind::RightCurlyBracket => {
                nesting = nesting.saturating_sub(1);
                parts = 1;
            }
            TokenKind::Dot => parts += 1,
            TokenKind::Comma | TokenKind::Equals | TokenKind::Newline => parts = 1,
            _ => {}
        }
        if nesting > NESTING_MAX || parts > PARTS_MAX {
            let at = token.span().start();
            return Err(ConfigError::at(
                text,
                at..text.len(),
                format!("values nest more than {NESTING_MAX} deep, or a key has more than {PARTS_MAX} parts"),
                "Check that this is really strongroom.toml.",
            ));
        }
    }
    Ok(())
}
