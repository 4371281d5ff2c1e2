//! Signals that end the process of cells. The handler tells the kernel where the signal occurred; then the signal does what it always does.

use std::ffi::{c_int, c_void};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use libc::sigaction;

use super::system_call::program_counter;

/// Receives the address at which a signal met the thread.
pub type Tell = extern "C" fn(usize);

const SIGNALS: [c_int; 5] = [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGABRT];
/// How many seconds the report may take before the process ends without it.
const PATIENCE: u32 = 2;
/// The size of the handler's stack, in bytes: the cell's own stack may be full.
const ROOM: usize = 64 << 10;

static TELL: OnceLock<Tell> = OnceLock::new();
/// The earlier action of each signal.
static BEFORE: [OnceLock<sigaction>; SIGNALS.len()] = [const { OnceLock::new() }; SIGNALS.len()];
static CRASHED: AtomicBool = AtomicBool::new(false);

/// Installs the handler for these signals.
pub fn install(tell: Tell) -> std::io::Result<()> {
    let _ = TELL.set(tell);
    for (signal, before) in SIGNALS.into_iter().zip(&BEFORE) {
        // SAFETY: a `sigaction` of zeros is valid, and the system fills in the earlier action. The handler allocates nothing.
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

/// Gives the handler of this thread a stack of its own, with enough room to look at the thread's stack. It is never freed; the thread lives
/// as long as the process.
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
    // SAFETY: this action was in force before. If there is none, or if the signal was sent and nothing failed here, the default ends the
    // process.
    unsafe {
        match before.filter(|_| !is_sent) {
            Some(before) => libc::sigaction(signal, before, std::ptr::null_mut()) as libc::sighandler_t,
            None => libc::signal(signal, libc::SIG_DFL),
        };
    }
    if !CRASHED.swap(true, Ordering::SeqCst) {
        // The thread may hold the loader's lock, or memory may be damaged. Then the alarm ends the process.
        // SAFETY: its signal ends the process unless user code catches it.
        unsafe { libc::alarm(PATIENCE) };
        if let Some(tell) = TELL.get() {
            // SAFETY: the system hands the handler the context that it interrupted.
            tell(program_counter(unsafe { &*context.cast() }));
        }
        // SAFETY: takes the alarm back.
        unsafe { libc::alarm(0) };
    }
    // A faulty instruction fails again when this returns, but a signal that was sent must be raised again.
    if is_sent {
        // SAFETY: ends the process.
        unsafe { libc::raise(signal) };
    }
}
