//! Locks that outlive a panic.

pub(crate) use std::sync::Mutex;
use std::sync::{MutexGuard, PoisonError};

/// Locks a mutex whose content is valid between any two statements, so that a thread that panicked does not make it unusable. Call nothing
/// that runs on a thread pool while the guard lives: a worker that waits for the pool takes up other jobs, which may need the same lock.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
