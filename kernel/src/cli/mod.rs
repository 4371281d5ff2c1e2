//! The commands of `wavemesh-kernel`.

mod cells;
mod doctor;
mod kernelspec;
mod toolchain;
mod uninstall;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::engine::library::LibraryCommand;

/// A Rust kernel for Jupyter.
#[derive(Parser)]
#[command(name = "wavemesh-kernel", version, about, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make the kernel "Rust (WaveMesh)" known to Jupyter
    Install {
        #[command(flatten)]
        place: Place,
        /// Overwrite a kernelspec of this name that another program installed
        #[arg(long)]
        replace: bool,
    },
    /// Take the kernel out of Jupyter again, if `install` put it there, and remove what it compiled and remembered
    Uninstall {
        #[command(flatten)]
        place: Place,
    },
    /// Check everything that a cell needs, from the compiler to a cell that runs, and say how to mend what fails
    Doctor {
        /// Put the kernelspec right, if it is missing or another program's
        #[arg(long)]
        mend: bool,
    },
    /// The compiled library against which cells are built
    Library {
        #[command(subcommand)]
        command: LibraryCommand,
    },
    /// Write the code of a notebook's cells, in order, as Rust text
    CellsFromNotebook {
        /// The notebook (.ipynb)
        notebook: PathBuf,
        /// Write here instead of to standard output
        #[arg(long, short)]
        output: Option<PathBuf>,
    },
    /// Serve one notebook; this is what Jupyter calls
    Run {
        /// The file in which Jupyter says where to listen
        #[arg(long, short = 'f')]
        connection_file: PathBuf,
    },
}

/// Where a kernelspec lives.
#[derive(Args)]
struct Place {
    /// For this user only (the default)
    #[arg(long, conflicts_with_all = ["sys_prefix", "prefix"])]
    user: bool,
    /// For the active Python environment
    #[arg(long, conflicts_with = "prefix")]
    sys_prefix: bool,
    /// Below this folder, in share/jupyter/kernels
    #[arg(long, value_name = "FOLDER")]
    prefix: Option<PathBuf>,
    /// The name of the kernelspec
    #[arg(long, default_value = kernelspec::NAME)]
    name: String,
}

/// Runs the command of the process's arguments. Must be called before the process has other threads.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    toolchain::put_on_path();
    let done = match arguments.command {
        Command::Install { place, replace } => kernelspec::install(&place, replace),
        Command::Uninstall { place } => uninstall::run(&place),
        Command::Library { command } => command.run(),
        Command::Doctor { mend } => return doctor::examine(mend),
        Command::CellsFromNotebook { notebook, output } => cells::write(&notebook, output.as_deref()),
        Command::Run { connection_file } => crate::jupyter::run(&connection_file),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("wavemesh-kernel: {error:#}");
            ExitCode::FAILURE
        }
    }
}
