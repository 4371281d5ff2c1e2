//! The runtime that every cell is linked with. It is compiled once per toolchain as a dynamic library and depends only on `std`.
//!
//! It keeps the variables between cells, reports panics and errors to the kernel, and keeps standard output live. It also shows the value
//! at the end of a cell if the WaveMesh library, which shows it better, is not there.

#![cfg_attr(wavemesh_cells, feature(try_trait_v2, specialization), allow(incomplete_features))]

use std::ffi::c_void;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::panic::Location;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

use crate::protocol::{Frame, Message, Panic, Place, Report};

mod advice;
pub mod backtrace;
mod channel;
pub mod comm;
mod crash;
mod describe;
pub mod frames;
pub mod leave;
pub mod output;
pub mod protocol;
mod redirect;
#[cfg(wavemesh_cells)]
mod residual;
pub mod show;
mod stop;
pub mod store;
pub mod testing;
pub mod timing;
pub mod wait;

/// Where reports to the kernel go.
static KERNEL: OnceLock<Mutex<File>> = OnceLock::new();
static RUNNING: AtomicBool = AtomicBool::new(false);
static LAST_PANIC: Mutex<Option<(Panic, Vec<Frame>)>> = Mutex::new(None);
static END: (Mutex<End>, Condvar) = (Mutex::new(End::Nothing), Condvar::new());

#[derive(Clone, Copy, PartialEq)]
enum End {
    Nothing,
    Asked,
    Written,
}

/// Starts the runtime in a new process. Reports go to `kernel`, and messages of the page come from `comms`; the runtime owns both from here
/// on.
#[unsafe(no_mangle)]
pub extern "C" fn wavemesh_cell_start(kernel: RawFd, comms: RawFd) {
    // SAFETY: the caller opened both for the runtime and gives up ownership.
    let (kernel, comms) = unsafe { (OwnedFd::from_raw_fd(kernel), OwnedFd::from_raw_fd(comms)) };
    crash::tell_to(kernel.as_raw_fd());
    let _ = KERNEL.set(Mutex::new(kernel.into()));
    std::panic::set_hook(Box::new(note_panic));
    let _ = std::thread::Builder::new().name("output".into()).spawn(keep_output_live);
    let _ = std::thread::Builder::new().name("comms".into()).spawn(move || comm::serve(comms.into()));
}

/// Called before the code of a cell. `run` is the number of this run; `code` is a function in its library.
#[unsafe(no_mangle)]
pub extern "C" fn wavemesh_cell_begin(run: u64, code: *mut c_void) {
    output::CURRENT.store(run, Ordering::SeqCst);
    backtrace::begin(code);
    stop::begin();
    store::begin();
    *lock(&LAST_PANIC) = None;
    RUNNING.store(true, Ordering::SeqCst);
    END.1.notify_all();
}

/// Called after the code of a cell, with the microseconds that it took to load and to run. Everything printed, and then the end mark, is
/// now on its way. Returns false if a thread holds standard output: then the caller must write the marks itself.
#[unsafe(no_mangle)]
pub extern "C" fn wavemesh_cell_end(load: u64, run: u64) -> bool {
    report_caught_panic();
    tell_kernel(&Report::Times { load: Duration::from_micros(load), run: Duration::from_micros(run) });
    let mut end = lock(&END.0);
    *end = End::Asked;
    END.1.notify_all();
    let deadline = Instant::now() + Duration::from_secs(1);
    while *end != End::Written {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        end = END.1.wait_timeout(end, left).unwrap_or_else(|poisoned| poisoned.into_inner()).0;
    }
    RUNNING.store(false, Ordering::SeqCst);
    let written = *end == End::Written;
    *end = End::Nothing;
    written
}

/// Waits until no thread holds standard output or standard error.
#[unsafe(no_mangle)]
pub extern "C" fn wavemesh_cell_await_output() {
    drop(std::io::stdout().lock());
    drop(std::io::stderr().lock());
}

/// The mark that ends the output of a run; it is a frame like those of displays.
pub fn end_mark() -> String {
    frames::frame(token(), &frames::end_of_run(output::CURRENT.load(Ordering::SeqCst)))
}

/// Reports a panic that no user code caught.
pub fn panicked() {
    let (panic, frames) = last_panic();
    tell_kernel(&Report::Panicked { panic, frames });
}

/// The panic that was just caught; the caller reports it.
fn take_panic() -> Panic {
    last_panic().0
}

fn last_panic() -> (Panic, Vec<Frame>) {
    let unknown = || (Panic { message: "it panicked".to_owned(), place: Place::default() }, Vec::new());
    lock(&LAST_PANIC).take().unwrap_or_else(unknown)
}

/// Reports an `Err` that `?` returned from the cell.
pub fn failed(message: &str, type_name: &str, location: &Location) {
    let (message, type_name) = (advice::with_advice(message.to_owned()), type_name.to_owned());
    tell_kernel(&Report::Failed { message, type_name, place: place(location) });
}

fn place(location: &Location) -> Place {
    Place { file: location.file().to_owned(), line: location.line(), column: location.column() }
}

fn note_panic(info: &std::panic::PanicHookInfo) {
    let message = info.payload_as_str().unwrap_or("Box<dyn Any>").to_owned();
    let panic = Panic { message, place: info.location().map(place).unwrap_or_default() };
    if stop::is_cell_thread() && RUNNING.load(Ordering::SeqCst) {
        report_caught_panic();
        // Reported at once too, because a panic that must not unwind ends the process next.
        tell_kernel(&Report::Panicking(panic.clone()));
        let frames = backtrace::cell_frames();
        *lock(&LAST_PANIC) = Some((panic, frames));
    } else {
        let thread = std::thread::current().name().unwrap_or("<unnamed>").to_owned();
        tell_kernel(&Report::ThreadPanicked { thread, panic });
    }
}

/// Prints a panic that user code caught: it does not end the cell, but Rust prints it too.
fn report_caught_panic() {
    if let Some((panic, _)) = lock(&LAST_PANIC).take() {
        tell_kernel(&Report::ThreadPanicked { thread: "main".to_owned(), panic });
    }
}

/// Flushes standard output every 15 ms while a cell runs. Without this, Rust holds text back until a newline.
fn keep_output_live() {
    loop {
        let pause = if RUNNING.load(Ordering::SeqCst) { Duration::from_millis(15) } else { Duration::from_millis(250) };
        let asked = {
            let end = lock(&END.0);
            let end = if *end == End::Asked {
                end
            } else {
                END.1.wait_timeout(end, pause).unwrap_or_else(|poisoned| poisoned.into_inner()).0
            };
            *end == End::Asked
        };
        let mut out = std::io::stdout().lock();
        let _ = out.flush();
        if asked {
            let mark = end_mark();
            let _ = out.write_all(mark.as_bytes()).and_then(|()| out.flush());
            let _ = std::io::stderr().lock().write_all(mark.as_bytes());
            drop(out);
            let mut end = lock(&END.0);
            if *end == End::Asked {
                *end = End::Written;
            }
            END.1.notify_all();
        }
    }
}

/// Writes a frame for the kernel to standard output, between the printed text.
pub(crate) fn send_frame(payload: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(frames::frame(token(), payload).as_bytes()).and_then(|()| out.flush());
}

/// This kernel's secret, which marks frames.
fn token() -> &'static str {
    static TOKEN: OnceLock<String> = OnceLock::new();
    TOKEN.get_or_init(|| std::env::var(frames::TOKEN).unwrap_or_default())
}

/// The text, escaped for a JSON string.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len() + 2);
    for c in text.chars() {
        match c {
            '"' => escaped.push_str("\\\""),
            '\\' => escaped.push_str("\\\\"),
            '\n' => escaped.push_str("\\n"),
            c if c < ' ' => escaped.push_str(&format!("\\u{:04x}", c as u32)),
            c => escaped.push(c),
        }
    }
    escaped
}

/// Sends the kernel a report. If the kernel is gone, the report is dropped.
pub(crate) fn tell_kernel(report: &Report) {
    if let Some(kernel) = KERNEL.get() {
        let _ = lock(kernel).write_all(&report.encode());
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
