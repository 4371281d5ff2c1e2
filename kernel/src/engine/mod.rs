//! Evaluation of cells: the side of the kernel that knows Rust and nothing of Jupyter's wire.
//!
//! [`EngineHandle`] is what the protocol side holds. It returns at once; the compiler and the process that runs the
//! user's code start behind it.

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

/// The evaluator starts within this time, or not at all.
const START: Duration = Duration::from_secs(10);

/// A cell that asks for a name waits so long for rustdoc, which is slow beside other work.
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

/// Takes a cell's outputs, in order. Called from one thread at a time; it may block, which slows the cell down and loses nothing.
pub type Sink = Arc<dyn Fn(Output) + Send + Sync>;

/// What the protocol side wants of one execution.
#[derive(Clone, Debug, Default)]
pub struct ExecuteOptions {
    /// Do not show the value that ends the cell.
    pub silent: bool,
    /// Whether the frontend can answer an [`Output::InputRequest`]; if not, reading standard input is an end of file.
    pub allow_stdin: bool,
    /// Expressions to evaluate after the cell, by name.
    pub user_expressions: BTreeMap<String, String>,
    /// The number of the cell, as in `In [3]`; it names the cell in errors.
    pub execution_count: u32,
    /// What the frontend calls the cell, if it says so: the cell that it runs again replaces what it defined.
    pub cell: Option<String>,
    /// Cells that the frontend has removed: what they defined goes.
    pub deleted: Vec<String>,
}

/// A cell that ran to its end.
#[derive(Clone, Debug, Default)]
pub struct ExecuteResult {
    /// The value that ends the cell: `{"data": {mime: …}, "metadata": {…}}`, the content of `execute_result` but for the count.
    pub data: Option<Value>,
    /// For each name asked for, Jupyter's `{"status": "ok", "data": …}` or `{"status": "error", "ename": …}`.
    pub user_expressions: BTreeMap<String, Value>,
}

/// A cell that failed, in the terms of Jupyter's `error` message.
#[derive(Clone, Debug, Default)]
pub struct ExecuteError {
    /// The kind of error: `E0308`, `Panic`, the type of an `Err`, `Interrupted`, `Terminated`.
    pub ename: String,
    /// One line that says what happened.
    pub evalue: String,
    /// Lines for people, with ANSI colours.
    pub traceback: Vec<String>,
}

/// One suggestion of a completion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completion {
    /// What is inserted.
    pub text: String,
    /// Jupyter's kind: `function`, `class`, `module`, `instance`, `keyword`, `magic`.
    pub kind: String,
    /// A signature or type, may be empty.
    pub signature: String,
}

/// Suggestions for the characters `start..end` (counted in Unicode characters) of the code.
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

/// When this process is not the kernel but the one that runs user code, does that and does not return. To be called first in `main`.
pub fn run_helper() {
    if let Some(start) = child::Start::of_this_process() {
        child::run(start);
    }
}

/// The evaluator. Clones talk to the same one.
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

    /// Runs a cell and blocks until it has ended. All its outputs have then been given to `sink`, which also takes the later
    /// outputs of threads that the cell left running.
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

    /// Documentation of what stands at `cursor` (in Unicode characters), as a mime bundle. `detail` 1 asks for more.
    /// Answers while a cell runs.
    pub fn inspect(&self, code: &str, cursor: usize, detail: u8) -> Option<Value> {
        self.assistant()?.inspect(code, cursor, detail)
    }

    /// Waits until the names of the crates are known, as far as that is worth it. False when they are not.
    pub fn wait_for_names(&self) -> bool {
        self.assistant().is_some_and(|assistant| assistant.wait_for_names(NAMES))
    }

    /// Who knows names. It is there a moment after the start, and is waited for.
    fn assistant(&self) -> Option<Arc<assist::Assistant>> {
        Some(Arc::clone(&self.shared.wait_for_evaluator(START)?.assistant))
    }

    /// Hands what the frontend does with a comm to the user's code. False if that is not there.
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
