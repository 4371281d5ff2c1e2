//! WaveMesh as one dynamic library, so that a notebook's cells link against it instead of compiling it.
//!
//! It has everything of the library, and the calls by which the kernel's child starts it, passes on a request to stop, and tells that
//! a cell has ended.

use std::ffi::c_void;

pub use wavemesh::*;

/// Shows the library's own long work as progress bars from now on. `stop_point` unwinds when the cell is to stop.
#[unsafe(no_mangle)]
pub extern "C" fn wavemesh_start(stop_point: extern "C-unwind" fn()) {
    wavemesh::task::set_stop_point(stop_point);
    wavemesh::notebook::watch_tasks();
}

/// Gives widgets their line to the page.
///
/// # Safety
/// `open` and `send` are the runtime's `wavemesh_cell_comm_open` and `wavemesh_cell_comm_send`, compiled by this toolchain.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wavemesh_comms(open: *const c_void, send: *const c_void) {
    use wavemesh::notebook::{OpenComm, SendComm};
    // SAFETY: the caller says that these are functions of these types.
    let (open, send) = unsafe {
        (std::mem::transmute::<*const c_void, OpenComm>(open), std::mem::transmute::<*const c_void, SendComm>(send))
    };
    wavemesh::notebook::reach_page(open, send);
}

/// What `:vars` says of a value of the library.
#[unsafe(no_mangle)]
pub fn wavemesh_describe(value: &dyn std::any::Any) -> Option<(usize, String)> {
    wavemesh::notebook::describe(value)
}

/// What to do about an error that ended a cell, where the library knows more than the error says.
#[unsafe(no_mangle)]
pub fn wavemesh_advise(message: &str) -> Option<String> {
    wavemesh::device::advice(message)
}

/// Brings every live display to its last state.
#[unsafe(no_mangle)]
pub extern "C" fn wavemesh_flush() {
    // A panic must not cross into C, and has been told of by the hook.
    let _ = std::panic::catch_unwind(wavemesh::notebook::flush);
}

/// Asks the library's running loop to stop. Safe in a signal handler.
#[unsafe(no_mangle)]
pub extern "C" fn wavemesh_interrupt() {
    wavemesh::task::interrupt();
}

/// Forgets a request to stop that no loop obeyed.
#[unsafe(no_mangle)]
pub extern "C" fn wavemesh_clear_interrupt() {
    wavemesh::task::clear_interrupt();
}
