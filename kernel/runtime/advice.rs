//! The library's advice about an error that ends a cell, in addition to the error's own message.

use std::ffi::c_void;
use std::sync::OnceLock;

/// Returns what to do about an error, given its message.
type Advise = fn(&str) -> Option<String>;

static LIBRARY: OnceLock<Advise> = OnceLock::new();

/// Sets the function that gives advice about errors.
///
/// # Safety
///
/// `advise` must be an [`Advise`], compiled with the same compiler as this.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wavemesh_cell_advise_with(advise: *const c_void) {
    // SAFETY: the caller guarantees the type.
    let _ = LIBRARY.set(unsafe { std::mem::transmute::<*const c_void, Advise>(advise) });
}

/// An error's message, followed by the library's advice.
pub(crate) fn with_advice(mut message: String) -> String {
    if let Some(advice) = LIBRARY.get().and_then(|advise| advise(&message)) {
        // The advice goes before the backtrace that some errors (candle's) contain.
        let end = message.find("\n   0: ").unwrap_or(message.len());
        message.insert_str(end, &format!("\n{advice}"));
    }
    message
}
