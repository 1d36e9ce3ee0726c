//! What is peculiar to Oracle's object storage: how its endpoints are made up. Pure.
//!
//! Source: "Object Storage Amazon S3 Compatibility API" in Oracle's documentation.

/// Why an endpoint can't be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OracleError {
    /// The namespace can't be one.
    #[error(
        "`{}` is not an object storage namespace: lower-case letters and digits, as the tenancy's page in Oracle's console shows it (often it is not the tenancy's name)",
        .0.escape_debug()
    )]
    Namespace(String),
    /// The region can't be one.
    #[error(
        "`{}` is not a region's identifier: it looks like eu-frankfurt-1, and is the one where the bucket is",
        .0.escape_debug()
    )]
    Region(String),
}

/// The address of the S3-compatible service of a namespace in a region.
///
/// # Errors
/// [`OracleError`].
pub fn endpoint(namespace: &str, region: &str) -> Result<String, OracleError> {
    let may_be_namespace = (1..=63).contains(&namespace.len())
        && !namespace.starts_with('-')
        && !namespace.ends_with('-')
        && namespace
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if !may_be_namespace {
        return Err(OracleError::Namespace(namespace.into()));
    }
    if !may_be_region(region) {
        return Err(OracleError::Region(region.into()));
    }
    Ok(format!(
        "https://{namespace}.compat.objectstorage.{region}.oraclecloud.com"
    ))
}

/// The region that an endpoint of Oracle's is in; `None` where it is another service's.
#[must_use]
pub fn region_of(endpoint: &str) -> Option<&str> {
    let host = endpoint.strip_prefix("https://")?;
    let host = host.strip_suffix('/').unwrap_or(host);
    let (_namespace, rest) = host.split_once(".compat.objectstorage.")?;
    let (region, domain) = rest.split_once('.')?;
    matches!(domain, "oraclecloud.com" | "oci.customer-oci.com").then_some(region)
}

/// `eu-frankfurt-1`, `us-gov-phoenix-1`: words and a number. New ones are opened all the time, so there is no list here.
fn may_be_region(region: &str) -> bool {
    let parts: Vec<&str> = region.split('-').collect();
    let [words @ .., number] = parts.as_slice() else {
        return false;
    };
    (2..=4).contains(&words.len())
        && words
            .iter()
            .all(|word| (2..=20).contains(&word.len()) && word.bytes().all(|b| b.is_ascii_lowercase()))
        && (1..=2).contains(&number.len())
        && number.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_made_and_understood() {
        let made = endpoint("axaxnpcrorw5", "eu-frankfurt-1").unwrap();
        assert_eq!(
            made,
            "https://axaxnpcrorw5.compat.objectstorage.eu-frankfurt-1.oraclecloud.com"
        );
        assert_eq!(region_of(&made), Some("eu-frankfurt-1"));
        assert_eq!(
            region_of("https://n.compat.objectstorage.uk-gov-london-1.oci.customer-oci.com/"),
            Some("uk-gov-london-1")
        );
        for other in [
            "https://s3.eu-central-1.amazonaws.com",
            "http://127.0.0.1:9000",
            "https://n.compat.objectstorage.eu-frankfurt-1.example.com",
            "",
        ] {
            assert_eq!(region_of(other), None, "{other}");
        }
    }

    #[test]
    fn what_can_not_be_a_namespace_or_a_region_is_refused() {
        for namespace in ["", "My Tenancy", "a/b", "a.b", "-a", "A", "https://a"] {
            assert!(
                matches!(endpoint(namespace, "eu-frankfurt-1"), Err(OracleError::Namespace(_))),
                "{namespace}"
            );
        }
        for region in [
            "",
            "frankfurt",
            "eu-frankfurt",
            "EU-Frankfurt-1",
            "eu-frankfurt-1/",
            "fra",
            "eu--1",
        ] {
            assert!(matches!(endpoint("n", region), Err(OracleError::Region(_))), "{region}");
        }
        for region in ["us-ashburn-1", "us-gov-phoenix-1", "me-dcc-muscat-1", "ap-chuncheon-1"] {
            assert!(endpoint("n", region).is_ok(), "{region}");
        }
    }
}
