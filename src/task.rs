//! Long work: its progress, and how to stop it.
//!
//! Loops that take longer than a moment ([`Task::advance`] per item) can be watched and stopped. Watching and stopping belong to a call,
//! not to the process: a [`CancellationToken`] stops work inside its [`run`](CancellationToken::run), and an [`Observer`] receives the
//! progress of tasks that start inside [`observe`]. A stopped loop returns [`Error::Interrupted`], so every variable that existed before
//! survives.
//!
//! A notebook has one stop button for everything: [`interrupt`] stops all work of the process until [`clear_interrupt`], which the kernel
//! calls before each cell.
//!
//! ```
//! use std::time::Duration;
//! use wavemesh::{Error, sdf::shapes, task::CancellationToken};
//! let ball = shapes::sphere(0.7).to_mesh(24)?;
//! let token = CancellationToken::with_timeout(Duration::ZERO); // no time at all
//! let stopped = token.run(|| wavemesh::sdf::SdfGrid::from_mesh(&ball, 24));
//! assert!(matches!(stopped, Err(Error::Interrupted)));
//! assert!(wavemesh::sdf::SdfGrid::from_mesh(&ball, 24).is_ok()); // other calls go on
//! # Ok::<(), Error>(())
//! ```

use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

use crate::{Error, Result};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);
static OBSERVER: RwLock<Option<Arc<dyn Observer>>> = RwLock::new(None);

thread_local! {
    static CURRENT: RefCell<Scope> = const { RefCell::new(Scope { tokens: Vec::new(), observer: None }) };
}

/// Asks all work of the process to stop: work that is running, and work that starts before [`clear_interrupt`]. Safe to call from a signal
/// handler.
pub fn interrupt() {
    INTERRUPTED.store(true, Ordering::SeqCst);
}

/// Lets work run again after an [`interrupt`].
pub fn clear_interrupt() {
    INTERRUPTED.store(false, Ordering::SeqCst);
}

/// Returns [`Error::Interrupted`] if the calling code has to stop: after [`interrupt`], or if it runs inside
/// [`run`](CancellationToken::run) of a token that was cancelled. Call it once per turn in your own loops.
///
/// # Errors
/// [`Error::Interrupted`] if the calling code has to stop.
///
/// ```
/// use wavemesh::{Error, task};
/// task::interrupt();
/// assert!(matches!(task::check_interrupt(), Err(Error::Interrupted)));
/// task::clear_interrupt();
/// assert!(task::check_interrupt().is_ok());
/// ```
pub fn check_interrupt() -> Result<()> {
    CURRENT.with_borrow(Scope::check)
}

static STOP_POINT: OnceLock<extern "C-unwind" fn()> = OnceLock::new();

/// Sets the function that [`stop_point`] calls: it unwinds if the calling code has to stop. The kernel calls this once.
pub fn set_stop_point(unwind: extern "C-unwind" fn()) {
    let _ = STOP_POINT.set(unwind);
}

/// For loops that cannot return an error. In a notebook this ends the cell if it has to stop, and keeps its variables; in other programs it
/// does nothing. [`notebook::progress`](crate::notebook::progress) calls it for each item.
///
/// ```
/// let total: u64 = (0..1000u64).inspect(|_| wavemesh::task::stop_point()).sum();
/// assert_eq!(total, 499_500);
/// ```
pub fn stop_point() {
    if let Some(unwind) = STOP_POINT.get() {
        unwind();
    }
}

/// A request to stop, shared by the code that makes it and the calls that obey it. Clones are the same request.
///
/// ```
/// use wavemesh::task::{CancellationToken, check_interrupt};
/// let token = CancellationToken::new();
/// let request = token.clone(); // for another thread
/// token.run(|| {
///     assert!(check_interrupt().is_ok());
///     request.cancel();
///     assert!(check_interrupt().is_err());
/// });
/// assert!(check_interrupt().is_ok()); // outside nobody is asked to stop
/// ```
#[derive(Clone, Debug, Default)]
pub struct CancellationToken(Arc<Request>);

#[derive(Debug, Default)]
struct Request {
    cancelled: AtomicBool,
    deadline: Option<Instant>,
}

impl CancellationToken {
    /// A request that has not been made yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// A request that is made automatically after `limit`.
    pub fn with_timeout(limit: Duration) -> Self {
        // A limit beyond the clock's range is never reached.
        Self(Arc::new(Request { cancelled: AtomicBool::new(false), deadline: Instant::now().checked_add(limit) }))
    }

    /// Asks the calls inside [`run`](Self::run), on every thread, to stop, and all later ones.
    pub fn cancel(&self) {
        self.0.cancelled.store(true, Ordering::SeqCst);
    }

    /// Whether the request has been made.
    pub fn is_cancelled(&self) -> bool {
        self.0.cancelled.load(Ordering::SeqCst) || self.0.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }

    /// Whether both are the same request.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Runs `body`. The library's calls inside it obey this token, and also those around it. See [`Scope`] for threads that `body` starts.
    pub fn run<T>(&self, body: impl FnOnce() -> T) -> T {
        let mut scope = Scope::current();
        scope.tokens.push(self.clone());
        scope.run(body)
    }
}

/// Receives the progress of every [`Task`]. Calls come from any thread at every turn of a loop, so an observer must limit its own work.
pub trait Observer: Send + Sync {
    /// `done` of `total` steps of the task are finished.
    fn advanced(&self, task: &Task);
    /// The task has ended, complete or not; called once.
    fn ended(&self, task: &Task);
}

/// Sets the observer for calls without their own ([`observe`]); `None` for no observer. The notebook uses this for its progress bars.
pub fn set_observer(observer: Option<Arc<dyn Observer>>) {
    *OBSERVER.write().unwrap_or_else(PoisonError::into_inner) = observer;
}

/// Runs `body`; only `observer` receives the progress of tasks that start in it.
///
/// ```
/// use std::sync::{Arc, atomic::{AtomicU64, Ordering}};
/// use wavemesh::{sdf::{SdfGrid, shapes}, task::{Observer, Task, observe}};
/// #[derive(Default)]
/// struct Total(AtomicU64);
/// impl Observer for Total {
///     fn advanced(&self, _: &Task) {}
///     fn ended(&self, task: &Task) {
///         self.0.fetch_add(task.done(), Ordering::SeqCst);
///     }
/// }
/// let total = Arc::new(Total::default());
/// let ball = shapes::sphere(0.7).to_mesh(16)?;
/// observe(total.clone(), || SdfGrid::from_mesh(&ball, 20))?;
/// assert_eq!(total.0.load(Ordering::SeqCst), 20); // slices of the grid
/// # Ok::<(), wavemesh::Error>(())
/// ```
pub fn observe<T>(observer: Arc<dyn Observer>, body: impl FnOnce() -> T) -> T {
    let mut scope = Scope::current();
    scope.observer = Some(observer);
    scope.run(body)
}

/// The tokens that calls on this thread obey, and the observer that they report to.
///
/// A scope belongs to the thread that entered it. Pass the scope along with work for other threads:
///
/// ```
/// use rayon::prelude::*;
/// use wavemesh::task::{CancellationToken, Scope, check_interrupt};
/// let token = CancellationToken::new();
/// token.cancel();
/// let stopped = token.run(|| {
///     let scope = Scope::current();
///     (0..4).into_par_iter().map(|_| scope.clone().run(|| check_interrupt().is_err())).collect::<Vec<_>>()
/// });
/// assert_eq!(stopped, [true; 4]);
/// ```
#[derive(Clone, Default)]
pub struct Scope {
    tokens: Vec<CancellationToken>,
    observer: Option<Arc<dyn Observer>>,
}

impl Scope {
    /// The scope of the calling thread. Outside [`CancellationToken::run`] and [`observe`] it has no tokens and no observer.
    pub fn current() -> Self {
        CURRENT.with_borrow(Self::clone)
    }

    /// Runs `body` in this scope instead of the calling thread's own.
    pub fn run<T>(self, body: impl FnOnce() -> T) -> T {
        struct Restore(Scope);
        impl Drop for Restore {
            fn drop(&mut self) {
                CURRENT.set(std::mem::take(&mut self.0));
            }
        }
        let _restore = Restore(CURRENT.replace(self));
        body()
    }

    fn check(&self) -> Result<()> {
        let stop = INTERRUPTED.load(Ordering::SeqCst) || self.tokens.iter().any(CancellationToken::is_cancelled);
        if stop { Err(Error::Interrupted) } else { Ok(()) }
    }
}

/// A piece of long work with a known number of steps. Dropping it ends it.
pub struct Task {
    id: u64,
    label: String,
    total: u64,
    done: AtomicU64,
    stopped: AtomicBool,
    scope: Scope,
}

impl Task {
    /// Starts a task of `total` steps with the label `label`, in the [`Scope`] of the calling thread.
    pub fn new(label: impl Into<String>, total: usize) -> Self {
        static NEXT_ID: AtomicU64 = AtomicU64::new(0);
        let mut scope = Scope::current();
        if scope.observer.is_none() {
            scope.observer = OBSERVER.read().unwrap_or_else(PoisonError::into_inner).clone();
        }
        Self {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            label: label.into(),
            total: total as u64,
            done: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
            scope,
        }
    }

    /// Counts `steps` more steps as done. After a stop was requested, this call and all later ones, on every thread, return
    /// [`Error::Interrupted`].
    ///
    /// # Errors
    /// [`Error::Interrupted`] after a stop was requested.
    ///
    /// ```
    /// use wavemesh::task::{CancellationToken, Task};
    /// let token = CancellationToken::new();
    /// let task = token.run(|| Task::new("counting", 10));
    /// task.advance(4)?;
    /// token.cancel();
    /// assert!(task.advance(1).is_err());
    /// assert_eq!(task.done(), 4);
    /// # Ok::<(), wavemesh::Error>(())
    /// ```
    pub fn advance(&self, steps: usize) -> Result<()> {
        self.check()?;
        self.done.fetch_add(steps as u64, Ordering::Relaxed);
        if let Some(observer) = &self.scope.observer {
            observer.advanced(self);
        }
        Ok(())
    }

    /// Returns [`Error::Interrupted`] after a stop was requested.
    ///
    /// # Errors
    /// [`Error::Interrupted`] after a stop was requested.
    ///
    /// ```
    /// use wavemesh::task::{CancellationToken, Task};
    /// let token = CancellationToken::new();
    /// let task = token.run(|| Task::new("counting", 10));
    /// assert!(task.check().is_ok());
    /// token.cancel();
    /// assert!(task.check().is_err());
    /// ```
    pub fn check(&self) -> Result<()> {
        if self.stopped.load(Ordering::Relaxed) {
            return Err(Error::Interrupted);
        }
        self.scope.check().inspect_err(|_| self.stopped.store(true, Ordering::Relaxed))
    }

    /// The scope in which the task started, for work that it passes to other threads.
    pub fn scope(&self) -> Scope {
        self.scope.clone()
    }

    /// A number that no other task of the process has.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The label of the work.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Steps finished so far.
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// The total number of steps.
    pub fn total(&self) -> u64 {
        self.total
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        if let Some(observer) = &self.scope.observer {
            observer.ended(self);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_stops_the_tasks_of_its_calls_on_every_thread_and_no_others() {
        let (token, other) = (CancellationToken::new(), Task::new("other", 1));
        let own = token.run(|| Task::new("own", 3));
        assert!(own.advance(1).is_ok());
        std::thread::scope(|scope| {
            scope.spawn(|| token.cancel());
        });
        assert!(std::thread::scope(|scope| scope.spawn(|| own.advance(1)).join().unwrap()).is_err());
        assert!(own.advance(1).is_err() && other.advance(1).is_ok());
        assert_eq!(own.done(), 1);
    }

    #[test]
    fn scopes_nest_and_end_with_a_panic_too() {
        let (outer, inner) = (CancellationToken::new(), CancellationToken::new());
        outer.run(|| {
            inner.run(|| {
                outer.cancel();
                assert!(check_interrupt().is_err(), "an inner scope obeys the outer token");
            });
            let panicked = std::panic::catch_unwind(|| inner.run(|| panic!("on purpose")));
            assert!(panicked.is_err() && CURRENT.with_borrow(|scope| scope.tokens.len()) == 1);
        });
        assert!(check_interrupt().is_ok());
    }

    #[test]
    fn a_token_with_a_time_limit_cancels_itself() {
        assert!(CancellationToken::with_timeout(Duration::ZERO).is_cancelled());
        assert!(!CancellationToken::with_timeout(Duration::MAX).is_cancelled());
    }
}
