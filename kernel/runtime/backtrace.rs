//! Where a panic came from: the addresses on the stack that lie in cells. The kernel finds their lines.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::fmt::Write;

/// Endless recursion would tell the same frames without end.
const FRAMES: usize = 400;
const GO_ON: c_int = 0;
const STOP: c_int = 4;

#[repr(C)]
struct Found {
    file: *const c_char,
    base: *const c_void,
    symbol: *const c_char,
    address: *const c_void,
}

unsafe extern "C" {
    fn _Unwind_Backtrace(visit: extern "C" fn(*mut c_void, *mut c_void) -> c_int, state: *mut c_void) -> c_int;
    fn _Unwind_GetIP(context: *mut c_void) -> usize;
    fn dladdr(address: *const c_void, found: *mut Found) -> c_int;
}

extern "C" fn visit(context: *mut c_void, frames: *mut c_void) -> c_int {
    let frames = unsafe { &mut *frames.cast::<Vec<usize>>() };
    frames.push(unsafe { _Unwind_GetIP(context) });
    if frames.len() < FRAMES { GO_ON } else { STOP }
}

/// A line for each frame, the innermost first: the cell's library, a tab, the offset of the call in it.
pub fn cell_frames() -> String {
    let mut frames: Vec<usize> = Vec::with_capacity(FRAMES);
    unsafe { _Unwind_Backtrace(visit, (&raw mut frames).cast()) };
    let mut lines = String::new();
    for frame in frames {
        // The address is the one to return to, behind the call.
        let call = frame.saturating_sub(1);
        let mut found = Found {
            file: std::ptr::null(),
            base: std::ptr::null(),
            symbol: std::ptr::null(),
            address: std::ptr::null(),
        };
        if unsafe { dladdr(call as *const c_void, &mut found) } == 0 || found.file.is_null() {
            continue;
        }
        let library = unsafe { CStr::from_ptr(found.file) }.to_string_lossy();
        let is_cell = library.rsplit('/').next().is_some_and(|name| name.starts_with("libcode_"));
        if is_cell {
            let _ = writeln!(lines, "{library}\t{}", call - found.base as usize);
        }
    }
    lines
}
