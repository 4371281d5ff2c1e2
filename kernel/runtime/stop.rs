//! The stop of a cell: it unwinds from where the cell notices, and what it has bound stays, as after a panic.
//!
//! A stop is a level, not an edge: until the cell winds down, each print, sleep, lock and await of it unwinds, so code that catches unwinds
//! does not swallow it for good. What unwinds is no panic: no hook runs, nothing is printed.
//!
//! A cell that notices nothing is left behind: the kernel's child gives the store and the name of the cell's thread to another worker
//! ([`wavemesh_cell_leave`]). From then on the old one stays wherever it comes to the runtime, so it cannot disturb the cells that follow.

use std::cell::Cell;
use std::panic::resume_unwind;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Waker};

use crate::backtrace::{self, Stack};
use crate::channel;
use crate::redirect;
use crate::wait::{self, Answer, Called, System, Wait};

/// A cell that writes is asked so many times to notice by itself.
const OF_OUTPUT: u32 = 20;

/// The run that shall stop, or 0.
static ASKED: AtomicU64 = AtomicU64::new(0);
/// The number of the thread that runs cells; those before it were left behind.
static WORKER: AtomicU64 = AtomicU64::new(1);
/// Whether the cell waited for a pool of rayon when it was last looked at.
static WAITS_FOR_POOL: AtomicBool = AtomicBool::new(false);
/// How many times the cell was found while it wrote.
static REMINDERS: AtomicU32 = AtomicU32::new(0);
/// Whether the cell's thread is in what runs its future, not in its code: unwinding there would drop the future with all that it holds.
static IN_EXECUTOR: AtomicBool = AtomicBool::new(false);
/// Wakes the future that the cell waits for.
static WAKER: Mutex<Option<Waker>> = Mutex::new(None);

thread_local! {
    /// The number of this thread if it runs cells, or ran them; otherwise 0.
    static NUMBER: Cell<u64> = const { Cell::new(0) };
}

/// What unwinds a cell that stops.
pub(crate) struct Stopped;

/// From now on this thread runs cells.
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

/// Called where a signal has interrupted a system call, with its address and what it is: unwinds if the cell shall stop and waits where it
/// may unwind from, or else says how the call goes on.
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
            // No more than two writes and a system call: the thread is known to itself since it became a worker.
            std::thread::current().unpark();
            Answer::GoOn
        }
        Wait::Called(Called::Transfer, _) if call == System::Interrupted => Answer::Cancel,
        _ if call == System::Incoming => Answer::Cancel,
        // A loop that prints notices by itself, so that what it has begun to write is written.
        _ if call == System::Outgoing && REMINDERS.fetch_add(1, Ordering::SeqCst) > OF_OUTPUT => Answer::Cancel,
        _ => Answer::GoOn,
    }
}

/// Called where a thread that is to be left behind was caught in code of a cell, at this address.
#[unsafe(no_mangle)]
pub extern "C" fn wavemesh_cell_caught(at: usize) {
    if is_cell_thread() {
        wait::note(Stack::of_this_thread().from(at));
    }
}

/// Unwinds if the cell shall stop; for loops of the library, which cannot return an error where they call this.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn wavemesh_cell_point() {
    point(0);
}

/// Whether the cell waited for a pool of rayon when a signal last found it in a system call: its thread alone cannot be left behind then,
/// because the pool's threads would go on with the cell's work.
#[unsafe(no_mangle)]
pub extern "C" fn wavemesh_cell_waits_for_pool() -> bool {
    WAITS_FOR_POOL.load(Ordering::SeqCst)
}

/// Leaves the cell's thread behind: another may run cells, and what this one held of the store is lost. False when the cell has ended.
#[unsafe(no_mangle)]
pub extern "C" fn wavemesh_cell_leave() -> bool {
    crate::store::take_from_cell(|| {
        WORKER.fetch_add(1, Ordering::SeqCst);
        wind_down();
    })
}

/// A cell begins.
pub(crate) fn begin() {
    ASKED.store(0, Ordering::SeqCst);
    WAITS_FOR_POOL.store(false, Ordering::SeqCst);
    REMINDERS.store(0, Ordering::SeqCst);
    wait::begin();
    IN_EXECUTOR.store(false, Ordering::SeqCst);
    *crate::lock(&WAKER) = None;
}

/// The cell obeys: what its values do when they are dropped, and other threads, are not stopped any more.
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

/// Where a thread stays that was left behind.
pub(crate) fn stay() -> ! {
    loop {
        std::thread::park();
    }
}

/// Unwinds because the cell shall stop, unless this thread was left behind meanwhile.
pub(crate) fn unwind() -> ! {
    if was_left() {
        stay();
    }
    resume_unwind(Box::new(Stopped))
}

/// Unwinds if the cell shall stop and this is its thread, or one that runs code of `run` (0: of no certain run).
pub(crate) fn point(run: u64) {
    if was_left() {
        stay();
    }
    let asked = ASKED.load(Ordering::Relaxed);
    if asked != 0 && (run == asked || is_cell_thread()) && !std::thread::panicking() && !backtrace::is_called_by_c() {
        resume_unwind(Box::new(Stopped));
    }
}

/// The cell's future is polled: what follows is code of the cell.
pub(crate) fn is_polled() {
    IN_EXECUTOR.store(false, Ordering::SeqCst);
}

/// Whether the cell, which waits for a future, shall stop instead. Otherwise a stop wakes `context`. The innermost level answers, which has
/// the latest variables in hand; those around it that ask after the same poll do not end what it goes on with.
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
