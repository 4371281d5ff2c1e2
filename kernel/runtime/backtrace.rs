//! Where a panic came from: the addresses on the stack that lie in cells. The kernel finds their lines.
//!
//! `std::backtrace` reads the list of loaded libraries once, at its first use, so it knows none of the cells that are loaded later.

use std::ffi::{CStr, c_char, c_int, c_void};

use crate::protocol::Frame;

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
    // SAFETY: `cell_frames` passes its vector, which nothing else touches until the walk is over.
    let frames = unsafe { &mut *frames.cast::<Vec<usize>>() };
    // SAFETY: the unwinder calls with a context that is valid for this call.
    frames.push(unsafe { _Unwind_GetIP(context) });
    if frames.len() < FRAMES { GO_ON } else { STOP }
}

/// The frames of this thread that lie in cells, the innermost first, each with the offset of its call.
pub fn cell_frames() -> Vec<Frame> {
    let mut addresses: Vec<usize> = Vec::with_capacity(FRAMES);
    // SAFETY: `visit` has the type that the unwinder calls, does not unwind (the vector has room), and the vector outlives the walk.
    unsafe { _Unwind_Backtrace(visit, (&raw mut addresses).cast()) };
    // The address is the one to return to, behind the call.
    addresses.iter().filter_map(|address| in_cell(address.saturating_sub(1))).collect()
}

fn in_cell(call: usize) -> Option<Frame> {
    let nothing = std::ptr::null();
    let mut found =
        Found { file: nothing, base: std::ptr::null(), symbol: std::ptr::null(), address: std::ptr::null() };
    // SAFETY: any address may be asked about; `found` has the layout of C's `Dl_info`.
    if unsafe { dladdr(call as *const c_void, &mut found) } == 0 || found.file.is_null() {
        return None;
    }
    // SAFETY: the loader's own name of a library that is never unloaded, ended by a zero.
    let library = unsafe { CStr::from_ptr(found.file) }.to_string_lossy();
    let is_cell = library.rsplit('/').next().is_some_and(|name| name == "libcell.so" || name.starts_with("libctx-"));
    is_cell.then(|| Frame { library: library.into_owned(), offset: (call - found.base as usize) as u64 })
}
