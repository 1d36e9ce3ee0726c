//! Asking the owner for what was not given. Secrets are never shown, and never come as an argument.

use super::TargetFailure;
use std::io::{IsTerminal, Read, Write};
use std::path::Path;
use zeroize::Zeroizing;

/// Longest secret that is taken, in bytes.
const SECRET_MAX: u64 = 4096;

/// What was given, or what is typed. `option` is named where nobody can be asked.
pub fn given_or_asked(
    what: &'static str,
    option: &'static str,
    given: &Option<String>,
) -> Result<String, TargetFailure> {
    if let Some(given) = given {
        return Ok(given.trim().into());
    }
    if !std::io::stdin().is_terminal() {
        return Err(TargetFailure::Missing(what, option));
    }
    match typed(what)?.trim() {
        "" => Err(TargetFailure::Missing(what, option)),
        typed => Ok(typed.into()),
    }
}

/// What was given, or what is typed, which may be nothing. Nobody is asked where nobody is there.
pub fn given_or_offered(what: &'static str, given: &Option<String>) -> Result<Option<String>, TargetFailure> {
    let typed = match given {
        Some(given) => given.clone(),
        None if std::io::stdin().is_terminal() => typed(what)?,
        None => return Ok(None),
    };
    Ok(Some(typed.trim().to_owned()).filter(|typed| !typed.is_empty()))
}

fn typed(what: &'static str) -> Result<String, TargetFailure> {
    eprint!("{what}: ");
    let _ = std::io::stderr().flush();
    let mut typed = String::new();
    std::io::stdin().read_line(&mut typed).map_err(TargetFailure::Ask)?;
    Ok(typed)
}

/// The secret access key: from a file, from standard input (`-`), or typed unseen.
pub fn secret(file: Option<&Path>) -> Result<Zeroizing<String>, TargetFailure> {
    let what = "The secret access key";
    let read = |input: &mut dyn Read| {
        let mut text = Zeroizing::new(String::new());
        input.take(SECRET_MAX).read_to_string(&mut text).map(|_| text)
    };
    let secret = match file {
        Some(path) if path.as_os_str() == "-" => read(&mut std::io::stdin()).map_err(TargetFailure::Ask)?,
        Some(path) => std::fs::File::open(path)
            .and_then(|mut file| read(&mut file))
            .map_err(|error| TargetFailure::Read(path.into(), error))?,
        None if std::io::stdin().is_terminal() => {
            Zeroizing::new(rpassword::prompt_password("Secret access key (not shown): ").map_err(TargetFailure::Ask)?)
        }
        None => return Err(TargetFailure::Missing(what, "--secret-key-file")),
    };
    let trimmed = secret.trim();
    if trimmed.is_empty() || !trimmed.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(TargetFailure::Secret);
    }
    Ok(Zeroizing::new(trimmed.into()))
}
