//! The messages between the kernel and the process that runs cells, and the one codec for them.
//!
//! | way | from | to | messages |
//! | --- | --- | --- | --- |
//! | control socket | the process that runs cells | the kernel | [`Report`] |
//! | control socket | the kernel | the process that runs cells | [`Order`] |
//! | comms pipe | the kernel | the process that runs cells | [`CommEvent`] |
//! | standard output and error | the process that runs cells | the kernel | text, and the frames of [`frames`](crate::frames) |
//!
//! A message is one line: the length of its body in bytes, a space, and the body. Tabs separate the fields of the body; the first field
//! names the kind. Tab, newline and backslash are escaped, so that a field may hold any text. A newline also comes before each line, and
//! the length must be right: if a sender dies in the middle, only that one message is lost.

use std::time::Duration;

/// A longer line is not a message.
const LONGEST: usize = 64 << 20;

/// A place in a source file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    pub file: String,
    /// Counts from 1; 0 if it is not known.
    pub line: u32,
    /// Counts from 1; 0 if it is not known.
    pub column: u32,
}

/// A panic as the panic hook saw it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Panic {
    pub message: String,
    pub place: Place,
}

/// A place in the code of a cell, from the stack of a panic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The cell's library.
    pub library: String,
    /// The offset of the call in that library.
    pub offset: u64,
}

/// What the process that runs cells reports to the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// A variable was stored. The number is that of a variable that the cell bound; a stored variable of an earlier cell has none.
    Variable { name: String, number: Option<usize>, bytes: u64, shape: String, type_name: String },
    /// The cell panics. The process may end before it can say more.
    Panicking(Panic),
    /// A panic ended the cell; the frames are those in cells, innermost first.
    Panicked { panic: Panic, frames: Vec<Frame> },
    /// A thread panicked, or the cell caught a panic of its own. Neither ends the cell.
    ThreadPanicked { thread: String, panic: Panic },
    /// An `Err` ended the cell.
    Failed { message: String, type_name: String, place: Place },
    /// The cell noticed a request to stop, and ended.
    Stopped,
    /// The cell did not notice, and its thread was left behind at these frames, innermost first.
    Left { frames: Vec<Frame> },
    /// The thread of a cell that is to stop cannot be left behind where it is.
    Held { by: Holder, frames: Vec<Frame> },
    /// A signal, which met a thread at these frames, is about to end the process.
    Crashed { frames: Vec<Frame> },
    /// A process that the cell started still runs after a stop.
    GoesOn { process: u32, command: String },
    /// How long the cell took to load and to run, to the microsecond.
    Times { load: Duration, run: Duration },
}

/// Why a thread cannot be left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// Threads of a pool work for it.
    Pool,
    /// The thread holds standard output, standard error or the displays.
    Output,
}

/// What the kernel asks of the process that runs cells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// Whether later cells may ask the frontend for input.
    Input { allowed: bool },
    /// This run is to stop. Its code has the grace time to notice; then its thread is left behind.
    Stop { run: u64, grace: Duration },
}

/// What the page does with a comm. `data` is the text of a JSON value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommEvent {
    Open { id: String, target: String, data: String },
    Message { id: String, data: String },
    Close { id: String, data: String },
}

/// A message that can be sent.
pub trait Message: Sized {
    /// The kind, then the fields from which the message can be made again.
    fn fields(&self) -> Vec<String>;

    /// The message with these fields, if they are valid.
    fn from_fields(fields: &[&str]) -> Option<Self>;

    /// The bytes of the message.
    fn encode(&self) -> Vec<u8> {
        let body: Vec<String> = self.fields().iter().map(|field| escape(field)).collect();
        let body = body.join("\t");
        format!("\n{} {body}\n", body.len()).into_bytes()
    }
}

impl Place {
    fn push_to(&self, fields: &mut Vec<String>) {
        fields.extend([self.file.clone(), self.line.to_string(), self.column.to_string()]);
    }

    fn of(file: &str, line: &str, column: &str) -> Option<Place> {
        Some(Place { file: file.to_owned(), line: line.parse().ok()?, column: column.parse().ok()? })
    }
}

fn push_frames(frames: &[Frame], fields: &mut Vec<String>) {
    fields.extend(frames.iter().flat_map(|frame| [frame.library.clone(), frame.offset.to_string()]));
}

fn frames_of(fields: &[&str]) -> Option<Vec<Frame>> {
    let frames = fields.chunks(2).map(|frame| match *frame {
        [library, offset] => Some(Frame { library: library.to_owned(), offset: offset.parse().ok()? }),
        _ => None,
    });
    frames.collect()
}

impl Message for Report {
    fn fields(&self) -> Vec<String> {
        let of = |kind: &str, texts: &[&str]| [kind].iter().chain(texts).map(|text| (*text).to_owned()).collect();
        let panic_of = |kind: &str, panic: &Panic| {
            let mut fields = vec![kind.to_owned(), panic.message.clone()];
            panic.place.push_to(&mut fields);
            fields
        };
        match self {
            Report::Variable { name, number, bytes, shape, type_name } => {
                let number = number.map_or(String::new(), |number| number.to_string());
                of("variable", &[name, &number, &bytes.to_string(), shape, type_name])
            }
            Report::Panicking(panic) => panic_of("panicking", panic),
            Report::Panicked { panic, frames } => {
                let mut fields = panic_of("panicked", panic);
                push_frames(frames, &mut fields);
                fields
            }
            Report::ThreadPanicked { thread, panic } => {
                let mut fields = panic_of("thread_panicked", panic);
                fields.push(thread.clone());
                fields
            }
            Report::Failed { message, type_name, place } => {
                let mut fields = of("failed", &[message, type_name]);
                place.push_to(&mut fields);
                fields
            }
            Report::Stopped => of("stopped", &[]),
            Report::Left { frames } => {
                let mut fields = of("left", &[]);
                push_frames(frames, &mut fields);
                fields
            }
            Report::Crashed { frames } => {
                let mut fields = of("crashed", &[]);
                push_frames(frames, &mut fields);
                fields
            }
            Report::Held { by, frames } => {
                let by = match by {
                    Holder::Pool => "pool",
                    Holder::Output => "output",
                };
                let mut fields = of("held", &[by]);
                push_frames(frames, &mut fields);
                fields
            }
            Report::GoesOn { process, command } => of("goes_on", &[&process.to_string(), command]),
            Report::Times { load, run } => {
                of("times", &[load, run].map(|time| time.as_micros().to_string()).each_ref().map(String::as_str))
            }
        }
    }

    fn from_fields(fields: &[&str]) -> Option<Report> {
        let panic = |message: &str, place: Place| Panic { message: message.to_owned(), place };
        Some(match *fields {
            ["variable", name, number, bytes, shape, type_name] => Report::Variable {
                name: name.to_owned(),
                number: if number.is_empty() { None } else { Some(number.parse().ok()?) },
                bytes: bytes.parse().ok()?,
                shape: shape.to_owned(),
                type_name: type_name.to_owned(),
            },
            ["panicking", message, file, line, column] => {
                Report::Panicking(panic(message, Place::of(file, line, column)?))
            }
            ["panicked", message, file, line, column, ref frames @ ..] => {
                Report::Panicked { panic: panic(message, Place::of(file, line, column)?), frames: frames_of(frames)? }
            }
            ["thread_panicked", message, file, line, column, thread] => Report::ThreadPanicked {
                thread: thread.to_owned(),
                panic: panic(message, Place::of(file, line, column)?),
            },
            ["failed", message, type_name, file, line, column] => Report::Failed {
                message: message.to_owned(),
                type_name: type_name.to_owned(),
                place: Place::of(file, line, column)?,
            },
            ["stopped"] => Report::Stopped,
            ["left", ref frames @ ..] => Report::Left { frames: frames_of(frames)? },
            ["crashed", ref frames @ ..] => Report::Crashed { frames: frames_of(frames)? },
            ["held", by @ ("pool" | "output"), ref frames @ ..] => Report::Held {
                by: if by == "pool" { Holder::Pool } else { Holder::Output },
                frames: frames_of(frames)?,
            },
            ["goes_on", process, command] => {
                Report::GoesOn { process: process.parse().ok()?, command: command.to_owned() }
            }
            ["times", load, run] => {
                let micros = |text: &str| text.parse().ok().map(Duration::from_micros);
                Report::Times { load: micros(load)?, run: micros(run)? }
            }
            _ => return None,
        })
    }
}

impl Message for Order {
    fn fields(&self) -> Vec<String> {
        match self {
            Order::Input { allowed } => vec!["input".to_owned(), u8::from(*allowed).to_string()],
            Order::Stop { run, grace } => {
                vec!["stop".to_owned(), run.to_string(), grace.as_micros().to_string()]
            }
        }
    }

    fn from_fields(fields: &[&str]) -> Option<Order> {
        match *fields {
            ["input", allowed @ ("0" | "1")] => Some(Order::Input { allowed: allowed == "1" }),
            ["stop", run, grace] => {
                Some(Order::Stop { run: run.parse().ok()?, grace: Duration::from_micros(grace.parse().ok()?) })
            }
            _ => None,
        }
    }
}

impl Message for CommEvent {
    fn fields(&self) -> Vec<String> {
        let texts = match self {
            CommEvent::Open { id, target, data } => vec!["open", id, target, data],
            CommEvent::Message { id, data } => vec!["message", id, data],
            CommEvent::Close { id, data } => vec!["close", id, data],
        };
        texts.into_iter().map(str::to_owned).collect()
    }

    fn from_fields(fields: &[&str]) -> Option<CommEvent> {
        let own = |text: &str| text.to_owned();
        match *fields {
            ["open", id, target, data] => Some(CommEvent::Open { id: own(id), target: own(target), data: own(data) }),
            ["message", id, data] => Some(CommEvent::Message { id: own(id), data: own(data) }),
            ["close", id, data] => Some(CommEvent::Close { id: own(id), data: own(data) }),
            _ => None,
        }
    }
}

/// A line that is not a message: cut short, or not written by this codec.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// The beginning of the line.
    pub beginning: String,
}

/// Turns bytes into messages, wherever the bytes are cut.
#[derive(Default)]
pub struct Decoder {
    line: Vec<u8>,
    /// Whether the line is too long for a message; it is skipped to its end.
    too_long: bool,
}

impl Decoder {
    /// The messages that are now complete. A line that is no `M` gives an error; the lines after it are still read.
    pub fn decode<M: Message>(&mut self, bytes: &[u8]) -> Vec<Result<M, Malformed>> {
        let mut messages = Vec::new();
        for part in bytes.split_inclusive(|&byte| byte == b'\n') {
            let (text, ended) = part.strip_suffix(b"\n").map_or((part, false), |text| (text, true));
            self.too_long |= self.line.len() + text.len() > LONGEST;
            if self.too_long {
                self.line.truncate(100);
            } else {
                self.line.extend_from_slice(text);
            }
            if ended {
                let line = std::mem::take(&mut self.line);
                if std::mem::take(&mut self.too_long) {
                    messages.push(Err(malformed(&line)));
                } else if !line.is_empty() {
                    messages.push(read_line(&line).ok_or_else(|| malformed(&line)));
                }
            }
        }
        messages
    }
}

fn malformed(line: &[u8]) -> Malformed {
    Malformed { beginning: String::from_utf8_lossy(line).chars().take(60).collect() }
}

fn read_line<M: Message>(line: &[u8]) -> Option<M> {
    let (length, body) = std::str::from_utf8(line).ok()?.split_once(' ')?;
    if length.parse() != Ok(body.len()) {
        return None;
    }
    let fields: Vec<String> = body.split('\t').map(unescape).collect::<Option<_>>()?;
    M::from_fields(&fields.iter().map(String::as_str).collect::<Vec<_>>())
}

fn escape(field: &str) -> String {
    field.replace('\\', "\\\\").replace('\t', "\\t").replace('\n', "\\n")
}

fn unescape(field: &str) -> Option<String> {
    let mut text = String::with_capacity(field.len());
    let mut chars = field.chars();
    while let Some(c) = chars.next() {
        text.push(match c {
            '\\' => match chars.next()? {
                't' => '\t',
                'n' => '\n',
                '\\' => '\\',
                _ => return None,
            },
            c => c,
        });
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text() -> String {
        "tab\t newline\n backslash\\ \\n \u{1e}\u{1f} größe 🦀".to_owned()
    }

    fn reports() -> Vec<Report> {
        let panic = Panic { message: text(), place: Place { file: text(), line: 7, column: u32::MAX } };
        vec![
            Report::Variable {
                name: text(),
                number: Some(7),
                bytes: u64::MAX,
                shape: text(),
                type_name: String::new(),
            },
            Report::Variable { name: text(), number: None, bytes: 0, shape: String::new(), type_name: text() },
            Report::Panicking(panic.clone()),
            Report::Panicked { panic: panic.clone(), frames: Vec::new() },
            Report::Panicked {
                panic: panic.clone(),
                frames: vec![Frame { library: text(), offset: 1 }, Frame { library: String::new(), offset: u64::MAX }],
            },
            Report::ThreadPanicked { thread: text(), panic: panic.clone() },
            Report::Failed { message: text(), type_name: text(), place: panic.place },
            Report::Stopped,
            Report::Left { frames: vec![Frame { library: text(), offset: 5 }] },
            Report::Held { by: Holder::Pool, frames: Vec::new() },
            Report::Held { by: Holder::Output, frames: vec![Frame { library: text(), offset: 0 }] },
            Report::Crashed { frames: vec![Frame { library: text(), offset: 9 }] },
            Report::GoesOn { process: 7, command: text() },
            Report::Times { load: Duration::from_micros(3), run: Duration::from_secs(7) },
        ]
    }

    /// The result of `decode` for bytes that arrive `step` at a time.
    fn decoded<M: Message>(bytes: &[u8], step: usize) -> Vec<Result<M, Malformed>> {
        let mut decoder = Decoder::default();
        bytes.chunks(step).flat_map(|chunk| decoder.decode(chunk)).collect()
    }

    #[test]
    fn a_message_comes_back_as_it_was_however_its_bytes_are_cut() {
        let bytes: Vec<u8> = reports().iter().flat_map(Message::encode).collect();
        for step in [1, 2, 7, bytes.len()] {
            let expected: Vec<_> = reports().into_iter().map(Ok).collect();
            assert_eq!(decoded::<Report>(&bytes, step), expected, "{step} bytes at a time");
        }
        let stop = Order::Stop { run: u64::MAX, grace: Duration::from_millis(2) };
        let orders = [Order::Input { allowed: true }, stop, Order::Input { allowed: false }];
        let bytes: Vec<u8> = orders.iter().flat_map(Message::encode).collect();
        assert_eq!(decoded::<Order>(&bytes, 3), orders.map(Ok));
        let events = [
            CommEvent::Open { id: text(), target: text(), data: text() },
            CommEvent::Message { id: text(), data: String::new() },
            CommEvent::Close { id: String::new(), data: text() },
        ];
        let bytes: Vec<u8> = events.iter().flat_map(Message::encode).collect();
        assert_eq!(decoded::<CommEvent>(&bytes, 5), events.map(Ok));
    }

    #[test]
    fn a_message_whose_sender_died_in_the_middle_costs_that_message_alone() {
        let after = Report::Times { load: Duration::ZERO, run: Duration::ZERO };
        for whole in reports().iter().map(Message::encode) {
            // The last newline may be missing without harm, since the next message begins with one.
            for cut in 2..whole.len() - 1 {
                let bytes = [&whole[..cut], &after.encode()].concat();
                let messages = decoded::<Report>(&bytes, 64);
                assert!(messages[0].is_err() && messages[1..] == [Ok(after.clone())], "cut at {cut}: {messages:?}");
            }
        }
    }

    #[test]
    fn what_is_not_a_message_is_an_error_and_what_follows_is_read() {
        for garbage in
            ["x", "3 abc", "7 stopped\tx", "8 stopped", "-1 ", "6 input\t", "9 variable\t", "2 \\x", "\u{1f}"]
        {
            let bytes = [garbage.as_bytes(), &Report::Stopped.encode()].concat();
            let messages = decoded::<Report>(&bytes, 64);
            assert_eq!(messages, [Err(Malformed { beginning: garbage.to_owned() }), Ok(Report::Stopped)], "{garbage}");
        }
        assert!(matches!(decoded::<Order>(b"7 input\t2\n", 64)[..], [Err(_)]), "neither yes nor no");
        assert!(decoded::<Report>(b"\xff\xfe\n", 64)[0].is_err(), "not UTF-8");
    }
}
