//! The kernel's one binary: the Jupyter kernel, its commands, and the process that runs user code.

mod cli;
#[allow(clippy::enum_variant_names)]
#[allow(dead_code, reason = "the contract with the protocol side is wider than the first evaluator")]
mod engine;
mod jupyter;

use std::process::ExitCode;

fn main() -> ExitCode {
    // Does not return when this process is one of evcxr's helpers.
    evcxr::runtime_hook();
    cli::main()
}
