//! Finds where a panic came from: the addresses on the stack that are in cells. The kernel finds their lines.
//!
//! `std::backtrace` reads the list of loaded libraries once, at its first use, so it does not know cells that are loaded later.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use crate::protocol::Frame;

/// How many frames are read: endless recursion would never end.
const FRAMES: usize = 400;
const GO_ON: c_int = 0;
const STOP: c_int = 4;

#[repr(C)]
struct Found {
    file: *const c_char,
    base: *const c_void,
    symbol: *const c_char,
    address: *const c_void,
}

unsafe extern "C" {
    fn _Unwind_Backtrace(visit: extern "C" fn(*mut c_void, *mut c_void) -> c_int, state: *mut c_void) -> c_int;
    fn _Unwind_GetIP(context: *mut c_void) -> usize;
    fn _Unwind_GetCFA(context: *mut c_void) -> usize;
    fn _Unwind_GetRegionStart(context: *mut c_void) -> usize;
    fn _Unwind_GetLanguageSpecificData(context: *mut c_void) -> usize;
    fn dladdr(address: *const c_void, found: *mut Found) -> c_int;
}

/// A call on the stack.
#[derive(Clone, Copy)]
pub(crate) struct Call {
    /// The address to which the call returns. For the innermost function, which a signal interrupted, the address where that happened.
    pub at: usize,
    /// Where the stack ends after the function called here has returned.
    pub stack: usize,
    /// Where the function begins.
    pub function: usize,
    /// Whether the function has work to do when it is unwound, or marks places where it must not be unwound.
    pub cleans_up: bool,
}

/// The calls of a thread, innermost first. It is stored on the stack, since a signal may come when memory cannot be allocated.
pub(crate) struct Stack {
    calls: [Call; FRAMES],
    count: usize,
}

extern "C" fn visit(context: *mut c_void, stack: *mut c_void) -> c_int {
    // SAFETY: `Stack::of_this_thread` passes its own value, which nothing else touches until the walk is over.
    let stack = unsafe { &mut *stack.cast::<Stack>() };
    // SAFETY: the unwinder passes a context that is valid during this call.
    let call = unsafe {
        Call {
            at: _Unwind_GetIP(context),
            stack: _Unwind_GetCFA(context),
            function: _Unwind_GetRegionStart(context),
            cleans_up: _Unwind_GetLanguageSpecificData(context) != 0,
        }
    };
    stack.calls[stack.count] = call;
    stack.count += 1;
    if stack.count < FRAMES { GO_ON } else { STOP }
}

impl Stack {
    pub const fn new() -> Stack {
        Stack { calls: [Call { at: 0, stack: 0, function: 0, cleans_up: false }; FRAMES], count: 0 }
    }

    /// Reads the calls of this thread.
    pub fn fill(&mut self) {
        self.count = 0;
        // SAFETY: `visit` has the type that the unwinder expects and does not unwind (it stops when there is no room), and the value
        // outlives the walk.
        unsafe { _Unwind_Backtrace(visit, (&raw mut *self).cast()) };
    }

    pub fn of_this_thread() -> Stack {
        let mut stack = Stack::new();
        stack.fill();
        stack
    }

    pub fn calls(&self) -> &[Call] {
        &self.calls[..self.count]
    }

    /// The calls from the one that a signal interrupted at this address; empty if it is not found.
    pub fn from(&self, at: usize) -> &[Call] {
        let from = self.calls().iter().position(|call| call.at == at).unwrap_or(self.count);
        &self.calls()[from..]
    }
}

/// The frames of this thread that are in cells, innermost first, each with the offset of its call.
pub(crate) fn cell_frames() -> Vec<Frame> {
    let stack = Stack::of_this_thread();
    let places = stack.calls().iter().filter_map(|call| Place::of(call.at.saturating_sub(1)));
    let in_cells = places.filter_map(|place| place.in_cell());
    in_cells.map(|(library, offset)| Frame { library: library.to_owned(), offset }).collect()
}

/// A library, and an address in it.
pub(crate) struct Place {
    library: &'static CStr,
    base: usize,
    symbol: &'static CStr,
    address: usize,
}

impl Place {
    pub fn of(address: usize) -> Option<Place> {
        let nothing = std::ptr::null();
        let mut found =
            Found { file: nothing, base: std::ptr::null(), symbol: std::ptr::null(), address: std::ptr::null() };
        // SAFETY: any address may be asked about; `found` has the layout of C's `Dl_info`.
        if unsafe { dladdr(address as *const c_void, &mut found) } == 0 || found.file.is_null() {
            return None;
        }
        // SAFETY: this is the loader's own name of a library that is never unloaded, and it ends in zero.
        let library = unsafe { CStr::from_ptr(found.file) };
        // SAFETY: as above, unless it is null.
        let symbol = if found.symbol.is_null() { c"" } else { unsafe { CStr::from_ptr(found.symbol) } };
        Some(Place { library, base: found.base as usize, symbol, address })
    }

    /// The library of a cell and the offset in it, if the address is in a cell.
    pub fn in_cell(&self) -> Option<(&'static str, u64)> {
        let library = self.library.to_str().ok()?;
        let name = library.rsplit('/').next().unwrap_or_default();
        let is_cell = name == "libcell.so" || name.starts_with("libctx-");
        is_cell.then_some((library, (self.address - self.base) as u64))
    }
}

/// A range of a library's machine code.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Text {
    pub home: Home,
    pub start: usize,
    pub end: usize,
}

/// Whose machine code it is.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Home {
    /// The code of a cell, or of the notebook's items.
    Cell,
    /// The code of the standard library.
    Std,
    /// The code of the C library.
    C,
}

/// The code that was found when a stop was requested, and the code of the current run.
static TEXTS: AtomicPtr<Text> = AtomicPtr::new(std::ptr::null_mut());
static COUNT: AtomicUsize = AtomicUsize::new(0);
static CODE: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());

/// Sets where code is now: `count` ranges, which live for ever. A later call never has fewer.
#[unsafe(no_mangle)]
pub extern "C" fn wavemesh_cell_texts(texts: *const Text, count: usize) {
    // In this order, so that a reader in between sees some of the new ranges.
    TEXTS.store(texts.cast_mut(), Ordering::SeqCst);
    COUNT.store(count, Ordering::SeqCst);
}

/// Remembers the code of a run that begins; `code` is one of its functions.
pub(crate) fn begin(code: *mut c_void) {
    CODE.store(code, Ordering::SeqCst);
}

/// The code of the current run.
pub(crate) fn text_of_run() -> Option<Text> {
    text_of(CODE.load(Ordering::SeqCst) as usize)
}

/// The known range of code that contains an address.
fn text_of(address: usize) -> Option<Text> {
    let (count, texts) = (COUNT.load(Ordering::SeqCst), TEXTS.load(Ordering::SeqCst));
    // SAFETY: the caller of `wavemesh_cell_texts` guarantees that this many exist and stay; before its first call there are none.
    let texts = if texts.is_null() { &[] } else { unsafe { std::slice::from_raw_parts(texts, count) } };
    texts.iter().copied().find(|text| (text.start..text.end).contains(&address))
}

impl Call {
    pub fn text(&self) -> Option<Text> {
        text_of(self.at.saturating_sub(1))
    }

    /// The mangled name of the last symbol before an address, if the loader knows one.
    pub fn symbol(address: usize) -> &'static [u8] {
        Place::of(address).map(|place| place.symbol.to_bytes()).unwrap_or_default()
    }

    pub fn is_of(&self, home: Home) -> bool {
        self.text().is_some_and(|text| text.home == home)
    }
}

/// Whether C code has called this code of a cell. Unwinding through C would end the process.
pub(crate) fn is_called_by_c() -> bool {
    has_c_within(Stack::of_this_thread().calls())
}

/// Whether C code among these calls was called, further out, from a cell.
pub(crate) fn has_c_within(calls: &[Call]) -> bool {
    let mut c = false;
    calls.iter().any(|call| {
        c |= call.is_of(Home::C);
        c && call.is_of(Home::Cell)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_no_signal_has_interrupted_has_no_calls_from_there_on() {
        assert!(Stack::of_this_thread().from(1).is_empty());
        assert!(!is_called_by_c());
    }
}
