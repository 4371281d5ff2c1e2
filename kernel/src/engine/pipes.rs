//! What comes out of the child, as it comes: bytes become [`Output`]s, in order, within milliseconds.
//!
//! The kernel makes the pipes once and every child inherits them, so nothing is lost when a child dies. One thread reads standard
//! output, standard error and the control socket. Display frames stand in standard output between the prints, so they keep their
//! place. The reader never drops anything: when the frontend is slow, the pipe fills and the cell waits.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io::Write;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::contents::Contents;
use super::frames::{Decoder, Frames, Piece};
use super::{Output, Sink};

/// The payload of the frame that ends the output of a run.
pub fn end_of_run(run: u64) -> String {
    format!(r#"{{"msg_type":"cell_end","run":{run}}}"#)
}

/// Small writes are sent together when they come within this time.
const BATCH: Duration = Duration::from_millis(12);
/// Descriptors for the child are kept above those that it uses itself.
const HIGH: RawFd = 200;
/// A child that reads no comm messages for so long reads none.
const COMM_PATIENCE: Duration = Duration::from_secs(5);
/// So many runs' outputs still reach their cells after the runs have ended.
const EARLIER: usize = 100;
/// So much of standard error is kept for the report of a death: the reason, and the backtrace that may follow it.
const ERROR_TAIL: usize = 64 << 10;
/// A batch larger than this is sent at once.
const BATCH_BYTES: usize = 256 << 10;

/// The ends of the pipes that a child inherits.
#[derive(Clone, Copy)]
pub struct ChildEnds {
    pub out: RawFd,
    pub err: RawFd,
    pub input: RawFd,
    pub control: RawFd,
    pub comms: RawFd,
}

/// The kernel's ends.
pub struct Pipes {
    ends: ChildEnds,
    _child_ends: [OwnedFd; 5],
    input: OwnedFd,
    control: OwnedFd,
    comms: Mutex<OwnedFd>,
    wake: OwnedFd,
    state: Mutex<State>,
    changed: Condvar,
    tell_panic: OnceLock<TellPanic>,
}

/// Makes the text for a panic that does not end the cell.
pub type TellPanic = Box<dyn Fn(&[String]) -> String + Send + Sync>;

#[derive(Default)]
struct State {
    sink: Option<Sink>,
    /// The run that the cell waits for, and whether its output has ended on each stream.
    run: u64,
    ended: [bool; 2],
    drain: bool,
    result: Option<Value>,
    /// The `display_id`s of what the cell has shown.
    displayed: HashSet<String>,
    records: Vec<Vec<String>>,
    error_tail: String,
    sizes: HashMap<String, usize>,
    /// How long the cell took to load and to run.
    times: (Duration, Duration),
    prompt: Option<(String, bool)>,
    /// The sinks of the last runs, whose threads may still print.
    earlier: VecDeque<(u64, Sink)>,
}

impl Pipes {
    /// Makes the pipes and starts the reader.
    pub fn new(token: &str) -> std::io::Result<Arc<Pipes>> {
        let (out_read, out_write) = pipe()?;
        let (err_read, err_write) = pipe()?;
        let (in_read, in_write) = pipe()?;
        let (wake_read, wake) = pipe()?;
        let (control, control_child) = socket_pair()?;
        let (comms_read, comms) = pipe()?;
        for fd in [&out_read, &err_read, &wake_read, &comms] {
            unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) };
        }
        // Room for a burst, so that a printing cell need not wait for the frontend.
        unsafe { libc::fcntl(out_write.as_raw_fd(), libc::F_SETPIPE_SZ, 1 << 20) };
        let pipes = Arc::new(Pipes {
            ends: ChildEnds {
                out: out_write.as_raw_fd(),
                err: err_write.as_raw_fd(),
                input: in_read.as_raw_fd(),
                control: control_child.as_raw_fd(),
                comms: comms_read.as_raw_fd(),
            },
            _child_ends: [out_write, err_write, in_read, control_child, comms_read],
            input: in_write,
            control,
            comms: Mutex::new(comms),
            wake,
            state: Mutex::default(),
            changed: Condvar::new(),
            tell_panic: OnceLock::new(),
        });
        let reader = Reader {
            pipes: Arc::clone(&pipes),
            fds: [out_read, err_read],
            wake: wake_read,
            frames: Frames::new(token),
            error_frames: Frames::new(token),
            texts: [Decoder::default(), Decoder::default()],
            contents: Contents::default(),
            batch: Vec::new(),
            batch_bytes: 0,
        };
        std::thread::Builder::new().name("output".into()).spawn(move || reader.run())?;
        Ok(pipes)
    }

    pub fn child_ends(&self) -> ChildEnds {
        self.ends
    }

    /// Sets how panics of threads are told.
    pub fn tell_panics_by(&self, tell: TellPanic) {
        let _ = self.tell_panic.set(tell);
    }

    /// From now on outputs go to `sink`; what the last cell left to be read is forgotten.
    pub fn begin_cell(&self, sink: Sink, allow_stdin: bool) {
        self.discard_input();
        unsafe {
            let byte = if allow_stdin { b'1' } else { b'0' };
            libc::send(self.control.as_raw_fd(), (&raw const byte).cast(), 1, libc::MSG_DONTWAIT);
        }
        let mut state = self.state();
        *state = State {
            sink: Some(sink),
            sizes: std::mem::take(&mut state.sizes),
            earlier: std::mem::take(&mut state.earlier),
            ..State::default()
        };
    }

    /// The current cell's code now starts as run `id`.
    pub fn begin_run(&self, id: u64) {
        let mut state = self.state();
        state.run = id;
        state.ended = [false; 2];
        if let Some(sink) = state.sink.clone() {
            state.earlier.push_back((id, sink));
        }
        while state.earlier.len() > EARLIER {
            state.earlier.pop_front();
        }
    }

    /// Waits until all that the cell printed has reached the sink.
    pub fn wait_for_end(&self, patience: Duration) {
        let state = self.state();
        let _ = self.changed.wait_timeout_while(state, patience, |state| state.ended != [true, true]);
    }

    /// Waits until nothing is left in the pipes; for a child that is dead and sends no end mark.
    pub fn wait_until_empty(&self) {
        let mut state = self.state();
        state.drain = true;
        unsafe { libc::write(self.wake.as_raw_fd(), b"d".as_ptr().cast(), 1) };
        let _ = self.changed.wait_timeout_while(state, Duration::from_secs(10), |state| state.drain);
    }

    /// The value that ended the cell, as the content of `execute_result`.
    pub fn take_result(&self) -> Option<Value> {
        self.state().result.take()
    }

    /// What the cell runtime reported: records whose first field is their kind.
    pub fn take_records(&self) -> Vec<Vec<String>> {
        std::mem::take(&mut self.state().records)
    }

    /// The bytes that each variable takes.
    pub fn sizes(&self) -> HashMap<String, usize> {
        self.state().sizes.clone()
    }

    /// How long the cell took to load and to run.
    pub fn times(&self) -> (Duration, Duration) {
        self.state().times
    }

    /// The end of what the cell wrote to standard error.
    pub fn error_tail(&self) -> String {
        self.state().error_tail.clone()
    }

    /// Sends an output of the kernel's own to the cell's sink.
    pub fn send(&self, output: Output) {
        let sink = self.state().sink.clone();
        if let Some(sink) = sink {
            sink(output);
        }
    }

    /// A request for input that user code made in evcxr's way, by printing a marker.
    pub fn take_prompt(&self) -> Option<(String, bool)> {
        self.state().prompt.take()
    }

    /// Asks the frontend for a line and hands it to the child. False when there is none to be had, or `gave_up` says so.
    pub fn ask(&self, prompt: String, password: bool, gave_up: impl Fn() -> bool) -> bool {
        let (reply, answer) = channel();
        self.send(Output::InputRequest { prompt, password, reply });
        loop {
            match answer.recv_timeout(Duration::from_millis(100)) {
                Ok(line) => {
                    let line = format!("{line}\n");
                    let mut bytes = line.as_bytes();
                    while !bytes.is_empty() {
                        let written =
                            unsafe { libc::write(self.input.as_raw_fd(), bytes.as_ptr().cast(), bytes.len()) };
                        let Ok(written) = usize::try_from(written) else { return false };
                        bytes = &bytes[written..];
                    }
                    return true;
                }
                Err(RecvTimeoutError::Timeout) if gave_up() => return true,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return false,
            }
        }
    }

    /// Whether an answer waits to be read by the child.
    pub fn input_is_pending(&self) -> bool {
        let mut waiting: libc::c_int = 0;
        unsafe { libc::ioctl(self.ends.input, libc::FIONREAD, &mut waiting) };
        waiting > 0
    }

    /// Hands a comm message of the frontend to the child: its kind, the comm, the target, the data as JSON. False when the child
    /// does not take them any more.
    pub fn tell_comm(&self, fields: [&str; 4]) -> bool {
        // The first mark ends a record that was given up half-way.
        let record = format!("\x1e{}\x1f\x1e", fields.join("\x1f"));
        let comms = self.comms.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let mut bytes = record.as_bytes();
        let deadline = Instant::now() + COMM_PATIENCE;
        while !bytes.is_empty() {
            let written = unsafe { libc::write(comms.as_raw_fd(), bytes.as_ptr().cast(), bytes.len()) };
            match usize::try_from(written) {
                Ok(written) => bytes = &bytes[written..],
                Err(_) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(2)),
                Err(_) => return false,
            }
        }
        true
    }

    fn discard_input(&self) {
        let mut bytes = [0u8; 4096];
        while self.input_is_pending() {
            unsafe { libc::read(self.ends.input, bytes.as_mut_ptr().cast(), bytes.len()) };
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

struct Reader {
    pipes: Arc<Pipes>,
    fds: [OwnedFd; 2],
    wake: OwnedFd,
    frames: Frames,
    error_frames: Frames,
    texts: [Decoder; 2],
    contents: Contents,
    batch: Vec<Output>,
    batch_bytes: usize,
}

impl Reader {
    fn run(mut self) {
        let mut buffer = vec![0u8; 1 << 16];
        let mut control = Vec::new();
        let mut last_sent = Instant::now();
        loop {
            let waiting = !self.batch.is_empty() || self.contents.is_holding();
            let draining = self.pipes.state().drain;
            let timeout = if draining {
                0
            } else if waiting {
                BATCH.as_millis() as i32
            } else {
                -1
            };
            let control_fd = self.pipes.control.as_raw_fd();
            let mut polled = [self.fds[0].as_raw_fd(), self.fds[1].as_raw_fd(), control_fd, self.wake.as_raw_fd()]
                .map(|fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 });
            let ready = unsafe { libc::poll(polled.as_mut_ptr(), 4, timeout) };
            let mut ends = [false; 2];
            if polled[2].revents != 0 {
                let read =
                    unsafe { libc::recv(control_fd, buffer.as_mut_ptr().cast(), buffer.len(), libc::MSG_DONTWAIT) };
                if let Ok(read) = usize::try_from(read) {
                    control.extend_from_slice(&buffer[..read]);
                    self.note_records(&mut control);
                }
            }
            if polled[3].revents != 0 {
                unsafe { libc::read(polled[3].fd, buffer.as_mut_ptr().cast(), buffer.len()) };
            }
            for stream in 0..2 {
                if polled[stream].revents == 0 {
                    continue;
                }
                let read = unsafe { libc::read(polled[stream].fd, buffer.as_mut_ptr().cast(), buffer.len()) };
                if let Ok(read) = usize::try_from(read)
                    && read > 0
                {
                    ends[stream] = self.take(stream, &buffer[..read]);
                }
            }
            let idle = ready == 0;
            if idle {
                self.contents.let_go(&mut self.batch);
            }
            if !self.batch.is_empty()
                && (idle || ends != [false; 2] || self.batch_bytes > BATCH_BYTES || last_sent.elapsed() > BATCH)
            {
                self.send_batch();
                last_sent = Instant::now();
            }
            if ends != [false; 2] || (idle && draining) {
                let mut state = self.pipes.state();
                state.ended[0] |= ends[0];
                state.ended[1] |= ends[1];
                if idle {
                    state.drain = false;
                }
                drop(state);
                self.pipes.changed.notify_all();
            }
        }
    }

    /// Takes bytes of a stream; true when they hold the end of the cell.
    fn take(&mut self, stream: usize, bytes: &[u8]) -> bool {
        let mut ended = false;
        self.batch_bytes += bytes.len();
        let frames = if stream == 0 { &mut self.frames } else { &mut self.error_frames };
        for piece in frames.split(bytes) {
            match piece {
                Piece::Text(text) => {
                    let text = self.texts[stream].decode(&text);
                    if text.is_empty() {
                        continue;
                    }
                    if stream == 0 {
                        let prompts = self.contents.take(&text, &mut self.batch);
                        if let Some(prompt) = prompts {
                            self.pipes.state().prompt = Some(prompt);
                        }
                    } else {
                        let mut state = self.pipes.state();
                        state.error_tail.push_str(&text);
                        let excess = state.error_tail.len().saturating_sub(ERROR_TAIL);
                        if excess > 0 {
                            let start = state.error_tail.ceil_char_boundary(excess);
                            state.error_tail.drain(..start);
                        }
                        drop(state);
                        push_text(&mut self.batch, text, false);
                    }
                }
                Piece::Frame(payload) if payload.starts_with(br#"{"msg_type":"cell_end""#) => {
                    self.contents.let_go(&mut self.batch);
                    // The end of an earlier run, read late, is not this one's.
                    ended |= payload == end_of_run(self.pipes.state().run).as_bytes();
                }
                Piece::Frame(payload) => self.take_frame(&payload),
            }
        }
        ended
    }

    fn take_frame(&mut self, payload: &[u8]) {
        let Ok(mut message) = serde_json::from_slice::<Value>(payload) else { return };
        let content = message.get_mut("content").map(Value::take).unwrap_or(Value::Null);
        self.contents.let_go(&mut self.batch);
        let output = match message["msg_type"].as_str() {
            Some("display_data") => {
                if let Some(id) = content["transient"]["display_id"].as_str() {
                    self.pipes.state().displayed.insert(id.to_owned());
                }
                Output::Display(content)
            }
            Some("update_display_data") => Output::UpdateDisplay(content),
            Some("clear_output") => {
                self.pipes.state().displayed.clear();
                Output::ClearOutput { wait: content["wait"].as_bool().unwrap_or(false) }
            }
            Some("comm_target") => Output::CommTarget(content["target_name"].as_str().unwrap_or_default().to_owned()),
            Some("comm_open") => Output::CommOpen(content),
            Some("comm_msg") => Output::CommMsg(content),
            Some("comm_close") => Output::CommClose(content),
            Some("stream") => {
                self.take_late_text(&message["run"], content);
                return;
            }
            Some("execute_result") => {
                let mut state = self.pipes.state();
                let id = content["transient"]["display_id"].as_str();
                // A value that the cell shows already is not shown again.
                if !id.is_some_and(|id| state.displayed.contains(id)) {
                    state.result = Some(content);
                    return;
                }
                drop(state);
                Output::UpdateDisplay(content)
            }
            _ => return,
        };
        self.batch.push(output);
    }

    /// Text of a thread whose cell has ended.
    fn take_late_text(&mut self, run: &Value, mut content: Value) {
        let Value::String(text) = content["text"].take() else { return };
        let output = if content["name"] == "stderr" { Output::Stderr(text) } else { Output::Stdout(text) };
        let state = self.pipes.state();
        let sink = state.earlier.iter().find(|(id, _)| run.as_u64() == Some(*id)).map(|(_, sink)| Arc::clone(sink));
        drop(state);
        match sink {
            Some(sink) => sink(output),
            None => self.batch.push(output),
        }
    }

    fn note_records(&mut self, control: &mut Vec<u8>) {
        let Some(end) = control.iter().rposition(|&byte| byte == 0x1e) else { return };
        let complete: Vec<u8> = control.drain(..=end).collect();
        let mut state = self.pipes.state();
        for record in String::from_utf8_lossy(&complete).split('\x1e').filter(|record| !record.is_empty()) {
            let fields: Vec<String> = record.trim_end_matches('\x1f').split('\x1f').map(str::to_owned).collect();
            if fields[0] == "variable" && fields.len() > 2 {
                state.sizes.insert(fields[1].clone(), fields[2].parse().unwrap_or(0));
            } else if fields[0] == "times" && fields.len() > 2 {
                let [load, run] = [1, 2].map(|index| Duration::from_micros(fields[index].parse().unwrap_or(0)));
                state.times = (load, run);
            } else if fields[0] == "thread_panic" {
                if let Some(tell) = self.pipes.tell_panic.get() {
                    push_text(&mut self.batch, tell(&fields), false);
                }
            } else {
                state.records.push(fields);
            }
        }
    }

    fn send_batch(&mut self) {
        self.batch_bytes = 0;
        let sink = self.pipes.state().sink.clone();
        for output in self.batch.drain(..) {
            if let Some(sink) = &sink {
                sink(output);
            }
        }
    }
}

/// Joins text to the batch's last output when both belong to the same stream.
pub fn push_text(batch: &mut Vec<Output>, text: String, stdout: bool) {
    match (batch.last_mut(), stdout) {
        (Some(Output::Stdout(last)), true) | (Some(Output::Stderr(last)), false) => last.push_str(&text),
        (_, true) => batch.push(Output::Stdout(text)),
        (_, false) => batch.push(Output::Stderr(text)),
    }
}

fn pipe() -> std::io::Result<(OwnedFd, OwnedFd)> {
    let mut fds = [0; 2];
    match unsafe { libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC) } {
        0 => Ok((own(fds[0])?, own(fds[1])?)),
        _ => Err(std::io::Error::last_os_error()),
    }
}

fn socket_pair() -> std::io::Result<(OwnedFd, OwnedFd)> {
    let mut fds = [0; 2];
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC;
    match unsafe { libc::socketpair(libc::AF_UNIX, kind, 0, fds.as_mut_ptr()) } {
        0 => Ok((own(fds[0])?, own(fds[1])?)),
        _ => Err(std::io::Error::last_os_error()),
    }
}

/// Moves a descriptor out of the way of those that the child uses itself.
fn own(fd: RawFd) -> std::io::Result<OwnedFd> {
    let high = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, HIGH) };
    unsafe { libc::close(fd) };
    if high < 0 { Err(std::io::Error::last_os_error()) } else { Ok(unsafe { OwnedFd::from_raw_fd(high) }) }
}

/// Writes a line to standard error of the kernel itself, where its log goes; failing to is no reason to stop.
pub fn log(line: &str) {
    let _ = writeln!(std::io::stderr(), "wavemesh-kernel: {line}");
}
