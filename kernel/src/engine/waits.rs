//! Finds out whose call a waiting cell thread is in. If it is the user's own, the wait may end in a panic, as any call may. A library that
//! calls the same function may rely on the wait, as `thread::scope` does.

use std::ffi::CStr;

use wavemesh_cell::protocol::Frame;
use wavemesh_cell::wait::{Called, NOTED};

use super::backtrace;
use super::child::Runtime;

/// The last wait that was looked up.
#[derive(Default)]
pub struct Waits {
    seen: Seen,
}

/// Where the cell's thread was when a signal last interrupted it.
#[derive(Default, PartialEq, Eq)]
struct Seen {
    /// The function of `std` in which the thread waits, or 0.
    function: usize,
    /// The addresses in cells to which the thread was about to return, innermost first.
    calls: Vec<usize>,
}

impl Seen {
    fn last(runtime: &Runtime) -> Seen {
        let mut seen = vec![0; 1 + NOTED];
        // SAFETY: the vector has room for one more than this number.
        let count = unsafe { (runtime.seen)(seen.as_mut_ptr(), NOTED) };
        seen.truncate(1 + count);
        Seen { function: seen[0], calls: seen.split_off(1) }
    }
}

impl Waits {
    /// Lets the wait end in which the cell's thread was last seen, if that is safe.
    pub fn allow(&mut self, runtime: &Runtime) {
        let seen = Seen::last(runtime);
        if seen.function == 0 || seen == self.seen {
            return;
        }
        if let Some(called) = function_of_std(seen.function) {
            let calls = if called == Called::Transfer { 0 } else { calls_up_to_the_users(&seen.calls) };
            // SAFETY: the vector has at least this many addresses.
            unsafe { (runtime.allow)(seen.function, called, seen.calls.as_ptr(), calls) };
        }
        self.seen = seen;
    }
}

/// The places in cells where the cell's thread was last seen, innermost first.
pub fn frames(runtime: &Runtime) -> Vec<Frame> {
    Seen::last(runtime).calls.into_iter().filter_map(frame).collect()
}

/// What the function at this address waits for.
fn function_of_std(address: usize) -> Option<Called> {
    let frame = frame(address + 1)?;
    Called::of(&backtrace::symbol(&frame)?)
}

/// The number of calls from the user's own to the wait, including the user's; 0 if the wait was called by other code.
fn calls_up_to_the_users(seen: &[usize]) -> usize {
    for (index, &address) in seen.iter().enumerate() {
        let files = frame(address).map(|frame| backtrace::files(&frame)).unwrap_or_default();
        match files.iter().find(|file| !only_waits(file)) {
            Some(file) if is_of_a_cell(file) => return index + 1,
            None if !files.is_empty() => {}
            _ => return 0,
        }
    }
    0
}

/// Whether a file of the standard library contains only waits for a condition, a thread or a channel, or iterators over them, and nothing
/// that relies on such a wait.
fn only_waits(file: &str) -> bool {
    if ["/library/core/src/iter/", "/library/core/src/ops/"].iter().any(|folder| file.contains(folder)) {
        return true;
    }
    let Some((_, file)) = file.split_once("/library/std/src/") else { return false };
    let is_channel = file.starts_with("sync/mpmc/") || file == "sync/mpsc.rs";
    let is_condition = file.starts_with("sync/") && file.ends_with("/condvar.rs");
    is_channel || is_condition || file.starts_with("thread/") && !file.ends_with("/scoped.rs")
}

fn is_of_a_cell(file: &str) -> bool {
    file.rsplit('/').next().is_some_and(|name| name.starts_with("In ["))
}

/// The library of the call that returns to this address, and the call's place in it.
fn frame(address: usize) -> Option<Frame> {
    let address = address.checked_sub(1)?;
    // SAFETY: zeros are valid here: they are null pointers.
    let mut found: libc::Dl_info = unsafe { std::mem::zeroed() };
    // SAFETY: any address may be asked about.
    if unsafe { libc::dladdr(address as *const _, &mut found) } == 0 || found.dli_fname.is_null() {
        return None;
    }
    // SAFETY: this is the loader's own name of a library that is never unloaded, and it ends in zero.
    let library = unsafe { CStr::from_ptr(found.dli_fname) }.to_string_lossy().into_owned();
    Some(Frame { library, offset: (address - found.dli_fbase as usize) as u64 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_in_std_for_its_caller_alone_is_told_from_what_relies_on_the_wait() {
        let of_std = |file: &str| format!("/rustc/59807616e1fa/library/std/src/{file}");
        for waits in [
            "sync/poison/condvar.rs",
            "thread/join_handle.rs",
            "thread/lifecycle.rs",
            "sync/mpmc/context.rs",
            "sync/mpsc.rs",
        ] {
            assert!(only_waits(&of_std(waits)), "{waits}");
        }
        for relies in ["thread/scoped.rs", "sync/barrier.rs", "sync/once.rs"] {
            assert!(!only_waits(&of_std(relies)), "{relies}");
        }
        assert!(!only_waits("/home/me/thread/mine.rs") && !only_waits("In [3]"));
        assert!(is_of_a_cell("/tmp/wavemesh-kernel-1/In [3]") && !is_of_a_cell("/home/me/src/lib.rs"));
    }

    #[test]
    fn an_address_that_is_no_code_has_no_place() {
        assert_eq!(frame(0), None);
        assert_eq!(calls_up_to_the_users(&[8]), 0);
    }
}
