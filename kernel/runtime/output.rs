//! Versions of `print!` and similar macros for cells: text that a thread prints after its cell has ended still goes to that cell.
//!
//! The macros know the run in which they were compiled. While that run is the current one, they do the same as those of `std`.

use std::fmt::Arguments;
use std::sync::atomic::{AtomicU64, Ordering};

pub use crate::{dbg, eprint, eprintln, print, println};

/// The run for which the kernel waits or, if none, last waited.
pub(crate) static CURRENT: AtomicU64 = AtomicU64::new(0);

/// Prints for the cell of run `run`.
#[doc(hidden)]
pub fn print_for(run: u64, error: bool, text: Arguments) {
    crate::stop::point(run);
    if run == 0 || run == CURRENT.load(Ordering::Relaxed) {
        if error {
            std::eprint!("{text}")
        } else {
            std::print!("{text}")
        }
        return;
    }
    let name = if error { "stderr" } else { "stdout" };
    let text = crate::escape(&text.to_string());
    crate::send_frame(&format!(r#"{{"msg_type":"stream","run":{run},"content":{{"name":"{name}","text":"{text}"}}}}"#));
}

/// Replaces `std`'s in cells: `crate` is the cell's own crate, which knows its run.
#[macro_export]
#[allow(clippy::crate_in_macro_def)]
macro_rules! print {
    ($($text:tt)*) => { $crate::output::print_for(crate::WAVEMESH_CELL_RUN, false, ::std::format_args!($($text)*)) };
}

/// Replaces `std`'s in cells: `crate` is the cell's own crate, which knows its run.
#[macro_export]
#[allow(clippy::crate_in_macro_def)]
macro_rules! eprint {
    ($($text:tt)*) => { $crate::output::print_for(crate::WAVEMESH_CELL_RUN, true, ::std::format_args!($($text)*)) };
}

/// Replaces `std`'s in cells.
#[macro_export]
macro_rules! println {
    () => { $crate::print!("\n") };
    ($($text:tt)*) => { $crate::print!("{}\n", ::std::format_args!($($text)*)) };
}

/// Replaces `std`'s in cells.
#[macro_export]
macro_rules! eprintln {
    () => { $crate::eprint!("\n") };
    ($($text:tt)*) => { $crate::eprint!("{}\n", ::std::format_args!($($text)*)) };
}

/// Replaces `std`'s in cells. It shows the cell and the line, but no column, since columns in the built code differ from the user's.
#[macro_export]
macro_rules! dbg {
    () => { $crate::eprintln!("[{}:{}]", $crate::output::cell_of(::std::file!()), ::std::line!()) };
    ($value:expr $(,)?) => {
        match $value {
            value => {
                $crate::eprintln!(
                    "[{}:{}] {} = {:#?}",
                    $crate::output::cell_of(::std::file!()), ::std::line!(), ::std::stringify!($value), &value
                );
                value
            }
        }
    };
    ($($value:expr),+ $(,)?) => { ($($crate::dbg!($value)),+,) };
}

/// The name of a cell or file, from the name of its text for the compiler: a name that was used before has a number behind it, as in `In
/// [3] 7`.
pub fn cell_of(file: &str) -> &str {
    match file.rsplit_once(' ') {
        Some((name, run)) if run.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') => name,
        _ => file,
    }
}
