//! Warnings: something worked, but perhaps not as meant. Each is printed to stderr once a process, as Python's are.

use std::collections::HashSet;
use std::sync::{LazyLock, Mutex};

static SEEN: LazyLock<Mutex<HashSet<String>>> = LazyLock::new(Mutex::default);

/// Prints `warning: message` unless the same message was printed before.
pub(crate) fn warn_once(message: String) {
    let mut seen = SEEN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if !seen.contains(&message) {
        eprintln!("warning: {message}");
        seen.insert(message);
    }
}
