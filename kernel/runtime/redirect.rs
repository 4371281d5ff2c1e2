//! Makes a running call return to another address: to code that unwinds, as if the caller had called that code instead.
//!
//! `Condvar::wait` has to lock a mutex again before it ends, so a thread must not unwind from inside it. But it may return at any time. So
//! it is woken after the address to which it returns was changed. Its caller must expect a panic from the function that it calls, and that
//! is what it sees.

use std::cell::Cell;

thread_local! {
    /// The address to which the call would have returned, or 0.
    static BACK: Cell<usize> = const { Cell::new(0) };
}

/// Prepares this thread's own memory, which a signal handler must not do.
pub(crate) fn prepare() {
    BACK.set(0);
    drop(std::thread::current());
}

/// Whether a call of this thread can be redirected: none is redirected yet.
pub(crate) fn is_possible() -> bool {
    cfg!(target_arch = "x86_64") && BACK.get() == 0
}

/// Makes a call unwind: its return address is at `place` on this thread's stack. Returns false if this is impossible or was done already.
#[cfg(target_arch = "x86_64")]
pub(crate) fn to_unwind(place: usize) -> bool {
    if !is_possible() || place == 0 {
        return false;
    }
    let place = place as *mut usize;
    // SAFETY: the unwinder found the call's return address there. On this architecture it is the last value on the stack before those of
    // the called function. Nothing else reads or writes it while that function runs.
    unsafe {
        BACK.set(place.read());
        place.write(unwind_at_call as *const () as usize);
    }
    true
}

/// On other architectures a return address may be in a register.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn to_unwind(_: usize) -> bool {
    false
}

/// The redirected call returns here. This calls [`unwind`] as if it had been called in place of the redirected function.
#[cfg(target_arch = "x86_64")]
#[unsafe(naked)]
extern "C" fn unwind_at_call() -> ! {
    std::arch::naked_asm!(
        // The stack is as the caller left it, at a multiple of 16.
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

    /// Redirects the return to the caller of this function.
    #[inline(never)]
    fn returns_elsewhere() -> bool {
        let stack = Stack::of_this_thread();
        let this = stack.calls().iter().position(|call| call.function == returns_elsewhere as *const () as usize);
        let caller = this.and_then(|this| stack.calls().get(this + 1));
        caller.is_some_and(|caller| {
            let place = caller.stack - size_of::<usize>();
            // SAFETY: this only reads the stack of this thread.
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
