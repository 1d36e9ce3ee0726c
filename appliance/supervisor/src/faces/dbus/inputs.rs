//! What repairs were given to read from, until their jobs fetch it.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};
use strongroom_model::name::ClientName;

/// At most one for each client.
#[derive(Default)]
pub struct Inputs(Mutex<BTreeMap<ClientName, (u32, OwnedFd)>>);

impl Inputs {
    /// Keeps one for the repair of a segment, in the place of any other of that client.
    pub fn put(&self, client: ClientName, segment: u32, input: OwnedFd) {
        self.lock().insert(client, (segment, input));
    }

    /// Gives it out, once.
    pub fn take(&self, client: &ClientName, segment: u32) -> Option<OwnedFd> {
        let mut inputs = self.lock();
        if inputs.get(client)?.0 != segment {
            return None;
        }
        inputs.remove(client).map(|(_, input)| input)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ClientName, (u32, OwnedFd)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    #[test]
    fn what_a_repair_was_given_is_fetched_once_and_by_that_repair() {
        let inputs = Inputs::default();
        let asus = ClientName::new("asus").unwrap();
        let give = |segment, text: &str| {
            let (input, mut output) = std::io::pipe().unwrap();
            output.write_all(text.as_bytes()).unwrap();
            inputs.put(asus.clone(), segment, input.into());
        };
        give(17, "old");
        give(17, "new");
        assert!(inputs.take(&ClientName::new("laptop").unwrap(), 17).is_none());
        assert!(inputs.take(&asus, 18).is_none());
        let mut text = String::new();
        let input = inputs.take(&asus, 17).unwrap();
        std::fs::File::from(input).read_to_string(&mut text).unwrap();
        assert_eq!(text, "new");
        assert!(inputs.take(&asus, 17).is_none());
    }
}
