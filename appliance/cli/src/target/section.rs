//! The part of a strongroom.toml that is a target. Pure: the owner's text is kept to the byte, and the new part put
//! behind it.

use super::TargetFailure;
use std::fmt::Write;
use strongroom_model::config::{self, Config};
use strongroom_model::name::TargetName;

/// A target to be.
#[derive(Clone, Debug)]
pub struct Section {
    pub name: TargetName,
    pub endpoint: String,
    pub region: String,
    pub bucket: String,
    pub manifest_bucket: Option<String>,
    pub prefix: Option<String>,
    pub access_key_id: String,
    /// Name of the secret's file.
    pub secret_key: String,
    pub recipients: Vec<TargetName>,
    /// Whether each object must go in one piece.
    pub once_only: bool,
}

impl Section {
    /// The owner's text with this behind it.
    pub fn appended(&self, text: &str) -> String {
        let line_end = if text.contains("\r\n") { "\r\n" } else { "\n" };
        let mut all = text.to_owned();
        if !all.is_empty() && !all.ends_with('\n') {
            all.push_str(line_end);
        }
        for line in self.text().lines() {
            all.push_str(line);
            all.push_str(line_end);
        }
        all
    }

    /// The target, as a configuration with this in it has it; an error if that would be wrong.
    pub fn checked(&self, text: &str) -> Result<config::Target, TargetFailure> {
        let config = Config::parse(&self.appended(text)).map_err(TargetFailure::WouldBeWrong)?;
        let added = config.offsite.target.into_iter().next_back();
        added
            .filter(|target| *target.name.get_ref() == self.name)
            .ok_or_else(|| TargetFailure::IsThere(self.name.clone()))
    }

    fn text(&self) -> String {
        let mut text = String::from("\n[[offsite.target]]\n");
        let mut line = |key: &str, value: &str, remark: &str| {
            let _ = writeln!(text, "{key} = {}{remark}", quoted(value));
        };
        line("name", self.name.as_str(), "");
        line("endpoint", &self.endpoint, "");
        line("region", &self.region, "");
        line("bucket", &self.bucket, "");
        if let Some(bucket) = &self.manifest_bucket {
            line("manifest_bucket", bucket, "   # manifests, which a restore reads first");
        }
        if let Some(prefix) = &self.prefix {
            line("prefix", prefix, "");
        }
        line("access_key_id", &self.access_key_id, "");
        line("secret_key", &self.secret_key, "   # a file beside this one");
        if self.once_only {
            line(
                "multipart",
                "never",
                "   # these credentials can't send an object in parts, or not take it back",
            );
        }
        let recipients: Vec<String> = self.recipients.iter().map(|name| quoted(name.as_str())).collect();
        let _ = writeln!(text, "recipients = [{}]", recipients.join(", "));
        text
    }
}

/// A basic string of TOML.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RECIPIENT: &str = "[[offsite.recipient]]\nname = \"owner\"\ncertificate = \"owner.asc\"\n";

    fn section() -> Section {
        Section {
            name: TargetName::new("oracle").unwrap(),
            endpoint: "https://n.compat.objectstorage.eu-frankfurt-1.oraclecloud.com".into(),
            region: "eu-frankfurt-1".into(),
            bucket: "backup".into(),
            manifest_bucket: Some("manifests".into()),
            prefix: None,
            access_key_id: "id".into(),
            secret_key: "oracle-secret".into(),
            recipients: vec![TargetName::new("owner").unwrap()],
            once_only: true,
        }
    }

    #[test]
    fn comments_and_order_stay() {
        for end in ["\n", "\r\n"] {
            let text = format!("# mine\n\n[clock] # his\nservers = [\"a\"]\n{RECIPIENT}# last").replace('\n', end);
            let all = section().appended(&text);
            assert!(all.starts_with(&format!(
                "{text}{end}{end}[[offsite.target]]{end}name = \"oracle\"{end}"
            )));
            assert_eq!(all.matches('\n').count(), all.matches(end).count());
            let target = section().checked(&text).unwrap();
            assert_eq!(target.multipart, config::Multipart::Never);
            assert_eq!(target.secret_key.as_str(), "oracle-secret");
        }
    }

    #[test]
    fn what_can_not_be_appended_to_is_refused() {
        let inline = "offsite = { recipient = [{ name = \"owner\", certificate = \"owner.asc\" }] }\n";
        assert!(Config::parse(inline).is_ok());
        for text in [
            inline,
            "",
            "[[offsite.recipient]]\nname = \"other\"\ncertificate = \"o.asc\"\n",
        ] {
            assert!(
                matches!(section().checked(text), Err(TargetFailure::WouldBeWrong(_))),
                "{text}"
            );
        }
        let twice = section().appended(RECIPIENT);
        assert!(section().checked(&twice).is_err());
    }

    proptest! {
        /// Whatever is typed becomes that value or is refused: never another key, never another target.
        #[test]
        fn nothing_typed_gets_out_of_its_quotes(typed in "[ -~\\n\\r\\t\"\\\\#=äü]{0,30}", which in 0_usize..4) {
            let mut section = section();
            match which {
                0 => section.bucket = typed.clone(),
                1 => section.region = typed.clone(),
                2 => section.access_key_id = typed.clone(),
                _ => section.endpoint = format!("https://{typed}"),
            }
            if let Ok(target) = section.checked(RECIPIENT) {
                let found = [
                    target.bucket.as_str(),
                    target.region.as_str(),
                    target.access_key_id.as_str(),
                    target.endpoint.as_str(),
                ];
                prop_assert!(found[which].ends_with(&typed));
                prop_assert_eq!(target.name.get_ref().as_str(), "oracle");
            }
        }
    }
}
