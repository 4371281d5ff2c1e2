//! Long work: how far it is, and how to stop it.
//!
//! Loops that take longer than a blink ([`Task::advance`] per item) can be watched by an [`Observer`] (the notebook's
//! progress bar) and stopped by [`interrupt`] (the notebook's stop button). A stopped loop returns
//! [`Error::Interrupted`], so every variable that existed before it survives.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, RwLock};

use crate::{Error, Result};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);
static OBSERVER: RwLock<Option<Arc<dyn Observer>>> = RwLock::new(None);

/// Asks the running loop to stop at its next [`check_interrupt`]. Safe to call from a signal handler.
pub fn interrupt() {
    INTERRUPTED.store(true, Ordering::SeqCst);
}

/// Forgets a request to stop that nothing has obeyed.
pub fn clear_interrupt() {
    INTERRUPTED.store(false, Ordering::SeqCst);
}

/// Returns [`Error::Interrupted`] once for each [`interrupt`], else `Ok(())`.
///
/// ```
/// use wavemesh::{Error, task};
/// task::interrupt();
/// assert!(matches!(task::check_interrupt(), Err(Error::Interrupted)));
/// assert!(task::check_interrupt().is_ok());
/// ```
pub fn check_interrupt() -> Result<()> {
    if INTERRUPTED.swap(false, Ordering::SeqCst) { Err(Error::Interrupted) } else { Ok(()) }
}

/// Is told of every [`Task`]'s progress. Calls come from any thread, as often as the loop turns: an observer throttles itself.
pub trait Observer: Send + Sync {
    /// `done` of `total` steps of the task are finished.
    fn advanced(&self, task: &Task);
    /// The task has ended, complete or not; it is told once.
    fn ended(&self, task: &Task);
}

/// Sets who is told of progress; `None` for nobody.
pub fn set_observer(observer: Option<Arc<dyn Observer>>) {
    *OBSERVER.write().unwrap_or_else(|poisoned| poisoned.into_inner()) = observer;
}

/// A piece of long work with a known number of steps. It ends when it is dropped.
pub struct Task {
    id: u64,
    label: String,
    total: u64,
    done: AtomicU64,
    stopped: AtomicBool,
    observer: Option<Arc<dyn Observer>>,
}

impl Task {
    /// Starts a task of `total` steps, shown as `label`.
    pub fn new(label: impl Into<String>, total: usize) -> Self {
        static NEXT_ID: AtomicU64 = AtomicU64::new(0);
        let observer = OBSERVER.read().unwrap_or_else(|poisoned| poisoned.into_inner()).clone();
        Self {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            label: label.into(),
            total: total as u64,
            done: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
            observer,
        }
    }

    /// Counts `steps` more as done. Once a stop is requested, this call and all later ones, on every thread, return
    /// [`Error::Interrupted`].
    pub fn advance(&self, steps: usize) -> Result<()> {
        if self.stopped.load(Ordering::Relaxed) {
            return Err(Error::Interrupted);
        }
        if let Err(stop) = check_interrupt() {
            self.stopped.store(true, Ordering::Relaxed);
            return Err(stop);
        }
        self.done.fetch_add(steps as u64, Ordering::Relaxed);
        if let Some(observer) = &self.observer {
            observer.advanced(self);
        }
        Ok(())
    }

    /// Tells this task from every other of the process.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// What the work is called.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Steps finished so far.
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Steps in all.
    pub fn total(&self) -> u64 {
        self.total
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        if let Some(observer) = &self.observer {
            observer.ended(self);
        }
    }
}
