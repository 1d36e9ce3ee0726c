//! The exit codes of the command, in one place; 2, for what is no command, is clap's. They are stable; docs/cli.md has the same
//! list, and so has `--help`.

use std::process::ExitCode;

/// It was done.
pub const DONE: ExitCode = ExitCode::SUCCESS;
/// It failed, was refused, or was not confirmed; the reason is on standard error. Of checks: something is wrong.
pub const FAILED: ExitCode = ExitCode::FAILURE;
/// `status`: an alarm stands. (The codes of `clock` are its own.)
pub const ALARM: u8 = 3;
/// The appliance can't be asked: it is not here, not running, or does not permit it.
pub const UNREACHABLE: u8 = 4;

/// What `--help` says of them.
pub const HELP: &str = "\
Exit codes:
  0  done
  1  failed, refused or not confirmed, with the reason on standard error; of checks: something is wrong
  2  wrong usage
  3  status: an alarm stands
  4  the appliance can't be asked: not here, not running, or not permitted
Those of clock are ntpstat's: 0 the clock is trusted, 1 it is not, 2 that isn't known";
