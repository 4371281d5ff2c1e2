//! What other threads may do to the evaluator while a cell runs: stop the cell, end everything.

use std::process::Child;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::assist::Assistant;
use super::compiler::Compiler;
use super::pipes::Pipes;
use super::temporary::Folder;

/// A stopped cell may take this long to stop by itself.
const GRACE: Duration = Duration::from_secs(2);

/// What other threads may touch while a cell runs.
pub struct Shared {
    /// The evaluator, once it is there.
    running: Mutex<Option<Arc<Evaluator>>>,
    /// Counts cells, so that a late stop does not hit the next one.
    pub cell: AtomicU64,
    pub busy: AtomicBool,
    pub interrupted: AtomicBool,
    pub killed: AtomicBool,
    grace_ms: AtomicU64,
    /// The process group of a shell command, or 0.
    pub shell: AtomicI32,
    closed: AtomicBool,
}

impl Default for Shared {
    fn default() -> Shared {
        Shared {
            running: Mutex::default(),
            cell: AtomicU64::new(0),
            busy: AtomicBool::new(false),
            interrupted: AtomicBool::new(false),
            killed: AtomicBool::new(false),
            grace_ms: AtomicU64::new(GRACE.as_millis() as u64),
            shell: AtomicI32::new(0),
            closed: AtomicBool::new(false),
        }
    }
}

/// The parts of the evaluator that other threads use.
pub struct Evaluator {
    pub compiler: Arc<Compiler>,
    pub pipes: Arc<Pipes>,
    pub assistant: Arc<Assistant>,
    child: Mutex<Option<Arc<Mutex<Child>>>>,
    folder: Mutex<Option<Folder>>,
}

impl Evaluator {
    pub fn new(compiler: Arc<Compiler>, pipes: Arc<Pipes>, child: Arc<Mutex<Child>>, folder: Folder) -> Arc<Evaluator> {
        let assistant = Assistant::new(Arc::clone(&compiler), Arc::clone(&pipes));
        let (child, folder) = (Mutex::new(Some(child)), Mutex::new(Some(folder)));
        Arc::new(Evaluator { compiler, pipes, assistant, child, folder })
    }

    /// From now on signals go to this process.
    pub fn set_child(&self, child: Arc<Mutex<Child>>) {
        *lock(&self.child) = Some(child);
    }

    /// The process that runs user code, if it lives.
    pub fn child_id(&self) -> Option<i32> {
        let handle = lock(&self.child).clone()?;
        let mut child = lock(&handle);
        matches!(child.try_wait(), Ok(None)).then(|| child.id().try_into().ok()).flatten()
    }

    fn signal(&self, signal: i32) {
        if let Some(id) = self.child_id() {
            unsafe { libc::kill(id, signal) };
            if signal == libc::SIGKILL {
                unsafe { libc::killpg(id, signal) };
            }
        }
    }
}

impl Shared {
    /// The evaluator has started.
    pub fn started(&self, evaluator: Arc<Evaluator>) {
        *lock(&self.running) = Some(evaluator);
        if self.closed.load(Ordering::SeqCst) {
            self.shutdown();
        }
    }

    /// The evaluator, if it has started.
    pub fn evaluator(&self) -> Option<Arc<Evaluator>> {
        lock(&self.running).clone()
    }

    /// How long a stopped cell may take to stop by itself.
    pub fn set_grace(&self, grace: Duration) {
        self.grace_ms.store(u64::try_from(grace.as_millis()).unwrap_or(u64::MAX), Ordering::SeqCst);
    }

    /// Stops the running cell: at once while it is compiled, else by asking it, and after the grace by force.
    pub fn interrupt(self: &Arc<Shared>) {
        if !self.busy.load(Ordering::SeqCst) {
            return;
        }
        self.interrupted.store(true, Ordering::SeqCst);
        let shell = self.shell.load(Ordering::SeqCst);
        if shell != 0 {
            unsafe { libc::killpg(shell, libc::SIGTERM) };
        }
        let Some(evaluator) = self.evaluator() else { return };
        if evaluator.compiler.interrupt() {
            return;
        }
        evaluator.signal(libc::SIGINT);
        let shared = Arc::clone(self);
        let cell = self.cell.load(Ordering::SeqCst);
        let deadline = Instant::now() + Duration::from_millis(self.grace_ms.load(Ordering::SeqCst));
        std::thread::spawn(move || {
            while Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(20));
                if shared.cell.load(Ordering::SeqCst) != cell || !shared.busy.load(Ordering::SeqCst) {
                    return;
                }
            }
            shared.killed.store(true, Ordering::SeqCst);
            evaluator.signal(libc::SIGKILL);
            let shell = shared.shell.load(Ordering::SeqCst);
            if shell != 0 {
                unsafe { libc::killpg(shell, libc::SIGKILL) };
            }
        });
    }

    /// Stops the running cell without waiting for it.
    pub fn stop_at_once(&self) {
        self.interrupted.store(true, Ordering::SeqCst);
        self.killed.store(true, Ordering::SeqCst);
        if let Some(evaluator) = self.evaluator() {
            evaluator.compiler.interrupt();
            if self.busy.load(Ordering::SeqCst) {
                evaluator.signal(libc::SIGKILL);
            }
        }
    }

    pub fn shutdown(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.stop_at_once();
        if let Some(evaluator) = self.evaluator() {
            evaluator.signal(libc::SIGKILL);
            evaluator.assistant.stop();
            drop(lock(&evaluator.folder).take());
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
