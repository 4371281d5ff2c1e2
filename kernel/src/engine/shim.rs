//! How evcxr's calls of cargo, rustc and rustup come to us.
//!
//! evcxr finds these tools on the PATH. The kernel puts a folder first there in which they are links to its own binary; under such
//! a name the binary passes the call to the kernel over a socket and repeats its answer. So a cell is compiled by one rustc,
//! without cargo, and the questions that have fixed answers cost nothing.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Names the socket in the environment of evcxr's calls.
pub const SOCKET: &str = "WAVEMESH_SHIM";
/// The tools that are passed on.
pub const TOOLS: [&str; 4] = ["cargo", "rustc", "rustup", RECORDER];
/// The name under which cargo calls us for the cell's own rustc command.
pub const RECORDER: &str = "wavemesh-record-rustc";

/// A call of a tool.
#[derive(Serialize, Deserialize, Debug)]
pub struct Call {
    pub tool: String,
    pub args: Vec<String>,
    pub cwd: PathBuf,
}

/// The kernel's answer to a [`Call`].
#[derive(Serialize, Deserialize, Debug)]
pub enum Answer {
    /// Print this and exit.
    Done { stdout: String, stderr: String, code: i32 },
    /// Become the real tool.
    Become { program: PathBuf, args: Vec<String>, path: Option<String>, rustc: PathBuf },
}

impl Answer {
    pub fn ok(stdout: impl Into<String>) -> Answer {
        Answer::Done { stdout: stdout.into(), stderr: String::new(), code: 0 }
    }

    pub fn failed(stderr: impl Into<String>) -> Answer {
        Answer::Done { stdout: String::new(), stderr: stderr.into(), code: 1 }
    }
}

/// If this process was started under a tool's name, answers and never returns.
pub fn run_if_called() {
    let Some(socket) = std::env::var_os(SOCKET) else { return };
    let mut args = std::env::args_os();
    let called = args.next().map(PathBuf::from).unwrap_or_default();
    let name = called.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    if TOOLS.contains(&name.as_str()) {
        let code = pass_on(&socket, name, args.map(|arg| arg.to_string_lossy().into_owned()).collect());
        std::process::exit(code.unwrap_or_else(|error| {
            eprintln!("the kernel does not answer: {error}");
            1
        }));
    }
}

fn pass_on(socket: &OsString, tool: String, args: Vec<String>) -> std::io::Result<i32> {
    let mut stream = UnixStream::connect(socket)?;
    let mut call = serde_json::to_vec(&Call { tool, args, cwd: std::env::current_dir()? })?;
    call.push(b'\n');
    stream.write_all(&call)?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer)?;
    match serde_json::from_str(&answer)? {
        Answer::Done { stdout, stderr, code } => {
            std::io::stdout().write_all(stdout.as_bytes())?;
            std::io::stderr().write_all(stderr.as_bytes())?;
            Ok(code)
        }
        Answer::Become { program, args, path, rustc } => {
            let mut command = Command::new(program);
            command.args(args).env_remove(SOCKET).env_remove("CARGO").env("RUSTC", rustc);
            if let Some(path) = path {
                command.env("PATH", path);
            }
            Err(command.exec())
        }
    }
}

/// Makes the folder of links in `folder` and answers calls with `answer`, each on a thread of its own.
pub fn serve(folder: &Path, answer: Arc<dyn Fn(Call) -> Answer + Send + Sync>) -> std::io::Result<()> {
    let binary = std::env::current_exe()?;
    std::fs::create_dir_all(folder.join("bin"))?;
    for tool in TOOLS {
        std::os::unix::fs::symlink(&binary, folder.join("bin").join(tool))?;
    }
    let listener = UnixListener::bind(folder.join("shim.sock"))?;
    std::thread::Builder::new().name("tools".into()).spawn(move || {
        for stream in listener.incoming().flatten() {
            let answer = Arc::clone(&answer);
            std::thread::spawn(move || {
                if let Err(error) = serve_one(stream, &*answer) {
                    super::pipes::log(&format!("a call of a tool was not answered: {error}"));
                }
            });
        }
    })?;
    Ok(())
}

fn serve_one(stream: UnixStream, answer: &(dyn Fn(Call) -> Answer + Send + Sync)) -> std::io::Result<()> {
    let mut call = String::new();
    BufReader::new(&stream).read_line(&mut call)?;
    let mut bytes = serde_json::to_vec(&answer(serde_json::from_str(&call)?))?;
    bytes.push(b'\n');
    (&stream).write_all(&bytes)
}
