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

/// A target on a disk to be.
#[derive(Clone, Debug)]
pub struct DiskSection {
    pub name: TargetName,
    /// Label or UUID.
    pub disk: String,
    pub folder: Option<String>,
    pub prefix: Option<String>,
    pub recipients: Vec<TargetName>,
}

/// The owner's text with a section behind it.
fn appended(text: &str, section: &str) -> String {
    let line_end = if text.contains("\r\n") { "\r\n" } else { "\n" };
    let mut all = text.to_owned();
    if !all.is_empty() && !all.ends_with('\n') {
        all.push_str(line_end);
    }
    for line in section.lines() {
        all.push_str(line);
        all.push_str(line_end);
    }
    all
}

/// The last target of a configuration, which has to be of this name; an error if it would be wrong.
fn added(text: &str, name: &TargetName) -> Result<config::Target, TargetFailure> {
    let config = Config::parse(text).map_err(TargetFailure::WouldBeWrong)?;
    let added = config.offsite.target.into_iter().next_back();
    added
        .filter(|target| target.name.get_ref() == name)
        .ok_or_else(|| TargetFailure::IsThere(name.clone()))
}

fn recipients(names: &[TargetName]) -> String {
    let names: Vec<String> = names.iter().map(|name| quoted(name.as_str())).collect();
    format!("recipients = [{}]\n", names.join(", "))
}

impl DiskSection {
    /// The owner's text with this behind it; an error if the configuration would be wrong.
    pub fn appended(&self, text: &str) -> Result<String, TargetFailure> {
        let mut section = String::from("\n[[offsite.target]]\n");
        let mut line = |key: &str, value: &str| {
            let _ = writeln!(section, "{key} = {}", quoted(value));
        };
        line("name", self.name.as_str());
        line("disk", &self.disk);
        if let Some(folder) = &self.folder {
            line("folder", folder);
        }
        if let Some(prefix) = &self.prefix {
            line("prefix", prefix);
        }
        section += &recipients(&self.recipients);
        let all = appended(text, &section);
        added(&all, &self.name).map(|_| all)
    }
}

impl Section {
    /// The owner's text with this behind it.
    pub fn appended(&self, text: &str) -> String {
        appended(text, &self.text())
    }

    /// The target, as a configuration with this in it has it; an error if that would be wrong.
    pub fn checked(&self, text: &str) -> Result<config::Target, TargetFailure> {
        added(&self.appended(text), &self.name)
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
        text + &recipients(&self.recipients)
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
            let bucket = target.bucket().unwrap();
            assert_eq!(bucket.multipart, config::Multipart::Never);
            assert_eq!(bucket.secret_key.as_str(), "oracle-secret");
        }
    }

    #[test]
    fn a_disk_is_added_behind_what_is_there() {
        let disk = DiskSection {
            name: TargetName::new("usb").unwrap(),
            disk: "BACKUP".into(),
            folder: Some("copies".into()),
            prefix: None,
            recipients: vec![TargetName::new("owner").unwrap()],
        };
        let text = format!("# mine\n{RECIPIENT}");
        let all = disk.appended(&text).unwrap();
        assert!(all.starts_with(&text), "{all}");
        let config = Config::parse(&all).unwrap();
        let added = config.offsite.target[0].disk().unwrap();
        assert_eq!(
            (added.disk.get_ref().as_str(), added.folder.as_str()),
            ("BACKUP", "copies")
        );
        for wrong in ["", "a b", "\"\nname = \"x", "../x"] {
            let disk = DiskSection {
                disk: wrong.into(),
                ..disk.clone()
            };
            assert!(
                matches!(disk.appended(&text), Err(TargetFailure::WouldBeWrong(_))),
                "{wrong}"
            );
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
                let bucket = target.bucket().unwrap();
                let found = [
                    bucket.bucket.as_str(),
                    bucket.region.as_str(),
                    bucket.access_key_id.as_str(),
                    bucket.endpoint.as_str(),
                ];
                prop_assert!(found[which].ends_with(&typed));
                prop_assert_eq!(target.name.get_ref().as_str(), "oracle");
            }
        }
    }
}
