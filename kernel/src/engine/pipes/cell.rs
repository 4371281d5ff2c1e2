//! What the pipes know about the running cell.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use wavemesh_cell::protocol::{Panic, Report};

use crate::engine::{Output, Sink};

/// For how many ended runs late outputs still reach their cells.
const EARLIER: usize = 100;
/// How many bytes of standard error are kept for the report of a death: the reason, and a backtrace that may follow it.
const ERROR_TAIL: usize = 64 << 10;

/// A request for a line of input.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prompt {
    pub text: String,
    pub password: bool,
}

/// What the runtime reported about a variable when it stored it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its size in bytes.
    pub bytes: u64,
    /// Its shape, such as `2 × 3`; empty if it has none.
    pub shape: String,
}

/// The running cell or, if none runs, the last one.
#[derive(Default)]
pub struct Cell {
    pub sink: Option<Sink>,
    /// The run that the cell waits for, and whether its output has ended on each stream.
    run: u64,
    ended: [bool; 2],
    pub result: Option<Value>,
    /// The `display_id`s of what the cell has shown.
    pub displayed: HashSet<String>,
    pub reports: Vec<Report>,
    pub error_tail: String,
    pub stored: HashMap<String, Stored>,
    /// How long the cell took to load and to run.
    pub times: (Duration, Duration),
    pub prompt: Option<Prompt>,
    /// The sinks of recent runs, whose threads may still print.
    earlier: VecDeque<(u64, Sink)>,
}

impl Cell {
    /// Begins another cell, whose outputs go to `sink`.
    pub fn begin(&mut self, sink: Sink) {
        *self = Cell {
            sink: Some(sink),
            stored: std::mem::take(&mut self.stored),
            earlier: std::mem::take(&mut self.earlier),
            ..Cell::default()
        };
    }

    /// Notes that the cell's code starts as run `id`.
    pub fn begin_run(&mut self, id: u64) {
        (self.run, self.ended) = (id, [false; 2]);
        self.earlier.extend(self.sink.clone().map(|sink| (id, sink)));
        while self.earlier.len() > EARLIER {
            self.earlier.pop_front();
        }
    }

    /// The run that the cell waits for.
    pub fn run(&self) -> u64 {
        self.run
    }

    /// Notes that the output of the run has ended on these streams.
    pub fn end(&mut self, streams: [bool; 2]) {
        self.ended = [0, 1].map(|stream| self.ended[stream] | streams[stream]);
    }

    /// Whether all output of the run has come.
    pub fn has_ended(&self) -> bool {
        self.ended == [true, true]
    }

    /// The sink for the output of an earlier run.
    pub fn sink_of(&self, run: u64) -> Option<Sink> {
        self.earlier.iter().find(|(id, _)| *id == run).map(|(_, sink)| Arc::clone(sink))
    }

    /// Keeps the end of standard error.
    pub fn note_error_text(&mut self, text: &str) {
        self.error_tail.push_str(text);
        let excess = self.error_tail.len().saturating_sub(ERROR_TAIL);
        if excess > 0 {
            self.error_tail.drain(..self.error_tail.ceil_char_boundary(excess));
        }
    }

    /// Takes a report of the runtime. Returns a panic that does not end the cell, with the name of its thread, to be shown.
    pub fn note(&mut self, report: Report) -> Option<(String, Panic)> {
        match report {
            Report::Variable { ref name, bytes, ref shape, .. } => {
                self.stored.insert(name.clone(), Stored { bytes, shape: shape.clone() });
                self.reports.push(report);
            }
            Report::Times { load, run } => self.times = (load, run),
            Report::ThreadPanicked { thread, panic } => return Some((thread, panic)),
            of_the_run => self.reports.push(of_the_run),
        }
        None
    }
}

/// Adds text to the outputs; joins it to the last one if that is of the same stream.
pub fn push_text(outputs: &mut Vec<Output>, text: String, stdout: bool) {
    match (outputs.last_mut(), stdout) {
        (Some(Output::Stdout(last)), true) | (Some(Output::Stderr(last)), false) => last.push_str(&text),
        (_, true) => outputs.push(Output::Stdout(text)),
        (_, false) => outputs.push(Output::Stderr(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell() -> Cell {
        let mut cell = Cell::default();
        cell.begin(Arc::new(|_| {}));
        cell
    }

    #[test]
    fn the_prints_of_the_last_runs_still_find_their_cell() {
        let mut cell = cell();
        for run in 1..=EARLIER as u64 + 1 {
            cell.begin_run(run);
        }
        cell.begin(Arc::new(|_| {}));
        assert!(cell.sink_of(1).is_none() && cell.sink_of(2).is_some());
    }

    #[test]
    fn of_standard_error_the_end_is_kept_in_whole_characters() {
        let mut cell = cell();
        cell.note_error_text(&"é".repeat(ERROR_TAIL));
        cell.note_error_text("x");
        assert!(cell.error_tail.len() <= ERROR_TAIL && cell.error_tail.ends_with("éx"));
    }

    #[test]
    fn sizes_outlive_a_cell_and_reports_do_not() {
        let mut cell = cell();
        cell.note(Report::Variable {
            name: "x".into(),
            number: None,
            bytes: 8,
            shape: "2".into(),
            type_name: "u64".into(),
        });
        cell.note(Report::Stopped);
        assert!(matches!(cell.reports[..], [Report::Variable { .. }, Report::Stopped]));
        cell.begin(Arc::new(|_| {}));
        assert_eq!((cell.stored.get("x"), cell.reports.len()), (Some(&Stored { bytes: 8, shape: "2".into() }), 0));
        let panic = Panic { message: "boom".into(), ..Panic::default() };
        let told = cell.note(Report::ThreadPanicked { thread: "worker".into(), panic: panic.clone() });
        assert_eq!(told, Some(("worker".to_owned(), panic)));
    }
}
