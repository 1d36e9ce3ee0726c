//! Which segment may be put in a damaged one's place: what it has to be, and whether there is anything to repair. Pure.
//!
//! What comes in is believed for nothing. It has to be, byte for byte, what the appliance itself wrote down while the
//! segment was sound: in the ledger of its checks, or in the ledger of a push.

use super::{Obstacle, Surroundings, closed, in_use};
use crate::name::ClientName;
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// What a segment has to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    /// Its size in bytes.
    pub size: u64,
    /// Its SHA-256, in hexadecimal digits.
    pub sha256: String,
}

/// What one ledger says of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Witness {
    /// Its size in bytes.
    pub size: u64,
    /// Its SHA-256, in hexadecimal digits; none where the ledger doesn't know it.
    pub sha256: Option<String>,
}

/// What the ledgers of all off-site copies say of a segment, where that isn't enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copies {
    /// There is no off-site copy of the repository.
    None,
    /// None of the copies has the segment.
    Lack,
    /// A copy has it, but its ledger was made anew and does not know what it was.
    Unknown,
    /// They contradict one another.
    Differ,
}

impl Copies {
    /// For the end of a sentence.
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::None => "it has no off-site copy",
            Self::Lack => "no off-site copy has it",
            Self::Unknown => "the ledgers of its off-site copies were made anew since it was pushed",
            Self::Differ => "its off-site copies do not agree",
        }
    }
}

/// What the segment has to be: as the appliance's own checks found it, and only where they never read it, as it was when
/// it was pushed. `copies` are the ledgers of all targets.
pub fn wanted(
    name: &ClientName,
    segment: u32,
    checked: Option<&Witness>,
    copies: &[Option<Witness>],
) -> Result<Content, Obstacle> {
    if let Some(Witness {
        size,
        sha256: Some(sha256),
    }) = checked
    {
        return Ok(Content {
            size: *size,
            sha256: sha256.clone(),
        });
    }
    let unwitnessed = |copies| Obstacle::Unwitnessed {
        name: name.clone(),
        segment,
        copies,
    };
    // Where only the size is remembered here, a copy of another size is of something else.
    let fitting = copies
        .iter()
        .flatten()
        .filter(|copy| checked.is_none_or(|checked| checked.size == copy.size));
    let mut contents: Vec<Content> = fitting
        .filter_map(|copy| {
            Some(Content {
                size: copy.size,
                sha256: copy.sha256.clone()?,
            })
        })
        .collect();
    contents.sort_by(|one, other| one.sha256.cmp(&other.sha256));
    contents.dedup();
    match (contents.len(), contents.pop()) {
        (1, Some(content)) => Ok(content),
        (0, _) if copies.is_empty() => Err(unwitnessed(Copies::None)),
        (0, _) if copies.iter().all(Option::is_none) => Err(unwitnessed(Copies::Lack)),
        (0, _) => Err(unwitnessed(Copies::Unknown)),
        _ => Err(unwitnessed(Copies::Differ)),
    }
}

/// What lies in the segment's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// What it has to be.
    Sound,
    /// Something else, or nothing that can be read.
    Damaged,
    /// Nothing, though the repository's state needs it.
    Missing,
    /// Nothing, and nothing is missed.
    Absent,
}

/// Whether there is anything to repair.
pub fn needed(segment: u32, found: Found) -> Result<(), Obstacle> {
    match found {
        Found::Damaged | Found::Missing => Ok(()),
        Found::Sound => Err(Obstacle::Sound(segment)),
        Found::Absent => Err(Obstacle::NoSegment(segment)),
    }
}

/// All that stands against any repair of this client now. Its last transactions need not have been looked at: where the
/// damage is in them, they can't be.
pub fn obstacles(around: &Surroundings<'_>) -> Vec<Obstacle> {
    closed(around).map_or_else(|| in_use(around), |obstacle| vec![obstacle])
}

/// Why what came in is not what the segment has to be. `received` is how many bytes came, of which no more than one beyond
/// the size is ever read; `sha256` is of those bytes, in hexadecimal digits.
pub fn refused(segment: u32, content: &Content, received: u64, sha256: &str) -> Option<String> {
    let Content { size, .. } = content;
    if received == 0 {
        return Some("nothing came in; what was to send it says why".into());
    }
    if received > *size {
        return Some(format!("more than the {size} bytes of segment {segment} came in"));
    }
    if received < *size {
        return Some(format!(
            "only {received} of the {size} bytes of segment {segment} came in"
        ));
    }
    (sha256 != content.sha256).then(|| {
        format!(
            "what came in is not what segment {segment} was: its SHA-256 is {sha256}, not {}",
            content.sha256
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upkeep::Work;
    use crate::watch::Record;
    use alloc::string::ToString;

    fn name() -> ClientName {
        ClientName::new("asus").unwrap()
    }

    fn witness(size: u64, sum: Option<&str>) -> Witness {
        Witness {
            size,
            sha256: sum.map(String::from),
        }
    }

    #[test]
    fn what_the_checks_found_counts_before_what_was_pushed() {
        let ask = |checked: Option<Witness>, copies: &[Option<Witness>]| wanted(&name(), 7, checked.as_ref(), copies);
        let sum = |found: Result<Content, Obstacle>| found.map(|content| content.sha256);
        let copy = |sum| Some(witness(5, Some(sum)));
        assert_eq!(sum(ask(Some(witness(5, Some("a"))), &[copy("b")])), Ok("a".into()));
        assert_eq!(sum(ask(Some(witness(5, Some("a"))), &[])), Ok("a".into()));
        assert_eq!(sum(ask(Some(witness(5, None)), &[None, copy("b")])), Ok("b".into()));
        assert_eq!(sum(ask(None, &[copy("b"), copy("b")])), Ok("b".into()));
        // A copy of another size is of something else.
        assert_eq!(
            sum(ask(Some(witness(5, None)), &[copy("b"), Some(witness(6, Some("c")))])),
            Ok("b".into())
        );
        for (checked, copies, why) in [
            (None, &[][..], "has no off-site copy"),
            (Some(witness(5, None)), &[None], "no off-site copy has it"),
            (None, &[Some(witness(5, None))], "made anew"),
            (None, &[copy("b"), copy("c")], "do not agree"),
            (Some(witness(9, None)), &[copy("b")], "made anew"),
        ] {
            let told = ask(checked, copies).unwrap_err().to_string();
            assert!(told.contains(why) && told.contains("segment 7"), "{why}: {told}");
        }
    }

    #[test]
    fn only_what_belongs_there_and_is_not_sound_is_repaired() {
        assert_eq!(needed(7, Found::Damaged), Ok(()));
        assert_eq!(needed(7, Found::Missing), Ok(()));
        assert_eq!(needed(7, Found::Sound), Err(Obstacle::Sound(7)));
        assert_eq!(needed(7, Found::Absent), Err(Obstacle::NoSegment(7)));
    }

    #[test]
    fn it_needs_the_repository_for_itself_and_no_look() {
        let record = Record {
            failed: "torn".into(),
            ..Record::default()
        };
        let around = |sessions, busy, standing| Surroundings {
            mounted: true,
            sessions,
            busy,
            standing,
            transaction: None,
            record: &record,
        };
        assert_eq!(obstacles(&around(&[], None, None)), []);
        let sessions = ["asus-1".to_string()];
        let all = obstacles(&around(&sessions, Some("push"), None));
        assert_eq!(all.len(), 2, "{all:?}");
        let work = Work::Repair { segment: 8 };
        assert_eq!(
            obstacles(&around(&sessions, Some("push"), Some(work))),
            [Obstacle::UnderWay(work)]
        );
        let away = Surroundings {
            mounted: false,
            ..around(&[], None, None)
        };
        assert_eq!(obstacles(&away), [Obstacle::NotMounted]);
    }

    #[test]
    fn what_is_not_byte_for_byte_the_same_is_refused() {
        let content = Content {
            size: 10,
            sha256: "ab".into(),
        };
        assert_eq!(refused(7, &content, 10, "ab"), None);
        for (received, sum, words) in [
            (0, "ab", "nothing came in"),
            (9, "ab", "only 9 of the 10 bytes"),
            (11, "ab", "more than the 10 bytes"),
            (10, "cd", "SHA-256 is cd, not ab"),
        ] {
            let told = refused(7, &content, received, sum).unwrap();
            assert!(told.contains(words), "{told}");
        }
    }
}
