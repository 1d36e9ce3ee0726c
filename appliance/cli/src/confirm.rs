//! Asking before something that can't be taken back, or that changes what a client has.

use std::io::{IsTerminal, Write};

/// Whether the owner confirms, by typing the client's name or by `--yes NAME`. `Err`: why not.
pub fn client(name: &str, yes: Option<&str>, verb: &str) -> Result<(), String> {
    named("the client's name", name, yes, verb)
}

/// Whether the owner confirms, by typing `name`, which is `what`, or by `--yes NAME`. `Err`: why not.
pub fn named(what: &str, name: &str, yes: Option<&str>, verb: &str) -> Result<(), String> {
    match yes {
        Some(given) if given == name => return Ok(()),
        Some(given) => {
            return Err(format!("`--yes {given}` is not {what}, `{name}`; nothing was done"));
        }
        None => {}
    }
    if !std::io::stdin().is_terminal() {
        return Err(format!(
            "nothing was done: nobody is here to confirm. If you have read the above and mean it: `strongroom {verb} --yes {name}`"
        ));
    }
    eprint!("Type {what} (`{name}`) to go on, anything else to leave: ");
    let _ = std::io::stderr().flush();
    let mut typed = String::new();
    match std::io::stdin().read_line(&mut typed) {
        Ok(_) if typed.trim() == name => Ok(()),
        _ => Err("nothing was done".into()),
    }
}

/// Whether the owner says yes to a question, that of a request or of a plan: told to go on by `--yes` otherwise.
pub fn agrees(question: &str) -> bool {
    if !std::io::stdin().is_terminal() {
        eprintln!("Nobody is here to agree. If that is meant: the same again with --yes");
        return false;
    }
    eprint!("{question} [y/N] ");
    let _ = std::io::stderr().flush();
    let mut typed = String::new();
    std::io::stdin().read_line(&mut typed).is_ok() && matches!(typed.trim(), "y" | "Y" | "yes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_name_confirms() {
        assert_eq!(client("asus", Some("asus"), "compact asus"), Ok(()));
        assert!(client("asus", Some("laptop"), "compact asus").is_err());
        assert!(client("asus", Some(""), "compact asus").is_err());
    }
}
