//! Signals that end the process of cells: the kernel is told where they came from, and then they do what they always do.

use std::ffi::{c_int, c_void};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use libc::sigaction;

use super::system_call::program_counter;

/// Told the address at which a signal has met the thread.
pub type Tell = extern "C" fn(usize);

const SIGNALS: [c_int; 5] = [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGABRT];
/// So many seconds the telling may take before the process ends without.
const PATIENCE: u32 = 2;
/// The stack of the handler: that of the cell may be full.
const ROOM: usize = 64 << 10;

static TELL: OnceLock<Tell> = OnceLock::new();
/// What was done at each signal before.
static BEFORE: [OnceLock<sigaction>; SIGNALS.len()] = [const { OnceLock::new() }; SIGNALS.len()];
static CRASHED: AtomicBool = AtomicBool::new(false);

/// Catches these signals from now on.
pub fn install(tell: Tell) -> std::io::Result<()> {
    let _ = TELL.set(tell);
    for (signal, before) in SIGNALS.into_iter().zip(&BEFORE) {
        // SAFETY: of `sigaction` all bits zero is a value, and the system fills in what was there before. The handler allocates nothing.
        let (caught, earlier) = unsafe {
            let (mut action, mut earlier): (sigaction, sigaction) = (std::mem::zeroed(), std::mem::zeroed());
            action.sa_sigaction = on_crash as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
            (libc::sigaction(signal, &action, &mut earlier), earlier)
        };
        if caught != 0 {
            return Err(std::io::Error::last_os_error());
        }
        let _ = before.set(earlier);
    }
    Ok(())
}

/// Gives the handler of this thread a stack on which there is room to look at the thread's own. It is kept for as long as the process
/// lives, as is the thread.
pub fn make_room() {
    let stack = Vec::leak(vec![0u8; ROOM]);
    let stack = libc::stack_t { ss_sp: stack.as_mut_ptr().cast(), ss_flags: 0, ss_size: ROOM };
    // SAFETY: the memory is the thread's alone from here on, and never freed.
    unsafe { libc::sigaltstack(&stack, std::ptr::null_mut()) };
}

extern "C" fn on_crash(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the system hands the handler what it knows of the signal.
    let is_sent = unsafe { (*info).si_code } <= 0;
    let before = SIGNALS.iter().position(|known| *known == signal).and_then(|index| BEFORE[index].get());
    // SAFETY: it was in force before; without it, or when nothing has failed here, the default ends the process.
    unsafe {
        match before.filter(|_| !is_sent) {
            Some(before) => libc::sigaction(signal, before, std::ptr::null_mut()) as libc::sighandler_t,
            None => libc::signal(signal, libc::SIG_DFL),
        };
    }
    if !CRASHED.swap(true, Ordering::SeqCst) {
        // The thread may hold the loader's lock, or memory may be broken: then this ends it.
        // SAFETY: its signal ends the process unless user code catches it.
        unsafe { libc::alarm(PATIENCE) };
        if let Some(tell) = TELL.get() {
            // SAFETY: the system hands the handler the context that it interrupted.
            tell(program_counter(unsafe { &*context.cast() }));
        }
        // SAFETY: takes the alarm back.
        unsafe { libc::alarm(0) };
    }
    // What has failed fails again when this returns. What was sent is not sent again.
    if is_sent {
        // SAFETY: ends the process.
        unsafe { libc::raise(signal) };
    }
}
