//! The QR code: where to log in and the host key's fingerprint, for a phone or a laptop's camera.
//!
//! It holds `ssh://admin@ADDRESS#SHA256:…`. A telephone offers to open it; ssh takes the fingerprint after the `#` as
//! answer to "Are you sure you want to continue connecting (yes/no/[fingerprint])?", so that nobody compares 43
//! characters by eye.

use qrcode::{Color as Module, EcLevel, QrCode};
use ratatui_core::style::{Color, Style};
use ratatui_core::text::Line;
use strongroom_model::status::Appliance;

/// Light modules around the code. The standard asks for four; readers are content with two, and rows are scarce.
const QUIET: usize = 2;
/// The half block's foreground is the upper module.
const UPPER_HALF: &str = "▀";

/// What the code says; nothing while the address or the host key isn't known.
pub fn content(appliance: &Appliance) -> Option<String> {
    let address = appliance.addresses.first()?;
    if appliance.host_key.is_empty() {
        return None;
    }
    let host = if address.contains(':') {
        format!("[{address}]")
    } else {
        address.to_string()
    };
    Some(format!("ssh://admin@{host}#{}", appliance.host_key))
}

/// The code in half blocks: a module is one column wide and half a row high. Its colours are set, not taken from the
/// terminal, since most readers refuse a code in negative.
pub fn lines(content: &str) -> Vec<Line<'static>> {
    let Ok(code) = QrCode::with_error_correction_level(content, EcLevel::L) else {
        return Vec::new();
    };
    let (width, modules) = (code.width(), code.to_colors());
    let side = width + 2 * QUIET;
    // Bright backgrounds blink on some consoles, so the light modules are grey.
    let color = |x: usize, y: usize| {
        let inside = (QUIET..QUIET + width).contains(&x) && (QUIET..QUIET + width).contains(&y);
        match inside.then(|| modules[(y - QUIET) * width + x - QUIET]) {
            Some(Module::Dark) => Color::Black,
            _ => Color::Gray,
        }
    };
    (0..side)
        .step_by(2)
        .map(|y| {
            let cells = (0..side).map(|x| {
                let (upper, lower) = (color(x, y), color(x, y + 1));
                let symbol = if upper == lower { " " } else { UPPER_HALF };
                ratatui_core::text::Span::styled(symbol, Style::new().fg(upper).bg(lower))
            });
            Line::from(cells.collect::<Vec<_>>())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn appliance(address: &str, host_key: &str) -> Appliance {
        let mut appliance = Appliance {
            host_key: host_key.into(),
            ..Appliance::default()
        };
        if !address.is_empty() {
            appliance.addresses.push(address.into()).unwrap();
        }
        appliance
    }

    const KEY: &str = "SHA256:uNiVztksCsDhcc0u9e8BrqJXG36HR6cBbvQ4IQSQnGg";

    #[test]
    fn it_names_the_account_the_address_and_the_host_key() {
        assert_eq!(
            content(&appliance("192.168.1.10", KEY)),
            Some(format!("ssh://admin@192.168.1.10#{KEY}"))
        );
        assert_eq!(
            content(&appliance("fd00::1", KEY)),
            Some(format!("ssh://admin@[fd00::1]#{KEY}"))
        );
        assert_eq!(content(&appliance("", KEY)), None);
        assert_eq!(content(&appliance("192.168.1.10", "")), None);
    }

    #[test]
    fn the_longest_address_of_ipv4_fits_a_code_of_37_columns_and_19_rows() {
        let lines = lines(&content(&appliance("255.255.255.255", KEY)).unwrap());
        assert_eq!((lines[0].width(), lines.len()), (37, 19));
    }

    #[test]
    fn what_is_too_long_for_a_code_has_none() {
        assert!(lines(&"x".repeat(5000)).is_empty());
    }
}
