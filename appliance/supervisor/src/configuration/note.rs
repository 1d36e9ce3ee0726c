//! `strongroom-report.txt`: what became of an offer, written beside it for whoever takes the medium to another computer.

use super::{CONFIG_NAME, Outcome};

/// Who says it and when.
pub struct Letterhead {
    /// The host name.
    pub hostname: String,
    /// The appliance's identity.
    pub id: String,
    /// The time, as far as it is known.
    pub time: String,
}

/// The report. Lines end as on Windows, where the stick may be read.
pub fn text(head: &Letterhead, outcome: &Outcome) -> String {
    let Letterhead { hostname, id, time } = head;
    let mut lines = vec![format!("Strongroom `{hostname}` ({id}), {time}"), String::new()];
    match outcome {
        Outcome::Nothing => {
            lines.push(format!("There is no {CONFIG_NAME} here, so nothing was changed."));
            lines.push(format!(
                "Put {CONFIG_NAME} into the medium's topmost folder, or into a folder CONFIG there."
            ));
        }
        Outcome::Old => {
            lines.push("This configuration has had its turn, and was not taken over again at this start.".into());
            lines.push(
                "To have it taken over now, plug the medium in while the appliance runs, or change the file.".into(),
            );
        }
        Outcome::Refused(refusal) => {
            lines.push("The configuration was refused. The last good one stays in force.".into());
            lines.push(String::new());
            lines.push(refusal.to_string());
        }
        Outcome::InForce => lines.push("This configuration is in force already. Nothing was changed.".into()),
        Outcome::Taken { changes, later } => {
            lines.push("The configuration was taken over and is in force.".into());
            lines.push(String::new());
            lines.push("What changed:".into());
            lines.extend(changes.iter().map(|change| format!("- {change}")));
            if !later.is_empty() {
                lines.push(String::new());
                lines.push("This comes into force at the next start:".into());
                lines.extend(later.iter().map(|step| format!("- {step}")));
            }
        }
    }
    lines.push(String::new());
    lines.join("\r\n")
}

/// What a report says, without when and by whom: two that say the same need not be written twice.
pub fn body(report: &str) -> &str {
    report.split_once("\r\n").map_or("", |(_, body)| body)
}

/// A date and time in UTC, from Unix seconds; says so when the clock is not to be believed.
pub fn time(now: Option<u64>) -> String {
    // 2020: older than any appliance.
    const LEAST: u64 = 1_577_836_800;
    let Some(now) = now.filter(|now| *now >= LEAST) else {
        return "at a time that it does not know yet".into();
    };
    let (days, seconds) = (now / 86_400, now % 86_400);
    let (year, month, day) = strongroom_model::date::of_days(days);
    format!(
        "{year:04}-{month:02}-{day:02} {:02}:{:02} UTC",
        seconds / 3600,
        seconds / 60 % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_as_dates() {
        assert_eq!(time(Some(1_709_164_800)), "2024-02-29 00:00 UTC");
        assert_eq!(time(Some(1_735_689_599)), "2024-12-31 23:59 UTC");
        assert!(time(Some(3)).contains("does not know"));
        assert!(time(None).contains("does not know"));
    }

    #[test]
    fn good_news_is_told_too_and_is_known_again() {
        let report = |time: &str| {
            let head = Letterhead {
                hostname: "attic".into(),
                id: "strongroom_1".into(),
                time: time.into(),
            };
            let outcome = Outcome::Taken {
                changes: vec!["host name: strongroom -> attic".into()],
                later: vec![],
            };
            text(&head, &outcome)
        };
        let now = report("now");
        assert!(now.starts_with("Strongroom `attic` (strongroom_1), now\r\n\r\nThe configuration was taken over"));
        assert!(now.contains("\r\n- host name: strongroom -> attic\r\n"));
        assert_eq!(body(&now), body(&report("later")));
    }
}
