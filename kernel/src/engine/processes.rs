//! The processes that a cell has started, as the system lists them.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// How long a process that was asked to end may take before it is named to the user.
const PATIENCE: Duration = Duration::from_millis(300);
/// How many ticks a second has in the system's start times of processes.
const TICKS: u64 = 100;

/// A moment, in the units of the system's start times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tick(u64);

impl Tick {
    pub fn now() -> Tick {
        // SAFETY: a `timespec` of zeros is valid, and the system writes no more than one.
        let now = unsafe {
            let mut now: libc::timespec = std::mem::zeroed();
            libc::clock_gettime(libc::CLOCK_BOOTTIME, &mut now);
            now
        };
        let (seconds, nanos) = (u64::try_from(now.tv_sec).unwrap_or(0), u64::try_from(now.tv_nsec).unwrap_or(0));
        Tick(seconds * TICKS + nanos / (1_000_000_000 / TICKS))
    }
}

/// A process that lives.
struct Process {
    parent: i32,
    started: Tick,
    /// Whether it has ended while its parent has not asked for its status.
    ended: bool,
}

/// A process that keeps running after a stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Running {
    pub id: i32,
    pub command: String,
}

/// Interrupts the processes that this one, or one below it, has started since `start`, as `Ctrl-C` does in a terminal.
pub fn interrupt_since(start: Tick) {
    for id in since(start) {
        if let Some(id) = Pid::from_raw(id) {
            let _ = kill_process(id, Signal::INT);
        }
    }
}

/// Those that still run a moment later.
pub fn that_go_on(start: Tick) -> Vec<Running> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let left = since(start);
        if left.is_empty() || Instant::now() > deadline {
            return left.into_iter().map(|id| Running { id, command: command(id) }).collect();
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn since(start: Tick) -> Vec<i32> {
    let processes = processes();
    let this = i32::try_from(std::process::id()).unwrap_or(0);
    let mut found: Vec<i32> = processes
        .iter()
        .filter(|(_, process)| process.started >= start && !process.ended && is_below(process.parent, this, &processes))
        .map(|(&id, _)| id)
        .collect();
    found.sort_unstable();
    found
}

fn is_below(mut parent: i32, this: i32, processes: &HashMap<i32, Process>) -> bool {
    // The system's first process is its own parent's child.
    for _ in 0..processes.len() {
        if parent == this {
            return true;
        }
        match processes.get(&parent) {
            Some(process) => parent = process.parent,
            None => return false,
        }
    }
    false
}

fn processes() -> HashMap<i32, Process> {
    let all = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    all.filter_map(|entry| {
        let id: i32 = entry.file_name().to_str()?.parse().ok()?;
        Some((id, parse(&std::fs::read_to_string(entry.path().join("stat")).ok()?)?))
    })
    .collect()
}

/// Reads `pid (name) state parent …`; the name may contain any text.
fn parse(stat: &str) -> Option<Process> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ended = matches!(*fields.first()?, "Z" | "X");
    Some(Process { parent: fields.get(1)?.parse().ok()?, started: Tick(fields.get(19)?.parse().ok()?), ended })
}

fn command(id: i32) -> String {
    let command = std::fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
    let words: Vec<_> = command.split(|&byte| byte == 0).map(String::from_utf8_lossy).collect();
    let mut command: String = words.join(" ").trim().chars().take(60).collect();
    if command.is_empty() {
        command = std::fs::read_to_string(format!("/proc/{id}/comm")).unwrap_or_default().trim().to_owned();
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_line_is_read_whatever_the_name() {
        let numbers = (5..=52).map(|field| field.to_string()).collect::<Vec<_>>().join(" ");
        let process = parse(&format!("7 (a) b (c)) S 4 {numbers}")).unwrap();
        assert_eq!((process.parent, process.started, process.ended), (4, Tick(22), false));
        assert!(parse(&format!("7 (x) Z 4 {numbers}")).is_some_and(|process| process.ended));
        assert!(parse("7 (x) S").is_none() && parse("").is_none());
    }

    #[test]
    fn a_process_that_goes_on_is_named_unless_it_was_there_before() {
        let start = Tick::now();
        let mut program = std::process::Command::new("sleep").arg("61").spawn().unwrap();
        let id = i32::try_from(program.id()).unwrap();
        std::thread::sleep(Duration::from_millis(20));
        let (since, later) = (that_go_on(start), that_go_on(Tick::now()));
        program.kill().unwrap();
        program.wait().unwrap();
        // Other tests may have started processes too.
        let of_this = |running: &&Running| running.id == id;
        assert_eq!(since.iter().find(of_this).map(|running| running.command.as_str()), Some("sleep 61"));
        assert!(!later.iter().any(|running| running.id == id));
    }
}
