//! The kernel's handle on the process that runs cells: it sends what to load and call, and waits until that is done.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};

use super::child::DONE;

/// A running process.
pub struct Runner {
    command: Command,
    process: Arc<Mutex<Child>>,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
}

/// The process has ended; the text says how, in the system's words.
pub struct Ended(pub String);

impl Runner {
    /// Starts `command`; [`restart`](Self::restart) starts it again.
    pub fn start(mut command: Command) -> Result<Runner> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let (process, requests, answers) = spawn(&mut command)?;
        Ok(Runner { command, process, requests, answers })
    }

    /// The process, for sending signals.
    pub fn process(&self) -> Arc<Mutex<Child>> {
        Arc::clone(&self.process)
    }

    /// Sets an environment variable for later processes.
    pub fn set_env(&mut self, name: &str, value: &str) {
        self.command.env(name, value);
    }

    /// Calls a function of a library and waits until it has ended.
    pub fn run(&mut self, library: &str, function: &str) -> std::result::Result<(), Ended> {
        let sent = writeln!(self.requests, "{library}\t{function}").and_then(|()| self.requests.flush());
        let mut line = String::new();
        if sent.is_ok() && self.answers.read_line(&mut line).is_ok() && line.trim_end() == DONE {
            return Ok(());
        }
        let mut process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        // A process that does not answer is over; it must be dead before another one replaces it.
        let how = process.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
        Err(Ended(how))
    }

    /// Ends the process and starts another.
    pub fn restart(&mut self) -> Result<()> {
        {
            let mut process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
            let _ = process.kill();
            let _ = process.wait();
        }
        let (process, requests, answers) = spawn(&mut self.command)?;
        (self.process, self.requests, self.answers) = (process, requests, answers);
        Ok(())
    }
}

type Started = (Arc<Mutex<Child>>, ChildStdin, BufReader<ChildStdout>);

fn spawn(command: &mut Command) -> Result<Started> {
    let mut child = command.spawn().context("the process that runs cells did not start")?;
    let requests = child.stdin.take().context("the process that runs cells has no input")?;
    let answers = child.stdout.take().context("the process that runs cells has no output")?;
    Ok((Arc::new(Mutex::new(child)), requests, BufReader::new(answers)))
}
