//! Room for what is being sealed and sent. There is a fixed number of buffers, whatever the files' sizes: that is what
//! bounds a push's memory.

use std::borrow::{Borrow, BorrowMut};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::openpgp::Room;

/// Bytes that a buffer has room for beyond its size: a message is cut only where its next chunk ends.
pub(super) const OVER: usize = 128 * 1024;

/// All buffers of a push.
pub(super) struct Pool {
    free: Arc<Semaphore>,
    /// Those that were given back. Memory that was used once costs less than new memory, which the kernel clears.
    spare: Mutex<Vec<Room>>,
    size: usize,
}

impl Pool {
    /// `count` buffers of `size` bytes. None takes up memory before it is filled.
    pub fn new(count: usize, size: usize) -> Arc<Self> {
        Arc::new(Self {
            free: Arc::new(Semaphore::new(count)),
            spare: Mutex::default(),
            size,
        })
    }

    /// A buffer's size in bytes.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Waits for a free buffer, on a thread that may block. `None` when the push has ended.
    pub fn take(self: &Arc<Self>, runtime: &Handle) -> Option<Buffer> {
        let permit = runtime.block_on(self.free.clone().acquire_owned()).ok()?;
        let spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Some(Buffer {
            room: spare.unwrap_or_else(|| Room::with_capacity(self.size + OVER)),
            pool: self.clone(),
            _permit: permit,
        })
    }
}

/// One buffer. Dropped, it goes back to its pool.
pub(super) struct Buffer {
    room: Room,
    pool: Arc<Pool>,
    /// Freed after the bytes were given back: fields go after [`Drop::drop`].
    _permit: OwnedSemaphorePermit,
}

impl Buffer {
    /// The content as it is sent; the buffer goes back when the last clone is dropped.
    pub fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl Borrow<Room> for Buffer {
    fn borrow(&self) -> &Room {
        &self.room
    }
}

impl BorrowMut<Room> for Buffer {
    fn borrow_mut(&mut self) -> &mut Room {
        &mut self.room
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self.room.octets()
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut room = std::mem::take(&mut self.room);
        room.clear();
        self.pool
            .spare
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(room);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_so_many_and_they_come_back() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let pool = Pool::new(2, 100);
        let mut first = pool.take(runtime.handle()).unwrap();
        let second = pool.take(runtime.handle()).unwrap();
        first.room.add(&[1; 60]);
        let sent = first.freeze();
        let again = sent.clone();
        drop(sent);
        assert_eq!(pool.free.available_permits(), 0);
        assert_eq!(again, [1; 60].as_slice());
        let waiting = std::thread::scope(|scope| {
            let waiting = scope.spawn(|| pool.take(runtime.handle()).unwrap().as_ref().len());
            drop(again);
            waiting.join().unwrap()
        });
        assert_eq!(waiting, 0);
        drop(second);
        assert_eq!(pool.free.available_permits(), 2);
        assert_eq!(pool.spare.lock().unwrap().len(), 2);
    }
}
