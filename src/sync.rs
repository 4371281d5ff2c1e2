//! Locks that outlive a panic.

pub(crate) use std::sync::Mutex;
use std::sync::{MutexGuard, PoisonError};

/// Locks a mutex whose content is whole between any two statements, so that a thread that panicked does not spoil it.
/// Nothing that runs on a thread pool may be called while the guard lives: a worker that waits for the pool takes up other
/// jobs, which may ask for the same lock.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
