//! The end of the process that runs cells: why, and what it cost.

use super::{BOLD_RED, RESET, Spot};
use crate::engine::{ExecuteError, commands};

/// Who ended a process with SIGKILL.
#[derive(Clone, Copy, PartialEq)]
pub enum Killer {
    /// The kernel itself, because the cell did not stop.
    Kernel,
    /// The system, because memory ran out.
    OutOfMemory,
    Unknown,
}

/// The error for a process that ended while it ran the cell. `how` is the system's description, `tail` the end of its standard error,
/// `crashed` the place of the signal, and `before` the variables that existed.
pub fn death(how: &str, tail: &str, killer: Killer, crashed: Option<Spot>, before: &[String]) -> ExecuteError {
    let reason = match how {
        _ if killer == Killer::Kernel => "the cell did not stop by itself, so its process was ended".to_owned(),
        _ if tail.contains("has overflowed its stack") => {
            "stack overflow: the code needed more stack than there is (endless recursion?)".to_owned()
        }
        _ if tail.contains("memory allocation of") => {
            // Take the first message: printing the report may run out of memory as well.
            let bytes =
                tail.split("memory allocation of ").nth(1).and_then(|rest| rest.split(' ').next()?.parse().ok());
            let asked = bytes.map_or_else(String::new, |bytes| format!(" of {}", commands::bytes(bytes)));
            format!("out of memory: an allocation{asked} failed")
        }
        _ if how.contains("SIGKILL") && killer == Killer::OutOfMemory => {
            "out of memory: the system ended the process, because all memory was in use".to_owned()
        }
        _ if how.contains("SIGKILL") => {
            "the process was killed from outside (SIGKILL); containers do that too when memory runs out".to_owned()
        }
        _ if how.contains("SIGSEGV") => "segmentation fault: unsafe code touched memory that is not its own".to_owned(),
        _ if how.contains("SIGABRT") => "the code aborted its process (SIGABRT)".to_owned(),
        _ if how.contains("SIGILL") => "illegal instruction".to_owned(),
        _ if how.contains("SIGFPE") => "arithmetic fault".to_owned(),
        _ if how.contains("SIGBUS") => "bus error".to_owned(),
        _ => match how.find("exit status") {
            Some(at) => format!("the code ended its process with {}", how[at..].trim()),
            None => how.trim().to_owned(),
        },
    };
    let at = crashed.as_ref().map_or_else(String::new, |spot| format!(" at {}", spot.name));
    let lost = match before {
        [] => "No variable was lost.".to_owned(),
        names => format!("Lost variables: {}.", names.join(", ")),
    };
    let kept = "Functions, types, imports and dependencies stay defined; the next cell runs in a new process.";
    let ename = if killer == Killer::Kernel { "Interrupted" } else { "Terminated" };
    let mut traceback = vec![format!("{BOLD_RED}{ename}{RESET}{at}: {reason}")];
    traceback.extend(crashed.and_then(|spot| spot.line));
    traceback.extend([lost.clone(), kept.into()]);
    ExecuteError { ename: ename.into(), evalue: format!("{reason}{at}. {lost}"), traceback }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_death_names_its_reason_and_what_was_lost() {
        let told = |how: &str, tail: &str, killer| death(how, tail, killer, None, &["x".to_owned()]).evalue;
        let kill = "signal: 9 (SIGKILL)";
        assert!(told(kill, "", Killer::OutOfMemory).starts_with("out of memory: the system"));
        assert!(told(kill, "", Killer::Unknown).starts_with("the process was killed from outside"));
        assert!(told(kill, "", Killer::Kernel).starts_with("the cell did not stop"));
        let failed = "memory allocation of 4294967296 bytes failed";
        let expected = "out of memory: an allocation of 4096.0 MiB failed. Lost variables: x.";
        assert_eq!(told("signal: 6 (SIGABRT)", failed, Killer::Unknown), expected);
        assert!(
            told("exit status: 3", "", Killer::Unknown).starts_with("the code ended its process with exit status: 3")
        );
        let spot = Spot { name: "In [3]:2:5".to_owned(), line: Some("   2 | abort()".to_owned()) };
        let crashed = death("signal: 6 (SIGABRT)", "", Killer::Unknown, Some(spot), &[]);
        assert_eq!(crashed.evalue, "the code aborted its process (SIGABRT) at In [3]:2:5. No variable was lost.");
        assert_eq!(crashed.traceback[1], "   2 | abort()");
    }
}
