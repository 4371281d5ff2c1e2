//! WaveMesh as one dynamic library, so that a notebook's cells link against it instead of compiling it.
//!
//! It has everything of the library, and the calls by which the kernel's child starts it, passes on a request to stop, and tells that
//! a cell has ended.

pub use wavemesh::*;

/// Shows the library's own long work as progress bars from now on. `stop_point` unwinds when the cell is to stop.
#[unsafe(no_mangle)]
pub extern "C" fn wavemesh_start(stop_point: extern "C-unwind" fn()) {
    wavemesh::task::set_stop_point(stop_point);
    wavemesh::notebook::watch_tasks();
}

/// What `:vars` says of a value of the library.
#[unsafe(no_mangle)]
pub fn wavemesh_describe(value: &dyn std::any::Any) -> Option<(usize, String)> {
    wavemesh::notebook::describe(value)
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
