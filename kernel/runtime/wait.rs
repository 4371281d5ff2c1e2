//! What a thread was waiting for in a system call that a stop interrupted, and how that wait may end.
//!
//! | the thread waits in | the wait ends |
//! | --- | --- |
//! | `std`'s sleep, a lock | by unwinding from there ([`Wait::Plain`]) |
//! | `Condvar::wait`, `thread::park` of the user's own | by unwinding from that call once it has returned, as it may at any time ([`Wait::Called`]) |
//! | `JoinHandle::join` of the user's own | by the panic of `std` when the system cannot join |
//! | a channel of the user's own | by unwinding in the same way, once it has left the channel's queue ([`channel`](crate::channel)) |
//! | input and output, a wait for a process | by the error `ECANCELED`, as any such call may |
//! | anything else | not at all: its thread can only be left behind |
//!
//! A wait inside a library, such as the one that ends `thread::scope`, is left alone: threads may use what the wait keeps alive. So the
//! kernel's child first finds out whose call it is, and [allows](wavemesh_cell_allow) it.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use crate::backtrace::{Call, Home, has_c_within, text_of_run};

/// How many calls in cells are noted; the innermost ones.
pub const NOTED: usize = 64;
/// How many calls at most may lie between the user's own call and the waiting function of `std`.
const CHAIN: usize = 24;

/// A system call that a signal has interrupted.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum System {
    /// A wait for a word of memory.
    Futex,
    /// Something is to arrive: input, a connection, the end of a process.
    Incoming,
    /// Something is to be sent.
    Outgoing,
    /// A call that has ended because of the signal.
    Interrupted,
    /// Any other call.
    Other,
}

/// What happens to the call.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It continues.
    GoOn,
    /// It ends as if it had been woken.
    Wake,
    /// It fails with a timeout.
    TimeOut,
    /// It fails as cancelled.
    Cancel,
}

/// What a thread waits for.
pub(crate) enum Wait {
    /// A sleep or a lock, from which the thread may unwind; and whether the current run called it, on any thread.
    Plain {
        in_run: bool,
    },
    /// A function of `std` that a cell called.
    Called(Called, Place),
    /// Work of a pool of rayon.
    Pool,
    Other,
}

/// Where on the stack a function of `std` was called.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Place {
    /// The place of its return address.
    pub back: usize,
    /// The interrupted end of the stack.
    pub from: usize,
    /// The end at the user's own function.
    pub to: usize,
}

/// What a function of `std` waits for.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Called {
    Condition,
    Park,
    Join,
    /// A message of a channel, or space in one.
    Channel,
    /// Input, output or processes. Such a wait may end, whoever called it.
    Transfer,
}

impl Called {
    /// What the function with this mangled name waits for; `None` for other functions.
    pub fn of(name: &str) -> Option<Called> {
        let contains = |part: &str| name.contains(part);
        if contains("3std3sys4sync7condvar") {
            Some(Called::Condition)
        } else if contains("3std6thread9functions4park") || contains("3std6thread9functions12park_timeout") {
            Some(Called::Park)
        } else if contains("3std3sys6thread") && contains("6Thread4join") {
            Some(Called::Join)
        } else if contains("3std6thread") && (contains("6Thread4park") || contains("6Thread12park_timeout")) {
            Some(Called::Channel)
        } else if ["3std7process", "3std3net", "3std2os4unix3net"].into_iter().any(contains) {
            Some(Called::Transfer)
        } else {
            None
        }
    }

    fn from_number(number: u32) -> Option<Called> {
        [Called::Condition, Called::Park, Called::Join, Called::Channel, Called::Transfer]
            .into_iter()
            .find(|kind| *kind as u32 == number)
    }
}

/// The address of the function of `std` that a cell had called when a signal last interrupted the cell's thread in it, or 0.
static FUNCTION: AtomicUsize = AtomicUsize::new(0);
/// The addresses in cells to which the cell's thread was about to return when a signal last interrupted it, innermost first.
static SEEN: [AtomicUsize; NOTED] = [const { AtomicUsize::new(0) }; NOTED];
/// The function that may end, what it waits for, and the addresses in cells up to the user's own call of it.
static MAY_END: AtomicUsize = AtomicUsize::new(0);
static KIND: AtomicU32 = AtomicU32::new(0);
static ALLOWED: [AtomicUsize; CHAIN] = [const { AtomicUsize::new(0) }; CHAIN];

/// Writes to `seen` the address of the function of `std` in which the cell waits (or 0), then up to `room` of the noted addresses. Returns
/// how many addresses follow.
///
/// # Safety
///
/// `seen` must have room for `room + 1` values.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wavemesh_cell_seen(seen: *mut usize, room: usize) -> usize {
    // SAFETY: the caller guarantees the room.
    unsafe { seen.write(FUNCTION.load(Ordering::SeqCst)) };
    let noted = SEEN.iter().map(|address| address.load(Ordering::SeqCst)).take_while(|&address| address != 0);
    noted.take(room).fold(0, |count, address| {
        // SAFETY: as above.
        unsafe { seen.add(count + 1).write(address) };
        count + 1
    })
}

/// Lets the function of `std` at `function`, which waits for `called`, end if it is called through these `count` addresses; the last one is
/// the user's own call.
///
/// # Safety
///
/// `chain` must point to `count` addresses.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wavemesh_cell_allow(function: usize, called: Called, chain: *const usize, count: usize) {
    MAY_END.store(0, Ordering::SeqCst);
    for (index, allowed) in ALLOWED.iter().enumerate() {
        // SAFETY: the caller guarantees that there are this many.
        let address = if index < count && count <= CHAIN { unsafe { chain.add(index).read() } } else { 0 };
        allowed.store(address, Ordering::SeqCst);
    }
    KIND.store(called as u32, Ordering::SeqCst);
    MAY_END.store(function, Ordering::SeqCst);
}

/// Notes which of these calls are in cells, by the addresses to which they return: a call stands before its address. The first call was
/// interrupted at its address, so it counts as one that returns behind it.
pub(crate) fn note(calls: &[Call]) {
    let returns = |(place, call): (usize, &Call)| call.is_of(Home::Cell).then(|| call.at + usize::from(place == 0));
    let mut cells = calls.iter().enumerate().filter_map(returns);
    SEEN.iter().for_each(|seen| seen.store(cells.next().unwrap_or(0), Ordering::SeqCst));
    let function = waits_in(calls).map_or(0, |(function, _)| function.function);
    FUNCTION.store(function, Ordering::SeqCst);
}

/// Forgets what was noted, for a cell that begins.
pub(crate) fn begin() {
    SEEN.iter().chain(&ALLOWED).chain([&FUNCTION, &MAY_END]).for_each(|address| address.store(0, Ordering::SeqCst));
}

/// What a thread with these calls waits for; the innermost call has made a system call.
pub(crate) fn of(calls: &[Call]) -> Wait {
    let outer = &calls[calls.iter().take_while(|call| call.is_of(Home::C)).count()..];
    if let [function, caller, ..] = outer
        && function.is_of(Home::Std)
        // The thread may unwind here: this function has nothing to clean up, and its caller, which was compiled separately, must expect
        // unwinding. A crate's own lock is left to the crate, which may rely on more.
        && !function.cleans_up
        && !caller.is_of(Home::Std)
        && is_plain(Call::symbol(function.function), caller.is_of(Home::Cell))
        && !has_c_within(outer)
    {
        let of_run = text_of_run();
        return Wait::Plain { in_run: outer.iter().any(|call| of_run.is_some() && call.text() == of_run) };
    }
    let is_pool =
        |call: &Call| call.text().is_none() && contains(Call::symbol(call.at.saturating_sub(1)), b"rayon_core");
    if outer.iter().take(12).any(is_pool) {
        return Wait::Pool;
    }
    let Some((function, callers)) = waits_in(calls) else { return Wait::Other };
    if function.function == 0 || function.function != MAY_END.load(Ordering::SeqCst) {
        return Wait::Other;
    }
    match Called::from_number(KIND.load(Ordering::SeqCst)) {
        Some(Called::Transfer) => Wait::Called(Called::Transfer, Place::default()),
        Some(called) if !has_c_within(outer) => allowed(callers).map_or(Wait::Other, |users| {
            let back = callers[0].stack.saturating_sub(size_of::<usize>());
            Wait::Called(called, Place { back, from: calls[0].stack, to: users.stack })
        }),
        _ => Wait::Other,
    }
}

/// The outermost function of `std` around a system call, and its callers (at least one).
fn waits_in(calls: &[Call]) -> Option<(&Call, &[Call])> {
    let outer = &calls[calls.iter().take_while(|call| call.is_of(Home::C)).count()..];
    let (of_std, callers) = outer.split_at(outer.iter().take_while(|call| call.is_of(Home::Std)).count());
    Some((of_std.last()?, callers)).filter(|(_, callers)| !callers.is_empty())
}

/// The last of the callers through which the wait may end, if these are the allowed ones.
fn allowed(callers: &[Call]) -> Option<&Call> {
    let chain = ALLOWED.iter().map(|address| address.load(Ordering::SeqCst)).take_while(|&address| address != 0);
    let mut callers = callers.iter();
    let known = chain.map(|address| callers.next().filter(|call| call.at == address && call.is_of(Home::Cell)));
    known.collect::<Option<LastOf>>()?.0
}

/// Collects the last of several calls.
struct LastOf<'a>(Option<&'a Call>);

impl<'a> FromIterator<&'a Call> for LastOf<'a> {
    fn from_iter<I: IntoIterator<Item = &'a Call>>(calls: I) -> Self {
        LastOf(calls.into_iter().last())
    }
}

/// Whether this is the mangled name of `std`'s sleep or, if `locks`, of its wait for a lock.
fn is_plain(name: &[u8], locks: bool) -> bool {
    is_sleep(name) || locks && is_lock(name)
}

/// Whether this is the mangled name of `std`'s sleep.
fn is_sleep(name: &[u8]) -> bool {
    contains_any(name, &[b"3std6thread9functions5sleep", b"3std6thread5sleep"])
}

/// Whether this is the mangled name of the function of `std` that waits for a mutex or a read-write lock.
fn is_lock(name: &[u8]) -> bool {
    contains(name, b"3std3sys4sync")
        && contains_any(name, &[b"14lock_contended", b"14read_contended", b"15write_contended"])
}

fn contains_any(text: &[u8], parts: &[&[u8]]) -> bool {
    parts.iter().any(|part| contains(text, part))
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
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
    fn waits_that_may_end_are_known_by_their_mangled_names() {
        for (name, waits) in [
            ("_RNvMNtNtNtNtCsjrHSEGnQ3l9_3std3sys4sync7condvar5futexNtB2_7Condvar4wait", Some(Called::Condition)),
            ("_RNvNtNtCsjrHSEGnQ3l9_3std6thread9functions4park", Some(Called::Park)),
            ("_RNvMs0_NtNtNtCsjrHSEGnQ3l9_3std3sys6thread4unixNtB5_6Thread4join", Some(Called::Join)),
            ("_RNvMsY_NtCsjrHSEGnQ3l9_3std7processNtB5_5Child16wait_with_output", Some(Called::Transfer)),
            ("_RNvMs_NtNtCsjrHSEGnQ3l9_3std6thread6threadNtB4_6Thread4park", Some(Called::Channel)),
            ("_RNvMNtNtCsjrHSEGnQ3l9_3std4sync7barrierNtB2_7Barrier4wait", None),
        ] {
            assert_eq!(Called::of(name), waits, "{name}");
        }
    }

    #[test]
    fn what_is_waited_for_is_known_by_its_number() {
        for called in [Called::Condition, Called::Park, Called::Join, Called::Channel, Called::Transfer] {
            assert_eq!(Called::from_number(called as u32), Some(called));
        }
        assert_eq!(Called::from_number(Called::Transfer as u32 + 1), None);
    }

    #[test]
    fn a_thread_that_only_works_waits_for_nothing() {
        assert!(matches!(of(&[]), Wait::Other));
    }
}
