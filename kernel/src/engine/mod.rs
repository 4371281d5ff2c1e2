//! Evaluates cells. This side of the kernel knows Rust, and nothing of Jupyter's wire.
//!
//! The protocol side holds an [`EngineHandle`]. Starting it returns at once; the compiler and the process that runs the user's code start
//! in the background.

mod assist;
mod backtrace;
mod body;
mod built;
mod cell;
mod child;
mod commands;
mod compiler;
mod crash;
mod definitions;
mod deps;
mod dispatch;
mod export;
pub mod gpu;
pub mod grammar;
mod items;
pub mod library;
mod loading;
mod pipes;
mod processes;
mod progress;
mod prompter;
mod report;
mod runner;
mod rustc;
mod session;
mod shared;
mod signals;
mod startup;
mod statics;
mod system_call;
mod temporary;
mod toolchain;
mod variables;
mod waits;
mod ways_out;
mod worker;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use serde_json::Value;
use wavemesh_cell::protocol::CommEvent;

/// The evaluator must start within this time.
const START: Duration = Duration::from_secs(10);

/// How long a cell that asks for a name waits for rustdoc, which is slow beside other work.
const NAMES: Duration = Duration::from_secs(30);

/// Something that a cell shows or asks for while it runs.
#[derive(Debug)]
#[expect(clippy::enum_variant_names, reason = "these are the names of Jupyter's messages")]
pub enum Output {
    /// Text written to standard output; a partial line is possible.
    Stdout(String),
    /// Text written to standard error; a partial line is possible.
    Stderr(String),
    /// The content of a `display_data` message.
    Display(Value),
    /// The content of an `update_display_data` message.
    UpdateDisplay(Value),
    /// Clear the cell's output, at once or when the next output comes.
    ClearOutput { wait: bool },
    /// The frontend may open comms to this target from now on.
    CommTarget(String),
    /// The content and the metadata of a `comm_open` message.
    CommOpen { content: Value, metadata: Value },
    /// The content of a `comm_msg` message.
    CommMsg(Value),
    /// The content of a `comm_close` message.
    CommClose(Value),
    /// User code waits for a line of input; the reply has no newline. Dropping `reply` is an end of file.
    InputRequest { prompt: String, password: bool, reply: Sender<String> },
}

/// Receives a cell's outputs, in order. One thread at a time calls it. It may block; that slows the cell down, but nothing is lost.
pub type Sink = Arc<dyn Fn(Output) + Send + Sync>;

/// The options of one execution.
#[derive(Clone, Debug, Default)]
pub struct ExecuteOptions {
    /// Whether to hide the value at the end of the cell.
    pub silent: bool,
    /// Whether the frontend can answer an [`Output::InputRequest`]. If not, a read of standard input gives end of file.
    pub allow_stdin: bool,
    /// Expressions to evaluate after the cell, by name.
    pub user_expressions: BTreeMap<String, String>,
    /// The number of the cell, as in `In [3]`; errors name the cell by it.
    pub execution_count: u32,
    /// The id that the frontend gives the cell, if any: when a cell runs again, its definitions replace its earlier ones.
    pub cell: Option<String>,
    /// Cells that the frontend has removed; their definitions are removed too.
    pub deleted: Vec<String>,
}

/// A cell that ran to its end.
#[derive(Clone, Debug, Default)]
pub struct ExecuteResult {
    /// The value at the end of the cell, `{"data": {mime: …}, "metadata": {…}}`: the content of `execute_result` without the count.
    pub data: Option<Value>,
    /// For each name asked for, Jupyter's `{"status": "ok", "data": …}` or `{"status": "error", "ename": …}`.
    pub user_expressions: BTreeMap<String, Value>,
}

/// A cell that failed, with the fields of Jupyter's `error` message.
#[derive(Clone, Debug, Default)]
pub struct ExecuteError {
    /// The kind of error: `E0308`, `Panic`, the type of an `Err`, `Interrupted`, `Terminated`.
    pub ename: String,
    /// One line that says what happened.
    pub evalue: String,
    /// Lines for the user, with ANSI colours.
    pub traceback: Vec<String>,
}

/// One suggestion of a completion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completion {
    /// The text to insert.
    pub text: String,
    /// Jupyter's kind: `function`, `class`, `module`, `instance`, `keyword`, `magic`.
    pub kind: String,
    /// A signature or type; may be empty.
    pub signature: String,
}

/// Suggestions that replace the characters `start..end` of the code, counted in Unicode characters.
#[derive(Clone, Debug, Default)]
pub struct Completions {
    pub matches: Vec<Completion>,
    pub start: usize,
    pub end: usize,
}

/// An execution on its way to the evaluator.
struct Request {
    code: String,
    options: ExecuteOptions,
    sink: Sink,
    reply: Sender<Result<ExecuteResult, ExecuteError>>,
}

/// Runs user code if this process was started for that, and then does not return. Call this first in `main`.
pub fn run_helper() {
    if let Some(start) = child::Start::of_this_process() {
        child::run(start);
    }
}

/// The evaluator. All clones share one evaluator.
#[derive(Clone)]
pub struct EngineHandle {
    requests: Sender<Request>,
    shared: Arc<shared::Shared>,
    closed: Arc<AtomicBool>,
}

impl EngineHandle {
    /// Starts the evaluator in the background and returns at once.
    pub fn start() -> EngineHandle {
        let (requests, receiver): (_, Receiver<Request>) = channel();
        let shared = Arc::new(shared::Shared::default());
        session::spawn(receiver, Arc::clone(&shared));
        EngineHandle { requests, shared, closed: Arc::default() }
    }

    /// Runs a cell and blocks until it has ended. By then `sink` has received all outputs of the cell; later it also receives the output of
    /// threads that the cell left running.
    pub fn execute(&self, code: &str, options: ExecuteOptions, sink: Sink) -> Result<ExecuteResult, ExecuteError> {
        let (reply, result) = channel();
        let request = Request { code: code.to_owned(), options, sink, reply };
        let gone = || ExecuteError {
            ename: "KernelShutdown".into(),
            evalue: "the kernel is shutting down".into(),
            ..Default::default()
        };
        if self.closed.load(Ordering::SeqCst) {
            return Err(gone());
        }
        self.requests.send(request).map_err(|_| gone())?;
        result.recv().unwrap_or_else(|_| Err(gone()))
    }

    /// Suggests what could stand at `cursor` (in Unicode characters). Answers while a cell runs.
    pub fn complete(&self, code: &str, cursor: usize) -> Completions {
        match self.assistant() {
            Some(assistant) => assistant.complete(code, cursor),
            None => Completions { matches: Vec::new(), start: cursor, end: cursor },
        }
    }

    /// Documentation of what is at `cursor` (in Unicode characters), as a mime bundle. `detail` 1 asks for more. Answers while a cell runs.
    pub fn inspect(&self, code: &str, cursor: usize, detail: u8) -> Option<Value> {
        self.assistant()?.inspect(code, cursor, detail)
    }

    /// Waits for the names of the crates, up to 30 s. Returns false if they are not known by then.
    pub fn wait_for_names(&self) -> bool {
        self.assistant().is_some_and(|assistant| assistant.wait_for_names(NAMES))
    }

    /// The assistant, which exists a moment after the start; this waits for it.
    fn assistant(&self) -> Option<Arc<assist::Assistant>> {
        Some(Arc::clone(&self.shared.wait_for_evaluator(START)?.assistant))
    }

    /// Passes an event of a comm from the frontend to the user's code. Returns false if the process is not there.
    pub fn comm(&self, event: &CommEvent) -> bool {
        self.shared.evaluator().is_some_and(|evaluator| evaluator.pipes.tell_comm(event))
    }

    /// Stops the running cell; does nothing when none runs.
    pub fn interrupt(&self) {
        self.shared.interrupt(self.shared.cell());
    }

    /// Ends the user's process and removes the temporary folders. Later cells fail.
    pub fn shutdown(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.shared.shutdown();
    }
}
