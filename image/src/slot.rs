//! A system slot: the system, our programs, and what tells of them (release, bill of materials, licences), packed as squashfs, which GRUB and the kernel both read.
//!
//! The latter two are added to the stream on its way into mksquashfs, so that a changed program costs one packing and
//! nothing else.

use std::fs::File;
use std::io::{BufReader, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::error::{Error, OnFile, Result};
use crate::fingerprint::{self, Fingerprint};
use crate::partitions::SYSTEM_A;
use crate::programs::Program;
use crate::system::System;
use crate::workspace::Workspace;
use crate::{process, progress};

const STAGE: &str = "slot: squashfs with our programs";
const BLOCK: u64 = 512;

/// A file to add: its place without the leading `/`, its permissions, its content.
pub type Added = (String, u32, Vec<u8>);

/// Packs the slot, unless it is there already, made of the same. Returns its file.
///
/// # Errors
/// When mksquashfs fails or the slot outgrows its partition.
pub fn slot(
    workspace: &Workspace,
    system: &System,
    programs: &[Program],
    mut files: Vec<Added>,
) -> Result<(PathBuf, String)> {
    let work = workspace.work()?;
    let slot = work.join("system-a.squashfs");
    for program in programs {
        let content = std::fs::read(&program.file).on("read", &program.file)?;
        files.push((program.place.clone(), 0o755, content));
    }
    let mut fingerprint = Fingerprint::of("slot", 3).text("system", &system.fingerprint);
    for (place, mode, content) in &files {
        fingerprint = fingerprint
            .text("place", place)
            .text("mode", &mode.to_string())
            .bytes("content", content);
    }
    let fingerprint = fingerprint.finish();
    if fingerprint::is_fresh(&slot, &fingerprint) {
        progress::unchanged(STAGE);
        return Ok((slot, fingerprint));
    }
    fingerprint::forget(&slot)?;
    progress::stage(STAGE, || {
        pack(
            &system.tar,
            &files,
            &slot,
            workspace.commit_time(),
            &work.join("mksquashfs.log"),
        )
    })?;
    let size = std::fs::metadata(&slot).on("read", &slot)?.len();
    if size > SYSTEM_A.size() {
        return Err(Error::TooBig {
            what: slot.display().to_string(),
            actual: size,
            limit: SYSTEM_A.size(),
        });
    }
    fingerprint::remember(&slot, &fingerprint)?;
    Ok((slot, fingerprint))
}

fn pack(system: &Path, files: &[Added], slot: &Path, time: u64, log: &Path) -> Result<()> {
    let out = File::create(log).on("create", log)?;
    let mut command = process::command("mksquashfs");
    command
        .arg("-")
        .arg(slot)
        // gzip, since GRUB reads the kernel out of it and emulated processors are slow at anything better.
        .args(["-tar", "-comp", "gzip", "-b", "256K", "-noappend", "-no-progress"])
        .args(["-root-mode", "0755", "-root-uid", "0", "-root-gid", "0"])
        .env("SOURCE_DATE_EPOCH", time.to_string())
        .stdin(Stdio::piped())
        .stderr(out.try_clone().on("create", log)?)
        .stdout(out);
    let mut child = command
        .spawn()
        .map_err(|source| process::cannot_start(&command, source))?;
    let streamed = match child.stdin.take() {
        Some(stdin) => stream(system, files, time, stdin),
        None => Ok(()),
    };
    let status = child.wait().on("wait for", Path::new("mksquashfs"))?;
    if !status.success() {
        return Err(failed(&command, status, log));
    }
    streamed
}

fn failed(command: &Command, status: std::process::ExitStatus, log: &Path) -> Error {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    Error::Program {
        purpose: "pack the slot".to_owned(),
        program: command.get_program().to_string_lossy().into_owned(),
        status,
        log: Some(log.to_owned()),
        output: process::last_lines(&text, 10),
    }
}

/// The system's tar without its end mark, then the files, then the end mark.
fn stream(system: &Path, files: &[Added], time: u64, mut to: impl Write) -> Result<()> {
    let mut file = File::open(system).on("open", system)?;
    let end = end_of_entries(&mut file).on("read", system)?;
    file.rewind().on("read", system)?;
    std::io::copy(&mut BufReader::with_capacity(1 << 20, file).take(end), &mut to).on("read", system)?;
    let mut builder = tar::Builder::new(to);
    for (place, mode, content) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(*mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(time);
        builder
            .append_data(&mut header, format!("./{place}"), content.as_slice())
            .on("pack", Path::new(place))?;
    }
    builder.into_inner().on("pack", system)?.flush().on("pack", system)
}

/// Where the last entry of a tar file ends.
fn end_of_entries(file: &mut File) -> std::io::Result<u64> {
    let mut archive = tar::Archive::new(file);
    let mut end = 0;
    for entry in archive.entries_with_seek()? {
        let entry = entry?;
        end = entry.raw_file_position() + entry.size().next_multiple_of(BLOCK);
    }
    Ok(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_follow_the_system_even_when_its_last_file_ends_in_zeros() {
        let folder = tempfile::tempdir().unwrap();
        let system = folder.path().join("system.tar");
        let mut builder = tar::Builder::new(File::create(&system).unwrap());
        let mut header = tar::Header::new_ustar();
        header.set_size(1500);
        header.set_mode(0o644);
        builder
            .append_data(&mut header, "./zeros", [0_u8; 1500].as_slice())
            .unwrap();
        builder.into_inner().unwrap();
        let mut out = Vec::new();
        let files = [("usr/bin/x".to_owned(), 0o755, b"program".to_vec())];
        stream(&system, &files, 1, &mut out).unwrap();

        let mut archive = tar::Archive::new(out.as_slice());
        let entries: Vec<(String, u64, u32)> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let path = entry.path().unwrap().display().to_string();
                (path, entry.size(), entry.header().mode().unwrap())
            })
            .collect();
        assert_eq!(entries[0].1, 1500);
        assert_eq!(entries[1], ("usr/bin/x".to_owned(), 7, 0o755));
    }
}
