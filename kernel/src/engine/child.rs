//! The process that runs user code: this same binary, started with the descriptors that [`prepare`] hands it.
//!
//! Each request is one line (a library, a tab, the function in it to call) and is answered by [`DONE`]. Both go over the descriptors that
//! the process was given as standard input and output. Descriptors 0, 1 and 2 are left to the user's code, which may do with them what it
//! likes.
//!
//! The first thread of the process talks to the kernel, also while a cell runs. Another thread runs the cells ([`super::worker`]).

use std::ffi::c_void;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};
use rustix::process::{Resource, Rlimit, Signal, getppid, set_parent_process_death_signal, setpgid, setrlimit};
use wavemesh_cell::backtrace::Text;
use wavemesh_cell::frames;
use wavemesh_cell::protocol::{Decoder, Message, Order, Report};
use wavemesh_cell::wait::Called;

use super::gpu::Gpu;
use super::library::Bundle;
use super::loading::Object;
use super::pipes::ChildEnds;
use super::processes::{self, Running, Tick};
use super::worker::{Cell, Progress, Stop, Worker};
use super::{crash, signals, waits};

/// These are set only in the child's environment: what to load, and the inherited descriptors.
const LIBRARIES: &str = "WAVEMESH_CHILD_LIBRARIES";
const ENDS: &str = "WAVEMESH_CHILD_ENDS";
/// Where the loader looks for libraries before its usual places. The second variable, set only for the child, holds the earlier value.
const LIBRARY_PATH: &str = "LD_LIBRARY_PATH";
const LIBRARY_PATH_BEFORE: &str = "WAVEMESH_CHILD_LIBRARY_PATH";
/// Why the library for GPUs cannot be used; WaveMesh shows it when it is asked about its devices.
const GPU_PROBLEM: &str = "WAVEMESH_GPU_PROBLEM";

/// How many turns candle's threads spin after an operation before they sleep.
const CANDLE_SPIN_LIMIT: &str = "CANDLE_BARRIER_POOL_SPIN_LIMIT";

/// The answer after a request has been carried out.
pub const DONE: &str = "done";
/// The child's own descriptors start here, out of the way of user code.
pub const PRIVATE: RawFd = 110;

/// The command that starts the child, now and after each crash. The child loads `libraries` at once, in order: `std`, the cell runtime,
/// then (in the background) the compiled library.
pub fn prepare(ends: &ChildEnds, libraries: &[PathBuf], token: &str) -> std::io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    let libraries = std::env::join_paths(libraries).map_err(std::io::Error::other)?;
    let inherited = [&ends.out, &ends.err, &ends.input, &ends.control, &ends.comms].map(AsRawFd::as_raw_fd);
    let numbers: Vec<String> = inherited.iter().map(RawFd::to_string).collect();
    // Crates made for evcxr check this variable to see whether they run in a notebook.
    command.env("EVCXR_IS_RUNTIME", "1");
    // candle's threads sleep as soon as they have nothing to do: spinning, they would slow the threads of the sparse layers.
    if std::env::var_os(CANDLE_SPIN_LIMIT).is_none() {
        command.env(CANDLE_SPIN_LIMIT, "1");
    }
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
        // An interrupt that the frontend sends to the kernel's group must not end this process, which may still belong to that group.
        // SAFETY: ignoring a signal runs no code.
        unsafe { libc::signal(libc::SIGINT, libc::SIG_IGN) };
        set_parent_process_death_signal(Some(Signal::KILL))?;
        if getppid() != Some(parent) {
            return Err(std::io::ErrorKind::NotConnected.into());
        }
        let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
        Ok(())
    };
    // SAFETY: between fork and exec this makes system calls and nothing else: it takes no lock and allocates nothing.
    unsafe { command.pre_exec(become_child) };
    Ok(command)
}

/// Makes the child's loader find NVIDIA's libraries if `bundle` needs them, or tells the child why a library for GPUs is not used.
pub fn lead_to_gpu(command: &mut Command, bundle: Option<&Bundle>) -> std::io::Result<()> {
    command.env_remove(GPU_PROBLEM);
    let Some(for_gpus) = Bundle::for_gpus() else { return Ok(()) };
    match for_gpus.examine() {
        Gpu::Ready(folders) if bundle.is_some_and(|bundle| bundle.cuda) => {
            let before = std::env::var_os(LIBRARY_PATH).unwrap_or_default();
            let path = std::env::join_paths(folders.into_iter().chain(std::env::split_paths(&before)));
            command.env(LIBRARY_PATH, path.map_err(std::io::Error::other)?).env(LIBRARY_PATH_BEFORE, before);
        }
        Gpu::Unusable(why) => {
            command.env(GPU_PROBLEM, why);
        }
        Gpu::Ready(_) | Gpu::Absent => {}
    }
    Ok(())
}

/// What the process was started with.
pub struct Start {
    libraries: Vec<String>,
    ends: ChildEnds,
}

impl Start {
    /// What the process was started with, if it is a child. Call this once, while the process has one thread.
    pub fn of_this_process() -> Option<Start> {
        let (libraries, ends) = (std::env::var_os(LIBRARIES)?, std::env::var(ENDS).ok()?);
        for name in [LIBRARIES, ENDS] {
            // User code that asks sees an ordinary process.
            // SAFETY: no other thread exists that could read the environment at the same time.
            unsafe { std::env::remove_var(name) };
        }
        if let Some(before) = std::env::var_os(LIBRARY_PATH_BEFORE) {
            // The loader has read it already, and programs that user code starts do not need it.
            // SAFETY: as above.
            unsafe {
                std::env::remove_var(LIBRARY_PATH_BEFORE);
                match before.is_empty() {
                    true => std::env::remove_var(LIBRARY_PATH),
                    false => std::env::set_var(LIBRARY_PATH, before),
                }
            }
        }
        let libraries = std::env::split_paths(&libraries).map(|path| path.to_string_lossy().into_owned());
        let mut ends = ends.split(' ').map(|number| {
            // SAFETY: `prepare` named a descriptor that it let this process inherit; nothing else here knows it.
            let end = number.parse().ok().map(|end| unsafe { OwnedFd::from_raw_fd(end) })?;
            // Processes that user code starts do not inherit it.
            fcntl_setfd(&end, FdFlags::CLOEXEC).ok()?;
            Some(end)
        });
        let mut next = || ends.next().flatten();
        let ends = ChildEnds { out: next()?, err: next()?, input: next()?, control: next()?, comms: next()? };
        Some(Start { libraries: libraries.collect(), ends })
    }
}

/// The functions of the library, once it is loaded.
struct Library {
    interrupt: extern "C" fn(),
    forget: extern "C" fn(),
    /// Brings live displays to their last state.
    flush: extern "C" fn(),
}

static LIBRARY: OnceLock<Library> = OnceLock::new();

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
    // Processes that user code starts react to interrupts as any program does.
    // SAFETY: no handler is set, so no code runs.
    unsafe { libc::signal(libc::SIGINT, libc::SIG_DFL) };
    let mut orders = Orders { control: control.try_clone()?, decoder: Decoder::default(), input: false, stop: None };
    let runtime = Runtime::load(&libraries, control, comms)?;
    signals::install(runtime.notice, runtime.caught)?;
    crash::install(runtime.crashed)?;
    let mut worker = Worker::start(runtime)?;
    let mut requests = requests;
    loop {
        worker.idle(requests.get_ref().as_fd())?;
        let mut request = String::new();
        if requests.read_line(&mut request)? == 0 {
            return Ok(());
        }
        let Some((object, function)) = request.trim_end_matches('\n').split_once('\t') else {
            return Err(std::io::Error::other(format!("unknown request `{request}`")));
        };
        orders.read();
        choose_input(&input, orders.input)?;
        let start = Instant::now();
        let object = Object::open(object)?;
        let loaded = start.elapsed();
        // SAFETY: the function is generated with this type ([`super::body`]).
        let code: extern "C" fn() = unsafe { object.function(function)? };
        // The number that everything printed in this run carries.
        // SAFETY: the woven code defines it as a `static` of this type.
        let run = unsafe { object.number("WAVEMESH_CELL_RUN") }.unwrap_or(0);
        let start = Instant::now();
        run_cell(Cell { run, code }, &mut worker, &mut orders)?;
        if !(runtime.end)(micros(loaded), micros(start.elapsed())) {
            write_marks(run);
        }
        writeln!(answers, "{DONE}")?;
    }
}

/// Runs a cell until its code has ended or its thread is left behind.
fn run_cell(cell: Cell, worker: &mut Worker, orders: &mut Orders) -> std::io::Result<()> {
    if let Some(library) = LIBRARY.get() {
        (library.forget)();
    }
    // Before the cell begins: on a busy machine its first program may run before this thread does.
    let start = Tick::now();
    worker.begin(cell)?;
    let mut stop: Option<Stop> = None;
    loop {
        if worker.wait(orders.control.as_fd(), stop.is_some())? {
            break;
        }
        orders.read();
        match (orders.stop_of(cell.run), &mut stop) {
            (Some(grace), None) => {
                // Reads of standard input fail from now on.
                rustix::stdio::dup2_stdin(File::open("/")?)?;
                processes::interrupt_since(start);
                stop = Some(Stop::begin(cell.run, grace, worker));
            }
            (Some(grace), Some(stop)) => stop.set_grace(grace),
            (None, _) => {}
        }
        if let Some(stop) = &mut stop {
            match stop.go_on(worker)? {
                Progress::None => {}
                Progress::Held(by) => orders.tell(&Report::Held { by, frames: waits::frames(&worker.runtime) }),
                Progress::Left => {
                    orders.tell(&Report::Left { frames: waits::frames(&worker.runtime) });
                    break;
                }
            }
        }
    }
    if stop.is_some() {
        // Processes that the cell started after it was asked to stop.
        processes::interrupt_since(start);
        for Running { id, command } in processes::that_go_on(start) {
            orders.tell(&Report::GoesOn { process: id.unsigned_abs(), command });
        }
    }
    Ok(())
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Writes the marks that end a run directly, without the locks of the standard streams: a thread of the user's may hold these.
fn write_marks(run: u64) {
    let token = std::env::var(frames::TOKEN).unwrap_or_default();
    let mark = frames::frame(&token, &frames::end_of_run(run));
    for stream in [rustix::stdio::stdout(), rustix::stdio::stderr()] {
        let _ = rustix::io::write(stream, mark.as_bytes());
    }
}

/// The functions of the cell runtime.
#[derive(Clone, Copy)]
pub struct Runtime {
    /// Called when a cell begins, with its number and its code.
    pub begin: extern "C" fn(u64, *mut c_void),
    end: extern "C" fn(u64, u64) -> bool,
    /// Called by a thread that is going to run cells.
    pub worker: extern "C" fn(),
    /// Called when the cell of this thread has ended.
    pub finish: extern "C" fn(),
    texts: extern "C" fn(*const Text, usize),
    stop: extern "C" fn(u64),
    notice: signals::Notice,
    caught: signals::Caught,
    crashed: crash::Tell,
    /// Copies the addresses at which the cell's thread was last seen.
    pub seen: unsafe extern "C" fn(*mut usize, usize) -> usize,
    /// Lets a function of `std` end that is called through these addresses.
    pub allow: unsafe extern "C" fn(usize, Called, *const usize, usize),
    /// Takes what belongs to the cell away from its thread. Returns false if the cell has ended.
    pub leave: extern "C" fn() -> bool,
    /// Whether the cell waits for a pool of threads that work for it.
    pub waits_for_pool: extern "C" fn() -> bool,
    await_output: extern "C" fn(),
}

impl Runtime {
    fn load(libraries: &[String], control: OwnedFd, comms: OwnedFd) -> std::io::Result<Runtime> {
        let [std, runtime, library @ ..] = libraries else {
            return Err(std::io::Error::other("too few libraries to load"));
        };
        Object::open(std)?;
        let object = Object::open(runtime)?;
        // SAFETY: these are the types with which the runtime defines them.
        let (start, point, runtime) = unsafe {
            let start: extern "C" fn(RawFd, RawFd) = object.function("wavemesh_cell_start")?;
            let point: extern "C-unwind" fn() = object.function("wavemesh_cell_point")?;
            let runtime = Runtime {
                begin: object.function("wavemesh_cell_begin")?,
                end: object.function("wavemesh_cell_end")?,
                worker: object.function("wavemesh_cell_worker")?,
                finish: object.function("wavemesh_cell_finish")?,
                texts: object.function("wavemesh_cell_texts")?,
                stop: object.function("wavemesh_cell_stop")?,
                notice: object.function("wavemesh_cell_notice")?,
                caught: object.function("wavemesh_cell_caught")?,
                crashed: object.function("wavemesh_cell_crashed")?,
                seen: object.function("wavemesh_cell_seen")?,
                allow: object.function("wavemesh_cell_allow")?,
                leave: object.function("wavemesh_cell_leave")?,
                waits_for_pool: object.function("wavemesh_cell_waits_for_pool")?,
                await_output: object.function("wavemesh_cell_await_output")?,
            };
            (start, point, runtime)
        };
        start(control.into_raw_fd(), comms.into_raw_fd());
        // SAFETY: as above.
        let describe_with: unsafe extern "C" fn(*const c_void) =
            unsafe { object.function("wavemesh_cell_describe_with")? };
        // SAFETY: as above.
        let advise_with: unsafe extern "C" fn(*const c_void) = unsafe { object.function("wavemesh_cell_advise_with")? };
        // SAFETY: as above; both pointers are passed on unchanged.
        let (open, send): (*const c_void, *const c_void) =
            unsafe { (object.function("wavemesh_cell_comm_open")?, object.function("wavemesh_cell_comm_send")?) };
        // A raw pointer cannot be sent to another thread; a number can.
        let comms = (open as usize, send as usize);
        if let Some(library) = library.first().cloned() {
            std::thread::spawn(move || {
                let Ok(library) = Object::open(&library) else { return };
                // SAFETY: kernel/dylib defines it with the type that the runtime calls; both were compiled by this toolchain.
                if let Ok(describe) = unsafe { library.function::<*const c_void>("wavemesh_describe") } {
                    // SAFETY: as above.
                    unsafe { describe_with(describe) };
                }
                // SAFETY: as above.
                if let Ok(advise) = unsafe { library.function::<*const c_void>("wavemesh_advise") } {
                    // SAFETY: as above.
                    unsafe { advise_with(advise) };
                }
                // SAFETY: this is the type with which kernel/dylib defines it.
                let lend: std::io::Result<unsafe extern "C" fn(*const c_void, *const c_void)> =
                    unsafe { library.function("wavemesh_comms") };
                if let Ok(lend) = lend {
                    // SAFETY: these are the runtime's functions that it asks for.
                    unsafe { lend(comms.0 as *const c_void, comms.1 as *const c_void) };
                }
                let calls = || {
                    // SAFETY: these are the types with which kernel/dylib defines them.
                    unsafe {
                        let start: extern "C" fn(extern "C-unwind" fn()) = library.function("wavemesh_start")?;
                        start(point);
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
        Ok(runtime)
    }

    /// Asks this run to stop, wherever its code is.
    pub fn stop(&self, run: u64) {
        let texts = signals::find_texts();
        (self.texts)(texts.as_ptr(), texts.len());
        (self.stop)(run);
        if let Some(library) = LIBRARY.get() {
            (library.interrupt)();
        }
    }

    /// Brings what the cell shows to its last state.
    pub fn flush(&self) {
        if let Some(library) = LIBRARY.get() {
            (library.flush)();
        }
    }

    /// Whether later cells can print and show. They cannot if a thread that was left behind holds a lock that this needs.
    pub fn is_free(self) -> bool {
        const PATIENCE: Duration = Duration::from_millis(300);
        /// Whether a thread is trying already. A thread that has to wait may wait for long.
        static TRYING: AtomicBool = AtomicBool::new(false);
        if TRYING.swap(true, Ordering::SeqCst) {
            return false;
        }
        let (tell, told) = channel();
        std::thread::spawn(move || {
            (self.await_output)();
            self.flush();
            TRYING.store(false, Ordering::SeqCst);
            tell.send(())
        });
        told.recv_timeout(PATIENCE).is_ok()
    }
}

/// What the kernel has asked for so far.
struct Orders {
    control: OwnedFd,
    decoder: Decoder,
    /// Whether the frontend can be asked for input.
    input: bool,
    /// The run that is to stop, and how long its code has to notice.
    stop: Option<(u64, Duration)>,
}

impl Orders {
    /// Reads the orders that have arrived.
    fn read(&mut self) {
        let mut bytes = [0u8; 1024];
        while let Ok((_, read @ 1..)) = rustix::net::recv(&self.control, &mut bytes, rustix::net::RecvFlags::DONTWAIT) {
            for order in self.decoder.decode(&bytes[..read]).into_iter().flatten() {
                match order {
                    Order::Input { allowed } => self.input = allowed,
                    Order::Stop { run, grace } => self.stop = Some((run, grace)),
                }
            }
        }
    }

    /// How long this run has to stop, if it was asked to; returned once. Orders for earlier runs are dropped.
    fn stop_of(&mut self, run: u64) -> Option<Duration> {
        self.stop.take().filter(|(wanted, _)| *wanted == run).map(|(_, grace)| grace)
    }

    /// Sends a report to the kernel. If the kernel is gone, the next request finds out.
    fn tell(&self, report: &Report) {
        let _ = rustix::net::send(&self.control, &report.encode(), rustix::net::SendFlags::NOSIGNAL);
    }
}

/// Chooses standard input: the pipe that the kernel fills with answers, or no input at all.
fn choose_input(pipe: &OwnedFd, allowed: bool) -> std::io::Result<()> {
    if allowed {
        rustix::stdio::dup2_stdin(pipe)?
    } else {
        rustix::stdio::dup2_stdin(File::open("/dev/null")?)?
    }
    Ok(())
}
