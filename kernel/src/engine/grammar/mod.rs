//! The grammar of cells: which lines are commands, which are Rust, and which commands there are.
//!
//! [`table`] lists the commands; running them, `:help`, completion and the Python relay take what they know from there. [`split`] takes
//! a cell apart; running it, `is_complete`, `:export` and `:load` see the same parts. [`program`] knows what of a cell's items is meant
//! to be run.

mod completeness;
mod delimiters;
pub mod program;
mod split;
pub mod table;

pub use completeness::{Completeness, is_complete};
pub use delimiters::{Delimiters, Misplaced};
pub use split::{CommandLine, Part, Timed, is_nothing, only, parts, question, rust_of};
