//! The manifest: the list of archives, readable without Borg where nothing is encrypted.

use std::time::{Duration, SystemTime};

use crate::error::Error;
use crate::headers::HeaderReader;
use crate::msgpack::{Malformed, Unpacker};
use crate::object::{BadContent, MAX_PLAIN, Protection, read_object, unpack};
use crate::repository::{Repository, SegmentFile};
use crate::segment::{EntryKind, ObjectKey, SegmentNumber};

/// Most archives that Borg accepts in a manifest (`MAX_ARCHIVES`).
const MAX_ARCHIVES: u32 = 400_000;
/// Longest name of an archive, in bytes.
const MAX_NAME: usize = 255;

/// An archive as the manifest lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Archive {
    /// Its name. Bytes that are not UTF-8 are replaced.
    pub name: String,
    /// Key of the object that describes it.
    pub id: ObjectKey,
    /// When it was begun, by the client's clock.
    pub time: SystemTime,
}

/// The list of archives at one transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Whether the key could prove the list to be genuine.
    pub protection: Protection,
    /// The archives by name, in the order of the manifest (sorted by name's bytes).
    pub archives: Vec<Archive>,
}

/// What can be told about a repository's archives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Archives {
    /// The repository is encrypted: its key is needed to list them.
    NeedKey,
    /// All archives.
    Listed(Manifest),
}

impl Repository {
    /// Lists the archives as of the committed `transaction`. Reads headers from the top down until
    /// it meets the manifest, which every client writes last.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Damaged`], [`Error::NoManifest`], or [`Error::Content`] when the
    /// manifest is not as Borg writes it.
    pub fn archives(&self, transaction: SegmentNumber) -> Result<Archives, Error> {
        let (segment, offset) = self.find_manifest(transaction)?;
        let file = self.open_segment(&segment)?;
        let mut data = Vec::new();
        read_object(&file, offset, &ObjectKey::MANIFEST, &mut data).map_err(|error| self.explain(&segment, error))?;
        let mut plain = Vec::new();
        let bad = |problem| Error::Content {
            object: ObjectKey::MANIFEST,
            segment: segment.number,
            problem,
        };
        let protection = unpack(&data, &mut plain).map_err(bad)?;
        drop(data);
        if protection == Protection::Encrypted {
            return Ok(Archives::NeedKey);
        }
        let archives = parse(&plain).map_err(bad)?;
        Ok(Archives::Listed(Manifest { protection, archives }))
    }

    /// Whether the repository's objects can be read without the key, as its manifest is stored; `None` when that can't be told.
    pub(crate) fn protection(&self, transaction: SegmentNumber) -> Option<Protection> {
        let (segment, offset) = self.find_manifest(transaction).ok()?;
        let file = self.open_segment(&segment).ok()?;
        let mut data = Vec::new();
        read_object(&file, offset, &ObjectKey::MANIFEST, &mut data).ok()?;
        Protection::of(*data.first()?)
    }

    fn find_manifest(&self, transaction: SegmentNumber) -> Result<(SegmentFile, u64), Error> {
        for segment in self.state(transaction)?.into_iter().rev() {
            let reader =
                HeaderReader::new(self.open_segment(&segment)?).map_err(|error| self.explain(&segment, error))?;
            let mut last = None;
            for entry in reader {
                let entry = entry.map_err(|error| self.explain(&segment, error))?;
                match entry.kind {
                    EntryKind::Put(ObjectKey::MANIFEST) => last = Some(Some(entry.offset)),
                    EntryKind::Delete(ObjectKey::MANIFEST) => last = Some(None),
                    _ => {}
                }
            }
            match last {
                Some(Some(offset)) => return Ok((segment, offset)),
                Some(None) => break,
                None => {}
            }
        }
        Err(Error::NoManifest(self.path().into()))
    }
}

impl From<Malformed> for BadContent {
    fn from(error: Malformed) -> Self {
        Self::Form(match error {
            Malformed::Expected(what) => what,
            Malformed::Type(_) => "an unknown type of value",
            Malformed::Ends | Malformed::Io(_) => "it ends too early",
        })
    }
}

/// Parses the plain manifest: `{archives: {name: {id, time}}, version, …}`.
pub(crate) fn parse(plain: &[u8]) -> Result<Vec<Archive>, BadContent> {
    debug_assert!(plain.len() <= MAX_PLAIN);
    let mut unpacker = Unpacker::new(plain);
    let mut archives = None;
    let mut key = Vec::with_capacity(MAX_NAME);
    for _ in 0..unpacker.map()? {
        unpacker.bytes(MAX_NAME, &mut key)?;
        match key.as_slice() {
            b"archives" => archives = Some(list(&mut unpacker)?),
            b"version" => match unpacker.token()? {
                crate::msgpack::Token::Unsigned(1 | 2) => {}
                _ => return Err(BadContent::Form("version 1 expected")),
            },
            _ => unpacker.skip()?,
        }
    }
    if unpacker.next()?.is_some() {
        return Err(BadContent::Form("something follows its end"));
    }
    archives.ok_or(BadContent::Form("a list of archives expected"))
}

fn list(unpacker: &mut Unpacker<&[u8]>) -> Result<Vec<Archive>, BadContent> {
    let count = unpacker.map()?;
    if count > MAX_ARCHIVES {
        return Err(BadContent::Form("too many archives"));
    }
    let mut archives = Vec::new();
    let mut name = Vec::with_capacity(MAX_NAME);
    let mut field = Vec::new();
    for _ in 0..count {
        unpacker.bytes(MAX_NAME, &mut name)?;
        let (mut id, mut time) = (None, None);
        for _ in 0..unpacker.map()? {
            unpacker.bytes(8, &mut field)?;
            match field.as_slice() {
                b"id" => id = Some(ObjectKey(unpacker.key()?)),
                b"time" => {
                    unpacker.bytes(64, &mut field)?;
                    time = std::str::from_utf8(&field).ok().and_then(parse_time);
                    if time.is_none() {
                        return Err(BadContent::Form("a time in UTC expected"));
                    }
                }
                _ => unpacker.skip()?,
            }
        }
        let (Some(id), Some(time)) = (id, time) else {
            return Err(BadContent::Form("an archive's id and time expected"));
        };
        archives.push(Archive {
            name: String::from_utf8_lossy(&name).into_owned(),
            id,
            time,
        });
    }
    Ok(archives)
}

/// `2026-11-25T21:50:00.123456`, which Borg means as UTC; a trailing `Z` or `+00:00` is accepted.
fn parse_time(text: &str) -> Option<SystemTime> {
    let text = text.strip_suffix("+00:00").or(text.strip_suffix('Z')).unwrap_or(text);
    let (date, clock) = text.split_once('T')?;
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let number = |text: &str, digits: usize, max: u32| {
        let plain = text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<u32>().ok().filter(|value| plain && *value <= max)
    };
    let mut date = date.split('-');
    let (year, month, day) = (
        number(date.next()?, 4, 9999)?,
        number(date.next()?, 2, 12).filter(|month| *month > 0)?,
        number(date.next()?, 2, 31).filter(|day| *day > 0)?,
    );
    let mut clock = clock.split(':');
    let (hour, minute, second) = (
        number(clock.next()?, 2, 23)?,
        number(clock.next()?, 2, 59)?,
        number(clock.next()?, 2, 60)?,
    );
    if date.next().is_some() || clock.next().is_some() || fraction.len() > 6 {
        return None;
    }
    let micros = number(fraction, fraction.len(), 999_999)? * 10_u32.pow(6 - u32::try_from(fraction.len()).ok()?);
    // Days from 1970-03-01 backwards and forwards, in eras of 400 years (Howard Hinnant's algorithm).
    let (shifted, months) = if month > 2 {
        (year, month - 3)
    } else {
        (year.checked_sub(1)?, month + 9)
    };
    let (era, of_era) = (shifted / 400, shifted % 400);
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + (153 * months + 2) / 5 + day - 1;
    let seconds = i64::from(days) * 86_400 - 719_468 * 86_400 + i64::from(hour * 3600 + minute * 60 + second);
    let since = Duration::from_secs(seconds.unsigned_abs());
    let whole = if seconds < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(since)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(since)
    };
    whole?.checked_add(Duration::from_micros(micros.into()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn micros(text: &str) -> Option<u128> {
        Some(
            parse_time(text)?
                .duration_since(SystemTime::UNIX_EPOCH)
                .unwrap()
                .as_micros(),
        )
    }

    #[test]
    fn times_as_borg_writes_them() {
        assert_eq!(micros("1970-01-01T00:00:00.000000"), Some(0));
        assert_eq!(micros("2000-02-29T12:00:00.5"), Some(951_825_600_500_000));
        assert_eq!(micros("2026-11-25T21:50:00.123456"), Some(1_795_643_400_123_456));
        assert_eq!(micros("2026-11-25T21:50:00+00:00"), Some(1_795_643_400_000_000));
        for wrong in [
            "",
            "2026-11-25",
            "2026-13-01T00:00:00",
            "2026-11-25T21:50:00+01:00",
            "2026-11-25T2:5:0",
            "0000-01-01T00:00:00",
        ] {
            assert_eq!(parse_time(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_manifest_is_a_map_with_archives() {
        let mut plain = vec![0x83];
        let text = |out: &mut Vec<u8>, text: &str| {
            out.push(0xa0 | u8::try_from(text.len()).unwrap());
            out.extend(text.as_bytes());
        };
        text(&mut plain, "archives");
        plain.push(0x81);
        text(&mut plain, "monday");
        plain.push(0x82);
        text(&mut plain, "id");
        plain.extend([0xda, 0, 32]);
        plain.extend([7; 32]);
        text(&mut plain, "time");
        text(&mut plain, "2026-11-25T21:50:00.000000");
        text(&mut plain, "config");
        plain.push(0x80);
        text(&mut plain, "version");
        plain.push(1);
        let archives = parse(&plain).unwrap();
        assert_eq!(archives.len(), 1);
        assert_eq!(
            (archives[0].name.as_str(), archives[0].id),
            ("monday", ObjectKey([7; 32]))
        );
        for cut in 0..plain.len() {
            assert!(parse(&plain[..cut]).is_err(), "{cut}");
        }
        plain.push(0);
        assert!(parse(&plain).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn noise_never_panics(text in "\\PC{0,40}", bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse_time(&text);
            let _ = parse(&bytes);
        }

        #[test]
        fn every_second_is_read(seconds in 0_u64..4_000_000_000) {
            let time = jiffy(seconds);
            prop_assert_eq!(micros(&time), Some(u128::from(seconds) * 1_000_000), "{}", time);
        }
    }

    /// The same calendar by counting, to check the arithmetic.
    fn jiffy(seconds: u64) -> String {
        let (mut days, rest) = (seconds / 86_400, seconds % 86_400);
        let mut year = 1970;
        let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
        while days >= 365 + u64::from(leap(year)) {
            days -= 365 + u64::from(leap(year));
            year += 1;
        }
        let mut month = 0;
        let lengths = [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
        while days >= lengths[month] {
            days -= lengths[month];
            month += 1;
        }
        format!(
            "{year:04}-{:02}-{:02}T{:02}:{:02}:{:02}.000000",
            month + 1,
            days + 1,
            rest / 3600,
            rest / 60 % 60,
            rest % 60
        )
    }
}
