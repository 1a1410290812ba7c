//! Blocks that nodes are read into, kept by thread, so that connections hold none while they wait.
//!
//! Unlike those below device connections, a block's bytes are handed on as they are: what is read
//! of a large answer is not copied again before it is encrypted.

use std::cell::RefCell;

use bytes::BytesMut;

/// Makes room for one more read, at best for `size` bytes. Only what is read into it shows,
/// although its memory may have been used before.
pub(super) fn make_room(block: &mut BytesMut, size: usize) {
    let left = block.capacity().saturating_sub(block.len());
    if left >= size || block.try_reclaim(size) || left >= LEAST {
        return;
    }
    if block.is_empty() {
        *block = take(size);
    } else {
        block.reserve(size);
    }
}

/// Gives a block back, whose bytes are not wanted. While parts of it are still on their way to a
/// device, its memory goes with the last of them instead.
pub(super) fn give_back(mut block: BytesMut) {
    block.clear();
    // The larger first: a part of a large block would do for a small one. What had to grow for the
    // head of an answer is neither, and not kept.
    let size = [LARGE, SIZE]
        .into_iter()
        .find(|&size| block.try_reclaim(size) && block.capacity() == size);
    let Some(size) = size else { return };
    // Without a store (the thread is ending) the memory is simply freed.
    let _ended = STORE.try_with(|store| {
        let mut store = store.borrow_mut();
        let same = |stored: &&BytesMut| stored.capacity() == size;
        if store.iter().filter(same).count() < STORED {
            store.push(block);
        }
    });
}

fn take(size: usize) -> BytesMut {
    let stored = STORE.try_with(|store| {
        let mut store = store.borrow_mut();
        let place = store.iter().rposition(|block| block.capacity() == size)?;
        Some(store.swap_remove(place))
    });
    stored
        .ok()
        .flatten()
        .unwrap_or_else(|| BytesMut::with_capacity(size))
}

thread_local! {
    static STORE: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
}

/// Room in one block: what the first read of an answer may bring.
pub(super) const SIZE: usize = 64 * 1024;
/// The same once a read has filled a block: there is more where that came from.
pub(super) const LARGE: usize = 256 * 1024;
/// Blocks of each size that a thread keeps.
const STORED: usize = 4;
/// With less room than this a read is not worth its system call.
const LEAST: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_used_again_and_shows_nothing_of_its_last_user() {
        let mut first = BytesMut::new();
        make_room(&mut first, SIZE);
        first.extend_from_slice(b"secret");
        let memory = first.as_ptr();
        give_back(first);
        let mut again = BytesMut::new();
        make_room(&mut again, SIZE);
        assert_eq!((again.as_ptr(), again.len()), (memory, 0));
        assert!(again.capacity() == SIZE);
    }

    #[test]
    fn a_block_with_bytes_on_their_way_is_not_used_again() {
        let mut block = take(SIZE);
        block.extend_from_slice(b"on its way");
        let part = block.split().freeze();
        give_back(block);
        let mut other = take(SIZE);
        other.extend_from_slice(b"other bytes");
        assert_eq!(part, "on its way");
    }

    #[test]
    fn a_large_block_is_given_back_as_one() {
        let mut block = take(LARGE);
        block.extend_from_slice(&[1; LARGE]);
        let memory = block.as_ptr();
        drop(block.split_to(LARGE / 2).freeze());
        give_back(block);
        let again = take(LARGE);
        assert_eq!((again.as_ptr(), again.capacity()), (memory, LARGE));
    }

    #[test]
    fn what_a_device_has_taken_makes_room_again() {
        let mut block = take(SIZE);
        block.extend_from_slice(&[1; SIZE]);
        let memory = block.as_ptr();
        drop(block.split().freeze());
        make_room(&mut block, SIZE);
        assert_eq!((block.as_ptr(), block.capacity()), (memory, SIZE));
    }
}
