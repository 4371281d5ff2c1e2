//! The variables of a notebook, which pass from one cell to the next, and the levels of the running cell.
//!
//! A cell is a function that receives a [`Frame`]. It loads variables of earlier cells and runs its statements in levels. Each level
//! catches a panic or a stop, and keeps what it has bound however the level below it ended.

use std::any::{Any, type_name};
use std::cell::RefCell;
use std::collections::{BTreeMap, HashSet};
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Mutex;
use std::task::Poll;

use crate::describe::describe;
use crate::protocol::Report;
use crate::stop::{self, Stopped};

/// The variables that no cell has taken.
static STORE: Mutex<Store> = Mutex::new(Store { variables: BTreeMap::new(), running: false });

/// Variables by name, and whether a cell is running with them. No code of a cell runs while this is locked, so that a cell's thread can be
/// left behind anywhere in its own code.
struct Store {
    variables: BTreeMap<String, Box<dyn Any>>,
    running: bool,
}

// SAFETY: one thread at a time uses the values: the worker that runs cells. Another worker replaces it only if it was left behind. Then it
// never touches a value in the store again ([`stop::stay_if_left`]), and it never ends, so its own values stay valid.
unsafe impl Send for Store {}

/// The result of a level of a cell.
#[must_use]
pub struct Outcome(pub(crate) Result<(), Stop>);

/// Why a cell did not run to its end.
pub(crate) enum Stop {
    /// It panicked; the hook has the message.
    Panic,
    /// It noticed a request to stop.
    Stopped,
    /// `?` met an error, which was reported already.
    #[cfg_attr(not(wavemesh_cells), expect(dead_code, reason = "made by `?` in cells"))]
    Failed,
}

/// The result of a level that ran to its end.
pub fn done() -> Outcome {
    Outcome(Ok(()))
}

/// The state of the running cell.
#[derive(Default)]
pub struct Frame {
    /// Names under which this cell has stored a value.
    kept: RefCell<HashSet<String>>,
    /// Variables that were moved out of their place.
    taken: RefCell<HashSet<usize>>,
}

/// Runs a cell with the variables of the store.
pub fn run(cell: fn(&Frame) -> Outcome) {
    let frame = Frame::default();
    match frame.level(|| cell(&frame)) {
        Outcome(Err(Stop::Panic)) => crate::panicked(),
        Outcome(Err(Stop::Stopped)) => crate::tell_kernel(&Report::Stopped),
        Outcome(Err(Stop::Failed) | Ok(())) => {}
    }
}

/// Gives the store to the cell that starts now.
pub(crate) fn begin() {
    crate::lock(&STORE).running = true;
}

/// Notes that the cell has ended and can no longer be left behind. Its thread calls this, and stays here if it was left behind.
#[unsafe(no_mangle)]
pub extern "C" fn wavemesh_cell_finish() {
    with_store(|store| store.running = false);
}

/// Takes the store from the running cell. Returns false if the cell has ended.
pub(crate) fn take_from_cell(leave: impl FnOnce()) -> bool {
    let mut store = crate::lock(&STORE);
    let running = std::mem::take(&mut store.running);
    if running {
        leave();
    }
    running
}

/// Works with the store, unless this thread was left behind.
fn with_store<R>(work: impl FnOnce(&mut Store) -> R) -> R {
    let mut store = crate::lock(&STORE);
    if stop::was_left() {
        drop(store);
        stop::stay();
    }
    work(&mut store)
}

// These are not generic, so that their code is in this library and not in that of each cell: rustc spends most of its time on generating
// code.

#[inline(never)]
fn take(name: &str) -> Option<Box<dyn Any>> {
    with_store(|store| store.variables.remove(name))
}

/// Stores a value and reports it. Returns the value that had this name before.
#[inline(never)]
fn put(name: String, value: Box<dyn Any>, told: &Report) -> Option<Box<dyn Any>> {
    with_store(|store| {
        crate::tell_kernel(told);
        store.variables.insert(name, value)
    })
}

#[inline(never)]
fn loaded(name: &str) -> Box<dyn Any> {
    take(name).unwrap_or_else(|| panic!("the variable `{name}` is gone: an earlier cell failed while it held it"))
}

#[inline(never)]
fn of_another_type(name: &str) -> ! {
    panic!("the variable `{name}` has another type than its cell said")
}

#[inline(never)]
fn caught(rest: &mut dyn FnMut() -> Outcome) -> Outcome {
    ended(catch_unwind(AssertUnwindSafe(rest)))
}

impl Frame {
    /// Runs the rest of the cell. A panic or a stop ends it as an error does.
    pub fn level(&self, rest: impl FnOnce() -> Outcome) -> Outcome {
        let mut rest = Some(rest);
        // `map_or_else` would be compiled with every cell.
        caught(&mut || match rest.take() {
            Some(rest) => rest(),
            None => done(),
        })
    }

    /// Like [`level`](Self::level), for a cell that waits for futures. A stop ends the wait.
    pub async fn level_async(&self, rest: impl Future<Output = Outcome>) -> Outcome {
        let mut rest = pin!(rest);
        std::future::poll_fn(|context| {
            stop::is_polled();
            let polled = catch_unwind(AssertUnwindSafe(|| rest.as_mut().poll(context)));
            match polled {
                Ok(Poll::Pending) if stop::ends_wait(context) => Poll::Ready(ended(Err(Box::new(Stopped)))),
                Ok(Poll::Pending) => Poll::Pending,
                Ok(Poll::Ready(outcome)) => Poll::Ready(ended(Ok(outcome))),
                Err(unwound) => Poll::Ready(ended(Err(unwound))),
            }
        })
        .await
    }

    /// Takes a variable of an earlier cell out of the store.
    pub fn load<T: 'static>(&self, name: &str) -> T {
        match loaded(name).downcast::<T>() {
            Ok(value) => *value,
            Err(_) => of_another_type(name),
        }
    }

    /// Stores the variable that the cell binds under this number, unless the cell has bound a newer variable with this name.
    pub fn keep<T: 'static>(&self, number: usize, name: &str, value: T) {
        self.store(Some(number), name, type_name::<T>(), Box::new(value));
    }

    /// Stores a variable of an earlier cell again, unless the cell has bound a variable with this name.
    pub fn put_back<T: 'static>(&self, name: &str, value: T) {
        self.store(None, name, type_name::<T>(), Box::new(value));
    }

    #[inline(never)]
    fn store(&self, number: Option<usize>, name: &str, type_name: &str, value: Box<dyn Any>) {
        // No later cell could name the type of a closure, so the value ends with this cell.
        if self.kept.borrow().contains(name) || type_name.contains("{{closure}}") {
            return;
        }
        self.kept.borrow_mut().insert(name.to_owned());
        let (heap, shape) = describe(&*value);
        let told = Report::Variable {
            name: name.to_owned(),
            number,
            bytes: (size_of_val(&*value) + heap) as u64,
            shape,
            type_name: type_name.to_owned(),
        };
        // The destructor of the replaced value may do anything, so it runs when the store is not locked.
        drop(put(name.to_owned(), value, &told));
    }

    /// Moves a variable out of its place; [`keep_unless_taken`](Self::keep_unless_taken) then leaves that place alone. `key` identifies the
    /// variable in this cell.
    ///
    /// # Safety
    ///
    /// The place must not be read, written or dropped after this.
    pub unsafe fn take_over<T>(&self, key: usize, place: &mut T) -> T {
        self.note_taken(key);
        // SAFETY: the reference is valid for reads, and the caller does not use what is left behind.
        unsafe { std::ptr::read(place) }
    }

    /// [`keep`](Self::keep), unless the value was [taken over](Self::take_over).
    pub fn keep_unless_taken<T: 'static>(&self, key: usize, number: usize, name: &str, value: T) {
        if self.was_taken(key) { std::mem::forget(value) } else { self.keep(number, name, value) }
    }

    /// [`put_back`](Self::put_back), unless the value was [taken over](Self::take_over).
    pub fn put_back_unless_taken<T: 'static>(&self, key: usize, name: &str, value: T) {
        if self.was_taken(key) { std::mem::forget(value) } else { self.put_back(name, value) }
    }

    #[inline(never)]
    fn note_taken(&self, key: usize) {
        self.taken.borrow_mut().insert(key);
    }

    #[inline(never)]
    fn was_taken(&self, key: usize) -> bool {
        self.taken.borrow().contains(&key)
    }

    /// Drops a variable that no cell can use any more.
    pub fn forget(&self, name: &str) {
        drop(take(name));
    }
}

/// The result of a level that returned or unwound. No more statements of the cell run; only keeping and dropping is left.
fn ended(result: std::thread::Result<Outcome>) -> Outcome {
    stop::wind_down();
    result.unwrap_or_else(|unwound| {
        let stop = if unwound.is::<Stopped>() { Stop::Stopped } else { Stop::Panic };
        Outcome(Err(stop))
    })
}
