//! What a probe's answers mean, in words, with what to do about it. Pure.

use serde::{Deserialize, Serialize};
use strongroom_model::config::Multipart;

use super::Observations;
use crate::oracle;
use crate::s3::{Archive, S3Error};
use crate::target::AtService;

/// A difference of the clocks from which on it is told, in seconds. Requests are refused from 15 minutes on.
const CLOCK_TOLD: i64 = 60;

/// How good a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Good,
    /// To be known; pushes work.
    Note,
    /// Pushes don't work as things are.
    Wrong,
}

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// How good it is.
    pub verdict: Verdict,
    /// What was found, in a sentence or two.
    pub text: String,
    /// What to do about it; empty for nothing.
    pub advice: String,
}

/// Whether what was just written can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    /// At once: a standard bucket, or one for infrequent access.
    Readable,
    /// Only after a restore.
    Archive,
    /// The credentials can't tell.
    Unknown,
}

/// All that a probe found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Each thing, most important first.
    pub findings: Vec<Finding>,
    /// The bucket's tier.
    pub tier: Tier,
    /// What `multipart` of the target should be.
    pub multipart: Multipart,
}

impl Report {
    /// Whether pushes would fail as things are.
    #[must_use]
    pub fn is_wrong(&self) -> bool {
        self.findings.iter().any(|finding| finding.verdict == Verdict::Wrong)
    }
}

/// The tier, as far as it can be told.
#[must_use]
pub fn tier(seen: &Observations) -> Tier {
    match (&seen.read, &seen.head, &seen.restore) {
        (Some(Err(S3Error::Archived { .. })), ..) => Tier::Archive,
        (Some(Ok(_)), ..) => Tier::Readable,
        (_, Some(Ok(Some(head))), _) if head.archive != Archive::Readable => Tier::Archive,
        (.., Some(Ok(()))) => Tier::Archive,
        // S3's word for "there is nothing to restore" is the one for "it is not readable yet".
        (.., Some(Err(S3Error::Archived { .. }))) => Tier::Readable,
        _ => Tier::Unknown,
    }
}

/// Judges what was seen at a bucket.
#[must_use]
pub fn judge(seen: &Observations, at: &AtService) -> Report {
    let mut all = Findings(Vec::new());
    let multipart = multipart(seen);
    if let Some(Err(error)) = &seen.create {
        all.wrong(cannot_create(error), &refused_advice(error, at));
    } else {
        let tier = tier(seen);
        created(seen, &mut all);
        tiers(seen, tier, &mut all);
        protection(seen, &mut all);
        parts(seen, at, &mut all);
        looks(seen, &mut all);
    }
    clocks(seen, &mut all);
    cost(seen, &mut all);
    Report {
        findings: all.0,
        tier: tier(seen),
        multipart,
    }
}

/// Judges what was seen at the bucket of the manifests, where that is another: what matters there.
#[must_use]
pub fn judge_manifests(seen: &Observations, at: &AtService) -> Vec<Finding> {
    let mut all = Findings(Vec::new());
    if let Some(Err(error)) = &seen.create {
        all.wrong(cannot_create(error), &refused_advice(error, at));
    } else {
        created(seen, &mut all);
        match tier(seen) {
            Tier::Readable => all.good("Its objects can be read at once, as is meant."),
            Tier::Archive => all.note(
                "It is an archive bucket: what lies there has to be restored before a restore knows what it needs.",
                "Its tier can't be changed: make a standard bucket for `manifest_bucket`, or leave that out.",
            ),
            Tier::Unknown => all.note(
                "Whether it is an archive bucket can't be told, as these credentials may neither read nor look.",
                "It should be a standard one.",
            ),
        }
        protection(seen, &mut all);
        looks(seen, &mut all);
    }
    cost(seen, &mut all);
    for finding in &mut all.0 {
        finding.text = format!("Manifests, in {}: {}", at.bucket, finding.text);
    }
    all.0
}

/// `multipart` that fits: in parts only where one that was cut short can be removed again.
fn multipart(seen: &Observations) -> Multipart {
    match (&seen.parts, &seen.abort) {
        (Some(Ok(())), Some(Ok(()))) => Multipart::Auto,
        _ => Multipart::Never,
    }
}

struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, verdict: Verdict, text: impl Into<String>, advice: &str) {
        self.0.push(Finding {
            verdict,
            text: text.into(),
            advice: advice.into(),
        });
    }

    fn good(&mut self, text: impl Into<String>) {
        self.add(Verdict::Good, text, "");
    }

    fn note(&mut self, text: impl Into<String>, advice: &str) {
        self.add(Verdict::Note, text, advice);
    }

    fn wrong(&mut self, text: impl Into<String>, advice: &str) {
        self.add(Verdict::Wrong, text, advice);
    }
}

fn cannot_create(error: &S3Error) -> String {
    match error {
        S3Error::AccessDenied { message, .. } => {
            format!("The credentials may not write a new object, or there is no such bucket ({message}).")
        }
        error => format!("Nothing could be written: {error}."),
    }
}

fn refused_advice(error: &S3Error, at: &AtService) -> String {
    let named = oracle::region_of(&at.endpoint);
    if let Some(region) = named.filter(|region| *region != at.region) {
        return format!(
            "The endpoint is in {region}, but `region` is {}: make them the same, that of the bucket.",
            at.region
        );
    }
    match error {
        // The words that Oracle has for a key that it does not find where it looks.
        S3Error::SignatureDoesNotMatch { message, .. } if message.contains("could not be found") => {
            "Oracle does not find this access key: it is another one, was deleted, is younger than a few minutes, or \
             `region` is not the bucket's. Compare `access_key_id` with the list under Customer secret keys."
                .into()
        }
        S3Error::SignatureDoesNotMatch { hint: Some(region), .. } => format!("Set `region = \"{region}\"`."),
        S3Error::SignatureDoesNotMatch { .. } => {
            "The secret key does not belong to this `access_key_id`, or `region` is another than the bucket's. A secret \
             is shown once; if it is lost, make a new key."
                .into()
        }
        S3Error::UnknownAccessKey => {
            "Compare `access_key_id` with the service's list of keys; it may have been deleted, or have expired.".into()
        }
        S3Error::AccessDenied { .. } | S3Error::NoSuchBucket { .. } if named.is_some() => format!(
            "See that the bucket `{}` is in this region and in this namespace, and that a policy gives the user's group \
             OBJECT_CREATE for it; a new policy takes a minute. docs/offsite.md has the statement.",
            at.bucket
        ),
        S3Error::AccessDenied { .. } => format!(
            "See that the bucket `{}` is there and that these credentials may write to it.",
            at.bucket
        ),
        S3Error::ClockSkew { .. } => "Set this machine's clock.".into(),
        error if error.is_transient() => "Try again; if it stays so, see the service's own page of its state.".into(),
        _ => String::new(),
    }
}

fn created(seen: &Observations, all: &mut Findings) {
    match seen.create {
        Some(Ok(true)) => all.good("New objects can be written, and what arrived is known by its ETag, the MD5."),
        Some(Ok(false)) => all.note(
            "New objects can be written. Their ETag is not the MD5 of what was sent, so that after a broken connection \
             it can't be told whether an object arrived whole: it is sent again under another name.",
            "",
        ),
        _ => {}
    }
}

fn tiers(seen: &Observations, tier: Tier, all: &mut Findings) {
    match (&seen.read, tier) {
        (Some(Ok(false)), _) => all.wrong(
            "What was read back is not what was written.",
            "Use another service: this one does not keep what it is given.",
        ),
        (Some(Err(S3Error::Archived { status, code, .. })), _) => all.good(format!(
            "It is an archive bucket: what was just written can't be read before it is restored ({status} {code})."
        )),
        (_, Tier::Archive) => all.good("It is an archive bucket: its objects are restored before they can be read."),
        (_, Tier::Readable) => all.note(
            "Its objects can be read at once: it is a standard bucket, or one for infrequent access. That is fine, and a \
             restore needs no wait; storage costs several times as much as in an archive.",
            "If an archive bucket was meant: its tier can't be changed, so make another one.",
        ),
        (_, Tier::Unknown) => all.note(
            "Whether it is an archive bucket can't be told, as these credentials may neither read nor look.",
            "",
        ),
    }
    if tier == Tier::Archive {
        all.note(
            "An archived object is paid for as long as the tier's minimum, at Oracle 90 days, even if it is deleted or \
             overwritten before.",
            "",
        );
    }
    match &seen.restore {
        Some(Ok(())) => {
            let state = match &seen.restoring {
                Some(Ok(Some(head))) if head.archive == Archive::Restoring => " and is under way",
                Some(Ok(Some(head))) if head.archive == Archive::Readable => " and was done at once",
                _ => "",
            };
            all.good(format!("A restore from the archive was accepted{state}."));
        }
        Some(Err(error)) if tier == Tier::Archive && error.is_denied() => all.note(
            "These credentials may not ask for a restore from the archive.",
            "That is safer. For a restore, use others that may (at Oracle with OBJECT_RESTORE and OBJECT_READ).",
        ),
        Some(Err(error)) if tier == Tier::Archive => all.wrong(
            format!("A restore from the archive was refused: {error}."),
            "Find out how this service restores archived objects before anything is pushed to it.",
        ),
        _ => {}
    }
    if let Some(Err(error)) = &seen.read
        && error.is_denied()
    {
        all.note(
            "These credentials may not read.",
            "That is safer. For a restore, use others that may.",
        );
    }
}

/// Whether what was stored is safe from whoever has these credentials.
fn protection(seen: &Observations, all: &mut Findings) {
    let may = |asked: &super::Asked<()>| matches!(asked, Some(Ok(())));
    let by_rule = [&seen.overwrite, &seen.delete]
        .iter()
        .any(|asked| matches!(asked, Some(Err(error)) if error.to_string().to_lowercase().contains("retention")));
    let verbs = match (may(&seen.overwrite), may(&seen.delete)) {
        (false, false) if by_rule => {
            all.good("A retention rule keeps what is stored from being overwritten or deleted.");
            return;
        }
        (false, false) => {
            all.good(
                "These credentials can neither overwrite nor delete what is stored; nor can whoever takes the appliance.",
            );
            return;
        }
        (true, true) => "overwrite and delete",
        (true, false) => "overwrite",
        (false, true) => "delete",
    };
    all.note(
        format!("These credentials may {verbs} what is stored, and so may whoever takes over the appliance."),
        "A retention rule on the bucket, or credentials that may only create, keep the copies safe: docs/offsite.md.",
    );
}

fn parts(seen: &Observations, at: &AtService, all: &mut Findings) {
    let configured = at.multipart;
    let never =
        "Set `multipart = \"never\"` in the target: each file then goes in one piece, and a large one is read twice.";
    match (&seen.parts, &seen.abort) {
        (Some(Ok(())), Some(Ok(()))) if configured == Multipart::Never => all.note(
            "Large objects could be sent in parts, which saves reading them twice.",
            "`multipart = \"never\"` can be removed from the target.",
        ),
        (Some(Ok(())), Some(Ok(()))) => {
            all.good("Large objects can be sent in parts, and an upload that was cut short can be removed.");
        }
        (Some(Ok(())), _) if configured == Multipart::Auto => all.note(
            "Large objects can be sent in parts, but an upload that was cut short can't be removed: it would be paid for, \
             and no list shows it.",
            never,
        ),
        (Some(Err(error)), _) if configured == Multipart::Auto => {
            all.wrong(format!("Large objects can't be sent in parts: {error}."), never);
        }
        (Some(_), _) => all.good("Large objects go in one piece, as configured."),
        (None, _) => {}
    }
}

fn looks(seen: &Observations, all: &mut Findings) {
    let inspect = "Allow it (at Oracle OBJECT_INSPECT); it harms nothing.";
    match &seen.list {
        Some(Ok(listing)) => {
            let missing = seen
                .written
                .iter()
                .filter(|key| !key.ends_with("/parts") && !key.ends_with("/cut"))
                .any(|key| !listing.objects.iter().any(|listed| listed.key == *key));
            if missing {
                all.note(
                    "The list does not show at once what was written.",
                    "A daily comparison may report objects as missing that are only new.",
                );
            } else if listing.first_version {
                all.good("Lists work; the service knows only their first version, which is used.");
            } else {
                all.good("Lists work, page by page.");
            }
        }
        Some(Err(error)) if error.is_denied() => all.note(
            "These credentials may not list: copies can't be compared with what is known of them, and a ledger that is \
             lost can't be made anew, so everything would be sent again.",
            inspect,
        ),
        Some(Err(error)) => all.wrong(format!("Lists don't work: {error}."), ""),
        None => {}
    }
    match &seen.head {
        Some(Ok(Some(_))) => {}
        Some(Ok(None)) => all.note(
            "What was written is not seen by HEAD; some services answer so when it is not permitted.",
            inspect,
        ),
        Some(Err(error)) if error.is_denied() => all.note(
            "These credentials may not look at an object: after a broken connection it is sent again, under another name.",
            inspect,
        ),
        Some(Err(error)) => all.note(format!("HEAD failed: {error}."), ""),
        None => {}
    }
}

fn clocks(seen: &Observations, all: &mut Findings) {
    if let Some(ahead) = seen.clock_ahead
        && ahead.abs() >= CLOCK_TOLD
    {
        let (side, by) = (if ahead > 0 { "behind" } else { "ahead of" }, ahead.abs());
        all.note(
            format!("This machine's clock is {by} s {side} the service's; from 15 minutes on, requests are refused."),
            "Set this machine's clock.",
        );
    }
}

/// What the probe itself has cost, and left.
fn cost(seen: &Observations, all: &mut Findings) {
    if seen.written.is_empty() && seen.uploads_left.is_empty() {
        return;
    }
    let archived = if tier(seen) == Tier::Archive {
        " (for the archive tier's minimum in any case)"
    } else {
        ""
    };
    let paid = format!(
        "This probe wrote {} objects of less than 100 bytes{archived} and sent some twenty requests: less than a cent.",
        seen.written.len()
    );
    if seen.left.is_empty() {
        all.good(format!("{paid} They are deleted again."));
    } else {
        all.note(
            format!("{paid} It could not delete these: {}.", seen.left.join(", ")),
            "They do no harm; whoever owns the bucket may delete them.",
        );
    }
    if !seen.uploads_left.is_empty() {
        all.note(
            format!(
                "An upload was begun that could be neither completed nor removed: {}.",
                seen.uploads_left.join(", ")
            ),
            "A rule on the bucket that deletes uncommitted uploads removes it (at Oracle a lifecycle rule).",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::s3::{Head, Listing};

    /// A standard bucket where all is permitted.
    fn plain() -> Observations {
        let key = "p/one".to_owned();
        let listed = crate::s3::Listed {
            key: key.clone(),
            size: 1,
            etag: "e".into(),
            modified: None,
        };
        Observations {
            create: Some(Ok(true)),
            overwrite: Some(Ok(())),
            head: Some(Ok(Some(Head {
                size: 1,
                etag: "e".into(),
                archive: Archive::Readable,
            }))),
            read: Some(Ok(true)),
            list: Some(Ok(Listing {
                objects: vec![listed],
                first_version: false,
            })),
            parts: Some(Ok(())),
            abort: Some(Ok(())),
            delete: Some(Ok(())),
            written: vec![key],
            clock_ahead: Some(0),
            ..Observations::default()
        }
    }

    fn denied<T>() -> Option<Result<T, S3Error>> {
        Some(Err(S3Error::AccessDenied {
            operation: "X".into(),
            message: "no".into(),
        }))
    }

    fn verdict(seen: &Observations, words: &str) -> Option<Verdict> {
        let report = judge(seen, &AtService::example());
        let found = report.findings.iter().find(|finding| finding.text.contains(words));
        found.map(|finding| finding.verdict)
    }

    #[test]
    fn what_works_is_good_and_its_dangers_are_noted() {
        let report = judge(&plain(), &AtService::example());
        assert!(!report.is_wrong());
        assert_eq!((report.tier, report.multipart), (Tier::Readable, Multipart::Auto));
        assert_eq!(verdict(&plain(), "may overwrite and delete"), Some(Verdict::Note));
        assert_eq!(verdict(&plain(), "They are deleted again"), Some(Verdict::Good));
    }

    #[test]
    fn each_oddity_is_told() {
        let odd = |change: fn(&mut Observations)| {
            let mut seen = plain();
            change(&mut seen);
            seen
        };
        let cases: [(Observations, &str, Verdict); 9] = [
            (
                odd(|seen| seen.create = Some(Ok(false))),
                "ETag is not the MD5",
                Verdict::Note,
            ),
            (
                odd(|seen| seen.read = Some(Ok(false))),
                "not what was written",
                Verdict::Wrong,
            ),
            (
                odd(|seen| seen.head = Some(Ok(None))),
                "not seen by HEAD",
                Verdict::Note,
            ),
            (
                odd(|seen| seen.clock_ahead = Some(-90)),
                "90 s ahead of the service's",
                Verdict::Note,
            ),
            (
                odd(|seen| seen.clock_ahead = Some(90)),
                "90 s behind the service's",
                Verdict::Note,
            ),
            (odd(|seen| seen.abort = denied()), "no list shows it", Verdict::Note),
            (
                odd(|seen| seen.parts = denied()),
                "can't be sent in parts",
                Verdict::Wrong,
            ),
            (
                odd(|seen| seen.uploads_left = vec!["p/cut".into()]),
                "neither completed nor removed: p/cut",
                Verdict::Note,
            ),
            (
                odd(|seen| seen.written.push("p/two".into())),
                "does not show at once",
                Verdict::Note,
            ),
        ];
        for (seen, words, expected) in cases {
            assert_eq!(verdict(&seen, words), Some(expected), "{words}");
        }
    }

    #[test]
    fn an_archive_that_can_not_be_opened_is_wrong_but_another_s_permission_is_not() {
        let mut seen = plain();
        seen.read = Some(Err(S3Error::Archived {
            operation: "GET".into(),
            status: 409,
            code: "X".into(),
        }));
        seen.restore = denied();
        assert_eq!(judge(&seen, &AtService::example()).tier, Tier::Archive);
        assert_eq!(verdict(&seen, "(409 X)"), Some(Verdict::Good));
        assert_eq!(verdict(&seen, "may not ask for a restore"), Some(Verdict::Note));
        assert_eq!(verdict(&seen, "archive tier's minimum"), Some(Verdict::Good));
        seen.restore = Some(Err(S3Error::Refused {
            operation: "POST".into(),
            status: 501,
            code: "NotImplemented".into(),
            message: String::new(),
        }));
        assert_eq!(verdict(&seen, "was refused"), Some(Verdict::Wrong));
    }
}
