//! What the library has to say of an error that ends a cell, beside the error's own words.

use std::ffi::c_void;
use std::sync::OnceLock;

/// Takes what an error says, and gives what to do about it.
type Advise = fn(&str) -> Option<String>;

static LIBRARY: OnceLock<Advise> = OnceLock::new();

/// Asks the library about errors from now on.
///
/// # Safety
///
/// `advise` must be an [`Advise`], compiled with the same compiler as this.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wavemesh_cell_advise_with(advise: *const c_void) {
    // SAFETY: the caller says that it is one.
    let _ = LIBRARY.set(unsafe { std::mem::transmute::<*const c_void, Advise>(advise) });
}

/// The words of an error, and the library's below them.
pub(crate) fn with_advice(mut message: String) -> String {
    if let Some(advice) = LIBRARY.get().and_then(|advise| advise(&message)) {
        // Before the backtrace that some errors (candle's) carry.
        let end = message.find("\n   0: ").unwrap_or(message.len());
        message.insert_str(end, &format!("\n{advice}"));
    }
    message
}
