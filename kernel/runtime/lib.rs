//! What every cell is linked with, compiled once per toolchain as a dynamic library that stands on `std` alone.
//!
//! It keeps the variables between cells, tells the kernel of panics and errors, keeps standard output live, and shows the
//! value that ends a cell when the WaveMesh library, which shows it better, is not there. It has the API of evcxr's
//! variable store, since evcxr writes the code that calls it.

use std::io::Write;
use std::panic::Location;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

mod backtrace;
pub mod comm;
pub mod output;
pub mod show;
pub mod store;

unsafe extern "C" {
    fn write(fd: i32, bytes: *const u8, length: usize) -> isize;
}

/// Where messages for the kernel go.
static KERNEL: AtomicI32 = AtomicI32::new(-1);
static RUNNING: AtomicBool = AtomicBool::new(false);
static CELL_THREAD: OnceLock<ThreadId> = OnceLock::new();
static LAST_PANIC: Mutex<Option<Panic>> = Mutex::new(None);
static END: (Mutex<End>, Condvar) = (Mutex::new(End::Nothing), Condvar::new());

struct Panic {
    message: String,
    file: String,
    line: u32,
    column: u32,
    backtrace: String,
}

#[derive(Clone, Copy, PartialEq)]
enum End {
    Nothing,
    Asked,
    Written,
}

/// Starts the runtime in a fresh process. `kernel` takes messages, `comms` brings what the page says.
#[unsafe(no_mangle)]
pub extern "C" fn wavemesh_cell_start(kernel: i32, comms: i32) {
    KERNEL.store(kernel, Ordering::SeqCst);
    let _ = CELL_THREAD.set(std::thread::current().id());
    std::panic::set_hook(Box::new(note_panic));
    let _ = std::thread::Builder::new().name("output".into()).spawn(keep_output_live);
    let _ = std::thread::Builder::new().name("comms".into()).spawn(move || comm::serve(comms));
}

/// Called before the code of a cell; `run` tells it from every other.
#[unsafe(no_mangle)]
pub extern "C" fn wavemesh_cell_begin(run: u64) {
    output::CURRENT.store(run, Ordering::SeqCst);
    *lock(&LAST_PANIC) = None;
    RUNNING.store(true, Ordering::SeqCst);
    END.1.notify_all();
}

/// Called after the code of a cell: everything printed is then on its way, with the end mark behind it. False when a thread holds
/// standard output, so that the caller must write the marks itself.
#[unsafe(no_mangle)]
pub extern "C" fn wavemesh_cell_end() -> bool {
    report_caught_panic();
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

/// The mark that ends the output of a run, a frame like those of displays.
pub fn end_mark() -> String {
    let payload = format!(r#"{{"msg_type":"cell_end","run":{}}}"#, output::CURRENT.load(Ordering::SeqCst));
    let token = std::env::var("WAVEMESH_FRAME_TOKEN").unwrap_or_default();
    format!("\x1b_WMSH:{token}:{}\n{payload}", payload.len())
}

/// A panic that no user code caught.
pub fn panicked() {
    if let Some(Panic { message, file, line, column, backtrace }) = lock(&LAST_PANIC).take() {
        tell_kernel(&["panic", &message, &file, &line.to_string(), &column.to_string(), &backtrace]);
    } else {
        tell_kernel(&["panic", "the cell panicked", "", "0", "0", ""]);
    }
}

/// An `Err` that `?` returned from the cell.
pub fn failed(message: &str, type_name: &str, location: &Location) {
    let place = [location.line().to_string(), location.column().to_string()];
    tell_kernel(&["error", message, location.file(), &place[0], &place[1], type_name]);
}

fn note_panic(info: &std::panic::PanicHookInfo) {
    let message = info.payload_as_str().unwrap_or("Box<dyn Any>").to_owned();
    let (file, line, column) = match info.location() {
        Some(place) => (place.file().to_owned(), place.line(), place.column()),
        None => (String::new(), 0, 0),
    };
    if CELL_THREAD.get() == Some(&std::thread::current().id()) && RUNNING.load(Ordering::SeqCst) {
        report_caught_panic();
        // Told at once too: a panic that may not unwind ends the process next.
        tell_kernel(&["panicking", &message, &file, &line.to_string(), &column.to_string()]);
        let backtrace = backtrace::cell_frames();
        *lock(&LAST_PANIC) = Some(Panic { message, file, line, column, backtrace });
    } else {
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("<unnamed>").to_owned();
        tell_kernel(&["thread_panic", &message, &file, &line.to_string(), &column.to_string(), &name]);
    }
}

/// A panic that user code caught is not the end of the cell, but it is told, as Rust does.
fn report_caught_panic() {
    if let Some(Panic { message, file, line, column, .. }) = lock(&LAST_PANIC).take() {
        tell_kernel(&["thread_panic", &message, &file, &line.to_string(), &column.to_string(), "main"]);
    }
}

/// Flushes standard output, which Rust holds back until a newline comes, every 15 ms while a cell runs.
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

/// A frame for the kernel in standard output, between the prints.
pub(crate) fn send_frame(payload: &str) {
    let token = std::env::var("WAVEMESH_FRAME_TOKEN").unwrap_or_default();
    let mut out = std::io::stdout().lock();
    let _ = write!(out, "\x1b_WMSH:{token}:{}\n{payload}", payload.len()).and_then(|()| out.flush());
}

/// Text inside a JSON string.
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

/// A record of fields for the kernel: fields end in 0x1f, records in 0x1e.
pub(crate) fn tell_kernel(fields: &[&str]) {
    let mut record = String::new();
    for field in fields {
        record.extend(field.chars().filter(|c| !matches!(c, '\x1e' | '\x1f')));
        record.push('\x1f');
    }
    record.push('\x1e');
    write_all(KERNEL.load(Ordering::SeqCst), record.as_bytes());
}

fn write_all(fd: i32, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        let written = unsafe { write(fd, bytes.as_ptr(), bytes.len()) };
        match usize::try_from(written) {
            Ok(written) if written > 0 => bytes = &bytes[written..],
            _ if std::io::Error::last_os_error().kind() == std::io::ErrorKind::Interrupted => {}
            _ => return,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
