//! Errors in readable form: rustc's diagnostics on the lines that the user wrote, panics and failures with a backtrace that starts in the
//! user's cell, and what was lost when a process ended.

mod death;
mod diagnostics;
mod failure;
mod hints;
mod places;

pub use death::{Killer, death};
pub use diagnostics::{bracket_error, compile_error, warnings};
pub use failure::{Spot, failure, innermost, interrupted, other_panic, panic, spot, stuck};
pub use places::Places;

const BOLD_RED: &str = "\x1b[1;31m";
const DIM: &str = "\x1b[2m";
const CYAN: &str = "\x1b[36m";
const RESET: &str = "\x1b[0m";
