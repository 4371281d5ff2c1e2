//! `doctor`: checks whether this machine has everything that a cell needs, from the outside in; the last check runs a cell.

use std::io::Write;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::kernelspec::{self, Found};
use crate::engine::gpu::{Gpu, System};
use crate::engine::library::Bundle;
use crate::engine::{EngineHandle, ExecuteOptions, Output};

/// What is wrong, and how to mend it.
struct Trouble {
    what: String,
    mend: String,
}

type Check = fn() -> Result<String, Trouble>;

/// How long the test cell may take; the first cell waits while the compiler's files are read from disk.
const CELL: Duration = Duration::from_secs(120);

const CHECKS: [(&str, Check); 7] = [
    ("Rust toolchain", toolchain),
    ("linker", linker),
    ("documentation", documentation),
    ("Jupyter", jupyter),
    ("kernelspec", kernelspec),
    ("compiled library", library),
    ("a cell, end to end", cell),
];

/// Makes every check, reports each, and fails if one fails. With `mend` it first repairs the kernelspec.
pub fn examine(mend: bool) -> ExitCode {
    println!("wavemesh-kernel {}", env!("CARGO_PKG_VERSION"));
    let mut failures = 0;
    if mend
        && kernelspec().is_err()
        && let Err(error) = kernelspec::mend()
    {
        println!("The kernelspec cannot be put right: {error:#}");
    }
    for (name, check) in CHECKS {
        print!("  {name:<20} ");
        let _ = std::io::stdout().flush();
        failures += tell(check());
    }
    let gpu = gpu();
    let checks = CHECKS.len() + usize::from(gpu.is_some());
    if let Some(found) = gpu {
        print!("  {:<20} ", "GPU");
        failures += tell(found);
    }
    if failures == 0 {
        println!("Everything works.");
        ExitCode::SUCCESS
    } else {
        println!("{failures} of {checks} checks failed; mend the first one first.");
        ExitCode::FAILURE
    }
}

/// Prints what a check found; returns the number of failures (0 or 1).
fn tell(found: Result<String, Trouble>) -> usize {
    match found {
        Ok(detail) => println!("ok    {detail}"),
        Err(Trouble { what, mend }) => {
            println!("FAIL  {}", what.trim_end().replace('\n', "\n                             "));
            println!("  {:<20} ->    {mend}", "");
            return 1;
        }
    }
    0
}

fn trouble(what: impl Into<String>, mend: impl Into<String>) -> Trouble {
    Trouble { what: what.into(), mend: mend.into() }
}

/// The first line that a program prints, or what went wrong.
fn first_line(program: &str, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(program).args(arguments).output().map_err(|error| format!("{program}: {error}"))?;
    if !output.status.success() {
        return Err(format!("{program} failed: {}", String::from_utf8_lossy(&output.stderr).trim()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().to_string())
}

fn toolchain() -> Result<String, Trouble> {
    let wanted = env!("CARGO_PKG_RUST_VERSION");
    let install = format!("install Rust {wanted} or newer from https://rustup.rs, or run `bash kernel/setup.sh`");
    first_line("cargo", &["--version"]).map_err(|what| trouble(what, &install))?;
    let rustc = first_line("rustc", &["--version"]).map_err(|what| trouble(what, &install))?;
    let version = rustc.split_whitespace().nth(1).unwrap_or_default();
    let number = |text: &str| -> Vec<u32> { text.split(['.', '-']).map_while(|part| part.parse().ok()).collect() };
    if number(version) < number(wanted) {
        return Err(trouble(format!("{rustc} is older than {wanted}"), install));
    }
    Ok(rustc)
}

/// Compiles and runs the smallest program.
fn linker() -> Result<String, Trouble> {
    let mend = "install a C linker: on Debian and Ubuntu `sudo apt-get install build-essential`";
    let folder = tempfile::tempdir()
        .map_err(|error| trouble(format!("no temporary folder: {error}"), "set TMPDIR to a folder you may write to"))?;
    let (source, program) = (folder.path().join("hello.rs"), folder.path().join("hello"));
    std::fs::write(&source, "fn main() { println!(\"linked\"); }").map_err(|error| {
        trouble(format!("{}: {error}", source.display()), "free some space, or set TMPDIR to another folder")
    })?;
    let (source, program) = (source.to_string_lossy(), program.to_string_lossy());
    first_line("rustc", &[&source, "-o", &program]).map_err(|what| trouble(what, mend))?;
    let answer = first_line(&program, &[]).map_err(|what| {
        trouble(what, "temporary files cannot be run here; set TMPDIR to a folder that is not mounted noexec")
    })?;
    if answer == "linked" {
        Ok("rustc links and runs a program".into())
    } else {
        Err(trouble(format!("a linked program printed {answer:?}"), mend))
    }
}

/// rustdoc tells completion and inspection what the crates offer.
fn documentation() -> Result<String, Trouble> {
    let mend = "install Rust with rustup (https://rustup.rs), whose toolchains have rustdoc; cells work without it";
    first_line("rustdoc", &["--version"]).map_err(|what| trouble(what, mend))
}

fn jupyter() -> Result<String, Trouble> {
    let found = first_line("jupyter", &["kernelspec", "--version"]).map_err(|what| {
        trouble(what, "install JupyterLab (`pip install jupyterlab`), or run `bash kernel/setup.sh`, which makes an environment of its own")
    })?;
    Ok(format!("jupyter_client {found}"))
}

fn kernelspec() -> Result<String, Trouble> {
    let mend = "wavemesh-kernel doctor --mend";
    let found = kernelspec::find_all();
    let Some(Found { folder, spec, is_ours }) = found.first() else {
        return Err(trouble(format!("Jupyter does not know the kernel `{}` of WaveMesh", kernelspec::NAME), mend));
    };
    if !is_ours {
        let what = format!(
            "Jupyter's kernel `{}` is {:?} of another program, in {}",
            kernelspec::NAME,
            spec.display_name,
            folder.display()
        );
        return Err(trouble(what, mend));
    }
    let program = spec.argv.first().map(String::as_str).unwrap_or_default();
    let version = first_line(program, &["--version"]).map_err(|what| {
        trouble(format!("{} starts {program:?}, which does not run: {what}", folder.display()), mend)
    })?;
    if version != format!("wavemesh-kernel {}", env!("CARGO_PKG_VERSION")) {
        return Err(trouble(format!("{} starts {program}, which is {version}", folder.display()), mend));
    }
    if !Path::new(program).is_absolute() {
        return Err(trouble(format!("{} starts {program:?}, which depends on PATH", folder.display()), mend));
    }
    Ok(folder.display().to_string())
}

/// How to get the library for cells, in a checkout or after `cargo install`. Cells of plain Rust work without it.
const LIBRARY: &str = "in a checkout of WaveMesh run `bash kernel/setup.sh`, or `wavemesh-kernel library build --source .`; \
                       without it cells are plain Rust";

/// Compiles a cell against the library for cells.
fn library() -> Result<String, Trouble> {
    let found = crate::engine::library::check().map_err(|error| trouble(format!("{error:#}"), LIBRARY))?;
    Ok(found.lib_dir().display().to_string())
}

/// What can use the NVIDIA GPU or, if nothing can, why. `None` if there is neither a driver nor a library for GPUs.
fn gpu() -> Option<Result<String, Trouble>> {
    let system = System::here();
    let driver = system.driver();
    let Some(bundle) = Bundle::for_gpus() else {
        let hint = "cells do not use it: `bash kernel/setup.sh --cuda` compiles the library for it, and so does \
                    the wheel that `bash kernel/package.sh --cuda` makes";
        return Some(Ok(format!("{}; {hint}", driver?)));
    };
    let driver = driver.unwrap_or_else(|| "a driver that does not tell its version".into());
    match system.examine(&bundle.needs) {
        Gpu::Ready(_) => {
            let place = |name: &String| Some(format!("{name} in {}", system.find(name)?.display()));
            let libraries: Vec<String> = bundle.needs.iter().filter_map(place).collect();
            Some(Ok(format!("{driver}; {}; cells use it, unless WAVEMESH_DEVICE=cpu", libraries.join(", "))))
        }
        Gpu::Absent => None,
        Gpu::Unusable(why) => {
            Some(Err(trouble(format!("{driver}: {why}"), "until then cells compute on the processor")))
        }
    }
}

/// What to know about a cell that ran without the library.
const PLAIN: &str = " in plain Rust; there is no compiled library: run `wavemesh-kernel library build --source FOLDER`";

/// Runs one cell in a new evaluator: a value, a print, and the library if there is one.
fn cell() -> Result<String, Trouble> {
    let (list, device) = match Bundle::find() {
        Some(_) => (
            "Tensor::arange(0f32, 4f32, &best_device()?)?.to_vec1::<f32>()?",
            "format!(\" on {}\", backend_info().device)",
        ),
        None => ("[0.0, 1.0, 2.0, 3.0]", "\"\""),
    };
    let code = format!("println!(\"{{:?}}{{}}\", {list}, {device});\n6 * 7");
    let begun = Instant::now();
    let engine = EngineHandle::start();
    let printed = Arc::new(Mutex::new(String::new()));
    let collected = printed.clone();
    let sink = Arc::new(move |output| {
        if let Output::Stdout(text) | Output::Stderr(text) = output {
            collected.lock().unwrap_or_else(PoisonError::into_inner).push_str(&text);
        }
    });
    let (sender, receiver) = std::sync::mpsc::channel();
    let running = engine.clone();
    std::thread::spawn(move || {
        let _ = sender.send(running.execute(&code, ExecuteOptions::default(), sink));
    });
    let outcome = receiver.recv_timeout(CELL);
    engine.shutdown();
    let mend =
        "mend what is above first; then run `bash kernel/setup.sh` again, which builds the library for cells again";
    match outcome {
        Err(_) => Err(trouble(format!("no answer within {} s", CELL.as_secs()), mend)),
        Ok(Err(error)) => {
            Err(trouble(format!("{}: {}\n{}", error.ename, error.evalue, error.traceback.join("\n")), mend))
        }
        Ok(Ok(result)) => {
            let value =
                result.data.as_ref().and_then(|data| data.pointer("/data/text~1plain")?.as_str().map(String::from));
            if value.as_deref() != Some("42") {
                return Err(trouble(format!("6 * 7 gave {value:?}"), mend));
            }
            let printed = printed.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(device) = printed.trim().strip_prefix("[0.0, 1.0, 2.0, 3.0]") else {
                return Err(trouble(format!("{list} printed {printed:?}"), mend));
            };
            let place = if device.is_empty() { PLAIN } else { device };
            Ok(format!("first answer after {:.1} s{place}", begun.elapsed().as_secs_f64()))
        }
    }
}
