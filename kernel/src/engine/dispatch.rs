//! Carries out commands. The table of commands is in [`grammar::table`](super::grammar::table).

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Pid;
use serde_json::{Value, json};

use super::compiler::plain_names;
use super::grammar::CommandLine;
use super::grammar::program::{Program, Test};
use super::grammar::table::{self, Action};
use super::report;
use super::session::Session;
use super::{ExecuteError, ExecuteOptions, commands, export};

impl Session {
    /// Runs one command; returns what it displays.
    pub fn run_command(
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
        let Some(action) = command.action() else { return Err(unknown(name)) };
        match action {
            Action::Shell => {
                let shared = &self.shared;
                let started = |group: Option<Pid>| shared.set_shell(group);
                match commands::shell(arguments, &evaluator.pipes, started) {
                    _ if shared.interrupted() => {
                        Err(report::interrupted("the command was stopped; all variables are kept".into(), None))
                    }
                    Ok(()) => Ok(None),
                    Err(message) => Err(ExecuteError {
                        ename: "ShellError".into(),
                        evalue: message.clone(),
                        traceback: vec![message],
                    }),
                }
            }
            Action::Help if arguments.is_empty() => Ok(Some(commands::help())),
            Action::Help => match commands::help_of(arguments) {
                Some(help) => Ok(Some(help)),
                None => Err(wrong_command(format!(
                    "there is no command `{arguments}`; `:help` lists all, and `?{arguments}` shows what is known of a Rust name"
                ))),
            },
            Action::Test => self.run_tests(arguments),
            Action::Variables => Ok(Some(self.variables_table())),
            Action::Type => {
                let wanted = needs("the name of a variable")?;
                let found = evaluator.compiler.stored_variables().into_iter().find(|(name, _)| name == wanted);
                let (name, ty) = found.ok_or_else(|| wrong_command(format!("there is no variable `{wanted}`")))?;
                Ok(Some(plain(&format!("{name}: {}", plain_names(&ty)))))
            }
            Action::OptLevel => {
                if arguments.is_empty() {
                    let text = format!("cells are built at opt-level {}", self.opt_level);
                    return Ok(Some(json!({"data": {"text/plain": text}, "metadata": {}})));
                }
                self.opt_level = self.checked_level(command)?;
                Ok(None)
            }
            Action::Timing => {
                self.timing = !self.timing;
                let text = if self.timing { "each cell's time is shown" } else { "times are not shown" };
                Ok(Some(json!({"data": {"text/plain": text}, "metadata": {}})))
            }
            Action::Dependency => self.add_dependency(needs("a crate: `:dep regex = \"1\"`")?),
            Action::Export => {
                let folder = PathBuf::from(needs("a folder")?);
                let compiler = &evaluator.compiler;
                let notebook = export::Notebook {
                    items: compiler.program(),
                    dependencies: compiler.dependency_lines(),
                    library: compiler.bundle.as_ref().map(|bundle| bundle.source.as_path()),
                };
                let written = self.history.export(&folder, &notebook);
                let text = written.map_err(|error| wrong_command(format!("`{name} {arguments}`: {error:#}")))?;
                Ok(Some(json!({"data": {"text/plain": text}, "metadata": {}})))
            }
            Action::Load => {
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
            Action::Document => {
                let wanted = needs("a name")?;
                let found = evaluator.assistant.inspect(wanted, wanted.chars().count(), 1);
                found
                    .map(|data| Some(json!({"data": data, "metadata": {}})))
                    .ok_or_else(|| wrong_command(format!("nothing is known of `{wanted}`")))
            }
            Action::Clear => {
                self.restart()?;
                evaluator.compiler.forget_everything();
                self.history.clear();
                self.configured = false;
                Ok(None)
            }
            Action::Configure => self.configure(options).map(|()| None),
            Action::Restart => {
                let lost = self.restart()?;
                let lost = if lost.is_empty() {
                    "no variable was lost".to_owned()
                } else {
                    format!("lost: {}", lost.join(", "))
                };
                Ok(Some(json!({"data": {"text/plain": format!("a new process runs; {lost}")}, "metadata": {}})))
            }
            Action::Grace => {
                let seconds: f64 = needs("seconds")?.parse().unwrap_or(-1.0);
                if !(0.0..=3600.0).contains(&seconds) {
                    return Err(wrong_command(format!("`:grace {arguments}`: give seconds between 0 and 3600")));
                }
                self.shared.set_grace(Duration::from_secs_f64(seconds));
                Ok(None)
            }
            Action::Offline => {
                match needs("0 or 1")? {
                    "0" => evaluator.compiler.set_offline(false),
                    "1" => evaluator.compiler.set_offline(true),
                    other => return Err(wrong_command(format!("`:offline {other}`: give 0 or 1"))),
                }
                Ok(None)
            }
            Action::Version => {
                let rustc = evaluator.compiler.toolchain.version.lines().next().unwrap_or_default();
                Ok(Some(plain(&format!("wavemesh-kernel {}, {rustc}", env!("CARGO_PKG_VERSION")))))
            }
            Action::ShowDependencies => Ok(Some(plain(&evaluator.compiler.dependency_lines().join("\n")))),
            Action::Explain => self.explain(arguments),
            Action::Environment => {
                let (key, value) = assignment(name, needs("KEY=VALUE")?)?;
                self.runner.set_env(key, value);
                Ok(None)
            }
            Action::BuildEnvironment => {
                let (key, value) = assignment(name, needs("KEY=VALUE")?)?;
                evaluator.compiler.set_build_env(key, value);
                Ok(None)
            }
            Action::CompileFolder => Ok(Some(plain(&evaluator.compiler.folder.display().to_string()))),
            // The caller measures the time of the cell.
            Action::Time | Action::TimeOften | Action::Nothing => Ok(None),
            Action::Refused(reason) => Err(wrong_command(format!("`{name}` {reason}"))),
        }
    }

    fn variables_table(&self) -> Value {
        let stored = self.evaluator.pipes.stored();
        let rows: Vec<Vec<String>> = self
            .evaluator
            .compiler
            .stored_variables()
            .into_iter()
            .map(|(name, ty)| {
                let (shape, size) = stored.get(&name).map_or_else(Default::default, |variable| {
                    (variable.shape.clone(), commands::bytes(variable.bytes))
                });
                vec![name, plain_names(&ty), shape, size]
            })
            .collect();
        commands::table(&["Variable", "Type", "Shape", "Size"], &rows)
    }

    /// `:dep`: adds crates; those that the library does not hold are built before the next Rust code.
    fn add_dependency(&mut self, arguments: &str) -> Result<Option<Value>, ExecuteError> {
        let wanted = self.evaluator.compiler.add_dependency(arguments);
        wanted.map_err(|error| wrong_command(format!("`:dep {arguments}`: {error}")))?;
        Ok(None)
    }

    /// `:test`: runs the tests of all cells, or those whose path contains `name`.
    fn run_tests(&mut self, name: &str) -> Result<Option<Value>, ExecuteError> {
        let all = self.evaluator.compiler.tests();
        let wanted: Vec<Test> = all.iter().filter(|test| test.path.contains(name)).cloned().collect();
        match (all.is_empty(), wanted.is_empty()) {
            (true, _) => Err(wrong_command(
                "`:test`: the notebook has no tests; a function with `#[test]` above it is one".into(),
            )),
            (_, true) => {
                let names: Vec<String> = all.iter().map(|test| format!("`{}`", test.path)).collect();
                Err(wrong_command(format!(
                    "`:test {name}`: no test has that in its name; there are {}",
                    names.join(", ")
                )))
            }
            _ => self.run_program(Program { tests: wanted, ..Program::default() }),
        }
    }

    /// rustc's explanation of an error code, or of the last compile error.
    fn explain(&self, code: &str) -> Result<Option<Value>, ExecuteError> {
        let is_code = |code: &&str| code.starts_with('E') && code.len() == 5 && code[1..].parse::<u16>().is_ok();
        let code = if code.is_empty() {
            let last = self.last_error.as_deref().filter(is_code);
            last.ok_or_else(|| wrong_command("`:explain`: no compile error with a code has come yet".into()))?
        } else {
            Some(code)
                .filter(is_code)
                .ok_or_else(|| wrong_command(format!("`:explain {code}`: give a code like E0308")))?
        };
        let mut rustc = self.evaluator.compiler.toolchain.quiet("rustc");
        let output = rustc.args(["--explain", code]).stdout(std::process::Stdio::piped()).output();
        let output = output.map_err(|error| wrong_command(format!("`:explain`: rustc did not start: {error}")))?;
        if !output.status.success() {
            return Err(wrong_command(format!("`:explain {code}`: rustc knows no error with this code")));
        }
        Ok(Some(plain(String::from_utf8_lossy(&output.stdout).trim())))
    }
}

/// Text as a MIME bundle.
fn plain(text: &str) -> Value {
    json!({"data": {"text/plain": text}, "metadata": {}})
}

fn assignment<'a>(command: &str, text: &'a str) -> Result<(&'a str, &'a str), ExecuteError> {
    let parts = text.split_once('=').map(|(name, value)| (name.trim(), value.trim()));
    parts
        .filter(|(name, _)| !name.is_empty() && !text.contains('\0'))
        .ok_or_else(|| wrong_command(format!("`{command} {text}`: give KEY=VALUE")))
}

pub fn wrong_command(message: String) -> ExecuteError {
    ExecuteError { ename: "CommandError".into(), evalue: message.clone(), traceback: vec![message] }
}

fn unknown(name: &str) -> ExecuteError {
    let near = table::nearest(name).map(|near| format!("; did you mean `{near}`?"));
    let magic = if name.starts_with('%') { " (magics of IPython are not known to the Rust kernel)" } else { "" };
    let hint = near.unwrap_or_else(|| ";".to_owned());
    wrong_command(format!("there is no command `{name}`{magic}{hint} `:help` lists all"))
}
