//! The signal with which the child's main thread reaches the thread of a cell that has to stop.
//!
//! If the signal meets the thread in a system call, the cell runtime decides whether the thread may unwind there. If it meets the thread in
//! code of a cell, the thread may be parked for good: such code holds no lock of the allocator, the loader or the standard library.
//! Anywhere else the signal does nothing and is sent again.

use std::ffi::{c_int, c_void};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, AtomicPtr, Ordering};
use std::time::{Duration, Instant};

use wavemesh_cell::backtrace::{Home, Text};
use wavemesh_cell::wait::{Answer, System};

use super::system_call::{SystemCall, program_counter};

/// Ignored by default and meant for sockets, so a program that does not wait for this signal does not notice it.
const SIGNAL: c_int = libc::SIGURG;

/// The id of the thread to be parked; its negative once it is parked; otherwise 0.
static PARK: AtomicI32 = AtomicI32::new(0);
/// The parked thread whose place in the cell is noted, or 0.
static NOTED: AtomicI32 = AtomicI32::new(0);
/// The parked thread that may go on, or 0.
static GO_ON: AtomicI32 = AtomicI32::new(0);
static RUNTIME: OnceLock<(Notice, Caught)> = OnceLock::new();
static TEXTS: AtomicPtr<Vec<Text>> = AtomicPtr::new(std::ptr::null_mut());

/// So long a thread may take to note its place: it walks its stack.
const NOTING: Duration = Duration::from_secs(1);

/// Receives the address of the interrupted system call, and its kind; may unwind.
pub type Notice = extern "C-unwind" fn(usize, System) -> Answer;
/// Receives the address in code of a cell at which the thread is about to be parked.
pub type Caught = extern "C" fn(usize);

/// Installs the handler for the signal.
pub fn install(notice: Notice, caught: Caught) -> std::io::Result<()> {
    let _ = RUNTIME.set((notice, caught));
    // SAFETY: a `sigaction` of zeros is valid. Until the handler knows that the thread waits in a system call, it does only what a handler
    // may do. It does not block signals of this kind, since it may be left by unwinding.
    let caught = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_signal as *const () as usize;
        action.sa_flags = libc::SA_RESTART | libc::SA_SIGINFO | libc::SA_NODEFER;
        libc::sigaction(SIGNAL, &action, std::ptr::null_mut())
    };
    if caught == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

extern "C-unwind" fn on_signal(_: c_int, _: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: this is the thread's own value; a handler must leave it unchanged.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: as above.
    let before = unsafe { *errno };
    // SAFETY: the system passes the interrupted context, which belongs to the handler until it returns.
    let context = unsafe { &mut *context.cast() };
    let at = program_counter(context);
    // SAFETY: a published list lives for ever.
    let texts = unsafe { TEXTS.load(Ordering::SeqCst).as_ref() };
    if let (Some(texts), Some((notice, caught))) = (texts, RUNTIME.get()) {
        // SAFETY: this only asks for the thread's id.
        let this = unsafe { libc::gettid() };
        if PARK.load(Ordering::SeqCst) == this {
            if is_of(texts, Home::Cell, at)
                && PARK.compare_exchange(this, -this, Ordering::SeqCst, Ordering::SeqCst).is_ok()
            {
                caught(at);
                NOTED.store(this, Ordering::SeqCst);
                stay_parked(this);
            }
        } else if is_of(texts, Home::C, at)
            && let Some(call) = SystemCall::at(at)
        {
            call.answer(context, notice(at, call.kind(context)));
        }
    }
    // SAFETY: as above.
    unsafe { *errno = before };
}

fn is_of(texts: &[Text], home: Home, at: usize) -> bool {
    texts.iter().any(|text| text.home == home && (text.start..text.end).contains(&at))
}

/// Keeps the thread in the handler until it may go on.
fn stay_parked(this: c_int) {
    while GO_ON.compare_exchange(this, 0, Ordering::SeqCst, Ordering::SeqCst).is_err() {
        // SAFETY: a mask of signals is plain data; waiting for a signal is allowed in a handler.
        unsafe {
            let mut all_but_this: libc::sigset_t = std::mem::zeroed();
            libc::sigfillset(&mut all_but_this);
            libc::sigdelset(&mut all_but_this, SIGNAL);
            libc::sigsuspend(&all_but_this);
        }
    }
}

/// Sends the signal to a thread of this process, which may have ended.
pub fn send(thread: c_int) {
    // SAFETY: it sends a signal that is caught; it touches no memory.
    unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, SIGNAL) };
}

/// Parks a thread if it is seen in code of a cell within `patience`. Its place in the cell is noted then.
pub fn try_to_park(thread: c_int, patience: Duration) -> bool {
    NOTED.store(0, Ordering::SeqCst);
    PARK.store(thread, Ordering::SeqCst);
    let deadline = Instant::now() + patience;
    while PARK.load(Ordering::SeqCst) == thread && Instant::now() < deadline {
        send(thread);
        std::thread::sleep(Duration::from_micros(100));
    }
    let is_parked = PARK.swap(0, Ordering::SeqCst) == -thread;
    // The thread may be late: on a busy machine it runs some time after it was parked, and who asks where it is would hear of no place.
    let deadline = Instant::now() + NOTING;
    while is_parked && NOTED.load(Ordering::SeqCst) != thread && Instant::now() < deadline {
        std::thread::sleep(Duration::from_micros(100));
    }
    is_parked
}

/// Lets a parked thread go on.
pub fn let_go_on(thread: c_int) {
    GO_ON.store(thread, Ordering::SeqCst);
    while GO_ON.load(Ordering::SeqCst) == thread {
        send(thread);
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// Lists where machine code is loaded now. The list is kept for ever, since a handler may be reading it.
pub fn find_texts() -> &'static [Text] {
    let mut texts: Vec<Text> = Vec::new();
    // SAFETY: the callback has the type that the loader expects, unwinds only if memory runs out, and `texts` outlives the call.
    unsafe { libc::dl_iterate_phdr(Some(note_text), (&raw mut texts).cast()) };
    let texts = Box::into_raw(Box::new(texts));
    TEXTS.store(texts, Ordering::SeqCst);
    // SAFETY: the list is never freed or changed from here on.
    unsafe { &*texts }
}

unsafe extern "C" fn note_text(library: *mut libc::dl_phdr_info, _: usize, texts: *mut c_void) -> c_int {
    // SAFETY: the loader passes a description that is valid during this call, and the pointer from `find_texts`.
    let (library, texts) = unsafe { (&*library, &mut *texts.cast::<Vec<Text>>()) };
    if library.dlpi_name.is_null() || library.dlpi_phdr.is_null() {
        return 0;
    }
    // SAFETY: this is the loader's own name of the library, which ends in zero, and its table of segments.
    let (name, segments) = unsafe {
        (
            std::ffi::CStr::from_ptr(library.dlpi_name).to_bytes(),
            std::slice::from_raw_parts(library.dlpi_phdr, usize::from(library.dlpi_phnum)),
        )
    };
    let name = name.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
    let home = match name {
        b"libcell.so" => Home::Cell,
        _ if name.starts_with(b"libctx-") => Home::Cell,
        _ if name.starts_with(b"libstd-") => Home::Std,
        _ if name.starts_with(b"libc.so") => Home::C,
        _ => return 0,
    };
    for segment in
        segments.iter().filter(|segment| segment.p_type == libc::PT_LOAD && segment.p_flags & libc::PF_X != 0)
    {
        let start = library.dlpi_addr as usize + segment.p_vaddr as usize;
        texts.push(Text { home, start, end: start + segment.p_memsz as usize });
    }
    0
}
