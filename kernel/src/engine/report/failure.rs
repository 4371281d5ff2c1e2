//! Panics, and errors that `?` returned, with the frames that lie in cells.

use wavemesh_cell::protocol::{Frame, Holder, Panic, Place};

use super::{BOLD_RED, CYAN, Places, RESET};
use crate::engine::{self, ExecuteError};

/// Describes a panic of another thread, or one that the cell caught, in a line or two for standard error.
pub fn other_panic(thread: &str, panic: &Panic, places: &Places) -> String {
    let (message, _) = part_backtrace(&panic.message);
    format!("thread '{thread}' panicked at {}:\n{message}\n", told(&panic.place, places))
}

/// A panic that ended the cell; `backtrace` is in the form of the standard library's.
pub fn panic(panic: &Panic, backtrace: &str, places: &Places) -> ExecuteError {
    let place = told(&panic.place, places);
    // An error's own backtrace contains the kernel's frames too, so it is left out.
    let (message, _) = part_backtrace(&panic.message);
    let mut traceback = vec![format!("{BOLD_RED}Panic{RESET} at {CYAN}{place}{RESET}"), message.to_owned()];
    traceback.extend(places.quote(&panic.place));
    let frames = frames(backtrace, places);
    if frames.iter().any(|frame| !frame.contains(&place)) || frames.len() > 1 {
        traceback.push(String::new());
        traceback.extend(frames);
    }
    ExecuteError { ename: "Panic".into(), evalue: message.to_owned(), traceback }
}

/// An `Err` that `?` returned from the cell.
pub fn failure(message: &str, type_name: &str, place: &Place, places: &Places) -> ExecuteError {
    let ename = short_type(type_name);
    let (message, backtrace) = part_backtrace(message);
    let own = places.name_in_cell(place);
    let at = own.as_ref().map(|place| format!(" at {CYAN}{place}{RESET}")).unwrap_or_default();
    let mut traceback = vec![format!("{BOLD_RED}{ename}{RESET}{at}")];
    traceback.extend(message.lines().map(str::to_owned));
    traceback.extend(own.and_then(|_| places.quote(place)));
    let frames = frames(backtrace, places);
    if frames.len() > 1 {
        traceback.push(String::new());
        traceback.extend(frames);
    }
    ExecuteError { ename, evalue: message.to_owned(), traceback }
}

/// A place in readable form: in a cell, or else in a file.
fn told(place: &Place, places: &Places) -> String {
    places.name(place).unwrap_or_else(|| short_path(place))
}

/// Parts a message from its backtrace: some errors (candle's) carry one in their text.
fn part_backtrace(message: &str) -> (&str, &str) {
    let mut start = 0;
    let mut is_cause = false;
    for line in message.split_inclusive('\n') {
        // anyhow numbers causes in the same way as a backtrace numbers frames.
        is_cause = !line.trim().is_empty() && (is_cause || line.trim() == "Caused by:");
        if !is_cause && line.trim_start().starts_with("0: ") || line.trim() == "Stack backtrace:" {
            return (message[..start].trim_end(), &message[start..]);
        }
        start += line.len();
    }
    (message.trim_end(), "")
}

/// The frames of a backtrace that lie in cells, the innermost first.
fn frames(backtrace: &str, places: &Places) -> Vec<String> {
    let mut frames = Vec::new();
    for (function, place) in own_frames(backtrace) {
        if let Some(place) = places.name_of_own(&place) {
            let shown = match function.strip_prefix("this_notebook::") {
                Some(name) if name.starts_with("the_cell") => "the cell",
                Some(name) => name,
                None => function,
            };
            frames.push(format!("  in {shown} at {CYAN}{place}{RESET}"));
        }
    }
    frames.dedup();
    frames
}

/// The function and the place of each frame of a backtrace.
fn own_frames(backtrace: &str) -> impl Iterator<Item = (&str, Place)> {
    let mut function = "";
    backtrace.lines().map(str::trim).filter_map(move |line| {
        let Some(at) = line.strip_prefix("at ") else {
            function = line.split_once(": ").map_or(function, |(_, name)| name);
            return None;
        };
        let mut parts = at.rsplitn(3, ':');
        let (column, line) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        Some((function, Place { file: parts.next()?.to_owned(), line, column }))
    })
}

/// A place in a cell where something happened.
pub struct Spot {
    /// For example `In [3]:2:9`.
    pub name: String,
    /// The line, with its number.
    pub line: Option<String>,
}

/// The innermost place of a backtrace that is in a cell.
pub fn innermost(backtrace: &str, places: &Places) -> Option<Spot> {
    own_frames(backtrace).find_map(|(_, place)| spot(&place, places))
}

/// The place, if it is in a cell.
pub fn spot(place: &Place, places: &Places) -> Option<Spot> {
    Some(Spot { name: places.name_of_own(place)?, line: places.quote(place) })
}

/// The message for a cell that keeps running after a stop because its thread cannot be left behind; with the reason and the place if they
/// are known.
pub fn stuck(held: Option<&(Holder, Vec<Frame>)>, places: &Places) -> String {
    let spot = held.and_then(|(_, frames)| innermost(&engine::backtrace::text(frames), places));
    let at = spot.map_or_else(String::new, |spot| format!(" at {}", spot.name));
    let why = match held {
        Some((Holder::Pool, _)) => {
            ": threads of a rayon pool work for it. They would go on with that, and the pool, of which the process has \
             one, would be lost to all later cells"
        }
        Some((Holder::Output, _)) => {
            ": it holds standard output or a display. Later cells could not print or show anything"
        }
        None => ": it is in code of the system or of a library",
    };
    format!(
        "note: the cell does not notice the stop{at} and cannot be left behind{why}. It goes on and may still stop; to \
         stop it again ends its process, with all variables.\n"
    )
}

/// The error for a stopped cell, with the line where it was stopped if that matters.
pub fn interrupted(message: String, spot: Option<Spot>) -> ExecuteError {
    let mut traceback = vec![format!("{BOLD_RED}Interrupted{RESET}: {message}")];
    traceback.extend(spot.and_then(|spot| spot.line));
    ExecuteError { ename: "Interrupted".into(), evalue: message, traceback }
}

/// The type without its path, except that `Error` keeps its crate: `std::io::error::Error` becomes `std::Error`.
fn short_type(name: &str) -> String {
    let base = name.split('<').next().unwrap_or(name);
    let last = base.rsplit("::").next().unwrap_or(base);
    match base.split("::").next() {
        Some(root) if last == "Error" && root != last => format!("{root}::Error"),
        _ => last.to_owned(),
    }
}

/// The place without the folders above the crate. In its panics, the standard library's own files are named `/rustc/…/library/alloc`.
fn short_path(Place { file, line, column }: &Place) -> String {
    let of_crate = file.rsplit_once("/registry/src/").and_then(|(_, rest)| rest.split_once('/'));
    let of_std = file.strip_prefix("/rustc/").and_then(|rest| rest.split_once("/library/"));
    format!("{}:{line}:{column}", of_crate.or(of_std).map_or(file.as_str(), |(_, rest)| rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_is_told_without_its_path_and_an_error_with_its_crate() {
        assert_eq!(short_type("core::num::error::ParseIntError"), "ParseIntError");
        assert_eq!(short_type("std::io::error::Error"), "std::Error");
        assert_eq!(short_type("alloc::boxed::Box<dyn core::error::Error>"), "Box");
    }

    #[test]
    fn a_backtrace_in_a_message_is_parted_from_it() {
        assert_eq!(part_backtrace("shape mismatch\n   0: candle::bail\n").0, "shape mismatch");
        assert_eq!(part_backtrace("two\nlines"), ("two\nlines", ""));
        let unwrapped = "called `Result::unwrap()` on an `Err` value: a\n\nCaused by:\n    0: b\n    1: c\n\nStack backtrace:\n   0: this_notebook::f";
        let message = unwrapped.split("\n\nStack").next().unwrap_or_default();
        let place = Place { file: "In [1]".into(), line: 1, column: 1 };
        let told = panic(&Panic { message: unwrapped.into(), place }, "", &Places::new(Vec::new()));
        assert_eq!(told.evalue, message, "the causes stay");
    }

    #[test]
    fn a_panic_of_a_crate_names_its_file_from_the_crate_on() {
        let file = "/home/me/.cargo/registry/src/index.crates.io-1/rand-0.9.0/src/lib.rs".to_owned();
        let panic = Panic { message: "no".into(), place: Place { file, line: 3, column: 1 } };
        let told = other_panic("worker", &panic, &Places::new(Vec::new()));
        assert_eq!(told, "thread 'worker' panicked at rand-0.9.0/src/lib.rs:3:1:\nno\n");
        let file = "/rustc/59807616e1fa/library/alloc/src/raw_vec/mod.rs".to_owned();
        assert_eq!(short_path(&Place { file, line: 28, column: 5 }), "alloc/src/raw_vec/mod.rs:28:5");
    }
}
