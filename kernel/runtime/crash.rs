//! A crash names its line: the frames in cells of the thread that a signal is about to end go to the kernel first.
//!
//! Memory may be broken, and the thread may hold any lock: so nothing is allocated here, and what takes too long is ended by the caller.

use std::cell::UnsafeCell;
use std::ffi::c_void;
use std::fmt::Write;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use crate::backtrace::{Place, Stack};

/// The message that is sent: more frames than fit say nothing new.
const ROOM: usize = 16 << 10;
/// So many frames are told.
const TOLD: usize = 40;
/// The kind of the message ([`Report::Crashed`](crate::protocol::Report::Crashed)).
const KIND: &str = "crashed";

/// Where the kernel listens, or -1.
static KERNEL: AtomicI32 = AtomicI32::new(-1);
/// Who first sets this has the stack and the message.
static CRASHED: AtomicBool = AtomicBool::new(false);
static LAST: Last = Last(UnsafeCell::new((Stack::new(), Text::new())));

struct Last(UnsafeCell<(Stack, Text<ROOM>)>);

// SAFETY: one thread alone uses it, the first that sets `CRASHED`.
unsafe impl Sync for Last {}

/// Text in a place of its own. What does not fit is left out.
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

/// Crashes are told there from now on.
pub(crate) fn tell_to(kernel: RawFd) {
    KERNEL.store(kernel, Ordering::SeqCst);
}

/// Tells the kernel of the frames that lie in cells around the address at which a signal has met this thread. The first crash counts.
#[unsafe(no_mangle)]
pub extern "C" fn wavemesh_cell_crashed(at: usize) {
    if CRASHED.swap(true, Ordering::SeqCst) {
        return;
    }
    // SAFETY: this is the first call, and there is no second one.
    let (stack, text) = unsafe { &mut *LAST.0.get() };
    stack.fill();
    let places = stack.from(at).iter().enumerate().filter_map(|(index, call)| {
        // The first is no call: its instruction itself has failed.
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
        // SAFETY: the bytes lie there; it fails if nobody listens.
        unsafe { send(kernel, bytes.as_ptr().cast(), bytes.len(), 0) };
    }
}
