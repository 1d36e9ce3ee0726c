//! The role `strongroom-upkeep repair NAME:segment:NUMBER`: puts a sound copy of a segment in the place of the damaged one.
//! The appliance can't open its own off-site copies; whoever has the key sends the segment, and it counts only if it is,
//! byte for byte, what the appliance wrote down of it while it was sound.
//!
//! First all of it is received into a file beside the repository, and verified there; nobody is held out meanwhile, however
//! slow it comes. Then the client is held out, the damaged file gets a second name in a folder that no client sees, and the
//! good one takes its place in one step. Each step can be done again; a job that was cut short goes on where it was.

use super::begin::{self, Begun, UpkeepError};
use super::beside::{Beside, FOLDER, folder_in, give, io, join_project, regular, remove};
use super::hold::{self, Hold};
use super::told;
use crate::configuration::in_force;
use crate::paths::Paths;
use crate::services::systemd::Systemd;
use crate::sessions::list;
use crate::watch::ledger::{Known, Ledger, hex, unhex};
use crate::watch::verify_job::segment_of;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{
    Advice, AtFlags, Dir, Mode, OFlags, Stat, Timestamps, UTIME_OMIT, fadvise, fchmod, fstat, futimens, openat,
    renameat, statat,
};
use rustix::io::Errno;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::ops::ControlFlow;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use strongroom_borg::segment::ReadError;
use strongroom_borg::verify::Event;
use strongroom_borg::{Plan, Problem, Repository, SegmentFile, SegmentNumber, SegmentReader};
use strongroom_model::config::Config;
use strongroom_model::name::ClientName;
use strongroom_model::upkeep::repair::{self, Content, Found, Witness};
use strongroom_model::upkeep::{Journal, Outcome, Work};
use strongroom_offsite::ledger::read_segment;
use zbus::Connection;

/// How long the sender may send nothing, in seconds.
const STALL: i64 = 120;
/// Bytes received at once.
const PIECE: usize = 128 * 1024;

#[zbus::proxy(
    interface = "org.strongroom.Appliance1.Client",
    default_service = "org.strongroom.Appliance1"
)]
trait Inputs {
    fn repair_input(&self, segment: u32) -> zbus::Result<zbus::OwnedFd>;
}

/// Runs the role to its end.
pub fn run(paths: &Paths, instance: &str) -> Result<(), UpkeepError> {
    let Some((name, work @ Work::Repair { segment })) = Work::of_instance(instance) else {
        return Err(UpkeepError::Usage);
    };
    let config = in_force(paths);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let bus = runtime.block_on(Connection::system())?;
    if hold::of(paths, &name) == Hold::Open {
        let received = runtime.block_on(input(&bus, &name, segment)).and_then(|input| {
            let content = need(paths, &config, &name, segment)?;
            receive(paths, &name, segment, &content, &input)
        });
        if let Err(error) = received {
            return begin::refused(paths, &name, work, error);
        }
    }
    let running = runtime.block_on(async {
        let systemd = Systemd::new(&bus).await?;
        Ok::<_, UpkeepError>(list::of_client(&systemd, &name).await?)
    })?;
    let begun = match begin::begin(paths, &config, &name, work, &running) {
        Ok(begun) => begun,
        Err(error) => {
            if hold::of(paths, &name) == Hold::Open {
                discard(paths, &name, segment)?;
            }
            return begin::refused(paths, &name, work, error);
        }
    };
    put(paths, &name, &begun.journal, &mut || true)?;
    let outcome = finish(paths, &name, &begun)?;
    hold::release(paths, &name, &outcome)?;
    begin::say(&name, &outcome);
    Ok(())
}

/// What the supervisor was given to read from.
async fn input(bus: &Connection, name: &ClientName, segment: u32) -> Result<OwnedFd, UpkeepError> {
    let client = InputsProxy::builder(bus)
        .path(strongroom_model::bus::client(name))
        .build();
    match client.await?.repair_input(segment).await {
        Ok(input) => Ok(input.into()),
        Err(zbus::Error::MethodError(_, Some(text), _)) => Err(UpkeepError::Failed(text)),
        Err(other) => Err(other.into()),
    }
}

/// What the segment of this repository has to be, as the ledgers say.
///
/// Errors: none of them knows it, or they can't be read.
pub fn wanted(
    paths: &Paths,
    config: &Config,
    name: &ClientName,
    repository: &str,
    segment: u32,
) -> Result<Content, UpkeepError> {
    witnessed(
        paths,
        config,
        name,
        &Ledger::read(&paths.watch(name), repository)?,
        segment,
    )
}

fn witnessed(
    paths: &Paths,
    config: &Config,
    name: &ClientName,
    ledger: &Ledger,
    segment: u32,
) -> Result<Content, UpkeepError> {
    let checked = ledger.segments.get(&segment).map(|known| Witness {
        size: known.size,
        sha256: known.sum.map(|sum| hex(&sum)),
    });
    let mut copies = Vec::new();
    let client = config.client(name.as_str());
    for target in client.into_iter().flat_map(|client| config.targets_of(client)) {
        let folder = paths.ledger(name, target.name.get_ref());
        let item = read_segment(&folder, &ledger.repository, SegmentNumber(segment))
            .map_err(|error| UpkeepError::Failed(error.to_string()))?;
        copies.push(item.map(|item| Witness {
            size: item.plain_size,
            sha256: item.plain_sha256.map(|sum| sum.to_string()),
        }));
    }
    Ok(repair::wanted(name, segment, checked.as_ref(), &copies)?)
}

/// What has to be put in the segment's place, where there is something to repair. Reads what is there now.
///
/// Errors: there is nothing to repair, or it can't be told what the segment was.
pub fn need(paths: &Paths, config: &Config, name: &ClientName, segment: u32) -> Result<Content, UpkeepError> {
    let repository = Repository::open(paths.repository(name))?;
    let ledger = Ledger::read(&paths.watch(name), &repository.config().id.to_string())?;
    let content = witnessed(paths, config, name, &ledger, segment);
    let remembered = ledger.segments.contains_key(&segment);
    let (found, _) = look(&repository, segment, content.as_ref().ok(), remembered)?;
    repair::needed(segment, found)?;
    content
}

/// Reads what lies in the segment's place, as a check does, with what is wrong with it in words. `remembered`: its ledger
/// says that it belongs there.
fn look(
    repository: &Repository,
    segment: u32,
    content: Option<&Content>,
    remembered: bool,
) -> Result<(Found, String), UpkeepError> {
    let last = repository.last_commit()?.map(|commit| commit.transaction);
    let present = match last {
        Some(last) => repository.state(last)?.iter().any(|file| file.number.0 == segment),
        None => false,
    };
    let sum = content.and_then(|content| unhex(&content.sha256));
    let (mut sound, mut problem) = (false, None);
    let plan = Plan {
        sums: true,
        only: &|file: &SegmentFile| file.number.0 == segment,
        ledger: &|_| sum,
        ..Plan::new()
    };
    repository.verify(&plan, &mut |event| {
        match event {
            Event::Problem(one) => {
                // The last commit is itself what was lost: Borg's index bears its number, and nothing was committed since.
                let commit = matches!(one, Problem::CommitLost { index, .. } if index.0 == segment);
                if commit || segment_of(&one) == Some(segment) {
                    problem = Some(one.to_string());
                }
            }
            Event::Segment { .. } => sound = true,
            Event::Progress(_) => {}
        }
        ControlFlow::Continue(())
    })?;
    Ok(match problem {
        Some(words) if present => (Found::Damaged, words),
        Some(words) => (Found::Missing, words),
        None if sound => (Found::Sound, String::new()),
        // What lies above the last commit is not final, whatever was remembered.
        None if remembered && last.is_some_and(|last| segment <= last.0) => {
            (Found::Missing, format!("segment {segment} is missing"))
        }
        None => (Found::Absent, String::new()),
    })
}

/// Receives what `input` gives into a file beside the repository, and verifies it there.
///
/// Errors: it isn't what the segment was, it doesn't come, or there is no room; then nothing is left of it.
pub fn receive(
    paths: &Paths,
    name: &ClientName,
    segment: u32,
    content: &Content,
    input: &impl AsFd,
) -> Result<(), UpkeepError> {
    let beside = Beside::open(paths, name, &paths.damaged(name))?;
    clear(&beside)?;
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = openat(&beside.kept, incoming(segment), flags, Mode::RUSR | Mode::WUSR).map_err(io("what comes in"))?;
    let file = File::from(file);
    let taken = take(&file, segment, content, input).and_then(|()| {
        if let Some(why) = differs(&file, segment, content)? {
            return Err(UpkeepError::Failed(why));
        }
        like(&file, &beside, paths, name, segment)
    });
    if taken.is_err() {
        discard(paths, name, segment)?;
    }
    taken
}

/// What the names of files end in into which segments are received.
const INCOMING: &str = ".new";

/// Name of the file into which a segment is received.
fn incoming(segment: u32) -> String {
    format!("{segment}{INCOMING}")
}

/// Removes what jobs left that were cut short while they received, of whatever segment.
fn clear(beside: &Beside) -> Result<(), UpkeepError> {
    let what = "what came in before";
    for entry in Dir::read_from(&beside.kept).map_err(io(what))? {
        let entry = entry.map_err(io(what))?;
        if entry.file_name().to_bytes().ends_with(INCOMING.as_bytes()) {
            remove(&beside.kept, entry.file_name()).map_err(io(what))?;
        }
    }
    Ok(())
}

/// Removes what was received.
fn discard(paths: &Paths, name: &ClientName, segment: u32) -> Result<(), UpkeepError> {
    let beside = Beside::open(paths, name, &paths.damaged(name))?;
    remove(&beside.kept, incoming(segment)).map_err(io("what came in before"))
}

/// Receives no more than the segment's bytes and one.
fn take(mut file: &File, segment: u32, content: &Content, input: &impl AsFd) -> Result<(), UpkeepError> {
    let failed = |error: std::io::Error| UpkeepError::Io("what comes in".into(), error);
    let limit = content.size.saturating_add(1);
    let mut buffer = vec![0; PIECE];
    let (mut hash, mut received) = (Sha256::new(), 0_u64);
    while received < limit {
        if !wait(input).map_err(|error| failed(error.into()))? {
            return Err(UpkeepError::Failed(format!(
                "nothing more came in for {STALL} seconds, after {received} of {} bytes",
                content.size
            )));
        }
        let room = usize::try_from(limit - received).unwrap_or(PIECE).min(PIECE);
        let length = match rustix::io::read(input, &mut buffer[..room]) {
            Ok(0) => break,
            Ok(length) => length,
            Err(Errno::INTR | Errno::AGAIN) => continue,
            Err(error) => return Err(failed(error.into())),
        };
        hash.update(&buffer[..length]);
        file.write_all(&buffer[..length]).map_err(failed)?;
        received += length as u64;
    }
    match repair::refused(segment, content, received, &hex(&hash.finalize())) {
        Some(why) => Err(UpkeepError::Failed(why)),
        None => file.sync_all().map_err(failed),
    }
}

/// Waits until there is something to read, or the end. Returns false when nothing came for long.
fn wait(input: &impl AsFd) -> Result<bool, Errno> {
    let stall = Timespec {
        tv_sec: STALL,
        tv_nsec: 0,
    };
    loop {
        match poll(&mut [PollFd::new(input, PollFlags::IN)], Some(&stall)) {
            Ok(ready) => return Ok(ready > 0),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Reads back from the disk what was received. Returns why it is not what it has to be.
fn differs(mut file: &File, segment: u32, content: &Content) -> Result<Option<String>, UpkeepError> {
    let failed = |error| UpkeepError::Io("what came in".into(), error);
    // Advice is only that.
    let _ = fadvise(file, 0, None, Advice::DontNeed);
    file.rewind().map_err(failed)?;
    let mut hash = Sha256::new();
    let input = Hashing { file, hash: &mut hash };
    let damage = match SegmentReader::new(input).and_then(|mut entries| entries.try_for_each(|entry| entry.map(drop))) {
        Ok(()) => None,
        Err(ReadError::Damage(damage)) => Some(damage),
        Err(ReadError::Io(error)) => return Err(failed(error)),
    };
    if let Some(damage) = damage {
        return Ok(Some(format!(
            "what came in is no sound segment: {damage}. If it was damaged already when it was pushed, there is no better copy of segment {segment}"
        )));
    }
    let size = file.metadata().map_err(failed)?.len();
    Ok(repair::refused(segment, content, size, &hex(&hash.finalize())))
}

/// Passes bytes on and sums them up on the way.
struct Hashing<'a> {
    file: &'a File,
    hash: &'a mut Sha256,
}

impl Read for Hashing<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let length = self.file.read(buffer)?;
        self.hash.update(&buffer[..length]);
        Ok(length)
    }
}

/// Gives what was received the mode and the time of the file that it replaces, so that nothing takes it for changed.
fn like(file: &File, beside: &Beside, paths: &Paths, name: &ClientName, segment: u32) -> Result<(), UpkeepError> {
    if let Some(old) = at(beside, &place(paths, name, segment)?)? {
        fchmod(file, Mode::from_raw_mode(old.st_mode)).map_err(io("what came in"))?;
        let time = Timespec {
            tv_sec: old.st_mtime,
            tv_nsec: old.st_mtime_nsec.cast_signed(),
        };
        let unchanged = Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        };
        let times = Timestamps {
            last_access: unchanged,
            last_modification: time,
        };
        futimens(file, &times).map_err(io("what came in"))?;
    }
    file.sync_all()
        .map_err(|error| UpkeepError::Io("what came in".into(), error))
}

/// Where Borg looks for a segment: the folder's name below `data`, and the file's.
fn place(paths: &Paths, name: &ClientName, segment: u32) -> Result<[String; 2], UpkeepError> {
    let per_folder = Repository::open(paths.repository(name))?.config().segments_per_dir;
    Ok([(segment / per_folder).to_string(), segment.to_string()])
}

/// The regular file there; `None` when there is nothing.
fn at(beside: &Beside, [folder, file]: &[String; 2]) -> Result<Option<Stat>, UpkeepError> {
    let what = format!("data/{folder}/{file}");
    let data = openat(&beside.repository, "data", FOLDER, Mode::empty()).map_err(io(&what))?;
    let found = openat(&data, folder, FOLDER, Mode::empty())
        .and_then(|folder| statat(&folder, file, AtFlags::SYMLINK_NOFOLLOW));
    match found {
        Ok(found) => regular(&found, &what).map(|()| Some(found)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(io(&what)(error)),
    }
}

/// Where a repair keeps the damaged segment: a folder of its own for each.
pub fn kept(paths: &Paths, name: &ClientName, journal: &Journal, segment: u32) -> PathBuf {
    paths.damaged(name).join(format!("{segment}-{}", journal.since))
}

/// Does all steps that are not done yet. `go_on` is asked before each; returns whether it came to its end.
pub fn put(
    paths: &Paths,
    name: &ClientName,
    journal: &Journal,
    go_on: &mut dyn FnMut() -> bool,
) -> Result<bool, UpkeepError> {
    let (Work::Repair { segment }, Some(content)) = (journal.work, &journal.content) else {
        return Err(UpkeepError::Usage);
    };
    let spool = Beside::open(paths, name, &paths.damaged(name))?;
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = match openat(&spool.kept, incoming(segment), flags, Mode::empty()) {
        Ok(file) => File::from(file),
        // It is in its place already.
        Err(Errno::NOENT) => return Ok(true),
        Err(error) => return Err(io("what came in")(error)),
    };
    // A disk that damaged one file may have damaged another; the end tells that nothing was repaired.
    if let Some(why) = differs(&file, segment, content)? {
        eprintln!("{name}: {why}");
        discard(paths, name, segment)?;
        return Ok(true);
    }
    let beside = Beside::open(paths, name, &kept(paths, name, journal, segment))?;
    let place = place(paths, name, segment)?;
    let [folder, number] = &place;
    if at(&beside, &place)?.is_none() {
        // Whoever wrote Borg's index last may have done so without this segment. Borg derives it anew.
        for file in beside.derived()? {
            if !go_on() {
                return Ok(false);
            }
            beside.set_aside(&[], &file)?;
        }
    }
    if !go_on() {
        return Ok(false);
    }
    beside.keep(&["data", folder.as_str()], number)?;
    if !go_on() {
        return Ok(false);
    }
    let owner = fstat(&file).map_err(io("what came in"))?;
    if (owner.st_uid, owner.st_gid) != (beside.owner.st_uid, beside.owner.st_gid) {
        give(&file, &beside.owner).map_err(io("what came in"))?;
    }
    // What is kept and whose the new one is are on the disk before it shows.
    beside.sync()?;
    if !go_on() {
        return Ok(false);
    }
    let data = openat(&beside.repository, "data", FOLDER, Mode::empty()).map_err(io("data"))?;
    let to = folder_in(&data, folder.as_ref(), Some(&beside.owner)).map_err(io(folder))?;
    join_project(&file, &to).map_err(io("what came in"))?;
    renameat(&spool.kept, incoming(segment), &to, number).map_err(io(format!("segment {segment}")))?;
    beside.sync()?;
    Ok(true)
}

/// Reads the segment back, as a check does, and tells what is remembered what came of it.
pub fn finish(paths: &Paths, name: &ClientName, begun: &Begun) -> Result<Outcome, UpkeepError> {
    let journal = &begun.journal;
    let (Work::Repair { segment }, Some(content)) = (journal.work, &journal.content) else {
        return Err(UpkeepError::Usage);
    };
    let at = crate::clock_now().unwrap_or_default();
    let repository = Repository::open(paths.repository(name))?;
    let (found, words) = look(&repository, segment, Some(content), true)?;
    let (now, error) = if found == Found::Sound {
        let known = Known {
            size: content.size,
            sum: unhex(&content.sha256),
            verified: at,
        };
        (told::repaired(paths, name, segment, known)?, String::new())
    } else {
        (told::now(&repository)?, format!("it is not repaired: {words}"))
    };
    Ok(now.outcome(journal, at, error))
}
