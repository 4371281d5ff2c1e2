//! Where a panic came from: the addresses on the stack that lie in cells. The kernel finds their lines. And where a thread waits.
//!
//! `std::backtrace` reads the list of loaded libraries once, at its first use, so it knows none of the cells that are loaded later.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use crate::protocol::Frame;

/// Endless recursion would tell the same frames without end.
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
    fn _Unwind_GetRegionStart(context: *mut c_void) -> usize;
    fn _Unwind_GetLanguageSpecificData(context: *mut c_void) -> usize;
    fn dladdr(address: *const c_void, found: *mut Found) -> c_int;
}

/// A call on the stack.
#[derive(Clone, Copy)]
struct Call {
    /// The address to return to, behind the call; of the innermost function that a signal has interrupted, where that happened.
    at: usize,
    /// Where the function begins.
    function: usize,
    /// Whether it has something to do when it is unwound, or says where it must not be.
    cleans_up: bool,
}

/// The calls of a thread, the innermost first. It lies on the stack, since a signal may have come when memory cannot be allocated.
struct Stack {
    calls: [Call; FRAMES],
    count: usize,
}

extern "C" fn visit(context: *mut c_void, stack: *mut c_void) -> c_int {
    // SAFETY: `Stack::of_this_thread` passes its own value, which nothing else touches until the walk is over.
    let stack = unsafe { &mut *stack.cast::<Stack>() };
    // SAFETY: the unwinder calls with a context that is valid for this call.
    let call = unsafe {
        Call {
            at: _Unwind_GetIP(context),
            function: _Unwind_GetRegionStart(context),
            cleans_up: _Unwind_GetLanguageSpecificData(context) != 0,
        }
    };
    stack.calls[stack.count] = call;
    stack.count += 1;
    if stack.count < FRAMES { GO_ON } else { STOP }
}

impl Stack {
    fn of_this_thread() -> Stack {
        let mut stack = Stack { calls: [Call { at: 0, function: 0, cleans_up: false }; FRAMES], count: 0 };
        // SAFETY: `visit` has the type that the unwinder calls and does not unwind (it stops when there is no room), and the value
        // outlives the walk.
        unsafe { _Unwind_Backtrace(visit, (&raw mut stack).cast()) };
        stack
    }

    fn calls(&self) -> &[Call] {
        &self.calls[..self.count]
    }
}

/// The frames of this thread that lie in cells, the innermost first, each with the offset of its call.
pub(crate) fn cell_frames() -> Vec<Frame> {
    let stack = Stack::of_this_thread();
    let places = stack.calls().iter().filter_map(|call| Place::of(call.at.saturating_sub(1)));
    places.filter_map(Place::in_cell).collect()
}

/// A library, and an address in it.
struct Place {
    library: &'static CStr,
    base: usize,
    symbol: &'static CStr,
    address: usize,
}

impl Place {
    fn of(address: usize) -> Option<Place> {
        let nothing = std::ptr::null();
        let mut found =
            Found { file: nothing, base: std::ptr::null(), symbol: std::ptr::null(), address: std::ptr::null() };
        // SAFETY: any address may be asked about; `found` has the layout of C's `Dl_info`.
        if unsafe { dladdr(address as *const c_void, &mut found) } == 0 || found.file.is_null() {
            return None;
        }
        // SAFETY: the loader's own name of a library that is never unloaded, ended by a zero.
        let library = unsafe { CStr::from_ptr(found.file) };
        // SAFETY: as above, unless it is null.
        let symbol = if found.symbol.is_null() { c"" } else { unsafe { CStr::from_ptr(found.symbol) } };
        Some(Place { library, base: found.base as usize, symbol, address })
    }

    fn in_cell(self) -> Option<Frame> {
        let name = self.library.to_bytes().rsplit(|&byte| byte == b'/').next().unwrap_or_default();
        let is_cell = name == b"libcell.so" || name.starts_with(b"libctx-");
        let library = is_cell.then(|| self.library.to_string_lossy().into_owned())?;
        Some(Frame { library, offset: (self.address - self.base) as u64 })
    }
}

/// A stretch of machine code of a library.
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
    /// A cell's, or that of the notebook's items.
    Cell,
    /// The standard library's.
    Std,
    /// That of the C library.
    C,
}

/// Code that was found when a stop was asked for, and the code of the run that goes on.
static TEXTS: AtomicPtr<Text> = AtomicPtr::new(std::ptr::null_mut());
static COUNT: AtomicUsize = AtomicUsize::new(0);
static CODE: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());

/// Says where code lies as of now: `count` texts, which live for ever. There are never fewer than before.
#[unsafe(no_mangle)]
pub extern "C" fn wavemesh_cell_texts(texts: *const Text, count: usize) {
    // In this order, so that whoever comes in between takes some of the new ones.
    TEXTS.store(texts.cast_mut(), Ordering::SeqCst);
    COUNT.store(count, Ordering::SeqCst);
}

/// Names a function of the run that begins.
pub(crate) fn begin(code: *mut c_void) {
    CODE.store(code, Ordering::SeqCst);
}

/// The text in which an address lies, if it is a known one.
fn text_of(address: usize) -> Option<Text> {
    let (count, texts) = (COUNT.load(Ordering::SeqCst), TEXTS.load(Ordering::SeqCst));
    // SAFETY: the caller of `wavemesh_cell_texts` says that so many are there and stay; none are there before its first call.
    let texts = if texts.is_null() { &[] } else { unsafe { std::slice::from_raw_parts(texts, count) } };
    texts.iter().copied().find(|text| (text.start..text.end).contains(&address))
}

impl Call {
    fn text(&self) -> Option<Text> {
        text_of(self.at.saturating_sub(1))
    }

    fn is_of(&self, home: Home) -> bool {
        self.text().is_some_and(|text| text.home == home)
    }
}

/// What a thread waits for.
pub(crate) enum Wait {
    /// A sleep or a lock, from which it may unwind; whether the run that goes on has called it, on whatever thread.
    Plain {
        in_run: bool,
    },
    /// Work of a pool of rayon.
    Pool,
    Other,
}

/// What this thread waits for, when a signal has interrupted its system call at the address `call`.
pub(crate) fn wait_at(call: usize) -> Wait {
    let stack = Stack::of_this_thread();
    let Some(from) = stack.calls().iter().position(|found| found.at == call) else { return Wait::Other };
    let calls = &stack.calls()[from..];
    let outer = &calls[calls.iter().take_while(|call| call.is_of(Home::C)).count()..];
    let symbol = |address: usize| Place::of(address).map(|place| place.symbol.to_bytes()).unwrap_or_default();
    if let [function, caller, ..] = outer
        && function.is_of(Home::Std)
        // It may unwind here: it has nothing to clean up, and its caller, which was compiled apart from it, must expect it to. A lock of a
        // crate's own is left to the crate, as it may rely on more.
        && !function.cleans_up
        && !caller.is_of(Home::Std)
        && (is_sleep(symbol(function.function)) || is_lock(symbol(function.function)) && caller.is_of(Home::Cell))
        && !has_c_within(outer)
    {
        let of_run = text_of(CODE.load(Ordering::SeqCst) as usize);
        return Wait::Plain { in_run: outer.iter().any(|call| of_run.is_some() && call.text() == of_run) };
    }
    let is_pool = |call: &Call| call.text().is_none() && contains(symbol(call.at.saturating_sub(1)), b"rayon_core");
    if outer.iter().take(12).any(is_pool) { Wait::Pool } else { Wait::Other }
}

/// Whether this is the mangled name of `std`'s sleep.
fn is_sleep(name: &[u8]) -> bool {
    [b"3std6thread9functions5sleep".as_slice(), b"3std6thread5sleep"].iter().any(|part| contains(name, part))
}

/// Whether this is the mangled name of the function of `std` that waits for a mutex, or a lock of readers and writers.
fn is_lock(name: &[u8]) -> bool {
    contains(name, b"3std3sys4sync")
        && [b"14lock_contended".as_slice(), b"14read_contended", b"15write_contended"]
            .iter()
            .any(|part| contains(name, part))
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

/// Whether code of C has called this code of a cell: to unwind through it would end the process.
pub(crate) fn is_called_by_c() -> bool {
    has_c_within(Stack::of_this_thread().calls())
}

/// Whether code of C has, further out, a caller that lies in a cell.
fn has_c_within(calls: &[Call]) -> bool {
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
    fn sleeps_and_locks_are_known_by_their_mangled_names() {
        for name in ["_RNvNtNtCsjrHSEGnQ3l9_3std6thread9functions5sleep", "_ZN3std6thread5sleep17h0123456789abcdefE"] {
            assert!(is_sleep(name.as_bytes()) && !is_lock(name.as_bytes()), "{name}");
        }
        for name in [
            "_RNvMNtNtNtNtCsjrHSEGnQ3l9_3std3sys4sync5mutex5futexNtB2_5Mutex14lock_contended",
            "_ZN3std3sys4sync6rwlock5futex6RwLock15write_contended17h0123456789abcdefE",
        ] {
            assert!(is_lock(name.as_bytes()) && !is_sleep(name.as_bytes()), "{name}");
        }
        for name in [
            "_RNvNtNtCsjrHSEGnQ3l9_3std6thread9functions4park",
            "_RNvMs0_NtNtNtCsjrHSEGnQ3l9_3std3sys6thread4unixNtB5_6Thread4join",
            "_RNvNtCsjrHSEGnQ3l9_4mine6thread5sleep",
            "",
        ] {
            assert!(!is_lock(name.as_bytes()) && !is_sleep(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn a_thread_that_only_works_waits_for_nothing() {
        assert!(matches!(wait_at(0), Wait::Other));
        assert!(!is_called_by_c());
    }
}
