//! Blocks of 64 KiB for bytes in flight, kept by thread, so that idle connections hold none.

use std::{cell::RefCell, fmt};

/// A queue of at most 64 KiB. Its memory comes from the thread's store when the first byte is
/// put in, and goes back there with the last one taken out.
///
/// Memory is reused between connections; only bytes that this queue was given are ever shown.
#[derive(Default)]
pub(super) struct Block {
    memory: Option<Box<[u8]>>,
    start: usize,
    end: usize,
}

impl Block {
    /// The bytes in the queue.
    pub(super) fn bytes(&self) -> &[u8] {
        self.memory
            .as_deref()
            .and_then(|memory| memory.get(self.start..self.end))
            .unwrap_or_default()
    }

    /// How many they are.
    pub(super) fn len(&self) -> usize {
        self.end.saturating_sub(self.start)
    }

    /// None at all.
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends as many of `bytes` as fit, and says how many.
    pub(super) fn append(&mut self, bytes: &[u8]) -> usize {
        let filled = self.fill(|space| {
            let count = space.len().min(bytes.len());
            if let (Some(to), Some(from)) = (space.get_mut(..count), bytes.get(..count)) {
                to.copy_from_slice(from);
            }
            count
        });
        filled.min(bytes.len())
    }

    /// Has `read` write to the free space; it gives the number of bytes that it wrote.
    pub(super) fn fill(&mut self, read: impl FnOnce(&mut [u8]) -> usize) -> usize {
        self.make_room();
        let memory = self.memory.get_or_insert_with(take);
        let space = memory.get_mut(self.end..).unwrap_or_default();
        let filled = read(space).min(space.len());
        self.end = self.end.saturating_add(filled);
        self.give_back_if_empty();
        filled
    }

    /// Takes the first `count` bytes out.
    pub(super) fn consume(&mut self, count: usize) {
        self.start = self.start.saturating_add(count).min(self.end);
        self.give_back_if_empty();
    }

    fn make_room(&mut self) {
        if self.start == 0 {
            return;
        }
        if let Some(memory) = &mut self.memory {
            memory.copy_within(self.start..self.end, 0);
        }
        self.end = self.len();
        self.start = 0;
    }

    fn give_back_if_empty(&mut self) {
        if self.is_empty() {
            (self.start, self.end) = (0, 0);
            if let Some(memory) = self.memory.take() {
                give_back(memory);
            }
        }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        if let Some(memory) = self.memory.take() {
            give_back(memory);
        }
    }
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Block({} bytes)", self.len())
    }
}

fn take() -> Box<[u8]> {
    STORE
        .try_with(|store| store.borrow_mut().pop())
        .ok()
        .flatten()
        .unwrap_or_else(|| vec![0; SIZE].into_boxed_slice())
}

fn give_back(memory: Box<[u8]>) {
    // Without a store (the thread is ending) the memory is simply freed.
    let _ended = STORE.try_with(|store| {
        let mut store = store.borrow_mut();
        if store.len() < STORED {
            store.push(memory);
        }
    });
}

thread_local! {
    static STORE: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}

/// Room in one block: what one read from a socket may bring.
pub(super) const SIZE: usize = 64 * 1024;
/// Blocks that a thread keeps.
const STORED: usize = 32;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_empty_block_holds_no_memory() {
        let mut block = Block::default();
        assert_eq!(block.append(b"abc"), 3);
        assert!(block.memory.is_some());
        block.consume(3);
        assert!(block.memory.is_none());
        assert_eq!(block.fill(|_| 0), 0);
        assert!(block.memory.is_none());
    }

    #[test]
    fn a_full_block_takes_no_more() {
        let mut block = Block::default();
        assert_eq!(block.append(&vec![1; SIZE + 5]), SIZE);
        assert_eq!(block.append(b"x"), 0);
        block.consume(10);
        assert_eq!(block.append(&[2; 20]), 10);
        assert_eq!(block.len(), SIZE);
    }

    #[test]
    fn reused_memory_shows_nothing_of_its_last_user() {
        let mut first = Block::default();
        first.append(b"secret");
        drop(first);
        let mut second = Block::default();
        second.append(b"hi");
        assert_eq!(second.bytes(), b"hi");
    }

    proptest! {
        #[test]
        fn it_is_a_queue(steps in prop::collection::vec((any::<u8>(), 0usize..9000, 0usize..9000), 0..60)) {
            let mut block = Block::default();
            let mut model = Vec::new();
            for (byte, put, take) in steps {
                let taken = block.append(&vec![byte; put]);
                model.extend(std::iter::repeat_n(byte, taken));
                prop_assert_eq!(block.bytes(), &model[..]);
                block.consume(take);
                model.drain(..take.min(model.len()));
                prop_assert_eq!(block.bytes(), &model[..]);
            }
        }
    }
}
