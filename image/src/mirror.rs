//! Which Debian mirror this machine's apt uses, read out of apt's configuration. Pure: text in, choice out.
//!
//! Formats: sources.list(5), both the one-line and the deb822 style.

/// One source of binary packages in apt's configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Where: the address as written.
    pub uri: String,
    /// Release or class, like `bookworm` or `bookworm-security`.
    pub suite: String,
    /// Areas, like `main`.
    pub components: Vec<String>,
    /// The keyring it names, if any.
    pub signed_by: Option<String>,
}

/// The mirror to build from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// The archive's address.
    pub archive: String,
    /// Whether this machine also takes the `-updates` suite.
    pub updates: bool,
    /// The security archive's address, if this machine uses one.
    pub security: Option<String>,
}

/// Names that Debian's releases go by in a source. Other suites belong to other projects.
const RELEASES: [&str; 10] = [
    "bookworm",
    "trixie",
    "forky",
    "duke",
    "sid",
    "oldstable",
    "stable",
    "testing",
    "unstable",
    "bullseye",
];

impl Mirror {
    /// The suites of `release` that this mirror is asked for, each with its address.
    #[must_use]
    pub fn suites(&self, release: &str) -> Vec<(String, String)> {
        let mut suites = vec![(self.archive.clone(), release.to_owned())];
        if self.updates {
            suites.push((self.archive.clone(), format!("{release}-updates")));
        }
        if let Some(security) = &self.security {
            suites.push((security.clone(), format!("{release}-security")));
        }
        suites
    }
}

/// Picks Debian's own archive among the sources; the sources come in apt's order, and the first good one wins.
///
/// A source counts as Debian's when it has a release of Debian with the component `main`, and either names Debian's
/// archive keyring or has a path that ends in `debian`. `None` when there is none.
#[must_use]
pub fn choose(sources: &[Source]) -> Option<Mirror> {
    let release = |source: &Source, ending: &str| {
        source
            .suite
            .strip_suffix(ending)
            .is_some_and(|release| RELEASES.contains(&release))
    };
    let usable: Vec<&Source> = sources.iter().filter(|source| is_debian(source)).collect();
    let archive = usable.iter().find(|source| release(source, ""))?;
    Some(Mirror {
        archive: archive.uri.clone(),
        updates: usable.iter().any(|source| release(source, "-updates")),
        security: usable
            .iter()
            .find(|source| release(source, "-security"))
            .map(|source| source.uri.clone()),
    })
}

fn is_debian(source: &Source) -> bool {
    let scheme = source.uri.split(':').next().unwrap_or_default();
    let path = source.uri.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    ["http", "https", "file", "mirror+file"].contains(&scheme)
        && source.components.iter().any(|component| component == "main")
        && (source
            .signed_by
            .as_ref()
            .is_some_and(|keyring| keyring.contains("debian-archive"))
            || ["debian", "debian-security"].contains(&path)
            || path.starts_with("debian") && scheme == "mirror+file")
}

/// Reads a one-line-style file (`*.list`). Lines that make no sense are passed over, as they are not ours to judge.
#[must_use]
pub fn parse_list(text: &str) -> Vec<Source> {
    text.lines().filter_map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<Source> {
    let line = line.split('#').next()?.trim();
    let rest = line.strip_prefix("deb")?;
    if !rest.starts_with([' ', '\t']) {
        return None; // deb-src
    }
    let rest = rest.trim_start();
    let (options, rest) = match rest.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        None => ("", rest),
    };
    let mut words = rest.split_whitespace();
    Some(Source {
        uri: words.next()?.to_owned(),
        suite: words.next()?.to_owned(),
        components: words.map(str::to_owned).collect(),
        signed_by: options
            .split_whitespace()
            .find_map(|option| option.strip_prefix("signed-by="))
            .map(str::to_owned),
    })
}

/// Reads a deb822-style file (`*.sources`).
#[must_use]
pub fn parse_deb822(text: &str) -> Vec<Source> {
    let mut sources = Vec::new();
    let mut fields: Vec<(String, String)> = Vec::new();
    for line in text.lines().chain([""]) {
        if line.trim().is_empty() {
            stanza(&fields, &mut sources);
            fields.clear();
        } else if line.starts_with('#') {
        } else if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = fields.last_mut() {
                value.push('\n');
                value.push_str(line.trim());
            }
        } else if let Some((name, value)) = line.split_once(':') {
            fields.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
    sources
}

fn stanza(fields: &[(String, String)], sources: &mut Vec<Source>) {
    let field = |name: &str| {
        fields
            .iter()
            .find(|(found, _)| found == name)
            .map(|(_, value)| value.as_str())
            .unwrap_or_default()
    };
    let words = |name: &str| field(name).split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let disabled = ["no", "false", "0", "off", "disable"].contains(&field("enabled").to_ascii_lowercase().as_str());
    if disabled || !words("types").iter().any(|kind| kind == "deb") {
        return;
    }
    let signed_by = Some(field("signed-by"))
        .filter(|keyring| !keyring.is_empty())
        .map(str::to_owned);
    for uri in words("uris") {
        for suite in words("suites") {
            sources.push(Source {
                uri: uri.clone(),
                suite,
                components: words("components"),
                signed_by: signed_by.clone(),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mirror(archive: &str, updates: bool, security: Option<&str>) -> Option<Mirror> {
        Some(Mirror {
            archive: archive.to_owned(),
            updates,
            security: security.map(str::to_owned),
        })
    }

    #[test]
    fn deb822_as_debian_ships_it() {
        let text = "# comment\nTypes: deb deb-src\nURIs: http://mirror.example/debian/\nSuites: bookworm bookworm-updates\n\
                    Components: main non-free-firmware\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n\n\
                    Types: deb\nURIs: http://security.example/debian-security\nSuites: bookworm-security\nComponents: main\n";
        assert_eq!(
            choose(&parse_deb822(text)),
            mirror(
                "http://mirror.example/debian/",
                true,
                Some("http://security.example/debian-security")
            )
        );
    }

    #[test]
    fn one_line_style_with_options_and_comments() {
        let text = "deb-src http://mirror.example/debian trixie main\n\
                    deb [arch=amd64 signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] https://m.example/pub/mirror trixie main contrib # here\n";
        assert_eq!(
            choose(&parse_list(text)),
            mirror("https://m.example/pub/mirror", false, None)
        );
    }

    #[test]
    fn other_projects_are_not_debian() {
        let text = "deb [signed-by=/etc/apt/keyrings/x.asc] https://packages.example/linux/debian bookworm stable\n\
                    deb http://packages.example/ bookworm main\n\
                    deb http://apt.example/pub bookworm-pgdg main\n\
                    deb cdrom:[Debian]/debian bookworm main\n";
        assert_eq!(choose(&parse_list(text)), None);
    }

    #[test]
    fn disabled_and_source_stanzas_are_passed_over() {
        let text = "Enabled: no\nTypes: deb\nURIs: http://a.example/debian\nSuites: stable\nComponents: main\n\n\
                    Types: deb-src\nURIs: http://b.example/debian\nSuites: stable\nComponents: main\n\n\
                    Types: deb\nURIs:\n http://c.example/debian\nSuites: stable\nComponents: main\nSigned-By:\n -----BEGIN\n .\n -----END\n";
        assert_eq!(
            choose(&parse_deb822(text)),
            mirror("http://c.example/debian", false, None)
        );
    }

    #[test]
    fn mirror_lists_of_cloud_images_count() {
        let text = "Types: deb\nURIs: mirror+file:///etc/apt/mirrors/debian.list\nSuites: trixie trixie-updates\nComponents: main\n\n\
                    Types: deb\nURIs: mirror+file:///etc/apt/mirrors/debian-security.list\nSuites: trixie-security\nComponents: main\n";
        assert_eq!(
            choose(&parse_deb822(text)),
            mirror(
                "mirror+file:///etc/apt/mirrors/debian.list",
                true,
                Some("mirror+file:///etc/apt/mirrors/debian-security.list")
            )
        );
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_survived(text in "(?s).{0,200}") {
            let _ = choose(&parse_list(&text));
            let _ = choose(&parse_deb822(&text));
        }
    }
}
