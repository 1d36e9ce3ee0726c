//! Memory that a message is made in.

/// Octets, one behind the other. The memory behind them keeps what it was used for: to clear it before each read would take as
/// long as the reading.
#[derive(Default)]
pub struct Room {
    memory: Vec<u8>,
    length: usize,
}

impl Room {
    /// Empty, and takes so many octets before it has to grow. Takes up memory only as it is filled.
    #[must_use]
    pub fn with_capacity(octets: usize) -> Self {
        Self {
            memory: Vec::with_capacity(octets),
            length: 0,
        }
    }

    /// What is in it.
    #[must_use]
    pub fn octets(&self) -> &[u8] {
        self.memory.split_at(self.length).0
    }

    /// Its last octets, all of them if there are not so many.
    #[must_use]
    pub fn last_mut(&mut self, octets: usize) -> &mut [u8] {
        let (there, _) = self.memory.split_at_mut(self.length);
        let before = there.len().saturating_sub(octets);
        there.split_at_mut(before).1
    }

    /// Puts octets behind the others.
    pub fn add(&mut self, octets: &[u8]) {
        self.spare(octets.len()).copy_from_slice(octets);
        self.added(octets.len());
    }

    /// Memory for so many octets more, with anything in it: to be written to, then counted by [`Room::added`].
    #[must_use]
    pub fn spare(&mut self, octets: usize) -> &mut [u8] {
        let end = self.length + octets;
        if self.memory.len() < end {
            self.memory.resize(end, 0);
        }
        let (_, spare) = self.memory.split_at_mut(self.length);
        spare.split_at_mut(octets).0
    }

    /// Counts octets that were written to [`Room::spare`].
    pub fn added(&mut self, octets: usize) {
        self.length = (self.length + octets).min(self.memory.len());
    }

    /// Takes away all from this octet on.
    #[must_use]
    pub fn split_off(&mut self, at: usize) -> Vec<u8> {
        let (_, rest) = self.octets().split_at(at.min(self.length));
        let rest = rest.to_vec();
        self.length -= rest.len();
        rest
    }

    /// Empties it.
    pub fn clear(&mut self) {
        self.length = 0;
    }
}

impl From<Room> for Vec<u8> {
    fn from(mut room: Room) -> Self {
        room.memory.truncate(room.length);
        room.memory
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_there_before_is_not_seen_again() {
        let mut room = Room::with_capacity(10);
        room.add(b"one two");
        assert_eq!(room.last_mut(3), b"two");
        assert_eq!(room.last_mut(8), b"one two");
        assert_eq!(room.split_off(3), b" two");
        assert_eq!(room.octets(), b"one");
        room.spare(4)[..2].copy_from_slice(b", ");
        room.added(2);
        room.add(b"more than it had room for");
        assert_eq!(room.octets(), b"one, more than it had room for");
        room.clear();
        room.add(b"1");
        assert_eq!(Vec::from(room), b"1");
    }
}
