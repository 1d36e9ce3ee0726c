//! chronyd, asked through `chronyc -c`: comma-separated values meant for programs (chronyc(1), option `-c`).
//!
//! Owns the translation and nothing else; what the answer is worth is decided in `strongroom_model::clock`. The
//! fields are those of chrony 4: anything else is refused rather than guessed at. chronyd's own socket protocol will
//! take the place of the program here without a change elsewhere.

use std::process::Stdio;
use std::time::Duration;
use strongroom_model::clock::{Chrony, Silence, Sources, Tracking};
use tokio::io::AsyncReadExt;
use tokio::process::Command;

/// chronyc gives up after three requests of one second each; this is the bound for when it hangs.
const TIMEOUT: Duration = Duration::from_secs(8);
/// Longest answer that is read: some 900 sources.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;

/// Where chronyd is asked.
#[derive(Clone, Debug, Default)]
pub struct Chronyc {
    place: Vec<String>,
}

impl Chronyc {
    /// The chronyd at this address and command port, instead of the system's.
    pub fn at(address: std::net::SocketAddr) -> Self {
        let place = ["-h", &address.ip().to_string(), "-p", &address.port().to_string()];
        Self {
            place: place.map(String::from).into(),
        }
    }

    /// Asks for tracking and sources.
    ///
    /// Errors: the program is missing, chronyd does not answer in time, or the answer is not understood.
    pub async fn ask(&self) -> Result<Chrony, Silence> {
        let mut child = Command::new("chronyc")
            .args(["-c", "-n"])
            .args(&self.place)
            .args(["-m", "tracking", "sources -a"])
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(|_| Silence::NoClient)?;
        let stdout = child.stdout.take().ok_or(Silence::NoClient)?;
        let answer = async {
            let mut answer = String::new();
            stdout.take(ANSWER_BYTES_MAX).read_to_string(&mut answer).await?;
            child.wait().await.map(|status| (status, answer))
        };
        match tokio::time::timeout(TIMEOUT, answer).await {
            Ok(Ok((status, answer))) if status.success() => parse(&answer),
            // "506 Cannot talk to daemon" and the like.
            _ => Err(Silence::NoAnswer),
        }
    }
}

/// Understands the answers to `tracking` and `sources -a`, in this order.
///
/// Errors: [`Silence::Strange`] with the line that is not of the known form.
pub fn parse(answer: &str) -> Result<Chrony, Silence> {
    let mut lines = answer.lines();
    let first = lines.next().ok_or(Silence::NoAnswer)?;
    let tracking = tracking(first).ok_or_else(|| Silence::Strange(first.into()))?;
    let mut sources = Sources::default();
    for line in lines {
        count_source(&mut sources, line).ok_or_else(|| Silence::Strange(line.into()))?;
    }
    Ok(Chrony { tracking, sources })
}

fn tracking(line: &str) -> Option<Tracking> {
    let fields: Vec<&str> = line.split(',').collect();
    let [
        reference,
        source,
        stratum,
        _time,
        offset,
        _last,
        _rms,
        frequency,
        _residual,
        _skew,
        delay,
        dispersion,
        _interval,
        leap,
    ] = fields[..]
    else {
        return None;
    };
    let synchronised = match leap {
        "Normal" | "Insert second" | "Delete second" => true,
        "Not synchronised" => false,
        _ => return None,
    };
    Some(Tracking {
        reference: (reference.len() == 8).then(|| u32::from_str_radix(reference, 16).ok())??,
        source: source.into(),
        stratum: stratum.parse().ok()?,
        synchronised,
        // chronyd gives the correction that remains: positive when the clock is behind.
        offset_ns: billionths(offset)?.checked_neg()?,
        frequency_ppb: billionths(frequency)? / 1_000_000,
        root_delay_ns: billionths(delay)?.unsigned_abs(),
        root_dispersion_ns: billionths(dispersion)?.unsigned_abs(),
    })
}

fn count_source(sources: &mut Sources, line: &str) -> Option<()> {
    let fields: Vec<&str> = line.split(',').collect();
    let [
        mode,
        state,
        name,
        _stratum,
        _poll,
        reach,
        _since,
        _adjusted,
        _measured,
        _error,
    ] = fields[..]
    else {
        return None;
    };
    if !matches!(mode, "^" | "=" | "#") {
        return None;
    }
    let reach = u8::from_str_radix(reach, 8).ok()?;
    if name.starts_with("ID#") {
        sources.unresolved = sources.unresolved.saturating_add(1);
        return Some(());
    }
    sources.known = sources.known.saturating_add(1);
    sources.reachable = sources.reachable.saturating_add(u8::from(reach != 0));
    sources.wrong = sources.wrong.saturating_add(u8::from(match state {
        "x" => true,
        "*" | "+" | "-" | "?" | "~" | " " => false,
        _ => return None,
    }));
    Some(())
}

/// A decimal number of at most nine decimals, in billionths, without the detour over floating point.
fn billionths(number: &str) -> Option<i64> {
    let (negative, digits) = match number.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, number),
    };
    let (whole, decimals) = digits.split_once('.').unwrap_or((digits, ""));
    let plain = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || decimals.len() > 9 || !plain(whole) || !plain(decimals) {
        return None;
    }
    let value: i64 = whole.parse::<i64>().ok()?.checked_mul(1_000_000_000)?;
    let value = value.checked_add(format!("{decimals:0<9}").parse().ok()?)?;
    Some(if negative { -value } else { value })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    // Said by chronyc 4.3.
    const FREE: &str = "00000000,,0,0.000000000,0.000000000,0.000000000,0.000000000,0.000,0.000,0.000,1.000000000,1.000000000,0.0,Not synchronised\n";
    const GOOD: &str = "C0A80101,192.168.1.1,3,1700000000.123456789,-0.000120000,0.000001000,0.000002000,-12.345,0.001,0.020,0.020000000,0.005000000,64.2,Normal
^,*,192.168.1.1,2,6,377,12,0.000001000,0.000002000,0.010000000
^,x,192.168.1.2,2,6,1,12,7.000001000,7.000002000,0.010000000
^,?,192.168.1.3,0,6,0,4294967295,0.000000000,0.000000000,0.000000000
^,?,ID#0000000001,0,6,0,4294967295,0.000000000,0.000000000,0.000000000
";

    #[test]
    fn a_followed_source() {
        let chrony = parse(GOOD).unwrap();
        assert_eq!(
            chrony.sources,
            Sources {
                known: 3,
                reachable: 2,
                wrong: 1,
                unresolved: 1
            }
        );
        assert_eq!(
            chrony.tracking,
            Tracking {
                reference: 0xC0A8_0101,
                source: "192.168.1.1".into(),
                stratum: 3,
                synchronised: true,
                offset_ns: 120_000,
                frequency_ppb: -12_345,
                root_delay_ns: 20_000_000,
                root_dispersion_ns: 5_000_000,
            }
        );
    }

    #[test]
    fn running_free() {
        let chrony = parse(FREE).unwrap();
        assert!(!chrony.tracking.synchronised && chrony.tracking.stratum == 0);
        assert_eq!(chrony.sources, Sources::default());
    }

    #[test]
    fn what_is_not_known_is_refused_and_shown() {
        assert_eq!(parse(""), Err(Silence::NoAnswer));
        assert_eq!(
            parse("506 Cannot talk to daemon"),
            Err(Silence::Strange("506 Cannot talk to daemon".into()))
        );
        for (from, to) in [
            ("Normal", "Fine"),
            ("C0A80101", "C0A8"),
            ("-0.000120000", "nan"),
            (",377,", ",400,"),
            ("^,x", "^,y"),
            (",64.2", ""),
        ] {
            assert!(
                matches!(parse(&GOOD.replace(from, to)), Err(Silence::Strange(_))),
                "{from}"
            );
        }
    }

    proptest! {
        #[test]
        fn billionths_are_exact(value in -4_000_000_000_000_000_000i64..4_000_000_000_000_000_000) {
            let text = format!("{}{}.{:09}", if value < 0 { "-" } else { "" }, value.abs() / 1_000_000_000, value.abs() % 1_000_000_000);
            prop_assert_eq!(billionths(&text), Some(value));
        }

        #[test]
        fn damage_never_panics(at in 0usize..400, with in "\\PC{0,3}") {
            let mut answer = GOOD.to_string();
            let at = at % answer.len();
            answer.replace_range(at..at + 1, &with);
            let _ = parse(&answer);
        }
    }
}
