//! The thread that owns evcxr and runs cells, one after the other.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use anyhow::Result;
use evcxr::{CommandContext, Error, EvalContext};
use serde_json::{Value, json};
use wavemesh_cell::protocol::Report;

use super::cell::Cell;
use super::compiler::Compiler;
use super::dispatch::wrong_command;
use super::environment::Environment;
use super::grammar::table::Action;
use super::grammar::{self, CommandLine, Part};
use super::library::Bundle;
use super::pipes::{Pipes, log};
use super::prompter::Prompter;
use super::report::{self, Killer, Places};
use super::shared::{Evaluator, Shared};
use super::toolchain::Toolchain;
use super::weave::{Type, Variable};
use super::{ExecuteError, ExecuteOptions, ExecuteResult, Output, Request, Sink, backtrace, child, export, shim};

/// Starts the evaluator's thread.
pub fn spawn(requests: Receiver<Request>, shared: Arc<Shared>, environment: Result<Environment>) {
    let thread = std::thread::Builder::new().name("evaluator".into()).stack_size(64 << 20);
    let spawned = thread.spawn(move || {
        let mut session = environment.and_then(|environment| Session::start(&shared, environment));
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

/// One notebook's evaluator, in the thread that runs its cells.
pub struct Session {
    pub shared: Arc<Shared>,
    pub evaluator: Arc<Evaluator>,
    pub context: CommandContext,
    pub opt_level: String,
    pub timing: bool,
    last_number: u32,
    /// The code of cells that ran, for `:export`.
    pub history: export::History,
}

impl Session {
    fn start(shared: &Arc<Shared>, Environment { folder, path }: Environment) -> Result<Session> {
        let root = folder.path().to_owned();
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
        pipes.tell_panics_by(Box::new(move |thread, panic| {
            report::other_panic(thread, panic, &Places::new(telling.cells()))
        }));
        let answering = Arc::clone(&compiler);
        shim::serve(&root, Arc::new(move |call| answering.answer(call)))?;

        let mut libraries: Vec<PathBuf> = vec![compiler.toolchain.std_library()?, compiler.runtime.clone()];
        libraries.extend(compiler.bundle.iter().map(Bundle::file));
        let command = child::prepare(pipes.child_ends(), &libraries, &token, path)?;
        let nobody: Sink = Arc::new(|_| {});
        pipes.begin_cell(Arc::clone(&nobody), false);
        let (context, _outputs) =
            EvalContext::with_subprocess_command(command).map_err(|error| anyhow::anyhow!("{error}"))?;
        let mut context = CommandContext::with_eval_context(context);
        let evaluator = Evaluator::new(compiler, pipes, context.process_handle(), folder);
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
        shared.started(Arc::clone(&evaluator));
        evaluator.assistant.learn();
        Ok(session)
    }

    fn execute(&mut self, code: &str, options: &ExecuteOptions, sink: Sink) -> Result<ExecuteResult, ExecuteError> {
        self.last_number = options.execution_count;
        self.shared.begin_cell();
        self.evaluator.pipes.begin_cell(sink, options.allow_stdin);
        // A fault of evcxr or of ours costs this cell, not the kernel.
        let result = std::panic::catch_unwind(AssertUnwindSafe(|| {
            self.run_cell(code, options, 0).map(|data| ExecuteResult {
                data: data.filter(|_| !options.silent),
                user_expressions: self.user_expressions(&options.user_expressions),
            })
        }));
        let result = result.unwrap_or_else(|_| Err(fault()));
        if !self.shared.end_cell() {
            return result;
        }
        // Its process was ended when the code had run already, so evcxr does not know: the next cell needs a new one.
        let lost = self.restart()?;
        Err(report::death("", "", Killer::Kernel, &lost))
    }

    /// Starts a new process; answers the names of the variables that are lost with the old one.
    pub fn restart(&mut self) -> Result<Vec<String>, ExecuteError> {
        let lost = self.stored_names();
        self.evcxr_command(":restart")?;
        self.evaluator.set_child(self.context.process_handle());
        self.evaluator.compiler.lose_all();
        Ok(lost)
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
        let last_rust = parts.iter().rposition(is_rust);
        let mut shown = None;
        let (mut timed, mut opt_level) = (self.timing, None);
        for (index, part) in parts.iter().enumerate() {
            let is_above_rust = last_rust.is_some_and(|last| index < last);
            match part {
                Part::Command(command) => match command.action() {
                    Some(Action::Time) => timed = true,
                    Some(Action::OptLevel) if is_above_rust && !command.arguments.is_empty() => {
                        opt_level = Some(self.checked_level(command)?);
                    }
                    Some(Action::Dependency) => {
                        shown = self.run_command(command, options, depth)?.or(shown);
                        if !parts[index..].iter().any(is_rust) {
                            self.run_rust("", false)?;
                        }
                    }
                    _ => shown = self.run_command(command, options, depth)?.or(shown),
                },
                Part::Rust { range, timed: line_is_timed } => {
                    let source = grammar::only(code, range.clone());
                    let show = Some(index) == last_rust || *line_is_timed;
                    let result = self.run_rust_at(opt_level.as_deref(), &source, show, timed || *line_is_timed)?;
                    // Of several values that of the last is the cell's.
                    shown = result.or(shown);
                }
            }
            if self.shared.interrupted() {
                return Err(interrupted("stopped; all variables are kept".into()));
            }
        }
        Ok(shown)
    }

    /// Runs Rust, for this once at another level of optimisation if one is given.
    fn run_rust_at(
        &mut self,
        opt_level: Option<&str>,
        source: &str,
        show: bool,
        timed: bool,
    ) -> Result<Option<Value>, ExecuteError> {
        if let Some(level) = opt_level {
            self.evcxr_command(&format!(":opt {level}"))?;
        }
        let start = Instant::now();
        let result = self.run_rust(source, show);
        if opt_level.is_some() {
            let back = format!(":opt {}", self.opt_level);
            self.evcxr_command(&back)?;
        }
        if timed {
            self.tell_times(start.elapsed());
        }
        result
    }

    pub fn checked_level(&self, command: &CommandLine) -> Result<String, ExecuteError> {
        match command.arguments.as_str() {
            level @ ("0" | "1" | "2" | "3") => Ok(level.to_owned()),
            other => Err(wrong_command(format!("`:opt {other}`: the levels are 0, 1, 2 and 3"))),
        }
    }

    /// Where the time of a cell went. What is not told by rustc or the child is evcxr's analysis and ours.
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

    /// Runs the Rust part of `code` through evcxr.
    fn run_rust(&mut self, code: &str, show: bool) -> Result<Option<Value>, ExecuteError> {
        let evaluator = Arc::clone(&self.evaluator);
        let (compiler, pipes) = (&evaluator.compiler, &evaluator.pipes);
        let number = self.shared.cell();
        let unique = self.history.next_id();
        let mut cell = Cell::parse(code, unique, show.then(|| compiler.show_macro()));
        let rust = std::mem::take(&mut cell.rust);
        let before: Vec<String> = self.stored_names();
        let oom_kills = oom_kills();
        compiler.begin_cell(self.last_number, unique, cell);
        let (result, reports) = loop {
            pipes.begin_run(unique);
            let prompter = Prompter::start(&self.shared, &evaluator, number);
            let result = self.context.execute(&rust);
            prompter.stop();
            evaluator.set_child(self.context.process_handle());
            if matches!(result, Err(Error::SubprocessTerminated(_))) {
                pipes.wait_until_empty();
            } else if result.is_ok() && !compiler.builds().is_empty() {
                pipes.wait_for_end(Duration::from_secs(6));
            }
            let reports = pipes.take_reports();
            if result.is_err() || !self.lose_variables(&reports) {
                break (result, reports);
            }
        };
        if compiler.take_new_dependencies() {
            evaluator.assistant.learn();
        }
        self.conclude(result, reports, code, &before, oom_kills)
    }

    /// The store says before a cell's code starts that variables which it wants are lost. True if so: the cell has not run then.
    fn lose_variables(&self, reports: &[Report]) -> bool {
        let lost = reports.iter().filter_map(|report| match report {
            Report::Lost { name, reason } => Some((name.as_str(), reason)),
            _ => None,
        });
        let names: Vec<&str> = lost.clone().map(|(name, _)| name).collect();
        self.evaluator.compiler.lose(&names);
        for (name, reason) in lost {
            self.evaluator.pipes.send(Output::Stderr(format!("note: `{name}` is lost: {reason}.\n")));
        }
        !names.is_empty()
    }

    fn conclude(
        &mut self,
        result: Result<evcxr::EvalOutputs, Error>,
        reports: Vec<Report>,
        code: &str,
        before: &[String],
        oom_kills_before: u64,
    ) -> Result<Option<Value>, ExecuteError> {
        let evaluator = Arc::clone(&self.evaluator);
        let (compiler, pipes) = (&evaluator.compiler, &evaluator.pipes);
        let places = Places::new(compiler.cells());
        let stopped = self.shared.interrupted();
        let (mut error, mut panicking) = (None, None);
        for report in reports {
            match report {
                Report::Panicking(panic) => panicking = Some(report::panic(&panic, "", &places)),
                Report::Panicked { panic, frames } => {
                    error = Some(report::panic(&panic, &backtrace::text(&frames), &places));
                }
                Report::Failed { message, type_name, place } => {
                    error = Some(report::failure(&message, &type_name, &place, &places));
                }
                _ => {}
            }
        }
        match result {
            Ok(outputs) => {
                self.history.ran(code);
                compiler.cell_ran(error.is_none());
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
                compiler.lose_all();
                let killer = match () {
                    () if self.shared.take_killed() => Killer::Kernel,
                    () if oom_kills() > oom_kills_before => Killer::OutOfMemory,
                    () => Killer::Unknown,
                };
                let mut report = report::death(&how, &pipes.error_tail(), killer, before);
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

    /// A name that is not found may be a variable that is gone.
    fn help_on_fleeting(&self, diagnostics: &[Value]) -> Vec<String> {
        let mut help = Vec::new();
        for Variable { name, cell, ty, .. } in self.evaluator.compiler.variables() {
            let told = match ty {
                Type::Fleeting(reason) => format!("`{name}` lived only in cell [{cell}]: {reason}."),
                Type::Moved(by) => {
                    format!(
                        "`{name}` was moved away in cell [{by}]. To keep it, pass `&{name}` or `{name}.clone()` there."
                    )
                }
                Type::Redefined(by) => format!("`{name}` is lost, because cell [{by}] defines its type anew."),
                Type::Pending | Type::Known(_) => continue,
            };
            if diagnostics.iter().any(|error| {
                error["code"]["code"] == "E0425"
                    && error["message"].as_str().is_some_and(|text| text.contains(&format!("`{name}`")))
            }) {
                help.push(told);
            }
        }
        help
    }

    /// The names of variables that the next cell can use.
    pub fn stored_names(&self) -> Vec<String> {
        self.evaluator.compiler.stored_variables().into_iter().map(|(name, _)| name).collect()
    }
}

fn fault() -> ExecuteError {
    let evalue = "the evaluator itself panicked; the kernel's log says where".to_owned();
    ExecuteError { ename: "KernelError".into(), traceback: vec![evalue.clone()], evalue }
}

fn interrupted(message: String) -> ExecuteError {
    ExecuteError {
        ename: "Interrupted".into(),
        evalue: message.clone(),
        traceback: vec![format!("\x1b[1;31mInterrupted\x1b[0m: {message}")],
    }
}

/// How many processes the system has ended because memory ran out, containers included.
fn oom_kills() -> u64 {
    let counters = std::fs::read_to_string("/proc/vmstat").unwrap_or_default();
    counters.lines().find_map(|line| line.strip_prefix("oom_kill ")?.parse().ok()).unwrap_or(0)
}

fn random() -> u128 {
    use std::hash::{BuildHasher, RandomState};
    (u128::from(RandomState::new().hash_one(0)) << 64) | u128::from(RandomState::new().hash_one(1))
}
