//! The process that runs user code: this same binary, started with the descriptors that [`prepare`] hands it.
//!
//! Requests come as lines (a library, a tab, a function of it to call), each of which is answered by [`DONE`], on the descriptors that
//! it was given as standard input and output; 0, 1 and 2 are left to the user's code, which may do with them what it likes.

use std::ffi::c_int;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};
use rustix::process::{
    Resource, Rlimit, Signal, getppid, getrlimit, set_parent_process_death_signal, setpgid, setrlimit,
};
use wavemesh_cell::frames;
use wavemesh_cell::protocol::{Decoder, Order};

use super::loading::Object;
use super::pipes::ChildEnds;

/// Set in the environment of the child only: what to load, and the inherited descriptors.
const LIBRARIES: &str = "WAVEMESH_CHILD_LIBRARIES";
const ENDS: &str = "WAVEMESH_CHILD_ENDS";

/// User code gets this much stack, when the system allows it.
const STACK: u64 = 256 << 20;
/// The answer to a request that was carried out.
pub const DONE: &str = "done";
/// The child's own descriptors lie from here on, out of the way of user code.
const PRIVATE: RawFd = 110;

/// The command that starts the child, now and after each crash. `libraries` are loaded at once, in order: `std`, the
/// cell runtime, then (in the background) the compiled library.
pub fn prepare(ends: &ChildEnds, libraries: &[PathBuf], token: &str) -> std::io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    let libraries = std::env::join_paths(libraries).map_err(std::io::Error::other)?;
    let inherited = [&ends.out, &ends.err, &ends.input, &ends.control, &ends.comms].map(AsRawFd::as_raw_fd);
    let numbers: Vec<String> = inherited.iter().map(RawFd::to_string).collect();
    // By which crates for evcxr know that they run in a notebook.
    command.env("EVCXR_IS_RUNTIME", "1");
    command.env(LIBRARIES, libraries).env(ENDS, numbers.join(" ")).env(frames::TOKEN, token);
    for name in ["RUSTC", "CARGO", "RUSTUP_AUTO_INSTALL"] {
        command.env_remove(name);
    }
    let parent = rustix::process::getpid();
    let become_child = move || {
        for end in inherited {
            // SAFETY: the kernel keeps these open for as long as it starts children.
            fcntl_setfd(unsafe { BorrowedFd::borrow_raw(end) }, FdFlags::empty())?;
        }
        setpgid(None, None)?;
        // An interrupt that comes before its handler is there would end the process.
        // SAFETY: ignoring a signal runs no code.
        unsafe { libc::signal(libc::SIGINT, libc::SIG_IGN) };
        set_parent_process_death_signal(Some(Signal::KILL))?;
        if getppid() != Some(parent) {
            return Err(std::io::ErrorKind::NotConnected.into());
        }
        let stack = getrlimit(Resource::Stack);
        if stack.current.is_some_and(|current| current < STACK) {
            let current = stack.maximum.map_or(STACK, |maximum| maximum.min(STACK));
            let _ = setrlimit(Resource::Stack, Rlimit { current: Some(current), ..stack });
        }
        let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
        Ok(())
    };
    // SAFETY: between fork and exec this makes system calls and nothing else: it takes no lock and allocates nothing.
    unsafe { command.pre_exec(become_child) };
    Ok(command)
}

/// What the process was started with.
pub struct Start {
    libraries: Vec<String>,
    ends: ChildEnds,
}

impl Start {
    /// If this process is a child, what it was started with. To be called while the process has one thread, and once.
    pub fn of_this_process() -> Option<Start> {
        let (libraries, ends) = (std::env::var_os(LIBRARIES)?, std::env::var(ENDS).ok()?);
        for name in [LIBRARIES, ENDS] {
            // User code that asks sees an ordinary process.
            // SAFETY: there is no other thread that could read the environment meanwhile.
            unsafe { std::env::remove_var(name) };
        }
        let libraries = std::env::split_paths(&libraries).map(|path| path.to_string_lossy().into_owned());
        let mut ends = ends.split(' ').map(|number| {
            // SAFETY: `prepare` named a descriptor that it let this process inherit; nothing else here knows it.
            let end = number.parse().ok().map(|end| unsafe { OwnedFd::from_raw_fd(end) })?;
            // Processes that user code starts do not get it.
            fcntl_setfd(&end, FdFlags::CLOEXEC).ok()?;
            Some(end)
        });
        let mut next = || ends.next().flatten();
        let ends = ChildEnds { out: next()?, err: next()?, input: next()?, control: next()?, comms: next()? };
        Some(Start { libraries: libraries.collect(), ends })
    }
}

/// The library's calls, once it is loaded.
struct Library {
    interrupt: extern "C" fn(),
    forget: extern "C" fn(),
    /// Brings live displays to their last state.
    flush: extern "C" fn(),
}

static LIBRARY: OnceLock<Library> = OnceLock::new();

extern "C" fn on_interrupt(_: c_int) {
    if let Some(library) = LIBRARY.get() {
        (library.interrupt)();
    }
}

/// Runs cells until the kernel closes the connection.
pub fn run(start: Start) -> ! {
    let code = match serve(start) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("the process that runs cells stopped: {error}");
            99
        }
    };
    // SAFETY: it ends the process at once. Not `exit`: destructors of the user's statics may wait for threads that never end.
    unsafe { libc::_exit(code) }
}

fn serve(Start { libraries, ends }: Start) -> std::io::Result<()> {
    let ChildEnds { out, err, input, control, comms } = ends;
    let requests = BufReader::new(File::from(fcntl_dupfd_cloexec(rustix::stdio::stdin(), PRIVATE)?));
    let mut answers = File::from(fcntl_dupfd_cloexec(rustix::stdio::stdout(), PRIVATE)?);
    rustix::stdio::dup2_stdout(&out)?;
    rustix::stdio::dup2_stderr(&err)?;
    drop((out, err));
    choose_input(&input, false)?;
    catch_interrupts()?;
    let mut orders = Orders { control: control.try_clone()?, decoder: Decoder::default(), input: false };
    let runtime = Runtime::load(&libraries, control, comms)?;
    let mut store = std::ptr::null_mut();
    for request in requests.lines() {
        let request = request?;
        let Some((object, function)) = request.split_once('\t') else {
            return Err(std::io::Error::other(format!("unknown request `{request}`")));
        };
        choose_input(&input, orders.input_is_allowed())?;
        let start = Instant::now();
        let object = Object::open(object)?;
        let loaded = start.elapsed();
        // SAFETY: the function is generated with this type ([`super::body`]), over the store that its cells hand on.
        let run: extern "C" fn(*mut std::ffi::c_void) -> *mut std::ffi::c_void = unsafe { object.function(function)? };
        if let Some(library) = LIBRARY.get() {
            (library.forget)();
        }
        // The number that this run's prints carry.
        // SAFETY: the woven code defines it as a `static` of this type.
        let number = unsafe { object.number("WAVEMESH_CELL_RUN") }.unwrap_or(0);
        (runtime.begin)(number);
        let start = Instant::now();
        store = run(store);
        // Before the end of the cell is told, so that displays reach the page while it counts as running.
        if let Some(library) = LIBRARY.get() {
            (library.flush)();
        }
        if !(runtime.end)(micros(loaded), micros(start.elapsed())) {
            write_marks(number);
        }
        writeln!(answers, "{DONE}")?;
    }
    Ok(())
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Writes the marks that end a run past the locks of the standard streams, which a thread of the user's may hold.
fn write_marks(run: u64) {
    let token = std::env::var(frames::TOKEN).unwrap_or_default();
    let mark = frames::frame(&token, &frames::end_of_run(run));
    for stream in [rustix::stdio::stdout(), rustix::stdio::stderr()] {
        let _ = rustix::io::write(stream, mark.as_bytes());
    }
}

fn catch_interrupts() -> std::io::Result<()> {
    // SAFETY: of `sigaction` all bits zero is a value. The handler reads an atomic and calls a function that sets one.
    let caught = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_interrupt as *const () as usize;
        action.sa_flags = libc::SA_RESTART;
        libc::sigaction(libc::SIGINT, &action, std::ptr::null_mut())
    };
    if caught == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

/// The cell runtime's calls.
struct Runtime {
    begin: extern "C" fn(u64),
    end: extern "C" fn(u64, u64) -> bool,
}

impl Runtime {
    fn load(libraries: &[String], control: OwnedFd, comms: OwnedFd) -> std::io::Result<Runtime> {
        let [std, runtime, library @ ..] = libraries else {
            return Err(std::io::Error::other("too few libraries to load"));
        };
        Object::open(std)?;
        let runtime = Object::open(runtime)?;
        // SAFETY: these are the types with which runtime/lib.rs defines them.
        let (start, begin, end) = unsafe {
            let start: extern "C" fn(RawFd, RawFd) = runtime.function("wavemesh_cell_start")?;
            (start, runtime.function("wavemesh_cell_begin")?, runtime.function("wavemesh_cell_end")?)
        };
        start(control.into_raw_fd(), comms.into_raw_fd());
        if let Some(library) = library.first().cloned() {
            std::thread::spawn(move || {
                let Ok(library) = Object::open(&library) else { return };
                let calls = || {
                    // SAFETY: these are the types with which kernel/dylib defines them.
                    unsafe {
                        let start: extern "C" fn() = library.function("wavemesh_start")?;
                        start();
                        std::io::Result::Ok(Library {
                            interrupt: library.function("wavemesh_interrupt")?,
                            forget: library.function("wavemesh_clear_interrupt")?,
                            flush: library.function("wavemesh_flush")?,
                        })
                    }
                };
                if let Ok(calls) = calls() {
                    let _ = LIBRARY.set(calls);
                }
            });
        }
        Ok(Runtime { begin, end })
    }
}

/// What the kernel wants, as far as it was said.
struct Orders {
    control: OwnedFd,
    decoder: Decoder,
    input: bool,
}

impl Orders {
    /// The kernel says before each cell whether the frontend can be asked for input.
    fn input_is_allowed(&mut self) -> bool {
        let mut bytes = [0u8; 1024];
        while let Ok((_, read @ 1..)) = rustix::net::recv(&self.control, &mut bytes, rustix::net::RecvFlags::DONTWAIT) {
            for Order::Input { allowed } in self.decoder.decode(&bytes[..read]).into_iter().flatten() {
                self.input = allowed;
            }
        }
        self.input
    }
}

/// Standard input: the pipe that the kernel fills with answers, or nothing at all.
fn choose_input(pipe: &OwnedFd, allowed: bool) -> std::io::Result<()> {
    if allowed {
        rustix::stdio::dup2_stdin(pipe)?
    } else {
        rustix::stdio::dup2_stdin(File::open("/dev/null")?)?
    }
    Ok(())
}
