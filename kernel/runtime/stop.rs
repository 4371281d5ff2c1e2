//! Stops a cell: it unwinds from where it notices the request, and what it has bound is kept, as after a panic.
//!
//! A request to stop is a level, not an edge: until the cell winds down, each of its prints, sleeps, locks and awaits unwinds, so code that
//! catches unwinding cannot swallow the request for good. The unwinding is not a panic: no hook runs, and nothing is printed.
//!
//! A cell that notices nothing is left behind: the kernel's child gives the store, and the role of the cell's thread, to another worker
//! ([`wavemesh_cell_leave`]). From then on the old thread stays in the runtime as soon as it enters it, so it cannot disturb later cells.

use std::cell::Cell;
use std::panic::resume_unwind;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Waker};

use crate::backtrace::{self, Stack};
use crate::channel;
use crate::redirect;
use crate::wait::{self, Answer, Called, System, Wait};

/// How many times a cell that is writing is reminded before its write is cancelled.
const OF_OUTPUT: u32 = 20;

/// The run that has to stop, or 0.
static ASKED: AtomicU64 = AtomicU64::new(0);
/// The number of the thread that runs cells; threads with smaller numbers were left behind.
static WORKER: AtomicU64 = AtomicU64::new(1);
/// Whether the cell waited for a rayon pool when a signal last looked.
static WAITS_FOR_POOL: AtomicBool = AtomicBool::new(false);
/// How many times the cell was found writing.
static REMINDERS: AtomicU32 = AtomicU32::new(0);
/// Whether the cell's thread is in the code that runs its future, not in its own code: unwinding there would drop the future with
/// everything in it.
static IN_EXECUTOR: AtomicBool = AtomicBool::new(false);
/// Wakes the future for which the cell waits.
static WAKER: Mutex<Option<Waker>> = Mutex::new(None);

thread_local! {
    /// This thread's number if it runs or ran cells; otherwise 0.
    static NUMBER: Cell<u64> = const { Cell::new(0) };
}

/// The payload that unwinds a stopped cell.
pub(crate) struct Stopped;

/// Makes this thread the one that runs cells.
#[unsafe(no_mangle)]
pub extern "C" fn wavemesh_cell_worker() {
    redirect::prepare();
    NUMBER.set(WORKER.load(Ordering::SeqCst));
}

/// Asks this run to stop.
#[unsafe(no_mangle)]
pub extern "C" fn wavemesh_cell_stop(run: u64) {
    ASKED.store(run, Ordering::SeqCst);
    let waker = crate::lock(&WAKER).take();
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// Called where a signal interrupted a system call, with its address and kind. Unwinds if the cell has to stop and waits where it may
/// unwind; otherwise returns how the call goes on.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn wavemesh_cell_notice(at: usize, call: System) -> Answer {
    if ASKED.load(Ordering::SeqCst) == 0 || std::thread::panicking() {
        return Answer::GoOn;
    }
    let stack = Stack::of_this_thread();
    let calls = stack.from(at);
    let found = wait::of(calls);
    if !is_cell_thread() {
        if let Wait::Plain { in_run: true } = found {
            resume_unwind(Box::new(Stopped));
        }
        return Answer::GoOn;
    }
    wait::note(calls);
    WAITS_FOR_POOL.store(matches!(found, Wait::Pool), Ordering::SeqCst);
    match found {
        Wait::Plain { .. } if !IN_EXECUTOR.load(Ordering::SeqCst) => resume_unwind(Box::new(Stopped)),
        Wait::Called(Called::Join, _) if call == System::Futex => Answer::TimeOut,
        Wait::Called(Called::Condition, place) if redirect::to_unwind(place.back) => Answer::Wake,
        Wait::Called(called, place)
            if called == Called::Park && redirect::to_unwind(place.back)
                || called == Called::Channel
                    && redirect::is_possible()
                    && channel::give_up(place.from..place.to)
                    && redirect::to_unwind(place.back) =>
        {
            // This needs only two writes and a system call: the thread's handle exists since it became a worker.
            std::thread::current().unpark();
            Answer::GoOn
        }
        Wait::Called(Called::Transfer, _) if call == System::Interrupted => Answer::Cancel,
        _ if call == System::Incoming => Answer::Cancel,
        // A loop that prints notices by itself, so that it can finish the text it has begun to write.
        _ if call == System::Outgoing && REMINDERS.fetch_add(1, Ordering::SeqCst) > OF_OUTPUT => Answer::Cancel,
        _ => Answer::GoOn,
    }
}

/// Called with the address where a thread that is to be left behind was caught in code of a cell.
#[unsafe(no_mangle)]
pub extern "C" fn wavemesh_cell_caught(at: usize) {
    if is_cell_thread() {
        wait::note(Stack::of_this_thread().from(at));
    }
}

/// Unwinds if the cell has to stop. For loops of the library that cannot return an error at this point.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn wavemesh_cell_point() {
    point(0);
}

/// Whether the cell waited for a rayon pool when a signal last found it in a system call. Then its thread alone cannot be left behind,
/// because the pool's threads would go on with the cell's work.
#[unsafe(no_mangle)]
pub extern "C" fn wavemesh_cell_waits_for_pool() -> bool {
    WAITS_FOR_POOL.load(Ordering::SeqCst)
}

/// Leaves the cell's thread behind: another thread may run cells, and variables that this one had taken from the store are lost. Returns
/// false if the cell has ended.
#[unsafe(no_mangle)]
pub extern "C" fn wavemesh_cell_leave() -> bool {
    crate::store::take_from_cell(|| {
        WORKER.fetch_add(1, Ordering::SeqCst);
        wind_down();
    })
}

/// Notes that a cell begins.
pub(crate) fn begin() {
    ASKED.store(0, Ordering::SeqCst);
    WAITS_FOR_POOL.store(false, Ordering::SeqCst);
    REMINDERS.store(0, Ordering::SeqCst);
    wait::begin();
    IN_EXECUTOR.store(false, Ordering::SeqCst);
    *crate::lock(&WAKER) = None;
}

/// Notes that the cell obeys: destructors of its values, and other threads, are no longer stopped.
pub(crate) fn wind_down() {
    ASKED.store(0, Ordering::SeqCst);
}

/// Whether this is the thread that runs cells.
pub(crate) fn is_cell_thread() -> bool {
    NUMBER.get() == WORKER.load(Ordering::SeqCst)
}

/// Whether this thread ran cells and was left behind.
pub(crate) fn was_left() -> bool {
    NUMBER.get() != 0 && !is_cell_thread()
}

/// Keeps a thread that was left behind here for ever.
pub(crate) fn stay() -> ! {
    loop {
        std::thread::park();
    }
}

/// Unwinds because the cell has to stop, unless this thread was left behind in between.
#[cfg(target_arch = "x86_64")]
pub(crate) fn unwind() -> ! {
    if was_left() {
        stay();
    }
    resume_unwind(Box::new(Stopped))
}

/// Unwinds if the cell has to stop and this thread is its own, or runs code of `run` (0 stands for any run).
pub(crate) fn point(run: u64) {
    if was_left() {
        stay();
    }
    let asked = ASKED.load(Ordering::Relaxed);
    if asked != 0 && (run == asked || is_cell_thread()) && !std::thread::panicking() && !backtrace::is_called_by_c() {
        resume_unwind(Box::new(Stopped));
    }
}

/// Notes that the cell's future is polled: code of the cell follows.
pub(crate) fn is_polled() {
    IN_EXECUTOR.store(false, Ordering::SeqCst);
}

/// Whether a cell that waits for a future has to stop instead; if not, a later stop wakes `context`. The innermost level answers first,
/// since it has the latest variables; levels around it that ask after the same poll do not end the work that it continues.
pub(crate) fn ends_wait(context: &Context) -> bool {
    if !is_cell_thread() || IN_EXECUTOR.swap(true, Ordering::SeqCst) {
        return false;
    }
    let mut waker = crate::lock(&WAKER);
    if !waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
        *waker = Some(context.waker().clone());
    }
    drop(waker);
    ASKED.load(Ordering::SeqCst) != 0
}
