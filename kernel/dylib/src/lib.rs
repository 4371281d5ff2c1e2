//! WaveMesh as one dynamic library, so that a notebook's cells link against it instead of compiling it.
//!
//! It contains the whole library, and the functions with which the kernel's child starts it, passes on a request to stop, and reports that
//! a cell has ended.

use std::ffi::c_void;

pub use wavemesh::*;

/// Shows the library's long work as progress bars from now on. `stop_point` unwinds if the cell is to stop.
#[unsafe(no_mangle)]
pub extern "C" fn wavemesh_start(stop_point: extern "C-unwind" fn()) {
    wavemesh::task::set_stop_point(stop_point);
    wavemesh::notebook::watch_tasks();
}

/// Gives widgets the functions with which they talk to the page.
///
/// # Safety
/// `open` and `send` are the runtime's `wavemesh_cell_comm_open` and `wavemesh_cell_comm_send`, compiled by this toolchain.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wavemesh_comms(open: *const c_void, send: *const c_void) {
    use wavemesh::notebook::{OpenComm, SendComm};
    // SAFETY: the caller guarantees that these functions have these types.
    let (open, send) = unsafe {
        (std::mem::transmute::<*const c_void, OpenComm>(open), std::mem::transmute::<*const c_void, SendComm>(send))
    };
    wavemesh::notebook::reach_page(open, send);
}

/// What `:vars` shows about a value of the library.
#[unsafe(no_mangle)]
pub fn wavemesh_describe(value: &dyn std::any::Any) -> Option<(usize, String)> {
    wavemesh::notebook::describe(value)
}

/// Advice about an error that ended a cell, if the library knows more than the error says.
#[unsafe(no_mangle)]
pub fn wavemesh_advise(message: &str) -> Option<String> {
    wavemesh::device::advice(message)
}

/// Brings every live display to its last state.
#[unsafe(no_mangle)]
pub extern "C" fn wavemesh_flush() {
    // A panic must not cross into C. The panic hook has reported it already.
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
