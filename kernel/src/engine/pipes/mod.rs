//! Reads the child's output as it comes and turns bytes into [`Output`]s, in order, within milliseconds.
//!
//! The kernel makes the pipes once and every child inherits them, so nothing is lost when a child dies. The thread in [`reader`] is the
//! only one that reads; [`assembly`] makes outputs of the bytes; [`cell`] holds what is known of the running cell; [`ends`] holds the
//! descriptors.

mod assembly;
mod cell;
mod contents;
mod ends;
mod reader;

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::sync::mpsc::channel;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{SendFlags, send};
use serde_json::Value;
use wavemesh_cell::protocol::{CommEvent, Frame, Holder, Message, Order, Panic, Report};

use self::cell::Cell;
pub use self::cell::{Prompt, Stored};
pub use self::ends::ChildEnds;
use self::ends::Ends;
use super::{Output, Sink};

/// If a child has read no comm messages for this long, the kernel stops sending them.
const COMM_PATIENCE: Duration = Duration::from_secs(5);

/// The kernel's ends.
pub struct Pipes {
    child: ChildEnds,
    input: File,
    control: OwnedFd,
    comms: Mutex<OwnedFd>,
    wake: OwnedFd,
    state: Mutex<State>,
    changed: Condvar,
    tell_panic: OnceLock<TellPanic>,
}

/// Makes the text for a panic that does not end the cell; it is given the name of the thread.
pub type TellPanic = Box<dyn Fn(&str, &Panic) -> String + Send + Sync>;

#[derive(Default)]
struct State {
    cell: Cell,
    /// Whether somebody waits until the pipes are empty.
    drain: bool,
}

impl Pipes {
    /// Makes the pipes and starts the reader.
    pub fn new(token: &str) -> std::io::Result<Arc<Pipes>> {
        let Ends { child, out, err, input, control, control_reader, comms, wake, wake_reader } = Ends::new()?;
        let pipes = Arc::new(Pipes {
            child,
            input: input.into(),
            control,
            comms: Mutex::new(comms),
            wake,
            state: Mutex::default(),
            changed: Condvar::new(),
            tell_panic: OnceLock::new(),
        });
        reader::start(Arc::clone(&pipes), [out, err], control_reader, wake_reader, token)?;
        Ok(pipes)
    }

    /// What a child inherits.
    pub fn child_ends(&self) -> &ChildEnds {
        &self.child
    }

    /// Sets the function that describes panics of threads.
    pub fn tell_panics_by(&self, tell: TellPanic) {
        let _ = self.tell_panic.set(tell);
    }

    /// Sends outputs to `sink` from now on, and discards input that the last cell did not read.
    pub fn begin_cell(&self, sink: Sink, allow_stdin: bool) {
        self.discard_input();
        self.order(&Order::Input { allowed: allow_stdin });
        self.state().cell.begin(sink);
    }

    /// The current cell's code now starts as run `id`.
    pub fn begin_run(&self, id: u64) {
        self.state().cell.begin_run(id);
    }

    /// Sends the child an order. Returns false if the child does not read.
    pub fn order(&self, order: &Order) -> bool {
        // An order is short: it fits into the socket as a whole, unless the child has not read for long.
        send(&self.control, &order.encode(), SendFlags::DONTWAIT | SendFlags::NOSIGNAL).is_ok()
    }

    /// Waits until all that the cell printed has reached the sink.
    pub fn wait_for_end(&self, patience: Duration) {
        let state = self.state();
        let _ = self.changed.wait_timeout_while(state, patience, |state| !state.cell.has_ended());
    }

    /// Waits until the pipes are empty; for a child that died and sent no end mark.
    pub fn wait_until_empty(&self) {
        let mut state = self.state();
        state.drain = true;
        let _ = rustix::io::write(&self.wake, b"d");
        let _ = self.changed.wait_timeout_while(state, Duration::from_secs(10), |state| state.drain);
    }

    /// The value that ended the cell, as the content of `execute_result`.
    pub fn take_result(&self) -> Option<Value> {
        self.state().cell.result.take()
    }

    /// Why the thread of the running cell cannot be left behind, and where it is, if the child reported that.
    pub fn held(&self) -> Option<(Holder, Vec<Frame>)> {
        self.state().cell.reports.iter().find_map(|report| match report {
            Report::Held { by, frames } => Some((*by, frames.clone())),
            _ => None,
        })
    }

    /// What the cell runtime reported of this run.
    pub fn take_reports(&self) -> Vec<Report> {
        std::mem::take(&mut self.state().cell.reports)
    }

    /// What is known about each stored variable.
    pub fn stored(&self) -> HashMap<String, Stored> {
        self.state().cell.stored.clone()
    }

    /// How long the cell took to load and to run.
    pub fn times(&self) -> (Duration, Duration) {
        self.state().cell.times
    }

    /// The end of what the cell wrote to standard error.
    pub fn error_tail(&self) -> String {
        self.state().cell.error_tail.clone()
    }

    /// Sends an output of the kernel itself to the cell's sink.
    pub fn send(&self, output: Output) {
        let sink = self.state().cell.sink.clone();
        if let Some(sink) = sink {
            sink(output);
        }
    }

    /// The request for input that user code made in evcxr's way, by printing a marker.
    pub fn take_prompt(&self) -> Option<Prompt> {
        self.state().cell.prompt.take()
    }

    /// Asks the frontend for a line and passes it to the child. Returns false if there is no line: the frontend cannot be asked, or the
    /// question was withdrawn because the cell ended.
    pub fn ask(&self, Prompt { text, password }: Prompt) -> bool {
        let (reply, answer) = channel();
        self.send(Output::InputRequest { prompt: text, password, reply });
        let Ok(line) = answer.recv() else { return false };
        (&self.input).write_all(format!("{line}\n").as_bytes()).is_ok()
    }

    /// Whether the child has not yet read an answer.
    pub fn input_is_pending(&self) -> bool {
        rustix::io::ioctl_fionread(&self.child.input).is_ok_and(|waiting| waiting > 0)
    }

    /// Passes an event of a comm from the frontend to the child. Returns false if the child no longer reads such messages.
    pub fn tell_comm(&self, event: &CommEvent) -> bool {
        let comms = locked(&self.comms);
        let message = event.encode();
        let mut bytes = &message[..];
        let deadline = Instant::now() + COMM_PATIENCE;
        while !bytes.is_empty() {
            match rustix::io::write(&*comms, bytes) {
                Ok(written) => bytes = &bytes[written..],
                Err(rustix::io::Errno::INTR) => {}
                // The socket is full. Giving up a message half-way harms only that message.
                Err(rustix::io::Errno::AGAIN) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    let left = Timespec::try_from(left).ok();
                    let room = poll(&mut [PollFd::new(&*comms, PollFlags::OUT)], left.as_ref());
                    if !room.is_ok_and(|ready| ready > 0) {
                        return false;
                    }
                }
                Err(_) => return false,
            }
        }
        true
    }

    fn discard_input(&self) {
        let mut bytes = [0u8; 4096];
        while self.input_is_pending() && rustix::io::read(&self.child.input, &mut bytes).is_ok_and(|read| read > 0) {}
    }

    fn state(&self) -> MutexGuard<'_, State> {
        locked(&self.state)
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Writes a line to the kernel's own standard error, where its log goes. Errors are ignored.
pub fn log(text: &str) {
    let _ = writeln!(std::io::stderr(), "wavemesh-kernel: {}", one_line(text));
}

/// The first line of a text, and a mark where more follows.
fn one_line(text: &str) -> String {
    let mut lines = text.lines().map(str::trim_end).filter(|line| !line.is_empty());
    let first = lines.next().unwrap_or_default();
    if lines.next().is_some() { format!("{first} …") } else { first.to_owned() }
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_is_logged_is_one_line() {
        assert_eq!(
            super::one_line("rustdoc: error: no such file\n\n  --> lib.rs:1\n"),
            "rustdoc: error: no such file …"
        );
        assert_eq!(super::one_line("one\n"), "one");
    }
}
