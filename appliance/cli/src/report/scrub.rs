//! The second wall: takes what looks like a secret out of a text, line by line, so that line numbers stay.
//!
//! The first wall is that nothing in the bundle holds secrets by design. This one catches what slipped into a log.

/// What stands in the place of a secret.
pub const REMOVED: &str = "(removed)";

/// Words that a secret's name contains, in lower case.
const NAMES: [&str; 11] = [
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "access_key",
    "access-key",
    "accesskey",
    "private_key",
    "credential=",
    "authorization",
];

/// The text without what looks like a secret.
pub fn scrub(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut in_key = false;
    for line in text.split_inclusive('\n') {
        let (line, end) = line.strip_suffix('\n').map_or((line, ""), |line| (line, "\n"));
        let private = line.contains("PRIVATE KEY");
        if private || in_key {
            clean.push_str(REMOVED);
            in_key = (in_key || line.contains("-----BEGIN")) && !line.contains("-----END");
        } else {
            clean.push_str(&scrub_line(line));
        }
        clean.push_str(end);
    }
    clean
}

fn scrub_line(line: &str) -> String {
    let mut line = without_login(line);
    // From behind, so that what was found stays where it is. Case is folded byte by byte: places stay the same.
    let lower = line.to_ascii_lowercase();
    let mut ends: Vec<usize> = NAMES
        .iter()
        .flat_map(|name| {
            lower
                .match_indices(name)
                .map(|(at, found)| at + found.trim_end_matches('=').len())
        })
        .collect();
    ends.sort_unstable();
    ends.dedup();
    for end in ends.into_iter().rev() {
        if let Some(from) = value_after(&line, end) {
            let rest = &line[from..];
            let length = value_length(rest);
            if length > 0 && !rest.starts_with(REMOVED) {
                line.replace_range(from..from + length, REMOVED);
            }
        }
    }
    without_key_ids(line)
}

/// Where the value of a name that ends at `end` begins: after the rest of the name, a `=` or `:`, and spaces.
fn value_after(line: &str, end: usize) -> Option<usize> {
    let rest = line.get(end..)?;
    let name = rest.find(|c: char| !c.is_alphanumeric() && !matches!(c, '_' | '-' | '"' | '\''))?;
    let rest = &rest[name..];
    let signed = rest.trim_start();
    if !signed.starts_with(['=', ':']) {
        return None;
    }
    let value = signed.trim_start_matches(['=', ':', ' ', '\t']);
    Some(line.len() - value.len())
}

/// A quoted value ends at its quote; a bare one at the end of the line, since a password may hold spaces.
fn value_length(value: &str) -> usize {
    match value.chars().next() {
        Some(quote @ ('"' | '\'')) => value[1..].find(quote).map_or(value.len(), |end| end + 2),
        _ => value.trim_end().len(),
    }
}

/// `scheme://user:password@host` without the password.
fn without_login(line: &str) -> String {
    let mut clean = String::new();
    let mut rest = line;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        clean.push_str(before);
        let end = after
            .find(|c: char| c.is_whitespace() || matches!(c, '/' | '"' | '\'' | '>'))
            .unwrap_or(after.len());
        let login = after[..end]
            .rfind('@')
            .and_then(|host| after[..host].find(':').map(|colon| (colon, host)));
        rest = match login {
            Some((colon, host)) => {
                clean.push_str(&after[..=colon]);
                clean.push_str(REMOVED);
                &after[host..]
            }
            None => after,
        };
    }
    clean.push_str(rest);
    clean
}

/// Ids of S3 access keys in Amazon's form, wherever they stand.
fn without_key_ids(line: String) -> String {
    let mut line = line;
    for prefix in ["AKIA", "ASIA"] {
        while let Some(at) = line.find(prefix) {
            let id = line[at..].find(|c: char| !c.is_ascii_uppercase() && !c.is_ascii_digit());
            let length = id.unwrap_or(line.len() - at);
            if length < 16 {
                break;
            }
            line.replace_range(at..at + length, REMOVED);
        }
    }
    line
}

/// A strongroom.toml fit for others: without account names and without the comments of keys, which name people and
/// machines.
pub fn configuration(text: &str) -> String {
    scrub(text)
        .split_inclusive('\n')
        .map(|line| {
            let name = line.split('=').next().unwrap_or_default().trim();
            if matches!(name, "username" | "access_key_id") {
                return format!("{name} = \"{REMOVED}\"\n");
            }
            without_key_comments(line)
        })
        .collect()
}

/// `ssh-ed25519 AAAA… me@laptop` keeps its type and its key.
fn without_key_comments(line: &str) -> String {
    let mut clean = String::new();
    for (number, part) in line.split('"').enumerate() {
        if number > 0 {
            clean.push('"');
        }
        let mut words = part.split(' ');
        match (words.next(), words.next(), words.next()) {
            (Some(kind), Some(key), Some(_)) if number % 2 == 1 && key.starts_with("AAAA") => {
                clean.push_str(&format!("{kind} {key}"));
            }
            _ => clean.push_str(part),
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn secrets_go_and_what_is_around_them_stays() {
        for (line, clean) in [
            ("mqtt: password = hunter 2", "mqtt: password = (removed)"),
            ("MQTT_PASSWORD='a b' retried", "MQTT_PASSWORD=(removed) retried"),
            (
                r#"{"secret_key": "x/y+z", "n": 1}"#,
                r#"{"secret_key": (removed), "n": 1}"#,
            ),
            ("Authorization: Bearer abc", "Authorization: (removed)"),
            ("mqtt://me:pw@host:1883/x", "mqtt://me:(removed)@host:1883/x"),
            ("http://host:80/a@b", "http://host:80/a@b"),
            ("key AKIAIOSFODNN7EXAMPLE used", "key (removed) used"),
            ("aws_secret_access_key=abc", "aws_secret_access_key=(removed)"),
            ("sealed the secret mqtt", "sealed the secret mqtt"),
            ("the password was refused", "the password was refused"),
            ("tokens: ", "tokens: "),
            ("", ""),
        ] {
            assert_eq!(scrub(line), clean);
        }
    }

    #[test]
    fn a_private_key_goes_as_a_whole_and_lines_keep_their_numbers() {
        let text = "a\n-----BEGIN OPENSSH PRIVATE KEY-----\nb3Blb\nAAAA\n-----END OPENSSH PRIVATE KEY-----\nz\n";
        assert_eq!(scrub(text), "a\n(removed)\n(removed)\n(removed)\n(removed)\nz\n");
        let cut = "-----BEGIN PRIVATE KEY-----\nMIIE";
        assert_eq!(scrub(cut), "(removed)\n(removed)");
    }

    #[test]
    fn a_configuration_loses_accounts_and_comments_of_keys() {
        let text = "[mqtt]\nusername = \"me\"\npassword = \"mqtt-password\"\n\
                    keys = [\"ssh-ed25519 AAAAC3 me@laptop\", \"ssh-rsa AAAAB3\"]\naccess_key_id = \"ID\"\n";
        assert_eq!(
            configuration(text),
            "[mqtt]\nusername = \"(removed)\"\npassword = (removed)\n\
             keys = [\"ssh-ed25519 AAAAC3\", \"ssh-rsa AAAAB3\"]\naccess_key_id = \"(removed)\"\n"
        );
    }

    proptest! {
        #[test]
        fn no_text_breaks_it(text in "(\\PC|password|[=:\"'@\n]|://|AKIA|é){0,60}") {
            let clean = scrub(&text);
            prop_assert_eq!(clean.matches('\n').count(), text.matches('\n').count());
            configuration(&text);
        }

        #[test]
        fn a_planted_password_is_found(before in "[a-z ]{0,20}", secret in "[A-Za-z0-9/+]{12,40}", sign in "( ?= ?|: ?)") {
            let line = format!("{before}password{sign}{secret}");
            prop_assert!(!scrub(&line).contains(&secret));
        }
    }
}
