//! Ends a thread's wait for a channel of `std`.
//!
//! A waiting thread has a context in the channel's queue, from which other threads choose it. If the thread simply unwound, its context
//! would stay there, and the next message would wake nobody. A context that was chosen already is skipped, as `std` itself does for one
//! that has timed out. So the context is marked as chosen first.
//!
//! `std` gives no access to the context. But the thread's stack holds a pointer to it, and its content identifies it. If it is not found,
//! or is not as expected, the wait continues.

use std::ffi::c_void;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::Thread;

const WORD: usize = size_of::<usize>();
/// The counters of an `Arc`, then, in any order: the choice (0 while the thread waits), a pointer (null except for channels without a
/// buffer, and read only by the thread that was chosen), the thread and its number.
type Context = [usize; 6];

#[repr(C)]
struct Memory {
    start: *const c_void,
    length: usize,
}

unsafe extern "C" {
    fn getpid() -> i32;
    fn process_vm_readv(
        process: i32,
        to: *const Memory,
        parts_to: usize,
        from: *const Memory,
        parts_from: usize,
        flags: usize,
    ) -> isize;
}

/// Marks the context of this thread as chosen. A pointer to it must be in this range of the thread's stack. Returns true if it was found.
pub(crate) fn give_up(stack: Range<usize>) -> bool {
    const { assert!(size_of::<Thread>() == WORD) };
    let this = std::thread::current();
    // SAFETY: both have this size, and the copy is only compared.
    let this = unsafe { std::mem::transmute_copy::<Thread, usize>(&this) };
    let start = stack.start.next_multiple_of(WORD);
    for place in (start..stack.end).step_by(WORD) {
        // SAFETY: the unwinder has found this range to belong to this thread's stack, below the call that is interrupted now.
        let pointer = unsafe { (place as *const usize).read_volatile() };
        if pointer.is_multiple_of(WORD) && read(pointer).is_some_and(|context| is_waiting(&context, this)) {
            return mark(pointer);
        }
    }
    false
}

/// The words at an address that may or may not be a valid pointer.
fn read(pointer: usize) -> Option<Context> {
    let mut context: Context = [0; 6];
    let to = Memory { start: context.as_mut_ptr().cast(), length: size_of::<Context>() };
    let from = Memory { start: pointer as *const c_void, length: size_of::<Context>() };
    // SAFETY: the system writes no more than fits, and fails if nothing can be read there.
    let read = unsafe { process_vm_readv(getpid(), &to, 1, &from, 1, 0) };
    (read == isize::try_from(size_of::<Context>()).ok()?).then_some(context)
}

/// Whether this is the context of a waiting thread: both the thread and the queue hold it.
fn is_waiting(&[strong, weak, ref inner @ ..]: &Context, thread: usize) -> bool {
    let count = |is: &dyn Fn(usize) -> bool| inner.iter().filter(|&&word| is(word)).count();
    (2..100).contains(&strong) && weak == 1 && count(&|word| word == 0) == 2 && count(&|word| word == thread) == 1
}

/// Marks a context as chosen. Returns false if another thread was faster: it has a message for this one.
fn mark(context: usize) -> bool {
    /// The mark that `std` uses when the time is over.
    const ABORTED: usize = 1;
    (2..6).all(|index| {
        // SAFETY: the context was read just now, and the waiting thread keeps it. Only these two words are changed, the choice and the
        // pointer, which are atomic in `std` too.
        let word = unsafe { &*((context + index * WORD) as *const AtomicUsize) };
        word.load(Ordering::SeqCst) != 0
            || word.compare_exchange(0, ABORTED, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_be_read_is_read() {
        let context: Context = [2, 1, 0, 0, 7, 9];
        assert_eq!(read((&raw const context) as usize), Some(context));
        assert_eq!((read(8), read(usize::MAX - 7)), (None, None));
    }

    #[test]
    fn a_context_is_known_by_its_thread_and_by_what_it_waits_with() {
        let waits = |context: Context| is_waiting(&context, 77);
        assert!(waits([2, 1, 0, 0, 77, 5]) && waits([3, 1, 77, 0, 5, 0]));
        assert!(!waits([1, 1, 0, 0, 77, 5]), "no queue holds it");
        assert!(!waits([2, 1, 4, 0, 77, 5]), "it was chosen");
        assert!(!waits([2, 1, 0, 0, 78, 5]) && !waits([2, 2, 0, 0, 77, 5]));
    }

    #[test]
    fn a_stack_without_a_context_has_none() {
        let words = [0usize, 1, 4096, usize::MAX];
        let start = words.as_ptr() as usize;
        assert!(!give_up(start..start + size_of_val(&words)));
    }
}
