//! The grammar of cells: which lines are commands, which are Rust, and which commands exist.
//!
//! [`table`] lists the commands; the code that runs them, `:help`, completion and the Python relay all read it. [`split`] takes a cell
//! apart; the code that runs it, `is_complete`, `:export` and `:load` see the same parts. [`program`] knows which of a cell's items are
//! meant to be run.

mod completeness;
mod delimiters;
pub mod program;
mod split;
pub mod table;

pub use completeness::{Completeness, is_complete};
pub use delimiters::{Delimiters, Misplaced};
pub use split::{CommandLine, Part, Timed, is_nothing, only, parts, question, rust_of};
