//! The role `strongroom-session`, which runs in a session's unit as the client's own account.
//!
//! `append|read REPOSITORY PROGRAM ARGUMENTS…` puts up Landlock, a second wall that does not depend on the unit's, and a
//! filter that keeps the repository's files in their project, and becomes the program, or runs it within its [`bounds`] where
//! there are some. `settle REPOSITORY` sees, once the session is over, that the repository says of itself that it only grows:
//! `borg init` does not write so by itself, and whoever opens the array elsewhere should know.
//!
//! `compact REPOSITORY PROGRAM ARGUMENTS…` is for the compaction alone, which no client can ask for: for as long as the
//! program runs, and no longer, the repository does not say so.

use crate::durable;
use crate::services::projects;
use crate::sessions::bounds::{self, Bounds, Passed};
use crate::sessions::unit::Right;
use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, PathBeneath, PathFd, PathFdError, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};
use rustix::fs::{Mode, OFlags};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// What is known of Landlock here; an older kernel enforces what it knows of it.
const KNOWN: ABI = ABI::V6;
/// Longest `config` of a repository that is looked at. With a key it has some hundred bytes.
const CONFIG_MAX: u64 = 1 << 20;

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub enum ConfineError {
    /// The unit is wrong.
    #[error("strongroom-session was started wrongly; make a report to the appliance's owner")]
    Usage,
    /// The kernel refuses.
    #[error("Strongroom: the session could not be confined: {0}")]
    Landlock(#[from] RulesetError),
    /// A place is missing.
    #[error("Strongroom: the session could not be confined: {0}")]
    Place(#[from] PathFdError),
    /// The filter of system calls could not be made, or the kernel refuses it.
    #[error("Strongroom: the session could not be confined: {0}")]
    Seccomp(#[from] seccompiler::Error),
    /// The kernel knows no Landlock.
    #[error("Strongroom: the session could not be confined: the kernel has no Landlock")]
    None,
    /// The program could not be started.
    #[error("Strongroom: borg could not be started: {0}")]
    Start(io::Error),
    /// The program that was run to its end failed.
    #[error("borg failed ({0})")]
    Program(std::process::ExitStatus),
    /// It stored more than it may. systemd's record of the exit code tells the appliance.
    #[error(
        "Strongroom: more was stored than the quota allows, so the session was ended; nothing that was confirmed is lost"
    )]
    Quota,
    /// It made a repository, and stayed.
    #[error("Strongroom: a session that makes a repository may not last longer; begin another")]
    Making,
    /// The repository's `config` could not be read or written.
    #[error("the repository's config could not be looked after: {0}")]
    Config(io::Error),
}

impl ConfineError {
    /// The role's exit code.
    pub fn code(&self) -> u8 {
        match self {
            Self::Quota => bounds::PASSED_QUOTA,
            Self::Making => bounds::TOO_LONG,
            _ => 1,
        }
    }
}

/// Runs the role. Returns the exit code of what it ran to its end.
pub fn run(arguments: &[String]) -> Result<u8, ConfineError> {
    match arguments {
        [verb, repository] if verb == "settle" => settle(Path::new(repository)).map(|_| 0),
        [verb, repository, program, arguments @ ..] if verb == "compact" => {
            compact(Path::new(repository), program, arguments).map(|()| 0)
        }
        [verb, repository, program, arguments @ ..] => {
            let right = match verb.as_str() {
                "append" => Right::Append,
                "read" => Right::Read,
                _ => return Err(ConfineError::Usage),
            };
            serve(Path::new(repository), right, program, arguments)
        }
        _ => Err(ConfineError::Usage),
    }
}

fn serve(repository: &Path, right: Right, program: &str, arguments: &[String]) -> Result<u8, ConfineError> {
    confine(repository, right)?;
    let mut program = Command::new(program);
    program.args(arguments);
    // The one that Borg is told.
    let quota = arguments
        .iter()
        .find_map(|word| word.strip_prefix("--storage-quota=")?.parse().ok());
    let bounds = match right {
        Right::Append => Bounds::new(repository, quota),
        Right::Read => None,
    };
    let Some(bounds) = bounds else {
        return Err(ConfineError::Start(program.exec()));
    };
    match bounds.hold(&mut program).map_err(ConfineError::Start)? {
        Ok(status) => status
            .code()
            .and_then(|code| code.try_into().ok())
            .ok_or(ConfineError::Program(status)),
        Err(Passed::Quota) => Err(ConfineError::Quota),
        Err(Passed::Making) => Err(ConfineError::Making),
    }
}

/// Lets the program free what was deleted. Whatever stops this, the unit settles the repository afterwards; and after a
/// power cut, whoever finds the compaction unfinished does.
fn compact(repository: &Path, program: &str, arguments: &[String]) -> Result<(), ConfineError> {
    confine(repository, Right::Append)?;
    set_append_only(repository, false)?;
    let ended = Command::new(program).args(arguments).status();
    settle(repository)?;
    match ended.map_err(ConfineError::Start)? {
        status if status.success() => Ok(()),
        status => Err(ConfineError::Program(status)),
    }
}

/// Confines this thread, and what becomes of it, for good.
fn confine(repository: &Path, right: Right) -> Result<(), ConfineError> {
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    // Neither links by name, nor devices, nor pipes: Borg makes none.
    let write = read
        | AccessFs::WriteFile
        | AccessFs::Truncate
        | AccessFs::MakeReg
        | AccessFs::MakeDir
        | AccessFs::RemoveFile
        | AccessFs::RemoveDir
        | AccessFs::Refer;
    let of_repository: BitFlags<AccessFs> = match right {
        Right::Append => write,
        Right::Read => read,
    };
    let places: [(&Path, BitFlags<AccessFs>); 5] = [
        (Path::new("/usr"), read | AccessFs::Execute),
        (Path::new("/dev/null"), AccessFs::ReadFile | AccessFs::WriteFile),
        (Path::new("/dev/urandom"), AccessFs::ReadFile.into()),
        (Path::new("/tmp"), write),
        (repository, of_repository),
    ];
    let mut rules = Ruleset::default()
        .handle_access(AccessFs::from_all(KNOWN))?
        .handle_access(AccessNet::from_all(KNOWN))?
        .scope(Scope::from_all(KNOWN))?
        .create()?;
    for (path, access) in places {
        rules = rules.add_rule(PathBeneath::new(PathFd::new(path)?, access))?;
    }
    match rules.restrict_self()?.ruleset {
        RulesetStatus::NotEnforced => Err(ConfineError::None),
        _ => Ok(keep_in_project()?),
    }
}

/// `FS_IOC_SETFLAGS`, and as programs of 32 bits call it: they change what is marked as `chattr +P` does.
const SET_FLAGS: [u32; 2] = [0x4008_6602, 0x4004_6602];
/// `file_setattr`, of Linux 6.17.
const FILE_SETATTR: i64 = 469;

/// Refuses the calls by which a file's owner may take it out of its project, and so out of the kernel's bound of its client.
/// systemd's filter can't tell one ioctl(2) from another, and Borg needs some.
fn keep_in_project() -> Result<(), seccompiler::Error> {
    let request = |code: u32| {
        // The kernel looks at 32 bits of it.
        let condition = SeccompCondition::new(1, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, code.into())?;
        SeccompRule::new(vec![condition])
    };
    let requests = SET_FLAGS.into_iter().chain([projects::SET]).map(request);
    let rules = [
        (libc::SYS_ioctl, requests.collect::<Result<Vec<_>, _>>()?),
        (FILE_SETATTR, Vec::new()),
    ];
    let filter: BpfProgram = SeccompFilter::new(
        rules.into_iter().collect(),
        SeccompAction::Allow,
        SeccompAction::Errno(libc::EPERM.cast_unsigned()),
        TargetArch::try_from(std::env::consts::ARCH)?,
    )?
    .try_into()?;
    seccompiler::apply_filter(&filter)
}

/// Sees that a repository's `config` has `append_only = 1`. Returns whether it had to be written. What is not a repository
/// of Borg 1.x is left alone.
pub fn settle(repository: &Path) -> Result<bool, ConfineError> {
    set_append_only(repository, true)
}

fn set_append_only(repository: &Path, wanted: bool) -> Result<bool, ConfineError> {
    let path = repository.join("config");
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match rustix::fs::open(&path, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::LOOP) => return Ok(false),
        Err(error) => return Err(ConfineError::Config(error.into())),
    };
    let metadata = file.metadata().map_err(ConfineError::Config)?;
    if !metadata.is_file() || metadata.len() > CONFIG_MAX {
        return Ok(false);
    }
    let mut text = String::new();
    if file.take(CONFIG_MAX).read_to_string(&mut text).is_err() {
        return Ok(false);
    }
    let Some(settled) = append_only(&text, wanted) else {
        return Ok(false);
    };
    let mode = metadata.permissions().mode() & 0o777;
    durable::write(&path, settled.as_bytes(), mode).map_err(ConfineError::Config)?;
    Ok(true)
}

/// The text of a repository's `config` with `append_only = 1`, or 0, and otherwise byte for byte as it was; `None` when it
/// says so already, or is not that of a Borg 1.x repository.
///
/// The form is Python's configparser's: sections, `name = value` or `name: value`, a value goes on in lines that begin with
/// white space.
fn append_only(text: &str, wanted: bool) -> Option<String> {
    let digit = if wanted { "1" } else { "0" };
    let mut inside = false;
    let mut version_ends = None;
    let mut found = None;
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let (begin, end) = (start, start + line.len());
        start = end;
        let content = line.trim_end_matches(['\n', '\r']);
        if content.starts_with([' ', '\t', '#', ';']) {
            continue;
        }
        if content.starts_with('[') {
            inside = content.trim_end() == "[repository]";
            continue;
        }
        let Some(at) = content.find(['=', ':']).filter(|_| inside) else {
            continue;
        };
        let value = content[at + 1..].trim();
        match content[..at].trim_end().to_ascii_lowercase().as_str() {
            "version" if value == "1" => version_ends = Some(end),
            "version" => return None,
            "append_only" if value == digit => return None,
            "append_only" => found = Some((begin + at + 1, begin + content.len())),
            _ => {}
        }
    }
    let version_ends = version_ends?;
    let (from, to, new) = match found {
        Some((from, to)) => (from, to, format!(" {digit}")),
        // Without a word it is 0.
        None if wanted && text[..version_ends].ends_with('\n') => {
            (version_ends, version_ends, "append_only = 1\n".into())
        }
        None => return None,
    };
    Some([&text[..from], &new, &text[to..]].concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CONFIG: &str = "[repository]\nversion = 1\nsegments_per_dir = 1000\nmax_segment_size = 524288000\nappend_only = 0\nstorage_quota = 0\nadditional_free_space = 0\nid = 7d1c\nkey = hqlhbGdvcml0aG2mc2hhMjU2\n\tappend_only = 0\n\tZGF0YQ==\n\n";

    #[test]
    fn only_the_one_value_changes() {
        let settled = append_only(CONFIG, true).unwrap();
        assert_eq!(settled, CONFIG.replacen("append_only = 0\n", "append_only = 1\n", 1));
        assert_eq!(append_only(&settled, true), None);
        assert_eq!(append_only(&settled, false).as_deref(), Some(CONFIG), "and back");
        assert_eq!(append_only(CONFIG, false), None);
        assert_eq!(append_only("[repository]\nversion = 1\nid = 7d1c\n", false), None);
    }

    #[test]
    fn a_missing_value_is_added_and_odd_ones_are_replaced() {
        let without = "[repository]\nversion = 1\nid = 7d1c\n";
        assert_eq!(
            append_only(without, true).unwrap(),
            "[repository]\nversion = 1\nappend_only = 1\nid = 7d1c\n"
        );
        for odd in [
            "append_only: False",
            "Append_Only =0",
            "append_only =",
            "append_only = true",
        ] {
            let text = format!("[repository]\r\nversion = 1\r\n{odd}\r\nid = 7d1c\r\n");
            let settled = append_only(&text, true).unwrap();
            assert!(settled.contains(" 1\r\nid"), "{settled:?}");
            assert_eq!(append_only(&settled, true), None);
        }
    }

    #[test]
    fn what_is_not_borgs_is_left_alone() {
        for text in [
            "",
            "hello",
            "[core]\nversion = 1\nappend_only = 0\n",
            "[repository]\nversion = 2\nappend_only = 0\n",
            "[repository]\nappend_only = 0\n",
            "version = 1\nappend_only = 0\n",
            "[repository]\nversion = 1",
        ] {
            assert_eq!(append_only(text, true), None, "{text:?}");
        }
    }

    #[test]
    fn settling_keeps_the_mode_and_follows_no_link() {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("config");
        assert!(!settle(folder.path()).unwrap());
        std::fs::write(&config, CONFIG).unwrap();
        std::fs::set_permissions(&config, PermissionsExt::from_mode(0o600)).unwrap();
        assert!(settle(folder.path()).unwrap());
        assert!(!settle(folder.path()).unwrap());
        assert_eq!(std::fs::metadata(&config).unwrap().permissions().mode() & 0o777, 0o600);
        let other = tempfile::tempdir().unwrap();
        std::fs::write(other.path().join("config"), CONFIG).unwrap();
        std::fs::remove_file(&config).unwrap();
        std::os::unix::fs::symlink(other.path().join("config"), &config).unwrap();
        assert!(!settle(folder.path()).unwrap());
        assert_eq!(std::fs::read_to_string(other.path().join("config")).unwrap(), CONFIG);
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic_and_it_settles_once(text in "(\\[repository\\]\n)?(version ?[=:] ?1\n)?([a-z_]{0,12} ?[=:]? ?[01]?\r?\n?){0,4}(append_only ?= ?0\n)?") {
            if let Some(settled) = append_only(&text, true) {
                prop_assert_eq!(append_only(&settled, true), None);
            }
        }
    }
}
