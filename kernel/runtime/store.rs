//! The variables of a notebook, from one cell to the next, and the levels of the cell that runs.
//!
//! A cell is a function that is given a [`Frame`]: it loads variables of earlier cells, runs its statements in levels, each of which
//! catches a panic, and keeps what it has bound however the level below it ended.

use std::any::{Any, type_name};
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;

use crate::protocol::Report;

/// Variables by name.
#[derive(Default)]
pub struct VariableStore {
    variables: HashMap<String, Box<dyn Any>>,
}

/// How a level of a cell ended.
#[must_use]
pub struct Outcome(pub(crate) Result<(), Stop>);

/// Why a cell did not run to its end.
pub(crate) enum Stop {
    /// It panicked; the hook has the message.
    Panic,
    /// `?` met an error, which has been told.
    #[cfg_attr(not(wavemesh_cells), expect(dead_code, reason = "made by `?` in cells"))]
    Failed,
}

/// The level ran to its end.
pub fn done() -> Outcome {
    Outcome(Ok(()))
}

/// What the running cell holds in hand.
pub struct Frame {
    state: RefCell<State>,
}

struct State {
    store: VariableStore,
    /// Names under which this cell has stored something.
    kept: HashSet<String>,
    /// Variables that were moved out of their place.
    taken: HashSet<usize>,
}

/// Runs a cell on the variables of `store`, which is made when there is none. Returns the store.
///
/// # Safety
///
/// `store` is null or what the last call returned, which is given away by this one.
pub unsafe fn run(store: *mut VariableStore, cell: fn(&Frame) -> Outcome) -> *mut VariableStore {
    let store = if store.is_null() {
        Box::default()
    } else {
        // SAFETY: the caller says that it comes from `Box::into_raw` below, and that nobody else has it.
        unsafe { Box::from_raw(store) }
    };
    let state = State { store: *store, kept: HashSet::new(), taken: HashSet::new() };
    let frame = Frame { state: RefCell::new(state) };
    if let Outcome(Err(Stop::Panic)) = frame.level(|| cell(&frame)) {
        crate::panicked();
    }
    Box::into_raw(Box::new(frame.state.into_inner().store))
}

impl Frame {
    /// Runs the rest of the cell; a panic ends it as an error does.
    pub fn level(&self, rest: impl FnOnce() -> Outcome) -> Outcome {
        catch_unwind(AssertUnwindSafe(rest)).unwrap_or(Outcome(Err(Stop::Panic)))
    }

    /// The same for a cell that waits for futures.
    pub async fn level_async(&self, rest: impl Future<Output = Outcome>) -> Outcome {
        let mut rest = pin!(rest);
        std::future::poll_fn(|context| {
            catch_unwind(AssertUnwindSafe(|| rest.as_mut().poll(context)))
                .unwrap_or(Poll::Ready(Outcome(Err(Stop::Panic))))
        })
        .await
    }

    /// Takes a variable of an earlier cell out of the store.
    pub fn load<T: 'static>(&self, name: &str) -> T {
        let value = self.state.borrow_mut().store.variables.remove(name);
        match value.map(|value| value.downcast::<T>()) {
            Some(Ok(value)) => *value,
            Some(Err(_)) => panic!("the variable `{name}` has another type than its cell said"),
            None => panic!("the variable `{name}` is gone: an earlier cell failed while it held it"),
        }
    }

    /// Stores the variable that the cell binds as the one of this number, unless it has bound a newer one of this name.
    pub fn keep<T: 'static>(&self, number: usize, name: &str, value: T) {
        self.store(Some(number), name, value);
    }

    /// Stores a variable of an earlier cell again, unless the cell has bound one of this name.
    pub fn put_back<T: 'static>(&self, name: &str, value: T) {
        self.store(None, name, value);
    }

    fn store<T: 'static>(&self, number: Option<usize>, name: &str, value: T) {
        let mut state = self.state.borrow_mut();
        // No later cell could name the type of a closure, so the value ends with this one.
        if state.kept.contains(name) || type_name::<T>().contains("{{closure}}") {
            drop(state);
            return;
        }
        state.kept.insert(name.to_owned());
        crate::tell_kernel(&Report::Variable {
            name: name.to_owned(),
            number,
            bytes: (size_of::<T>() + heap_bytes(&value)) as u64,
            type_name: type_name::<T>().to_owned(),
        });
        let old = state.store.variables.insert(name.to_owned(), Box::new(value));
        // Its destructor may do anything, so the state must be free.
        drop(state);
        drop(old);
    }

    /// Moves a variable out of its place, which [`keep_unless_taken`](Self::keep_unless_taken) then leaves alone. `key` is the variable's
    /// own in this cell.
    ///
    /// # Safety
    ///
    /// The place must not be read, written or dropped after this.
    pub unsafe fn take_over<T>(&self, key: usize, place: &mut T) -> T {
        self.state.borrow_mut().taken.insert(key);
        // SAFETY: the reference is valid for reads, and the caller does not use what is left.
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

    fn was_taken(&self, key: usize) -> bool {
        self.state.borrow().taken.contains(&key)
    }

    /// Drops a variable that no cell can use any more.
    pub fn forget(&self, name: &str) {
        let old = self.state.borrow_mut().store.variables.remove(name);
        drop(old);
    }
}

/// What a value holds on the heap, for the types whose contents are plain.
fn heap_bytes(value: &dyn Any) -> usize {
    macro_rules! vectors {
        ($($element:ty)*) => {$(
            if let Some(vector) = value.downcast_ref::<Vec<$element>>() {
                return vector.capacity() * size_of::<$element>();
            }
        )*};
    }
    vectors!(f32 f64 u8 i8 u16 i16 u32 i32 u64 i64 usize isize bool char [f32; 2] [f32; 3] [f64; 3] [u32; 3] [i32; 3] [i32; 4] (f64, f64) (f32, f32));
    if let Some(text) = value.downcast_ref::<String>() {
        return text.capacity();
    }
    if let Some(texts) = value.downcast_ref::<Vec<String>>() {
        return texts.iter().map(|text| text.capacity() + size_of::<String>()).sum();
    }
    0
}
