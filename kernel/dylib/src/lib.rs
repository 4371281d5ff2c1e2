//! WaveMesh as one dynamic library, so that a notebook's cells link against it instead of compiling it.
//!
//! It has everything of the library, and the two calls by which the kernel's child passes on a request to stop.

pub use wavemesh::*;

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
