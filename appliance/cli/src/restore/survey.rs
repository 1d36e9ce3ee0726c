//! `strongroom restore --list` and `--estimate`: what the bucket holds, and what a restore would take. No key is needed.

use super::RestoreFailure;
use super::source::Source;
use crate::shown::Shown;
use crate::{now, words};
use clap::Args;
use serde_json::json;
use std::fmt::Write as _;
use strongroom_borg::SegmentNumber;
use strongroom_model::config::Rate;
use strongroom_offsite::Tuning;
use strongroom_offsite::restore::survey::{self, CopiedState, Cost, Estimate, Prices};

/// States of each client that are told exactly, and shown, unless all are asked for.
const SHOWN: usize = 20;
/// Downloads that Oracle gives for nothing each month, in bytes.
const ORACLE_FREE: u64 = 10_000_000_000_000;

/// What an estimate goes by.
#[derive(Args)]
pub struct EstimateArguments {
    /// What the line carries, such as `50 Mbit/s`; measured when absent.
    #[arg(long, value_name = "RATE", value_parser = rate, requires = "estimate", conflicts_with = "into")]
    line: Option<Rate>,
    /// Price of a GB downloaded, in your currency.
    #[arg(long, value_name = "PRICE", value_parser = price, requires = "estimate", conflicts_with = "into")]
    download_price: Option<f64>,
    /// GB of download that are free; at Oracle 10,000 when nothing is said, elsewhere none.
    #[arg(long, value_name = "GB", requires = "estimate", conflicts_with = "into")]
    free_download: Option<u64>,
    /// Price of a GB of restored copy for a month: most providers charge their standard storage price.
    #[arg(long, value_name = "PRICE", value_parser = price, requires = "estimate", conflicts_with = "into")]
    copy_price: Option<f64>,
}

fn rate(text: &str) -> Result<Rate, String> {
    Rate::new(text)
        .filter(|rate| rate.bytes() > 0)
        .ok_or_else(|| "a rate looks like `50 Mbit/s` (kbit/s, Mbit/s, Gbit/s)".into())
}

fn price(text: &str) -> Result<f64, String> {
    let price = text
        .parse()
        .ok()
        .filter(|price: &f64| price.is_finite() && *price >= 0.0);
    price.ok_or_else(|| "a price is a number such as 0.0085".into())
}

/// A copy as it is listed: its client's name, its prefix, and its states, the newest first.
struct Listed {
    client: String,
    prefix: String,
    states: Vec<CopiedState>,
}

/// Lists the clients, or one, and the points in time that can be restored.
pub async fn list(source: &Source, client: Option<&str>, all: bool, json: bool) -> Result<(), RestoreFailure> {
    let shown = if all { usize::MAX } else { SHOWN };
    let copies = survey::copies(&source.target, &source.credentials, shown, &Tuning::default()).await?;
    let listed: Vec<Listed> = copies
        .into_iter()
        .filter_map(|copy| {
            let name = match client {
                // The source is the part of the bucket that this client has.
                Some(client) => (copy.prefix == source.target.prefix).then(|| client.to_owned())?,
                None => source.client_of(&copy.prefix)?,
            };
            Some(Listed {
                client: name,
                prefix: copy.prefix,
                states: copy.states,
            })
        })
        .collect();
    if json {
        let value: Vec<_> = listed
            .iter()
            .map(|listed| {
                let states = listed.states.get(..shown).unwrap_or(&listed.states);
                json!({ "client": listed.client, "prefix": listed.prefix, "states": states, "of": listed.states.len() })
            })
            .collect();
        println!("{:#}", serde_json::Value::from(value));
    } else {
        print!("{}", list_text(&listed, &source.target.place.to_string(), shown, now()));
    }
    Ok(())
}

fn list_text(listed: &[Listed], place: &str, shown: usize, now: u64) -> String {
    if listed.is_empty() {
        return format!("There is no copy in {place}; check the place and the prefix.\n");
    }
    let mut text = String::new();
    for Listed { client, prefix, states } in listed {
        let _ = writeln!(text, "{client} ({place}/{prefix})");
        for state in states.iter().take(shown) {
            let _ = writeln!(
                text,
                "  transaction {:<8} {:>16}   {}",
                state.transaction,
                words::age(state.pushed, now),
                size_text(state)
            );
        }
        if states.len() > shown {
            let _ = writeln!(text, "  and {} older ones: --all", states.len() - shown);
        }
    }
    text += "\nTo bring one back: strongroom restore NAME FOLDER, with --transaction for another than the newest.\n";
    text
}

fn size_text(state: &CopiedState) -> String {
    let at_most = if state.exact { "" } else { "at most " };
    format!("{at_most}{} objects, {}", state.objects, words::size(state.bytes))
}

/// Tells what a restore would take.
pub async fn estimate(
    source: &Source,
    client: &str,
    transaction: Option<SegmentNumber>,
    days: u32,
    given: &EstimateArguments,
    json: bool,
) -> Result<(), RestoreFailure> {
    let line = given.line.as_ref().map(Rate::bytes);
    let estimate = look(source, transaction, line.is_none()).await?;
    let bucket = source.target.place.bucket();
    let is_oracle = bucket.is_some_and(|at| is_oracle(&at.endpoint));
    let prices = Prices {
        download: given.download_price,
        free_download: match given.free_download {
            Some(gb) => gb.saturating_mul(1_000_000_000),
            None if is_oracle => ORACLE_FREE,
            None => 0,
        },
        copy: given.copy_price,
    };
    let cost = estimate.cost(&prices, days);
    let speed = line.or(estimate.measured);
    if json {
        let value = json!({
            "client": client,
            "estimate": estimate,
            "longest_wait_seconds": estimate.longest_wait(),
            "bytes_per_second": speed,
            "download_seconds": speed.and_then(|speed| estimate.download(speed)),
            "days": days,
            "cost": { "download": cost.download, "copies": cost.copies },
        });
        println!("{value:#}");
    } else {
        let words = Words {
            client,
            estimate: &estimate,
            speed,
            measured: line.is_none(),
            days,
            is_oracle,
            is_directory: bucket.is_none(),
            prices: &prices,
            cost: &cost,
        };
        print!("{}", words.text(now()));
    }
    Ok(())
}

/// Asks the bucket what a restore would take; `measure` tries the line as well.
pub async fn look(
    source: &Source,
    transaction: Option<SegmentNumber>,
    measure: bool,
) -> Result<Estimate, RestoreFailure> {
    let mut shown = Shown::new();
    let estimate = survey::estimate(
        &source.target,
        &source.credentials,
        transaction,
        measure,
        &Tuning::default(),
        &mut |progress| shown.show(progress),
    )
    .await;
    shown.end();
    Ok(estimate?)
}

/// What would be downloaded, what an archive would be asked for, and how long that takes, a line each.
pub fn plan(client: &str, estimate: &Estimate, now: u64) -> String {
    let state = &estimate.state;
    let mut time = match estimate.longest_wait() {
        0 => String::new(),
        wait => format!("up to {} for the archive, and ", words::duration(wait)),
    };
    time += &match estimate.measured.and_then(|speed| estimate.download(speed)) {
        Some(seconds) => format!("about {} of download", words::duration(seconds)),
        None => "the download".into(),
    };
    format!(
        "{client}, transaction {}, pushed {}\n  download  {}\n  archive   {}\n  time      {time}\n",
        state.transaction,
        words::age(state.pushed, now),
        size_text(state),
        archive_text(estimate),
    )
}

fn archive_text(estimate: &Estimate) -> String {
    let mut text = match (estimate.archived, estimate.restoring) {
        (0, 0) => return "nothing has to be requested".into(),
        (0, restoring) => return format!("{restoring} objects are on their way already"),
        (archived, 0) => format!(
            "{archived} objects to request, {}",
            words::size(estimate.archived_bytes)
        ),
        (archived, restoring) => format!(
            "{archived} objects to request, {}; {restoring} are on their way already",
            words::size(estimate.archived_bytes)
        ),
    };
    if estimate.manifest_archived {
        text += "; the manifest first, which says what belongs to the state";
    }
    text
}

/// Whether the service is Oracle's (hosts of its S3 compatibility API).
fn is_oracle(endpoint: &str) -> bool {
    let host = endpoint.split("://").nth(1).unwrap_or(endpoint);
    let host = host.split(['/', ':']).next().unwrap_or(host);
    host.ends_with(".oraclecloud.com") || host.ends_with(".customer-oci.com")
}

/// What is told of an estimate.
struct Words<'a> {
    client: &'a str,
    estimate: &'a Estimate,
    speed: Option<u64>,
    measured: bool,
    days: u32,
    is_oracle: bool,
    is_directory: bool,
    prices: &'a Prices,
    cost: &'a Cost,
}

impl Words<'_> {
    fn text(&self, now: u64) -> String {
        let state = &self.estimate.state;
        format!(
            "{}, transaction {}, pushed {}\n  download  {}\n  archive   {}\n  time      {}\n  cost      {}\n",
            self.client,
            state.transaction,
            words::age(state.pushed, now),
            size_text(state),
            archive_text(self.estimate),
            self.time(),
            self.money().join("\n            "),
        )
    }

    fn time(&self) -> String {
        let wait = match self.estimate.longest_wait() {
            0 => String::new(),
            wait => format!(", after up to {} for the archive", words::duration(wait)),
        };
        let speed = self.speed.filter(|speed| *speed > 0);
        match speed.and_then(|speed| Some((speed, self.estimate.download(speed)?))) {
            Some((speed, seconds)) => format!(
                "{} of download at {:.1} Mbit/s{}{wait}",
                words::duration(seconds),
                speed as f64 * 8.0 / 1e6,
                if self.measured { " (measured)" } else { "" }
            ),
            None => format!(
                "as long as the line takes{wait}; nothing can be read now to measure it by, so say --line '50 Mbit/s'"
            ),
        }
    }

    fn money(&self) -> Vec<String> {
        if self.is_directory {
            return vec!["nothing".into()];
        }
        let mut lines = Vec::new();
        let estimate = self.estimate;
        if estimate.archived > 0 {
            let gb_days = format!(
                "{} kept readable for {} days",
                words::size(estimate.archived_bytes),
                self.days
            );
            let fee = if self.is_oracle {
                "; Oracle asks nothing for the request itself"
            } else {
                ""
            };
            lines.push(match self.cost.copies {
                Some(cost) => format!("{cost:.2} for copies: {gb_days}{fee}"),
                None => format!("copies, {gb_days}, cost what the provider asks for storage (--copy-price){fee}"),
            });
        }
        let free = words::size(self.prices.free_download);
        lines.push(match self.cost.download {
            Some(cost) => format!("{cost:.2} for the download, of which {free} are free"),
            None if estimate.state.bytes <= self.prices.free_download => {
                format!("the download is free, if less than {free} leave the tenancy in this month")
            }
            None => "the download costs what the provider asks for it (--download-price)".into(),
        });
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(exact: bool) -> CopiedState {
        CopiedState {
            transaction: SegmentNumber(42),
            pushed: Some(1_000_000),
            objects: 14,
            bytes: 1_300_000_000,
            exact,
        }
    }

    fn text(archived: u64, speed: Option<u64>, is_oracle: bool, prices: Prices) -> String {
        let estimate = Estimate {
            state: state(archived == 0),
            archived,
            archived_bytes: if archived > 0 { 1_300_000_000 } else { 0 },
            restoring: 0,
            manifest_archived: archived > 0,
            measured: speed,
        };
        let words = Words {
            client: "asus",
            estimate: &estimate,
            speed,
            measured: true,
            days: 7,
            is_oracle,
            is_directory: false,
            prices: &prices,
            cost: &estimate.cost(&prices, 7),
        };
        words.text(1_003_600)
    }

    #[test]
    fn an_estimate_tells_what_is_known_and_guesses_nothing() {
        assert_eq!(
            text(0, Some(5_000_000), false, Prices::default()),
            "asus, transaction 42, pushed 1 h ago\n  download  14 objects, 1.2 GiB\n  archive   nothing has to be requested\n  \
             time      4 min of download at 40.0 Mbit/s (measured)\n  cost      the download costs what the provider asks \
             for it (--download-price)\n"
        );
        let oracle = Prices {
            free_download: ORACLE_FREE,
            ..Prices::default()
        };
        let archive = text(14, None, true, oracle);
        for part in [
            "at most 14 objects, 1.2 GiB",
            "14 objects to request, 1.2 GiB; the manifest first",
            "after up to 2 h for the archive",
            "--line",
            "Oracle asks nothing for the request itself",
            "the download is free",
        ] {
            assert!(archive.contains(part), "{part}: {archive}");
        }
        let priced = Prices {
            download: Some(0.01),
            free_download: 0,
            copy: Some(0.3),
        };
        let priced = text(14, None, false, priced);
        assert!(priced.contains("0.09 for copies"), "{priced}");
        assert!(priced.contains("0.01 for the download"), "{priced}");
    }

    #[test]
    fn a_plan_names_no_option_of_an_estimate() {
        let mut estimate = Estimate {
            state: state(true),
            archived: 0,
            archived_bytes: 0,
            restoring: 0,
            manifest_archived: false,
            measured: Some(5_000_000),
        };
        assert_eq!(
            plan("asus", &estimate, 1_003_600),
            "asus, transaction 42, pushed 1 h ago\n  download  14 objects, 1.2 GiB\n  archive   nothing has to be \
             requested\n  time      about 4 min of download\n"
        );
        (estimate.archived, estimate.manifest_archived, estimate.measured) = (14, true, None);
        let text = plan("asus", &estimate, 1_003_600);
        assert!(
            text.contains("up to 2 h for the archive, and the download\n") && !text.contains("--"),
            "{text}"
        );
    }

    #[test]
    fn oracle_is_known_by_its_hosts() {
        for endpoint in [
            "https://x.compat.objectstorage.eu-frankfurt-1.oraclecloud.com",
            "https://x.compat.objectstorage.eu-frankfurt-1.oci.customer-oci.com/",
        ] {
            assert!(is_oracle(endpoint), "{endpoint}");
        }
        assert!(!is_oracle("https://oraclecloud.com.example.org"));
    }

    #[test]
    fn the_list_shows_the_newest_and_says_that_there_are_more() {
        let listed = [Listed {
            client: "asus".into(),
            prefix: "homes/asus".into(),
            states: vec![state(true), state(false), state(false)],
        }];
        let text = list_text(&listed, "b", 2, 1_003_600);
        assert!(text.starts_with("asus (b/homes/asus)\n  transaction 42 "), "{text}");
        assert!(text.contains("1 h ago   14 objects, 1.2 GiB\n"), "{text}");
        assert!(
            text.contains("at most 14 objects") && text.contains("and 1 older ones: --all"),
            "{text}"
        );
        assert!(list_text(&[], "b", 2, 0).contains("no copy"));
    }

    #[test]
    fn rates_and_prices_are_numbers_that_make_sense() {
        assert_eq!(rate("8 kbit/s").unwrap().bytes(), 1000);
        assert!(rate("0 Mbit/s").is_err() && rate("fast").is_err());
        assert!(price("0.0085").is_ok() && price("-1").is_err() && price("inf").is_err());
    }
}
