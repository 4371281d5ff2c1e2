//! What each command does. The table of commands is in [`grammar::table`](super::grammar::table).

use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use evcxr::Error;
use rustix::process::Pid;
use serde_json::{Value, json};

use super::grammar::CommandLine;
use super::grammar::table::{self, Action};
use super::session::Session;
use super::{ExecuteError, ExecuteOptions, Output, commands, export};

impl Session {
    pub fn evcxr_command(&mut self, line: &str) -> Result<Option<Value>, ExecuteError> {
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

    /// Runs one command; returns what it shows.
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
                let started = |group: Option<Pid>| {
                    *shared.shell.lock().unwrap_or_else(PoisonError::into_inner) = group;
                };
                let path = evaluator.compiler.toolchain.original_path();
                commands::shell(arguments, &evaluator.pipes, path, started).map_err(|message| ExecuteError {
                    ename: "ShellError".into(),
                    evalue: message.clone(),
                    traceback: vec![message],
                })?;
                Ok(None)
            }
            Action::Help => Ok(Some(commands::help())),
            Action::Variables => Ok(Some(self.variables_table())),
            Action::Type => {
                let wanted = needs("the name of a variable")?;
                let found = evaluator.compiler.stored_variables().into_iter().find(|(name, _)| name == wanted);
                let (name, ty) = found.ok_or_else(|| wrong_command(format!("there is no variable `{wanted}`")))?;
                Ok(Some(json!({"data": {"text/plain": format!("{name}: {ty}")}, "metadata": {}})))
            }
            Action::OptLevel => {
                if arguments.is_empty() {
                    let text = format!("cells are built at opt-level {}", self.opt_level);
                    return Ok(Some(json!({"data": {"text/plain": text}, "metadata": {}})));
                }
                self.opt_level = self.checked_level(command)?;
                self.evcxr_command(&format!(":opt {}", self.opt_level.clone()))
            }
            Action::Timing => {
                self.timing = !self.timing;
                let text = if self.timing { "each cell's time is shown" } else { "times are not shown" };
                Ok(Some(json!({"data": {"text/plain": text}, "metadata": {}})))
            }
            Action::Dependency => self.add_dependency(needs("a crate: `:dep regex = \"1\"`")?),
            Action::Export => {
                let folder = PathBuf::from(needs("a folder")?);
                let written = self
                    .history
                    .export(&folder, evaluator.compiler.bundle.as_ref().map(|bundle| bundle.source.as_path()));
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
                let shown = self.evcxr_command(":clear")?;
                evaluator.set_child(self.context.process_handle());
                evaluator.compiler.forget_everything();
                self.history.clear();
                Ok(shown)
            }
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
                evaluator.compiler.set_offline(arguments == "1");
                self.evcxr_command(&format!(":offline {arguments}"))
            }
            Action::Version => {
                let evcxr = self
                    .evcxr_command(name)?
                    .and_then(|shown| Some(shown["data"]["text/plain"].as_str()?.trim().to_owned()));
                let rustc = evaluator.compiler.toolchain.version.lines().next().unwrap_or_default();
                let text = format!(
                    "wavemesh-kernel {}, evcxr {}, {rustc}",
                    env!("CARGO_PKG_VERSION"),
                    evcxr.unwrap_or_default()
                );
                Ok(Some(json!({"data": {"text/plain": text}, "metadata": {}})))
            }
            Action::Evcxr => self.evcxr_command(format!("{name} {arguments}").trim()),
            // The cell is timed by whoever runs it.
            Action::Time | Action::Nothing => Ok(None),
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
                let size = stored.get(&name).map_or_else(String::new, |variable| commands::bytes(variable.bytes));
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

pub fn wrong_command(message: String) -> ExecuteError {
    ExecuteError { ename: "CommandError".into(), evalue: message.clone(), traceback: vec![message] }
}

fn unknown(name: &str) -> ExecuteError {
    let near = table::nearest(name).map(|near| format!("; did you mean `{near}`?"));
    let magic = if name.starts_with('%') { " (magics of IPython are not known to the Rust kernel)" } else { "" };
    let hint = near.unwrap_or_else(|| ";".to_owned());
    wrong_command(format!("there is no command `{name}`{magic}{hint} `:help` lists all"))
}
