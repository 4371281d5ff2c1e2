//! The thread that owns the notebook and runs its cells, one after the other.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use wavemesh_cell::protocol::Report;

use super::compiler::{Compiler, Failed, Object, Order};
use super::deps::Named;
use super::dispatch::wrong_command;
use super::grammar::program::Program;
use super::grammar::table::Action;
use super::grammar::{self, CommandLine, Part, Timed};
use super::library::Bundle;
use super::pipes::{Pipes, log};
use super::prompter::Prompter;
use super::report::{self, Killer, Places, Spot};
use super::runner::{Ended, Runner};
use super::shared::{Evaluator, Shared};
use super::temporary::Folder;
use super::toolchain::Toolchain;
use super::variables::{State as VariableState, Variable};
use super::{ExecuteError, ExecuteOptions, ExecuteResult, Output, Request, Sink, backtrace, child, export, startup};

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

/// The evaluator of one notebook, in the thread that runs its cells.
pub struct Session {
    pub shared: Arc<Shared>,
    pub evaluator: Arc<Evaluator>,
    pub runner: Runner,
    pub opt_level: String,
    pub timing: bool,
    /// Whether the user's configuration has run.
    pub configured: bool,
    last_number: u32,
    /// The code of the last compile error, for `:explain`.
    pub last_error: Option<String>,
    /// The code of cells that ran, for `:export`.
    pub history: export::History,
}

impl Session {
    fn start(shared: &Arc<Shared>) -> Result<Session> {
        let folder = Folder::new().context("cannot make a temporary folder")?;
        let bundle = Bundle::find();
        let toolchain = match &bundle {
            Some(bundle) => bundle.toolchain.clone(),
            None => Toolchain::discover()?,
        };
        let token = format!("{:032x}", random());
        let pipes = Pipes::new(&token)?;
        let compiler = Arc::new(Compiler::new(toolchain, bundle, folder.path().to_owned(), Arc::clone(&pipes))?);
        let telling = Arc::clone(&compiler);
        pipes.tell_panics_by(Box::new(move |thread, panic| {
            report::other_panic(thread, panic, &Places::new(telling.runs()))
        }));
        let mut libraries: Vec<PathBuf> = vec![compiler.toolchain.std_library()?, compiler.runtime.clone()];
        libraries.extend(compiler.bundle.iter().map(Bundle::file));
        let nobody: Sink = Arc::new(|_| {});
        pipes.begin_cell(nobody, false);
        let mut command = child::prepare(pipes.child_ends(), &libraries, &token)?;
        child::lead_to_gpu(&mut command, compiler.bundle.as_ref())?;
        let runner = Runner::start(command)?;
        let evaluator = Evaluator::new(compiler, pipes, runner.process(), folder);
        let session = Session {
            shared: Arc::clone(shared),
            evaluator: Arc::clone(&evaluator),
            runner,
            opt_level: "0".into(),
            timing: false,
            configured: false,
            last_number: 0,
            last_error: None,
            history: export::History::default(),
        };
        shared.started(Arc::clone(&evaluator));
        evaluator.assistant.learn(&Named::default());
        Ok(session)
    }

    fn execute(&mut self, code: &str, options: &ExecuteOptions, sink: Sink) -> Result<ExecuteResult, ExecuteError> {
        self.last_number = options.execution_count;
        self.shared.begin_cell();
        self.evaluator.pipes.begin_cell(sink, options.allow_stdin);
        // A bug in the kernel fails this cell, but does not end the kernel.
        let result = std::panic::catch_unwind(AssertUnwindSafe(|| {
            if !self.configured {
                self.configure(options)?;
            }
            self.run_cell(code, options, 0).map(|data| ExecuteResult {
                data: data.filter(|_| !options.silent),
                user_expressions: self.user_expressions(&options.user_expressions),
            })
        }));
        let result = result.unwrap_or_else(|_| Err(fault()));
        if !self.shared.end_cell() {
            return result;
        }
        // The process was killed after the code had already run: the next cell needs a new one.
        let lost = self.restart()?;
        Err(report::death("", "", Killer::Kernel, None, &lost))
    }

    /// Runs what the user keeps for every notebook. A failure there prints a line, and the cell still runs.
    pub fn configure(&mut self, options: &ExecuteOptions) -> Result<(), ExecuteError> {
        self.configured = true;
        let notebook = std::env::current_dir().unwrap_or_default();
        for piece in startup::pieces(&notebook, startup::folder().as_deref()) {
            let ran = piece.and_then(|piece| {
                let ran = self.run_cell(&piece.code, options, 1);
                ran.map(drop).map_err(|error| startup::told(&piece.file, &error.evalue))
            });
            if self.shared.interrupted() {
                return Err(report::interrupted("stopped; all variables are kept".into(), None));
            }
            if let Err(message) = ran {
                self.evaluator.pipes.send(Output::Stderr(format!("{message}\n")));
            }
        }
        Ok(())
    }

    /// Starts a new process. Returns the names of the variables that were lost with the old one.
    pub fn restart(&mut self) -> Result<Vec<String>, ExecuteError> {
        let lost = self.stored_names();
        self.runner.restart().map_err(|error| wrong_command(format!("{error:#}")))?;
        self.evaluator.set_child(self.runner.process());
        self.evaluator.compiler.lose_all(self.last_number);
        Ok(lost)
    }

    fn user_expressions(&mut self, expressions: &BTreeMap<String, String>) -> BTreeMap<String, Value> {
        let mut values = BTreeMap::new();
        for (name, expression) in expressions {
            let opt_level = self.opt_level.clone();
            let how = How { show: true, ..How::apart(&opt_level) };
            let ran = self.run_rust(expression, &how, &Origin::default());
            let value = match ran {
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

    /// Runs the parts of a cell, in order. Returns the value to show.
    pub fn run_cell(
        &mut self,
        code: &str,
        options: &ExecuteOptions,
        depth: usize,
    ) -> Result<Option<Value>, ExecuteError> {
        let stored = self.stored_names();
        let parts = grammar::parts(code, &|name| stored.iter().any(|known| known == name));
        let is_rust = |part: &Part| matches!(part, Part::Rust { .. });
        let is_dependency =
            |part: &Part| matches!(part, Part::Command(command) if command.action() == Some(Action::Dependency));
        // If brackets do not match, nothing of the cell runs, unless the cell belongs to another kernel.
        let is_refused = |part: &Part| matches!(part, Part::Command(command) if matches!(command.action(), None | Some(Action::Refused(_))));
        if !parts.iter().any(is_refused) {
            let mut errors = parts.iter().filter_map(|part| match part {
                Part::Rust { range, .. } => report::bracket_error(code, range.clone(), self.last_number),
                Part::Command(_) => None,
            });
            errors.next().map_or(Ok(()), Err)?;
        }
        let last_rust = parts.iter().rposition(is_rust);
        let mut shown = None;
        let mut ran = 0;
        let (mut timed, mut repeat, mut opt_level) = (self.timing, false, self.opt_level.clone());
        for (index, part) in parts.iter().enumerate() {
            let is_above_rust = last_rust.is_some_and(|last| index < last);
            match part {
                Part::Command(command) => match command.action() {
                    Some(Action::Time) => timed = true,
                    Some(Action::TimeOften) => repeat = true,
                    Some(Action::OptLevel) if is_above_rust && !command.arguments.is_empty() => {
                        opt_level = self.checked_level(command)?;
                    }
                    Some(Action::Dependency) => {
                        shown = self.run_command(command, options, depth)?.or(shown);
                        // All crates of a cell are built together, before the Rust code after them.
                        if !parts[index + 1..].iter().any(|part| is_rust(part) || is_dependency(part)) {
                            self.run_rust("", &How::apart(&opt_level), &Origin::default())?;
                        }
                    }
                    _ => shown = self.run_command(command, options, depth)?.or(shown),
                },
                Part::Rust { range, timed: of_line } => {
                    let source = grammar::only(code, range.clone());
                    let how = How {
                        show: Some(index) == last_rust || *of_line != Timed::No,
                        repeat: repeat || *of_line == Timed::Often,
                        kept: true,
                        ..How::apart(&opt_level)
                    };
                    // Definitions in cells of a loaded file do not belong to the cell that loads it.
                    let origin = if depth == 0 { Origin::of(options, ran) } else { Origin::default() };
                    ran += 1;
                    let start = Instant::now();
                    let result = self.run_rust(&source, &how, &origin);
                    if timed || *of_line == Timed::Once {
                        self.tell_times(start.elapsed());
                    }
                    // If several pieces have a value, that of the last is the cell's.
                    shown = result?.or(shown);
                }
            }
            if self.shared.interrupted() {
                return Err(report::interrupted("stopped; all variables are kept".into(), None));
            }
        }
        Ok(shown)
    }

    pub fn checked_level(&self, command: &CommandLine) -> Result<String, ExecuteError> {
        match command.arguments.as_str() {
            level @ ("0" | "1" | "2" | "3") => Ok(level.to_owned()),
            other => Err(wrong_command(format!("`:opt {other}`: the levels are 0, 1, 2 and 3"))),
        }
    }

    /// Prints how long each step of a cell took. Time that neither rustc nor the child reports counts as analysis.
    fn tell_times(&self, total: Duration) {
        let builds = self.evaluator.compiler.builds();
        let rustc: Duration = builds.iter().map(|build| build.rustc).sum();
        let link: Duration = builds.iter().map(|build| build.link).sum();
        let (load, run) = self.evaluator.pipes.times();
        let analysis = total.saturating_sub(rustc + link + load + run);
        let text = format!(
            "total {:.3} s: analysis {:.3} s, rustc {:.3} s ({} build{}), link {:.3} s, load {:.3} s, run {:.3} s\n",
            total.as_secs_f64(),
            analysis.as_secs_f64(),
            rustc.as_secs_f64(),
            builds.len(),
            if builds.len() == 1 { "" } else { "s" },
            link.as_secs_f64(),
            load.as_secs_f64(),
            run.as_secs_f64(),
        );
        self.evaluator.pipes.send(Output::Stdout(text));
    }

    /// Compiles and runs the Rust part of `code`. Returns the value to show.
    fn run_rust(&mut self, code: &str, how: &How, origin: &Origin) -> Result<Option<Value>, ExecuteError> {
        let evaluator = Arc::clone(&self.evaluator);
        let compiler = &evaluator.compiler;
        let compiled = compiler.compile(&Order {
            source: code,
            number: self.last_number,
            id: self.history.next_id(),
            opt_level: how.opt_level,
            show: how.show,
            repeat: how.repeat,
            program: &how.program,
            cell: origin.cell.as_deref(),
            deleted: &origin.deleted,
            // Their names are read while they are linked and the cell is compiled.
            crates_compiled: &|named| evaluator.assistant.learn(named),
        });
        match compiled {
            Ok(None) => {
                if how.kept {
                    self.history.ran(code);
                }
                Ok(None)
            }
            Ok(Some(object)) => self.run_object(&object, how.kept.then_some(code)),
            Err(failed) => Err(self.not_compiled(failed)),
        }
    }

    /// Runs a program that is not part of a cell.
    pub fn run_program(&mut self, program: Program) -> Result<Option<Value>, ExecuteError> {
        self.run_rust("", &How { program, ..How::apart(&self.opt_level.clone()) }, &Origin::default())
    }

    fn run_object(&mut self, object: &Object, kept: Option<&str>) -> Result<Option<Value>, ExecuteError> {
        let evaluator = Arc::clone(&self.evaluator);
        let (compiler, pipes) = (&evaluator.compiler, &evaluator.pipes);
        let before = self.stored_names();
        let oom_kills_before = oom_kills();
        pipes.begin_run(object.run);
        if !self.shared.begin_run(object.run) {
            self.shared.end_run();
            return Err(report::interrupted("the cell was stopped before it ran; all variables are kept".into(), None));
        }
        let prompter = Prompter::start(&self.shared, &evaluator, self.shared.cell());
        let ended = self.runner.run(&object.library.to_string_lossy(), &object.function);
        self.shared.end_run();
        prompter.stop();
        match &ended {
            Ok(()) => pipes.wait_for_end(Duration::from_secs(6)),
            Err(_) => pipes.wait_until_empty(),
        }
        let reports = pipes.take_reports();
        let places = Places::new(compiler.runs());
        let stopped = self.shared.interrupted();
        let (mut error, mut panicking, mut left, mut going_on) = (None, None, None, Vec::new());
        for report in &reports {
            match report {
                Report::Panicking(panic) => panicking = Some(report::panic(panic, "", &places)),
                Report::Panicked { panic, frames } => {
                    error = Some(report::panic(panic, &backtrace::text(frames), &places));
                }
                Report::Failed { message, type_name, place } => {
                    error = Some(report::failure(message, type_name, place, &places));
                }
                Report::Stopped => error = Some(report::interrupted(STOPPED.into(), None)),
                Report::Left { frames } => left = Some(frames),
                Report::GoesOn { process, command } => going_on.push(format!("`{command}` (process {process})")),
                _ => {}
            }
        }
        let Err(Ended(how)) = ended else {
            kept.into_iter().for_each(|code| self.history.ran(code));
            compiler.cell_ran(&reports, error.is_none() && left.is_none());
            let going_on = match &going_on[..] {
                [] => String::new(),
                processes => format!("; still running: {}", processes.join(", ")),
            };
            if let Some(frames) = left {
                let spot = report::innermost(&backtrace::text(frames), &places);
                let message = format!("{}{going_on}", self.told_of_leaving(spot.as_ref()));
                return Err(report::interrupted(message, spot));
            }
            return match error {
                None => Ok(pipes.take_result()),
                Some(_) if stopped => Err(report::interrupted(format!("{STOPPED}{going_on}"), None)),
                Some(error) => Err(error),
            };
        };
        compiler.lose_all(self.last_number);
        let killer = match () {
            () if self.shared.take_killed() => Killer::Kernel,
            () if oom_kills() > oom_kills_before => Killer::OutOfMemory,
            () => Killer::Unknown,
        };
        let crashed = reports.iter().find_map(|report| match report {
            // A panic that must not unwind aborts at another place.
            Report::Panicking(panic) if how.contains("SIGABRT") => report::spot(&panic.place, &places),
            Report::Crashed { frames } => report::innermost(&backtrace::text(frames), &places),
            _ => None,
        });
        let mut report = report::death(&how, &pipes.error_tail(), killer, crashed, &before);
        report
            .traceback
            .extend(panicking.filter(|_| how.contains("SIGABRT")).into_iter().flat_map(|panic| panic.traceback));
        if let Err(error) = self.runner.restart() {
            report.traceback.push(format!("No new process could be started: {error:#}"));
        }
        evaluator.set_child(self.runner.process());
        Err(report)
    }

    /// Says what was lost when a cell did not notice the stop.
    fn told_of_leaving(&self, spot: Option<&Spot>) -> String {
        let is_lost = |variable: &Variable| matches!(variable.state, VariableState::Lost(cell, _) | VariableState::Moved(cell) if cell == self.last_number);
        let variables = self.evaluator.compiler.variables();
        let lost: Vec<String> = variables
            .iter()
            .filter(|variable| is_lost(variable))
            .map(|variable| format!("`{}`", variable.name))
            .collect();
        let lost = match &lost[..] {
            [] => "no variable is lost".to_owned(),
            names => format!("lost are the variables that it used: {}", names.join(", ")),
        };
        let items = self.evaluator.compiler.items();
        let anew =
            if items.iter().any(|item| item.contains("thread_local!")) { "; thread locals start again" } else { "" };
        let at = spot.map_or_else(String::new, |spot| format!(" at {}", spot.name));
        format!("the cell did not notice the stop, so its thread was left behind{at}; {lost}{anew}")
    }

    fn not_compiled(&mut self, failed: Failed) -> ExecuteError {
        if self.shared.interrupted() {
            return report::interrupted("the compilation was stopped; all variables are kept".into(), None);
        }
        let mut report = match failed {
            Failed::Interrupted => {
                return report::interrupted("the compilation was stopped; all variables are kept".into(), None);
            }
            Failed::Refused(mut diagnostics, part) => {
                self.tell_of_gone(&mut diagnostics);
                let places = Places::of(self.evaluator.compiler.runs(), part);
                let mut report = report::compile_error(&diagnostics, &places);
                report.traceback.extend(self.help_on_names(&diagnostics));
                self.last_error = Some(report.ename.clone());
                report
            }
            Failed::Other(message) => ExecuteError {
                ename: "CompileError".into(),
                evalue: message.lines().next().unwrap_or_default().to_owned(),
                traceback: message.lines().map(str::to_owned).collect(),
            },
        };
        if self.evaluator.compiler.library_was_replaced() {
            report
                .traceback
                .push("The compiled library was rebuilt after this kernel started: restart the kernel.".into());
        }
        report
    }

    /// Corrects rustc's advice about a variable that is gone: rustc may find a module or function of the same name in the library's
    /// prelude, and suggest that.
    fn tell_of_gone(&self, diagnostics: &mut [Value]) {
        let variables = self.evaluator.compiler.variables();
        let gone: Vec<String> = variables.into_iter().filter_map(|one| one.told().map(|_| one.name)).collect();
        for error in diagnostics.iter_mut().filter(|error| error["code"]["code"] == "E0423") {
            let message = error["message"].as_str().unwrap_or_default();
            if let Some(name) = gone.iter().find(|name| message.contains(&format!("`{name}`"))) {
                error["message"] = format!("cannot find value `{name}` in this scope").into();
                error["code"]["code"] = "E0425".into();
                error["children"] = Value::Array(Vec::new());
            }
        }
    }

    /// Explains unknown names: one may be a variable that is gone, or a stale item.
    fn help_on_names(&self, diagnostics: &[Value]) -> Vec<String> {
        let unknown = ["E0405", "E0412", "E0422", "E0423", "E0425", "E0432", "E0433", "E0531", "E0599"];
        let named = |name: &str| {
            diagnostics.iter().any(|error| {
                let code = error["code"]["code"].as_str();
                let message = error["message"].as_str().unwrap_or_default();
                (code.is_some_and(|code| unknown.contains(&code)) || code.is_none() && message.contains("cannot find"))
                    && message.contains(&format!("`{name}`"))
            })
        };
        let compiler = &self.evaluator.compiler;
        let variables = compiler.variables();
        let gone = variables.iter().filter(|variable| named(&variable.name)).filter_map(|variable| variable.told());
        let left_out = compiler.left_out();
        let stale =
            left_out.iter().filter(|left| left.names.iter().any(|name| named(name))).map(|left| left.told_on_use());
        gone.chain(stale).collect()
    }

    /// The names of variables that the next cell can use.
    pub fn stored_names(&self) -> Vec<String> {
        self.evaluator.compiler.stored_variables().into_iter().map(|(name, _)| name).collect()
    }
}

/// How to run a piece of Rust.
struct How<'a> {
    /// Whether to show the value at its end.
    show: bool,
    /// Whether it runs many times, to be timed.
    repeat: bool,
    opt_level: &'a str,
    /// What else runs after it.
    program: Program,
    /// Whether `:export` includes it.
    kept: bool,
}

impl How<'_> {
    /// For code that is not part of the notebook.
    fn apart(opt_level: &str) -> How<'_> {
        How { show: false, repeat: false, opt_level, program: Program::default(), kept: false }
    }
}

/// The frontend's cell that a piece of Rust belongs to.
#[derive(Default)]
struct Origin {
    cell: Option<String>,
    deleted: Vec<String>,
}

impl Origin {
    /// The origin of a piece of a cell; `before` is the number of its pieces that ran already.
    fn of(options: &ExecuteOptions, before: usize) -> Origin {
        let part = |id: &String| if before == 0 { id.clone() } else { format!("{id}#{before}") };
        let deleted = if before == 0 { options.deleted.clone() } else { Vec::new() };
        Origin { cell: options.cell.as_ref().map(part), deleted }
    }
}

fn fault() -> ExecuteError {
    let evalue = "the evaluator itself panicked; the kernel's log says where".to_owned();
    ExecuteError { ename: "KernelError".into(), traceback: vec![evalue.clone()], evalue }
}

const STOPPED: &str = "stopped; what was done before is kept";

/// How many processes the system has killed because memory ran out, also in containers.
fn oom_kills() -> u64 {
    let counters = std::fs::read_to_string("/proc/vmstat").unwrap_or_default();
    counters.lines().find_map(|line| line.strip_prefix("oom_kill ")?.parse().ok()).unwrap_or(0)
}

fn random() -> u128 {
    use std::hash::{BuildHasher, RandomState};
    (u128::from(RandomState::new().hash_one(0)) << 64) | u128::from(RandomState::new().hash_one(1))
}
