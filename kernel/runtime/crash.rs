//! Reports the line of a crash: before a signal ends the process, the thread's frames in cells are sent to the kernel.
//!
//! Memory may be damaged, and the thread may hold any lock. So nothing here allocates, and the caller ends the report if it takes too long.

use std::cell::UnsafeCell;
use std::ffi::c_void;
use std::fmt::Write;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use crate::backtrace::{Place, Stack};

/// The size of the message, in bytes.
const ROOM: usize = 16 << 10;
/// How many frames are reported at most.
const TOLD: usize = 40;
/// The kind of the message, [`Report::Crashed`](crate::protocol::Report::Crashed).
const KIND: &str = "crashed";

/// The descriptor on which the kernel listens, or -1.
static KERNEL: AtomicI32 = AtomicI32::new(-1);
/// The first thread that sets this may use the stack and the message.
static CRASHED: AtomicBool = AtomicBool::new(false);
static LAST: Last = Last(UnsafeCell::new((Stack::new(), Text::new())));

struct Last(UnsafeCell<(Stack, Text<ROOM>)>);

// SAFETY: only one thread uses it: the first that sets `CRASHED`.
unsafe impl Sync for Last {}

/// A text with fixed memory. What does not fit is left out.
struct Text<const ROOM: usize> {
    bytes: [u8; ROOM],
    length: usize,
}

impl<const ROOM: usize> Text<ROOM> {
    const fn new() -> Text<ROOM> {
        Text { bytes: [0; ROOM], length: 0 }
    }

    fn written(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl<const ROOM: usize> Write for Text<ROOM> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let place = self.bytes.get_mut(self.length..self.length + text.len()).ok_or(std::fmt::Error)?;
        place.copy_from_slice(text.as_bytes());
        self.length += text.len();
        Ok(())
    }
}

unsafe extern "C" {
    fn send(socket: RawFd, bytes: *const c_void, length: usize, flags: i32) -> isize;
}

/// Sets where crashes are reported.
pub(crate) fn tell_to(kernel: RawFd) {
    KERNEL.store(kernel, Ordering::SeqCst);
}

/// Sends the kernel the frames in cells around the address at which a signal met this thread. Only the first crash is sent.
#[unsafe(no_mangle)]
pub extern "C" fn wavemesh_cell_crashed(at: usize) {
    if CRASHED.swap(true, Ordering::SeqCst) {
        return;
    }
    // SAFETY: only the first crash comes here, and only once.
    let (stack, text) = unsafe { &mut *LAST.0.get() };
    stack.fill();
    let places = stack.from(at).iter().enumerate().filter_map(|(index, call)| {
        // The first frame is not a call: its own instruction failed.
        Place::of(call.at.saturating_sub(usize::from(index > 0)))?.in_cell()
    });
    for (library, offset) in places.filter(|(library, _)| !library.contains(['\t', '\n', '\\'])).take(TOLD) {
        let before = text.length;
        if write!(text, "\t{library}\t{offset}").is_err() {
            text.length = before;
            break;
        }
    }
    let mut head = Text::<40>::new();
    let _ = write!(head, "\n{} {KIND}", KIND.len() + text.length);
    let kernel = KERNEL.load(Ordering::SeqCst);
    for bytes in [head.written(), text.written(), b"\n"] {
        // SAFETY: the bytes exist; the call fails if nobody listens.
        unsafe { send(kernel, bytes.as_ptr().cast(), bytes.len(), 0) };
    }
}
