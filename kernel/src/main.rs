//! The kernel's one program: it is the Jupyter kernel, its commands, and the process that runs user code.

#![cfg_attr(not(test), deny(clippy::unwrap_used))]

mod cli;
mod engine;
mod jupyter;

use std::process::ExitCode;

fn main() -> ExitCode {
    engine::run_helper();
    cli::main()
}
