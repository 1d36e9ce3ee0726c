//! `strongroom clock`: what ntpstat(1) prints, and more: every source, the rate, steps, the hardware clock, the kernel's counter.
//! Shows what the appliance says; asks no time server itself.

use crate::appliance::{ApplianceError, Connection};
use crate::words;
use std::fmt::Write;
use std::process::ExitCode;
use strongroom_model::status::{Clock, ClockState, ClockStep, Leap, TimeSource, TimeSourceState, Tsc};

/// As ntpstat's.
const NOT_TRUSTED: u8 = 1;
/// As ntpstat's.
const NOT_KNOWN: u8 = 2;

/// Shows the clock. What can't be asked is not known.
pub async fn show(json: bool, now: u64) -> ExitCode {
    let shown = ask(json, now).await;
    let state = shown.unwrap_or_else(|error| {
        eprintln!("strongroom: {error}");
        ClockState::Unknown
    });
    exit_code(state)
}

async fn ask(json: bool, now: u64) -> Result<ClockState, ApplianceError> {
    let appliance = Connection::open().await?;
    let status = appliance.status().await?;
    if json {
        println!("{}", serde_json::to_string_pretty(&status.clock)?);
    } else {
        print!("{}", text(&status.clock, now));
    }
    Ok(status.clock.state)
}

fn exit_code(state: ClockState) -> ExitCode {
    match state {
        ClockState::Synchronised | ClockState::Coasting => ExitCode::SUCCESS,
        ClockState::Unsynchronised => ExitCode::from(NOT_TRUSTED),
        ClockState::Unknown => ExitCode::from(NOT_KNOWN),
    }
}

fn text(clock: &Clock, now: u64) -> String {
    let mut text = ntpstat(clock);
    text.push('\n');
    let mut fact = |label: &str, words: String| {
        let _ = writeln!(text, "{label:<15} {words}");
    };
    fact("State", state(clock, now));
    if clock.state != ClockState::Unknown {
        fact(
            "Offset",
            format!(
                "{}, known within {}",
                ahead(clock.offset_ns),
                words::within(clock.error_ns)
            ),
        );
        fact("Rate", rate(clock));
    }
    match clock.leap {
        Leap::None => {}
        Leap::Insert => fact("Leap second", "one is inserted at the end of this UTC day".into()),
        Leap::Delete => fact("Leap second", "one is left out at the end of this UTC day".into()),
    }
    fact(
        "Last set",
        clock
            .last_step
            .map_or("not since the start".into(), |step| set(step, now)),
    );
    let hardware = clock.rtc_offset_s.map_or("none is seen".into(), |off| match off {
        -1..=1 => "right to the second".into(),
        off => format!("{} s {}", off.unsigned_abs(), if off > 0 { "ahead" } else { "behind" }),
    });
    fact("Hardware clock", hardware);
    fact("Kernel", kernel(clock));
    let nts = clock.servers.iter().filter(|source| source.nts);
    let (asked, answer) = (nts.clone().count(), nts.filter(|source| source.reach != 0).count());
    if asked > 0 {
        fact("NTS", format!("{answer} of {asked} servers answer, authenticated"));
    }
    text.push_str(&sources(clock));
    text
}

/// The three lines of ntpstat(1).
fn ntpstat(clock: &Clock) -> String {
    let mut text = match clock.state {
        ClockState::Unknown => "clock state is not known\n".into(),
        ClockState::Unsynchronised => "unsynchronised\n".into(),
        ClockState::Synchronised | ClockState::Coasting => {
            let server = if clock.source.is_empty() {
                "unspecified".into()
            } else {
                format!("NTP server ({})", clock.source)
            };
            format!(
                "synchronised to {server} at stratum {}\n   time correct to within {} ms\n",
                clock.stratum,
                clock.total_error_ns().div_ceil(1_000_000)
            )
        }
    };
    let polled = clock
        .servers
        .iter()
        .filter(|source| source.state == TimeSourceState::Followed)
        .chain(&clock.servers)
        .next();
    if let Some(source) = polled {
        let _ = writeln!(text, "   polling server every {} s", source.poll_s);
    }
    text
}

fn state(clock: &Clock, now: u64) -> String {
    match clock.state {
        ClockState::Unknown => "not known: chronyd does not answer; `strongroom status` tells more".into(),
        ClockState::Synchronised => "synchronised".into(),
        ClockState::Coasting => {
            let left = clock.trusted_until.map_or(0, |until| until.saturating_sub(now));
            format!("coasting without a source; trusted for {} more", words::duration(left))
        }
        ClockState::Unsynchronised => {
            "NOT to be trusted: pushes, compactions and what is judged by age wait; `strongroom status` says why".into()
        }
    }
}

/// `0.120 ms behind`, from nanoseconds.
fn ahead(offset_ns: i64) -> String {
    let microseconds = offset_ns.unsigned_abs().div_ceil(1000);
    let way = if offset_ns < 0 { "behind" } else { "ahead" };
    format!("{}.{:03} ms {way}", microseconds / 1000, microseconds % 1000)
}

fn ppm(ppb: u64) -> String {
    format!("{}.{:03} ppm", ppb / 1000, ppb % 1000)
}

fn rate(clock: &Clock) -> String {
    let way = if clock.frequency_ppb < 0 { "slow" } else { "fast" };
    let mut text = format!("{} {way} by itself", ppm(clock.frequency_ppb.unsigned_abs()));
    if let Some(skew) = clock.skew_ppb {
        let _ = write!(text, ", known within {}", ppm(skew));
    }
    if let Some(wander) = clock.wander_ppb {
        let _ = write!(text, ", changed by {} within a day", ppm(wander));
    }
    text
}

fn set(step: ClockStep, now: u64) -> String {
    let by = step.by_ms.unsigned_abs();
    let way = if step.by_ms < 0 { "back" } else { "forward" };
    let amount = if by < 120_000 {
        format!("{}.{:03} s", by / 1000, by % 1000)
    } else {
        words::duration(by / 1000)
    };
    let when = match step.at {
        Some(_) => words::age(step.at, now),
        None => "soon after the start".into(),
    };
    format!("{way} by {amount}, {when}")
}

fn kernel(clock: &Clock) -> String {
    let mut text = match clock.kernel_synchronised {
        Some(true) => "synchronised, ",
        Some(false) => "not synchronised, ",
        None => "",
    }
    .to_string();
    let _ = write!(
        text,
        "clock source {}",
        if clock.clocksource.is_empty() {
            "-"
        } else {
            &clock.clocksource
        }
    );
    match clock.tsc {
        Tsc::Absent | Tsc::Used => {}
        Tsc::Spare => text.push_str(" though tsc is on offer"),
        Tsc::Demoted if clock.tsc_fault.is_empty() => text.push_str(", tsc was demoted"),
        Tsc::Demoted => {
            let _ = write!(text, ", tsc was demoted: {}", clock.tsc_fault);
        }
    }
    text.push_str(if clock.noapic {
        ", with noapic"
    } else {
        ", without noapic"
    });
    if let Some(offset) = clock.tai_offset_s {
        let _ = write!(text, ", TAI is {offset} s ahead of UTC");
    }
    text
}

fn sources(clock: &Clock) -> String {
    let shown: Vec<String> = clock.servers.iter().map(called).collect();
    let Some(width) = shown.iter().map(|name| name.chars().count()).max() else {
        return "\nNo source of time has an address.\n".into();
    };
    let width = width.max("source".len());
    let mut text = format!(
        "\n{:<width$}  {:<9} {:>7} {:>7} {:>5}  {:>16}  {}\n",
        "source", "state", "stratum", "poll", "reach", "clock is", "error"
    );
    for (source, name) in clock.servers.iter().zip(&shown) {
        let (offset, error) = if source.stratum == 0 {
            ("-".into(), "-".into())
        } else {
            (
                ahead(source.offset_ns),
                format!("± {} ms", source.error_ns.div_ceil(1_000_000)),
            )
        };
        let _ = writeln!(
            text,
            "{name:<width$}  {:<9} {:>7} {:>5} s {:>5}  {offset:>16}  {error}",
            state_of(source.state),
            source.stratum,
            source.poll_s,
            format!("{:03o}", source.reach)
        );
    }
    let more = usize::from(clock.sources).saturating_sub(clock.servers.len());
    if more > 0 {
        let _ = writeln!(text, "and {more} more");
    }
    text
}

fn called(source: &TimeSource) -> String {
    let mut name = source.name.to_string();
    if source.name.as_str() != source.address.as_str() {
        let _ = write!(name, " ({})", source.address);
    }
    if source.nts {
        name.push_str(" NTS");
    }
    name
}

fn state_of(state: TimeSourceState) -> &'static str {
    match state {
        TimeSourceState::Unusable => "unusable",
        TimeSourceState::Followed => "followed",
        TimeSourceState::Combined => "combined",
        TimeSourceState::Spare => "spare",
        TimeSourceState::Unsteady => "unsteady",
        TimeSourceState::Wrong => "WRONG",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_700_000_000;

    fn good() -> Clock {
        let mut clock = Clock {
            state: ClockState::Synchronised,
            offset_ns: -120_000,
            error_ns: 15_000_000,
            stratum: 3,
            frequency_ppb: 4_200,
            skew_ppb: Some(20),
            wander_ppb: Some(300),
            source: "192.168.1.1".into(),
            reachable: 2,
            sources: 2,
            last_step: Some(ClockStep {
                by_ms: -1_500,
                at: None,
                at_start: true,
            }),
            rtc_offset_s: Some(0),
            kernel_synchronised: Some(true),
            tai_offset_s: Some(37),
            clocksource: "tsc".into(),
            tsc: Tsc::Used,
            noapic: true,
            ..Clock::default()
        };
        for (name, address, state, reach, nts) in [
            ("192.168.1.1", "192.168.1.1", TimeSourceState::Followed, 0o377, false),
            ("nts.example.org", "2001:db8::1", TimeSourceState::Wrong, 1, true),
        ] {
            let source = TimeSource {
                name: name.into(),
                address: address.into(),
                state,
                stratum: 2,
                poll_s: 64,
                reach,
                offset_ns: if nts { 7_000_000_001 } else { -119_500 },
                error_ns: 1_200_000,
                nts,
            };
            clock.servers.push(source).unwrap();
        }
        clock
    }

    #[test]
    fn a_good_clock_is_shown_with_all_its_sources() {
        assert_eq!(
            text(&good(), NOW),
            "synchronised to NTP server (192.168.1.1) at stratum 3
   time correct to within 16 ms
   polling server every 64 s

State           synchronised
Offset          0.120 ms behind, known within 15 ms
Rate            4.200 ppm fast by itself, known within 0.020 ppm, changed by 0.300 ppm within a day
Last set        back by 1.500 s, soon after the start
Hardware clock  right to the second
Kernel          synchronised, clock source tsc, with noapic, TAI is 37 s ahead of UTC
NTS             1 of 1 servers answer, authenticated

source                             state     stratum    poll reach          clock is  error
192.168.1.1                        followed        2    64 s   377   0.120 ms behind  ± 2 ms
nts.example.org (2001:db8::1) NTS  WRONG           2    64 s   001  7000.001 ms ahead  ± 2 ms
"
        );
    }

    #[test]
    fn other_states_say_what_they_mean() {
        let mut clock = good();
        clock.state = ClockState::Coasting;
        clock.trusted_until = Some(NOW + 5 * 86_400);
        let shown = text(&clock, NOW);
        assert!(shown.starts_with("synchronised to NTP server"), "{shown}");
        assert!(
            shown.contains("coasting without a source; trusted for 5 d more"),
            "{shown}"
        );
        clock.state = ClockState::Unsynchronised;
        clock.servers.clear();
        let shown = text(&clock, NOW);
        assert!(shown.starts_with("unsynchronised\n\n"), "{shown}");
        assert!(shown.contains("NOT to be trusted"), "{shown}");
        assert!(shown.ends_with("No source of time has an address.\n"), "{shown}");
        assert!(text(&Clock::default(), NOW).starts_with("clock state is not known\n"));
    }

    #[test]
    fn what_was_demoted_and_what_was_set_is_told() {
        let mut clock = good();
        clock.tsc = Tsc::Demoted;
        clock.tsc_fault = "clocksource watchdog".into();
        clock.clocksource = "hpet".into();
        assert!(kernel(&clock).contains("clock source hpet, tsc was demoted: clocksource watchdog"));
        let step = ClockStep {
            by_ms: 20_000 * 86_400_000,
            at: Some(NOW - 7200),
            at_start: true,
        };
        assert_eq!(set(step, NOW), "forward by 20000 d, 2 h ago");
    }
}
