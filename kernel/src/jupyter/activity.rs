//! The kernel's state as frontends show it: `busy` before and `idle` after each request, whichever way it ends.
//!
//! Requests are answered while a cell runs, and frontends show the last status they saw. After each such answer the
//! running cell therefore says again that it is busy.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::iopub::Iopub;
use super::wire::Parent;

/// Publishes status. Clones share the state.
#[derive(Clone)]
pub struct Activity {
    iopub: Iopub,
    running: Arc<Mutex<Option<Parent>>>,
}

/// A request in progress; dropping this ends it.
pub struct Busy<'a> {
    activity: &'a Activity,
    parent: Parent,
}

impl Activity {
    /// The state before anything runs.
    pub fn new(iopub: Iopub) -> Activity {
        Activity { iopub, running: Arc::default() }
    }

    /// Begins the execution of a cell.
    pub fn cell(&self, parent: &Parent) -> Busy<'_> {
        *self.running() = Some(parent.clone());
        self.aside(parent)
    }

    /// Begins a request that does not hold up others.
    pub fn aside(&self, parent: &Parent) -> Busy<'_> {
        self.iopub.status(parent, "busy");
        Busy { activity: self, parent: parent.clone() }
    }

    fn running(&self) -> MutexGuard<'_, Option<Parent>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        let iopub = &self.activity.iopub;
        let mut running = self.activity.running();
        if running.as_ref().is_some_and(|cell| cell.msg_id() == self.parent.msg_id()) {
            *running = None;
        }
        iopub.status(&self.parent, "idle");
        if let Some(cell) = &*running {
            iopub.status(cell, "busy");
        }
    }
}
