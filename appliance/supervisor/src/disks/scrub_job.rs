//! The role `strongroom-scrub`: reads every block of the array's file system that is used, its own tables among them,
//! past the page cache, so that the disks themselves have to deliver it. It writes nothing but where it is.
//!
//! It reads the array's device in ascending order, not file by file: the platters turn, and the place where it is says
//! all there is to remember. At most half of the disks' time is taken, whatever else they do. When something can't be
//! read, the exact places are found, their disk is computed from the array's geometry, and their files are looked up.
//! Durable: [`Paths::scrubs`], written each minute; a scrub that was cut short goes on from there.

use crate::durable;
use crate::paths::Paths;
use crate::services::disk_places;
use crate::services::extents::{self, Used};
use crate::services::md_geometry;
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};
use strongroom_model::kernel_log;
use strongroom_model::raid0::Geometry;
use strongroom_model::scrub::{Scrub, Scrubs};

use super::array_job::ARRAY_DEVICE;

/// Read at once: a stripe of two members with chunks of 512 KiB, twice.
const PIECE: u64 = 2 << 20;
/// Least piece that is told: the block of the file system and of most disks.
const GRAIN: u64 = 4096;
/// Bytes per second at most.
const RATE_MAX: u64 = 150_000_000;
/// Longest pause after one piece.
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// Longest search for the exact places within one piece. A dying disk takes seconds for each.
const SEARCH: Duration = Duration::from_secs(120);
/// When more than this can't be read, the disk is dying, and each further read speeds it up.
const GIVE_UP_BYTES: u64 = 64 << 20;
const PROGRESS_PERIOD: Duration = Duration::from_secs(4);
const KEEP_PERIOD: Duration = Duration::from_secs(60);
/// Longest file that is read back.
const BYTES_MAX: u64 = 256 * 1024;

/// The scrubs as they were last written down: of the last seconds while the system runs, otherwise as kept.
pub fn read(paths: &Paths) -> Scrubs {
    durable::read_json(&paths.scrub_progress(), BYTES_MAX)
        .or_else(|| durable::read_json(&paths.scrubs(), BYTES_MAX))
        .unwrap_or_default()
}

/// Runs the role to the end of the scrub. What goes wrong is part of what it leaves; what is returned is only whether
/// that could be written.
pub fn run(paths: &Paths) -> std::io::Result<()> {
    let mut job = Job::new(paths);
    if let Err(error) = job.scrub(&paths.at(ARRAY_DEVICE)) {
        eprintln!("The scrub could not be done: {error}.");
        let now = crate::clock_now().unwrap_or_default();
        let scrub = job.scrubs.current.get_or_insert_with(Scrub::default);
        if scrub.begun == 0 {
            scrub.begun = now;
        }
        scrub.failed = error.to_string();
    }
    job.keep()
}

/// Why the scrub could not go on.
#[derive(Debug, thiserror::Error)]
enum ScrubError {
    #[error("{0}")]
    Extents(#[from] extents::ExtentsError),
    #[error("the array could not be opened ({0})")]
    Open(std::io::Error),
    #[error("the array went away while it was read ({0})")]
    Gone(std::io::Error),
    #[error("more than 64 MiB can't be read; going on would only wear out the dying disk")]
    GivenUp,
    #[error("where it is could not be written down ({0})")]
    Write(std::io::Error),
}

struct Job<'a> {
    paths: &'a Paths,
    scrubs: Scrubs,
    shown: Instant,
    kept: Instant,
}

impl<'a> Job<'a> {
    fn new(paths: &'a Paths) -> Self {
        Self {
            paths,
            scrubs: read(paths),
            shown: Instant::now(),
            kept: Instant::now(),
        }
    }

    fn show(&mut self) -> std::io::Result<()> {
        self.shown = Instant::now();
        durable::write_json(&self.paths.scrub_progress(), &self.scrubs)
    }

    fn keep(&mut self) -> std::io::Result<()> {
        self.kept = Instant::now();
        self.show()?;
        durable::write_json(&self.paths.scrubs(), &self.scrubs)
    }

    fn scrub(&mut self, device: &Path) -> Result<(), ScrubError> {
        let name = device.to_string_lossy().into_owned();
        let used = extents::used(&name)?;
        let scrub = self.begin_or_go_on(&used);
        eprintln!(
            "Reading {} bytes, from byte {} of the array on.",
            scrub.total_bytes - scrub.done_bytes.min(scrub.total_bytes),
            scrub.position
        );
        self.keep().map_err(ScrubError::Write)?;
        let direct = rustix::fs::OFlags::DIRECT.bits() as i32;
        let file = File::options()
            .read(true)
            .custom_flags(direct)
            .open(device)
            .map_err(ScrubError::Open)?;
        let disks = Members::find(self.paths, device);
        let outcome = self.read_all(&file, &used, &disks);
        // Names are worth looking up even when it was given up.
        self.name_files(&name, &used);
        outcome?;
        let mut scrub = self.scrubs.current.take().unwrap_or_default();
        scrub.ended = crate::clock_now();
        eprintln!(
            "{} bytes were read; {} could not be.",
            scrub.done_bytes, scrub.unreadable_bytes
        );
        self.scrubs.last = Some(scrub);
        Ok(())
    }

    fn begin_or_go_on(&mut self, used: &Used) -> &Scrub {
        self.scrubs.last = self.scrubs.last.take().filter(|scrub| scrub.array == used.uuid);
        let current = self.scrubs.current.take();
        let mut scrub = current
            .filter(|scrub| scrub.is_unfinished() && scrub.array == used.uuid)
            .unwrap_or_else(|| Scrub {
                array: used.uuid.clone(),
                begun: crate::clock_now().unwrap_or_default().max(1),
                ..Scrub::default()
            });
        scrub.done_bytes = used.bytes_before(scrub.position);
        scrub.total_bytes = used.bytes();
        self.scrubs.current.insert(scrub)
    }

    fn read_all(&mut self, file: &File, used: &Used, disks: &Members) -> Result<(), ScrubError> {
        let mut buffer = Aligned::new();
        let start = self.scrubs.current.as_ref().map_or(0, |scrub| scrub.position);
        for &(from, to) in &used.ranges {
            let mut at = from.max(start);
            while at < to {
                let length = (to - at).min(PIECE - at % PIECE);
                let begun = Instant::now();
                self.read_piece(file, &mut buffer, at, length, disks)?;
                let took = begun.elapsed();
                at += length;
                if let Some(scrub) = &mut self.scrubs.current {
                    scrub.position = at;
                    scrub.done_bytes += length;
                    if scrub.unreadable_bytes > GIVE_UP_BYTES {
                        return Err(ScrubError::GivenUp);
                    }
                }
                self.note_progress()?;
                let at_rate = Duration::from_micros(length * 1_000_000 / RATE_MAX);
                std::thread::sleep(at_rate.saturating_sub(took).max(took).min(PAUSE_MAX));
            }
        }
        Ok(())
    }

    fn note_progress(&mut self) -> Result<(), ScrubError> {
        let written = if self.kept.elapsed() >= KEEP_PERIOD {
            self.keep()
        } else if self.shown.elapsed() >= PROGRESS_PERIOD {
            self.show()
        } else {
            return Ok(());
        };
        written.map_err(ScrubError::Write)
    }

    /// Reads one piece; where that fails, grain by grain.
    fn read_piece(
        &mut self,
        file: &File,
        buffer: &mut Aligned,
        at: u64,
        length: u64,
        disks: &Members,
    ) -> Result<(), ScrubError> {
        // Reading past the cache asks for whole sectors; a block of a small file system may be less than a grain.
        let (from, to) = (at - at % GRAIN, (at + length).next_multiple_of(GRAIN));
        if read_at(file, buffer, from, to - from)? {
            return Ok(());
        }
        let end = Instant::now() + SEARCH;
        let mut grain = from;
        while grain < to {
            let late = Instant::now() >= end;
            let step = if late { to - grain } else { GRAIN };
            if late || !read_at(file, buffer, grain, step)? {
                let serial = disks.serial_at(grain);
                eprintln!("{step} bytes at byte {grain} of the array can't be read (disk {serial}).");
                if let Some(scrub) = &mut self.scrubs.current {
                    scrub.add_unreadable(grain, step, serial);
                }
            }
            grain += step;
        }
        Ok(())
    }

    fn name_files(&mut self, device: &str, used: &Used) {
        let Some(scrub) = &mut self.scrubs.current else { return };
        let nameless = scrub.unreadable.iter().filter(|place| place.file.is_empty());
        let blocks: Vec<u64> = nameless.map(|place| place.offset / used.block_size).collect();
        let files = extents::files(device, &blocks);
        for place in &mut scrub.unreadable {
            let block = place.offset / used.block_size;
            if let Some((_, file)) = files.iter().find(|(of, _)| *of == block) {
                eprintln!("{} can't be read whole.", file.escape_debug());
                place.file.clone_from(file);
            }
        }
    }
}

/// Whether it could be read. Errors: the array is gone.
fn read_at(file: &File, buffer: &mut Aligned, at: u64, length: u64) -> Result<bool, ScrubError> {
    loop {
        return match file.read_at(buffer.slice(length), at) {
            // An array ends with a whole chunk: what comes short was cut by an error.
            Ok(read) => Ok(read as u64 == length),
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => match error.raw_os_error().map(rustix::io::Errno::from_raw_os_error) {
                Some(rustix::io::Errno::NXIO | rustix::io::Errno::NODEV | rustix::io::Errno::BADF) => {
                    Err(ScrubError::Gone(error))
                }
                _ => Ok(false),
            },
        };
    }
}

/// A buffer that begins at a multiple of [`GRAIN`], as reading past the cache asks for.
struct Aligned {
    bytes: Vec<u8>,
    begin: usize,
}

impl Aligned {
    fn new() -> Self {
        let grain = GRAIN as usize;
        let bytes = vec![0; PIECE as usize + 2 * grain];
        let begin = bytes.as_ptr().align_offset(grain);
        Self { bytes, begin }
    }

    fn slice(&mut self, length: u64) -> &mut [u8] {
        let end = (self.begin + length as usize).min(self.bytes.len());
        &mut self.bytes[self.begin..end]
    }
}

/// Which disk holds which part of the array.
struct Members {
    geometry: Option<Geometry>,
    serials: Vec<String>,
}

impl Members {
    fn find(paths: &Paths, device: &Path) -> Self {
        let sys = paths.at("/sys");
        let Some((geometry, names)) = md_geometry::of(&sys, device) else {
            return Self {
                geometry: None,
                serials: Vec::new(),
            };
        };
        let places = disk_places::all(&sys).unwrap_or_default();
        let serial = |name: &String| {
            let disk = kernel_log::disk_of(name)?;
            let place = places.iter().find(|place| place.name == disk)?;
            Some(place.serial.clone())
        };
        Self {
            geometry: Some(geometry),
            serials: names.iter().map(|name| serial(name).unwrap_or_default()).collect(),
        }
    }

    fn serial_at(&self, byte: u64) -> &str {
        let place = self.geometry.as_ref().and_then(|of| of.member_of(byte / 512));
        place
            .and_then(|(member, _)| self.serials.get(member))
            .map_or("", String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::services::command;

    fn array(paths: &Paths) -> std::path::PathBuf {
        let device = paths.at(ARRAY_DEVICE);
        std::fs::create_dir_all(device.parent().unwrap()).unwrap();
        File::create(&device).unwrap().set_len(32 << 20).unwrap();
        command::run("/sbin/mkfs.ext4", &["-q", device.to_str().unwrap()], "").unwrap();
        device
    }

    #[test]
    fn everything_used_is_read_and_the_end_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths::new(folder.path());
        let device = array(&paths);
        run(&paths).unwrap();
        let scrubs = read(&paths);
        let last = scrubs.last.unwrap();
        assert_eq!(scrubs.current, None);
        let used = extents::used(device.to_str().unwrap()).unwrap();
        assert_eq!((last.done_bytes, last.total_bytes), (used.bytes(), used.bytes()));
        assert!(last.ended.is_some() && last.unreadable.is_empty());
        std::fs::remove_file(paths.scrub_progress()).unwrap();
        assert_eq!(read(&paths).last.unwrap().done_bytes, used.bytes(), "after a restart");
    }

    #[test]
    fn one_that_was_cut_short_goes_on_and_another_arrays_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths::new(folder.path());
        let device = array(&paths);
        let used = extents::used(device.to_str().unwrap()).unwrap();
        for (uuid, position) in [(used.uuid.as_str(), 1 << 20), ("another", 0)] {
            let mut job = Job::new(&paths);
            job.scrubs.current = Some(Scrub {
                array: uuid.into(),
                begun: 7,
                position: 1 << 20,
                ..Scrub::default()
            });
            let scrub = job.begin_or_go_on(&used);
            assert_eq!(scrub.position, position);
            assert_eq!(scrub.done_bytes, used.bytes_before(position));
        }
    }

    #[test]
    fn without_an_array_it_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths::new(folder.path());
        run(&paths).unwrap();
        let current = read(&paths).current.unwrap();
        assert!(!current.failed.is_empty() && !current.is_unfinished());
    }
}
