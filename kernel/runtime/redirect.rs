//! A call that has been made returns elsewhere: to code that unwinds, as if it had been called instead.
//!
//! `Condvar::wait` has a mutex to lock again before it ends, so a thread must not unwind from within. But it may return at any time, so it
//! is woken, and the address to which it returns is another meanwhile. Its caller must expect a panic of what it calls, which this is.

use std::cell::Cell;

thread_local! {
    /// The address to which the call was to return, or 0.
    static BACK: Cell<usize> = const { Cell::new(0) };
}

/// Makes room for this thread's own, which a handler of a signal must not do.
pub(crate) fn prepare() {
    BACK.set(0);
    drop(std::thread::current());
}

/// Whether a call of this thread can be redirected, which none is yet.
pub(crate) fn is_possible() -> bool {
    cfg!(target_arch = "x86_64") && BACK.get() == 0
}

/// Makes the call unwind that returns to the address at `place` on this thread's stack. False when that cannot be, or has been done.
#[cfg(target_arch = "x86_64")]
pub(crate) fn to_unwind(place: usize) -> bool {
    if !is_possible() || place == 0 {
        return false;
    }
    let place = place as *mut usize;
    // SAFETY: the unwinder has found the call's return address there: of this architecture, the last thing on the stack before the
    // called function's own. Nothing else reads or writes it while that function runs.
    unsafe {
        BACK.set(place.read());
        place.write(unwind_at_call as *const () as usize);
    }
    true
}

/// On other architectures a return address may lie in a register.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn to_unwind(_: usize) -> bool {
    false
}

/// Where the redirected call returns to: calls [`unwind`] so that this seems to have been called where the other was.
#[cfg(target_arch = "x86_64")]
#[unsafe(naked)]
extern "C" fn unwind_at_call() -> ! {
    std::arch::naked_asm!(
        // The stack is as its caller left it, a multiple of 16.
        "sub rsp, 16",
        "call {back}",
        "add rsp, 8",
        "mov qword ptr [rsp], rax",
        "jmp {unwind}",
        back = sym back,
        unwind = sym unwind,
    )
}

#[cfg(target_arch = "x86_64")]
extern "C" fn back() -> usize {
    BACK.replace(0)
}

#[cfg(target_arch = "x86_64")]
extern "C-unwind" fn unwind() -> ! {
    crate::stop::unwind()
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use std::panic::catch_unwind;

    use super::*;
    use crate::backtrace::Stack;

    /// Redirects the return to the caller of this.
    #[inline(never)]
    fn returns_elsewhere() -> bool {
        let stack = Stack::of_this_thread();
        let this = stack.calls().iter().position(|call| call.function == returns_elsewhere as *const () as usize);
        let caller = this.and_then(|this| stack.calls().get(this + 1));
        caller.is_some_and(|caller| {
            let place = caller.stack - size_of::<usize>();
            // SAFETY: the stack of this thread, which is only read.
            assert_eq!(unsafe { *(place as *const usize) }, caller.at, "what lies there is the address to return to");
            to_unwind(place) && !to_unwind(place)
        })
    }

    #[test]
    fn a_redirected_call_unwinds_where_it_was_made() {
        struct Dropped<'a>(&'a Cell<u32>);
        impl Drop for Dropped<'_> {
            fn drop(&mut self) {
                self.0.set(self.0.get() + 1);
            }
        }
        prepare();
        let dropped = Cell::new(0);
        for turn in 1..=3 {
            let unwound = catch_unwind(std::panic::AssertUnwindSafe(|| {
                let _guard = Dropped(&dropped);
                returns_elsewhere()
            }));
            assert!(unwound.is_err_and(|payload| payload.is::<crate::stop::Stopped>()));
            assert_eq!(dropped.get(), turn, "what its caller held is dropped once");
        }
    }
}
