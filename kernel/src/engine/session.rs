//! The thread that owns evcxr and runs cells, one after the other.

use std::collections::{BTreeMap, HashSet};
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use evcxr::{CommandContext, Error, EvalContext};
use serde_json::{Value, json};

use super::cell::{Cell, CommandLine, split_commands};
use super::compiler::Compiler;
use super::library::Bundle;
use super::pipes::{Pipes, log};
use super::report::{self, Places};
use super::temporary::Folder;
use super::toolchain::Toolchain;
use super::weave::Type;
use super::{ExecuteError, ExecuteOptions, ExecuteResult, Output, Request, Sink, child, commands, export, shim};

/// A stopped cell may take this long to stop by itself.
const GRACE: Duration = Duration::from_secs(2);

/// What other threads may touch while a cell runs.
pub struct Shared {
    /// The evaluator, once it is there.
    running: Mutex<Option<Arc<Evaluator>>>,
    /// Counts cells, so that a late stop does not hit the next one.
    pub cell: AtomicU64,
    busy: AtomicBool,
    interrupted: AtomicBool,
    killed: AtomicBool,
    grace_ms: AtomicU64,
    /// The process group of a shell command, or 0.
    shell: AtomicI32,
    closed: AtomicBool,
}

impl Default for Shared {
    fn default() -> Shared {
        Shared {
            running: Mutex::default(),
            cell: AtomicU64::new(0),
            busy: AtomicBool::new(false),
            interrupted: AtomicBool::new(false),
            killed: AtomicBool::new(false),
            grace_ms: AtomicU64::new(GRACE.as_millis() as u64),
            shell: AtomicI32::new(0),
            closed: AtomicBool::new(false),
        }
    }
}

/// The parts of the evaluator that other threads use.
pub struct Evaluator {
    pub compiler: Arc<Compiler>,
    pub pipes: Arc<Pipes>,
    child: Mutex<Option<Arc<Mutex<std::process::Child>>>>,
    folder: Mutex<Option<Folder>>,
}

impl Evaluator {
    fn child_id(&self) -> Option<i32> {
        let handle = lock(&self.child).clone()?;
        let mut child = lock(&handle);
        matches!(child.try_wait(), Ok(None)).then(|| child.id().try_into().ok()).flatten()
    }

    fn signal(&self, signal: i32) {
        if let Some(id) = self.child_id() {
            unsafe { libc::kill(id, signal) };
            if signal == libc::SIGKILL {
                unsafe { libc::killpg(id, signal) };
            }
        }
    }
}

impl Shared {
    /// The evaluator, if it has started.
    pub fn evaluator(&self) -> Option<Arc<Evaluator>> {
        lock(&self.running).clone()
    }

    pub fn interrupt(self: &Arc<Shared>) {
        if !self.busy.load(Ordering::SeqCst) {
            return;
        }
        self.interrupted.store(true, Ordering::SeqCst);
        let shell = self.shell.load(Ordering::SeqCst);
        if shell != 0 {
            unsafe { libc::killpg(shell, libc::SIGTERM) };
        }
        let Some(evaluator) = self.evaluator() else { return };
        if evaluator.compiler.interrupt() {
            return;
        }
        evaluator.signal(libc::SIGINT);
        let shared = Arc::clone(self);
        let cell = self.cell.load(Ordering::SeqCst);
        let deadline = Instant::now() + Duration::from_millis(self.grace_ms.load(Ordering::SeqCst));
        std::thread::spawn(move || {
            while Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(20));
                if shared.cell.load(Ordering::SeqCst) != cell || !shared.busy.load(Ordering::SeqCst) {
                    return;
                }
            }
            shared.killed.store(true, Ordering::SeqCst);
            evaluator.signal(libc::SIGKILL);
            let shell = shared.shell.load(Ordering::SeqCst);
            if shell != 0 {
                unsafe { libc::killpg(shell, libc::SIGKILL) };
            }
        });
    }

    /// Stops the running cell without waiting for it.
    pub fn stop_at_once(&self) {
        self.interrupted.store(true, Ordering::SeqCst);
        self.killed.store(true, Ordering::SeqCst);
        if let Some(evaluator) = self.evaluator() {
            evaluator.compiler.interrupt();
            if self.busy.load(Ordering::SeqCst) {
                evaluator.signal(libc::SIGKILL);
            }
        }
    }

    pub fn shutdown(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.stop_at_once();
        if let Some(evaluator) = self.evaluator() {
            evaluator.signal(libc::SIGKILL);
            drop(lock(&evaluator.folder).take());
        }
    }
}

/// Starts the evaluator's thread.
pub fn spawn(requests: Receiver<Request>, shared: Arc<Shared>) {
    let thread = std::thread::Builder::new().name("evaluator".into()).stack_size(64 << 20);
    let spawned = thread.spawn(move || {
        let mut session = Session::start(&shared);
        if let Err(error) = &session {
            log(&format!("the evaluator did not start: {error:#}"));
        }
        for Request { code, options, sink, reply } in requests {
            let result = match &mut session {
                Ok(session) => session.execute(&code, &options, sink),
                Err(error) => Err(not_started(error)),
            };
            let _ = reply.send(result);
        }
    });
    if let Err(error) = spawned {
        log(&format!("the evaluator did not start: {error}"));
    }
}

fn not_started(error: &anyhow::Error) -> ExecuteError {
    ExecuteError {
        ename: "EvaluatorError".into(),
        evalue: format!("{error:#}"),
        traceback: vec![
            "The evaluator did not start:".into(),
            format!("{error:#}"),
            "`wavemesh-kernel doctor` says what is missing.".into(),
        ],
    }
}

struct Session {
    shared: Arc<Shared>,
    evaluator: Arc<Evaluator>,
    context: CommandContext,
    opt_level: String,
    timing: bool,
    last_number: u32,
    /// The code of cells that ran, for `:export`.
    history: export::History,
}

impl Session {
    fn start(shared: &Arc<Shared>) -> Result<Session> {
        let folder = Folder::new().context("cannot make a temporary folder")?;
        let root = folder.path().to_owned();
        let path = std::env::var_os("PATH");
        let bundle = Bundle::find();
        let toolchain = match &bundle {
            Some(bundle) => bundle.toolchain.clone(),
            None => Toolchain::discover()?,
        };
        let toolchain = toolchain.with_path(path.clone());
        let token = format!("{:032x}", random());
        let pipes = Pipes::new(&token)?;
        let compiler = Arc::new(Compiler::new(toolchain, bundle, root.clone(), Arc::clone(&pipes))?);
        let telling = Arc::clone(&compiler);
        pipes.tell_panics_by(Box::new(move |record| report::other_panic(record, &Places::new(telling.cells()))));
        let answering = Arc::clone(&compiler);
        shim::serve(&root, Arc::new(move |call| answering.answer(call)))?;
        direct_evcxr_to(&root)?;

        let mut libraries: Vec<PathBuf> = vec![compiler.toolchain.std_library()?, compiler.runtime.clone()];
        libraries.extend(compiler.bundle.iter().map(Bundle::file));
        let command = child::prepare(pipes.child_ends(), &libraries, &token, path)?;
        let nobody: Sink = Arc::new(|_| {});
        pipes.begin_cell(Arc::clone(&nobody), false);
        let (context, _outputs) =
            EvalContext::with_subprocess_command(command).map_err(|error| anyhow::anyhow!("{error}"))?;
        let mut context = CommandContext::with_eval_context(context);
        let evaluator = Arc::new(Evaluator {
            compiler,
            pipes,
            child: Mutex::new(Some(context.process_handle())),
            folder: Mutex::new(Some(folder)),
        });
        for first in [":preserve_vars_on_panic 1", ":linker system", ":opt 0"] {
            context.execute(first).map_err(|error| anyhow::anyhow!("{error}"))?;
        }
        // evcxr allows `?` in cells after it has met one; so no later cell is built twice for it.
        context.execute("Ok::<(), std::fmt::Error>(())?;").map_err(|error| anyhow::anyhow!("{error}"))?;
        let session = Session {
            shared: Arc::clone(shared),
            evaluator: Arc::clone(&evaluator),
            context,
            opt_level: "0".into(),
            timing: false,
            last_number: 0,
            history: export::History::default(),
        };
        *lock(&shared.running) = Some(evaluator);
        if shared.closed.load(Ordering::SeqCst) {
            shared.shutdown();
        }
        Ok(session)
    }

    fn execute(&mut self, code: &str, options: &ExecuteOptions, sink: Sink) -> Result<ExecuteResult, ExecuteError> {
        self.last_number = options.execution_count;
        self.shared.cell.fetch_add(1, Ordering::SeqCst);
        self.shared.interrupted.store(false, Ordering::SeqCst);
        self.shared.killed.store(false, Ordering::SeqCst);
        self.shared.busy.store(true, Ordering::SeqCst);
        self.evaluator.pipes.begin_cell(sink, options.allow_stdin);
        let result = self.run_cell(code, options, 0);
        let result = result.map(|data| ExecuteResult {
            data: data.filter(|_| !options.silent),
            user_expressions: self.user_expressions(&options.user_expressions),
        });
        self.shared.busy.store(false, Ordering::SeqCst);
        result
    }

    fn user_expressions(&mut self, expressions: &BTreeMap<String, String>) -> BTreeMap<String, Value> {
        let mut values = BTreeMap::new();
        for (name, expression) in expressions {
            let value = match self.run_rust(expression, true) {
                Ok(shown) => {
                    let shown = shown.unwrap_or_else(|| json!({"data": {"text/plain": "()"}, "metadata": {}}));
                    json!({"status": "ok", "data": shown["data"], "metadata": shown["metadata"]})
                }
                Err(error) => {
                    json!({"status": "error", "ename": error.ename, "evalue": error.evalue, "traceback": error.traceback})
                }
            };
            values.insert(name.clone(), value);
        }
        values
    }

    /// Runs commands, then Rust. Returns the value to show.
    fn run_cell(&mut self, code: &str, options: &ExecuteOptions, depth: usize) -> Result<Option<Value>, ExecuteError> {
        let (lines, rust_start) = split_commands(code);
        let has_rust = !code[rust_start..].trim().is_empty();
        let mut shown = None;
        let (mut timed, mut opt_level) = (self.timing, None);
        for command in &lines {
            match command.name.as_str() {
                "%time" | "%%time" => timed = true,
                ":opt" if has_rust && !command.arguments.is_empty() => opt_level = Some(self.checked_level(command)?),
                _ => shown = self.run_command(command, options, depth)?.or(shown),
            }
            if self.shared.interrupted.load(Ordering::SeqCst) {
                return Err(interrupted("the command was stopped".into()));
            }
        }
        if !has_rust && !lines.iter().any(|command| command.name == ":dep") {
            return Ok(shown);
        }
        if let Some(level) = &opt_level {
            self.evcxr_command(&format!(":opt {level}"))?;
        }
        let start = Instant::now();
        let result = self.run_rust(code, has_rust);
        if opt_level.is_some() {
            let back = format!(":opt {}", self.opt_level);
            self.evcxr_command(&back)?;
        }
        if timed {
            self.tell_times(start.elapsed());
        }
        Ok(result?.or(shown))
    }

    fn checked_level(&self, command: &CommandLine) -> Result<String, ExecuteError> {
        match command.arguments.as_str() {
            level @ ("0" | "1" | "2" | "3") => Ok(level.to_owned()),
            other => Err(wrong_command(format!("`:opt {other}`: the levels are 0, 1, 2 and 3"))),
        }
    }

    fn tell_times(&self, total: Duration) {
        let builds = self.evaluator.compiler.compile_times();
        let compile: Duration = builds.iter().sum();
        let text = format!(
            "compile {:.3} s ({} build{}), load and run {:.3} s, total {:.3} s\n",
            compile.as_secs_f64(),
            builds.len(),
            if builds.len() == 1 { "" } else { "s" },
            total.saturating_sub(compile).as_secs_f64(),
            total.as_secs_f64()
        );
        self.evaluator.pipes.send(Output::Stdout(text));
    }

    /// Runs the Rust part of `code` through evcxr.
    fn run_rust(&mut self, code: &str, show: bool) -> Result<Option<Value>, ExecuteError> {
        let evaluator = Arc::clone(&self.evaluator);
        let (compiler, pipes) = (&evaluator.compiler, &evaluator.pipes);
        let number = self.shared.cell.load(Ordering::SeqCst);
        let unique = self.history.next_id();
        let cell = Cell::parse(code, unique, show.then(|| compiler.show_macro()));
        let rust = cell.rust.clone();
        let before: Vec<String> = self.stored_names();
        compiler.begin_cell(self.last_number, unique, cell);
        pipes.begin_run(unique);
        let prompter = Prompter::start(&self.shared, &evaluator, number);
        let result = std::panic::catch_unwind(AssertUnwindSafe(|| self.context.execute(&rust)));
        prompter.stop();
        let result = match result {
            Ok(result) => result,
            Err(_) => Err(Error::Message("evcxr itself panicked; see the kernel's log".into())),
        };
        *lock(&evaluator.child) = Some(self.context.process_handle());
        if matches!(result, Err(Error::SubprocessTerminated(_))) {
            pipes.wait_until_empty();
        } else if result.is_ok() && !compiler.compile_times().is_empty() {
            pipes.wait_for_end(Duration::from_secs(3));
        }
        let markers: HashSet<String> = self.context.variables_and_types().map(|(_, ty)| ty.to_owned()).collect();
        compiler.retain_variables(&markers);
        self.conclude(result, code, unique, &before)
    }

    fn conclude(
        &mut self,
        result: Result<evcxr::EvalOutputs, Error>,
        code: &str,
        unique: u64,
        before: &[String],
    ) -> Result<Option<Value>, ExecuteError> {
        let evaluator = Arc::clone(&self.evaluator);
        let (compiler, pipes) = (&evaluator.compiler, &evaluator.pipes);
        let places = Places::new(compiler.cells());
        let stopped = self.shared.interrupted.load(Ordering::SeqCst);
        let (mut error, mut panicking) = (None, None);
        for record in pipes.take_records() {
            let field = |index: usize| record.get(index).map_or("", String::as_str);
            match field(0) {
                "panicking" => panicking = Some(report::panic(field(1), field(2), field(3), field(4), "", &places)),
                "panic" => error = Some(report::panic(field(1), field(2), field(3), field(4), field(5), &places)),
                "error" => error = Some(report::failure(field(1), field(2), field(3), field(4), field(5), &places)),
                _ => {}
            }
        }
        match result {
            Ok(outputs) => {
                self.history.ran(code);
                compiler.tell_fleeting(unique);
                match error {
                    None => {
                        let shown = pipes.take_result();
                        Ok(shown.or_else(|| {
                            let content = &outputs.content_by_mime_type;
                            (!content.is_empty()).then(|| json!({"data": content, "metadata": {}}))
                        }))
                    }
                    Some(_) if stopped => Err(interrupted("stopped; all variables are kept".into())),
                    Some(error) => Err(error),
                }
            }
            Err(Error::SubprocessTerminated(how)) => {
                let mut report = self.died(&how, before);
                report.traceback.extend(
                    panicking.filter(|_| how.contains("SIGABRT")).into_iter().flat_map(|panic| panic.traceback),
                );
                Err(report)
            }
            Err(_) if stopped => {
                compiler.cell_failed();
                Err(interrupted("the compilation was stopped; all variables are kept".into()))
            }
            Err(Error::CompilationErrors(errors)) => {
                let diagnostics: Vec<Value> =
                    errors
                        .iter()
                        .map(|error| {
                            if error.json.is_null() { json!({"message": error.message()}) } else { error.json.clone() }
                        })
                        .collect();
                let fleeting = self.help_on_fleeting(&diagnostics);
                let mut report = report::compile_error(&diagnostics, &places);
                report.traceback.extend(fleeting);
                compiler.cell_failed();
                Err(report)
            }
            Err(other) => {
                compiler.cell_failed();
                let message = other.to_string().replace("error: no matching package named: ", "");
                Err(ExecuteError {
                    ename: "CompileError".into(),
                    evalue: message.lines().next().unwrap_or_default().to_owned(),
                    traceback: message.lines().map(str::to_owned).collect(),
                })
            }
        }
    }

    /// A name that is not found may be a variable that lived in an earlier cell only.
    fn help_on_fleeting(&self, diagnostics: &[Value]) -> Vec<String> {
        let mut help = Vec::new();
        for variable in self.evaluator.compiler.variables() {
            if let Type::Fleeting(reason) = &variable.ty
                && diagnostics.iter().any(|error| {
                    error["code"]["code"] == "E0425"
                        && error["message"].as_str().is_some_and(|text| text.contains(&format!("`{}`", variable.name)))
                })
            {
                help.push(format!("`{}` lived only in cell [{}]: {reason}.", variable.name, variable.cell));
            }
        }
        help
    }

    /// The process that ran the cell is gone.
    fn died(&self, how: &str, before: &[String]) -> ExecuteError {
        let tail = self.evaluator.pipes.error_tail();
        let ended = format!("the code ended its process with {}", how[how.find("exit status").unwrap_or(0)..].trim());
        let reason = match how {
            _ if self.shared.killed.load(Ordering::SeqCst) => {
                "the cell did not stop by itself, so its process was ended"
            }
            _ if tail.contains("has overflowed its stack") => {
                "stack overflow: the code needed more stack than there is (endless recursion?)"
            }
            _ if tail.contains("memory allocation of") => "out of memory: an allocation failed",
            _ if how.contains("SIGSEGV") => "segmentation fault: unsafe code touched memory that is not its own",
            _ if how.contains("SIGABRT") => "the code aborted its process (SIGABRT)",
            _ if how.contains("SIGKILL") => {
                "the process was killed (SIGKILL); the system does that when memory runs out"
            }
            _ if how.contains("SIGILL") => "illegal instruction",
            _ if how.contains("SIGFPE") => "arithmetic fault",
            _ if how.contains("SIGBUS") => "bus error",
            _ if how.contains("exit status") => &ended,
            _ => how.trim(),
        }
        .to_owned();
        let lost = match before {
            [] => "No variable was lost.".to_owned(),
            names => format!("Lost variables: {}.", names.join(", ")),
        };
        let kept = "Functions, types, imports and dependencies stay defined; the next cell runs in a new process.";
        let stopped = self.shared.killed.load(Ordering::SeqCst);
        let ename = if stopped { "Interrupted" } else { "Terminated" };
        ExecuteError {
            ename: ename.into(),
            evalue: format!("{reason}. {lost}"),
            traceback: vec![format!("\x1b[1;31m{ename}\x1b[0m: {reason}"), lost, kept.into()],
        }
    }

    /// The names of variables that the next cell can use.
    fn stored_names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.variables().into_iter().map(|(name, _)| name).collect();
        names.sort();
        names
    }

    /// Variables and their types.
    fn variables(&self) -> Vec<(String, String)> {
        let mut variables: Vec<(String, String)> = self
            .context
            .variables_and_types()
            .filter_map(|(name, ty)| match self.evaluator.compiler.variable(ty) {
                Some(variable) => match variable.ty {
                    Type::Known(ty) => Some((name.to_owned(), ty)),
                    _ => None,
                },
                None => Some((name.to_owned(), ty.to_owned())),
            })
            .collect();
        variables.sort();
        variables
    }

    fn evcxr_command(&mut self, line: &str) -> Result<Option<Value>, ExecuteError> {
        match self.context.execute(line) {
            Ok(outputs) if outputs.is_empty() => Ok(None),
            Ok(outputs) => Ok(Some(json!({"data": outputs.content_by_mime_type, "metadata": {}}))),
            Err(Error::CompilationErrors(errors)) => {
                let texts: Vec<String> = errors.iter().map(|error| error.message()).collect();
                Err(wrong_command(format!("`{line}`: {}", texts.join("\n"))))
            }
            Err(error) => Err(wrong_command(format!("`{line}`: {error}"))),
        }
    }

    fn run_command(
        &mut self,
        command: &CommandLine,
        options: &ExecuteOptions,
        depth: usize,
    ) -> Result<Option<Value>, ExecuteError> {
        let CommandLine { name, arguments, .. } = command;
        let evaluator = Arc::clone(&self.evaluator);
        let needs = |what: &str| {
            if arguments.is_empty() {
                Err(wrong_command(format!("`{name}` needs {what}")))
            } else {
                Ok(arguments.as_str())
            }
        };
        match name.as_str() {
            "!" => {
                let shared = &self.shared;
                let started = |group: Option<u32>| {
                    shared.shell.store(group.and_then(|id| id.try_into().ok()).unwrap_or(0), Ordering::SeqCst);
                };
                let path = evaluator.compiler.toolchain.original_path();
                commands::shell(arguments, &evaluator.pipes, path, started).map_err(|message| ExecuteError {
                    ename: "ShellError".into(),
                    evalue: message.clone(),
                    traceback: vec![message],
                })?;
                Ok(None)
            }
            ":help" | ":h" | ":?" => Ok(Some(commands::help())),
            ":vars" => Ok(Some(self.variables_table())),
            ":type" | ":t" => {
                let wanted = needs("the name of a variable")?;
                let found = self.variables().into_iter().find(|(name, _)| name == wanted);
                let (name, ty) = found.ok_or_else(|| wrong_command(format!("there is no variable `{wanted}`")))?;
                Ok(Some(json!({"data": {"text/plain": format!("{name}: {ty}")}, "metadata": {}})))
            }
            ":opt" => {
                if arguments.is_empty() {
                    let text = format!("cells are built at opt-level {}", self.opt_level);
                    return Ok(Some(json!({"data": {"text/plain": text}, "metadata": {}})));
                }
                self.opt_level = self.checked_level(command)?;
                self.evcxr_command(&format!(":opt {}", self.opt_level.clone()))
            }
            ":timing" => {
                self.timing = !self.timing;
                let text = if self.timing { "each cell's time is shown" } else { "times are not shown" };
                Ok(Some(json!({"data": {"text/plain": text}, "metadata": {}})))
            }
            ":dep" => self.add_dependency(needs("a crate: `:dep regex = \"1\"`")?),
            ":export" | ":save" => {
                let folder = PathBuf::from(needs("a folder")?);
                let written = self
                    .history
                    .export(&folder, evaluator.compiler.bundle.as_ref().map(|bundle| bundle.source.as_path()));
                let text = written.map_err(|error| wrong_command(format!("`{name} {arguments}`: {error:#}")))?;
                Ok(Some(json!({"data": {"text/plain": text}, "metadata": {}})))
            }
            ":load" => {
                if depth > 4 {
                    return Err(wrong_command("`:load` loads itself".into()));
                }
                let file = needs("a file")?;
                let cells = export::cells_of(file.as_ref())
                    .map_err(|error| wrong_command(format!("`:load {file}`: {error:#}")))?;
                let mut shown = None;
                for cell in cells {
                    shown = self.run_cell(&cell, options, depth + 1)?;
                }
                Ok(shown)
            }
            ":doc" => {
                let wanted = needs("a name")?;
                let found = super::analysis::inspect(&self.shared, wanted, wanted.chars().count(), 1);
                found.map(Some).ok_or_else(|| wrong_command(format!("nothing is known of `{wanted}`")))
            }
            ":clear" => {
                let shown = self.evcxr_command(":clear")?;
                *lock(&evaluator.child) = Some(self.context.process_handle());
                evaluator.compiler.forget_everything();
                self.history.clear();
                Ok(shown)
            }
            ":restart" => {
                let lost = self.stored_names();
                self.evcxr_command(":restart")?;
                *lock(&evaluator.child) = Some(self.context.process_handle());
                let lost = if lost.is_empty() {
                    "no variable was lost".to_owned()
                } else {
                    format!("lost: {}", lost.join(", "))
                };
                Ok(Some(json!({"data": {"text/plain": format!("a new process runs; {lost}")}, "metadata": {}})))
            }
            ":grace" => {
                let seconds: f64 = needs("seconds")?.parse().unwrap_or(-1.0);
                if !(0.0..=3600.0).contains(&seconds) {
                    return Err(wrong_command(format!("`:grace {arguments}`: give seconds between 0 and 3600")));
                }
                self.shared.grace_ms.store((seconds * 1000.0) as u64, Ordering::SeqCst);
                Ok(None)
            }
            ":offline" => {
                evaluator.compiler.set_offline(arguments == "1");
                self.evcxr_command(&format!(":offline {arguments}"))
            }
            ":quit" | ":q" => Err(wrong_command("use the frontend's shut-down to end the kernel".into())),
            ":toolchain"
            | ":linker"
            | ":codegen_backend"
            | ":allow_static_linking"
            | ":sccache"
            | ":cache"
            | ":clear_cache"
            | ":time_passes"
            | ":types"
            | ":fmt" => Err(wrong_command(format!(
                "`{name}` has no effect here: cells are built by rustc against the compiled library"
            ))),
            known if commands::is_passed_on(known) => self.evcxr_command(format!("{name} {arguments}").trim()),
            unknown => Err(wrong_command(match commands::nearest(unknown) {
                Some(near) => format!("there is no command `{unknown}`; did you mean `{near}`? `:help` lists all"),
                None => format!("there is no command `{unknown}`; `:help` lists all"),
            })),
        }
    }

    fn variables_table(&self) -> Value {
        let sizes = self.evaluator.pipes.sizes();
        let rows: Vec<Vec<String>> = self
            .variables()
            .into_iter()
            .map(|(name, ty)| {
                let size = sizes.get(&name).map_or_else(String::new, |&size| commands::bytes(size));
                vec![name, ty, size]
            })
            .collect();
        commands::table(&["Variable", "Type", "Size"], &rows)
    }

    /// `:dep`: crates that the library provides need nothing; others go to evcxr, and are built before the next Rust.
    fn add_dependency(&mut self, arguments: &str) -> Result<Option<Value>, ExecuteError> {
        let name = arguments.split(['=', ' ']).next().unwrap_or_default().trim();
        let bundle = self.evaluator.compiler.bundle.as_ref();
        if let Some((name, version)) = bundle.and_then(|bundle| {
            bundle.provides.iter().find(|(provided, _)| provided.replace('-', "_") == name.replace('-', "_"))
        }) {
            let text = format!("{name} {version} is part of the compiled library: nothing to build\n");
            self.evaluator.pipes.send(Output::Stdout(text));
            return Ok(None);
        }
        self.history.depends(arguments);
        let line = if arguments.starts_with(['/', '.']) || arguments.contains('=') {
            format!(":dep {arguments}")
        } else {
            format!(":dep {name} = \"*\"")
        };
        self.evcxr_command(&line)
    }
}

fn wrong_command(message: String) -> ExecuteError {
    ExecuteError { ename: "CommandError".into(), evalue: message.clone(), traceback: vec![message] }
}

fn interrupted(message: String) -> ExecuteError {
    ExecuteError {
        ename: "Interrupted".into(),
        evalue: message.clone(),
        traceback: vec![format!("\x1b[1;31mInterrupted\x1b[0m: {message}")],
    }
}

/// Watches a cell for reads of standard input and asks the frontend for a line.
struct Prompter {
    done: Arc<AtomicBool>,
}

impl Prompter {
    fn start(shared: &Arc<Shared>, evaluator: &Arc<Evaluator>, cell: u64) -> Prompter {
        let done = Arc::new(AtomicBool::new(false));
        let (shared, evaluator, finished) = (Arc::clone(shared), Arc::clone(evaluator), Arc::clone(&done));
        std::thread::spawn(move || {
            let over = || finished.load(Ordering::SeqCst) || shared.cell.load(Ordering::SeqCst) != cell;
            std::thread::sleep(Duration::from_millis(60));
            while !over() {
                let asked = match evaluator.pipes.take_prompt() {
                    Some(asked) => Some(asked),
                    None => evaluator
                        .child_id()
                        .filter(|&id| !evaluator.pipes.input_is_pending() && reads_input(id))
                        .map(|_| (String::new(), false)),
                };
                if let Some((prompt, password)) = asked
                    && !evaluator.pipes.ask(prompt, password, over)
                {
                    shared.interrupt();
                    return;
                }
                std::thread::sleep(Duration::from_millis(40));
            }
        });
        Prompter { done }
    }

    fn stop(self) {
        self.done.store(true, Ordering::SeqCst);
    }
}

/// Whether a thread of the process waits in `read(0, …)`.
fn reads_input(id: i32) -> bool {
    let read = if cfg!(target_arch = "x86_64") { "0 0x0 " } else { "63 0x0 " };
    let Ok(threads) = std::fs::read_dir(format!("/proc/{id}/task")) else { return false };
    threads
        .flatten()
        .any(|thread| std::fs::read_to_string(thread.path().join("syscall")).is_ok_and(|call| call.starts_with(read)))
}

/// Puts our links first on the PATH, where evcxr and rust-analyzer look for tools.
fn direct_evcxr_to(root: &std::path::Path) -> Result<()> {
    let bin = root.join("bin");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(std::iter::once(bin.clone()).chain(std::env::split_paths(&path)))?;
    std::fs::create_dir_all(root.join("evcxr"))?;
    // The evaluator's thread is the only one that reads these; the protocol side starts no processes.
    unsafe {
        std::env::set_var("PATH", path);
        std::env::set_var("CARGO", bin.join("cargo"));
        std::env::set_var("RUSTC", bin.join("rustc"));
        std::env::set_var(shim::SOCKET, root.join("shim.sock"));
        std::env::set_var("EVCXR_TMPDIR", root.join("evcxr"));
    }
    Ok(())
}

fn random() -> u128 {
    use std::hash::{BuildHasher, RandomState};
    (u128::from(RandomState::new().hash_one(0)) << 64) | u128::from(RandomState::new().hash_one(1))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
