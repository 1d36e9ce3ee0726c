//! The kernel's own log, /dev/kmsg (Documentation/ABI/testing/dev-kmsg): one record per read, from the oldest that is
//! still kept.
//!
//! Only the kernel's messages (facility 0) are handed on. Whatever a program writes into /dev/kmsg the kernel marks as
//! coming from a program, and what is in the journal besides never comes here: no client can put words into the
//! kernel's mouth.

use rustix::event::{PollFd, PollFlags, poll};
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

/// Longest record (`PRINTKRB_RECORD_MAX` of the kernel is 1024; room for its fields).
const RECORD_BYTES_MAX: usize = 8192;

/// One message of the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its number; counts up from the start.
    pub sequence: u64,
    /// The text.
    pub message: String,
}

/// The log, open for reading.
#[derive(Debug)]
pub struct KernelLog {
    file: File,
}

impl KernelLog {
    /// Opens the log at its oldest record.
    pub fn open(path: &Path) -> std::io::Result<Self> {
        let nonblocking = rustix::fs::OFlags::NONBLOCK.bits() as i32;
        let file = File::options().read(true).custom_flags(nonblocking).open(path)?;
        Ok(Self { file })
    }

    /// The next message of the kernel; `None` when there is none for now.
    pub fn take(&mut self) -> std::io::Result<Option<Record>> {
        let mut bytes = [0; RECORD_BYTES_MAX];
        loop {
            match self.file.read(&mut bytes) {
                Ok(0) => return Ok(None),
                Ok(length) => {
                    if let Some(record) = parse(&String::from_utf8_lossy(&bytes[..length])) {
                        return Ok(Some(record));
                    }
                }
                // Records were overwritten before they were read, or one is too long: go on with the next.
                Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::InvalidInput) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }

    /// Waits until there is something to read, at most for `timeout`.
    pub fn wait(&self, timeout: Duration) -> std::io::Result<()> {
        let timeout = rustix::event::Timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        };
        match poll(&mut [PollFd::new(&self.file, PollFlags::IN)], Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// `priority,sequence,microseconds,flags[,…];text`, then lines of fields that begin with a space. The priority is the
/// facility times eight plus the level.
fn parse(record: &str) -> Option<Record> {
    let (head, rest) = record.split_once(';')?;
    let mut fields = head.split(',');
    let priority: u32 = fields.next()?.parse().ok()?;
    let sequence = fields.next()?.parse().ok()?;
    if priority >> 3 != 0 {
        return None;
    }
    Some(Record {
        sequence,
        message: rest.lines().next().unwrap_or_default().to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_messages_and_nobody_elses() {
        let record =
            parse("3,1042,98765432,-;I/O error, dev sdb, sector 8\n SUBSYSTEM=block\n DEVICE=b8:16\n").unwrap();
        assert_eq!(record.sequence, 1042);
        assert_eq!(record.message, "I/O error, dev sdb, sector 8");
        // Written by a program: the facility is "user" (1) at least, whatever it asked for.
        assert_eq!(parse("11,1043,98765433,-;I/O error, dev sdb, sector 8\n"), None);
        for damaged in ["", ";", "3;x", "x,1,2,-;y", "3,-1,2,-;y"] {
            assert_eq!(parse(damaged), None, "{damaged}");
        }
    }
}
