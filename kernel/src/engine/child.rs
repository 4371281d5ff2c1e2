//! The process that runs user code: this same binary, started by evcxr with the descriptors that [`prepare`] hands it.
//!
//! It speaks evcxr's small protocol (`LOAD_AND_RUN so function` in, `EVCXR_EXECUTION_COMPLETE` out) on the descriptors that
//! evcxr gave it as standard input and output, and leaves 0, 1 and 2 to the user's code, which may do with them what it likes.

use std::ffi::{CString, c_char, c_int, c_void};
use std::io::{BufRead, BufReader, Write};
use std::os::fd::{FromRawFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::time::{Duration, Instant};

use super::pipes::ChildEnds;

/// Set in the environment of the child only.
const LIBRARIES: &str = "WAVEMESH_CHILD_LIBRARIES";
pub const TOKEN: &str = "WAVEMESH_FRAME_TOKEN";

/// Where the child finds its pipes.
const OUT: RawFd = 100;
const ERR: RawFd = 101;
const IN: RawFd = 102;
const CONTROL: RawFd = 103;
const COMMS: RawFd = 104;

/// User code gets this much stack, when the system allows it.
const STACK: u64 = 256 << 20;

/// The command with which evcxr starts the child, now and after each crash. `libraries` are loaded at once, in order: `std`, the
/// cell runtime, then (in the background) the compiled library.
pub fn prepare(
    ends: ChildEnds,
    libraries: &[PathBuf],
    token: &str,
    path: Option<std::ffi::OsString>,
) -> std::io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    let libraries = std::env::join_paths(libraries).map_err(std::io::Error::other)?;
    command.env(LIBRARIES, libraries).env(TOKEN, token);
    for name in ["RUSTC", "CARGO", super::shim::SOCKET, "EVCXR_TMPDIR", "RUSTUP_AUTO_INSTALL"] {
        command.env_remove(name);
    }
    if let Some(path) = path {
        command.env("PATH", path);
    }
    let parent = std::process::id();
    // Only async-signal-safe calls: this runs between fork and exec.
    unsafe {
        command.pre_exec(move || {
            let all =
                [(ends.out, OUT), (ends.err, ERR), (ends.input, IN), (ends.control, CONTROL), (ends.comms, COMMS)];
            for (from, to) in all {
                if libc::dup2(from, to) < 0 {
                    return Err(std::io::Error::last_os_error());
                }
            }
            libc::setpgid(0, 0);
            // An interrupt that comes before its handler is there would end the process.
            libc::signal(libc::SIGINT, libc::SIG_IGN);
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            if libc::getppid() != parent as libc::pid_t {
                libc::_exit(1);
            }
            let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
            if libc::getrlimit(libc::RLIMIT_STACK, &mut limit) == 0 && limit.rlim_cur < STACK {
                limit.rlim_cur = STACK.min(limit.rlim_max);
                libc::setrlimit(libc::RLIMIT_STACK, &limit);
            }
            let no_core = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
            libc::setrlimit(libc::RLIMIT_CORE, &no_core);
            Ok(())
        });
    }
    Ok(command)
}

/// Whether this process is a child.
pub fn is_child() -> bool {
    std::env::var_os(LIBRARIES).is_some() && std::env::var_os("EVCXR_IS_RUNTIME").is_some()
}

static INTERRUPT: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());
static FORGET_INTERRUPT: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());
/// Brings live displays to their last state.
static FLUSH: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());

extern "C" fn on_interrupt(_: c_int) {
    call(&INTERRUPT);
}

/// Runs cells until evcxr closes the connection.
pub fn run() -> ! {
    let code = match serve() {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("the process that runs cells stopped: {error}");
            99
        }
    };
    // Not `exit`: destructors of the user's statics may wait for threads that never end.
    unsafe { libc::_exit(code) }
}

fn serve() -> std::io::Result<()> {
    let evcxr_in = private_copy(0)?;
    let evcxr_out = private_copy(1)?;
    for (from, to) in [(OUT, 1), (ERR, 2)] {
        check(unsafe { libc::dup2(from, to) })?;
        check(unsafe { libc::close(from) })?;
    }
    let input = private_copy(IN)?;
    check(unsafe { libc::close(IN) })?;
    let control = private_copy(CONTROL)?;
    check(unsafe { libc::close(CONTROL) })?;
    let comms = private_copy(COMMS)?;
    check(unsafe { libc::close(COMMS) })?;
    choose_input(input, false)?;
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_interrupt as *const () as usize;
        action.sa_flags = libc::SA_RESTART;
        libc::sigaction(libc::SIGINT, &action, std::ptr::null_mut());
    }

    let runtime = Runtime::load(control, comms)?;
    // User code that asks sees an ordinary process.
    unsafe { std::env::remove_var(LIBRARIES) };
    let mut evcxr = unsafe { std::fs::File::from_raw_fd(evcxr_out) };
    let mut store: *mut c_void = std::ptr::null_mut();
    let requests = BufReader::new(unsafe { std::fs::File::from_raw_fd(evcxr_in) });
    for request in requests.lines() {
        let request = request?;
        let Some((object, function)) = request.strip_prefix("LOAD_AND_RUN ").and_then(|rest| rest.rsplit_once(' '))
        else {
            return Err(std::io::Error::other(format!("unknown request `{request}`")));
        };
        choose_input(input, wants_input(control))?;
        let start = Instant::now();
        let object = open(object)?;
        let loaded = start.elapsed();
        let run: extern "C" fn(*mut c_void) -> *mut c_void = unsafe { std::mem::transmute(symbol(object, function)?) };
        call(&FORGET_INTERRUPT);
        // The number that this run's prints carry.
        let number = symbol(object, "WAVEMESH_CELL_RUN").map_or(0, |number| unsafe { *number.cast::<u64>() });
        (runtime.begin)(number);
        let start = Instant::now();
        store = run(store);
        // Before the end of the cell is told, so that displays reach the page while it counts as running.
        call(&FLUSH);
        tell(control, &["times", &micros(loaded), &micros(start.elapsed())]);
        if !(runtime.end)() {
            let mark = end_mark(number);
            for fd in [1, 2] {
                unsafe { libc::write(fd, mark.as_ptr().cast(), mark.len()) };
            }
        }
        // The first line makes evcxr forget the variables that the cell has made: our store keeps them.
        evcxr.write_all(b"EVCXR_ERROR_OCCURRED\nEVCXR_EXECUTION_COMPLETE\n")?;
    }
    Ok(())
}

/// A record for the kernel, as the cell runtime writes them: fields end in 0x1f, records in 0x1e.
fn tell(control: RawFd, fields: &[&str]) {
    let record: String = fields.iter().map(|field| format!("{field}\x1f")).chain(["\x1e".to_owned()]).collect();
    unsafe { libc::write(control, record.as_ptr().cast(), record.len()) };
}

fn micros(duration: Duration) -> String {
    duration.as_micros().to_string()
}

struct Runtime {
    begin: extern "C" fn(u64),
    end: extern "C" fn() -> bool,
}

impl Runtime {
    fn load(control: RawFd, comms: RawFd) -> std::io::Result<Runtime> {
        let libraries = std::env::var_os(LIBRARIES).unwrap_or_default();
        let mut libraries = std::env::split_paths(&libraries).map(|path| path.to_string_lossy().into_owned());
        let mut next = || libraries.next().ok_or_else(|| std::io::Error::other("too few libraries to load"));
        open(&next()?)?;
        let runtime = open(&next()?)?;
        let library = next().ok();
        let start: extern "C" fn(c_int, c_int) =
            unsafe { std::mem::transmute(symbol(runtime, "wavemesh_cell_start")?) };
        let begin: extern "C" fn(u64) = unsafe { std::mem::transmute(symbol(runtime, "wavemesh_cell_begin")?) };
        let end: extern "C" fn() -> bool = unsafe { std::mem::transmute(symbol(runtime, "wavemesh_cell_end")?) };
        start(control, comms);
        if let Some(library) = library {
            std::thread::spawn(move || {
                if let Ok(library) = open(&library)
                    && let (Ok(start), Ok(flush), Ok(stop), Ok(forget)) = (
                        symbol(library, "wavemesh_start"),
                        symbol(library, "wavemesh_flush"),
                        symbol(library, "wavemesh_interrupt"),
                        symbol(library, "wavemesh_clear_interrupt"),
                    )
                {
                    let start: extern "C" fn() = unsafe { std::mem::transmute(start) };
                    start();
                    FLUSH.store(flush, Ordering::SeqCst);
                    FORGET_INTERRUPT.store(forget, Ordering::SeqCst);
                    INTERRUPT.store(stop, Ordering::SeqCst);
                }
            });
        }
        Ok(Runtime { begin, end })
    }
}

/// The kernel says before each cell whether the frontend can be asked for input.
fn wants_input(control: RawFd) -> bool {
    let mut latest = 0u8;
    let mut byte = 0u8;
    while unsafe { libc::recv(control, (&raw mut byte).cast(), 1, libc::MSG_DONTWAIT) } == 1 {
        latest = byte;
    }
    latest == b'1'
}

/// Standard input: the pipe that the kernel fills with answers, or nothing at all.
fn choose_input(pipe: RawFd, allowed: bool) -> std::io::Result<()> {
    if allowed {
        return check(unsafe { libc::dup2(pipe, 0) }).map(drop);
    }
    let nothing = check(unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDONLY) })?;
    if nothing != 0 {
        check(unsafe { libc::dup2(nothing, 0) })?;
        check(unsafe { libc::close(nothing) })?;
    }
    Ok(())
}

fn end_mark(run: u64) -> String {
    let payload = super::pipes::end_of_run(run);
    let token = std::env::var(TOKEN).unwrap_or_default();
    format!("\x1b_WMSH:{token}:{}\n{payload}", payload.len())
}

fn private_copy(fd: RawFd) -> std::io::Result<RawFd> {
    check(unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 110) })
}

fn check(result: c_int) -> std::io::Result<c_int> {
    if result < 0 { Err(std::io::Error::last_os_error()) } else { Ok(result) }
}

/// Calls the library's function at `place`, if the library is there.
fn call(place: &AtomicPtr<c_void>) {
    if let Some(function) = pointer(place) {
        let function: extern "C" fn() = unsafe { std::mem::transmute(function) };
        function();
    }
}

fn pointer(place: &AtomicPtr<c_void>) -> Option<*mut c_void> {
    let pointer = place.load(Ordering::SeqCst);
    (!pointer.is_null()).then_some(pointer)
}

/// Loads a library and keeps it: code and statics of earlier cells stay in use.
fn open(path: &str) -> std::io::Result<*mut c_void> {
    let name = CString::new(path).map_err(std::io::Error::other)?;
    let library = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
    if library.is_null() { Err(last_load_error()) } else { Ok(library) }
}

fn symbol(library: *mut c_void, name: &str) -> std::io::Result<*mut c_void> {
    let name = CString::new(name).map_err(std::io::Error::other)?;
    let symbol = unsafe { libc::dlsym(library, name.as_ptr()) };
    if symbol.is_null() { Err(last_load_error()) } else { Ok(symbol) }
}

fn last_load_error() -> std::io::Error {
    let text: *const c_char = unsafe { libc::dlerror() };
    let text = if text.is_null() {
        "unknown error".into()
    } else {
        unsafe { std::ffi::CStr::from_ptr(text) }.to_string_lossy().into_owned()
    };
    std::io::Error::other(text)
}
